"""The whole pipeline on the small project: what it leaves, what runs again, and what a second run changes."""

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
import torch
import torchvision
import yaml
from conftest import HANDWASH_CLASSES, ROOT
from small import TWO_CORES, make_project, run, run_handwash, set_environment, shrink
from test_weights import release

from health_actions.figures.tables import FITTED
from synthetic_clips.handwash import write_clips
from synthetic_clips.ntu import write_clips as write_ntu_clips

pytestmark = pytest.mark.timeout(3000)
CONTENTS = yaml.safe_load((ROOT / "notebooks" / "21_report.yaml").read_text())
UNUSABLE = {"cut_off.mp4": "not a video", "text.mp4": "not a video", "zero.mp4": "empty file", "five.mp4": "too short"}
# Study A: errors of the paper's kinds, or others in their place. Study B: of eight networks two are trained.
NOT_MADE = {"handwash": re.compile(r"figure_[789]\.|most_certain_"),
            "ntu": re.compile(r"figure_([789]|10|11|13|18|19|20)_|table_[456]\.csv")}


@pytest.fixture
def copy(small_project, tmp_path) -> Path:
    """The small project as it ended, to be changed."""
    return shutil.copytree(small_project, tmp_path / "project", symlinks=True)


def read_reports(project: Path) -> dict[str, bytes]:
    reports = project / "reports"
    return {path.relative_to(reports).as_posix(): path.read_bytes() for path in reports.rglob("*") if path.is_file()}


def read_table(project: Path, study: str, name: str) -> pd.DataFrame:
    return pd.read_csv(next((project / "reports" / study).glob(f"*/{name}.csv")))


def change(project: Path, key: str, value) -> None:
    """Set a value of the laptop profile."""
    values = section = yaml.safe_load((project / "params.yaml").read_text())
    *parts, last = f"laptop.{key}".split(".")
    for part in parts:
        section = section.setdefault(part, {})
    section[last] = value
    (project / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))


@pytest.mark.parametrize(("study", "notebooks"), [("handwash", 14 + 3), ("ntu", 13 + 2)])
def test_the_report_shows_every_table_figure_and_notebook(small_project, study, notebooks):
    reports, index = small_project / "reports" / study, (small_project / "reports" / "index.html").read_text()
    expected = {item[0] for section in ("key", "tables", "charts", "audit", "structures")
                for item in CONTENTS[study].get(section, [])}
    found = {path.name for path in reports.rglob("*")}
    for file in {*expected} - {*filter(NOT_MADE[study].match, expected)}:
        assert file in found and f'id="{study}-{file.replace(".", "-")}"' in index, file
    assert {file for file in found & expected if NOT_MADE[study].match(file)} == (
        {f"{name}.png" for name in read_table(small_project, study, "shown_errors")["picture"]}
        if study == "handwash" else set())
    pages = sorted(path.name for path in (reports / "notebooks").iterdir())
    assert len(pages) == notebooks and all(f"{study}/notebooks/{page}" in index for page in pages)


@pytest.mark.parametrize("study", ["handwash", "ntu"])
def test_all_trainings_stand_in_one_table_that_leads_to_their_pages_and_back(small_project, study):
    reports, build = small_project / "reports", small_project / "build" / study
    table = read_table(small_project, study, "trainings")
    assert len(table) == len({card.parents[1] for card in build.rglob("fold_*/card.json")})
    for row in table.itertuples():
        assert (row.fitted == "yes") == (row.training >= FITTED), row.network
    index = (reports / "index.html").read_text()
    section = index.partition(f'<section id="{study}-trainings">')[2].partition("</section>")[0]
    links = re.findall(rf'<a href="({study}/notebooks/\S+\.html)">(\w+)</a>', section)
    assert links == [(f"{study}/notebooks/{row.notebook}.html", row.network) for row in table.itertuples()]
    copies = [name for name in set(table["notebook"]) if "_training_" in name]
    pages = [(reports / study / "notebooks" / f"{name}.html").read_text() for name in copies]
    assert pages and all(f"index.html#{study}-trainings" in page for page in pages)
    notebooks = index.partition('<h2 id="notebooks">')[2].partition('<h2 id="stages">')[0]
    assert notebooks.count(f'"#{study}-trainings"') == 1 and not [name for name in copies if name in notebooks]


