"""No room for a file: the message says which and what to do, nothing half-written stays, the next run goes on."""

import contextlib
import resource

import pytest
import torch
from conftest import CLASSES, list_files
from test_training import make_recipe

from health_actions.data.extraction import extract_archives, extract_frames
from health_actions.learning.datasets import take_clips
from health_actions.learning.training import Run, prepare_features, train_runs
from health_actions.models import build_model
from health_actions.models.folder import load_model, save_model
from health_actions.paths import write_text


@contextlib.contextmanager
def full_disk(size: int):
    """No file may be larger than so many bytes: writing fails in the middle, as it does where the disk is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


ADVICE = "make room and run the same command again"


def write_samples(data, folder, _):
    return extract_frames(data, folder, CLASSES, sizes=[32], length=10, stride=4, processes=1)


def write_archives(data, folder, _):
    return extract_archives(data, folder, CLASSES, height=32, processes=1)


def write_weights(_, folder, __):
    torch.manual_seed(0)
    architecture = {"name": "convlstm", "num_classes": 3, "frames": 8, "size": 32}
    card = dict.fromkeys(("classes", "preprocessing", "clip", "training", "data", "scores")) | {
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


def write_page(_, folder, __):
    return write_text(folder / "index.html", "a page\n" * 2000)


def read(folder) -> dict[str, bytes]:
    """What a later run trusts; finished.json tells seconds, too."""
    return {name: (folder / name).read_bytes() for name in list_files(folder)
            if not name.endswith(("lock", "finished.json"))}


@pytest.mark.parametrize("write", [write_samples, write_archives, write_weights, write_checkpoints, write_features,
                                   write_page])
def test_a_full_disk_is_told_and_the_next_run_ends_as_an_undisturbed_one(
        write, data_folder, index, frames_folder, splits, tmp_path):
    given = index, frames_folder, splits[splits["fold"] == 1]
    write(data_folder, tmp_path / "whole", given)
    with full_disk(2000), pytest.raises(OSError, match=ADVICE):
        write(data_folder, tmp_path / "full", given)
    assert all(len(content) <= 2000 for content in read(tmp_path / "full").values()), "no half file has its own name"
    write(data_folder, tmp_path / "full", given)
    assert read(tmp_path / "full") == read(tmp_path / "whole")
