"""The whole pipeline, as `make repro` runs it, on a small project: short synthetic clips and few epochs."""

import contextlib
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
import yaml
from conftest import HANDWASH_CLASSES, ROOT
from small import (
    TWO_CORES,
    make_project,
    run,
    run_handwash,
    set_environment,
    shrink,
    write_small_clips,
)

from health_actions.contents import HANDWASH_CONTENTS, NTU_CONTENTS

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(1200)]
DAMAGED = {"cut_off.mp4": "not a video", "text.mp4": "not a video", "zero.mp4": "empty file", "five.mp4": "too short"}


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """The small project, run once."""
    project = make_project(tmp_path_factory.mktemp("compendium") / "project", shrink)
    write_small_clips(project)
    run(project, "dvc", "repro")
    return project


def read_reports(project: Path) -> dict[str, bytes]:
    reports = project / "reports"
    return {path.relative_to(reports).as_posix(): path.read_bytes() for path in reports.rglob("*") if path.is_file()}


def test_reports_hold_every_table_figure_and_notebook(project):
    reports = project / "reports" / "handwash"
    found = {kind: {path.name for path in (reports / kind).iterdir()} for kind in ("tables", "figures", "notebooks")}
    assert found["tables"] | found["figures"] >= {item.file for item in HANDWASH_CONTENTS}
    assert found["tables"] >= {f"{name}.csv" for name in (
        "table_1", "table_2", "table_3", "table_4", "table_5", "figure_1", "figure_2", "figure_5", "figure_6",
        "figure_7_to_9", "switches", "protocols", "mcnemar")}
    assert found["notebooks"] >= {"03_handwash_training_three_stream.html", "10_handwash_protocols.html"}
    assert len(found["notebooks"]) == 11 + 3  # one of them for each of three architectures
    assert (reports / "errors.html").is_file() and len(list((reports / "errors").iterdir())) == 4


def test_reports_hold_every_table_figure_and_notebook_of_study_b(project):
    reports = project / "reports" / "ntu"
    found = {kind: {path.name for path in (reports / kind).iterdir()} for kind in ("tables", "figures", "notebooks")}
    # Two of the eight networks are trained here, and one is looked at in detail.
    others = {f"{kind}_{number}" for kind, numbers in (("figure", (19, 20)), ("table", (5, 6))) for number in numbers}
    others |= {f"figure_{number}" for number in (7, 8, 9, 10, 11, 12, 18)}
    files = [item.file for item in NTU_CONTENTS]
    expected = {file for file in files if not file.startswith(tuple(f"{name}_" for name in others))
                and Path(file).stem not in others}
    assert found["tables"] | found["figures"] >= expected
    assert "figure_18_squeezenet.svg" in found["figures"]
    assert len(found["notebooks"]) == 9 + 2


@pytest.mark.parametrize("start", ["scratch", "pretrained"])
def test_both_starts_of_a_network_are_tested_on_an_unseen_performer(project, start):
    rows = pd.read_csv(project / "reports" / "ntu" / "tables" / "figure_16.csv").set_index(["model", "start"])
    assert set(rows.index) == {(model, start) for model in ("shufflenetv2", "squeezenet")
                               for start in ("scratch", "pretrained")}
    predictions = pd.read_csv(project / "reports" / "ntu" / "tables" / f"predictions_squeezenet_{start}.csv")
    assert set(predictions["clip"].str[8:12]) == {"P003"} and len(predictions) == 9
    card = json.loads((project / "build/ntu/models/squeezenet" / start / "fold_1/card.json").read_text())
    assert bool(card["training"]["weights"]) == (start == "pretrained")


def test_folders_of_pictures_and_json_are_those_that_the_published_code_reads(project):
    """Its loader opens <class>/<key of the JSON>/image_%05d.jpg, and n_frames beside them."""
    annotations = json.loads((project / "build/ntu/annotations/ntu_01.json").read_text())
    assert len(annotations["database"]) == 21
    for key, entry in annotations["database"].items():
        folder = project / "build/ntu/frames/folders" / entry["annotations"]["label"] / key
        count = int((folder / "n_frames").read_text())
        assert entry["annotations"]["segment"] == [1, count] and len(list(folder.glob("image_*.jpg"))) == count
    lines = (project / "build/ntu/annotations/testlist01.txt").read_text().splitlines()
    assert len(lines) == 9 and all((project / "build/ntu/frames/folders" / line.split()[0]).is_dir() for line in lines)