def test_every_table_and_figure_is_in_the_folder_of_its_notebook_and_names_the_cell_that_made_it(small_project):
    index = (small_project / "reports" / "index.html").read_text()
    links = re.findall(r'From <a href="((\w+)/notebooks/(\w+)\.html(?:#cell-id=(cell-\d+))?)">(\w+)(?:, )?(.*?)</a>; '
                       r'stage <a href="#stage-([\w@]+)">', index)
    assert len(links) > 50
    for _, study, notebook, cell, name, heading, stage in links:
        page = (small_project / "reports" / study / "notebooks" / f"{notebook}.html").read_text()
        assert name == notebook and cell and heading and f'id="cell-id={cell}"' in page, (notebook, cell)
        assert f'id="stage-{stage}"' in index
    assert any(link[2:4] + link[6:] == ("17_ntu_evaluation", link[3], "ntu_evaluation") for link in links)


def test_every_claim_has_its_verdict_in_the_report_and_one_test_performer_proves_none(small_project):
    judged = pd.read_csv(small_project / "reports" / "claims" / "25_claims" / "claims.csv").set_index("id")
    compared = pd.read_csv(small_project / "reports" / "claims" / "25_claims" / "comparisons.csv")
    assert len(judged) == 18 and set(judged["verdict"]) == {"cannot be tested here"}
    assert compared["why"].notna().all() and judged.loc["A7", "measured"] in set(compared["why"])
    page = (small_project / "reports" / "index.html").read_text()
    head = page[:page.index("<nav>")]
    assert re.findall(r'<tr id="claim-(\w+)">', head) == list(judged.index)
    assert "Of 18 claims" in head and "clips are synthetic" in head and head.count("shown here</a>") > 10
    table = (small_project / "reports" / "claims" / "21_report" / "claims.md").read_text()
    assert len(table.splitlines()) == 20 and "**cannot be tested here**" in table


def test_a_picture_with_a_papers_number_shows_what_its_title_says(small_project):
    charts = {"figure_12_squeezenet": "squeezenet: ", "figure_14_shufflenetv2": "shufflenetv2: ",
              "figure_6_c3d_architecture": "conv3a", "figure_1_workflow": "ntu_behaviour",
              "figure_3_convlstm": "convlstm: ", "figure_4_cnn_lstm": "cnn_lstm_alexnet: "}
    for name, text in charts.items():  # matplotlib writes its texts as comments beside the letters' outlines
        [file] = (small_project / "reports").glob(f"*/[0-9]*/{name}.svg")
        assert text in file.read_text(), name
    errors = read_table(small_project, "handwash", "shown_errors")
    kinds = {"figure_7": ("step_6_right", "step_5_right"), "figure_8": ("step_6_right", "step_7_right"),
             "figure_9": ("step_2_left", "step_7_right")}
    assert len(errors) == 3 and errors["number"].is_unique
    for row in errors.itertuples():
        assert row.picture.startswith("most_certain_") or (row.actual, row.predicted) == kinds[row.picture]


def test_both_starts_of_a_network_are_tested_on_an_unseen_performer(small_project):
    rows = read_table(small_project, "ntu", "figure_16")
    assert set(zip(rows["model"], rows["start"])) == {
        (model, start) for model in ("shufflenetv2", "squeezenet") for start in ("scratch", "pretrained")}
    for start in ("scratch", "pretrained"):
        predictions = read_table(small_project, "ntu", f"predictions_squeezenet_{start}")
        assert set(predictions["clip"].str[8:12]) == {"P003"} and len(predictions) == 6
        card = json.loads((small_project / "build/ntu/models/squeezenet" / start / "fold_1/card.json").read_text())
        assert bool(card["training"]["weights"]) == (start == "pretrained")


