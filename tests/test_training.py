"""Training as a whole: learning, switches, cards, several runs, and resuming to the same result."""

import functools
import json
import math
import pickle
import re
from dataclasses import FrozenInstanceError, asdict, replace
from types import SimpleNamespace

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import CLASSES, list_files
from torch import nn
from torch.nn import functional

from health_actions.data.clips import find_clips
from health_actions.data.extraction import extract_frames
from health_actions.learning import training
from health_actions.learning.datasets import take_clips
from health_actions.learning.features import build_network, prepare_features
from health_actions.learning.recipe import Recipe, read_recipe
from health_actions.learning.scores import predict_folds
from health_actions.learning.training import Result, Run, build_optimizer, build_schedule, train_runs
from health_actions.models import build_model
from health_actions.models.weights import load_model, write_start

FROZEN = {"architecture": "cnn_lstm_efficientnet_lite0", "options": {"freeze": True, "lstm_width": 16},
          "augmentation": "contrast", "augmented_copies": 1}
THREE_STREAM = {"architecture": "three_stream", "options": {"backbone": "custom", "lstm_width": 8}}
UNFROZEN = {"architecture": "cnn_lstm_efficientnet_lite0"}  # its inputs are normalised, its backbone is trained
MIRRORED = torch.tensor([0, 2, 1])  # of CLASSES


class Interrupted(Exception):
    """The plug was pulled."""


def make_recipe(**settings) -> Recipe:
    return Recipe(**{
        "architecture": "cnn_lstm_custom", "size": 32, "window": 8, "epochs": 2, "batch_size": 4,
        "learning_rate": 0.003, "betas": [0.9, 0.999], "weight_decay": 0.0, "gamma": 0.9, "precision": "32-true",
        "options": {"lstm_width": 16}, **settings})


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    """Starting processes takes longer than what they do here."""
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")


@pytest.fixture(scope="module")
def train(index, frames_folder):
    """Train one recipe: (folder for models and checkpoints, splits, settings of the recipe) -> its result."""
    def train_one(folder, splits, *, clips=index, frames=frames_folder, tested=False, **settings) -> Result:
        run = Run(make_recipe(**settings), splits, folder / "models", tested)
        return train_runs({"one": run}, clips, frames_folder=frames, resume_folder=folder / "resume", classes=CLASSES,
                          accelerator="cpu", processes=1)["one"]
    return train_one


@pytest.fixture(scope="module")
def first_fold(splits) -> pd.DataFrame:
    return splits[splits["fold"] == 1]


@pytest.fixture(scope="module")
def trained(train, splits, tmp_path_factory):
    """Two folds of a ConvLSTM: folder and history."""
    folder = tmp_path_factory.mktemp("trained")
    return folder, train(folder, splits, architecture="convlstm", epochs=6, options={"dropout": 0.2}).history


def test_a_training_learns_and_leaves_curves_and_models(trained):
    folder, history = trained
    assert list(history) == ["fold", "epoch", "training_loss", "training_clip_top1", "validation_loss",
                             "validation_clip_top1"]
    assert history[["fold", "epoch"]].values.tolist() == [[fold, epoch] for fold in (1, 2) for epoch in range(1, 7)]
    for _, fold in history.groupby("fold"):
        assert fold["training_loss"].iloc[-1] < 0.8 * fold["training_loss"].iloc[0]
    pd.testing.assert_frame_equal(pd.read_csv(folder / "models" / "history.csv"), history, atol=1e-6, rtol=0)
    assert list_files(folder / "models") == [f"fold_{fold}/{name}" for fold in (1, 2) for name in (
        "card.json", "weights.safetensors")] + ["history.csv"]
    assert {path.name for path in (folder / "resume").rglob("*") if path.is_file()} <= {"finished.json", "lock"}


