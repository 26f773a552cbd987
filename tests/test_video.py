import itertools
import shutil
import subprocess
import sys
import types

import av
import numpy as np
import pytest
from conftest import draw_numbers, draw_square, tell_numbers, write_video
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from health_actions.data import video
from health_actions.data.video import UnreadableVideo, VideoFacts, probe, read_frames, sample_frames, stream_frames
from synthetic_clips.encode import write_video as write_synthetic


def use(path):
    """What the project does with a clip: count its frames, then decode all of them."""
    return read_frames(path, range(probe(path).frames), [16])[16]


def find_reason(path) -> str:
    with pytest.raises(UnreadableVideo) as caught:
        use(path)
    reason = str(caught.value)
    assert reason and "\n" not in reason
    return reason


def test_probe_counts_frames_and_tells_rate_and_size(square_video):
    facts = probe(square_video)
    assert facts == VideoFacts(frames=40, fps=30.0, width=96, height=64, synthetic=False)
    assert facts.duration == pytest.approx(40 / 30)


def test_probe_knows_what_this_project_rendered(tmp_path):
    assert probe(write_synthetic(tmp_path / "own.mp4", draw_square(frames=4))).synthetic


def test_a_video_without_rate_has_no_duration():
    assert VideoFacts(frames=3, fps=0.0, width=2, height=2, synthetic=False).duration == 0


@given(st.sets(st.integers(0, 39), min_size=1, max_size=12).map(sorted))
def test_exactly_the_frames_asked_for_are_read(numbered_video, indices):
    assert tell_numbers(read_frames(numbered_video, indices)[None]) == indices


def test_frames_come_in_every_size_that_is_asked_for(numbered_video):
    frames = read_frames(numbered_video, [3, 30], [16, 48])
    assert {size: (stack.shape, stack.dtype) for size, stack in frames.items()} == {
        16: ((2, 16, 16, 3), np.uint8), 48: ((2, 48, 48, 3), np.uint8)}
    assert tell_numbers(frames[16]) == tell_numbers(frames[48]) == [3, 30]
    assert read_frames(numbered_video, [0])[None].shape == (1, 64, 96, 3)


def test_colours_are_red_green_blue(tmp_path):
    red = np.zeros((4, 32, 32, 3), np.uint8)
    red[..., 0] = 250
    frame = read_frames(write_video(tmp_path / "red.mp4", red), [0])[None][0]
    assert frame[..., 0].min() > 200 and frame[..., 1:].max() < 60


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuvj420p", "yuv444p"])
def test_frames_of_a_height_show_what_squares_show(tmp_path, pixel_format):
    """However they are scaled: all grey values and colours, in videos of limited and of full range."""
    ramp = np.linspace(0, 255, 96, dtype=np.uint8)
    picture = np.stack(np.broadcast_arrays(ramp[None], ramp[:, None], 128), axis=-1).astype(np.uint8)
    path = tmp_path / "ramp.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg" if "j" in pixel_format else "ffv1", rate=30)
        stream.height, stream.width, stream.pix_fmt = 96, 96, pixel_format
        for frame in [picture] * 3:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    [exact] = read_frames(path, [1], [48])[48].astype(int)
    near = list(stream_frames(path, 48))[1].astype(int)
    assert near.shape == exact.shape == (48, 48, 3)
    assert np.abs(near - exact).mean() < 3 and np.abs((near - exact).mean((0, 1))).max() < 2.5
    assert exact.min() < 20 and exact.max() > 235


def test_a_rotated_video_stands_upright(tmp_path):
    frames = draw_square((0, 0), frames=4)  # the square is at the top left of a wide picture
    path = write_video(tmp_path / "rotated.mp4", frames, movflags="faststart")
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 44  # display matrix of the track: turn by 90 degrees clockwise
    turned = np.array([0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30], dtype=">i4")
    content[matrix:matrix + 36] = turned.tobytes()
    path.write_bytes(content)
    frame = read_frames(path, [0])[None][0]
    assert frame.shape == (96, 64, 3)
    assert frame[:20, -20:].min() > 200 and frame[:20, :20].max() < 80


def test_a_missing_file_is_unreadable(tmp_path):
    assert find_reason(tmp_path / "none.mp4") == "no such file"


def test_an_empty_file_is_unreadable(tmp_path):
    path = tmp_path / "empty.mp4"
    path.touch()
    assert "empty file" in find_reason(path)


