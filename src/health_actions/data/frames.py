"""The frames of the clips, as `health_actions.data.extraction` left them: an index and one file a clip."""

import zipfile
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import simplejpeg

from health_actions.paths import place_inside

PICTURE = "image_{:05d}.jpg"  # of an archive, numbered from 1 as in the published code
COUNT = "n_frames"
LARGEST = 8_400_000  # pixels of a picture, as of a video's; a few bytes can claim many more
# What damaged or foreign files of frames raise while they are read.
DAMAGE = (zipfile.BadZipFile, zlib.error, LookupError, ValueError, EOFError, MemoryError, RuntimeError, TypeError)


def read_index(output: Path) -> pd.DataFrame:
    """Read the index that `extract_frames` wrote; recordings stay text, empty fields empty."""
    text = dict.fromkeys(
        ["clip", "path", "class", "recording", "scene", "take", "given_split", "reason", "note"], str)
    return pd.read_csv(Path(output) / "index.csv", dtype=text, keep_default_na=False, na_values={"frames": [""]})


def name_folders(clips: pd.DataFrame) -> dict[str, str]:
    """What the published code of study B calls each clip: its folder below the one of its class; no two are the same.

    Args:
        clips: one row a clip, with clip.

    Returns:
        clip -> the last part of its path; all of it, joined by _, where two clips share the last part.
    """
    names = clips["clip"].str.rpartition("/")[2]
    names = names.where(~names.duplicated(keep=False), clips["clip"].str.replace("/", "_"))
    return dict(zip(clips["clip"], names, strict=True))


def list_sizes(output: Path) -> list[int]:
    """The sizes (pixels) at which `extract_frames` kept the clips."""
    index = read_index(output)
    first = index.loc[index["status"] == "ok", "clip"].iloc[0]
    with np.load(place_inside(output, f"{first}.npz"), allow_pickle=False) as arrays:
        return sorted(int(name) for name in arrays.files if name.isdigit())


def load_frames(output: Path, clip: str, size: int) -> np.ndarray:
    """The sampled frames of one clip: uint8 (length, size, size, 3), RGB.

    Raises:
        ValueError: when the clip was not extracted at that size; says at which it was. Or when its file is damaged, or
            its name leads out of `output`.
        FileNotFoundError: when there is no such file.
    """
    file = place_inside(output, f"{clip}.npz")
    try:
        with np.load(file, allow_pickle=False) as arrays:
            if str(size) in arrays:
                return arrays[str(size)]
            sizes = ", ".join(name for name in arrays.files if name.isdigit())
    except FileNotFoundError:
        raise FileNotFoundError(f"no frames at {file}: extract them first (make repro)") from None
    except DAMAGE as error:
        raise ValueError(f"{file} holds no frames ({error}); delete it and run make repro") from None
    raise ValueError(f"{clip} was extracted at {sizes} pixels, not at {size}: add {size} to frames.sizes")


class ClipArchive:
    """A clip's frames in an archive of JPEG pictures, indexed as an array would be.

    `archive[numbers]` gives uint8 (count, height, width, 3), RGB, for frame numbers from 0 in any order, the same more
    than once; `len(archive)` is the number of frames. The compressed pictures are in memory, the frames are not.

    Args:
        file: as `extract_archives` writes it.
        decode: what makes a frame of a picture, see `decode_picture`.

    Raises:
        ValueError: when the file is no such archive, or a picture of it is damaged.
        FileNotFoundError: when there is no such file.
    """

    def __init__(self, file: Path, decode=None):
        self.file, self.decode = Path(file), decode or decode_picture
        if not self.file.is_file():
            raise FileNotFoundError(f"no frames at {self.file}: extract them first (make repro)")
        try:
            with zipfile.ZipFile(self.file) as archive:
                entries = archive.infolist()
                if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                    raise ValueError("it is compressed")  # stored, it cannot be larger than its file
                count = int(archive.read(COUNT))
                if not 0 < count < len(entries):
                    raise ValueError(f"{COUNT} says {count}, there are {len(entries) - 1} pictures")
                self.pictures = [archive.read(PICTURE.format(number + 1)) for number in range(count)]
        except DAMAGE as error:
            raise ValueError(f"{self.file} is no archive of frames ({error}); delete it and run make repro") from None

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def nbytes(self) -> int:
        """Memory that the compressed pictures take."""
        return sum(map(len, self.pictures))

    def __getitem__(self, numbers) -> np.ndarray:
        if isinstance(numbers, slice):
            numbers = range(len(self))[numbers]
        numbers = [int(number) for number in numbers]
        frames = {number: self._decode(number) for number in set(numbers)}
        return np.stack([frames[number] for number in numbers])

    def _decode(self, number: int) -> np.ndarray:
        try:
            return self.decode(self.pictures[number])
        except ValueError as error:
            raise ValueError(f"{self.file}: picture {number + 1} is damaged ({error}); delete the file and run "
                             "make repro") from None


def decode_picture(picture: bytes) -> np.ndarray:
    """A JPEG picture as uint8 (height, width, 3), RGB. Raises ValueError where it is damaged or too large."""
    height, width, *_ = simplejpeg.decode_jpeg_header(picture)
    if width * height > LARGEST:
        raise ValueError(f"it claims {width} x {height} pixels")
    return simplejpeg.decode_jpeg(picture)


def open_clip(output: Path, clip: str, decode=None) -> ClipArchive:
    """The frames of one clip, as `extract_archives` wrote them to `output`; see `ClipArchive`."""
    return ClipArchive(place_inside(output, f"{clip}.zip"), decode)
