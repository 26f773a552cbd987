"""Video files in, frames out, with PyAV; `sandbox` calls these functions in a limited subprocess."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

# The comment of every video that `synthetic_clips` renders, so that no report can take it for real.
SYNTHETIC_MARK = "synthetic clip, rendered by health-actions"
LARGEST = 8_400_000  # pixels of a frame: a phone's 4K
SLIMMEST = 16  # longer side of a frame divided by the shorter one: a line would become huge at a given height
COMPLETE = 0.95  # share of a file's frames that must be there, and share of the frames in use that must be whole
CLOSE = 0.002  # seconds by which two times may differ and count as equal
SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg")
# FFmpeg would also follow a playlist, whatever its name, to other files and to the network: only containers are opened.
ONLY_VIDEOS = {"format_whitelist": "mov,matroska,avi,mpeg,mpegts,mpegvideo,h264,hevc", "protocol_whitelist": "file"}
LIMITS = {"max_pixels": str(LARGEST)}  # FFmpeg refuses larger pictures before it takes memory for them
# What PyAV and NumPy raise for damaged bytes; UnicodeDecodeError, from texts in the file, is a ValueError.
FAILURES = (av.FFmpegError, ValueError, ArithmeticError, LookupError, TypeError, RuntimeError, MemoryError)


class UnreadableVideo(ValueError):
    """A video cannot be used. The message, one line, gives the reason to the person who looks at the list of clips."""


class TooLong(UnreadableVideo):
    """A video is longer than the caller allows."""


@dataclass
class VideoFacts:
    """What a video's container states."""

    frames: int
    fps: float  # frames per second; 0 where the file does not state it
    width: int  # pixels, before rotation
    height: int
    synthetic: bool  # rendered by `synthetic_clips`

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.frames / self.fps if self.fps else 0.0


def probe(path: Path) -> VideoFacts:
    """Count a video's frames without decoding them; UnreadableVideo when it is cut off, no video, too large or slim."""
    with _open(path) as video:
        for packet in video.container.demux(video.stream):
            video.packets += packet.size > 0
        if video.packets == 0:
            raise UnreadableVideo("no frames in the file")
        if video.packets < COMPLETE * video.stream.frames:
            raise UnreadableVideo(f"cut off: {video.packets} of {video.stream.frames} frames are in the file")
        synthetic = video.container.metadata.get("comment") == SYNTHETIC_MARK
        return VideoFacts(video.packets, video.rate, video.stream.width, video.stream.height, synthetic)


def stream_frames(path: Path, *, height: int, indices: Sequence[int] | None = None) -> Iterator[np.ndarray]:
    """Decode a video frame by frame to uint8 (height, width, 3), RGB, upright, all of one shape. Memory stays flat.

    The width follows from the height. `indices` are numbers of frames, from 0, ascending; None yields every frame.
    UnreadableVideo as `probe`, and when more than one frame in twenty is missing or incomplete, or the shape changes.
    """
    wanted, last = (None, None) if indices is None else (set(map(int, indices)), int(indices[-1]))
    used = incomplete = 0
    with _open(path) as video:
        for _, frame in video.decode():
            number = video.position - 1
            if wanted is None or number in wanted:
                used, incomplete = used + 1, incomplete + frame.is_corrupt
                yield video.convert(frame, height)
            if number == last:
                break
        expected, share = (max(video.packets, video.stream.frames), COMPLETE) if last is None else (last + 1, 1)
        if video.position < share * expected:
            raise UnreadableVideo(f"damaged: only {video.position} of {expected} frames could be decoded")
        if incomplete > (1 - COMPLETE) * used:
            raise UnreadableVideo(f"damaged: {incomplete} of {used} frames are incomplete")


def sample_frames(path: Path, *, height: int, every: float, longest: float) -> Iterator[np.ndarray]:
    """Decode what is on screen every `every` seconds, whatever the frame rate; frames as those of `stream_frames`.

    The last frame at or before each time is taken. TooLong when the video is longer than `longest` seconds;
    UnreadableVideo as `stream_frames`, but a file may end early.
    """
    with _open(path) as video:
        stated = (video.stream.duration or 0) * (video.stream.time_base or 0)
        taken, seconds, shown = 0, 0.0, None
        for seconds, frame in video.decode():
            if max(seconds, stated) > longest:
                raise TooLong(f"too long: more than {longest:g} seconds")
            while shown is not None and taken * every < seconds - CLOSE:
                yield video.convert(shown, height)
                taken += 1
            shown = frame
        while taken * every <= seconds + CLOSE:
            yield video.convert(shown, height)
            taken += 1


