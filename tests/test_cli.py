"""The command line, as a person uses it, on models that were made for it."""

import csv
import io
import json
import os
import shlex
import shutil
import subprocess
import sys

import pytest
import torch
import yaml
from conftest import CLASSES, ROOT, draw_square, write_video
from random_models import save_random_model
from safetensors.torch import load_file
from typer.testing import CliRunner

from health_actions.cli import app
from health_actions.data import sandbox
from health_actions.data.clips import NTU_ACTIONS


@pytest.fixture(scope="module")
def project(tmp_path_factory, data_folder, frames_folder, splits, index):
    """A project in which study A was extracted, split, trained (random weights) and evaluated."""
    root = tmp_path_factory.mktemp("commands")
    (root / "dvc.yaml").touch()
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["handwash"]["classes"] = CLASSES
    study = params["laptop"]["handwash"]
    study["training"] |= {"epochs": 1, "window": 8, "precision": "32-true"}
    study["architectures"]["cnn_lstm_custom"] = {"size": 32, "options": {"lstm_width": 16}}
    study["architectures"]["cnn_lstm_resnet50"] |= {"size": 32, "options": {"lstm_width": 16, "freeze": True}}
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    build = root / "build" / "handwash"
    shutil.copytree(frames_folder, build / "frames")
    (build / "annotations").mkdir()
    splits.to_csv(build / "annotations" / "splits.csv", index=False)
    index.to_csv(build / "annotations" / "clips.csv", index=False)
    save_random_model(build / "models" / "cnn_lstm_custom" / "fold_1", "cnn_lstm_custom", "handwash", lstm_width=16)
    (build / "evaluation").mkdir()
    (build / "evaluation" / "best.json").write_text('{"model": "cnn_lstm_custom", "validation": 0.5}')
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


def test_a_folder_with_a_damaged_file_is_predicted_except_for_that_file(call):
    code, output, _ = call("predict", "clips", "--study", "handwash", "--model", "best", "--json")
    rows = json.loads(output)
    assert code == 1 and len(rows) == 13
    [damaged] = [row for row in rows if row["error"]]
    assert damaged["file"].endswith("damaged.mp4") and "not a video" in damaged["error"] and damaged["action"] is None
    for row in rows:
        if not row["error"]:
            assert row["action"] in CLASSES and row["probability"] == max(row["probabilities"].values())
            assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-3)


def test_csv_and_table_have_the_same_content(call):
    code, output, _ = call("predict", "clips/Step_3", "clips/Step_2_Left", "--study", "handwash", "--model", "best",
                           "--csv")
    assert code == 2 and output == ""
    code, output, _ = call("predict", "clips/Step_2_Left", "--study", "handwash", "--model", "best", "--csv")
    rows = list(csv.DictReader(io.StringIO(output)))
    assert code == 0 and list(rows[0]) == ["file", "action", "probability", "error", *CLASSES]
    _, table, _ = call("predict", "clips/Step_2_Left", "--study", "handwash", "--model", "best")
    for row in rows:
        assert [row["file"], row["action"], f"{float(row['probability']):.3f}"] in [
            line.split() for line in table.splitlines()]


def test_of_a_folder_hidden_files_are_passed_over_and_others_counted(call, tmp_path, project):
    videos = tmp_path / "videos"
    shutil.copytree(project / "clips" / "Step_2_Left", videos / "one")
    clip = next((videos / "one").glob("*.mp4"))
    for name in ("._x.mp4", ".thumb.mp4", ".hidden/x.mp4", "a.wmv", "b.WMV", "c.txt", "README"):
        (videos / name).parent.mkdir(exist_ok=True)
        (videos / name).write_text("text")
    (videos / "linked").symlink_to(project / "clips" / "Step_2_Right")
    (videos / "again").symlink_to("linked")
    code, output, errors = call("predict", videos, "--study", "handwash", "--model", "best", "--json")
    rows = json.loads(output)
    assert code == 0 and len(rows) == 8 and str(clip) in {row["file"] for row in rows}
    assert errors.splitlines()[0] == (
        "skipped: 4 files that are not videos by their endings (.WMV, .txt, .wmv, none)")


