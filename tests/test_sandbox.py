"""Decoding in a subprocess: the same frames, and no file takes anything with it."""

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time

import decoders
import numpy as np
import psutil
import pytest
from conftest import draw_numbers, tell_numbers, write_video

from health_actions.data import sandbox
from health_actions.data.frames import decode_jpeg
from health_actions.data.sandbox import Sandbox, sample_in_sandbox
from health_actions.data.video import TooLong, UnreadableVideo, probe, sample_frames

SAMPLING = {"height": 48, "every": 1 / 30, "longest": 30}


@pytest.fixture
def list_decoders():
    """Processes that this test started: earlier tests may have left workers, waiting."""
    others = set(psutil.Process().children())
    return lambda: set(psutil.Process().children()) - others


def encode(box, path, **options) -> list[bytes]:
    return list(box.encode(path, **{"height": 32, "quality": 90, **options}))


def find_reason(box, path) -> str:
    with pytest.raises(UnreadableVideo) as caught:
        encode(box, path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- Videos that can be used


def test_frames_are_those_that_are_decoded_here(square_video, numbered_video, tmp_path, list_decoders):
    with Sandbox() as box:
        assert box.probe(square_video) == probe(square_video)
        for path in (square_video, numbered_video):
            np.testing.assert_array_equal(list(box.sample(path, **SAMPLING)), list(sample_frames(path, **SAMPLING)))
        pictures = encode(box, numbered_video, indices=np.array([3, 30]))
        assert tell_numbers(np.stack([decode_jpeg(picture) for picture in pictures])) == [3, 30]
        odd = shutil.copy(square_video, tmp_path / "-rf 手\n\udcff.mp4")
        assert len(encode(box, odd)) == 40 and len(list_decoders()) == 1
    assert not list_decoders()
    assert len(list(sample_in_sandbox(square_video, **SAMPLING))) == 40 and not list_decoders()


def test_an_iteration_that_is_given_up_ends_its_decoding(square_video, list_decoders):
    frames = sample_in_sandbox(square_video, **SAMPLING)
    next(frames)
    assert list_decoders()
    frames.close()
    assert not list_decoders()
    with Sandbox() as box:
        first = box.sample(square_video, **SAMPLING)
        next(first)
        assert box.probe(square_video).frames == 40
        with pytest.raises(UnreadableVideo):
            list(first)
        assert box.probe(square_video).frames == 40 and len(list_decoders()) == 1


# ---- Files that cannot be used


def test_a_bad_file_is_refused_with_its_reason_and_the_next_one_is_read(square_video, tmp_path, list_decoders):
    content = square_video.read_bytes()
    (tmp_path / "text.mp4").write_text("no video at all\n" * 20)
    (tmp_path / "cut.mp4").write_bytes(content[:len(content) // 2])
    os.mkfifo(tmp_path / "endless.mp4")
    with Sandbox() as box:
        assert box.probe(square_video).frames == 40
        [process] = list_decoders()
        for path, words in ((tmp_path / "text.mp4", "not a video"), (tmp_path / "none.mp4", "no such file"),
                            (tmp_path / "cut.mp4", "damaged"), (tmp_path / "endless.mp4", "not a regular file"),
                            (tmp_path / ("a" * 300), "too long"), (tmp_path / "a\0b.mp4", "no such file")):
            assert words in find_reason(box, path), path
        assert len(encode(box, square_video)) == 40 and list_decoders() == {process}
    with pytest.raises(UnreadableVideo, match="cut off: "):
        list(sample_in_sandbox(tmp_path / "cut.mp4", **SAMPLING))
    with pytest.raises(TooLong, match="too long: more than 1 seconds"):
        list(sample_in_sandbox(square_video, **SAMPLING | {"longest": 1}))


@pytest.mark.parametrize(("name", "words"), [
    ("crash", "damaged: its decoder crashed"), ("hang", "takes too long to decode: more than 2 seconds without"),
    ("memory", "decoding it takes too much memory"), ("write", "File too large")])
def test_what_a_decoder_does_ends_with_its_file(square_video, tmp_path, monkeypatch, list_decoders, name, words):
    monkeypatch.setattr(sandbox, "COMMAND", decoders.COMMAND)
    monkeypatch.setattr(sandbox, "PATIENCE", 2.0)
    bad, good = (shutil.copy(square_video, tmp_path / f"{stem}.mp4") for stem in (name, "good"))
    with Sandbox() as box:
        assert len(encode(box, good)) == 40
        assert words in find_reason(box, bad)
        assert len(encode(box, good)) == 40 and len(list_decoders()) == 1
    assert not list_decoders() and not any(path.stat().st_size for path in tmp_path.glob("*.written"))


@pytest.mark.slow
def test_time_that_the_caller_takes_does_not_count(square_video, monkeypatch):
    monkeypatch.setattr(sandbox, "PATIENCE", 2.0)
    with Sandbox() as box:
        for number, _ in enumerate(box.sample(square_video, **SAMPLING | {"height": 500})):
            if number == 1:  # most frames do not fit the socket: the decoder waits, for longer than its own alarm
                time.sleep(4.5)
        assert number == 39


@pytest.mark.parametrize(("name", "value", "words"), [
    ("COMMAND", ("sh", "-c", "exit 1", "sh"), "its decoder crashed"), ("WORK", 0.0, "takes too long to decode")])
def test_a_decoder_that_does_not_start_or_is_slow(square_video, monkeypatch, list_decoders, name, value, words):
    monkeypatch.setattr(sandbox, name, value)
    with Sandbox() as box:
        assert words in find_reason(box, square_video)
        assert not list_decoders()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hang", "long"])
def test_a_killed_parent_leaves_no_decoder(tmp_path, name):
    """One decoder hangs below Python, the other has frames for a parent that is gone."""
    path = write_video(tmp_path / f"{name}.mp4", draw_numbers(40))
    code = f"""
{decoders.PRELOAD}
sandbox.PATIENCE = 2.0
for number, _ in enumerate(sandbox.Sandbox().encode({str(path)!r}, height=1000, quality=95)):
    print("a frame", flush=True)
    if number == 2:
        input()
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    for _ in range(3):
        assert parent.stdout.readline()
    [child] = psutil.Process(parent.pid).children()
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    for _ in itertools.takewhile(lambda _: child.is_running() and child.status() != psutil.STATUS_ZOMBIE, range(120)):
        time.sleep(0.1)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