@contextmanager
def _open(path: Path) -> Iterator["_Video"]:
    """Open a file; whatever fails here or in the block becomes an UnreadableVideo."""
    if not Path(path).is_file():
        raise UnreadableVideo("no such file")
    if Path(path).stat().st_size == 0:
        raise UnreadableVideo("empty file (0 bytes)")
    try:
        container = av.open(str(path), metadata_errors="replace", container_options=ONLY_VIDEOS, options=LIMITS)
    except FAILURES as error:
        raise UnreadableVideo(f"not a video, or its header is missing: {_describe(error)}") from None
    with container:
        video = _Video(container)
        try:
            yield video
        except UnreadableVideo:
            raise
        except FAILURES as error:
            place = f" after frame {video.position}" if video.position else ""
            known = place or video.stream.codec_context.width  # FFmpeg forgets the size of pictures that it refuses
            fault = "damaged" if known else f"too large ({LARGEST / 1e6:.0f} million pixels) or damaged"
            raise UnreadableVideo(f"{fault}: {_describe(error)}{place}") from None


class _Video:
    """An open file; `packets` and `position` are the frames read from it and decoded so far."""

    def __init__(self, container: av.container.InputContainer):
        if not container.streams.video:
            raise UnreadableVideo("no pictures in the file")
        self.container, self.stream = container, container.streams.video[0]
        if self.stream.codec_context is None:
            raise UnreadableVideo("its codec is not known")
        _check_size(self.stream.codec_context.width, self.stream.codec_context.height)
        self.stream.codec_context.options = LIMITS
        self.rate = float(self.stream.average_rate or self.stream.guessed_rate or 0)
        self.packets, self.position, self.shape = 0, 0, None
        self.scaler, self.converter = VideoReformatter(), VideoReformatter()  # two, since each keeps tables of its work

    def decode(self) -> Iterator[tuple[float, av.VideoFrame]]:
        """Yield (seconds since the first frame, frame), in the order of display."""
        self.stream.thread_type, first = "AUTO", None
        for packet in self.container.demux(self.stream):
            self.packets += packet.size > 0
            for frame in packet.decode():
                self.position += 1
                _check_size(frame.width, frame.height)
                seconds = (self.position - 1) / (self.rate or 30) if frame.time is None else frame.time
                first = seconds if first is None else first
                yield seconds - first, frame
        if not self.position:
            raise UnreadableVideo("no frames in the file")

    def convert(self, frame: av.VideoFrame, height: int) -> np.ndarray:
        """Scale a frame to uint8 (height, width, 3), RGB, upright; its shape must be that of the frames before."""
        turns = round(frame.rotation / 90) % 4
        order = -1 if turns % 2 else 1
        wide, high = (frame.width, frame.height)[::order]
        size = (max(1, round(wide * height / high)), height)[::order]
        options = {"interpolation": "AREA", "threads": 1}  # more threads than one take four times as long
        if frame.format.name in ("yuv420p", "yuvj420p"):  # one colour for 2 x 2 pixels, as nearly all videos have
            # Scaled first, then RGB: half the time of both at once, and JPEG keeps colours at half the size, too.
            frame = self.scaler.reformat(frame, *size, frame.format.name, **options)
            options = {"threads": 1}
        image = self.converter.reformat(frame, *size, "rgb24", **options).to_ndarray()
        picture = np.ascontiguousarray(np.rot90(image, turns))
        self.shape = self.shape or picture.shape
        if picture.shape != self.shape:
            raise UnreadableVideo(f"its pictures change their shape after frame {self.position - 1}")
        return picture


def _check_size(width: int, height: int) -> None:
    if width * height > LARGEST:
        raise UnreadableVideo(f"too large: {width} x {height} pixels, at most {LARGEST / 1e6:.0f} million are read")
    if max(width, height) > SLIMMEST * min(width, height) > 0:
        raise UnreadableVideo(f"too slim: {width} x {height} pixels, one side is more than {SLIMMEST} times the other")


def _describe(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "decoding it takes too much memory"
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0].lower()