def test_a_finished_fold_is_restored_while_its_model_is_there(train, first_fold, tmp_path, monkeypatch):
    first = train(tmp_path, first_fold, epochs=1)
    write_start(tmp_path / "models", "models/fold_1")  # as the pretraining does; it is no part of a fold
    monkeypatch.setattr(training, "train_fold", lambda *_, **__: pytest.fail("it is trained again"))
    again = train(tmp_path, first_fold, epochs=1)
    pd.testing.assert_frame_equal(again.history, first.history)
    pd.testing.assert_frame_equal(again.chosen, first.chosen)
    (tmp_path / "models" / "fold_1" / "weights.safetensors").write_bytes(b"something else")
    for epochs in (1, 2):
        with pytest.raises(pytest.fail.Exception, match="trained again"):
            train(tmp_path, first_fold, epochs=epochs)


def test_the_card_says_what_the_weights_are_and_how_to_feed_them(trained, splits, frames_folder):
    folder, history = trained
    card = json.loads((folder / "models" / "fold_2" / "card.json").read_text())
    assert card["classes"] == CLASSES and card["architecture"]["name"] == "convlstm"
    assert card["clip"] == {"size": 32, "crop": "squash", "window": 8, "stride": 1, "test_window": "centre"}
    assert card["frames"].items() >= {"height": 32, "length": 10, "stride": 4}.items()
    assert card["preprocessing"]["std"] == [1.0, 1.0, 1.0]
    assert card["data"]["clips"] == splits[splits["fold"] == 2]["subset"].value_counts().to_dict()
    assert card["training"].items() >= {"learning_rate": 0.003, "epochs": 6, "frozen_backbone": False,
                                        "fold": 2}.items()
    fold = history[history["fold"] == 2].set_index("epoch")
    best = fold[fold["validation_clip_top1"] == fold["validation_clip_top1"].max()]["validation_loss"].idxmin()
    learned = splits[(splits["fold"] == 2) & (splits["subset"] == "training")].assign(subset="testing")
    known = predict_folds(folder / "models", learned, frames_folder=frames_folder)
    assert card["scores"] == {
        "best_epoch": best, "chosen_on": "validation",
        "validation_clip_top1": pytest.approx(fold["validation_clip_top1"].max(), abs=1e-4),
        "training_clip_top1": pytest.approx((known["predicted"] == known["class"]).mean(), abs=1e-4)}


@pytest.mark.parametrize(("wrong", "words"), [
    ({"colour": "brg"}, "colour must be 'rgb' or 'bgr', found \"brg\""),
    ({"augmentation": "blur"}, "augmentation must be 'none', 'translation', 'contrast', 'mirror' or 'camera', found"),
    ({"augmentation_probability": 1.1}, "augmentation_probability must be less than or equal to 1, found 1.1"),
    ({"learning_rate": "1e-4"}, 'learning_rate must be a valid number, found "1e-4"'),
    ({"learning_rate": True}, "learning_rate must be a valid number, found true"),
    ({"weight_decay": math.nan}, "weight_decay must be a finite number, found NaN"),
    ({"batch_size": 4.0}, "batch_size must be a valid integer, found 4.0"),
    ({"epochs": 0}, "epochs must be greater than or equal to 1, found 0"),
    ({"stride": None}, "stride must be a valid integer, found null"),
    ({"options": None}, "options must be a valid dictionary, found null"),
    ({"betas": 0.9}, "betas must be a valid list, found 0.9"), ({"betas": [0.9, 1]}, "betas[1] must be less than 1"),
    ({"mean": [0.5]}, "mean must have at least 3 items after validation, not 1, found [0.5]"),
    ({"epohs": 1}, "epohs is unknown"), ({"size": 8, "window": 4}, "size must be greater than or equal to 32, found 8; "
     "window must be greater than or equal to 8, found 4"),
    ({"architecture": "three_stream", "normalise": False}, "normalise must be true for three_stream"),
    ({"keep": "last", "choose_on": "testing"}, "choose_on must be 'validation' where keep is 'last'")], ids=str)
def test_a_wrong_value_of_a_recipe_is_named_with_what_is_expected(wrong, words):
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        make_recipe(**wrong)
    assert "\n" not in str(caught.value)


