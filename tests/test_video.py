import gc
import itertools
import os
import re
import shutil
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from conftest import SHARED, draw_numbers, draw_square, tell_numbers, write_video
from hypothesis import given
from hypothesis import strategies as st

from app.uploads import check_upload
from health_actions.data import video
from health_actions.data.video import SUFFIXES, UnreadableVideo, VideoFacts, probe, sample_frames, stream_frames
from synthetic_clips.encode import write_video as write_synthetic


def read(path, indices=None, height=64) -> np.ndarray:
    return np.stack(list(stream_frames(path, height=height, indices=indices)))


def sample(path, every=0.1, longest=60, height=64) -> np.ndarray:
    return np.stack(list(sample_frames(path, height=height, every=every, longest=longest)))


def write_streams(path, *streams, form=None, aspect=1, muxing=None, clock=30) -> None:
    """Write streams: codec, its options, disposition, frames, and when each is shown, in ticks of `clock` a second."""
    with av.open(str(path), "w", format=form, options=muxing or {}) as container:
        added = []
        for codec, options, disposition, frames, _ in streams:
            stream = container.add_stream(codec, rate=30, options=options | {"b": "2000000"})
            stream.height, stream.width = frames.shape[1:3]
            stream.pix_fmt, stream.disposition = "yuvj420p" if codec == "mjpeg" else "yuv420p", disposition
            stream.codec_context.time_base = Fraction(1, clock)
            stream.codec_context.sample_aspect_ratio = Fraction(aspect)
            added.append(stream)
        for stream, (*_, frames, times) in zip(added, streams, strict=True):
            for picture, time in zip(frames, times, strict=True):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = int(time), Fraction(1, clock)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())


def write_numbers(path, times=range(40), codec="libx264", first=0, options=(), **others) -> None:
    """Frames of `draw_numbers`, as well as the codec can, the first one being that of number `first`."""
    best = {"crf": "8"} if codec == "libx264" else {"qmin": "1", "qmax": "2"}
    frames = draw_numbers()[first:][:len(times)]
    write_streams(path, (codec, best | dict(options), 0, frames, times), **others)


def write_fields(path, are_timed) -> None:
    """40 frames of `draw_numbers`, each stored as two fields, as no encoder at hand does: H.264 of plain bytes.

    Both fields have times, or the first one alone, as in a camera's file.
    """
    def number(value):
        return f"{value + 1:0{2 * (value + 1).bit_length() - 1}b}"

    def pack(bits):
        return np.packbits([int(bit) for bit in bits]).tobytes()

    def unit(kind, content):
        return b"\0\0\0\1" + bytes([kind]) + re.sub(rb"\0\0(?=[\0-\3])", b"\0\0\3", content)

    sequence = "".join(map(number, (0, 0, 2, 1))) + "0" + number(3) + number(1) + "00101" + f"00001{1:032b}{60:032b}1"
    picture = number(0) * 2 + "00" + number(0) * 3 + "000" + number(0) * 3 + "100"
    head = unit(0x67, b"\x4d\0\x1e" + pack(sequence + "00001")) + unit(0x68, pack(picture + "1"))
    fields = []
    for count, second in itertools.product(range(40), range(2)):
        block = bytes([16 + round((10 + 5 * count) * 219 / 255)]) * 256 + b"\x80" * 128
        bits = number(0) + number(7) + number(0) + f"00001{second}" + ("0" if second else number(count % 2) + "00")
        content = pack(bits + number(0) + number(1) + number(25)) + block + (pack(number(25)) + block) * 7 + b"\x80"
        fields.append(b"\0\0\0\1\x09\x10" + (unit(0x61, content) if second else head + unit(0x65, content)))
    raw = path.with_suffix(".h264")
    raw.write_bytes(b"".join(fields))
    form = {".mts": "mpegts"}.get(path.suffix)
    with av.open(str(raw)) as source, av.open(str(path), "w", format=form) as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        stream.time_base = Fraction(1, 60)
        for place in range(0, 80, 1 if are_timed else 2):
            packet = av.Packet(b"".join(fields[place:place + (1 if are_timed else 2)]))
            packet.stream, packet.time_base, packet.pts, packet.dts = stream, Fraction(1, 60), place, place
            packet.is_keyframe = place % 2 == 0
            container.mux(packet)


