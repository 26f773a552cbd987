"""Uploaded files: which are accepted, and how their frames are read."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from health_actions.data.sandbox import Sandbox
from health_actions.data.video import UnreadableVideo

MAX_FILES = 24  # at most, in one answer
MAX_BYTES = 500_000_000  # bytes of a file
# First bytes of MP4, MOV, WebM, MKV, AVI and MPEG files. Text is refused: FFmpeg may take it for a list of files.
KINDS = re.compile(rb".{4}(ftyp|moov|mdat|wide|free|skip|G.{191}G)|\x1aE\xdf\xa3|RIFF.{4}AVI |\0\0\0?\x01|G.{187}G",
                   re.DOTALL)
KIND_NAMES = "MP4, MOV, WebM, MKV, AVI or MPEG"


@dataclass
class Upload:
    """An uploaded file.

    Args:
        path: of the file.
        seconds: its length, known once its first frame was read; before that 0.
    """

    path: Path
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """Its name for people: one line, at most 60 characters."""
        name = "".join(letter if letter.isprintable() else "?" for letter in Path(self.path).name)
        return name if len(name) <= 60 else f"{name[:40]}...{name[-17:]}"


def check_upload(path: Path) -> None:
    """Check a file's size and first bytes; its name is not looked at.

    Raises:
        UnreadableVideo: for a file that is missing, empty, too large, or not a video of a known kind.
    """
    try:
        size = path.stat().st_size if path.is_file() else None
    except (OSError, ValueError):  # a name that is too long or has a zero in it
        size = None
    if size is None:
        raise UnreadableVideo("no such file")
    if size == 0:
        raise UnreadableVideo("empty file (0 bytes)")
    if size > MAX_BYTES:
        raise UnreadableVideo(f"too large: {size / 1e6:.0f} MB, the limit is {MAX_BYTES / 1e6:.0f} MB")
    with path.open("rb") as file:
        if not KINDS.match(file.read(200)):
            raise UnreadableVideo(f"not a video, expected {KIND_NAMES}")


def read_upload(upload: Upload, **options) -> Iterator[np.ndarray]:
    """Frames of an upload, decoded in the sandbox; notes its length. For `Recogniser.read`.

    Args:
        options: of `sample_frames`.

    Raises:
        UnreadableVideo: see `check_upload` and `Sandbox`.
        TooLong: when it is longer than `longest`.
    """
    check_upload(upload.path)
    with Sandbox() as sandbox:
        upload.seconds = sandbox.probe(upload.path).duration
        yield from sandbox.sample(upload.path, **options)