def test_a_folder_that_cannot_be_opened_is_an_error_and_the_others_are_predicted(call, project, monkeypatch):
    def open_folder(path):
        if path.name == "Step_1":
            raise PermissionError
        return iterdir(path)

    iterdir = type(project).iterdir
    monkeypatch.setattr(type(project), "iterdir", open_folder)
    code, output, _ = call("predict", "clips", "--study", "handwash", "--model", "best", "--json")
    assert code == 1 and {row["file"]: row["error"] for row in json.loads(output) if row["error"]} == {
        "clips/Step_1": "not a regular file"} and len(json.loads(output)) == 9


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_names_are_printed_whatever_the_terminal(encoding):
    code = """if True:
        import os
        from health_actions.cli import print_predictions
        rows = [{"file": name, "action": "fall", "probability": 0.5, "error": None, "probabilities": {"fall": 0.5}}
                for name in ("st\\u00fcrzen.mp4", "\\u843d.mp4", os.fsdecode(b"caf\\xe9.mp4"))]
        for form in ("table", "csv", "json"):
            print_predictions(rows, ["fall"], form)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60,
                          env={**os.environ, "PYTHONIOENCODING": encoding})
    assert done.returncode == 0, done.stderr
    table, rows = done.stdout.decode(encoding).split("file,action,probability,error,fall")
    for names in (table, rows[:rows.index("[")]):
        assert ("st\\xfcrzen.mp4" if encoding == "ascii" else "stürzen.mp4") in names
        assert ("落.mp4" if encoding == "utf-8" else "\\u843d.mp4") in names and "caf\\udce9.mp4" in names


def test_a_video_above_30_seconds_has_events_and_a_timeline(call, project):
    video = write_video(project / "long" / "minute.mp4", draw_square(frames=70), fps=2)
    arguments = ("predict", video, "--study", "handwash", "--model", "best")
    code, output, errors = call(*arguments, "--json")
    [row] = json.loads(output)
    assert code == 0, errors
    assert row["action"] in {event["action"] for event in row["events"]} and row["events"][-1]["end"] <= 35.1
    _, output, _ = call(*arguments, "--timeline", "--csv")
    rows = list(csv.DictReader(io.StringIO(output)))
    assert list(rows[0]) == ["file", "start", "end", "action", "probability", "error"]
    assert [(one["action"], float(one["start"])) for one in rows] == [
        (event["action"], event["start"]) for event in row["events"]]
    _, output, _ = call(*arguments, "--timeline")
    assert output.count(" s  ") == len(rows)


@pytest.mark.parametrize(("arguments", "words"), [
    (["predict", "nowhere.mp4", "--study", "handwash"], "no such file or folder: nowhere.mp4"),
    (["predict", "build", "--study", "handwash"], "no videos in build: expected files with the endings .mp4"),
    (["train", "--arch", "cnn_lstm_custom", "--save-dir", "x", "--gamma", "-1"],
     "gamma must be greater than or equal to 0, found -1.0"),
    (["predict", "clips", "--study", "ntu"], "no model 'landmarks' of study ntu; there are: none. make repro trains"),
    (["predict", "clips", "--study", "handwash", "--model", "alexnet"], "there are: cnn_lstm_custom"),
    (["evaluate", "--study", "ntu"], "run make repro first"),
    (["predict", "clips"], "which study? give --study handwash (hand washing) or --study ntu (medical actions), or "),
    (["evaluate"], "which study? give --study handwash (hand washing) or --study ntu (medical actions), or a model by"),
    (["predict", "--study", "ntu"], "no video named: give paths of videos"),
    (["predict", "clips", "--checkpoint", "none.pt"], "none.pt: expected a released checkpoint file or a model folder"),
    (["predict", "clips", "--checkpoint", "clips/Step_1/damaged.mp4"], "no checkpoint that can be read safely"),
    (["predict", "clips", "--checkpoint", "clips"], "no trained fold in "),
    (["evaluate", "--checkpoint", "build/handwash/models/cnn_lstm_custom", "--arch", "alexnet"],
     "holds cnn_lstm_custom, not alexnet: give this name, or none"),
    (["evaluate", "--checkpoint", "build/handwash/models/cnn_lstm_custom", "--study", "ntu"],
     "is a model of study handwash, not ntu"),
    (["train", "--arch", "vgg", "--save-dir", "x"], "no architecture 'vgg' of study handwash; it has "),
    (["train", "--arch", "c3d", "--save-dir", "x", "--study", "ntu"], "run dvc repro ntu_annotations first"),
    (["train", "--arch", "cnn_lstm_custom", "--save-dir", "x", "--data-aug", "blur"], "blur")])
def test_what_cannot_be_done_is_reported_in_one_line(call, arguments, words):
    code, output, errors = call(*arguments)
    assert code == 2 and output == "" and errors.startswith("error: ") and errors.count("\n") == 1
    assert words in errors


@pytest.mark.parametrize("command", [["evaluate"], ["train", "--arch", "convlstm", "--save-dir", "x"],
                                     ["predict", "x.mp4"]])
def test_outside_of_a_project_that_is_reported_in_one_line(call, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.mp4").touch()
    code, output, errors = call(*command)
    assert code == 2 and output == "" and "no dvc.yaml" in errors and errors.count("\n") == 1


def test_a_model_is_evaluated_on_validation_clips_and_on_test_clips_when_asked(call):
    code, output, _ = call("evaluate", "--study", "handwash")
    assert code == 0 and "validation clip top-1" in output
    code, output, _ = call("evaluate", "--study", "handwash", "--subset", "test")
    assert code == 0 and "test clip top-1" in output and "95 % interval" in output


def test_options_replace_values_of_params(call, project):
    code, output, errors = call("train", "--arch", "cnn_lstm_custom", "--save-dir", "made", "--lr", 0.01,
                                "--beta2", 0.99, "--batch", 4, "--data-aug", "translation", "--step-size", 1)
    assert code == 0, errors
    training = json.loads((project / "made" / "fold_1" / "card.json").read_text())["training"]
    assert training["epochs"] == 1 and training["learning_rate"] == 0.01 and training["betas"] == [0.9, 0.99]
    assert training["batch_size"] == 4 and training["augmentation"] == "translation" and training["schedule"] == "steps"
    assert "made" in output
    code, output, _ = call("evaluate", "--study", "handwash", "--checkpoint", "made")
    assert code == 0 and "made: validation clip top-1" in output


# The commands of study A's report, section "How to run the codes".


@pytest.fixture(scope="module")
def planted(project):
    """Published weights, as both studies' code saved them: everything is step_2_left, or falling_down."""
    for file, name, study, settings in (
            ("alexnet_128.pt", "cnn_lstm_alexnet", "handwash",
             {"size": 128, "window": 16, "lstm_width": 16, "favourite": "step_2_left"}),
            ("medical.pth", "squeezenet", "ntu", {"size": 112, "window": 16, "favourite": "falling_down",
                                                  "classes": [NTU_ACTIONS[number] for number in range(41, 50)]}),
            ("kinetics.pth", "squeezenet", "ntu", {"classes": [str(number) for number in range(600)]})):
        state = load_file(save_random_model(project / "random" / file, name, study, **settings) / "weights.safetensors")
        if study == "ntu":  # its input is in 0-255: only the bias is to speak
            state["classifier.1.weight"].zero_()
        form = {"arch": name, "state_dict": {f"module.{key}": value for key, value in state.items()}}
        torch.save(state if study == "handwash" else form, project / file)
    return project


