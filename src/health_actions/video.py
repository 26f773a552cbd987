"""Video files in, frames out: the only module that knows PyAV."""

import fractions
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

# Stands in the comment of every video that `health_actions.synthetic` renders, so that no report can take it for real.
SYNTHETIC_MARK = "synthetic clip, rendered by health-actions"
LARGEST = 8_400_000  # pixels of a frame that somebody hands in: a phone's 4K
CLOSE = 0.002  # seconds that two moments may differ and be the same
SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg")
# FFmpeg would also follow a playlist, whatever its name, to other files and to the network: only containers are opened.
ONLY_VIDEOS = {"format_whitelist": "mov,matroska,avi,mpeg,mpegts,mpegvideo,h264,hevc", "protocol_whitelist": "file"}


class UnreadableVideo(ValueError):
    """A file is no video that can be used; the message says why, for the person who looks at the list of clips."""


@dataclass
class VideoFacts:
    """What a video's container tells: its frames, their rate and size, and whether this project rendered it."""

    frames: int
    fps: float
    width: int
    height: int
    synthetic: bool

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.frames / self.fps if self.fps else 0.0


def probe(path: Path) -> VideoFacts:
    """Count a video's frames without decoding them.

    Raises:
        UnreadableVideo: for an empty file, a file that is no video, one without pictures, and one that was cut off.
    """
    with _open(path) as (container, stream):
        declared = stream.frames
        try:
            packets = sum(1 for packet in container.demux(stream) if packet.size)
        except av.FFmpegError as error:
            raise UnreadableVideo(f"damaged: {_reason(error)}") from None
        if packets == 0:
            raise UnreadableVideo("no frames in the file")
        if packets < 0.95 * declared:
            raise UnreadableVideo(f"cut off: {packets} of {declared} frames are in the file")
        rate = stream.average_rate or stream.guessed_rate or fractions.Fraction(0)
        return VideoFacts(packets, float(rate), stream.codec_context.width, stream.codec_context.height,
                          container.metadata.get("comment") == SYNTHETIC_MARK)


def read_frames(path: Path, indices, sizes=None) -> dict:
    """Decode chosen frames of a video, each scaled while it is converted to RGB.

    Args:
        path: the video.
        indices: frame numbers from 0, ascending; decoding ends with the last of them.
        sizes: squares to scale to, in pixels; None keeps the video's own size (the only key is then None).

    Returns:
        A dict size -> uint8 array (len(indices), size, size, 3), RGB, upright where the file says how it is rotated.

    Raises:
        UnreadableVideo: when the file is no video or ends, or is damaged, before the last frame asked for.
    """
    sizes = [None] if sizes is None else list(sizes)
    indices = list(indices)
    wanted, chosen = set(indices), {size: [] for size in sizes}
    with _open(path) as (container, stream):
        stream.thread_type = "AUTO"
        position, damaged = 0, 0
        try:
            for frame in container.decode(stream):
                if position in wanted:
                    damaged += frame.is_corrupt
                    for size in sizes:
                        chosen[size].append(_to_rgb(frame, size))
                position += 1
                if position > indices[-1]:
                    break
        except av.FFmpegError as error:
            raise UnreadableVideo(f"damaged: {_reason(error)} after frame {position}") from None
    if position <= indices[-1]:
        raise UnreadableVideo(f"damaged: only {position} of the first {indices[-1] + 1} frames could be decoded")
    if damaged > len(indices) // 20:
        raise UnreadableVideo(f"damaged: {damaged} of {len(indices)} frames are incomplete")
    return {size: np.stack(frames) for size, frames in chosen.items()}


def stream_frames(path: Path, height: int):
    """Decode a video frame by frame, so that memory stays flat however long it is.

    Args:
        path: the video.
        height: of the frames, pixels; the width follows (NTU's 1920 x 1080 gives 427 x 240).

    Yields:
        uint8 (height, width, 3), RGB, upright.

    Raises:
        UnreadableVideo: when the file is no video, or one in twenty of its frames is damaged or missing.
    """
    expected = probe(path).frames
    with _open(path) as (container, stream):
        stream.thread_type = "AUTO"
        position, damaged = 0, 0
        try:
            for frame in container.decode(stream):
                damaged += frame.is_corrupt
                position += 1
                yield _to_height(frame, height)
        except av.FFmpegError as error:
            raise UnreadableVideo(f"damaged: {_reason(error)} after frame {position}") from None
    if position < 0.95 * expected:
        raise UnreadableVideo(f"damaged: only {position} of {expected} frames could be decoded")
    if damaged > position // 20:
        raise UnreadableVideo(f"damaged: {damaged} of {position} frames are incomplete")


