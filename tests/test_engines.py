"""Clips are decoded elsewhere, and what dies there takes nothing with it."""

import hashlib
import os
import shutil
import sys
import time
import types

import distributed
import joblib
import pytest
from conftest import CLASSES, draw_square, list_files, write_video
from decoders import fill_memory, hang, kill, note_process
from joblib._parallel_backends import MultiprocessingBackend

from health_actions.data import extraction
from health_actions.data.clips import find_clips
from health_actions.data.engines import start_engine
from health_actions.data.extraction import extract_archives, extract_frames


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Eight clips, one of them damaged."""
    folder = tmp_path_factory.mktemp("engines") / "clips"
    first = write_video(folder / "Step_1" / "clip_0.mp4", draw_square(frames=12))
    for number in range(1, 7):
        shutil.copy(first, folder / "Step_1" / f"clip_{number}.mp4")
    (folder / "Step_1" / "damaged.mp4").write_bytes(first.read_bytes()[:900])
    return folder


def hash_files(folder) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in list_files(folder)}


def extract_both(folder, output, **options):
    extract_frames(folder, output / "a", CLASSES, sizes=[16], length=8, stride=4, **options)
    extract_archives(folder, output / "b", CLASSES, height=32, naming="handwash", **options)
    return hash_files(output)


@pytest.fixture(scope="module")
def expected(folder, tmp_path_factory):
    hashes = extract_both(folder, tmp_path_factory.mktemp("processes"), processes=2)
    assert len(hashes) == 2 * (7 + 1)
    return hashes


@pytest.mark.parametrize("inside", [True, False], ids=["processes", "threads"])
def test_dask_makes_the_same_bytes(folder, expected, tmp_path, inside):
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": inside, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster:
        assert extract_both(folder, tmp_path, engine="dask", address=cluster.scheduler_address) == expected


def test_dask_starts_a_cluster_of_its_own(folder, expected, tmp_path):
    assert extract_both(folder, tmp_path, engine="dask", processes=2) == expected


def test_ray_is_registered_with_joblib_and_shut_down(folder, expected, tmp_path, monkeypatch):
    """Ray itself is not here: its place is taken by what its backend derives from, which gives a list as Ray's does."""
    calls = []
    ray = types.ModuleType("ray")
    ray.init = lambda **options: calls.append(options)
    ray.shutdown = lambda: calls.append("shutdown")
    bridge = types.ModuleType("ray.util.joblib")
    bridge.register_ray = lambda: joblib.register_parallel_backend("ray", MultiprocessingBackend)
    for name, module in (("ray", ray), ("ray.util", types.ModuleType("ray.util")), ("ray.util.joblib", bridge)):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(extraction, "MEMORY", 10**12)  # these are forks, which have this process's memory already
    assert extract_both(folder, tmp_path, engine="ray", processes=2) == expected
    assert calls == [{"address": None, "num_cpus": 2}, "shutdown"] * 2


@pytest.mark.parametrize(("engine", "address", "words"), [
    ("spark", "", "no engine 'spark'; known are processes, dask, ray"),
    ("ray", "", r'the engine ray is not installed: pip install "ray"'),
    ("dask", "", r'the engine dask is not installed: pip install "distributed"'),
    ("dask", "nonsense://1", "no Dask scheduler answers at nonsense://1: ")])
def test_an_engine_that_cannot_be_had_is_told_in_one_line(folder, tmp_path, monkeypatch, engine, address, words):
    monkeypatch.setitem(sys.modules, "ray", None)
    if not address:
        monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ValueError, match=words) as caught:
        extract_both(folder, tmp_path, engine=engine, address=address)
    assert "\n" not in str(caught.value)


def test_one_core_has_two_processes(monkeypatch):
    monkeypatch.setattr(joblib, "cpu_count", lambda: 1)
    with start_engine():
        assert joblib.effective_n_jobs() == 2


# ---- What dies elsewhere takes nothing with it


def run(write, folder, output, engine="processes", processes=2):
    clips = find_clips(folder, CLASSES)
    engine = (engine, "", processes)
    index = extraction._extract_all(folder, output, clips, write, ".npz", {}, {}, engine).set_index("clip")
    assert len(index) == len(clips) == 8 and index.index.is_monotonic_increasing
    reasons = index["reason"].drop("Step_1/damaged")
    assert list_files(output) == ["Step_1/" + name.partition("/")[2] + ".npz" for name in reasons[reasons == ""].index
                                  ] + ["index.csv"]
    return {name.partition("/")[2]: reason for name, reason in reasons.items() if reason}


@pytest.mark.parametrize("engine", ["processes", "dask"])
def test_a_clip_that_kills_its_process_is_left_out_alone(folder, tmp_path, engine):
    assert run(kill, folder, tmp_path, engine=engine) == dict.fromkeys(
        ["clip_1", "clip_5"], "its decoder crashed, hung or ran out of memory")


def test_a_clip_that_hangs_below_python_is_left_out_alone(folder, tmp_path):
    start = time.monotonic()
    assert run(hang, folder, tmp_path) == {"clip_2": "its decoder crashed, hung or ran out of memory"}
    assert time.monotonic() - start < 60


def test_a_clip_that_takes_too_much_memory_is_left_out_alone(folder, tmp_path):
    assert run(fill_memory, folder, tmp_path) == {"clip_3": "decoding it takes too much memory"}


@pytest.mark.parametrize(("engine", "processes"), [("dask", 1), ("dask", 2), ("processes", 2)])
def test_no_clip_is_decoded_here(folder, tmp_path, engine, processes):
    assert run(note_process, folder, tmp_path, engine, processes) == {}
    used = {path.read_text() for path in tmp_path.rglob("*.npz")}
    assert str(os.getpid()) not in used and len(used) <= processes
