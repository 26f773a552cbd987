"""A full disk: the message says which file and what to do, no half file stays, the next run completes the work."""

import contextlib
import resource

import pytest
import torch
from conftest import CLASSES, list_files
from test_training import make_recipe

from health_actions.data.clips import find_clips
from health_actions.data.extraction import extract_frames
from health_actions.learning.datasets import take_clips
from health_actions.learning.features import prepare_features
from health_actions.learning.training import Run, train_runs
from health_actions.models import build_model
from health_actions.models.weights import load_model, save_model

ADVICE = "make room and run the same command again"


@contextlib.contextmanager
def full_disk(size: int):
    """No file may have more than `size` bytes: writing fails in the middle, as it does where the disk is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def write_frames(data, folder, _):
    return extract_frames(data, folder, find_clips(data, CLASSES), height=32, length=10, stride=4, workers=2)


def write_weights(_, folder, __):
    torch.manual_seed(0)
    architecture = {"name": "convlstm", "num_classes": 3, "frames": 8, "size": 32}
    card = dict.fromkeys(("classes", "preprocessing", "frames", "clip", "training", "data", "scores")) | {
        "architecture": architecture}
    save_model(folder, build_model(**architecture), card)
    return load_model(folder)


def write_checkpoints(_, folder, given):
    index, frames, splits = given
    return train_runs({"one": Run(make_recipe(), splits, folder / "models")}, index, frames_folder=frames,
                      resume_folder=folder / "resume", classes=CLASSES, accelerator="cpu", processes=1)


def write_features(_, folder, given):
    index, frames, splits = given
    recipe = make_recipe(architecture="cnn_lstm_custom", options={"freeze": True, "lstm_width": 8})
    return prepare_features(recipe, take_clips(splits, index), CLASSES, frames, folder)


def read(folder) -> dict[str, bytes]:
    """What a later run trusts; finished.json tells seconds, too."""
    return {name: (folder / name).read_bytes() for name in list_files(folder)
            if not name.endswith(("lock", "finished.json"))}


@pytest.mark.parametrize("write", [write_frames, write_weights, *(
    pytest.param(write, marks=pytest.mark.slow) for write in (write_features, write_checkpoints))])
def test_the_run_after_a_full_disk_ends_as_an_undisturbed_one(write, data_folder, index, frames_folder, splits,
                                                              tmp_path):
    given = index, frames_folder, splits[splits["fold"] == 1]
    write(data_folder, tmp_path / "whole", given)
    with full_disk(2000), pytest.raises(OSError, match=ADVICE):
        write(data_folder, tmp_path / "full", given)
    assert all(len(content) <= 2000 for content in read(tmp_path / "full").values()), "no half file is under its name"
    write(data_folder, tmp_path / "full", given)
    assert read(tmp_path / "full") == read(tmp_path / "whole")
