"""Video files in, frames out: the only module that knows PyAV."""

import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

# Stands in the comment of every video that `synthetic_clips` renders, so that no report can take it for real.
SYNTHETIC_MARK = "synthetic clip, rendered by health-actions"
LARGEST = 8_400_000  # pixels of a frame: a phone's 4K
SLIMMEST = 16  # longer side of a frame for each pixel of the shorter one: a line would become huge at a given height
PATIENCE = 60.0  # seconds without a frame after which a file is given up
CLOSE = 0.002  # seconds that two moments may differ and be the same
HALF_COLOURS = ("yuv420p", "yuvj420p")  # pixel formats with one colour for 2 x 2 pixels: nearly all videos'
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
        UnreadableVideo: for an empty file, a file that is no video, one without pictures, one that was cut off, whose
            pictures are larger than `LARGEST` or slimmer than `SLIMMEST`, or that takes longer than `PATIENCE`.
    """
    with _Video(path) as video:
        stream, packets = video.stream, 0
        declared = stream.frames
        for packet in video.container.demux(stream):
            packets += packet.size > 0
            video.check_time()
        if packets == 0:
            raise UnreadableVideo("no frames in the file")
        if packets < 0.95 * declared:
            raise UnreadableVideo(f"cut off: {packets} of {declared} frames are in the file")
        rate = stream.average_rate or stream.guessed_rate or 0
        return VideoFacts(packets, float(rate), stream.codec_context.width, stream.codec_context.height,
                          video.container.metadata.get("comment") == SYNTHETIC_MARK)


def read_frames(path: Path, indices, sizes=None) -> dict:
    """Decode chosen frames of a video, each scaled while it is converted to RGB.

    Args:
        path: the video.
        indices: frame numbers from 0, ascending; decoding ends with the last of them.
        sizes: squares to scale to, in pixels; None keeps the video's own size (the only key is then None).

    Returns:
        A dict size -> uint8 array (len(indices), size, size, 3), RGB, upright where the file says how it is rotated.

    Raises:
        UnreadableVideo: as `probe`; and when the file ends, or is damaged, before the last frame asked for.
    """
    sizes = [None] if sizes is None else list(sizes)
    indices = list(indices)
    wanted, chosen, damaged = set(indices), {size: [] for size in sizes}, 0
    with _Video(path) as video:
        for frame in video.decode():
            if video.position - 1 in wanted:
                damaged += frame.is_corrupt
                for size in sizes:
                    chosen[size].append(video.scale(frame, size))
            if video.position > indices[-1]:
                break
        if video.position <= indices[-1]:
            raise UnreadableVideo(f"damaged: only {video.position} of the first {indices[-1] + 1} frames could be "
                                  "decoded")
        if damaged > len(indices) // 20:
            raise UnreadableVideo(f"damaged: {damaged} of {len(indices)} frames are incomplete")
        return {size: np.stack(frames) for size, frames in chosen.items()}


def stream_frames(path: Path, height: int):
    """Decode a video frame by frame, so that memory stays flat however long it is.

    Args:
        path: the video.
        height: of the frames, pixels; the width follows (NTU's 1920 x 1080 gives 427 x 240).

    Yields:
        uint8 (height, width, 3), RGB, upright; all of the same shape.

    Raises:
        UnreadableVideo: as `probe`; and when one in twenty of its frames is damaged or missing, or their shape changes.
    """
    expected, damaged = probe(path).frames, 0
    with _Video(path) as video:
        for frame in video.decode():
            damaged += frame.is_corrupt
            yield video.check_shape(video.scale_to_height(frame, height))
        if video.position < 0.95 * expected:
            raise UnreadableVideo(f"damaged: only {video.position} of {expected} frames could be decoded")
        if damaged > video.position // 20:
            raise UnreadableVideo(f"damaged: {damaged} of {video.position} frames are incomplete")


def sample_frames(path: Path, *, every: float, longest: float, size: int | None = None, height: int | None = None):
    """Decode a video frame by frame and give what it shows every so many seconds, whatever its rate and however long.

    Args:
        path: the video.
        every: seconds; the frame that is seen at that moment, the last one before it.
        longest: seconds; a longer video is refused as soon as that is known.
        size: squares of so many pixels; or
        height: of the frames, pixels; the width follows.

    Yields:
        uint8 (height, width, 3), RGB, upright; all of the same shape.

    Raises:
        UnreadableVideo: as `probe`; and when it is damaged or too long, or the shape of its frames changes.
    """
    too_long = f"too long: more than {longest:g} seconds"
    with _Video(path) as video:
        stream = video.stream
        if stream.duration and stream.time_base and stream.duration * stream.time_base > longest:
            raise UnreadableVideo(too_long)
        rate = float(stream.average_rate or stream.guessed_rate or 30)
        scale = (lambda frame: video.scale(frame, size)) if size else (
            lambda frame: video.scale_to_height(frame, height))
        first, taken, seen = None, 0, None
        for frame in video.decode():
            seconds = (video.position - 1) / rate if frame.time is None else frame.time
            first = seconds if first is None else first
            seconds -= first
            if seconds > longest:
                raise UnreadableVideo(too_long)
            while seen is not None and taken * every < seconds - CLOSE:
                yield seen
                taken += 1
            if taken * every <= seconds + CLOSE:
                seen = video.check_shape(scale(frame))
                yield seen
                taken += 1
            elif (taken * every - seconds) < 1.5 / rate:  # it may be the last one before the next moment
                seen = video.check_shape(scale(frame))
        if not video.position:
            raise UnreadableVideo("no frames in the file")


class _Video:
    """`with _Video(path) as video`: an open file; every way in which its bytes can fail becomes an UnreadableVideo.

    That holds for the whole block, which so must raise nothing else of its own.
    """

    def __init__(self, path: Path):
        self.path, self.position, self.shape, self.start = Path(path), 0, None, time.monotonic()
        self.scalers = defaultdict(VideoReformatter)  # kept, since each prepares tables for what it does

    def __enter__(self):
        if not self.path.is_file():
            raise UnreadableVideo("no such file")
        if self.path.stat().st_size == 0:
            raise UnreadableVideo("empty file (0 bytes)")
        try:
            # FFmpeg itself refuses pictures that are larger, before it takes memory for them.
            self.container = av.open(str(self.path), metadata_errors="replace", container_options=ONLY_VIDEOS,
                                     options=LIMITS, timeout=PATIENCE)
        except av.ExitError:
            raise UnreadableVideo(f"takes too long to read: more than {PATIENCE:g} seconds") from None
        except FAILURES as error:
            raise UnreadableVideo(f"not a video, or its header is missing: {_reason(error)}") from None
        try:
            if not self.container.streams.video:
                raise UnreadableVideo("no pictures in the file")
            self.stream = self.container.streams.video[0]
            context = self.stream.codec_context
            if context is None:
                raise UnreadableVideo("its codec is not known")
            _check_size(context.width, context.height)
            context.options = LIMITS
            return self
        except BaseException:
            self.container.close()
            raise

    def __exit__(self, kind, error, _):
        width = self.stream.codec_context.width
        self.container.close()
        if isinstance(error, FAILURES) and not isinstance(error, UnreadableVideo):
            place = f" after frame {self.position}" if self.position else ""
            # FFmpeg forgets the size of pictures that it refuses.
            kind = "damaged" if width or self.position else f"too large ({LARGEST / 1e6:.0f} million pixels) or damaged"
            raise UnreadableVideo(f"{kind}: {_reason(error)}{place}") from None

    def decode(self):
        """Its frames in turn, counted in `position`."""
        self.stream.thread_type = "AUTO"
        for packet in self.container.demux(self.stream):
            for frame in packet.decode():
                self.position += 1
                _check_size(frame.width, frame.height)
                yield frame
                self.start = time.monotonic()
            self.check_time()

    def scale(self, frame: av.VideoFrame, size: int | tuple[int, int] | None) -> np.ndarray:
        """RGB, upright: squares of `size` pixels, or (width, height) before it is turned upright; None: as it is."""
        width, height = size if isinstance(size, tuple) else (size, size)
        # Threads begun for each small picture take longer than what they do: a quarter of the time with one.
        image = self.scalers[size].reformat(frame, width, height, "rgb24", interpolation="AREA", threads=1)
        return np.ascontiguousarray(np.rot90(image.to_ndarray(), round(frame.rotation / 90) % 4))

    def scale_to_height(self, frame: av.VideoFrame, height: int) -> np.ndarray:
        """RGB, upright, of so many pixels in height."""
        upright = round(frame.rotation / 90) % 2 == 0
        long, short = (frame.width, frame.height) if upright else (frame.height, frame.width)
        width = max(1, round(long * height / short))
        size = (width, height) if upright else (height, width)
        if frame.format.name not in HALF_COLOURS:
            return self.scale(frame, size)
        # Scaled first, then RGB: half the time of both at once, and JPEG keeps colours at half the size, too.
        scaled = self.scalers[frame.format.name].reformat(frame, *size, frame.format.name, interpolation="AREA",
                                                          threads=1)
        image = self.scalers[size].reformat(scaled, *size, "rgb24", threads=1).to_ndarray()
        return np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90) % 4))

    def check_time(self) -> None:
        """Give up a file that keeps FFmpeg busy."""
        if time.monotonic() - self.start > PATIENCE:
            raise UnreadableVideo(f"takes too long to decode: more than {PATIENCE:g} seconds without a frame")

    def check_shape(self, frame: np.ndarray) -> np.ndarray:
        """The frame, where it has the shape of the first one."""
        self.shape = self.shape or frame.shape
        if frame.shape != self.shape:
            raise UnreadableVideo(f"its pictures change their shape after frame {self.position - 1}")
        return frame


LIMITS = {"max_pixels": str(LARGEST)}
# What PyAV and NumPy raise of damaged bytes; texts are the user's file's, so even UnicodeDecodeError (a ValueError).
FAILURES = (av.FFmpegError, ValueError, ArithmeticError, LookupError, TypeError, RuntimeError, MemoryError)


def _check_size(width: int, height: int) -> None:
    if width * height > LARGEST:
        raise UnreadableVideo(f"too large: {width} x {height} pixels, at most {LARGEST / 1e6:.0f} million are read")
    if max(width, height) > SLIMMEST * min(width, height) > 0:
        raise UnreadableVideo(f"too slim: {width} x {height} pixels, one side is more than {SLIMMEST} times the other")


def _reason(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "decoding it takes too much memory"
    if isinstance(error, av.ExitError):
        return f"it took more than {PATIENCE:g} seconds to read"
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0].lower()