def read_card(folder) -> dict:
    return json.loads((folder / "fold_1" / "card.json").read_text())


@pytest.mark.parametrize(("command", "expected"), [
    ("train", {"architecture": "cnn_lstm_custom", "weights": None, "augmentation": "none"}),
    ("train --arch custom --data_aug None", {"architecture": "cnn_lstm_custom", "augmentation": "none"}),
    ("train --arch resnet50 --data_aug contrast", {"architecture": "cnn_lstm_resnet50", "augmentation": "contrast"}),
    ("train --arch convlstm --epochs 2 --batch 4 --num_frames 9 --lr 0.01 --beta1 0.8 --beta2 0.99 "
     "--weight_decay 0.001 --gamma 0.5 --step_size 1 --cuda --save_dir ./mine --data_aug translate --aug_prob 0.3",
     {"architecture": "convlstm", "epochs": 2, "batch_size": 4, "window": 9, "learning_rate": 0.01, "gamma": 0.5,
      "betas": [0.8, 0.99], "weight_decay": 0.001, "schedule": "steps", "milestones": [1],
      "augmentation": "translation", "augmentation_probability": 0.3}),
    ("train --arch alexnet --checkpoint ./alexnet_128.pt --lr 1e-12",
     {"architecture": "cnn_lstm_alexnet", "size": 128, "window": 16, "weights": "alexnet_128.pt"})])
def test_the_papers_training_commands_run_as_typed(call, planted, monkeypatch, command, expected):
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    code, output, errors = call(*shlex.split(command))
    assert code == 0, errors
    assert ("no GPU" in errors) == ("--cuda" in command and not torch.cuda.is_available())
    folder = planted / ("mine" if "mine" in command else f"save_weights/{expected['architecture']}")
    training = read_card(folder)["training"]
    assert {name: training[name] for name in expected} == expected
    if "alexnet" in command:  # it went on from the file's weights, its last layer included; so small is the step
        trained = load_file(folder / "fold_1" / "weights.safetensors")
        for name, value in torch.load(planted / "alexnet_128.pt").items():
            assert torch.allclose(trained[name], value, atol=1e-6), name
        assert read_card(folder)["architecture"]["freeze"]