def test_a_recipe_is_unchanged_by_its_check_and_cannot_be_changed():
    recipe = make_recipe(weights="imagenet", milestones=[3], mean=[0, 0.5, 1])
    assert recipe.betas == [0.9, 0.999] and recipe.mean == [0.0, 0.5, 1.0] and recipe.milestones == [3]
    assert pickle.loads(pickle.dumps(recipe)) == recipe == read_recipe({"training": asdict(recipe) | {"fold": 1}})
    assert replace(recipe, epochs=3).epochs == 3 and recipe.epochs == 2
    with pytest.raises(FrozenInstanceError):
        recipe.epochs = 3
    with pytest.raises(ValueError, match="epochs must be"):
        replace(recipe, epochs=0)


# Optimizers and schedules.


@pytest.mark.parametrize("schedule", ["one_cycle", "exponential"])
def test_the_head_learns_at_its_own_rate(schedule):
    network = build_model("squeezenet", num_classes=3, frames=8, size=32)
    recipe = make_recipe(optimizer="sgd", momentum=0.0, schedule=schedule, head_rate=0.1)
    optimizer = build_optimizer(network, recipe)
    build_schedule(optimizer, recipe, steps=1)
    body, head = optimizer.param_groups
    assert {*map(id, head["params"])} == {*map(id, network.classifier.parameters())}
    assert len(body["params"]) + len(head["params"]) == len(list(network.parameters()))
    assert head["lr"] == pytest.approx(0.1 * body["lr"])


def follow_rates(batches: int = 5, **settings) -> list[float]:
    """The learning rate at each step of a training without data."""
    recipe = make_recipe(learning_rate=0.001, **settings)
    optimizer = build_optimizer(nn.Linear(2, 2), recipe)
    schedule, rates = build_schedule(optimizer, recipe, batches), []
    for _ in range(recipe.epochs * batches):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


def test_schedules_fall_by_steps_and_by_epochs_and_one_cycle_rises_first():
    steps = follow_rates(optimizer="sgd", schedule="steps", milestones=[40], epochs=50, gamma=0.1)
    assert steps == pytest.approx([0.001] * 200 + [0.0001] * 50)  # as published
    assert follow_rates(epochs=3, gamma=0.5) == pytest.approx([0.001] * 5 + [0.0005] * 5 + [0.00025] * 5)
    rates = follow_rates(epochs=10, schedule="one_cycle")
    peak = int(np.argmax(rates))
    assert rates[0] == pytest.approx(0.001 / 25) and max(rates) == pytest.approx(0.001) and 10 < peak < 20
    assert (np.diff(rates[:peak + 1]) > 0).all() and (np.diff(rates[peak:]) < 0).all() and rates[-1] < 1e-6


@pytest.mark.parametrize(("dampening", "length"), [(0.0, 10), (0.9, 1)])
def test_dampening_as_high_as_the_momentum_makes_steps_a_tenth_as_long(dampening, length):
    layer = nn.Linear(1, 1, bias=False)
    optimizer = build_optimizer(layer, make_recipe(optimizer="sgd", dampening=dampening, learning_rate=0.001))
    for _ in range(100):  # of the same gradient, 1
        before = layer.weight.item()
        optimizer.zero_grad()
        layer.weight.sum().backward()
        optimizer.step()
    assert before - layer.weight.item() == pytest.approx(0.001 * length, rel=1e-2)


# What a switch or an augmentation changes in training, and what it leaves as it is.


@pytest.fixture(scope="module")
def observe(train, first_fold, tmp_path_factory):
    """Train the first fold and write down what the model saw and how it was: settings of the recipe -> all of it.

    items and labels: of each (part, epoch); weights: at the start of each epoch; card; result.
    """
    def observe_one(**settings) -> SimpleNamespace:
        folder, items, labels, weights = tmp_path_factory.mktemp("observed"), {}, {}, []

        def watch(part, run_epoch):
            def watched(fabric, network, loader, *others):
                place, batches = (part, sum(name == part for name, _ in items)), list(loader)
                items[place], labels[place] = (torch.cat(parts) for parts in zip(*batches, strict=True))
                if part == "training":
                    weights.append({name: value.clone() for name, value in network.state_dict().items()})
                return run_epoch(fabric, network, batches, *others)
            return watched

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(training, "train_epoch", watch("training", training.train_epoch))
            patch.setattr(training, "evaluate_epoch", watch("validation", training.evaluate_epoch))
            result = train(folder, first_fold, tested=True, **settings)
        return SimpleNamespace(items=items, labels=labels, weights=weights, result=result,
                               card=json.loads((folder / "models" / "fold_1" / "card.json").read_text()))

    kept = functools.cache(lambda text: observe_one(**json.loads(text)))
    return lambda **settings: kept(json.dumps(settings))


