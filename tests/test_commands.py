"""The command line, as a person uses it, on models that were made for it."""

import csv
import io
import json
import shutil

import pandas as pd
import pytest
import torch
import yaml
from conftest import CLASSES, ROOT
from test_recognition import make_card
from typer.testing import CliRunner

from health_actions.cli import app
from health_actions.data import sandbox as uploads
from health_actions.models import build_model
from health_actions.models.folder import save_model


@pytest.fixture(scope="module")
def project(tmp_path_factory, data_folder, frames_folder, splits, index):
    """A project in which study A was extracted, split, trained (random weights) and evaluated."""
    root = tmp_path_factory.mktemp("commands")
    (root / "dvc.yaml").touch()
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["handwash"]["classes"] = CLASSES
    study = params["laptop"]["handwash"]
    study["train"] |= {"epochs": 1, "window": 8, "precision": "32-true"}
    study["architectures"] = {"cnn_lstm_custom": {"size": 32, "weights": None, "options": {"lstm_width": 16}}}
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    build = root / "build" / "handwash"
    shutil.copytree(frames_folder, build / "frames")
    (build / "annotations").mkdir()
    splits.to_csv(build / "annotations" / "splits.csv", index=False)
    index.to_csv(build / "annotations" / "clips.csv", index=False)
    card = make_card("cnn_lstm_custom", stride=None, lstm_width=16)
    torch.manual_seed(0)
    save_model(build / "models" / "cnn_lstm_custom" / "fold_1", build_model(**card["architecture"]), card)
    (build / "evaluation").mkdir()
    table = pd.DataFrame({"architecture": ["cnn_lstm_custom"], "validation": [0.5]})
    table.to_csv(build / "evaluation" / "table_1.csv", index=False)
    shutil.copytree(data_folder, root / "clips")
    (root / "clips" / "Step_1" / "damaged.mp4").write_bytes(b"this is no video" * 20)
    return root


@pytest.fixture
def call(project, monkeypatch):
    """Run a command inside the project; its exit code, output and errors."""
    monkeypatch.chdir(project)

    def run(*arguments):
        done = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.stdout, done.stderr
    return run


def test_a_folder_with_a_damaged_file_is_predicted_but_for_it(call):
    code, output, _ = call("predict", "clips", "--study", "handwash", "--json")
    rows = json.loads(output)
    assert code == 1 and len(rows) == 13
    [damaged] = [row for row in rows if row["error"]]
    assert damaged["file"].endswith("damaged.mp4") and "not a video" in damaged["error"] and damaged["action"] is None
    for row in rows:
        if not row["error"]:
            assert row["action"] in CLASSES and row["probability"] == max(row["probabilities"].values())
            assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-3)


def test_csv_and_table_say_the_same(call):
    code, output, _ = call("predict", "clips/Step_3", "clips/Step_2_Left", "--study", "handwash", "--csv")
    assert code == 2 and output == ""
    code, output, _ = call("predict", "clips/Step_2_Left", "--study", "handwash", "--csv")
    rows = list(csv.DictReader(io.StringIO(output)))
    assert code == 0 and list(rows[0]) == ["file", "action", "probability", "error", *CLASSES]
    _, table, _ = call("predict", "clips/Step_2_Left", "--study", "handwash")
    for row in rows:
        assert [row["file"], row["action"], f"{float(row['probability']):.3f}"] in [
            line.split() for line in table.splitlines()]


@pytest.mark.parametrize(("arguments", "words"), [
    (["predict", "nowhere.mp4", "--study", "handwash"], "no such file or folder: nowhere.mp4"),
    (["predict", "build", "--study", "handwash"], "no videos in build; known are .mp4"),
    (["predict", "clips", "--study", "ntu"], "run make repro first"),
    (["predict", "clips", "--study", "handwash", "--model", "alexnet"], "there are: cnn_lstm_custom"),
    (["evaluate", "--study", "ntu"], "run make repro first"),
    (["train", "--arch", "alexnet", "--save-dir", "x"], "no architecture 'alexnet' of study handwash; it has cnn_lstm"),
    (["train", "--arch", "cnn_lstm_custom", "--save-dir", "x", "--data-aug", "blur"], "blur")])
def test_what_cannot_be_done_is_told_in_one_line(call, arguments, words):
    code, output, errors = call(*arguments)
    assert code == 2 and output == "" and errors.startswith("error: ") and errors.count("\n") == 1
    assert words in errors


def test_a_model_is_evaluated_on_its_validation_clips_and_on_test_clips_when_asked(call):
    code, output, _ = call("evaluate", "--study", "handwash")
    assert code == 0 and "validation clip top-1" in output
    code, output, _ = call("evaluate", "--study", "handwash", "--subset", "test")
    assert code == 0 and "test clip top-1" in output and "95 % interval" in output


def test_what_is_not_given_is_as_in_params(call, project):
    code, output, errors = call("train", "--arch", "cnn_lstm_custom", "--save-dir", "made", "--lr", 0.01,
                                "--beta2", 0.99, "--batch", 4, "--data-aug", "translation", "--step-size", 1)
    assert code == 0, errors
    training = json.loads((project / "made" / "fold_1" / "card.json").read_text())["training"]
    assert training["epochs"] == 1 and training["learning_rate"] == 0.01 and training["betas"] == [0.9, 0.99]
    assert training["batch_size"] == 4 and training["augmentation"] == "translation" and training["schedule"] == "steps"
    assert "made" in output
    code, output, _ = call("evaluate", "--study", "handwash", "--checkpoint", "made")
    assert code == 0 and "made: validation clip top-1" in output


@pytest.mark.parametrize("command", ["predict", "evaluate", "train"])
def test_help_tells_every_option(call, command):
    code, output, _ = call(command, "--help")
    assert code == 0 and "--study" in output


def test_a_file_that_crashes_its_decoder_does_not_end_the_others(call, monkeypatch):
    """A decoder that dies, as one does with a segmentation fault: in its own process."""
    monkeypatch.setattr(uploads.sys, "executable", shutil.which("false"))
    code, output, _ = call("predict", "clips/Step_2_Left", "--study", "handwash", "--json")
    assert code == 1 and {row["error"] for row in json.loads(output)} == {"damaged: its decoder broke down"}


def test_params_that_are_no_yaml_are_told_in_one_line(call, project, monkeypatch, tmp_path):
    shutil.copytree(project, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    (tmp_path / "copy" / "params.yaml").write_text("profile: !!python/object/apply:os.system ['touch ran']\n")
    done = CliRunner().invoke(app, ["train", "--arch", "cnn_lstm_custom", "--save-dir", "x"])
    assert done.exit_code == 2 and done.stderr.startswith("error: params.yaml is not readable: line 1, column 10: ")
    assert done.stderr.count("\n") == 1 and not (tmp_path / "copy" / "ran").exists()