def sample_frames(path: Path, *, every: float, longest: float, size: int | None = None, height: int | None = None):
    """Decode a video frame by frame and give what it shows every so many seconds, whatever its rate and however long.

    Args:
        path: the video.
        every: seconds; the frame that is seen at that moment, the last one before it.
        longest: seconds; a longer video is refused as soon as that is known.
        size: squares of so many pixels; or
        height: of the frames, pixels; the width follows.

    Yields:
        uint8 (height, width, 3), RGB, upright.

    Raises:
        UnreadableVideo: when the file is no video, is damaged, has larger pictures than 8 megapixels, or is too long.
    """
    too_long = f"too long: more than {longest:g} seconds"
    with _open(path) as (container, stream):
        width_told, height_told = stream.codec_context.width, stream.codec_context.height
        if width_told * height_told > LARGEST:
            raise UnreadableVideo(f"too large: {width_told} x {height_told} pixels, at most {LARGEST / 1e6:.0f} "
                                  "million are read")
        if stream.duration and stream.time_base and stream.duration * stream.time_base > longest:
            raise UnreadableVideo(too_long)
        stream.thread_type = "AUTO"
        rate = float(stream.average_rate or stream.guessed_rate or 30)
        scale = (lambda frame: _to_rgb(frame, size)) if size else (lambda frame: _to_height(frame, height))
        first, position, taken, seen = None, 0, 0, None
        try:
            for frame in container.decode(stream):
                seconds = position / rate if frame.time is None else frame.time
                first = seconds if first is None else first
                seconds, position = seconds - first, position + 1
                if seconds > longest:
                    raise UnreadableVideo(too_long)
                while seen is not None and taken * every < seconds - CLOSE:
                    yield seen
                    taken += 1
                if taken * every <= seconds + CLOSE:
                    seen = scale(frame)
                    yield seen
                    taken += 1
                elif (taken * every - seconds) < 1.5 / rate:  # it may be the last one before the next moment
                    seen = scale(frame)
        except av.FFmpegError as error:
            raise UnreadableVideo(f"damaged: {_reason(error)} after frame {position}") from None
    if not position:
        raise UnreadableVideo("no frames in the file")


def _to_height(frame: av.VideoFrame, height: int) -> np.ndarray:
    """A frame of so many pixels in height once it stands upright."""
    upright = round(frame.rotation / 90) % 2 == 0
    long, short = (frame.width, frame.height) if upright else (frame.height, frame.width)
    width = max(1, round(long * height / short))
    return _to_rgb(frame, (width, height) if upright else (height, width))


def _to_rgb(frame: av.VideoFrame, size: int | tuple[int, int] | None) -> np.ndarray:
    width, height = size if isinstance(size, tuple) else (size, size)
    image = frame.to_ndarray(format="rgb24", width=width, height=height, interpolation="AREA")
    return np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90) % 4))


class _open:
    """`with _open(path) as (container, stream)`, every way of failing turned into an UnreadableVideo."""

    def __init__(self, path: Path):
        self.path = Path(path)

    def __enter__(self):
        if not self.path.is_file():
            raise UnreadableVideo("no such file")
        if self.path.stat().st_size == 0:
            raise UnreadableVideo("empty file (0 bytes)")
        try:
            self.container = av.open(str(self.path), metadata_errors="replace", container_options=ONLY_VIDEOS)
        except (av.FFmpegError, ValueError) as error:
            raise UnreadableVideo(f"not a video, or its header is missing: {_reason(error)}") from None
        if not self.container.streams.video:
            self.container.close()
            raise UnreadableVideo("no pictures in the file")
        if self.container.streams.video[0].codec_context is None:
            self.container.close()
            raise UnreadableVideo("its codec is not known")
        return self.container, self.container.streams.video[0]

    def __exit__(self, *_):
        self.container.close()


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).splitlines()[0].lower()