def is_same(one: dict, other: dict) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def list_differences(one: dict, other: dict, path=()) -> set[str]:
    """Dotted names of what differs between two cards, but for the scores."""
    if isinstance(one, dict) and isinstance(other, dict):
        return set().union(*(list_differences(one.get(name), other.get(name), (*path, name))
                             for name in {*one, *other} - {"scores"}))
    return set() if one == other else {".".join(path)}


@pytest.mark.parametrize(("switch", "named"), [
    ({"colour": "bgr"}, ["preprocessing.colour", "training.colour"]),
    ({"normalise": False}, ["preprocessing.mean", "preprocessing.std", "training.normalise"]),
    ({"test_window": "random"}, ["clip.test_window", "training.test_window"]),
    ({"choose_on": "testing"}, ["training.choose_on"]), ({"seed": None}, ["training.seed"]),
    ({"augmentation": "mirror"}, ["training.augmentation"])], ids=str)
def test_a_card_names_the_switch_and_nothing_else_differs(observe, switch, named):
    assert list_differences(observe(**UNFROZEN).card, observe(**UNFROZEN, **switch).card) == set(named)


@pytest.mark.parametrize(("switch", "change"), [({"colour": "bgr"}, lambda items: items.flip(1)),
                                                ({"normalise": False}, lambda items: items * 0.5 + 0.5)])
def test_preprocessing_changes_what_a_model_sees_but_no_first_weights_and_labels(observe, switch, change):
    base, other = observe(**UNFROZEN), observe(**UNFROZEN, **switch)
    assert is_same(base.weights[0], other.weights[0]) and is_same(base.labels, other.labels)
    assert not is_same(base.weights[1], other.weights[1])
    for name, items in other.items.items():
        torch.testing.assert_close(items, change(base.items[name]))


@pytest.mark.parametrize("switch", [{"test_window": "random"}, {"choose_on": "testing"}], ids=str)
def test_what_is_tested_on_leaves_training_as_it_is(observe, switch):
    base, other = observe(), observe(**switch)
    for epoch in (0, 1):
        assert torch.equal(base.items["training", epoch], other.items["training", epoch])
        assert torch.equal(base.labels["training", epoch], other.labels["training", epoch])
    assert all(is_same(before, after) for before, after in zip(base.weights, other.weights, strict=True))


def test_training_windows_lie_at_random_or_in_the_centre(observe):
    drawn, fixed = observe(), observe(training_window="centre")
    assert is_same(dict(enumerate(drawn.labels.values())), dict(enumerate(fixed.labels.values())))
    sums = [[sorted(run.items["training", epoch].double().sum((1, 2, 3, 4)).tolist()) for epoch in (0, 1)]
            for run in (drawn, fixed)]
    assert sums[0][0] != pytest.approx(sums[0][1], abs=1e-6) and sums[1][0] == pytest.approx(sums[1][1], abs=1e-6)
    assert torch.equal(drawn.items["validation", 0], fixed.items["validation", 0])


def test_random_test_windows_differ_between_epochs_and_seeds(observe):
    runs = [observe(epochs=4), *(observe(epochs=4, test_window="random", window_seed=seed) for seed in (0, 1))]
    centre, drawn, other = [[run.items["validation", epoch] for epoch in range(4)] for run in runs]
    assert all(torch.equal(centre[0], later) for later in centre)
    assert not all(torch.equal(drawn[0], later) for later in drawn)
    assert not torch.equal(torch.stack(drawn), torch.stack(other))