def test_a_text_file_is_unreadable(tmp_path):
    path = tmp_path / "text.mp4"
    path.write_text("no video\n" * 100)
    assert "not a video" in find_reason(path)


def test_a_file_cut_before_its_header_is_unreadable(tmp_path):
    path = write_video(tmp_path / "cut.mp4", draw_square())  # the header is at the end
    path.write_bytes(path.read_bytes()[:-2000])
    assert "header" in find_reason(path)


def test_a_file_cut_behind_its_header_is_unreadable(square_video, tmp_path):
    path = tmp_path / "cut.mp4"
    content = square_video.read_bytes()
    path.write_bytes(content[:content.index(b"mdat") + (len(content) - content.index(b"mdat")) // 2])
    assert "cut off" in find_reason(path)


def test_a_file_overwritten_in_the_middle_is_unreadable(square_video, tmp_path):
    path = tmp_path / "flipped.mp4"
    content = np.frombuffer(square_video.read_bytes(), np.uint8).copy()
    start = bytes(content).index(b"mdat") + 200
    content[start:] ^= 0xFF
    path.write_bytes(content.tobytes())
    assert "damaged" in find_reason(path)


def test_a_file_with_sound_alone_is_unreadable(tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert find_reason(path) == "no pictures in the file"


def test_a_video_of_an_unknown_codec_is_unreadable(square_video, tmp_path):
    path = tmp_path / "unknown.mp4"
    path.write_bytes(square_video.read_bytes().replace(b"avc1", b"zzzz").replace(b"avcC", b"zzzC"))
    find_reason(path)


@pytest.mark.parametrize("text", ["ffconcat version 1.0\nfile square.mp4\n",
                                  "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nsquare.mp4\n#EXT-X-ENDLIST\n"])
@pytest.mark.parametrize("name", ["clip.mp4", "clip.m3u8"])
def test_a_list_of_other_files_is_not_followed(square_video, tmp_path, name, text):
    shutil.copy(square_video, tmp_path / "square.mp4")
    (tmp_path / name).write_text(text)
    assert "not a video" in find_reason(tmp_path / name)


def test_text_in_another_encoding_does_not_make_a_video_unreadable(tmp_path):
    path = write_synthetic(tmp_path / "latin.mp4", draw_square(frames=4))
    content = path.read_bytes()
    path.write_bytes(content.replace(b"synthetic clip", b"H\xe4nde waschen"[:14].ljust(14)))
    assert path.read_bytes() != content
    assert len(use(path)) == 4


def test_frames_beyond_the_end_are_not_made_up(square_video):
    with pytest.raises(UnreadableVideo, match="only 40 of the first 51"):
        read_frames(square_video, [0, 50])


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_video_is_decoded_or_unreadable_and_nothing_else(square_video, tmp_path, data):
    content = bytearray(square_video.read_bytes())
    for _ in range(data.draw(st.integers(0, 6), label="flips")):
        # The first kilobytes are the header, where a flip does most.
        place = data.draw(st.one_of(st.integers(0, 1500), st.integers(0, len(content) - 1)), label="place")
        content[place] ^= data.draw(st.integers(1, 255), label="bits")
    length = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))), label="length")
    path = tmp_path / "damaged.mp4"
    path.write_bytes(content[:length])
    try:
        frames = use(path)
    except UnreadableVideo as error:
        assert str(error) and "\n" not in str(error)
    else:
        assert frames.shape[1:] == (16, 16, 3)


