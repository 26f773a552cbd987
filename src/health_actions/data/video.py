"""Video files in, frames out, with PyAV; `sandbox` calls these functions in a limited subprocess."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
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
LATE = 0.015  # seconds by which a frame may be late, as a camera's are; below 1/60, by which it is at 24 a second
RATE = 30  # frames per second of the clips of both studies; videos of other rates are sampled at this one
LONGEST_STILL = 30.0  # seconds from one frame to the next; after more than that, a file's clock has jumped
SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".3gp", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".m2t",
            ".3g2", ".qt", ".vob", ".divx")
OTHER_SUFFIXES = (".wmv", ".asf", ".flv", ".f4v", ".ogv", ".mxf", ".dv", ".rm", ".rmvb", ".gif")  # not read
# FFmpeg would also follow a playlist, whatever its name, to other files and to the network: only containers are opened.
ONLY_VIDEOS = {"format_whitelist": "mov,matroska,avi,mpeg,mpegts,mpegvideo,h264,hevc", "protocol_whitelist": "file"}
UPRIGHT = np.array([1, 0, 0, 0, 1], np.int32)  # the start of a display matrix that changes nothing
LIMITS = {"max_pixels": str(LARGEST)}  # FFmpeg refuses larger pictures before it takes memory for them
OPENING = {"metadata_errors": "replace", "container_options": ONLY_VIDEOS, "options": LIMITS}
# What PyAV and NumPy raise for damaged bytes; UnicodeDecodeError, from texts in the file, is a ValueError.
FAILURES = (av.FFmpegError, ValueError, ArithmeticError, LookupError, TypeError, RuntimeError, MemoryError)


class UnreadableVideo(ValueError):
    """A video cannot be used. The message, one line, gives the reason to the person who looks at the list of clips."""


class TooLong(UnreadableVideo):
    """A video is longer than the caller allows."""


@dataclass
class VideoFacts:
    """What is known of a video before it is decoded."""

    frames: int  # that a player shows
    fps: float  # frames per second, the mean over the video
    width: int  # pixels, before rotation
    height: int
    synthetic: bool  # rendered by `synthetic_clips`

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.frames / self.fps

    @property
    def samples(self) -> int:
        """Number of frames when it is sampled at `RATE`, as `stream_frames` does."""
        return _count_samples((self.frames - 1) / self.fps, 1 / RATE)


def probe(path: Path) -> VideoFacts:
    """Count a video's frames without decoding them; UnreadableVideo when it is cut off, no video, too large or slim."""
    with _open(path) as video:
        stamps = [(video.joins, video.find_stamp(packet)) for packet, is_shown in video.read() if is_shown]
        stamps = stamps[len(stamps) - video.packets:]  # from the first key frame on
        if not stamps:
            raise UnreadableVideo("no frames in the file")
        for _, stamp in sorted(stamps, key=lambda pair: (pair[0], pair[1] or 0)):  # in the order of display
            video.tell_time(stamp)
        synthetic = video.container.metadata.get("comment") == SYNTHETIC_MARK
        facts = VideoFacts(len(stamps), video.rate, video.stream.width, video.stream.height, synthetic)
        steps, samples = len(stamps) - 1, _count_samples(video.seconds, 1 / RATE)
        # Times may be rounded; what is more, or another number of samples, is another rate.
        if abs(steps / facts.fps - video.seconds) > CLOSE / 2 or facts.samples != samples:
            facts.fps = steps / video.seconds
        return facts


