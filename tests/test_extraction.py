"""From videos to the store of frames."""

import json
import os
import shutil
import zipfile

import decoders
import numpy as np
import pytest
from conftest import CLASSES, draw_numbers, draw_square, list_files, tell_numbers, write_video
from hypothesis import given
from hypothesis import strategies as st

from health_actions.data import sandbox
from health_actions.data.clips import NoClips, find_clips
from health_actions.data.extraction import extract_frames, sample_indices
from health_actions.data.frames import open_clip, read_index, read_settings
from health_actions.data.sandbox import Sandbox
from health_actions.data.video import LATE, sample_frames

CLIP = "Step_1/HandWash_001_A_01_G_01"


def extract(folder, output, **settings):
    settings = {"height": 16, "length": 10, "stride": 4, "workers": 1} | settings
    return extract_frames(folder, output, find_clips(folder, CLASSES), **settings)


@pytest.fixture
def folder(tmp_path):
    """Two good clips."""
    write_video(tmp_path / "clips" / f"{CLIP}.mp4", draw_numbers(), crf=8)
    write_video(tmp_path / "clips" / "Step_2_Left" / "b.mp4", draw_square())
    return tmp_path / "clips"


# ---- Which frames are taken


@given(st.integers(2, 40), st.integers(1, 8), st.integers(0, 400))
def test_indices_are_evenly_spread_within_the_clip(length, stride, more):
    frames = length + more
    indices = sample_indices(frames, length=length, stride=stride)
    assert len(indices) == length and indices[0] == 0 and indices[-1] < frames
    [step] = set(np.diff(indices).tolist())
    assert step == stride or 1 <= step < stride and (step + 1) * (length - 1) >= frames  # a larger one leaves the clip


@pytest.mark.parametrize(("length", "stride", "kept"), [(10, 4, range(0, 40, 4)), (16, 4, range(0, 32, 2)),
                                                        (None, 1, range(40))])
def test_frames_are_kept_with_what_is_known_of_them(folder, tmp_path, length, stride, kept):
    row = extract(folder, tmp_path / "frames", length=length, stride=stride).set_index("clip").loc[CLIP]
    clip = open_clip(tmp_path / "frames", CLIP)
    assert clip[:].shape == (len(kept), 16, 24, 3) and tell_numbers(clip[:]) == list(kept)
    assert row[["frames", "fps", "width", "height", "status"]].tolist() == [40, 30.0, 96, 64, "ok"]
    assert row["duration"] == pytest.approx(1.333) and (row["length"], row["stride"]) == (len(kept), kept.step)
    expected = {"height": 16, "quality": 90, "length": length, "stride": stride}
    assert read_settings(tmp_path / "frames") == expected and clip.settings == expected | {"content": row["content"]}


@pytest.mark.parametrize("fps", [10, 25, 60])
@pytest.mark.parametrize("length", [10, None])
def test_clips_of_other_rates_are_stored_as_recognition_reads_them(folder, tmp_path, fps, length):
    path = write_video(folder / f"{CLIP}.mp4", draw_numbers(), fps=fps, crf=8)
    read = tell_numbers(np.stack(list(sample_frames(path, height=16, every=1 / 30, longest=30))))
    assert read == [int(number * fps / 30 + LATE * fps) for number in range(int(39 / fps * 30 + 0.01) + 1)]
    row = extract(folder, tmp_path / "frames", length=length).set_index("clip").loc[CLIP]
    kept = sample_indices(len(read), length=length, stride=4) if length else range(len(read))
    clip = open_clip(tmp_path / "frames", CLIP)
    assert tell_numbers(clip[:]) == [read[number] for number in kept]
    assert row[["frames", "fps"]].tolist() == [40, fps] and row["duration"] == pytest.approx(40 / fps, abs=0.001)
    # What an earlier version stored, which took every frame of the file, is made again.
    content = clip.file.read_bytes()
    with zipfile.ZipFile(clip.file, "a") as archive:
        archive.comment = json.dumps({name: clip.settings[name] for name in clip.settings if name != "rate"}).encode()
    extract(folder, tmp_path / "frames", length=length)
    assert clip.file.read_bytes() == content


# ---- Clips that cannot be used