def test_the_last_epoch_can_be_kept_whatever_its_score_is(observe):
    best, last = (observe(epochs=6, learning_rate=0.05, keep=keep) for keep in ("best", "last"))
    history = best.result.history
    first = (history["validation_clip_top1"] - 1e-4 * history["validation_loss"]).idxmax() + 1
    pd.testing.assert_frame_equal(history, last.result.history)
    assert best.card["scores"]["best_epoch"] == first < last.card["scores"]["best_epoch"] == 6, history
    assert last.card["scores"]["chosen_on"] == "none"
    assert last.result.chosen["clip_top1"].tolist() == [
        pytest.approx(history["validation_clip_top1"].iloc[-1], abs=1e-5)]


def test_the_epoch_can_be_chosen_on_test_clips_and_its_weights_are_kept(observe, first_fold):
    other = observe(choose_on="testing", epochs=4)
    tested = first_fold[first_fold["subset"] == "testing"]
    assert other.labels["validation", 0].tolist() == [CLASSES.index(name) for name in tested["class"]]
    assert other.card["scores"]["chosen_on"] == "testing" and other.result.chosen["clips"].tolist() == [len(tested)]
    # What chose the epoch is what the test says: that is the mistake.
    right = (other.result.predictions["class"] == other.result.predictions["predicted"]).mean()
    assert other.result.chosen["clip_top1"][0] == pytest.approx(right)
    loss = -np.mean([math.log(row[row["class"]]) for row in other.result.predictions.to_dict("records")])
    best = other.result.history.set_index("epoch").loc[other.result.chosen["epoch"][0]]
    assert loss == pytest.approx(best["validation_loss"], abs=1e-4)


@pytest.mark.parametrize("settings", [{}, {"test_window": "random"}, {"seed": None}], ids=str)
def test_the_seed_of_the_card_gives_the_same_result_again(observe, train, first_fold, tmp_path, settings):
    first = observe(**settings)
    again = train(tmp_path, first_fold, tested=True, **settings | {"seed": first.card["training"]["seed"]})
    pd.testing.assert_frame_equal(first.result.history, again.history, check_exact=True)
    pd.testing.assert_frame_equal(first.result.predictions, again.predictions, check_exact=True)
    assert not is_same(first.weights[0], observe(seed=1).weights[0])


@pytest.mark.parametrize("settings", [{}, FROZEN], ids=["pixels", "frozen"])
@pytest.mark.parametrize("augmentation", ["translation", "contrast", "mirror"])
def test_only_training_clips_are_augmented(observe, settings, augmentation):
    base = observe(**settings | {"augmentation": "none"})
    settings = settings | {"augmentation": augmentation}
    other, never = (observe(**settings, augmentation_probability=share) for share in (1.0, 0.0))
    assert is_same(base.items, never.items)
    for epoch in (0, 1):
        assert torch.equal(base.items["validation", epoch], other.items["validation", epoch])
        assert not torch.equal(base.items["training", epoch], other.items["training", epoch])
        labels = base.labels["training", epoch]
        assert torch.equal(other.labels["training", epoch], MIRRORED[labels] if augmentation == "mirror" else labels)


# Several runs, one after the other or side by side, and resumed.


def train_two(folder, splits, index, frames_folder, processes=1, **settings) -> dict[str, Result]:
    """Two recipes on the same folds, one of which keeps its models."""
    runs = {"slow": Run(make_recipe(**settings), splits, folder / "slow", tested=True),
            "fast": Run(make_recipe(**settings, learning_rate=0.03), splits)}
    return train_runs(runs, index, frames_folder=frames_folder, resume_folder=folder / "resume", classes=CLASSES,
                      accelerator="cpu", processes=processes)


def test_each_run_has_its_result(splits, index, frames_folder, tmp_path):
    results = train_two(tmp_path, splits, index, frames_folder)
    assert list(results) == ["slow", "fast"] and not results["slow"].history.equals(results["fast"].history)
    for result in results.values():
        best = result.history.groupby("fold")["validation_clip_top1"].max()
        assert result.chosen["clip_top1"].tolist() == pytest.approx(best.tolist(), abs=1e-6)
    columns = ["clip", "fold", "class"]
    tested = splits[splits["subset"] == "testing"][columns]
    assert sorted(results["slow"].predictions[columns].values.tolist()) == sorted(tested.values.tolist())
    assert results["fast"].predictions is None
    assert {name.partition("/")[0] for name in list_files(tmp_path)} == {"slow", "resume"}


