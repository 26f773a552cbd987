"""Writes video files."""

from pathlib import Path

import av
import numpy as np

from health_actions.paths import replacing
from health_actions.video import SYNTHETIC_MARK


def write_video(path, frames: np.ndarray, fps: int = 30, quality: int = 22, preset: str = "slow") -> Path:
    """Write frames as H.264 in an mp4 file, at once or not at all; equal frames give equal files.

    frames: uint8 (time, height, width, 3) with even height and width; quality: constant rate factor of x264, lower is
    better. Raises ValueError for frames of another shape or kind.
    """
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != "uint8" or any(n % 2 for n in frames.shape[1:3]):
        raise ValueError(f"frames: expected uint8 (time, even, even, 3), found {frames.dtype} {frames.shape}")
    path = Path(path)
    with replacing(path) as unfinished, av.open(str(unfinished), "w", format="mp4") as container:
        container.metadata["comment"] = SYNTHETIC_MARK  # every file says itself that it is synthetic
        # x264's fast paths round by processor and memory layout; without them equal frames give equal bytes.
        options = {"crf": str(quality), "preset": preset, "x264-params": "cpu-independent=1"}
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path