def test_a_trained_model_is_taken_by_every_command(call, planted, monkeypatch):
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    monkeypatch.chdir(planted / "clips")  # paths are those of the working folder
    assert call("train", "--save_dir", "../first", "--seed", 3)[0] == 0
    video = "Step_1/HandWash_001_A_01_G_01.mp4"
    for checkpoint in ("../first", "../first/fold_1"):
        code, output, errors = call("predict", video, "--checkpoint", checkpoint, "--json")
        assert code == 0 and json.loads(output)[0]["action"] in CLASSES, errors
        assert call("evaluate", "--checkpoint", checkpoint)[1].startswith(f"{checkpoint}: validation clip top-1 ")
    assert call("train", "--checkpoint", "../first", "--lr", 1e-12, "--save-dir", "../second", "--folds", 2)[0] == 0
    first, second = (load_file(planted / name / "fold_1" / "weights.safetensors") for name in ("first", "second"))
    assert all(torch.allclose(first[name], second[name], atol=1e-6) for name in first)
    assert read_card(planted / "second")["training"]["weights"] == "first/fold_1"
    assert not (planted / "second" / "fold_2").exists(), "fold 1's model has seen the test clips of fold 2"


@pytest.mark.parametrize("options", ["", "--dataset test", "--dataset validation --batch 2 --cuda"])
def test_the_papers_evaluation_command_runs_as_typed(call, planted, splits, options):
    code, output, errors = call(*shlex.split(f'evaluate --checkpoint "./alexnet_128.pt" --arch alexnet {options}'))
    assert code == 0, errors
    subset = "testing" if "test" in options else "validation"
    tested = splits[(splits["fold"] == 1) & (splits["subset"] == subset)]
    assert output.startswith("alexnet_128.pt: ") and output.endswith(
        f"{(tested['class'] == 'step_2_left').sum()} of {len(tested)} clips\n")


@pytest.mark.parametrize("options", ["", "--arch alexnet --cuda"])
def test_the_papers_prediction_command_runs_as_typed_and_the_study_is_the_models(call, planted, options):
    video = "clips/Step_1/HandWash_001_A_01_G_01.mp4"
    code, output, errors = call(*shlex.split(
        f'predict --checkpoint "./alexnet_128.pt" --video_path {video} --json {options}'))
    [row] = json.loads(output)
    assert code == 0 and (row["file"], row["action"]) == (video, "step_2_left"), errors
    code, output, errors = call("predict", "--checkpoint", "medical.pth", video, "--json")
    assert code == 0 and json.loads(output)[0]["action"] == "falling_down", errors


def test_weights_for_other_classes_answer_nothing_but_can_be_trained_from(call, planted):
    code, _, errors = call("predict", "clips", "--checkpoint", "kinetics.pth")
    assert code == 2 and "has 600 classes" in errors and "train from it first" in errors
    code, _, errors = call("train", "--checkpoint", "kinetics.pth")
    assert code == 2 and "run dvc repro ntu_annotations first" in errors  # study B's, which has no clips here


def test_help_loads_no_heavy_package():
    code = ("import sys; from health_actions.cli import app; app(['train', '--help'], standalone_mode=False); "
            "sys.exit(len({'torch', 'pandas', 'av', 'lightning'} & set(sys.modules)))")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60).returncode == 0


def test_a_file_that_crashes_its_decoder_does_not_end_the_others(call, monkeypatch):
    """A decoder that dies, as one does with a segmentation fault: in its own process."""
    monkeypatch.setattr(sandbox, "COMMAND", (shutil.which("false"),))
    code, output, _ = call("predict", "clips/Step_2_Left", "--study", "handwash", "--model", "best", "--json")
    assert code == 1 and {row["error"] for row in json.loads(output)} == {"damaged: its decoder crashed"}


