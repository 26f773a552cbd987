"""Study B's training: crops, windows of archives, optimizers, schedules, and weights to start from."""

import itertools
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import draw_square, write_video
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from health_actions.data.extraction import extract_archives
from health_actions.data.frames import open_clip
from health_actions.data.splits import make_splits
from health_actions.data.transforms import CentreCrop, build_crops, build_input_transform
from health_actions.learning import classifier, recipe
from health_actions.learning.classifier import Classifier
from health_actions.learning.datasets import FrameDataset
from health_actions.learning.evaluation import predict_folds, score
from health_actions.learning.recipe import Recipe
from health_actions.learning.training import Run, train_runs
from health_actions.models.folder import load_model
from health_actions.models.starts import find_released, read_start, write_start

CLASSES = ["falling_down", "headache"]
PLAIN = build_input_transform([0.0] * 3, [1.0] * 3)
RECIPE = {"architecture": "squeezenet", "size": 32, "window": 8, "stride": 2, "epochs": 2, "batch_size": 4,
          "learning_rate": 0.001, "betas": [0.9, 0.999], "weight_decay": 0.01, "gamma": 0.1, "precision": "32-true",
          "optimizer": "adamw", "schedule": "one_cycle", "mean": [0.45] * 3, "std": [0.225] * 3}


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """Four performers, a square that goes right or down, 30 frames of 96 x 64: (folder, index, splits)."""
    folder = tmp_path_factory.mktemp("ntu")
    for action, step in ((43, (2, 0)), (44, (0, 2))):
        for performer in (1, 2, 4, 3):
            frames = draw_square(step, frames=30, background=20 + 15 * performer)
            write_video(folder / "clips" / f"S001C001P{performer:03d}R001A{action:03d}_rgb.mp4", frames)
    index = extract_archives(folder / "clips", folder / "frames", CLASSES, height=40, processes=1)
    return folder / "frames", index, make_splits(index, protocol="cross_subject", folds=4)


@pytest.fixture(scope="module")
def train(archives):
    frames, index, splits = archives

    def train_some(folder, name="run", tested=False, **settings):
        run = Run(Recipe(**RECIPE | settings), splits, folder / name, tested)
        return train_runs({name: run}, index, frames_folder=frames, resume_folder=folder / "resume", classes=CLASSES,
                          accelerator="cpu", processes=1)[name]
    return train_some


