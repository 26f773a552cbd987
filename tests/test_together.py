"""Training by two processes as by one, on CPUs; and what a GPU needs, as far as it can be seen without one."""

import copy
import functools
import socket
import subprocess
import sys

import joblib
import pandas as pd
import pytest
import torch
from conftest import CLASSES, ROOT
from safetensors.torch import load_file
from timm.layers import convert_sync_batchnorm

from health_actions.data.transforms import build_augmentation, build_input_transform
from health_actions.learning.classifier import Classifier
from health_actions.learning.datasets import FrameDataset, build_loader, choose_workers, seed_of
from health_actions.learning.distributed import run_together
from health_actions.learning.precision import choose_precision
from health_actions.learning.recipe import Recipe
from health_actions.learning.training import Run, train_runs
from health_actions.models import build_model

# Plain gradient descent: Adam makes a small gradient's last digits large ones of a weight.
SETTINGS = {"architecture": "convlstm", "size": 32, "window": 8, "epochs": 3, "batch_size": 3, "learning_rate": 0.05,
            "betas": [0.9, 0.999], "weight_decay": 0.0, "gamma": 0.9, "precision": "32-true", "optimizer": "sgd",
            "options": {"dropout": 0.0}, "augmentation": "translation"}
NORMED = {"architecture": "cnn_lstm_efficientnet_lite0", "options": {"dropout": 0.0, "lstm_width": 16}, "batch_size": 7,
          "learning_rate": 0.005, "epochs": 2}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]


class Interrupted(Exception):
    """Somebody pulled the plug."""


@pytest.fixture(scope="module")
def train(index, frames_folder):
    """Train recipes on one fold: (folder for models and checkpoints, further arguments, settings by name) -> results.

    Batches of 3, 3 and 1: two processes have unequal shares, and the second has none of the last one.
    """
    subsets = ["training", "training", "validation", "testing"] * 2 + ["training"] * 3 + ["validation"]
    splits = index[["clip", "class"]].assign(fold=1, subset=subsets)

    def train_some(folder, where=None, **recipes):
        runs = {name: Run(Recipe(**SETTINGS | settings), splits, folder / name, tested=True)
                for name, settings in recipes.items()}
        return train_runs(runs, index, frames_folder=frames_folder, resume_folder=folder / "resume", classes=CLASSES,
                          accelerator="cpu", processes=1, **where or {})
    return train_some


@pytest.fixture(scope="module")
def one_and_two(train, tmp_path_factory):
    """The same by one process and by two: for each its folder and results."""
    found = []
    for devices in (1, 2):
        folder = tmp_path_factory.mktemp(f"by_{devices}")
        found.append((folder, train(folder, {"devices": devices}, plain={}, normed=NORMED)))
    return found


def compare_weights(one, two) -> float:
    """The largest difference between the weights of two models."""
    one, two = (load_file(folder / "fold_1" / "weights.safetensors") for folder in (one, two))
    assert list(one) == list(two)
    return max((one[name].double() - two[name].double()).abs().max().item() for name in one)


def check_results(one, two, tolerance: float) -> None:
    for name in ("history", "predictions"):
        pd.testing.assert_frame_equal(getattr(one, name), getattr(two, name), atol=tolerance, rtol=0)
    assert one.chosen.drop(columns="seconds").equals(two.chosen.drop(columns="seconds"))


def test_two_processes_learn_what_one_learns(one_and_two):
    (one, results), (two, others) = one_and_two
    assert results["plain"].history["training_loss"].diff().abs().min() > 0.01
    check_results(results["plain"], others["plain"], 1e-5)
    assert compare_weights(one / "plain", two / "plain") < 1e-5
    assert sorted(path.name for path in two.rglob("*")) == sorted(path.name for path in one.rglob("*"))


def test_batch_normalisation_on_cpus_knows_a_share_alone(one_and_two):
    """Losses are 0.02 apart at most, since its maps are large; where a map is one value, validation is far off."""
    (one, results), (two, others) = one_and_two
    losses = [each["normed"].history[["training_loss", "validation_loss"]] for each in (results, others)]
    pd.testing.assert_frame_equal(*losses, atol=0.02, rtol=0)
    assert compare_weights(one / "normed", two / "normed") > 1e-3


def test_a_process_that_fails_ends_the_others_and_says_so_in_a_line():
    fails = joblib.delayed(exec)("from torch import distributed\n"
                                 "if distributed.get_rank():\n    raise ValueError('no frames\\nof this')\n"
                                 "distributed.barrier()")
    with pytest.raises(ChildProcessError) as told:
        run_together([fails], devices=2)
    assert str(told.value) == "process 2 of 2 that train together: ValueError: no frames"


def test_a_process_that_is_killed_ends_the_others():
    killed = joblib.delayed(exec)("import os, signal\nfrom torch import distributed\n"
                                  "if distributed.get_rank():\n    os.kill(os.getpid(), signal.SIGKILL)\n"
                                  "distributed.barrier()")
    with pytest.raises(ChildProcessError, match="one of 2 processes .* was stopped from outside"):
        run_together([killed], devices=2)