def stream_frames(path: Path, *, height: int, indices: Sequence[int] | None = None) -> Iterator[np.ndarray]:
    """Decode a video, sampled at `RATE`, to uint8 (height, width, 3), RGB, as a player shows it, all of one shape.

    The width follows from the height. Memory stays flat. `indices` are numbers of frames at `RATE`, from 0, ascending;
    None yields every frame. UnreadableVideo as `probe`, and when more than one frame in twenty is missing or
    incomplete, or the shape changes.
    """
    wanted, last = (None, None) if indices is None else (set(map(int, indices)), int(indices[-1]))
    used = incomplete = 0
    with _open(path) as video:
        for number, frame in enumerate(video.sample(1 / RATE)):
            if wanted is None or number in wanted:
                used, incomplete = used + 1, incomplete + frame.is_corrupt
                yield video.convert(frame, height)
            if number == last:
                break
        else:
            packets = video.packets // (2 if frame.interlaced_frame else 1)  # each of its two fields may have one
            found, expected = (video.position, packets) if last is None else (number + 1, last + 1)
            if found < (COMPLETE if last is None else 1) * expected:
                raise UnreadableVideo(f"damaged: only {found} of {expected} frames could be decoded")
        # MPEG's counter of packets starts again at a join, which looks like a loss.
        for bad, count in ((incomplete, used), (video.corrupt - video.joins, video.packets)):
            if bad > (1 - COMPLETE) * count:
                raise UnreadableVideo(f"damaged: {bad} of {count} frames are incomplete")


def sample_frames(path: Path, *, height: int, every: float, longest: float) -> Iterator[np.ndarray]:
    """Decode what is on screen every `every` seconds, whatever the frame rate; frames as those of `stream_frames`.

    The last frame at or before each time is taken, or one that comes up to `LATE` after it. TooLong when the video is
    longer than `longest` seconds; UnreadableVideo as `probe`, and when the shape changes.
    """
    if probe(path).duration > longest + CLOSE:
        raise TooLong(f"too long: more than {longest:g} seconds")
    with _open(path) as video:
        for frame in video.sample(every):
            yield video.convert(frame, height)


