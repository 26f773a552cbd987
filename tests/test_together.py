"""Training by several processes: two that share each batch, and folds side by side that are killed and resumed."""

import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import psutil
import pytest
import yaml
from conftest import CLASSES, ROOT, list_files
from safetensors.torch import load_file

from health_actions.data.frames import read_index
from health_actions.learning.recipe import Recipe
from health_actions.learning.training import Result, Run, train_runs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

# Plain gradient descent: Adam makes a small gradient's last digits large ones of a weight. No batch normalisation.
SETTINGS = {"architecture": "convlstm", "size": 32, "window": 8, "epochs": 3, "batch_size": 4, "learning_rate": 0.05,
            "betas": [0.9, 0.999], "weight_decay": 0.0, "gamma": 0.9, "precision": "32-true", "optimizer": "sgd",
            "options": {"dropout": 0.0}, "augmentation": "translation"}
SUBSETS = ["training", "training", "validation", "training"] * 3  # validation: one clip more for the first of two
SUBSETS[3] = "testing"
# As in a notebook, where sys.ps1 is set and Fabric alone would start no processes.
SCRIPT = """import sys
sys.ps1 = ">>> "
sys.path[:] = {path!r}
from pathlib import Path
from test_together import train
train(Path({folder!r}), Path({frames!r}), **{options!r})
"""


def train(folder, frames, *, where=None, **settings) -> Result:
    """Train two folds: (folder for models and checkpoints, frames, arguments of train_runs, settings of the recipe)."""
    index = read_index(frames)
    splits = pd.concat([index[["clip", "class", "recording"]].assign(fold=fold, subset=SUBSETS[fold:] + SUBSETS[:fold])
                        for fold in (1, 2)])
    run = Run(Recipe(**SETTINGS | settings), splits, folder / "models", tested=True)
    return train_runs({"run": run}, index, frames_folder=frames, resume_folder=folder / "resume", classes=CLASSES,
                      accelerator="cpu", **where or {"processes": 1})["run"]


def start(folder, frames, **options) -> subprocess.Popen:
    """The same in a process of its own, whose output goes to `<folder>/log`."""
    folder.mkdir(exist_ok=True)
    script = SCRIPT.format(path=sys.path, folder=str(folder), frames=str(frames), options=options)
    with (folder / "log").open("a") as log:
        return subprocess.Popen([sys.executable, "-c", script], stdout=log, stderr=log)


def check_same(one, two, results: tuple[Result, Result]) -> None:
    for name in ("history", "predictions"):
        pd.testing.assert_frame_equal(*(getattr(result, name) for result in results), atol=1e-5, rtol=0)
    assert list_files(one / "models") == list_files(two / "models")
    for fold in (1, 2):
        file = f"models/fold_{fold}/weights.safetensors"
        weights, others = load_file(one / file), load_file(two / file)
        assert list(weights) == list(others)
        assert all((weights[name] - others[name]).abs().max() < 1e-5 for name in weights)


def test_two_processes_learn_what_one_learns(frames_folder, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    process = start(two, frames_folder, where={"devices": 2})
    expected = train(one, frames_folder)
    assert process.wait() == 0, (two / "log").read_text()
    assert (two / "log").read_text().count("epoch 3 of 3") == 2, "one process speaks, once a fold"
    assert expected.history["training_loss"].diff().abs().min() > 0.001
    found = train(two, frames_folder)  # restored
    check_same(one, two, (expected, found))


def test_a_process_that_fails_ends_all_and_says_why_in_a_line(frames_folder, tmp_path):
    damaged = shutil.copytree(frames_folder, tmp_path / "frames")
    sorted(damaged.rglob("*.zip"))[-1].write_bytes(b"no zip")
    with pytest.raises(ChildProcessError, match=r"^run, fold 1 of 2: ValueError: .* is no archive of frames [^\n]*$"):
        train(tmp_path, damaged, where={"devices": 2})
    with pytest.raises(ValueError, match="batch_size must be a multiple of the 3 devices"):
        train(tmp_path, frames_folder, where={"devices": 3})


def test_torchrun_carries_out_a_command_by_all_its_processes(frames_folder, splits, index, tmp_path):
    (tmp_path / "dvc.yaml").touch()
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["handwash"]["classes"] = CLASSES
    params["laptop"]["handwash"]["training"] |= {"epochs": 1, "window": 8}
    params["laptop"]["handwash"]["architectures"]["convlstm"] = {"size": 32}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    build = tmp_path / "build" / "handwash"
    shutil.copytree(frames_folder, build / "frames")
    for name, table in (("splits", splits), ("clips", index)):
        (build / "annotations").mkdir(exist_ok=True)
        table.to_csv(build / "annotations" / f"{name}.csv", index=False)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=localhost", "--nproc-per-node=2",
         "-m", "health_actions", "train", "--arch", "convlstm", "--save-dir", "mine", "--folds", "2"],
        cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Models: mine") == 1 and done.stderr.count("fold 2 of 2, epoch 1 of 1") == 1
    assert list_files(tmp_path / "mine") == [
        *(f"fold_{fold}/{name}" for fold in (1, 2) for name in ("card.json", "weights.safetensors")), "history.csv"]


def test_a_training_that_was_killed_ends_with_the_same_result(frames_folder, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    expected = train(whole, frames_folder, epochs=40)
    process = start(killed, frames_folder, where={"processes": 2}, epochs=40)
    while not list(killed.glob("resume/*/*/last.ckpt")):
        assert process.poll() is None, (killed / "log").read_text()
        time.sleep(0.01)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert workers and not [worker for worker in alive if worker.status() != psutil.STATUS_ZOMBIE]
    assert "epoch 40 of 40" not in (killed / "log").read_text()
    check_same(whole, killed, (expected, train(killed, frames_folder, epochs=40)))