def test_two_machines_work_together(monkeypatch):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", port)
    with subprocess.Popen([*TORCHRUN, "--nnodes=2", "--node-rank=1", "--nproc-per-node=1", "--master-addr=localhost",
                           f"--master-port={port}", "-m", "health_actions.learning.distributed"]) as second:
        assert run_together([joblib.delayed(eval)("__import__('torch').distributed.get_world_size()")] * 2,
                            devices=1, num_nodes=2) == [2, 2]
    assert second.returncode == 0


def test_machines_that_do_not_know_where_to_meet_are_told(monkeypatch):
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(ValueError, match="num_nodes is 2 and MASTER_ADDR is not set"):
        run_together([], devices=1, num_nodes=2)


def test_an_interrupted_training_is_ended_by_two_processes(one_and_two, train, tmp_path, monkeypatch, capfd):
    start = Classifier.on_train_epoch_start

    def interrupt(self):
        if self.current_epoch == 2:
            raise Interrupted
        start(self)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Classifier, "on_train_epoch_start", interrupt)
        train(tmp_path, plain={})
    capfd.readouterr()
    results = train(tmp_path, {"devices": 2}, plain={})
    told = capfd.readouterr().err
    assert told.count("epoch 3 of 3") == 1 and "epoch 2 of 3" not in told
    check_results(one_and_two[0][1]["plain"], results["plain"], 1e-5)


def test_a_command_is_carried_out_by_all_and_its_mistakes_end_all():
    ended = subprocess.run([*TORCHRUN, "--standalone", "--local-addr=localhost", "--nproc-per-node=2", "-m",
                            "health_actions.learning.distributed", "train", "--arch", "nothing", "--save-dir", "nowhere"],
                           cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode and ended.stderr.count("error: params.yaml has no architecture 'nothing'") == 1


@pytest.mark.parametrize("processes", [2, 3, 4])
def test_shares_of_a_batch_make_the_batch(processes):
    items = list(range(9))
    whole = [batch.tolist() for batch in build_loader(items, batch_size=4, shuffle=seed_of(1))]
    shares = [[batch.tolist() for batch in build_loader(items, batch_size=4, shuffle=seed_of(1),
                                                        share=(number, processes))] for number in range(processes)]
    for number, share in enumerate(shares):
        assert share[:2] == [batch[number::processes] for batch in whole[:2]]
        assert share[2] == whole[2], "who has none of the last batch takes its first one"


def test_other_processes_that_decode_give_the_same_items(index, frames_folder):
    dataset = FrameDataset(frames_folder, index, CLASSES, size=32, window=8, draw=(0, 1), probability=0.5,
                           augmentation=build_augmentation("translation"),
                           input_transform=build_input_transform([0.0] * 3, [1.0] * 3))
    own, others = ([*build_loader(dataset, batch_size=5, shuffle=seed_of(1), workers=workers)] for workers in (0, 2))
    for one, other in zip(own, others, strict=True):
        assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))


def test_clips_for_a_gpu_are_decoded_by_processes_that_share_the_cores(monkeypatch):
    monkeypatch.setattr(joblib, "cpu_count", lambda: 12)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert (choose_workers("cpu"), choose_workers("cuda")) == (0, 8)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert choose_workers("cuda") == 3


@pytest.mark.parametrize(("bfloat16", "capability", "chosen"), [
    (True, (8, 0), "bf16-mixed"), (False, (7, 5), "16-mixed"), (False, (6, 1), "32-true")])
def test_a_gpu_computes_in_the_short_format_that_it_has(bfloat16, capability, chosen, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: (
        bfloat16 or including_emulation))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert choose_precision("auto", "cuda") == chosen


@pytest.mark.parametrize("name", ["cnn_lstm_efficientnet_lite0", "squeezenet"])
def test_synchronised_normalisations_compute_the_same_under_the_same_names(name):
    plain = build_model(name, num_classes=3, frames=8, size=32).eval()
    synchronised = convert_sync_batchnorm(copy.deepcopy(plain))
    assert [*synchronised.state_dict()] == [*plain.state_dict()]
    assert any(isinstance(layer, torch.nn.SyncBatchNorm) for layer in synchronised.modules())
    clips = torch.rand(2, 3, 8, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(synchronised(clips), plain(clips))


def test_a_compiled_network_learns_the_same_under_the_same_names(one_and_two, train, tmp_path, monkeypatch):
    graphs = []
    monkeypatch.setattr(torch, "compile", functools.partial(
        torch.compile, backend=lambda graph, _: graphs.append(graph) or graph.forward))
    check_results(train(tmp_path, {"compile": True}, plain={})["plain"], one_and_two[0][1]["plain"], 1e-5)
    assert graphs and compare_weights(tmp_path / "plain", one_and_two[0][0] / "plain") < 1e-5


def test_what_cannot_be_compiled_is_told_and_trained_as_it_is(one_and_two, train, tmp_path, monkeypatch, capfd):
    def refuse(graph, _):
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=refuse))
    check_results(train(tmp_path, {"compile": True}, plain={})["plain"], one_and_two[0][1]["plain"], 0)
    [said] = [line for line in capfd.readouterr().err.splitlines() if "without torch.compile" in line]
    assert "no compiler here" in said


def test_compile_auto_is_for_gpus(train, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda *_: pytest.fail("it is compiled"))
    train(tmp_path, {"compile": "auto"}, plain={"epochs": 1})
    with pytest.raises(ValueError, match="compile must be true, false or auto, found 'yes'"):
        train(tmp_path, {"compile": "yes"}, plain={})