def patch(path, name: bytes, offset: int, content: bytes) -> None:
    """Change bytes of an MP4 or AVI file, at an offset from a name in it."""
    data = bytearray(path.read_bytes())
    start = data.index(name) + offset
    data[start:start + len(content)] = content
    path.write_bytes(data)


def find_reason(path, reader=read) -> str:
    """Why a video is refused, by what the project does with a clip: count its frames, then decode all of them."""
    with pytest.raises(UnreadableVideo) as caught:
        probe(path)
        reader(path)
    reason = str(caught.value)
    assert reason and "\n" not in reason
    return reason


def test_probe_counts_frames_and_gives_rate_and_size(square_video, tmp_path):
    facts = probe(square_video)
    assert facts == VideoFacts(frames=40, fps=30.0, width=96, height=64, synthetic=False)
    assert facts.duration == pytest.approx(40 / 30)
    assert probe(write_synthetic(tmp_path / "own.mp4", draw_square(frames=4))).synthetic


# ---- What frames are like


@given(st.none() | st.sets(st.integers(0, 39), min_size=1, max_size=12).map(sorted))
def test_frames_are_read_by_number(numbered_video, indices):
    frames = read(numbered_video, indices, height=32)
    assert frames.shape[1:] == (32, 48, 3) and frames.dtype == np.uint8
    assert tell_numbers(frames) == list(range(40) if indices is None else indices)


@pytest.mark.parametrize(("width", "height", "found"), [(1920, 1080, (240, 427)), (320, 240, (240, 320)),
                                                        (240, 426, (240, 135))])
def test_frames_keep_their_aspect_ratio(tmp_path, width, height, found):
    path = write_video(tmp_path / "a.mp4", draw_square(frames=3, width=width, height=height))
    assert read(path, height=240).shape == (3, *found, 3)


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuvj420p", "yuv444p"])
def test_scaled_frames_have_the_greys_and_colours_of_the_video(tmp_path, pixel_format):
    """In videos of limited and of full range, with full and with half the colours."""
    ramp = np.linspace(0, 255, 96, dtype=np.uint8)
    picture = np.stack(np.broadcast_arrays(ramp[None], ramp[:, None], 128), axis=-1).astype(np.uint8)
    path = tmp_path / "ramp.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg" if "j" in pixel_format else "ffv1", rate=30)
        stream.height, stream.width, stream.pix_fmt = 96, 96, pixel_format
        for frame in [picture] * 3:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    scaled = read(path, height=48)[1].astype(int)
    expected = picture.reshape(48, 2, 48, 2, 3).mean((1, 3))
    assert np.abs(scaled - expected).mean() < 3 and np.abs((scaled - expected).mean((0, 1))).max() < 2.5
    assert scaled.min() < 20 and scaled.max() > 235


@pytest.mark.parametrize(("a", "b", "c", "d"), [
    (right, 0, 0, down) for right, down in itertools.product((1, -1), (1, -1))] + [
    (0, down, right, 0) for right, down in itertools.product((1, -1), (1, -1))])
def test_a_turned_or_mirrored_video_is_shown_as_its_matrix_says(tmp_path, a, b, c, d):
    """A track's matrix moves the pixel at (x, y) to (a x + c y, b x + d y): four turns, and their mirror images."""
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:32, :48], picture[:32, 48:], picture[32:, :48], picture[32:, 48:] = (
        (220, 30, 30), (30, 220, 30), (30, 30, 220), (220, 220, 220))
    path = write_video(tmp_path / "turned.mp4", np.stack([picture] * 3), crf=5)
    patch(path, b"tkhd", 44, (np.array([a, b, 0, c, d, 0, 0, 0, 1 << 14]) << 16).astype(">i4").tobytes())
    y, x = np.mgrid[:64, :96]
    right, down = a * x + c * y, b * x + d * y
    expected = np.zeros((np.ptp(down) + 1, np.ptp(right) + 1, 3), int)
    expected[down - down.min(), right - right.min()] = picture
    for reader in (read, sample):
        shown = reader(path, height=len(expected))[0].astype(int)
        assert shown.shape == expected.shape and np.abs(shown - expected).mean() < 8