@pytest.mark.parametrize("settings", [{"colour": "bgr"}, {"test_window": "random"}, FROZEN, THREE_STREAM], ids=str)
def test_predictions_are_those_of_the_saved_models(settings, train, splits, index, frames_folder, tmp_path):
    result = train(tmp_path, splits, tested=True, **settings)
    _, card = load_model(tmp_path / "models" / "fold_1")
    assert read_recipe(card) == make_recipe(**settings)
    features = prepare_features(read_recipe(card), take_clips(splits, index), CLASSES, frames_folder, tmp_path)
    saved = predict_folds(tmp_path / "models", splits, frames_folder=frames_folder, features=features)
    pd.testing.assert_frame_equal(saved, result.predictions, check_exact=True)


@pytest.mark.slow
def test_two_processes_give_the_same_bytes_as_one(splits, index, frames_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "2")
    monkeypatch.setattr(joblib, "cpu_count", lambda: 2)  # a thread each, as here
    one, two = (train_two(tmp_path / str(processes), splits, index, frames_folder, processes, **FROZEN)
                for processes in (1, 2))
    for name in one:
        pd.testing.assert_frame_equal(one[name].history, two[name].history, check_exact=True)
    pd.testing.assert_frame_equal(one["slow"].predictions, two["slow"].predictions, check_exact=True)
    for file in list_files(tmp_path / "1" / "slow"):
        assert (tmp_path / "1" / "slow" / file).read_bytes() == (tmp_path / "2" / "slow" / file).read_bytes(), file


def test_the_longest_trainings_start_first(first_fold, index, frames_folder, tmp_path, monkeypatch):
    started = []

    def launch_fold(hardware, fold):
        started.append(fold.title.partition(",")[0])
        fold.folder.mkdir(parents=True)
        (fold.folder / "finished.json").write_text('{"history": [{"fold": 1}], "chosen": []}')

    monkeypatch.setattr(training, "launch_fold", launch_fold)
    runs = {"small": make_recipe(), "frozen": make_recipe(**FROZEN, size=64, epochs=20), "long": make_recipe(epochs=90),
            "large": make_recipe(size=64)}
    train_runs({name: Run(recipe, first_fold) for name, recipe in runs.items()}, index, frames_folder=frames_folder,
               resume_folder=tmp_path, classes=CLASSES, accelerator="cpu", processes=1)
    assert started[0] == "long" and started.index("large") < started.index("small")


def interrupt(monkeypatch, at: str) -> list[str]:
    """Raise `Interrupted` before an epoch whose title has `at`; returns the titles of all epochs that begin."""
    begun, run_epoch = [], training.train_epoch

    def train_epoch(*values):
        begun.append(values[-1])
        if at and at in values[-1]:
            raise Interrupted
        return run_epoch(*values)

    monkeypatch.setattr(training, "train_epoch", train_epoch)
    return begun


@pytest.mark.parametrize("settings", [
    {"augmentation": "translation"}, FROZEN, {"schedule": "one_cycle", "optimizer": "adamw", "test_window": "random"}],
    ids=["pixels", "frozen", "one_cycle"])
def test_an_interrupted_run_ends_with_the_same_result(settings, train, splits, tmp_path, monkeypatch):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    expected = train(whole, splits, epochs=3, tested=True, **settings)
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        interrupt(patch, "fold 2 of 2, epoch 2")
        train(broken, splits, epochs=3, tested=True, **settings)
    assert not (broken / "models" / "history.csv").exists() and list(broken.glob("resume/*/fold_2/last.ckpt"))
    begun = interrupt(monkeypatch, "")
    result = train(broken, splits, epochs=3, tested=True, **settings)
    assert [title.rpartition(", ")[2] for title in begun] == ["epoch 2 of 3", "epoch 3 of 3"], "what is done is kept"
    pd.testing.assert_frame_equal(result.history, expected.history, check_exact=True)
    pd.testing.assert_frame_equal(result.predictions, expected.predictions, check_exact=True)
    for file in list_files(whole / "models"):
        assert (broken / "models" / file).read_bytes() == (whole / "models" / file).read_bytes(), file