def test_reading_a_damaged_video_says_nothing_by_itself(square_video, tmp_path):
    content = square_video.read_bytes()
    path = tmp_path / "damaged.mp4"
    path.write_bytes(content[:len(content) // 2])
    code = f"from health_actions.data.video import probe\ntry:\n    probe({str(path)!r})\nexcept ValueError:\n    pass"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == done.stderr == ""


@pytest.mark.parametrize("fps", [5, 10, 25, 30, 60])
def test_what_a_video_shows_every_so_often_does_not_depend_on_its_rate(tmp_path, fps):
    path = write_video(tmp_path / "clip.mp4", draw_numbers(40), fps=fps, crf=8)
    numbers = tell_numbers(np.stack(list(sample_frames(path, every=4 / 30, longest=60, height=64))))
    expected = [int(moment * 4 * fps / 30 + 1e-6) for moment in range(len(numbers))]
    assert numbers == expected and expected[-1] + 4 * fps / 30 > 38


def test_sampled_frames_are_those_that_studies_read(square_video):
    sampled = np.stack(list(sample_frames(square_video, every=4 / 30, longest=60, size=32)))
    np.testing.assert_array_equal(sampled, read_frames(square_video, range(0, 40, 4), [32])[32])


@pytest.mark.parametrize(("limits", "words"), [
    ({"longest": 1.0}, "too long: more than 1 seconds"), ({"largest": 6000}, "too large: 96 x 64 pixels")])
def test_videos_that_would_take_too_long_are_refused(square_video, limits, words, monkeypatch):
    if "largest" in limits:
        monkeypatch.setattr(video, "LARGEST", limits["largest"])
    with pytest.raises(UnreadableVideo, match=words):
        list(sample_frames(square_video, every=0.1, longest=limits.get("longest", 60), size=32))


def test_a_video_that_is_none_is_not_sampled(tmp_path):
    (tmp_path / "text.mp4").write_text("not a video at all\n" * 20)
    with pytest.raises(UnreadableVideo, match="not a video"):
        list(sample_frames(tmp_path / "text.mp4", every=0.1, longest=60, size=32))


# Every way in which the project reads a video.
READERS = {"probe": probe, "read": lambda path: read_frames(path, range(8), [16]),
           "stream": lambda path: list(stream_frames(path, 32)),
           "sample": lambda path: list(sample_frames(path, every=0.1, longest=60, height=32))}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_pictures_that_would_fill_the_memory_are_refused_before_they_are_decoded(square_video, monkeypatch, read):
    monkeypatch.setattr(video, "LARGEST", 6000)
    with pytest.raises(UnreadableVideo, match="too large: 96 x 64 pixels"):
        read(square_video)


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_a_line_of_pixels_is_refused_since_it_would_be_huge_once_it_is_scaled(tmp_path, read):
    path = write_video(tmp_path / "line.mp4", draw_square(width=640, height=16, square=8))
    with pytest.raises(UnreadableVideo, match="too slim: 640 x 16 pixels, one side is more than 16 times the other"):
        read(path)


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_a_file_that_keeps_ffmpeg_busy_is_given_up(square_video, monkeypatch, read):
    seconds = itertools.count(0, 61)
    monkeypatch.setattr(video, "time", types.SimpleNamespace(monotonic=lambda: next(seconds)))
    with pytest.raises(UnreadableVideo, match="takes too long to decode: more than 60 seconds without a frame"):
        read(square_video)


def test_a_file_that_is_slow_to_open_is_given_up(square_video, monkeypatch):
    monkeypatch.setattr(video, "PATIENCE", 1e-9)
    with pytest.raises(UnreadableVideo, match="takes too long to read"):
        probe(square_video)


def test_time_that_others_take_between_two_frames_does_not_count(square_video, monkeypatch):
    seconds = [0.0]
    monkeypatch.setattr(video, "time", types.SimpleNamespace(monotonic=lambda: seconds[0]))
    for _ in stream_frames(square_video, 32):
        seconds[0] += 1000


@pytest.mark.parametrize("error", [
    ValueError("x\ny"), MemoryError(), OverflowError("x"), ZeroDivisionError(), IndexError(), RuntimeError("x"),
    UnicodeDecodeError("utf-8", b"x", 0, 1, "no"), av.ExitError(1, "x")])
@pytest.mark.parametrize("read", list(READERS)[1:])
def test_whatever_damaged_bytes_raise_is_told_in_one_line(square_video, monkeypatch, read, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(video.VideoReformatter, "reformat", fail)
    with pytest.raises(UnreadableVideo, match="^damaged: [^\n]+ after frame 1$"):
        READERS[read](square_video)


def test_a_stream_whose_pictures_change_their_shape_makes_no_clip(tmp_path):
    parts = []
    for number, (width, height) in enumerate([(96, 64), (64, 96)]):
        path = tmp_path / f"{number}.h264"
        parts.append(write_video(path, draw_square(frames=10, width=width, height=height)).read_bytes())
    (tmp_path / "both.mp4").write_bytes(b"".join(parts))
    assert read_frames(tmp_path / "both.mp4", range(20), [16])[16].shape == (20, 16, 16, 3)
    with pytest.raises(UnreadableVideo, match="its pictures change their shape after frame 10"):
        list(stream_frames(tmp_path / "both.mp4", 32))
