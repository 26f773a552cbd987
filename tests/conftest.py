"""Small videos and data sets, drawn when they are asked for."""

import os
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock
from hypothesis import settings
from small import make_project, run_side_by_side, shrink, write_small_clips

from health_actions.data.clips import find_clips
from health_actions.data.extraction import extract_frames
from health_actions.data.frames import read_index
from health_actions.data.splits import make_splits
from health_actions.progress import LOG_VARIABLE

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"  # optional: real clips and fixtures of the published code
CLASSES = ["step_1", "step_2_left", "step_2_right"]
HANDWASH_CLASSES = ["step_1", "step_2_left", "step_2_right", "step_3", "step_4_left", "step_4_right", "step_5_left",
                    "step_5_right", "step_6_left", "step_6_right", "step_7_left", "step_7_right"]

settings.register_profile("project", deadline=None, max_examples=30, derandomize=True, database=None)
settings.load_profile("project")


def pytest_collection_modifyitems(items):
    """What takes longest starts first, the whole run and the slow tests: two processes then end at about one time."""
    items.sort(key=lambda item: ("small_project" not in item.fixturenames, item.get_closest_marker("slow") is None))


def mark_slow(names, quick) -> list:
    """Parameters of a test; the quick tests take those in `quick` alone."""
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


def write_video(path, frames, fps=30, crf=20, **container_options) -> Path:
    """Write uint8 frames (time, height, width, 3) as H.264; `movflags="faststart"` puts the header in front."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=container_options) as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": str(crf), "preset": "ultrafast"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def draw_square(step=(0, 2), *, frames=40, width=96, height=64, background=40, square=24) -> np.ndarray:
    """A bright square that moves by `step` (down, right) pixels a frame and comes in again on the other side."""
    first = np.full((height, width), background, np.uint8)
    first[:square, :square] = 230
    moved = [np.roll(first, (step[0] * number, step[1] * number), axis=(0, 1)) for number in range(frames)]
    return np.repeat(np.stack(moved)[..., None], 3, axis=-1)


def draw_numbers(frames=40, width=96, height=64) -> np.ndarray:
    """Grey frames whose brightness, 10 + 5 * number, tells their number."""
    return np.stack([np.full((height, width, 3), 10 + 5 * number, np.uint8) for number in range(frames)])


def tell_numbers(frames: np.ndarray) -> list[int]:
    """The numbers of frames of `draw_numbers`."""
    return ((frames.mean((1, 2, 3)) - 10) / 5).round().astype(int).tolist()


def make_clips(rows) -> pd.DataFrame:
    """A catalogue from (clip, class, recording, scene) or (clip, class, recording, scene, given_split)."""
    columns = ["clip", "class", "recording", "scene", "given_split"]
    clips = pd.DataFrame([(*row, "")[:5] for row in rows], columns=columns)
    return clips.assign(content=clips["clip"])


def list_files(folder: Path) -> list[str]:
    """Every file below a folder, hidden ones too."""
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())


@pytest.fixture(autouse=True)
def keep_denormals():
    """Training flushes denormal numbers to zero; scipy's trees, which other tests use, never end with that."""
    yield
    torch.set_flush_denormal(False)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tiny tensors are faster on one thread, and sums are the same on every machine."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_log(monkeypatch):
    """Progress goes to the terminal, not to a log that an earlier test named."""
    monkeypatch.delenv(LOG_VARIABLE, raising=False)


@pytest.fixture(scope="session")
def square_video(tmp_path_factory) -> Path:
    """40 frames of 96 x 64 at 30 frames per second; header in front."""
    return write_video(tmp_path_factory.mktemp("video") / "square.mp4", draw_square(), movflags="faststart")


@pytest.fixture(scope="session")
def numbered_video(tmp_path_factory) -> Path:
    """40 frames that tell their number by their brightness."""
    return write_video(tmp_path_factory.mktemp("video") / "numbered.mp4", draw_numbers(), crf=8)


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory) -> Path:
    """3 classes x 4 recordings in 2 scenes, named like the Kaggle set; classes differ in direction and brightness."""
    folder = tmp_path_factory.mktemp("data") / "handwash"
    for number, (name, step) in enumerate(zip(CLASSES, [(0, 2), (0, -2), (2, 0)], strict=True), start=1):
        for recording in range(1, 5):
            scene = "G_01" if recording < 3 else "G02"
            frames = draw_square(step, background=50 * number - 30 + 10 * recording, square=12 + 4 * recording)
            frames = (frames * [1, 0.8, 0.6]).astype(np.uint8)  # in a warm light: red and blue differ
            write_video(folder / name.title() / f"HandWash_{recording:03d}_A_{number:02d}_{scene}.mp4", frames)
    return folder


@pytest.fixture(scope="session")
def frames_folder(data_folder, tmp_path_factory) -> Path:
    """The sampled frames of `data_folder`: 10 a clip, 48 x 32 pixels."""
    output = tmp_path_factory.mktemp("frames")
    extract_frames(data_folder, output, find_clips(data_folder, CLASSES), height=32, length=10, stride=4, workers=1)
    return output


@pytest.fixture(scope="session")
def index(frames_folder) -> pd.DataFrame:
    """The index of `frames_folder`; every clip is usable."""
    return read_index(frames_folder)


@pytest.fixture(scope="session")
def splits(index) -> pd.DataFrame:
    """Two of the three folds that no recording crosses."""
    splits = make_splits(index, protocol="by_performer", folds=3)
    return splits[splits["fold"] <= 2].reset_index(drop=True)


@pytest.fixture(scope="session")
def real_clips() -> Path:
    """69 real hand-wash clips, where they are at hand."""
    folder = SHARED / "clips" / "handwash"
    if not folder.is_dir():
        pytest.skip("no real clips beside this checkout (../shared/clips/handwash)")
    return folder


@pytest.fixture(scope="session")
def small_project(tmp_path_factory) -> Path:
    """Both studies on a small project (benchmarks/small.py), run once for all tests and processes. Do not change it."""
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    project = folder / "small" / "project"
    with FileLock(folder / "small.lock"):
        if not project.exists():
            write_small_clips(make_project(project, shrink))
            run_side_by_side(project)
    return project