@pytest.mark.parametrize(("table", "column", "values"), [
    ("table_1", "architecture", ["cnn_lstm_custom", "cnn_lstm_efficientnet_lite0"]),
    ("table_2", "batch_size", [16]), ("table_3", "size", [32]), ("table_4", "augmentation", ["none", "mirror"]),
    ("table_5", "model", ["three_stream: rgb", "three_stream: flow", "three_stream: gradients", "three_stream"]),
    ("switches", "switch", ["base", "BGR", "no normalisation", "random window", "no seed", "chosen on test clips",
                            "duplicates kept"]),
    ("protocols", "protocol", ["stratified", "by_performer"])])
def test_a_table_has_a_row_for_each_thing_compared(project, table, column, values):
    rows = pd.read_csv(project / "reports" / "handwash" / "tables" / f"{table}.csv")
    assert list(rows[column])[:len(values)] == values and len(rows) == len(values) + (table == "table_5")
    assert (rows["clips"] == (12 if table in ("table_2", "table_3", "table_4", "switches") else 36)).all()
    assert ((rows["low"] <= rows["reproduced"]) & (rows["reproduced"] <= rows["high"])).all()


def test_every_clip_is_tested_once(project):
    confusions = pd.read_csv(project / "reports" / "handwash" / "tables" / "confusions.csv", index_col="predicted")
    assert list(confusions) == HANDWASH_CLASSES and confusions.to_numpy().sum() == 36


def test_files_that_are_no_good_are_named_with_their_reason(project):
    left_out = pd.read_csv(project / "reports" / "handwash" / "tables" / "left_out.csv").set_index("path")["reason"]
    page = (project / "reports" / "index.html").read_text()
    for name, reason in DAMAGED.items():
        assert reason in left_out[f"Step_3/{name}"]
        assert name in page
    assert "unknown class" in left_out["Step_9/other.mp4"]
    assert len(left_out) == 5


def test_the_index_says_synthetic(project):
    assert "all 36 were rendered by this project" in (project / "reports" / "index.html").read_text()


@pytest.mark.parametrize("page", ["index.html", "handwash/errors.html"])
def test_a_page_links_only_to_files_that_are_there(project, page):
    path = project / "reports" / page
    links = re.findall(r'(?:href|src)="([^"#]+)', path.read_text())
    assert links
    for link in links:
        assert (path.parent / link).is_file(), link


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


def test_running_everything_again_gives_the_same_bytes_on_two_cores_as_on_one(project):
    before, lock = read_reports(project), (project / "dvc.lock").read_text()
    shutil.rmtree(project / ".resume")  # nothing is taken up from the first run
    run(project, "dvc", "repro", "-f", cores=TWO_CORES)
    assert read_reports(project) == before
    assert (project / "dvc.lock").read_text() == lock


@pytest.mark.parametrize(("name", "value", "stages"), [
    ("architectures.cnn_lstm_custom.epochs", 1, {"handwash_train@cnn_lstm_custom"}),
    ("annotations.seed", 1, {"handwash_annotations", "handwash_switches"}),
    ("settings.epochs", 2, {"handwash_settings"}),
    ("settings.base", "cnn_lstm_custom", {"handwash_settings", "handwash_streams"}),
    ("errors.most_errors", 5, {"handwash_errors"}),
    ("switches.repeats", 2, {"handwash_switches"}),
    ("protocols.seeds", [1], {"handwash_protocols"})])
def test_a_changed_value_reruns_the_stages_that_take_it(project, name, value, stages):
    params = project / "params.yaml"
    before = params.read_text()
    values = yaml.safe_load(before)
    *sections, last = name.split(".")
    section = values["laptop"]["handwash"]
    for part in sections:
        section = section[part]
    section[last] = value
    params.write_text(yaml.safe_dump(values, sort_keys=False))
    changed = run(project, "dvc", "status")
    params.write_text(before)
    assert set(re.findall(r"^(\S+):$", changed, re.MULTILINE)) == stages


def test_an_empty_data_folder_stops_with_what_was_expected(project, tmp_path):
    other = make_project(tmp_path / "project", shrink)
    (other / "data" / "handwash").mkdir(parents=True)
    output = run(other, "dvc", "repro", "handwash_frames", check=False)
    assert "no clips in handwash. Expected clips like" in output
    assert not (other / "build" / "handwash" / "frames" / "index.csv").exists()