@pytest.fixture(scope="module")
def trained(train, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    return folder, train(folder, tested=True)


def make_dataset(archives, **settings) -> FrameDataset:
    frames, index, _ = archives
    return FrameDataset(frames, index, CLASSES,
                        **{"size": 32, "window": 8, "stride": 2, "input_transform": PLAIN, **settings})


def test_a_test_item_is_the_centre_of_the_centre_window(archives):
    clip, label = make_dataset(archives)[0]
    frames = open_clip(archives[0], archives[1]["clip"][0])[range(7, 23, 2)]  # 16 of 30 frames, from the 8th on
    expected = CentreCrop(32)(torch.from_numpy(frames).permute(0, 3, 1, 2)).transpose(0, 1) / 255
    torch.testing.assert_close(clip, expected)
    assert clip.shape == (3, 8, 32, 32) and CLASSES[label] == archives[1]["class"][0]


def test_training_items_are_cropped_at_random_and_the_same_for_the_same_draw(archives):
    crops = {"augmentation": build_crops(32)[0], "probability": 1.0}

    def draw(epoch):
        return [make_dataset(archives, draw=(0, epoch), **crops)[number][0] for number in range(8)]

    first, again, other = draw(0), draw(0), draw(1)
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert not all(torch.equal(one, two) for one, two in zip(first, other, strict=True))
    assert {clip.shape for clip in first} == {(3, 8, 32, 32)}


@given(st.integers(2, 5))
def test_windows_of_a_video_are_spread_from_its_begin_to_its_end(archives, windows):
    items, _ = make_dataset(archives, windows=windows)[2]
    assert items.shape == (windows, 3, 8, 32, 32)
    frames = torch.from_numpy(open_clip(archives[0], archives[1]["clip"][2])[[0, 28]]).permute(0, 3, 1, 2)
    first, last = CentreCrop(32)(frames) / 255
    torch.testing.assert_close(items[0][:, 0], first)
    torch.testing.assert_close(items[-1][:, -1], last)


def test_training_leaves_a_model_that_predicts_alone_and_as_a_video(trained, archives):
    folder, result = trained
    card = json.loads((folder / "run" / "fold_1" / "card.json").read_text())
    assert card["clip"] == {"size": 32, "window": 8, "test_window": "centre", "stride": 2}
    assert card["preprocessing"]["mean"] == [0.45] * 3 and card["training"]["optimizer"] == "adamw"
    frames, _, splits = archives
    clips = predict_folds(folder / "run", splits, frames_folder=frames)
    pd.testing.assert_frame_equal(clips, result.predictions)
    assert list(clips["clip"].str[8:12]) == ["P003", "P003"]
    videos = predict_folds(folder / "run", splits, frames_folder=frames, windows=3)
    np.testing.assert_allclose(videos[CLASSES].sum(axis=1), 1, atol=1e-5)
    assert set(score(videos, CLASSES, "video")) == {"clips", "video_top1", "video_top1_low", "video_top1_high",
                                                     "video_top2"}


def test_a_video_score_is_the_mean_of_its_windows(trained, archives):
    folder, _ = trained
    frames, _, splits = archives
    model, _ = load_model(folder / "run" / "fold_1")
    tested = splits[splits["subset"] == "testing"]
    dataset = FrameDataset(frames, tested, CLASSES, size=32, window=8, stride=2, windows=3,
                           input_transform=build_input_transform([0.45] * 3, [0.225] * 3))
    with torch.inference_mode():
        expected = model(dataset[0][0]).double().softmax(1).mean(0)
    found = predict_folds(folder / "run", splits, frames_folder=frames, windows=3)[CLASSES].to_numpy()[0]
    np.testing.assert_allclose(found, expected.numpy(), atol=2e-6)


def follow_rates(recipe: Recipe, batches: int = 5) -> list[float]:
    """The learning rate at each step of a training without data."""
    classifier = Classifier(nn.Linear(2, 2), recipe, from_features=False, make_training_loader=lambda _: range(batches),
                            make_choosing_loader=None, seed=0, title="")
    [optimizer], [schedule] = classifier.configure_optimizers()
    every_step = isinstance(schedule, dict)
    schedule = schedule["scheduler"] if every_step else schedule
    rates = []
    for step in range(recipe.epochs * batches):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if every_step or (step + 1) % batches == 0:
            schedule.step()
    return rates


def test_the_published_schedule_is_40_epochs_and_10_at_a_tenth():
    rates = follow_rates(Recipe(**RECIPE | {"optimizer": "sgd", "schedule": "steps", "milestones": [40], "epochs": 50}))
    assert rates == pytest.approx([0.001] * 200 + [0.0001] * 50)


def test_one_cycle_goes_up_and_then_down_to_nothing():
    rates = follow_rates(Recipe(**RECIPE | {"epochs": 10}))
    peak = int(np.argmax(rates))
    assert rates[0] == pytest.approx(0.001 / 25) and max(rates) == pytest.approx(0.001) and 10 < peak < 20
    assert (np.diff(rates[:peak + 1]) > 0).all() and (np.diff(rates[peak:]) < 0).all() and rates[-1] < 1e-6


@pytest.mark.parametrize(("name", "kind"), [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam),
                                            ("adamw", torch.optim.AdamW)])
def test_the_optimizer_is_the_one_asked_for(name, kind):
    classifier = Classifier(nn.Linear(2, 2), Recipe(**RECIPE | {"optimizer": name, "schedule": "exponential"}),
                            from_features=False, make_training_loader=None, make_choosing_loader=None, seed=0, title="")
    [optimizer], _ = classifier.configure_optimizers()
    assert type(optimizer) is kind and optimizer.param_groups[0]["weight_decay"] == 0.01
    if name == "sgd":  # the published code damped it by 0.9
        assert (optimizer.param_groups[0]["momentum"], optimizer.param_groups[0]["dampening"]) == (0.9, 0.0)


@pytest.mark.parametrize("settings", [{"optimizer": "lion"}, {"schedule": "cosine"}])
def test_a_choice_that_does_not_exist_is_told(settings):
    with pytest.raises(ValueError, match=f"{next(iter(settings))} must be"):
        Recipe(**RECIPE | settings)