def test_folders_of_pictures_and_json_are_those_that_the_published_code_reads(small_project):
    """Its loader opens <class>/<key of the JSON>/image_%05d.jpg, and n_frames beside them."""
    build = small_project / "build" / "ntu"
    annotations = json.loads((build / "annotations" / "ntu_01.json").read_text())
    assert len(annotations["database"]) == 18
    for key, entry in annotations["database"].items():
        folder = build / "frames" / "folders" / entry["annotations"]["label"] / key
        count = int((folder / "n_frames").read_text())
        assert entry["annotations"]["segment"] == [1, count] and len(list(folder.glob("image_*.jpg"))) == count
    lines = (build / "annotations" / "testlist01.txt").read_text().splitlines()
    assert len(lines) == 6 and all((build / "frames" / "folders" / line.split()[0]).is_dir() for line in lines)


@pytest.mark.parametrize(("table", "column", "values"), [
    ("table_1", "architecture", ["cnn_lstm_custom", "cnn_lstm_efficientnet_lite0", "landmarks",
                                 "class_prior", "mean_frame"]),
    ("table_2", "batch_size", [16]), ("table_3", "size", [32]), ("table_4", "augmentation", ["none", "mirror"]),
    ("table_5", "model", ["three_stream: rgb", "three_stream: flow", "three_stream: gradients", "three_stream"]),
    ("legacy_switches", "switch", ["base", "BGR", "no normalisation", "random window", "no seed",
                                   "chosen on test clips", "duplicates kept"]),
    ("protocols", "protocol", ["stratified", "by_performer", "by_scene"])])
def test_a_table_has_a_row_for_each_thing_compared(small_project, table, column, values):
    rows = read_table(small_project, "handwash", table)
    assert list(rows[column])[:len(values)] == values and len(rows) == len(values) + (table == "table_5")
    assert (rows["clips"] == (36 if table == "protocols" else 12)).all()
    assert ((rows["low"] <= rows["reproduced"]) & (rows["reproduced"] <= rows["high"])).all()
    confusions = read_table(small_project, "handwash", "confusions").set_index("predicted")
    assert list(confusions) == HANDWASH_CLASSES and confusions.to_numpy().sum() == 12, "every test clip once"


def test_unusable_files_are_named_with_their_reason_and_the_clips_are_called_synthetic(small_project):
    left_out = read_table(small_project, "handwash", "left_out").set_index("path")["reason"]
    page = (small_project / "reports" / "index.html").read_text()
    for name, reason in UNUSABLE.items():
        assert reason in left_out[f"Step_3/{name}"] and name in page
    assert "unknown class" in left_out["Step_9/other.mp4"] and len(left_out) == 5
    assert "all 36 were rendered by this project" in page


def test_pages_link_to_files_that_are_there_load_nothing_from_the_web_and_name_no_folder_of_this_machine(small_project):
    pages = list((small_project / "reports").rglob("*.html"))
    assert len(pages) == 3 + 17 + 15
    for path in pages:
        page = path.read_text()
        for link in re.findall(r'(?:href|src)="([^"#:]+)(?:#[^"]*)?"', page):
            assert (path.parent / link).is_file(), (path.name, link)
        assert not re.search(r"""src=["']http|<link [^>]*href=["']http|@import url.http""", page), path.name
    for name, content in read_reports(small_project).items():
        for folder in (small_project, ROOT, Path(sys.prefix), Path.home()):
            assert str(folder).encode() not in content, name


def test_dvc_shows_metrics_and_plots(small_project, tmp_path):
    assert "cnn_lstm_custom" in run(small_project, "dvc", "metrics", "show")
    output = run(small_project, "dvc", "plots", "show", "--json", "-o", str(tmp_path))
    for text in ("efficientnet_lite0", "squeezenet", "falling_down", "step_2_left"):
        assert text in output
    assert "could not find" not in output