def test_only_the_same_recipe_on_the_same_frames_and_weights_is_resumed(train, first_fold, data_folder, tmp_path,
                                                                        monkeypatch):
    start, net = tmp_path / "source" / "models" / "fold_1", {"architecture": "squeezenet", "options": {}}
    train(tmp_path / "source", first_fold, epochs=1, **net)
    begun = interrupt(monkeypatch, "epoch 2")
    clips = find_clips(data_folder, CLASSES)
    other = extract_frames(data_folder, tmp_path / "frames", clips, height=32, length=10, stride=1, workers=1)
    for changed in ({}, {}, {"learning_rate": 0.1}, {"choose_on": "testing"}, {"weights": str(start), **net},
                    {"clips": other, "frames": tmp_path / "frames"}):
        with pytest.raises(Interrupted):
            train(tmp_path, first_fold, **changed)
    (start / "card.json").write_text((start / "card.json").read_text() + " ")
    with pytest.raises(Interrupted):
        train(tmp_path, first_fold, weights=str(start), **net)
    assert [int(title.rpartition("epoch ")[2][0]) for title in begun] == [1, 2, 2, *[1, 2] * 5]


@pytest.mark.parametrize("fails", [False, True])
def test_a_compiled_network_learns_the_same_and_one_that_cannot_be_compiled_too(
        fails, first_fold, index, frames_folder, tmp_path, monkeypatch):
    graphs, compile_it = [], torch.compile

    def build(graph, _):
        graphs.append(graph)
        if fails:
            raise RuntimeError("no compiler here")
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(compile_it, backend=build))
    run = Run(make_recipe(architecture="convlstm", options={"dropout": 0.0}), first_fold, tmp_path / "models")
    plain, compiled = (train_runs(
        {"one": run}, index, frames_folder=frames_folder, resume_folder=tmp_path / str(choice), classes=CLASSES,
        accelerator="cpu", processes=1, compile=choice)["one"].history for choice in ("auto", True))  # auto: on a GPU
    pd.testing.assert_frame_equal(plain, compiled, atol=1e-5, rtol=0)
    assert graphs and load_model(tmp_path / "models" / "fold_1")


def test_a_loss_that_is_not_finite_names_the_learning_rate(train, splits, tmp_path):
    with pytest.raises(FloatingPointError, match="one, fold 1 of 2, epoch . of 5: .*loss is .* lower learning_rate"):
        train(tmp_path, splits, learning_rate=1e30, epochs=5)
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(("choice", "words"), [({"compile": "yes"}, "compile must be one of True, False, auto"),
                                               ({"accelerator": "tpu"}, "accelerator must be one of auto, cpu")])
def test_a_choice_that_does_not_exist_is_named(choice, words, first_fold, index, frames_folder, tmp_path):
    with pytest.raises(ValueError, match=words):
        train_runs({"one": Run(make_recipe(), first_fold)}, index, frames_folder=frames_folder, resume_folder=tmp_path,
                   classes=CLASSES, **choice)


def test_three_streams_each_learn_on_their_own():
    network = build_network(make_recipe(architecture="three_stream", options={
        "backbone": "custom", "lstm_width": 8, "dropout": 0.0}), CLASSES)
    features, labels = torch.randn(5, 8, 3 * network.feature_width), torch.tensor([0, 1, 2, 1, 0])
    loss = training.compute_loss(network.classify_streams(features), labels)
    losses = [functional.cross_entropy(head(part), labels)
              for head, part in zip(network.heads, features.chunk(3, dim=-1), strict=True)]
    assert loss.item() == pytest.approx(torch.stack(losses).mean().item())
    fused = training.fuse_streams(network.classify_streams(features)).softmax(1)
    torch.testing.assert_close(fused, network.classify(features).softmax(1))
