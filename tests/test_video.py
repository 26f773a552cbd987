import shutil

import av
import numpy as np
import pytest
from conftest import draw_numbers, draw_square, tell_numbers, write_video
from hypothesis import given
from hypothesis import strategies as st

from health_actions.data import video
from health_actions.data.video import UnreadableVideo, VideoFacts, probe, sample_frames, stream_frames
from synthetic_clips.encode import write_video as write_synthetic


def read(path, indices=None, height=64) -> np.ndarray:
    return np.stack(list(stream_frames(path, height=height, indices=indices)))


def sample(path, every=0.1, longest=60, height=64) -> np.ndarray:
    return np.stack(list(sample_frames(path, height=height, every=every, longest=longest)))



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
    assert VideoFacts(frames=3, fps=0.0, width=2, height=2, synthetic=False).duration == 0
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


def test_a_rotated_video_is_turned_upright(tmp_path):
    frames = draw_square((0, 0), frames=4)  # the square is at the top left of a wide picture
    path = write_video(tmp_path / "rotated.mp4", frames, movflags="faststart")
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 44  # display matrix of the track: turn by 90 degrees clockwise
    turned = np.array([0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30], dtype=">i4")
    content[matrix:matrix + 36] = turned.tobytes()
    path.write_bytes(content)
    frame = read(path, height=96)[0]
    assert frame.shape == (96, 64, 3)
    assert frame[:20, -20:].min() > 200 and frame[:20, :20].max() < 80


# ---- What is on screen at regular times


@pytest.mark.parametrize("fps", [5, 10, 25, 30, 60])
def test_sampling_in_time_does_not_depend_on_the_frame_rate(tmp_path, fps):
    path = write_video(tmp_path / "clip.mp4", draw_numbers(40), fps=fps, crf=8)
    numbers = tell_numbers(sample(path, every=4 / 30))
    expected = [int(moment * 4 * fps / 30 + 1e-6) for moment in range(len(numbers))]
    assert numbers == expected and expected[-1] + 4 * fps / 30 > 38


# ---- Files that cannot be used


def test_a_file_without_a_video_is_unreadable(tmp_path):
    assert find_reason(tmp_path / "none.mp4") == "no such file"
    (tmp_path / "empty.mp4").touch()
    assert find_reason(tmp_path / "empty.mp4") == "empty file (0 bytes)"
    (tmp_path / "text.mp4").write_text("no video\n" * 100)
    assert "not a video" in find_reason(tmp_path / "text.mp4", sample)


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
            assert "not a video" in find_reason(tmp_path / name)


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
        with pytest.raises(UnreadableVideo, match="its pictures change their shape after frame 1[01]"):
            reader(tmp_path / "both.mp4")