def test_nothing_runs_a_second_time_and_a_changed_value_reruns_the_stages_that_take_it(copy):
    assert "Running stage" not in run(copy, "dvc", "repro")
    change(copy, "handwash.architectures.cnn_lstm_custom.epochs", 1)
    change(copy, "handwash.settings.base", "cnn_lstm_custom")
    changed = run(copy, "dvc", "status")
    assert set(re.findall(r"^(\S+):$", changed, re.MULTILINE)) == {
        "handwash_training@cnn_lstm_custom", "handwash_settings", "handwash_streams", "claims", "report"}


@pytest.mark.slow
@pytest.mark.parametrize(("key", "value", "stages"), [
    ("handwash.annotations.seed", 1, "handwash_annotations handwash_legacy_switches"),
    ("ntu.training.flip", 0.4, "ntu_transforms ntu_pretraining ntu_training@shufflenetv2 ntu_training@squeezenet"),
    ("ntu.reject.unknown_clips", 5, "reject@ntu")])
def test_a_value_that_only_the_published_profile_has_can_be_changed(copy, key, value, stages):
    change(copy, key, value)
    assert set(re.findall(r"^(\S+):$", run(copy, "dvc", "status"), re.MULTILINE)) == {*stages.split(), "report"}


@pytest.mark.slow
@pytest.mark.longest
def test_everything_again_gives_the_same_bytes_on_two_cores_as_on_one(copy):
    before, lock = read_reports(copy), (copy / "dvc.lock").read_text()
    shutil.rmtree(copy / ".resume")  # nothing is resumed from the first run
    run(copy, "dvc", "repro", "-f", cores=TWO_CORES)
    after = read_reports(copy)
    assert {name for name in {*before, *after} if before.get(name) != after.get(name)} == set()
    assert (copy / "dvc.lock").read_text() == lock


@pytest.mark.slow
def test_an_experiment_runs_with_another_value_and_shows_it(copy):
    shutil.copy(ROOT / ".gitignore", copy)
    for command in ("init -q", "config user.email a@b.c", "config user.name a", "add -A", "commit -qm one"):
        run(copy, "git", *command.split())
    run(copy, "dvc", "config", "core.no_scm", "false")
    run(copy, "dvc", "exp", "run", "-S", "laptop.ntu.architectures.squeezenet.epochs=2", "ntu_training@squeezenet")
    assert yaml.safe_load((copy / "params.yaml").read_text())["laptop"]["ntu"]["architectures"]["squeezenet"] == {
        "epochs": 2}
    assert "epochs" in run(copy, "dvc", "exp", "show", "--only-changed", "--csv")


@pytest.mark.slow
def test_an_empty_data_folder_stops_with_what_was_expected(tmp_path):
    project = make_project(tmp_path / "project", shrink)
    (project / "data" / "handwash").mkdir(parents=True)
    output = run(project, "dvc", "repro", "handwash_frames", check=False)
    assert "no clips in handwash. Expected clips like" in output
    assert not (project / "build" / "handwash" / "frames" / "index.csv").exists()