def test_frames_are_freed_once_they_are_read(tmp_path):
    path = write_video(tmp_path / "many.mp4", draw_square(frames=60))
    gc.collect()
    gc.disable()
    try:
        read(path)
        assert sum(type(thing) is av.VideoFrame for thing in gc.get_objects()) < 10
    finally:
        gc.enable()


@pytest.mark.parametrize(("aspect", "turned", "shape"), [
    (Fraction(4, 3), False, (64, 128)), (Fraction(1, 2), False, (64, 48)), (Fraction(4, 3), True, (128, 64))])
def test_pixels_that_are_not_square_make_the_picture_wider_or_narrower(tmp_path, aspect, turned, shape):
    path = tmp_path / "a.mp4"
    write_numbers(path, range(4), aspect=aspect)
    if turned:
        patch(path, b"tkhd", 44, np.array([0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30], ">i4").tobytes())
    assert read(path, height=shape[0]).shape == (4, *shape, 3)


# ---- Which frames a player shows


def test_of_several_videos_the_default_one_is_taken_then_the_largest_and_never_a_cover(tmp_path):
    small, large, cover = (draw_square(frames=count, width=width, height=height, background=60)
                           for count, width, height in [(12, 64, 48), (20, 96, 64), (1, 320, 240)])
    default, attached = av.stream.Disposition.default, av.stream.Disposition.attached_pic
    first, second = ("libx264", {}, 0, small, range(12)), ("libx264", {}, 0, large, range(20))
    picture = ("mjpeg", {}, attached, cover, range(1))
    for name, streams, frames in [("large.ts", (first, second), 20), ("large.mkv", (first, second), 20),
                                  ("cover.mp4", (picture, first), 12),
                                  ("default.mkv", (("libx264", {}, default, small, range(12)), second), 12)]:
        write_streams(tmp_path / name, *streams)
        assert probe(tmp_path / name).frames == len(read(tmp_path / name)) == frames, name
    for name in ("empty.mkv", "empty.avi"):  # the default one and largest has no frames
        write_streams(tmp_path / name, ("libx264", {}, default, cover[:0], []), ("libx264", {}, 0, small, range(12)))
        assert probe(tmp_path / name).frames == len(read(tmp_path / name)) == 12, name
    write_streams(tmp_path / "still.mkv", ("libx264", {}, default, cover, [0]), ("libx264", {}, 0, small, range(12)))
    assert probe(tmp_path / "still.mkv").frames == 12
    write_streams(tmp_path / "song.mp4", picture)
    assert find_reason(tmp_path / "song.mp4") == "no video in it: only a picture, as of a song's cover"


@pytest.mark.parametrize("first", [0, 12])
def test_frames_outside_of_an_edit_list_are_not_shown(tmp_path, first):
    """As a cut without encoding leaves them: some are in the file to be decoded alone, some are in no index."""
    path = tmp_path / "cut.mp4"
    write_numbers(path)
    patch(path, b"elst", 12, struct.pack(">Ii", 500, first * 512 + 1024))  # ms; 1/15360 s, after two frames' delay
    assert probe(path) == VideoFacts(15, 30.0, 96, 64, False)
    for reader in (read, lambda path: sample(path, every=1 / 30)):
        assert tell_numbers(reader(path)) == list(range(first, first + 15))


@pytest.mark.parametrize(("name", "codec"), [
    ("dropped.avi", "mjpeg"), ("dropped.avi", "mpeg4"), ("dropped.mov", "mjpeg")])