def test_an_interrupted_training_with_one_cycle_ends_with_the_same_weights(train, tmp_path, monkeypatch):
    whole = train(tmp_path / "whole", epochs=4)
    end = Classifier.on_validation_epoch_end

    def stop(self):
        end(self)
        if self.current_epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "on_validation_epoch_end", stop)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            train(tmp_path / "broken", epochs=4)
    resumed = train(tmp_path / "broken", epochs=4)
    pd.testing.assert_frame_equal(resumed.history, whole.history)
    files = [tmp_path / name / "run" / "fold_1" / "weights.safetensors" for name in ("whole", "broken")]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(("weights", "first", "count"), [(1_000, 0, 3), (80_000_000, 39, 2)])
def test_checkpoints_that_take_long_are_written_now_and_then(tmp_path, monkeypatch, weights, first, count):
    alone = SimpleNamespace(broadcast=lambda value: value)
    clock, written = iter(range(0, 10_000, 3)), []  # a glance at the clock takes 3 seconds, so writing takes as long
    monkeypatch.setattr(classifier.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(classifier.ModelCheckpoint, "on_train_epoch_end",
                        lambda self, trainer, module: written.append(trainer.current_epoch))
    latest = classifier.LatestEpoch(tmp_path, weights)
    for epoch in range(60):
        latest.on_train_epoch_end(SimpleNamespace(current_epoch=epoch, max_epochs=60, strategy=alone), None)
    assert written[0] == first and all(20 <= later - earlier <= 23 for earlier, later in itertools.pairwise(written))
    assert len(written) == count


def test_a_training_starts_from_the_weights_of_a_model_folder_but_for_the_head(train, trained, tmp_path):
    source = trained[0] / "run" / "fold_1"
    train(tmp_path, weights=str(source), epochs=1, learning_rate=1e-12, weight_decay=0.0)
    before, after = load_model(source)[0].state_dict(), load_model(tmp_path / "run" / "fold_1")[0].state_dict()
    names = [name for name in before if name.endswith("weight")]
    differing = [name for name in names if not torch.allclose(before[name], after[name], atol=1e-7)]
    assert differing and all(name.startswith("classifier") for name in differing)
    card = json.loads((tmp_path / "run" / "fold_1" / "card.json").read_text())
    assert card["architecture"]["pretrained"] is None and card["training"]["weights"] == str(source)


def test_the_last_layer_alone_learns_where_that_is_asked_for(train, trained, tmp_path):
    source = trained[0] / "run" / "fold_1"
    train(tmp_path, weights=str(source), options={"last_layer_only": True}, learning_rate=0.1)
    before, after = load_model(source)[0].state_dict(), load_model(tmp_path / "run" / "fold_1")[0].state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} == {
        name for name in before if name.startswith("classifier")}, "batch statistics included"


def test_other_weights_to_start_from_are_another_training(train, trained, tmp_path, monkeypatch):
    """Checkpoints of an interrupted run are not taken up when the file it started from has changed."""
    source = SimpleNamespace(weights=str(trained[0] / "run" / "fold_1"))
    first = recipe.hash_weights(source)
    assert first == recipe.hash_weights(source) and recipe.hash_weights(SimpleNamespace(weights=None)) == ""
    (tmp_path / "weights.safetensors").write_bytes(b"others")
    assert recipe.hash_weights(SimpleNamespace(weights=str(tmp_path))) != first


def test_where_to_start_is_written_and_read(tmp_path):
    write_start(tmp_path / "a", "weights/x.pth")
    write_start(tmp_path / "b", None)
    assert (read_start(tmp_path / "a"), read_start(tmp_path / "b")) == ("weights/x.pth", None)
    with pytest.raises(FileNotFoundError, match="run the pretraining first"):
        read_start(tmp_path / "c")


def test_a_missing_released_file_is_told_with_its_name_and_where_to_get_it(tmp_path):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "other.pth").touch()
    with pytest.raises(FileNotFoundError) as told:
        find_released(tmp_path / "weights", "kinetics_squeezenet_RGB_16_best.pth")
    for words in ("no weights/kinetics_squeezenet_RGB_16_best.pth", "okankop/Efficient-3DCNNs", "other.pth"):
        assert words in str(told.value)