@pytest.mark.slow
def test_training_killed_in_the_middle_ends_with_the_same_weights(copy, tmp_path):
    """kill -9 of the stage and all of its processes after an epoch; the next run resumes from there."""
    change(copy, "handwash.training.epochs", 6)
    stage = "handwash_training@cnn_lstm_custom"
    command = [sys.executable, "-m", "health_actions.run", "notebooks/03_handwash_training.ipynb", "--stage", stage,
               "--set", "architecture=cnn_lstm_custom"]

    def target(name):
        return [*command, "--set", f"output={tmp_path / name}", "--set", f"resume={tmp_path / name}_resume"]

    run(copy, *target("whole"))
    log = copy / "logs" / f"{stage}.log"
    log.unlink()
    process = subprocess.Popen(target("killed"), cwd=copy, env=set_environment(copy, TWO_CORES),
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (log.exists() and "epoch 2 of 6" in log.read_text()):
        time.sleep(0.02)
    parent = psutil.Process(process.pid)
    for one in [*parent.children(recursive=True), parent]:
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended with one that was killed before
            one.kill()
    process.wait()
    assert not list((tmp_path / "killed").rglob("history.csv")), "it was killed before its end"
    run(copy, *target("killed"), cores=TWO_CORES)
    assert "epoch 1 of 6" not in log.read_text(), "it resumed, it did not start anew"
    for file in ("history.csv", "fold_1/weights.safetensors"):
        assert (tmp_path / "killed" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), file


@pytest.mark.slow
def test_clips_of_ones_own_take_the_place_of_the_embedded_ones(small_project, tmp_path):
    """The README's way: other names, upper and lower case, a split given by folders; study A alone."""
    def shrink_more(params):
        shrink(params)
        params["handwash"]["models"] = ["cnn_lstm_custom", "three_stream"]

    own = make_project(tmp_path / "project", shrink_more)
    for number, source in enumerate(sorted((small_project / "data" / "handwash").glob("Step_[1-7]*/HandWash_*.mp4"))):
        split = ["train", "train", "val", "test"][number % 4]
        target = own / "data" / "handwash" / split / source.parent.name.lower() / f"my clip {number}.mp4"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    run_handwash(own)
    assert list(read_table(own, "handwash", "table_1")["clips"]) == [9] * 4
    assert read_table(own, "handwash", "table_1_differences").empty, "in two epochs the network does not fit its clips"
    assert "given by the folders" in (own / "reports" / "index.html").read_text()


# The published profile: its sizes, windows, optimizers, splits and files of weights.


def take_published(params: dict) -> None:
    """The published profile for one epoch, with shorter lists; a network of each family, ResNets of both shortcuts."""
    params["profile"] = "published"
    params["handwash"]["models"] = ["convlstm", "cnn_lstm_custom", "cnn_lstm_resnet50", "cnn_lstm_alexnet",
                                    "three_stream"]
    params["ntu"] |= {"source_classes": [], "everyday_classes": [], "models": [
        "c3d", "resnet18", "resnet50", "mobilenetv2", "shufflenetv2", "squeezenet"]}
    study = params["published"]["handwash"]
    study["training"]["epochs"] = params["published"]["ntu"]["training"]["epochs"] = 1
    study["settings"] |= {"epochs": 1, "grid_epochs": 1, "batch_sizes": [32], "learning_rates": [0.001], "sizes": [84],
                          "augmentations": ["none", "translation", "contrast"]}
    study["legacy_switches"]["epochs"] = 1
    study["protocols"] |= {"epochs": 1, "compared_protocols": ["stratified"], "seeds": [0]}


@pytest.fixture
def published(tmp_path) -> tuple[Path, dict]:
    """A project in the published profile without clips, and the variables that lead to random ImageNet weights."""
    project = make_project(tmp_path / "project", take_published)
    params = yaml.safe_load((project / "params.yaml").read_text())
    hub = tmp_path / "torch" / "hub" / "checkpoints"
    hub.mkdir(parents=True)
    for name in ("alexnet", "resnet50", "densenet121"):
        file = torchvision.models.get_model_weights(name).IMAGENET1K_V1.url.rpartition("/")[2]
        torch.save(torchvision.models.get_model(name).state_dict(), hub / file)
    for name, start in params["published"]["ntu"]["pretraining"].items():
        if start["released"] and name in params["ntu"]["models"]:
            release(project / "weights" / start["released"], name, name)
    return project, TWO_CORES | {"TORCH_HOME": str(tmp_path / "torch")}


def repro(project: Path, study: str, variables: dict) -> None:
    """All stages of one study."""
    stages = yaml.safe_load((project / "dvc.yaml").read_text())["stages"]
    run(project, "dvc", "repro", *(name for name in stages if name.startswith(f"{study}_")), cores=variables)


@pytest.mark.slow
@pytest.mark.longest
@pytest.mark.timeout(5000)
def test_study_a_runs_in_the_published_profile(published):
    project, variables = published
    write_clips(project / "data" / "handwash", performers=3, takes=1, duration=1.2, processes=2)
    repro(project, "handwash", variables)
    build = project / "build" / "handwash"
    assert pd.read_csv(build / "annotations" / "splits.csv")["subset"].value_counts().to_dict() == {
        "training": 29, "validation": 4, "testing": 3}  # of 36, in the shares of 573, 77 and 61
    expected = {"window": 16, "batch_size": 32, "learning_rate": 0.001, "betas": [0.9, 0.9], "gamma": 0.9, "epochs": 1}
    for name in ("convlstm", "cnn_lstm_custom", "cnn_lstm_resnet50", "cnn_lstm_alexnet", "three_stream"):
        card = json.loads((build / "models" / name / "fold_1" / "card.json").read_text())
        own = name != "three_stream"
        values = expected | {"size": 64 if own else 128, "colour": "bgr" if own else "rgb", "normalise": not own}
        assert {key: card["training"][key] for key in values} == values
        assert card["preprocessing"]["std"] == [1.0] * 3, "three_stream normalises its streams itself"
        assert bool(card["training"]["weights"]) == card["training"]["frozen_backbone"] == (
            name in ("cnn_lstm_resnet50", "cnn_lstm_alexnet", "three_stream"))
    assert "At 64 pixels, 10 frames, 1 epochs" in (build / "notebooks" / "06_handwash_settings.ipynb").read_text()
    tables = {name: len(pd.read_csv(build / folder / f"{name}.csv")) for folder, name in (
        ("evaluation", "table_1"), ("settings", "table_2"), ("settings", "table_3"), ("settings", "table_4"),
        ("streams", "table_5"), ("legacy_switches", "legacy_switches"), ("protocols", "protocols"))}
    # Table 1: four architectures, the landmark stream, two baselines.
    assert tables == {"table_1": 7, "table_2": 1, "table_3": 1, "table_4": 3, "table_5": 5, "legacy_switches": 7,
                      "protocols": 1}


@pytest.mark.slow
@pytest.mark.longest
@pytest.mark.timeout(5000)
def test_study_b_runs_in_the_published_profile(published):
    project, variables = published
    params = yaml.safe_load((project / "params.yaml").read_text())
    write_ntu_clips(project / "data" / "ntu", performers=[1], actions=params["ntu"]["classes"], frames=36, processes=2)
    repro(project, "ntu", variables)
    build = project / "build" / "ntu"
    assert pd.read_csv(build / "annotations" / "splits.csv")["subset"].value_counts().to_dict() == {
        "training": 12, "validation": 2, "testing": 4}
    expected = {"window": 16, "stride": 2, "size": 112, "batch_size": 64, "optimizer": "sgd", "learning_rate": 0.001,
                "momentum": 0.9, "dampening": 0.9, "schedule": "steps", "milestones": [40], "crop": "corner"}
    for name in params["ntu"]["models"]:
        released = params["published"]["ntu"]["pretraining"][name]["released"]
        starts = {"scratch": None} | ({"pretrained": f"weights/{released}"} if released else {})
        for start, file in starts.items():
            card = json.loads((build / "models" / name / start / "fold_1" / "card.json").read_text())
            values = expected | {"weights": file}
            assert {key: card["training"][key] for key in values} == values
            assert card["clip"].items() >= {"size": 112, "window": 16, "stride": 2}.items()
    table = pd.read_csv(build / "evaluation" / "table_3.csv").set_index("model")
    models = params["ntu"]["models"]
    assert list(table.index) == [*models, "landmarks", "class_prior", "mean_frame"] and (table["clips"] == 4).all()
    assert table["start"][models].to_dict() == {name: "scratch" if name == "c3d" else "pretrained" for name in models}
    assert table.loc["c3d", "published_top1"] == 0.516, "its published number is from scratch, too"