def test_a_file_whose_camera_dropped_frames_is_whole(tmp_path, name, codec):
    """Such frames are empty: the one before stays on screen."""
    path = tmp_path / name
    write_numbers(path, [0, 2, 4, 6, 8, 10, 13, 16, *range(19, 40)], codec)
    expected = [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 5, 6, 6, 6, 7, 7, 7, *range(8, 29)]
    if name.endswith("mov"):  # as QuickTime has it: every second sample has no bytes
        write_numbers(path, codec=codec)
        data = path.read_bytes()
        sizes = np.frombuffer(data, ">u4", 40, data.index(b"stsz") + 16).reshape(20, 2)
        patch(path, b"stsz", 16, np.stack([sizes.sum(1), np.zeros(20)], axis=1).astype(">u4").tobytes())
        expected = [number - number % 2 for number in range(39)]
    assert probe(path).frames == len(set(expected))
    assert probe(path).duration == pytest.approx(len(expected) / 30, abs=0.05)
    for reader in (read, lambda path: sample(path, every=1 / 30)):
        assert tell_numbers(reader(path)) == expected
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])
    assert find_reason(path)


@pytest.mark.parametrize(("name", "are_timed"), [
    ("camera.mts", False), ("copied.ts", True), ("copied.mkv", True), ("copied.avi", True), ("copied.mp4", True)])
def test_a_file_whose_frames_are_stored_as_two_fields_is_whole(tmp_path, name, are_timed):
    path = tmp_path / name
    write_fields(path, are_timed)
    facts = probe(path)
    assert facts.duration == pytest.approx(40 / 30, abs=0.002) and facts.samples == 40
    assert are_timed or facts == VideoFacts(40, 30.0, 64, 64, False)
    for reader in (read, lambda path: sample(path, every=1 / 30)):
        assert tell_numbers(reader(path)) == list(range(40))