@contextmanager
def _open(path: Path) -> Iterator["_Video"]:
    """Open a file; whatever fails here or in the block becomes an UnreadableVideo."""
    if not Path(path).is_file():
        raise UnreadableVideo("not a regular file" if Path(path).exists() else "no such file")
    if Path(path).stat().st_size == 0:
        raise UnreadableVideo("empty file (0 bytes)")
    try:
        place = str(Path(path).absolute())  # FFmpeg takes what stands before the colon in 12:30.mp4 for a protocol
        container = av.open(place, **OPENING)
    except PermissionError:
        raise UnreadableVideo("cannot be read: permission denied") from None
    except av.ArgumentError:  # what FFmpeg knows, and is not in ONLY_VIDEOS
        raise UnreadableVideo("not one of the kinds that are read: MP4, MOV, MKV, WebM, AVI, MPEG, TS") from None
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
    """An open file; `packets` and `position` are the frames read from it and decoded so far, `seconds` the last's time.

    `corrupt` are the packets that lack data, `joins` the places where another recording follows, `size` is that of the
    last frame, `changed` the frames before it came up.

    The first frame is at 0. Where a file's times go back, leap or are missing, time goes on by one frame.
    """

    def __init__(self, container: av.container.InputContainer):
        streams = container.streams.video
        shown = [stream for stream in streams if not stream.disposition & av.stream.Disposition.attached_pic]
        if not shown:
            raise UnreadableVideo("no video in it: only a picture, as of a song's cover" if streams
                                  else "no pictures in the file")
        shown = [stream for stream in shown if stream.codec_context]
        if not shown:
            raise UnreadableVideo("its codec is not known")
        self.container = container
        counts = _count_packets(container.name, [stream.index for stream in shown]) if len(shown) > 1 else Counter()
        self.stream = max(shown, key=lambda stream: (
            min(counts[stream.index], 2),  # a track may be empty, or a single picture
            stream.disposition & av.stream.Disposition.default, stream.width * stream.height))
        if "mp4" in container.format.name and _count_headers(container.name) > 1:
            raise UnreadableVideo("several recordings were appended to each other, players show the first one alone: "
                                  "join them with ffmpeg")
        self.aspect = float(self.stream.sample_aspect_ratio or 1)  # width of a pixel divided by its height
        _check_size(self.stream.width, self.stream.height, self.aspect)
        self.stream.codec_context.options = LIMITS
        self.packets = self.corrupt = self.joins = self.position = self.changed = 0
        self.size = self.shape = self.rotation = None
        self.scaler, self.converter = VideoReformatter(), VideoReformatter()  # two, since each keeps tables of its work
        # AVI files have no times of display (pts), and what was copied from them has wrong ones. As in FFmpeg's tools,
        # times of decoding (dts) stand in: they are in the order of the decoder's output, too.
        self.by_dts = container.format.name == "avi"
        self.unit, self.rate = float(self.stream.time_base), float(self.stream.guessed_rate or RATE)
        self.stamp, self.moment, self.seconds = None, -math.inf, -1 / self.rate

    def find_stamp(self, item: av.Packet | av.VideoFrame) -> int | None:
        return item.dts if self.by_dts or item.pts is None else item.pts

    def tell_time(self, stamp: int | None) -> None:
        """Set `seconds` for the next frame in the order of display."""
        is_untold = stamp is None or stamp == self.stamp  # equal times would make the video longer
        before, self.stamp = self.moment, stamp
        self.moment = before + 1 / self.rate if is_untold else stamp * self.unit
        gap = self.moment - before
        self.seconds += gap if 0 < gap <= LONGEST_STILL else 1 / self.rate

    def read(self) -> Iterator[tuple[av.Packet, bool]]:
        """Yield packets, and whether a player shows their frames; UnreadableVideo in the end when the file is cut off.

        After a cut without re-encoding, packets are there for others' sake, or are missing and not in use. What is
        stored or shown before the first key frame cannot be decoded, and is not counted.
        """
        stored, end, latest = 0, 0, -math.inf
        is_keyed, first, is_timed = False, None, False
        for packet in self.container.demux(self.stream):
            stamp = self.find_stamp(packet)
            if packet.dts is not None:
                # Recordings that were joined: times start again. FFmpeg may guess those of single frames wrong.
                is_next = packet.is_keyframe and packet.dts < latest
                self.joins, latest = self.joins + is_next, packet.dts if is_next else max(latest, packet.dts)
            is_timed |= stamp is not None
            # Cameras that store a frame as two fields give times to the first alone.
            is_shown = packet.size > 0 and not packet.is_discard and not (is_timed and stamp is None)
            if packet.is_keyframe and not is_keyed:
                self.packets, is_keyed, first = 0, True, stamp
            elif first is not None and not packet.is_keyframe and (stamp is None or stamp < first):
                is_shown = False
            else:
                first = None
            self.packets, stored = self.packets + is_shown, stored + (packet.size > 0)
            end = max(end, (stamp or 0) + (packet.duration or 0))
            if packet.size or packet.dts is None:  # PyAV would take an empty one for the end of the file
                yield packet, is_shown
        # Fewer than stated is no fault where the end is reached: cameras drop frames. AVI files count those, too.
        expected = max(self.stream.frames, self.stream.duration or 0) * COMPLETE
        if stored < COMPLETE * self.stream.frames and end - (self.stream.start_time or 0) < expected:
            raise UnreadableVideo(f"cut off: {stored} of {self.stream.frames} frames are in the file")
        if "matroska" in self.container.format.name and (share := _measure_segment(self.container.name)) < COMPLETE:
            raise UnreadableVideo(f"cut off: {share:.0%} of the file is there")

    def decode(self) -> Iterator[av.VideoFrame]:
        """Yield the frames in the order of display; `seconds` is the time of the last one."""
        self.stream.thread_type, stamps, wrong = "AUTO", (None, None), 0
        for packet, _ in self.read():
            self.corrupt += packet.is_corrupt
            for frame in packet.decode():
                self.position += 1
                _check_size(frame.width, frame.height, self.aspect)
                if self.size != (frame.width, frame.height):
                    self.size, self.changed = (frame.width, frame.height), self.position - 1
                before, stamps = stamps, (frame.pts, frame.dts)
                if not self.by_dts and None not in before + stamps:
                    wrong += (stamps[0] <= before[0]) - (stamps[1] <= before[1])
                    if wrong > 0:
                        self.by_dts, self.moment = True, math.inf
                self.tell_time(self.find_stamp(frame))
                yield frame
        if not self.position:
            raise UnreadableVideo("no frames in the file")

    def sample(self, every: float) -> Iterator[av.VideoFrame]:
        """Yield what is on screen every `every` seconds, from the first frame to the last."""
        taken, shown = 0, None
        for frame in self.decode():
            while shown is not None and taken * every < self.seconds - LATE:
                yield shown
                taken += 1
            shown = frame
        for _ in range(taken, _count_samples(self.seconds, every)):
            yield shown

    def convert(self, frame: av.VideoFrame, height: int) -> np.ndarray:
        """Scale a frame to uint8 (height, width, 3), RGB, as shown; its shape must be that of the frames before."""
        # A pixel at (x, y) is shown at (a x + c y, b x + d y), moved into view: it may be turned, mirrored or both.
        if frame.rotation != self.rotation:  # not for each frame: PyAV never frees at once what it was read of
            self.rotation, self.matrix = frame.rotation, frame.side_data.get("DISPLAYMATRIX", UPRIGHT)
        a, b, _, c, d = np.frombuffer(self.matrix, np.int32)[:5].tolist()
        is_turned = abs(b) > abs(a)
        order, (right, down) = (-1, (c, b)) if is_turned else (1, (a, d))
        wide, high = (frame.width * self.aspect, frame.height)[::order]
        size = (max(1, round(wide * height / high)), height)[::order]
        options = {"interpolation": "AREA", "threads": 1}  # more threads than one take four times as long
        if frame.format.name in ("yuv420p", "yuvj420p"):  # one colour for 2 x 2 pixels, as nearly all videos have
            # Scaled first, then RGB: half the time of both at once, and JPEG keeps colours at half the size, too.
            frame = self.scaler.reformat(frame, *size, frame.format.name, **options)
            options = {"threads": 1}
        image = self.converter.reformat(frame, *size, "rgb24", **options).to_ndarray()
        image = image.swapaxes(0, 1) if is_turned else image
        picture = np.ascontiguousarray(image[::-1 if down < 0 else 1, ::-1 if right < 0 else 1])
        self.shape = self.shape or picture.shape
        if picture.shape != self.shape:
            raise UnreadableVideo(f"its pictures change their shape after frame {self.changed}")
        return picture


