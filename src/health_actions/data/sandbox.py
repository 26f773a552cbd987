"""Videos from whoever has a browser: what is taken of them, and a process of its own in which each is decoded.

A file that crashes its decoder, keeps it busy or fills the memory does so there. That process has no access to the
models, writes no file, and is killed when it says nothing for too long; frames come back as plain bytes.
"""

import json
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from pathlib import Path

import numpy as np

from health_actions.data.video import UnreadableVideo, probe, sample_frames

FILES = 24  # that are looked at together
LARGEST = 500_000_000  # bytes of a file
MEMORY = 1_000_000_000  # bytes that decoding may take
PATIENCE = 60.0  # seconds without a frame after which a file is given up
WORK = 3600.0  # seconds that a file may take as a whole

# How files of these kinds begin. A list of other files, which FFmpeg would open, is none of them.
KINDS = re.compile(rb".{4}(ftyp|moov|mdat|wide|free|skip)|\x1aE\xdf\xa3|RIFF.{4}AVI |\0\0\0?\x01|G.{187}G", re.DOTALL)
KIND_NAMES = "MP4, MOV, WebM, MKV, AVI or MPEG"


class TooLong(UnreadableVideo):
    """A video that is longer than what was asked for."""


@dataclass
class Upload:
    """A file that somebody handed in.

    Args:
        path: where it lies.
        seconds: its length, once the first frame was read; 0 where that is not known.
    """

    path: Path
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """Its name for people: one line, not too long."""
        name = "".join(letter if letter.isprintable() else "?" for letter in Path(self.path).name)
        return name if len(name) <= 60 else f"{name[:40]}...{name[-17:]}"


def check_file(path: Path) -> None:
    """Look at a file's size and first bytes; its name tells nothing.

    Raises:
        UnreadableVideo: when it is none of the kinds of video that are taken, empty or too large.
    """
    try:
        size = path.stat().st_size if path.is_file() else None
    except (OSError, ValueError):  # a name that is too long or has a zero in it
        size = None
    if size is None:
        raise UnreadableVideo("no such file")
    if size == 0:
        raise UnreadableVideo("empty file (0 bytes)")
    if size > LARGEST:
        raise UnreadableVideo(f"too large: {size / 1e6:.0f} MB, at most {LARGEST / 1e6:.0f} MB are taken")
    with path.open("rb") as file:
        if not KINDS.match(file.read(200)):
            raise UnreadableVideo(f"not a video that can be read: {KIND_NAMES} is")


def sample_apart(video: Upload | Path, **options) -> Iterator[np.ndarray]:
    """`sample_frames` in a process of its own.

    Args:
        video: an upload, whose length is noted as soon as it is known; or just its path.
        options: of `sample_frames`.

    Yields:
        uint8 (height, width, 3), see `sample_frames`.

    Raises:
        TooLong: see `sample_frames`.
        UnreadableVideo: see `check_file` and `sample_frames`; or when decoding takes too long or too much memory.
    """
    upload = video if isinstance(video, Upload) else Upload(Path(video))
    check_file(upload.path)
    receiver, sender = Pipe(duplex=False)
    with receiver, sender:
        command = [sys.executable, "-m", "health_actions.data.sandbox", str(sender.fileno()), str(upload.path),
                   json.dumps(options), str(MEMORY)]
        process = subprocess.Popen(command, pass_fds=[sender.fileno()], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        sender.close()
        end = time.monotonic() + WORK
        try:
            while True:
                if not receiver.poll(max(0.0, min(PATIENCE, end - time.monotonic()))):
                    raise UnreadableVideo("takes too long to decode")
                kind, shape, content = receiver.recv_bytes().split(b"\n", 2)
                if kind == b"length":
                    upload.seconds = float(content)
                elif kind == b"frame":
                    yield np.frombuffer(content, np.uint8).reshape(*map(int, shape.split(b"x")), 3)
                elif kind == b"error":
                    text = content.decode(errors="replace")
                    raise TooLong(text) if text.startswith("too long") else UnreadableVideo(text)
                else:
                    return
        except (EOFError, OSError):
            raise UnreadableVideo("damaged: its decoder broke down") from None
        finally:
            process.kill()
            process.wait()


def _decode(connection: Connection, path: Path, options: dict, memory: int) -> None:
    """What the process of its own does: sends the length, then frames, then the end or what went wrong."""
    for kind, most in ((resource.RLIMIT_DATA, memory), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CPU, int(WORK))):
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
    try:
        connection.send_bytes(b"length\n\n%f" % probe(path).duration)
        for frame in sample_frames(path, **options):
            connection.send_bytes(b"frame\n%dx%d\n" % frame.shape[:2] + frame.tobytes())
        connection.send_bytes(b"end\n\n")
    except UnreadableVideo as error:
        connection.send_bytes(b"error\n\n" + str(error).encode(errors="replace"))
    except MemoryError:
        connection.send_bytes(b"error\n\ntoo large: decoding it takes too much memory")


if __name__ == "__main__":
    with Connection(int(sys.argv[1]), readable=False) as own:
        _decode(own, Path(sys.argv[2]), json.loads(sys.argv[3]), int(sys.argv[4]))