def test_bad_clips_are_listed_with_their_reasons_and_left_out(folder, tmp_path):
    content = (folder / f"{CLIP}.mp4").read_bytes()
    (folder / "Step_1" / "cut.mp4").write_bytes(content[:len(content) // 2])
    (folder / "Step_1" / "empty.mp4").touch()
    (folder / "Step_1" / "notes.txt").write_text("text")
    write_video(folder / "Step_1" / "short.mp4", draw_square(frames=7))
    write_video(folder / "Step_9" / "other.mp4", draw_square())
    expected = {"Step_1/cut": "header", "Step_1/empty": "empty file", "Step_1/notes": "suffix",
                "Step_1/short": "too short: 7 frames", "Step_9/other": "unknown class"}
    for length in (10, None):
        index = extract(folder, tmp_path / "frames", length=length).set_index("clip")
        left_out = index[index["status"] == "left out"]["reason"]
        assert sorted(left_out.index) == sorted(expected)
        for name, words in expected.items():
            assert words in left_out[name] and "\n" not in left_out[name]
        assert list_files(tmp_path / "frames") == [f"{CLIP}.zip", "Step_2_Left/b.zip", "index.csv"]
    for path in folder.rglob("*.mp4"):
        path.write_bytes(b"")
    with pytest.raises(NoClips, match=rf"none of the 7 files in clips can be used:\n  {CLIP}.mp4: empty file"):
        extract(folder, tmp_path / "frames")


def test_clips_of_any_name_are_used_or_listed(folder, tmp_path):
    """Longer than an archive's or temporary name would be, equal but for the suffix, not UTF-8."""
    source, content = folder / f"{CLIP}.mp4", (folder / f"{CLIP}.mp4").read_bytes()
    names = [f"{'n' * 251}.mp4", f"{'ü' * 125}n.mov", "b.mkv", os.fsdecode(b"caf\xe9.mp4")]
    for name in names:
        try:
            shutil.copy(source, folder / "Step_2_Left" / name)
        except OSError:
            pytest.skip("this disk has UTF-8 names alone")
    os.symlink("nowhere", folder / "Step_1" / "broken.mp4")
    os.mkfifo(folder / "Step_1" / "pipe.mp4")
    index = extract(folder, tmp_path / "frames").set_index("path")
    assert index.loc[index["status"] != "ok", "reason"].to_dict() == {
        **dict.fromkeys(["Step_1/broken.mp4", "Step_1/pipe.mp4"], "no file, or a link that leads nowhere"),
        r"Step_2_Left/caf\udce9.mp4": "its name is not UTF-8: rename it"}
    assert read_index(tmp_path / "frames")["clip"].tolist() == index["clip"].tolist()
    usable = index[index["status"] == "ok"]
    assert len(usable) == 5 and (folder / f"{CLIP}.mp4").read_bytes() == content
    for path, clip in usable["clip"].items():
        frames = open_clip(tmp_path / "frames", clip)[:]
        assert (tell_numbers(frames) == list(range(0, 40, 4))) == (path != "Step_2_Left/b.mp4")
    assert len(list_files(tmp_path / "frames")) == 6


@pytest.mark.parametrize("change", [lambda file: file.write_bytes(file.read_bytes() + b"more"), os.utime, os.remove],
                         ids=["longer", "touched", "gone"])
def test_a_clip_that_changes_while_it_is_read_is_left_out(folder, tmp_path, monkeypatch, change):
    def encode(box, path, **options):
        pictures = list(sandbox_encode(box, path, **options))
        if path.stem == "b":
            change(path)
        return pictures

    sandbox_encode = Sandbox.encode
    monkeypatch.setattr(Sandbox, "encode", encode)
    index = extract(folder, tmp_path / "frames").set_index("clip")
    assert index["reason"].to_dict() == {CLIP: "", "Step_2_Left/b": "changed while it was read; run again"}
    assert list_files(tmp_path / "frames") == [f"{CLIP}.zip", "index.csv"]


# ---- What an earlier run left


@pytest.fixture
def files(folder, tmp_path):
    """The archives of a first run."""
    extract(folder, tmp_path / "frames")
    return [tmp_path / "frames" / f"{clip}.zip" for clip in (CLIP, "Step_2_Left/b")]


def test_a_second_run_decodes_only_what_changed(folder, tmp_path, files):
    before, table = [file.stat().st_mtime_ns for file in files], (tmp_path / "frames" / "index.csv").read_bytes()
    index = extract(folder, tmp_path / "frames")
    assert read_index(tmp_path / "frames").to_dict("records") == index.to_dict("records")
    assert [file.stat().st_mtime_ns for file in files] == before
    assert (tmp_path / "frames" / "index.csv").read_bytes() == table
    write_video(folder / "Step_2_Left" / "b.mp4", draw_square(background=120))
    extract(folder, tmp_path / "frames")
    assert files[0].stat().st_mtime_ns == before[0] and files[1].stat().st_mtime_ns > before[1]
    assert open_clip(tmp_path / "frames", "Step_2_Left/b")[:].min() > 90


def test_other_settings_and_damage_make_every_archive_again(folder, tmp_path, files):
    content = [file.read_bytes() for file in files]
    for changed in ({"stride": 2}, {"length": 8}, {"height": 24}, {"quality": 50}, {"length": None}):
        extract(folder, tmp_path / "frames", **changed)
        assert all(file.read_bytes() != old for file, old in zip(files, content, strict=True)), changed
    files[0].write_bytes(b"")
    files[1].write_bytes(content[1][:len(content[1]) // 2])
    extract(folder, tmp_path / "frames")
    assert [file.read_bytes() for file in files] == content, "the same settings give the same bytes"


def test_files_of_removed_and_damaged_clips_and_of_killed_runs_disappear(folder, tmp_path):
    write_video(folder / "Step_2_Left" / "c.mp4", draw_square())
    write_video(folder / "Step_2_Right" / "d.mp4", draw_square())
    extract(folder, tmp_path / "frames")
    (tmp_path / "frames" / "Step_1" / ".HandWash_001_A_01_G_01.77.part.zip").write_bytes(b"half")
    shutil.rmtree(folder / "Step_2_Right")
    (folder / "Step_2_Left" / "b.mp4").write_bytes(b"")
    extract(folder, tmp_path / "frames")
    assert list_files(tmp_path / "frames") == [f"{CLIP}.zip", "Step_2_Left/c.zip", "index.csv"]
    assert not (tmp_path / "frames" / "Step_2_Right").exists()


# ---- Where clips are decoded


@pytest.mark.parametrize("workers", [1, 3])
def test_a_clip_that_ends_its_decoder_is_left_out_alone(folder, tmp_path, monkeypatch, workers):
    monkeypatch.setattr(sandbox, "COMMAND", decoders.COMMAND)
    monkeypatch.setattr(sandbox, "PATIENCE", 2.0)
    for name in ("a", "crash", "crash_2", "hang", "memory", "z"):
        shutil.copy(folder / f"{CLIP}.mp4", folder / "Step_1" / f"{name}.mp4")
    index = extract(folder, tmp_path / "frames", length=None, workers=workers).set_index("clip")
    reasons = index.loc[index["status"] != "ok", "reason"]
    assert reasons.to_dict() == {
        **dict.fromkeys(["Step_1/crash", "Step_1/crash_2"], "damaged: its decoder crashed"),
        "Step_1/memory": "decoding it takes too much memory",
        "Step_1/hang": "takes too long to decode: more than 2 seconds without a frame"}
    assert len(list((tmp_path / "frames").rglob("*.zip"))) == 4 and index["path"].is_monotonic_increasing


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["loky", "dask"])
def test_other_backends_write_the_same_bytes(folder, tmp_path, backend):
    (folder / "Step_1" / "bad.mp4").write_bytes(b"bad")
    for name, options in {"here": {}, "there": {"backend": backend, "workers": 2}}.items():
        extract(folder, tmp_path / name, **options)
    assert list_files(tmp_path / "here") == list_files(tmp_path / "there")
    for name in list_files(tmp_path / "here"):
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()


@pytest.mark.slow
def test_a_dask_worker_that_dies_is_a_lost_clip_and_no_lost_run(folder, tmp_path):
    distributed = pytest.importorskip("distributed")
    import dask  # noqa: PLC0415

    for name in ("a", "parent", "z"):
        shutil.copy(folder / f"{CLIP}.mp4", folder / "Step_1" / f"{name}.mp4")
    options = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None, "preload": [decoders.PRELOAD]}
    with dask.config.set({"distributed.scheduler.allowed-failures": 1}), distributed.LocalCluster(**options) as cluster:
        index = extract(folder, tmp_path / "frames", backend="dask", address=cluster.scheduler_address)
    assert index.set_index("clip")["reason"][lambda reasons: reasons != ""].to_dict() == {
        "Step_1/parent": "the processes that decoded it died"}


@pytest.mark.parametrize(("backend", "address", "words"), [
    ("spark", "", "Invalid backend: spark"), ("dask", "", "the backend dask is not installed"),
    ("dask", "nonsense://1", "no Dask scheduler answers at nonsense://1: ")])
def test_a_backend_that_is_not_there_is_one_line(folder, tmp_path, monkeypatch, backend, address, words):
    if not address:
        monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with pytest.raises(ValueError, match=words) as caught:
        extract(folder, tmp_path / "frames", backend=backend, address=address)
    assert "\n" not in str(caught.value)