@pytest.mark.parametrize("options", [{}, {"x264-params": "open-gop=1:keyint=16:min-keyint=16:scenecut=0:b-adapt=0"}])
def test_a_recording_that_starts_between_key_frames_is_whole_from_the_first_one_on(tmp_path, options):
    """Also where frames that are shown before it are stored after it."""
    path = tmp_path / "middle.ts"
    write_numbers(path, options={"g": "16", "bf": "3", "sc_threshold": "0"} | options)
    content = path.read_bytes()
    path.write_bytes(content[len(content) // 188 // 5 * 188:])
    assert probe(path) == VideoFacts(24, 30.0, 96, 64, False)
    for reader in (read, lambda path: sample(path, every=1 / 30)):
        assert tell_numbers(reader(path)) == list(range(16, 40))


# ---- When a frame is on screen


@pytest.mark.parametrize(("name", "codec"), [
    ("clip.avi", "libx264"), ("clip.avi", "mpeg4"), ("clip.mkv", "mpeg4"), ("clip.h264", "libx264"),
    ("clip.mkv", "libx264"), ("clip.ts", "mpeg2video")])
def test_frames_that_are_stored_in_another_order_are_shown_in_theirs(tmp_path, name, codec):
    """B-frames; AVI files and bare streams have no times for them."""
    path = tmp_path / name
    write_numbers(path, codec=codec, options={"bf": "2"})
    assert probe(path) == VideoFacts(40, 30.0, 96, 64, False)
    for reader in (read, lambda path: sample(path, every=1 / 30)):
        assert tell_numbers(reader(path)) == list(range(40))


@pytest.mark.parametrize("name", ["copy.mp4", "copy.mkv"])
def test_frames_whose_times_are_wrong_are_shown_in_their_order(tmp_path, name):
    """B-frames that were copied from an AVI file: the times are those of decoding."""
    write_numbers(tmp_path / "clip.avi", options={"bf": "2"})
    with av.open(str(tmp_path / "clip.avi")) as source, av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.pts, packet.stream = packet.dts, stream
                container.mux(packet)
    for reader in (read, lambda path: sample(path, every=1 / 30)):
        assert tell_numbers(reader(tmp_path / name)) == [0, *range(40)], "only the first wrong time is believed"


@given(st.lists(st.integers(1, 12).map(lambda gap: 50 * gap) | st.integers(1, 600), min_size=7, max_size=39),
       st.booleans())
def test_of_frames_at_any_times_the_one_on_screen_is_taken(tmp_path_factory, gaps, has_b_frames):
    """Or one that comes up to 15 ms later, which are 45 ticks."""
    times = 2 * np.cumsum([0, *gaps])
    path = tmp_path_factory.mktemp("gaps") / "gaps.mp4"
    write_numbers(path, times, options={"bf": str(3 * has_b_frames)}, clock=3000)
    moments = np.arange(0, times[-1] + 6 + 1, 100)  # up to 2 ms after the last frame
    expected = (np.searchsorted(times, moments + 45, side="right") - 1).tolist()
    assert tell_numbers(read(path)) == tell_numbers(sample(path, every=1 / 30)) == expected
    assert probe(path).samples == len(expected) and probe(path).frames == len(times)


@given(st.lists(st.integers(-20, 20), min_size=20, max_size=40), st.sampled_from(["mp4", "mkv"]))
def test_frames_that_come_early_or_late_are_each_taken_once(tmp_path_factory, shifts, suffix):
    """By up to 7 ms at 30 a second; only the last one may come too early to be taken."""
    path = tmp_path_factory.mktemp("shifts") / f"shifts.{suffix}"
    write_numbers(path, 100 * np.arange(1, len(shifts) + 1) + shifts, clock=3000)
    numbers = tell_numbers(read(path))
    assert numbers == list(range(probe(path).samples)) and len(shifts) - 1 <= len(numbers) <= len(shifts)


@pytest.mark.parametrize("start", [0, 200, 3600, 95_442, 95_443])
@pytest.mark.parametrize("form", ["mpegts", "mpeg"])
def test_time_goes_on_where_two_recordings_are_joined(tmp_path, form, start):
    """Times go back, leap, or come to their end after 26.5 hours and begin again, in the second one."""
    for name, seconds, first in [("a", 100, 0), ("b", start, 20)]:
        times = range(30 * seconds, 30 * seconds + 20)
        write_numbers(tmp_path / name, times, "mpeg2video", first, {"bf": "2"}, form=form)
    path = tmp_path / "joined"
    path.write_bytes((tmp_path / "a").read_bytes() + (tmp_path / "b").read_bytes())
    assert probe(path) == VideoFacts(40, 30.0, 96, 64, False)
    for reader in (read, lambda path: sample(path, every=1 / 30, longest=2)):
        assert tell_numbers(reader(path)) == list(range(40))


@pytest.mark.parametrize("codec", ["mpeg2video", "libx264"])
def test_short_recordings_that_are_joined_are_whole(tmp_path, codec):
    """FFmpeg calls a packet before each join incomplete: more than one frame in twenty."""
    path, parts = tmp_path / "joined.ts", []
    for first in (0, 13, 26):
        write_numbers(path, range(13), codec, first, {"bf": "2"})
        parts.append(path.read_bytes())
    path.write_bytes(b"".join(parts))
    for reader in (read, lambda path: sample(path, every=1 / 30)):
        assert tell_numbers(reader(path)) == list(range(39))


@pytest.mark.parametrize(("name", "codec"), [("joined.mkv", "libx264"), ("joined.webm", "libvpx"),
                                             ("joined.avi", "mpeg4"), ("joined.h264", "libx264")])
def test_recordings_of_other_kinds_that_are_joined_are_whole(tmp_path, name, codec):
    path, part = tmp_path / name, tmp_path / f"part.{name}"
    parts = []
    for first in (0, 20):
        write_numbers(part, range(20), codec, first)
        parts.append(part.read_bytes())
    path.write_bytes(b"".join(parts))
    assert probe(path) == VideoFacts(40, 30.0, 96, 64, False)
    for reader in (read, lambda path: sample(path, every=1 / 30)):
        assert tell_numbers(reader(path)) == list(range(40))


@pytest.mark.parametrize("name", ["part.mp4", "part.mov", "fragments.mp4"])
def test_recordings_that_are_joined_so_that_players_show_one_are_refused(tmp_path, name):
    options = {"movflags": "frag_keyframe+empty_moov"} if "fragments" in name else {}
    write_numbers(tmp_path / name, options={"g": "10"}, muxing=options)
    assert tell_numbers(read(tmp_path / name)) == list(range(40))
    (tmp_path / name).write_bytes(2 * (tmp_path / name).read_bytes())
    assert find_reason(tmp_path / name).startswith("several recordings were appended to each other")


def test_frames_of_one_time_do_not_make_a_video_longer(tmp_path):
    path = tmp_path / "pairs.mkv"
    write_numbers(path, np.arange(40) // 4 * 4, options={"bf": "0"})
    assert probe(path).duration == pytest.approx(40 / 30, abs=0.002)
    for reader in (read, lambda path: sample(path, every=1 / 30)):
        assert tell_numbers(reader(path)) == list(range(40))


@pytest.mark.parametrize("name", ["jump.mkv", "jump.mp4"])
def test_a_clock_that_jumps_is_no_still_picture(tmp_path, name):
    path = tmp_path / name
    write_numbers(path, [*range(20), *range(30 * 3600, 30 * 3600 + 20)])
    assert probe(path).duration == pytest.approx(40 / 30, abs=0.002)
    for reader in (read, lambda path: sample(path, every=1 / 30, longest=2)):
        assert tell_numbers(reader(path)) == list(range(40))
    write_numbers(path, [0, 29 * 30])
    assert tell_numbers(sample(path, every=1)) == [0] * 29 + [1], "a still picture"


@pytest.mark.parametrize(("name", "same"), [
    ("joined.mpg", "joined_by_ffmpeg.mp4"), ("cut_without_reencoding.mp4", ""), ("webcam_dropped_frames.avi", ""),
    ("mirrored_matrix.mp4", "mirrored_matrix_plain.mp4"), ("clock_jump.mkv", ""), ("packed_b_frames.avi", "")])
def test_files_of_bug_reports_are_used(name, same):
    path = SHARED / "cases" / name
    if not path.is_file():
        pytest.skip("no cases beside this checkout (../shared/cases)")
    frames = read(path)
    assert len(frames) == probe(path).frames == {"packed_b_frames.avi": 110, "joined.mpg": 131}.get(name, len(frames))
    np.testing.assert_array_equal(sample(path, every=1 / 30), frames)
    if same:
        expected = read(path.with_name(same))[:, :, ::-1 if "mirrored" in name else 1]
        assert frames.shape == expected.shape and np.abs(frames.astype(int) - expected).mean() < 2
    if "packed" in name or "jump" in name:
        assert (np.diff(frames.mean((1, 2, 3))) > 0.5).all(), "each frame is brighter than the one before"


# ---- Names


def test_a_name_with_a_colon_is_that_of_a_file(square_video, numbered_video, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(square_video, "12:30.mp4")
    shutil.copy(numbered_video, "file:a.mp4")
    shutil.copy(square_video, "a.mp4")
    assert probe("12:30.mp4").frames == len(read("12:30.mp4")) == 40
    assert tell_numbers(read("file:a.mp4")) == list(range(40))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_of_all_suffixes_are_read(tmp_path, suffix):
    form = {".m4v": "mp4", ".mkv": "matroska", ".mpg": "mpeg", ".mpeg": "mpeg", ".ts": "mpegts", ".mts": "mpegts",
            ".m2ts": "mpegts", ".m2t": "mpegts", ".qt": "mov", ".divx": "avi"}.get(suffix, suffix[1:])
    codec = {"mpeg": "mpeg2video", "vob": "mpeg2video", "webm": "libvpx", "avi": "mpeg4"}.get(form, "libx264")
    path = tmp_path / f"clip{suffix}"
    write_numbers(path, codec=codec, form=form, muxing={"mpegts_m2ts_mode": "1"} if suffix in (".mts", ".m2ts") else {})
    check_upload(path)
    assert tell_numbers(read(path)) == list(range(40))




# ---- What is on screen at regular times


@pytest.mark.parametrize("fps", [5, 10, 25, 30, 60])
def test_sampling_in_time_does_not_depend_on_the_frame_rate(tmp_path, fps):
    path = write_video(tmp_path / "clip.mp4", draw_numbers(40), fps=fps, crf=8)
    numbers = tell_numbers(sample(path, every=4 / 30))
    expected = [int(moment * 4 * fps / 30 + video.LATE * fps) for moment in range(len(numbers))]
    assert numbers == expected and expected[-1] + 4 * fps / 30 > 38


# ---- Files that cannot be used


def test_a_file_without_a_video_is_unreadable(tmp_path):
    assert find_reason(tmp_path / "none.mp4") == "no such file"
    (tmp_path / "empty.mp4").touch()
    assert find_reason(tmp_path / "empty.mp4") == "empty file (0 bytes)"
    (tmp_path / "text.mp4").write_text("no video\n" * 100)
    assert "not a video" in find_reason(tmp_path / "text.mp4", sample)
    os.mkfifo(tmp_path / "pipe.mp4")
    assert find_reason(tmp_path / "pipe.mp4") == find_reason(tmp_path) == "not a regular file"


def test_a_file_that_may_not_be_read_is_unreadable(square_video, monkeypatch):
    def refuse(*_, **__):
        raise av.error.PermissionError(13, "Permission denied")

    monkeypatch.setattr(av, "open", refuse)
    assert find_reason(square_video) == "cannot be read: permission denied"


@pytest.mark.parametrize(("name", "codec"), [("clip.wmv", "wmv2"), ("clip.flv", "flv"), ("renamed.mp4", "flv")])
def test_a_video_of_another_kind_is_told_which_ones_are_read(tmp_path, name, codec):
    write_numbers(tmp_path / name, codec=codec, form="flv" if codec == "flv" else None)
    assert find_reason(tmp_path / name) == (
        "not one of the kinds that are read: MP4, MOV, MKV, WebM, AVI, MPEG, TS")


def test_a_stream_with_lost_packets_is_unreadable(tmp_path):
    """A frame has about a hundred of them; its decoder hides what one of them had."""
    path, frames = tmp_path / "lost.ts", np.random.default_rng(0).integers(0, 256, (40, 64, 96, 3), np.uint8)
    write_streams(path, ("libx264", {"crf": "12", "bf": "2"}, 0, frames, range(40)))
    packets = np.frombuffer(path.read_bytes(), np.uint8).reshape(-1, 188)
    for lost, is_used in ((1, True), (4, False)):
        places = np.linspace(len(packets) // 2, len(packets) - 20, lost).astype(int)
        path.write_bytes(np.delete(packets, places, axis=0).tobytes())
        if is_used:
            assert len(read(path)) == 40
        else:
            assert find_reason(path) == "damaged: 4 of 40 frames are incomplete"


@pytest.mark.parametrize(("change", "words"), [
    (lambda content, start: content[start:], "header"),
    (lambda content, start: content[:(start + len(content)) // 2], "cut off"),
    (lambda content, start: content[:start + 200] + bytes(byte ^ 0xFF for byte in content[start + 200:]), "damaged"),
    (lambda content, start: content.replace(b"avc1", b"zzzz").replace(b"avcC", b"zzzC"), "")])
def test_a_damaged_file_is_unreadable(square_video, tmp_path, change, words):
    path, content = tmp_path / "damaged.mp4", square_video.read_bytes()
    path.write_bytes(change(content, content.index(b"mdat")))
    assert words in find_reason(path)
    with pytest.raises(UnreadableVideo):
        read(path)


@pytest.mark.parametrize(("name", "codec"), [("clip.mkv", "mpeg4"), ("clip.webm", "libvpx")])
def test_a_matroska_file_that_is_cut_off_is_unreadable_where_its_size_is_stated(tmp_path, name, codec):
    """A recording whose recorder could not go back states none: it is used as far as it is there."""
    path = tmp_path / name
    for muxing, is_stated in (({}, True), ({"live": "1"}, False)):
        write_numbers(path, codec=codec, muxing=muxing, options={"g": "4"})
        content = path.read_bytes()
        assert (b"\x18\x53\x80\x67\x01" + 7 * b"\xff" in content) != is_stated
        assert tell_numbers(read(path)) == list(range(40))
        path.write_bytes(content[:-len(content) // 50])
        assert len(read(path)) >= 38
        path.write_bytes(content[:len(content) // 2])
        if is_stated:
            assert re.fullmatch(r"cut off: (49|50)% of the file is there", find_reason(path, sample))
        else:
            assert 8 < len(read(path)) == probe(path).frames < 32


def test_a_segment_that_begins_where_the_first_bytes_end_has_an_unknown_size(tmp_path):
    path = tmp_path / "clip.mkv"
    for rest in range(12):
        path.write_bytes((b"\0" * (4092 - rest) + b"\x18\x53\x80\x67\x01" + bytes(20))[:4096])
        assert video._measure_segment(str(path)) == 1.0


def test_a_file_with_sound_alone_is_unreadable(tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert find_reason(path) == "no pictures in the file"


def test_a_list_of_other_files_is_not_followed(square_video, tmp_path):
    shutil.copy(square_video, tmp_path / "square.mp4")
    for name in ("clip.mp4", "clip.m3u8"):
        for text in ("ffconcat version 1.0\nfile square.mp4\n",
                     "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nsquare.mp4\n#EXT-X-ENDLIST\n"):
            (tmp_path / name).write_text(text)
            assert re.search("not a video|not one of the kinds", find_reason(tmp_path / name))


def test_text_in_another_encoding_does_not_make_a_video_unreadable(tmp_path):
    path = write_synthetic(tmp_path / "latin.mp4", draw_square(frames=4))
    content = path.read_bytes()
    path.write_bytes(content.replace(b"synthetic clip", b"H\xe4nde waschen"[:14].ljust(14)))
    assert path.read_bytes() != content
    assert probe(path).frames == len(read(path)) == 4


def test_frames_beyond_the_end_are_an_error(square_video):
    with pytest.raises(UnreadableVideo, match="damaged: only 40 of 51 frames could be decoded"):
        read(square_video, [0, 50])


@pytest.mark.parametrize("reader", [probe, read, sample])
def test_frames_that_would_fill_the_memory_are_refused_before_they_are_decoded(tmp_path, monkeypatch, reader):
    """Large ones, and lines of pixels, which would be huge once they are scaled."""
    path = write_video(tmp_path / "line.mp4", draw_square(width=640, height=16, square=8))
    with pytest.raises(UnreadableVideo, match="too slim: 640 x 16 pixels, one side is more than 16 times the other"):
        reader(path)
    monkeypatch.setattr(video, "LARGEST", 6000)
    with pytest.raises(UnreadableVideo, match="too large: 640 x 16 pixels"):
        reader(path)


@pytest.mark.parametrize("error", [
    ValueError("x\ny"), MemoryError(), OverflowError("x"), ZeroDivisionError(), IndexError(), RuntimeError("x"),
    UnicodeDecodeError("utf-8", b"x", 0, 1, "no"), av.FFmpegError(1, "x")])
@pytest.mark.parametrize("reader", [read, sample])
def test_whatever_damaged_bytes_raise_becomes_one_line(square_video, monkeypatch, reader, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(video.VideoReformatter, "reformat", fail)
    with pytest.raises(UnreadableVideo, match="^damaged: [^\n]+ after frame [12]$"):
        reader(square_video)


def test_a_stream_whose_frames_change_their_shape_is_unreadable(tmp_path):
    parts = [write_video(tmp_path / f"{width}.h264", draw_square(frames=10, width=width, height=height)).read_bytes()
             for width, height in [(96, 64), (64, 96)]]
    (tmp_path / "both.mp4").write_bytes(b"".join(parts))
    for reader in (read, sample):
        with pytest.raises(UnreadableVideo, match="its pictures change their shape after frame 10$"):
            reader(tmp_path / "both.mp4")