def _count_packets(name: str, streams: list[int]) -> Counter:
    """Stream -> its packets, as far as the file can be read."""
    counts = Counter()
    with suppress(*FAILURES), av.open(name, **OPENING) as container:
        for packet in container.demux(*map(container.streams.__getitem__, streams)):
            counts[packet.stream_index] += packet.size > 0
    return counts


def _count_headers(name: str) -> int:
    """Number of the moov boxes of an MP4 file; FFmpeg reads the first one."""
    place, size, count = 0, 8, 0
    with open(name, "rb") as file:
        end = file.seek(0, 2)
        while size >= 8 and place < end:  # a size of 0 is up to the end
            file.seek(place)
            head = file.read(16)
            size = int.from_bytes(head[8:]) if head[:4] == b"\0\0\0\1" else int.from_bytes(head[:4])
            count, place = count + (head[4:8] == b"moov"), place + size
    return count


def _measure_segment(name: str) -> float:
    """Share of a Matroska or WebM file that is there, by the size that its Segment states; 1 where that is unknown.

    It has nearly all of the file (RFC 9559, 5.1). Of a recording whose recorder could not go back, it is unknown.
    """
    with open(name, "rb") as file:
        head, end = file.read(4096), file.seek(0, 2)
    place = head.find(b"\x18\x53\x80\x67", 0, -8) + 4  # with room for the number
    width = 9 - head[place].bit_length()  # bytes: width - 1 zeros and a 1 come before the number (RFC 8794, 4)
    unknown = (1 << 7 * width) - 1  # all of its bits are 1
    size = int.from_bytes(head[place:place + width]) & unknown
    return 1.0 if place < 4 or size in (0, unknown) else (end - place - width) / size


def _count_samples(seconds: float, every: float) -> int:
    """Number of samples in a video whose last frame is at `seconds`; the same however that was computed."""
    return int(round((seconds + CLOSE) / every, 6)) + 1


def _check_size(width: int, height: int, aspect: float) -> None:
    if width * height > LARGEST:
        raise UnreadableVideo(f"too large: {width} x {height} pixels, at most {LARGEST / 1e6:.0f} million are read")
    width = round(width * aspect)  # in square pixels
    if max(width, height) > SLIMMEST * min(width, height) > 0:
        raise UnreadableVideo(f"too slim: {width} x {height} pixels, one side is more than {SLIMMEST} times the other")


def _describe(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "decoding it takes too much memory"
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0].lower()
