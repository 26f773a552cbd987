"""The whole pipeline, as `make repro` runs it, on a small project: short synthetic clips and few epochs."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
import yaml
from conftest import HANDWASH_CLASSES, ROOT, SHARED

from health_actions.synthetic.handwash import write_clips

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(1200)]
BIN = Path(sys.executable).parent
FILES = ["dvc.yaml", "params.yaml", "matplotlibrc", "published", "notebooks", "src", "pyproject.toml"]
DAMAGED = {"cut_off.mp4": "not a video", "text.mp4": "not a video", "zero.mp4": "empty file", "five.mp4": "too short"}


def run(project: Path, *command: str, check: bool = True) -> str:
    """Run a command inside the small project as a terminal would; its output."""
    environment = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1",
                                "PYTHONPATH": str(project / "src"), "HOME": str(project.parent)}
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=1000)
    assert done.returncode == 0 or not check, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def make_project(folder: Path, change) -> Path:
    """A copy of the project with other parameters; `change` gets and alters what params.yaml holds."""
    folder.mkdir(parents=True)
    for name in FILES:
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copyfile
        copy(source, folder / name, **({"ignore": shutil.ignore_patterns("__pycache__")} if source.is_dir() else {}))
    params = yaml.safe_load((folder / "params.yaml").read_text())
    change(params)
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    run(folder, "dvc", "init", "--no-scm", "-q")
    return folder


def shrink(params: dict) -> None:
    params["handwash"]["models"] = ["cnn_lstm_custom", "cnn_lstm_efficientnet_lite0"]
    study = params["laptop"]["handwash"]
    study["frames"] |= {"sizes": [32]}
    study["annotations"] |= {"folds": 3}
    study["train"] |= {"epochs": 2, "window": 8, "precision": "32-true"}
    study["architectures"] = {
        "cnn_lstm_custom": {"size": 32, "weights": None, "options": {"lstm_width": 16}},
        "cnn_lstm_efficientnet_lite0": {"size": 32, "weights": "imagenet", "options": {"lstm_width": 16}}}


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """The small project, run once: 3 performers x 12 actions of about a second, and five files that are no good."""
    project = make_project(tmp_path_factory.mktemp("compendium") / "project", shrink)
    clips = project / "data" / "handwash"
    write_clips(clips, performers=3, takes=1, duration=1.2, processes=2)
    good = next(clips.glob("Step_1/*.mp4"))
    (clips / "Step_3" / "cut_off.mp4").write_bytes(good.read_bytes()[:2000])
    (clips / "Step_3" / "text.mp4").write_text("not a video at all\n" * 20)
    (clips / "Step_3" / "zero.mp4").write_bytes(b"")
    write_clips(project / "short", performers=1, takes=1, actions=["Step_1"], duration=5 / 30, processes=1)
    shutil.move(next((project / "short").rglob("*.mp4")), clips / "Step_3" / "five.mp4")
    (clips / "Step_9").mkdir()
    shutil.copyfile(good, clips / "Step_9" / "other.mp4")
    run(project, "dvc", "repro")
    return project


def read_reports(project: Path) -> dict[str, bytes]:
    reports = project / "reports"
    return {path.relative_to(reports).as_posix(): path.read_bytes() for path in reports.rglob("*") if path.is_file()}


def test_reports_hold_every_table_figure_and_notebook(project):
    reports = project / "reports" / "handwash"
    table = pd.read_csv(reports / "tables" / "table_1.csv")
    assert list(table["architecture"]) == ["cnn_lstm_custom", "cnn_lstm_efficientnet_lite0"]
    assert (table["clips"] == 36).all(), "every clip is tested once"
    assert ((table["low"] <= table["reproduced"]) & (table["reproduced"] <= table["high"])).all()
    assert {path.name for path in (reports / "figures").iterdir()} >= {
        "figure_1_classes.png", "figure_2_counts.svg", "figure_5_learning_curves.svg", "figure_6_confusions.svg"}
    pages = {path.name for path in (reports / "notebooks").iterdir()}
    assert len(pages) == 6 and "03_handwash_training_cnn_lstm_custom.html" in pages
    confusions = pd.read_csv(reports / "tables" / "confusions.csv", index_col="predicted")
    assert list(confusions) == HANDWASH_CLASSES and confusions.to_numpy().sum() == 36


def test_files_that_are_no_good_are_named_with_their_reason(project):
    left_out = pd.read_csv(project / "reports" / "handwash" / "tables" / "left_out.csv").set_index("path")["reason"]
    page = (project / "reports" / "index.html").read_text()
    for name, reason in DAMAGED.items():
        assert reason in left_out[f"Step_3/{name}"]
        assert name in page
    assert "unknown class" in left_out["Step_9/other.mp4"]
    assert len(left_out) == 5


def test_the_index_says_synthetic_and_links_only_to_files_that_are_there(project):
    page = (project / "reports" / "index.html").read_text()
    assert "all 36 were rendered by this project" in page
    links = [part.split('"')[0] for key in ('href="', 'src="') for part in page.split(key)[1:]]
    assert links
    for link in links:
        assert (project / "reports" / link).is_file(), link


def test_pages_load_nothing_from_the_web(project):
    for path in (project / "reports").rglob("*.html"):
        page = path.read_text()
        for key in ('src="http', "src='http", '<link rel="stylesheet" href="http', "@import url(http", "import('http"):
            assert key not in page, f"{path.name} loads from the web: {key}"


def test_reports_name_no_folder_of_this_machine(project):
    for name, content in read_reports(project).items():
        for folder in (project, ROOT, Path(sys.prefix), Path.home()):
            assert str(folder).encode() not in content, name


def test_nothing_runs_a_second_time(project):
    output = run(project, "dvc", "repro")
    assert "Running stage" not in output


def test_running_everything_again_gives_the_same_bytes(project):
    before, lock = read_reports(project), (project / "dvc.lock").read_text()
    run(project, "dvc", "repro", "-f")
    assert read_reports(project) == before
    assert (project / "dvc.lock").read_text() == lock


def test_a_changed_value_reruns_its_stage_and_what_depends_on_it(project):
    params = project / "params.yaml"
    before = params.read_text()
    values = yaml.safe_load(before)
    values["laptop"]["handwash"]["architectures"]["cnn_lstm_custom"]["epochs"] = 1
    params.write_text(yaml.safe_dump(values, sort_keys=False))
    changed = run(project, "dvc", "status")
    params.write_text(before)
    assert "handwash_train@cnn_lstm_custom" in changed
    for stage in ("handwash_frames", "handwash_annotations", "handwash_train@cnn_lstm_efficientnet_lite0"):
        assert f"{stage}:" not in changed


def test_an_empty_data_folder_stops_with_what_was_expected(project, tmp_path):
    other = make_project(tmp_path / "project", shrink)
    (other / "data" / "handwash").mkdir(parents=True)
    output = run(other, "dvc", "repro", check=False)
    assert "no clips in handwash. Expected a folder a class" in output
    assert not (other / "build" / "handwash" / "frames" / "index.csv").exists()


def test_training_killed_in_the_middle_ends_with_the_same_weights(project, tmp_path):
    """kill -9 of the stage and its kernel after an epoch; the next run goes on from there."""
    command = [sys.executable, "-m", "health_actions.run", "notebooks/03_handwash_training.ipynb"]
    options = ["--params", "handwash.classes,laptop.handwash.train,laptop.handwash.architectures.cnn_lstm_custom",
               "--set", "architecture=cnn_lstm_custom", "--set", "epochs=6"]

    def target(name):
        return [*command, str(tmp_path / f"{name}.ipynb"), *options, "--set", f"output={tmp_path / name}",
                "--set", f"resume={tmp_path / name}_resume"]

    run(project, *target("whole"))
    log = project / "logs" / "killed.log"
    log.unlink(missing_ok=True)
    environment = os.environ | {"PYTHONPATH": str(project / "src")}
    process = subprocess.Popen(target("killed"), cwd=project, env=environment, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (log.exists() and "fold 2 of 3, epoch 2" in log.read_text()):
        time.sleep(0.05)
    stage = psutil.Process(process.pid)
    for one in [*stage.children(recursive=True), stage]:
        one.kill()
    process.wait()
    assert not (tmp_path / "killed.ipynb").exists(), "it was killed before its end"
    run(project, *target("killed"))
    told = log.read_text()
    assert "fold 1 of 3, epoch" not in told and "fold 2 of 3, epoch 1 " not in told, "it went on, it did not start anew"
    for file in ("history.csv", *(f"fold_{fold}/weights.safetensors" for fold in (1, 2, 3))):
        assert (tmp_path / "killed" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), file


def test_clips_of_ones_own_take_the_place_of_the_embedded_ones(project, tmp_path):
    """The README's way: other names, upper and lower case, a split given by folders."""
    def shrink_more(params):
        shrink(params)
        params["handwash"]["models"] = ["cnn_lstm_custom"]

    own = make_project(tmp_path / "project", shrink_more)
    for number, source in enumerate(sorted((project / "data" / "handwash").glob("Step_[1-7]*/HandWash_*.mp4"))):
        split = ["train", "train", "val", "test"][number % 4]
        target = own / "data" / "handwash" / split / source.parent.name.lower() / f"my clip {number}.mp4"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    run(own, "dvc", "repro")
    table = pd.read_csv(own / "reports" / "handwash" / "tables" / "table_1.csv")
    assert (table["clips"] == 9).all()
    assert "given by the folders" in (own / "reports" / "index.html").read_text()


@pytest.mark.skipif(not (SHARED / "clips" / "handwash").is_dir(), reason="the real hand-wash clips are not at hand")
def test_real_clips_are_recognised_from_other_recordings(tmp_path):
    """A reduced version of the run on real clips: one architecture, fewer epochs, folds by recording."""
    def reduce(params):
        params["handwash"]["models"] = ["cnn_lstm_efficientnet_lite0"]
        params["laptop"]["handwash"]["frames"]["sizes"] = [128]
        params["laptop"]["handwash"]["architectures"]["cnn_lstm_efficientnet_lite0"]["epochs"] = 25

    real = make_project(tmp_path / "project", reduce)
    shutil.copytree(SHARED / "clips" / "handwash", real / "data" / "handwash")
    run(real, "dvc", "repro")
    metrics = json.loads((real / "reports" / "handwash" / "metrics.json").read_text())
    result = metrics["cnn_lstm_efficientnet_lite0"]
    assert result["clips"] == 62, "69 files, 7 of them are copies of others"
    assert result["clip_top1"] >= 0.55
    assert "none of them rendered by this project" in (real / "reports" / "index.html").read_text()