def test_training_killed_in_the_middle_ends_with_the_same_weights(project, tmp_path):
    """kill -9 of the stage, its kernel and its folds after an epoch; the next run goes on from there."""
    command = [sys.executable, "-m", "health_actions.run", "notebooks/03_handwash_training.ipynb"]
    options = ["--params", "handwash.classes,laptop.handwash.train,laptop.handwash.architectures.cnn_lstm_custom",
               "--set", "architecture=cnn_lstm_custom", "--set", "epochs=6"]

    def target(name):
        return [*command, str(tmp_path / f"{name}.ipynb"), *options, "--set", f"output={tmp_path / name}",
                "--set", f"resume={tmp_path / name}_resume"]

    run(project, *target("whole"))
    log = project / "logs" / "killed.log"
    log.unlink(missing_ok=True)
    process = subprocess.Popen(target("killed"), cwd=project, env=set_environment(project, TWO_CORES),
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (log.exists() and "fold 2 of 3, epoch 2" in log.read_text()):
        time.sleep(0.05)
    stage = psutil.Process(process.pid)
    for one in [*stage.children(recursive=True), stage]:
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended with one that was killed before
            one.kill()
    process.wait()
    assert not (tmp_path / "killed.ipynb").exists(), "it was killed before its end"
    run(project, *target("killed"), cores=TWO_CORES)
    told = log.read_text()
    assert "fold 2 of 3, epoch 1 " not in told, "it went on, it did not start anew"
    for file in ("history.csv", *(f"fold_{fold}/weights.safetensors" for fold in (1, 2, 3))):
        assert (tmp_path / "killed" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), file


def test_clips_of_ones_own_take_the_place_of_the_embedded_ones(project, tmp_path):
    """The README's way: other names, upper and lower case, a split given by folders."""
    def shrink_more(params):
        shrink(params)
        params["handwash"]["models"] = ["cnn_lstm_custom", "three_stream"]

    own = make_project(tmp_path / "project", shrink_more)
    for number, source in enumerate(sorted((project / "data" / "handwash").glob("Step_[1-7]*/HandWash_*.mp4"))):
        split = ["train", "train", "val", "test"][number % 4]
        target = own / "data" / "handwash" / split / source.parent.name.lower() / f"my clip {number}.mp4"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    run_handwash(own)
    table = pd.read_csv(own / "reports" / "handwash" / "tables" / "table_1.csv")
    assert list(table["clips"]) == [9]
    assert pd.read_csv(own / "reports" / "handwash" / "tables" / "mcnemar.csv").empty, "one architecture has no pair"
    assert "given by the folders" in (own / "reports" / "index.html").read_text()


def test_every_table_and_figure_has_the_cell_that_made_it(project):
    reports = project / "reports"
    files = json.loads((reports / "provenance.json").read_text())["files"]
    assert set(files) == {name for name in read_reports(project) if name != "provenance.json"}
    made = {name: entry for name, entry in files.items() if "/tables/" in name or "/figures/" in name}
    assert {name for name, entry in made.items() if entry["stage"] == "report"} == {
        "handwash/tables/left_out.csv", "ntu/tables/left_out.csv"}
    for name, entry in made.items():
        if entry["stage"] != "report":
            page = (reports / name.partition("/")[0] / "notebooks" / f"{entry['notebook']}.html").read_text()
            assert f'id="cell-id=cell-{entry["cell"]:02d}"' in page, name
    origin = files["ntu/tables/figure_16.csv"]
    link = f"ntu/notebooks/{origin['notebook']}.html#cell-id=cell-{origin['cell']:02d}"
    assert link in (reports / "index.html").read_text() and origin["stage"] == "ntu_evaluation"


def test_the_report_holds_until_something_is_altered_by_hand(project):
    command = sys.executable, "-m", "health_actions.verify"
    said = run(project, *command, check=False)
    assert "verify: 1 stale" in said and "data.dvc: missing" in said, "the small project's clips are not tracked"
    table = project / "reports" / "ntu" / "tables" / "table_3.csv"
    before = table.read_bytes()
    table.write_bytes(before.replace(b"0.", b"1.", 1))
    output = run(project, *command, check=False)
    table.write_bytes(before)
    assert "verify: 2 stale" in output
    assert "ntu/tables/table_3.csv" in output and "altered" in output
