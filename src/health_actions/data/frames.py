"""The store of frames that `extract_frames` writes: index.csv and, for each clip, `<clip>.zip`.

An archive holds image_00001.jpg, ... and n_frames (their number, as text), uncompressed; its comment, the settings
that made it as JSON. DVC would take minutes a stage for single pictures.
"""

import hashlib
import json
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import simplejpeg

from health_actions.data.video import LARGEST
from health_actions.paths import place_inside

PICTURE = "image_{:05d}.jpg"  # numbered from 1 as in the published code
COUNT = "n_frames"
# What reading damaged or foreign archives raises.
DAMAGE = (zipfile.BadZipFile, zlib.error, LookupError, ValueError, EOFError, MemoryError, RuntimeError, TypeError)


class Clip:
    """The frames of one clip, indexed as an array would be; the JPEG pictures are in memory, the frames are not.

    `clip[numbers]` decodes frames to uint8 (count, height, width, 3), RGB; numbers count from 0, in any order, or are a
    slice. `clip.pictures` are the JPEG pictures (bytes) and `clip.settings` is a dict: height, quality, length and
    stride as given to `extract_frames`, and content (SHA-256 of the video). FileNotFoundError when there is no file;
    ValueError when it is no archive of frames or a picture is damaged.
    """

    def __init__(self, file: Path):
        self.file = Path(file)
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
                self.settings: dict = json.loads(archive.comment or b"{}")
        except DAMAGE as error:
            raise ValueError(f"{self.file} is no archive of frames ({error}); delete it and run make repro") from None
        self.nbytes = sum(map(len, self.pictures))  # of memory

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, numbers: slice | Iterable[int]) -> np.ndarray:
        numbers = range(len(self))[numbers] if isinstance(numbers, slice) else [int(number) for number in numbers]
        frames = {}
        for number in set(numbers):
            try:
                frames[number] = decode_jpeg(self.pictures[number])
            except ValueError as error:
                raise ValueError(f"{self.file}: picture {number + 1} is damaged ({error}); delete the file and run "
                                 "make repro") from None
        return np.stack([frames[number] for number in numbers])


def decode_jpeg(picture: bytes) -> np.ndarray:
    """Decode a JPEG picture to uint8 (height, width, 3), RGB; ValueError when it is damaged or too large."""
    height, width, *_ = simplejpeg.decode_jpeg_header(picture)
    if width * height > LARGEST:  # a few bytes can claim as many
        raise ValueError(f"it claims {width} x {height} pixels")
    return simplejpeg.decode_jpeg(picture)


def open_clip(folder: Path, name: str) -> Clip:
    """Open a clip of a folder that `extract_frames` wrote; see `Clip`. A name that leads out of it: ValueError."""
    return Clip(place_inside(folder, f"{name}.zip"))


def read_index(folder: Path) -> pd.DataFrame:
    """Read the index that `extract_frames` wrote; recordings stay text, empty fields empty."""
    if not (Path(folder) / "index.csv").is_file():
        raise FileNotFoundError(f"no frames in {folder}: extract them first (make repro)")
    text = dict.fromkeys(["clip", "path", "class", "recording", "scene", "take", "given_split", "reason", "note"], str)
    return pd.read_csv(Path(folder) / "index.csv", dtype=text, keep_default_na=False, na_values={"frames": [""]})


def read_settings(folder: Path) -> dict:
    """The settings of `extract_frames` that made a folder: height, quality, length (None: all frames) and stride."""
    settings = open_clip(folder, read_index(folder).query("status == 'ok'")["clip"].iloc[0]).settings
    return {name: settings[name] for name in ("height", "quality", "length", "stride")}


def name_folders(clips: pd.DataFrame) -> dict[str, str]:
    """Clip -> its folder's name in study B's code: the last part of its path, or all joined by _ where two share it."""
    names = clips["clip"].str.rpartition("/")[2]
    names = names.where(~names.duplicated(keep=False), clips["clip"].str.replace("/", "_"))
    return dict(zip(clips["clip"], make_unique(names, clips["clip"]), strict=True))


def make_unique(names: pd.Series, keys: pd.Series) -> pd.Series:
    """Names of files, of which no two are one file anywhere: some disks ignore case or how an accent is written.

    A name that another one equals so, or that is too long for a suffix, ends in a hash of its key; others stay.
    """
    alike = names.map(lambda name: unicodedata.normalize("NFC", name).casefold()).duplicated(keep=False)
    parts = names.str.rpartition("/")
    long = parts[2].str.encode("utf-8").str.len() > 255 - len(".zip")
    hashes = keys.map(lambda key: hashlib.sha256(key.encode()).hexdigest()[:8])
    short = parts[2].str.encode("utf-8").str[:200].str.decode("utf-8", errors="ignore")
    return names.where(~(alike | long), parts[0] + parts[1] + short + "-" + hashes)
