"""Writes video files."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np

# The comment of every clip drawn here; health_actions.data.video knows synthetic clips by the same text.
SYNTHETIC_MARK = "synthetic clip, rendered by health-actions"
AVI_SCALE = 3  # quantiser of every frame of an avi file, lower is better


@contextmanager
def write_whole(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path`; the file gets its own name only when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_video(path, frames: np.ndarray, fps: int = 30, quality: int = 22, preset: str = "slow") -> Path:
    """Write frames as a whole or not at all, as H.264 in mp4 or, if the name says .avi, as MPEG-4 part 2.

    Equal frames give equal files. frames: uint8 (time, height, width, 3) with even height and width; quality: constant
    rate factor of x264, lower is better; an avi file has its own constant quality.
    Raises ValueError for frames of another shape or kind.
    """
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != "uint8" or any(n % 2 for n in frames.shape[1:3]):
        raise ValueError(f"frames: expected uint8 (time, even, even, 3), found {frames.dtype} {frames.shape}")
    path = Path(path)
    if path.suffix == ".avi":
        # As in the recordings of NTU RGB+D. Bit-exact: without the encoder's version, on every processor alike.
        codec, form = "mpeg4", "avi"
        options = {"flags": "+bitexact+mv4", "qmin": str(AVI_SCALE), "qmax": str(AVI_SCALE), "mbd": "rd", "g": "60"}
    else:
        # x264's fast paths round by processor and memory layout; without them equal frames give equal bytes.
        codec, form = "libx264", "mp4"
        options = {"crf": str(quality), "preset": preset, "x264-params": "cpu-independent=1"}
    muxing = {"fflags": "+bitexact"} if form == "avi" else {}
    with write_whole(path) as unfinished, av.open(str(unfinished), "w", format=form, options=muxing) as container:
        container.metadata["comment"] = SYNTHETIC_MARK  # every file says itself that it is synthetic
        stream = container.add_stream(codec, rate=fps, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path