# check.


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """A project with two classes in study A and their clips, as far as names go."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["handwash"]["classes"] = CLASSES
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    for number, name in enumerate(CLASSES, start=1):
        for recording in range(1, 5):
            file = tmp_path / "data" / "handwash" / name.title() / f"HandWash_{recording:03d}_A_{number:02d}_G_01.mp4"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    return tmp_path


def run_check(*arguments) -> tuple[int, list[str], str]:
    done = CliRunner().invoke(app, ["check", *arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout.splitlines(), done.stderr


def test_check_counts_the_clips_that_would_be_used_and_names_the_others(empty):
    folder = empty / "data" / "handwash"
    for place in ("Step_9/a.mp4", "Step_9/b.mp4", "Step_1/notes.txt", "lost.mp4", "a/b/c.mp4"):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).touch()
    code, lines, _ = run_check("--study", "handwash")
    assert code == 0 and [line for line in lines if "left out" not in line] == [
        "params.yaml, profile laptop: every value is allowed",
        "data/handwash: expected data/handwash/<class>/<clip>.mp4 or "
        "data/handwash/<train, val or test>/<class>/<clip>.mp4",
        "  clips of classes: step_1 4, step_2_left 4, step_2_right 4", "  clips of other classes: none",
        "  4 performers or recordings, 1 scenes or cameras", "  first fold: 6 training, 3 validation, 3 testing clips"]
    left_out = [line for line in lines if line.startswith("  left out, ")]
    assert any(line.startswith("  left out, unknown class folder 'Step_9'; expected ")
               and line.endswith(": Step_9/a.mp4, Step_9/b.mp4") for line in left_out)
    for name in ("lost.mp4", "a/b/c.mp4", "Step_1/notes.txt"):
        assert sum(name in line for line in left_out) == 1, name


@pytest.mark.parametrize(("spoil", "words"), [
    (lambda folder: shutil.rmtree(folder / "Step_1"), "clips of classes: step_1 0, step_2_left 4, step_2_right 4"),
    (shutil.rmtree, "no such folder"),
    (lambda folder: [file.unlink() for file in folder.rglob("*_00[234]_*")], "needs at least two of them"),
    (lambda folder: use_lists(folder.parents[1]), "no trainlist01.txt and no JSON like ntu_01.json in ")])
def test_check_fails_where_a_run_would_stop_or_lack_a_class(empty, spoil, words):
    spoil(empty / "data" / "handwash")
    code, lines, _ = run_check("--study", "handwash")
    assert code == 1 and words in "\n".join(lines)


def test_check_names_what_a_stage_lacks(empty):
    """As dvc would, which then runs nothing."""
    params = yaml.safe_load((empty / "params.yaml").read_text())
    del params["laptop"]["ntu"]["evaluation"], params["laptop"]["handwash"]["architectures"]["convlstm"]
    (empty / "params.yaml").write_text(yaml.safe_dump(params))
    code, lines, _ = run_check("--study", "handwash")
    assert code == 1 and lines[0] == "params.yaml, profile laptop: 3 wrong"
    assert [line.partition(": at '")[0] for line in lines[1:4]] == [
        f"  params.yaml has no 'laptop.{name}'" for name in (
            "handwash.architectures.convlstm", "ntu.evaluation.windows", "ntu.evaluation")]


def test_check_names_clips_beside_the_folders_of_a_split(empty):
    folder = empty / "data" / "handwash"
    for name in ("test", "train"):
        (folder / name).mkdir()
    (folder / "Step_1").rename(folder / "test" / "Step_1")
    (folder / "Step_2_Right").rename(folder / "train" / "Step_2_Right")
    code, lines, _ = run_check("--study", "handwash")
    beside = ", ".join(f"Step_2_Left/HandWash_00{number}_A_02_G_01.mp4" for number in (1, 2, 3))
    assert code == 0 and f"  used, in no split folder: it trains or validates: {beside} and 1 more" in lines


def use_lists(root) -> None:
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["laptop"]["handwash"]["annotations"] |= {"protocol": "lists", "lists": "my lists"}
    (root / "params.yaml").write_text(yaml.safe_dump(params))


def test_check_lists_every_wrong_value_and_still_looks_at_the_clips(empty):
    text = (empty / "params.yaml").read_text()
    wrong = text.replace("batch_size: 16", 'batch_size: "16"', 1).replace("devices: 1", "devices: 0")
    (empty / "params.yaml").write_text(wrong)
    code, lines, _ = run_check()
    assert code == 1 and lines[0] == "params.yaml, profile laptop: 2 wrong" and set(lines[1:3]) == {
        "  machine.devices must be greater than or equal to 1, found 0",
        '  laptop.handwash.training.batch_size must be a valid integer, found "16"'}
    assert "  clips of classes: step_1 4, step_2_left 4, step_2_right 4" in lines
    assert lines[-1] == "  no such folder" and any(line.startswith("data/ntu: expected ") for line in lines)
    (empty / "params.yaml").write_text(text.replace("- step_1\n", "- 1\n"))
    code, lines, _ = run_check("--study", "handwash")
    assert code == 1 and "quote your class names" in lines[1]
    assert lines[-1] == "data/handwash: not looked at, correct params.yaml first"
    (empty / "params.yaml").write_text("a: [")
    code, lines, errors = run_check()
    assert code == 2 and not lines and errors.startswith("error: params.yaml is not readable: line 1, column 5: ")
