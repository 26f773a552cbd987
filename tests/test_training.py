import copy
import functools
import json
import math
import os
import subprocess
import sys
from types import SimpleNamespace

import joblib
import pandas as pd
import pytest
import torch
from conftest import CLASSES, list_files
from torch import nn
from torch.nn import functional

from health_actions.data.extraction import extract_frames
from health_actions.data.frames import load_frames
from health_actions.learning import training
from health_actions.learning.classifier import Classifier, EndWithParent
from health_actions.learning.datasets import fold_normalisation, load_features, take_clips
from health_actions.learning.evaluation import predict_folds
from health_actions.learning.precision import autocast, choose_precision
from health_actions.learning.recipe import Recipe, describe_architecture, read_recipe
from health_actions.learning.training import Result, Run, prepare_features, train_runs
from health_actions.models import build_model
from health_actions.models.folder import load_model
from health_actions.models.starts import write_start

FROZEN = {"architecture": "cnn_lstm_efficientnet_lite0", "options": {"freeze": True, "lstm_width": 16},
          "augmentation": "contrast", "augmented_copies": 1}
THREE_STREAM = {"architecture": "three_stream", "options": {"backbone": "custom", "lstm_width": 8}}
MIRRORED = torch.tensor([0, 2, 1])  # of CLASSES


class Interrupted(Exception):
    """Somebody pulled the plug."""


def make_recipe(**settings) -> Recipe:
    return Recipe(**{
        "architecture": "cnn_lstm_custom", "size": 32, "window": 8, "epochs": 2, "batch_size": 4,
        "learning_rate": 0.003, "betas": [0.9, 0.999], "weight_decay": 0.0, "gamma": 0.9, "precision": "32-true",
        "options": {"lstm_width": 16}, **settings})


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


def test_the_loss_falls(trained):
    for _, fold in trained[1].groupby("fold"):
        assert fold["training_loss"].iloc[-1] < 0.8 * fold["training_loss"].iloc[0]


def test_the_history_has_a_row_an_epoch_and_fold(trained):
    folder, history = trained
    assert list(history) == ["fold", "epoch", "training_loss", "training_clip_top1", "validation_loss",
                             "validation_clip_top1"]
    assert history[["fold", "epoch"]].values.tolist() == [[fold, epoch] for fold in (1, 2) for epoch in range(1, 7)]
    assert history.filter(like="top1").stack().between(0, 1).all()
    pd.testing.assert_frame_equal(pd.read_csv(folder / "models" / "history.csv"), history, atol=1e-6, rtol=0)


def test_model_folders_are_whole_and_nothing_else_is_left(trained):
    assert list_files(trained[0] / "models") == [f"fold_{fold}/{name}" for fold in (1, 2) for name in (
        "card.json", "weights.safetensors")] + ["history.csv"]
    assert [path.name for path in (trained[0] / "resume").rglob("*") if path.is_file()] == ["finished.json"]


def test_a_finished_run_is_not_trained_again_while_its_models_stand(train, first_fold, tmp_path, monkeypatch):
    first = train(tmp_path, first_fold, epochs=1)
    write_start(tmp_path / "models", "models/fold_1")  # as the pretraining does; it is no part of the models
    monkeypatch.setattr(training, "train_fold", lambda *_, **__: pytest.fail("it is trained again"))
    again = train(tmp_path, first_fold, epochs=1)
    pd.testing.assert_frame_equal(again.history, first.history)
    pd.testing.assert_frame_equal(again.chosen, first.chosen)
    (tmp_path / "models" / "fold_1" / "weights.safetensors").write_bytes(b"something else")
    with pytest.raises(pytest.fail.Exception, match="trained again"):
        train(tmp_path, first_fold, epochs=1)
    with pytest.raises(pytest.fail.Exception, match="trained again"):
        train(tmp_path, first_fold, epochs=2)


def test_the_card_tells_what_the_weights_are(trained, splits):
    folder, history = trained
    card = json.loads((folder / "models" / "fold_2" / "card.json").read_text())
    assert card["classes"] == CLASSES
    assert card["clip"] == {"size": 32, "window": 8, "test_window": "centre", "stride": None}
    assert card["architecture"]["name"] == "convlstm" and card["preprocessing"]["std"] == [1.0, 1.0, 1.0]
    assert card["data"]["clips"] == splits[splits["fold"] == 2]["subset"].value_counts().to_dict()
    assert card["training"]["learning_rate"] == 0.003 and card["training"]["epochs"] == 6
    assert not card["training"]["frozen_backbone"] and card["training"]["fold"] == 2
    fold = history[history["fold"] == 2].set_index("epoch")
    assert card["scores"]["validation_clip_top1"] == pytest.approx(fold["validation_clip_top1"].max(), abs=1e-4)
    best = fold[fold["validation_clip_top1"] == fold["validation_clip_top1"].max()]["validation_loss"].idxmin()
    assert card["scores"]["best_epoch"] == best and card["scores"]["chosen_on"] == "validation"


def measure(folder, splits, frames_folder, fold) -> float:
    """Cross-entropy of a fold's model on its validation clips."""
    seen = splits[(splits["fold"] == fold) & (splits["subset"] == "validation")].assign(subset="testing")
    table = predict_folds(folder / "models", seen, frames_folder=frames_folder)
    return -sum(math.log(row[row["class"]]) for row in table.to_dict("records")) / len(table)


@pytest.mark.parametrize("fold", [1, 2])
def test_the_weights_are_those_of_the_best_epoch(trained, splits, frames_folder, fold):
    folder, history = trained
    _, card = load_model(folder / "models" / f"fold_{fold}")
    row = history[(history["fold"] == fold) & (history["epoch"] == card["scores"]["best_epoch"])].iloc[0]
    assert measure(folder, splits, frames_folder, fold) == pytest.approx(row["validation_loss"], abs=1e-4)


def test_of_epochs_that_hardly_differ_the_card_names_that_of_the_weights(train, first_fold, frames_folder, tmp_path):
    history = train(tmp_path, first_fold, architecture="convlstm", epochs=3, learning_rate=1e-6, seed=4,
                    options={"dropout": 0.0}).history
    assert history["validation_clip_top1"].nunique() == 1 and history["validation_clip_top1"].min() > 0
    assert history["validation_loss"].diff().max() < -3e-5
    _, card = load_model(tmp_path / "models" / "fold_1")
    assert card["scores"]["best_epoch"] == 3
    assert measure(tmp_path, first_fold, frames_folder, 1) == pytest.approx(history["validation_loss"][2], abs=2e-5)


def test_a_recipe_is_read_from_the_card_of_its_model(train, first_fold, tmp_path):
    settings = FROZEN | {"seed": 5, "colour": "bgr", "normalise": False, "choose_on": "testing", "gamma": 0.7}
    train(tmp_path, first_fold, epochs=1, **settings)
    _, card = load_model(tmp_path / "models" / "fold_1")
    assert read_recipe(card) == make_recipe(epochs=1, **settings)


@pytest.mark.parametrize(("wrong", "words"), [
    ({"colour": "brg"}, "colour must be rgb or bgr, found 'brg'"),
    ({"test_window": "first"}, "test_window must be centre or random, found 'first'"),
    ({"choose_on": "training"}, "choose_on must be validation or testing, found 'training'"),
    ({"augmentation": "translate"}, "unknown augmentation 'translate'; known: none, translation, contrast, mirror"),
    ({"augmentation_probability": -0.1}, "augmentation_probability must lie in 0-1, found -0.1"),
    ({"augmentation_probability": 1.1}, "augmentation_probability must lie in 0-1, found 1.1")], ids=str)
def test_a_choice_that_does_not_exist_is_told_with_those_that_do(wrong, words):
    with pytest.raises(ValueError, match=words):
        make_recipe(**wrong)


# What a switch or an augmentation changes in training, and what it leaves as it is.

UNFROZEN = {"architecture": "cnn_lstm_efficientnet_lite0"}  # its inputs are normalised, its backbone is trained


@pytest.fixture(scope="module")
def observe(train, first_fold, tmp_path_factory):
    """Train the first fold and write down what the model saw and how it was: settings of the recipe -> all of it.

    items and labels: of each (part, epoch); weights: at the start of each epoch and at the end; card; result.
    """
    def observe_one(**settings) -> SimpleNamespace:
        folder, items, labels, weights = tmp_path_factory.mktemp("observed"), {}, {}, []
        start, end = Classifier.on_train_epoch_start, Classifier.on_train_end

        def keep(self):
            weights.append({name: tensor.clone() for name, tensor in self.network.state_dict().items()})

        def watch(part, step):
            def watched(self, batch, number):
                place = part, self.current_epoch
                for kept, values in zip((items, labels), batch, strict=True):
                    kept[place] = torch.cat([kept.get(place, values[:0]), values])
                return step(self, batch, number)
            return watched

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Classifier, "on_train_epoch_start", lambda self: (keep(self), start(self)))
            patch.setattr(Classifier, "on_train_end", lambda self: (keep(self), end(self)))
            for part in ("training", "validation"):
                patch.setattr(Classifier, f"{part}_step", watch(part, getattr(Classifier, f"{part}_step")))
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
    ({"choose_on": "testing"}, ["training.choose_on"]),
    ({"seed": None}, ["training.seed"]),
    ({"augmentation": "mirror"}, ["training.augmentation"])], ids=str)
def test_a_card_names_the_switch_and_nothing_else_differs(observe, switch, named):
    assert list_differences(observe(**UNFROZEN).card, observe(**UNFROZEN, **switch).card) == set(named)


@pytest.mark.parametrize("switch", [{"colour": "bgr"}, {"normalise": False}], ids=str)
def test_another_preprocessing_leaves_weights_labels_and_windows_as_they_are(observe, switch):
    base, other = observe(**UNFROZEN), observe(**UNFROZEN, **switch)
    assert is_same(base.weights[0], other.weights[0]) and is_same(base.labels, other.labels)
    assert not is_same(base.weights[1], other.weights[1])


def test_bgr_turns_round_the_channels_that_a_model_sees(observe):
    base, other = observe(), observe(colour="bgr")
    assert is_same(other.items, {name: items.flip(1) for name, items in base.items.items()})
    assert not is_same(other.items, base.items)


def test_bgr_turns_round_the_channels_that_a_frozen_backbone_sees(index, frames_folder, tmp_path):
    recipe = make_recipe(**FROZEN | {"colour": "bgr", "normalise": False, "augmentation": "none"})
    features = load_features(prepare_features(recipe, index, CLASSES, frames_folder, tmp_path))
    torch.manual_seed(recipe.seed)
    model = build_model(**describe_architecture(recipe, CLASSES))
    frames = torch.from_numpy(load_frames(frames_folder, index["clip"][3], 32)).permute(3, 0, 1, 2) / 255
    with torch.inference_mode():
        rgb, bgr = model.encode(torch.stack([frames, frames.flip(0)]))
    torch.testing.assert_close(features[0, 3].float(), bgr, atol=5e-3, rtol=5e-3)
    assert (rgb - bgr).abs().max() > 0.05


@pytest.mark.parametrize("backbone", ["resnet50", "alexnet", "efficientnet_lite0", "densenet121"])
def test_a_backbone_gives_the_same_features_with_its_normalisations_folded_in(backbone):
    torch.manual_seed(0)
    plain = build_model(f"cnn_lstm_{backbone}", num_classes=12, frames=8, size=64).train()
    images = torch.rand(4, 3, 8, 64, 64)
    with torch.no_grad():
        for _ in range(3):
            plain(images)  # batch statistics that are not 0 and 1
    plain.eval()
    folded = copy.deepcopy(plain)
    fold_normalisation(folded.features)
    left = [type(layer).__name__ for layer in folded.features.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert len(left) < len([layer for layer in plain.features.modules() if isinstance(layer, nn.BatchNorm2d)]) or (
        backbone == "alexnet")
    with torch.inference_mode():
        torch.testing.assert_close(folded.encode(images), plain.encode(images), rtol=1e-3, atol=1e-3)


def test_without_normalisation_a_model_sees_values_in_0_to_1(observe):
    base, other = observe(**UNFROZEN), observe(**UNFROZEN, normalise=False)
    for name, items in other.items.items():
        assert items.min() >= 0 and items.max() <= 1
        torch.testing.assert_close(base.items[name], (items - 0.5) / 0.5)


def test_random_test_windows_differ_from_the_centre_and_from_epoch_to_epoch_and_seed_to_seed(observe):
    base, other, seeded = observe(), observe(test_window="random"), observe(test_window="random", window_seed=1)
    assert torch.equal(base.items["validation", 0], base.items["validation", 1])
    windows = [base.items["validation", 0], *(run.items["validation", epoch] for run in (other, seeded)
                                              for epoch in (0, 1))]
    assert not any(torch.equal(windows[one], windows[two]) for one in range(5) for two in range(one))


def test_random_test_windows_leave_training_as_it_is(observe):
    base, other = observe(), observe(test_window="random")
    assert is_same(base.labels, other.labels)
    for epoch in (0, 1):
        assert torch.equal(base.items["training", epoch], other.items["training", epoch])
    for before, after in zip(base.weights, other.weights, strict=True):
        assert is_same(before, after)


def test_random_test_windows_are_those_of_the_seed(observe, train, first_fold, tmp_path):
    first, again = observe(test_window="random"), train(tmp_path, first_fold, tested=True, test_window="random")
    pd.testing.assert_frame_equal(first.result.predictions, again.predictions, check_exact=True)
    pd.testing.assert_frame_equal(first.result.history, again.history, check_exact=True)


def test_the_epoch_can_be_chosen_on_test_clips(observe, first_fold):
    other = observe(choose_on="testing")
    tested = first_fold[first_fold["subset"] == "testing"]
    assert other.labels["validation", 0].tolist() == [CLASSES.index(name) for name in tested["class"]]
    assert other.card["scores"]["chosen_on"] == "testing" and other.result.chosen["clips"].tolist() == [len(tested)]
    # What chose the epoch is what the test says: that is the mistake.
    right = (other.result.predictions["class"] == other.result.predictions["predicted"]).mean()
    assert other.result.chosen["clip_top1"][0] == pytest.approx(right)
    assert right == pytest.approx(other.result.history["validation_clip_top1"].max(), abs=1e-6)


def test_choosing_on_test_clips_leaves_training_as_it_is(observe):
    base, other = observe(), observe(choose_on="testing")
    columns = ["epoch", "training_loss", "training_clip_top1"]
    pd.testing.assert_frame_equal(base.result.history[columns], other.result.history[columns], check_exact=True)
    for before, after in zip(base.weights, other.weights, strict=True):
        assert is_same(before, after)


def test_without_a_seed_each_run_is_another(observe, train, first_fold, tmp_path):
    first, again = observe(seed=None), train(tmp_path, first_fold, tested=True, seed=None)
    assert not first.result.predictions.equals(again.predictions)
    assert not is_same(first.weights[0], observe().weights[0])


def test_the_card_records_the_seed_that_was_drawn(observe, train, first_fold, tmp_path):
    drawn = observe(seed=None)
    again = train(tmp_path, first_fold, tested=True, seed=drawn.card["training"]["seed"])
    pd.testing.assert_frame_equal(drawn.result.predictions, again.predictions, check_exact=True)
    pd.testing.assert_frame_equal(drawn.result.history, again.history, check_exact=True)


def test_another_seed_gives_other_weights_and_the_same_one_the_same(observe, train, first_fold, tmp_path):
    again = train(tmp_path, first_fold, seed=0).history
    pd.testing.assert_frame_equal(observe().result.history, again, check_exact=True)
    assert not observe().result.history.equals(observe(seed=1).result.history)


def test_mirrored_training_clips_are_flipped_and_have_the_other_hands_class(observe):
    base, other = observe(), observe(augmentation="mirror", augmentation_probability=1.0)
    assert is_same(base.weights[0], other.weights[0])
    for epoch in (0, 1):
        assert torch.equal(other.items["training", epoch], base.items["training", epoch].flip(-1))
        assert torch.equal(other.labels["training", epoch], MIRRORED[base.labels["training", epoch]])


def test_mirrored_features_have_the_other_hands_class(observe):
    frozen = FROZEN | {"augmentation": "mirror"}
    base, other = (observe(**frozen, augmentation_probability=probability) for probability in (0.0, 1.0))
    for epoch in (0, 1):
        assert torch.equal(other.labels["training", epoch], MIRRORED[base.labels["training", epoch]])
        assert not torch.equal(other.items["training", epoch], base.items["training", epoch])


@pytest.mark.parametrize("settings", [{}, FROZEN], ids=["pixels", "frozen"])
@pytest.mark.parametrize("augmentation", ["translation", "contrast", "mirror"])
def test_only_training_clips_are_augmented(observe, settings, augmentation):
    settings = settings | {"augmentation": augmentation}
    base = observe(**settings | {"augmentation": "none"})
    other = observe(**settings, augmentation_probability=1.0)
    for epoch in (0, 1):
        assert torch.equal(base.items["validation", epoch], other.items["validation", epoch])
        assert torch.equal(base.labels["validation", epoch], other.labels["validation", epoch])
        assert not torch.equal(base.items["training", epoch], other.items["training", epoch])


@pytest.mark.parametrize("settings", [{}, FROZEN], ids=["pixels", "frozen"])
def test_an_augmentation_with_probability_0_changes_nothing(observe, settings):
    settings = settings | {"augmentation": "none"}
    other = observe(**settings | {"augmentation": "mirror", "augmentation_probability": 0.0})
    pd.testing.assert_frame_equal(observe(**settings).result.predictions, other.result.predictions, check_exact=True)


def test_clips_cannot_be_mirrored_without_the_other_hands_class(index, splits, frames_folder, tmp_path):
    kept = splits[splits["class"] != "step_2_right"]
    with pytest.raises(ValueError, match="a mirrored clip of step_2_left shows step_2_right"):
        train_runs({"one": Run(make_recipe(augmentation="mirror"), kept)}, index, frames_folder=frames_folder,
                   resume_folder=tmp_path, classes=CLASSES[:2], accelerator="cpu", processes=1)


@pytest.mark.parametrize(("augmentation", "versions"), [("none", 1), ("mirror", 2), ("contrast", 4)])
def test_a_frozen_backbone_sees_each_clip_and_its_copies(augmentation, versions, index, frames_folder, tmp_path):
    recipe = make_recipe(**FROZEN | {"augmentation": augmentation, "augmented_copies": 3})
    file = prepare_features(recipe, index.head(2), CLASSES, frames_folder, tmp_path)
    assert load_features(file).shape[:3] == (versions, 2, 10)


def test_what_is_not_frozen_has_no_features(index, frames_folder, tmp_path):
    assert prepare_features(make_recipe(), index, CLASSES, frames_folder, tmp_path) is None
    assert list_files(tmp_path) == []


# Several runs, one after the other or side by side, and gone on with.


def train_two(folder, splits, index, frames_folder, processes=1, **settings) -> dict[str, Result]:
    """Two recipes on the same folds, one of which keeps its models."""
    runs = {"slow": Run(make_recipe(**settings), splits, folder / "slow", tested=True),
            "fast": Run(make_recipe(**settings, learning_rate=0.03), splits)}
    return train_runs(runs, index, frames_folder=frames_folder, resume_folder=folder / "resume", classes=CLASSES,
                      accelerator="cpu", processes=processes)


def test_each_run_has_its_result(splits, index, frames_folder, tmp_path):
    results = train_two(tmp_path, splits, index, frames_folder)
    assert list(results) == ["slow", "fast"]
    assert not results["slow"].history.equals(results["fast"].history)
    for result in results.values():
        assert result.history[["fold", "epoch"]].values.tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]
        chosen = result.chosen.merge(result.history, on=["fold", "epoch"])
        best = result.history.groupby("fold")["validation_clip_top1"].max()
        assert chosen["validation_clip_top1"].tolist() == best.tolist()
        assert chosen["clip_top1"].tolist() == pytest.approx(best.tolist(), abs=1e-6)
    assert list_files(tmp_path) == ["slow/fold_1/card.json", "slow/fold_1/weights.safetensors", "slow/fold_2/card.json",
                                    "slow/fold_2/weights.safetensors", "slow/history.csv"]


def test_a_tested_run_predicts_each_test_clip_once_and_another_one_none(splits, index, frames_folder, tmp_path):
    results = train_two(tmp_path, splits, index, frames_folder, epochs=1)
    columns = ["clip", "fold", "class"]
    tested = splits[splits["subset"] == "testing"][columns]
    assert sorted(results["slow"].predictions[columns].values.tolist()) == sorted(tested.values.tolist())
    assert results["fast"].predictions is None


@pytest.mark.parametrize("settings", [{}, {"colour": "bgr"}, {"test_window": "random"}, FROZEN, THREE_STREAM], ids=str)
def test_predictions_are_those_of_the_saved_models(settings, train, splits, index, frames_folder, tmp_path):
    result = train(tmp_path, splits, tested=True, **settings)
    _, card = load_model(tmp_path / "models" / "fold_1")
    features = prepare_features(read_recipe(card), take_clips(splits, index), CLASSES, frames_folder, tmp_path)
    saved = predict_folds(tmp_path / "models", splits, frames_folder=frames_folder, features=features)
    pd.testing.assert_frame_equal(saved, result.predictions, check_exact=True)


def test_recipes_with_the_same_frozen_backbone_share_its_features(splits, index, frames_folder, tmp_path):
    train_two(tmp_path, splits, index, frames_folder, epochs=1, **FROZEN)
    assert len(list(tmp_path.glob("resume/features-*"))) == 2, "of untouched clips and of augmented ones"
    others = [path for path in tmp_path.glob("resume/*") if not path.name.startswith("features-")]
    assert all(list_files(path) == ["finished.json"] for path in others), "nothing else is left of the runs"


def test_a_recipe_whose_frames_differ_has_its_own_features(index, frames_folder, tmp_path):
    files = {prepare_features(make_recipe(**FROZEN | changed), index.head(1), CLASSES, frames_folder, tmp_path)
             for changed in ({}, {"colour": "bgr"}, {"normalise": False}, {"augmentation": "none"}, {"seed": 1})}
    assert len(files) == 5


def test_two_processes_give_the_same_bytes_as_one(splits, index, frames_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(joblib, "cpu_count", lambda: 2)  # a thread each, as here
    one, two = (train_two(tmp_path / str(processes), splits, index, frames_folder, processes, **FROZEN)
                for processes in (1, 2))
    for name in one:
        pd.testing.assert_frame_equal(one[name].history, two[name].history, check_exact=True)
    pd.testing.assert_frame_equal(one["slow"].predictions, two["slow"].predictions, check_exact=True)
    files = list_files(tmp_path / "1" / "slow")
    assert files == list_files(tmp_path / "2" / "slow")
    for file in files:
        assert (tmp_path / "1" / "slow" / file).read_bytes() == (tmp_path / "2" / "slow" / file).read_bytes(), file


def test_the_same_recipe_under_two_names_has_the_same_result_twice(first_fold, index, frames_folder, tmp_path):
    runs = {name: Run(make_recipe(), first_fold, tmp_path / name, tested=True) for name in ("one", "other")}
    results = train_runs(runs, index, frames_folder=frames_folder, resume_folder=tmp_path / "resume", classes=CLASSES,
                         accelerator="cpu", processes=1)
    pd.testing.assert_frame_equal(results["one"].predictions, results["other"].predictions, check_exact=True)
    assert list_files(tmp_path / "one") == list_files(tmp_path / "other") != []


@pytest.mark.parametrize("settings", [{"augmentation": "translation"}, FROZEN], ids=["pixels", "frozen"])
def test_an_interrupted_run_ends_with_the_same_result(settings, train, splits, tmp_path, monkeypatch):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    expected = train(whole, splits, epochs=3, tested=True, **settings)
    start = Classifier.on_train_epoch_start

    def interrupt(self):
        if "fold 2" in self.title and self.current_epoch == 1:
            raise Interrupted
        start(self)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Classifier, "on_train_epoch_start", interrupt)
        train(broken, splits, epochs=3, tested=True, **settings)
    assert not (broken / "models" / "history.csv").exists() and list(broken.glob("resume/*/fold_2/last.ckpt"))
    begun = []
    monkeypatch.setattr(Classifier, "on_train_epoch_start",
                        lambda self: (begun.append((self.title[-6], self.current_epoch)), start(self)))
    result = train(broken, splits, epochs=3, tested=True, **settings)
    assert begun == [("2", 1), ("2", 2)]  # what was done is not done again
    pd.testing.assert_frame_equal(result.history, expected.history, check_exact=True)
    pd.testing.assert_frame_equal(result.predictions, expected.predictions, check_exact=True)
    for file in ("history.csv", "fold_1/weights.safetensors", "fold_2/weights.safetensors", "fold_1/card.json",
                 "fold_2/card.json"):
        assert (broken / "models" / file).read_bytes() == (whole / "models" / file).read_bytes(), file


def test_a_frozen_backbone_learns_with_dropout_whether_its_features_are_new_or_kept(train, first_fold, tmp_path):
    new, kept = (train(tmp_path, first_fold, **FROZEN).history for _ in range(2))
    pd.testing.assert_frame_equal(kept, new, check_exact=True)


def test_only_the_same_recipe_on_the_same_frames_goes_on_where_it_was(train, first_fold, data_folder, tmp_path,
                                                                      monkeypatch):
    start = Classifier.on_train_epoch_start
    begun = []

    def interrupt(self):
        begun.append(self.current_epoch)
        if self.current_epoch == 1:
            raise Interrupted
        start(self)

    monkeypatch.setattr(Classifier, "on_train_epoch_start", interrupt)
    other = extract_frames(data_folder, tmp_path / "frames", CLASSES, sizes=[32], length=10, stride=1, processes=1)
    for changed in ({}, {}, {"learning_rate": 0.1}, {"choose_on": "testing"},
                    {"clips": other, "frames": tmp_path / "frames"}):
        with pytest.raises(Interrupted):
            train(tmp_path, first_fold, **changed)
    assert begun == [0, 1, 1, 0, 1, 0, 1, 0, 1]


def test_a_process_whose_run_was_killed_ends_as_well(monkeypatch):
    parents = iter([10, 10, 1])  # at the start, in the first epoch, and when the run is gone
    monkeypatch.setattr(os, "getppid", lambda: next(parents))

    def leave(code):
        raise Interrupted(code)

    monkeypatch.setattr(os, "_exit", leave)
    callback = EndWithParent()
    callback.on_train_epoch_start(None, None)
    with pytest.raises(Interrupted, match="1"):
        callback.on_train_epoch_start(None, None)


def test_a_fold_whose_run_lives_goes_on(monkeypatch):
    monkeypatch.setattr(os, "_exit", lambda code: pytest.fail("it ended"))
    EndWithParent().on_train_epoch_start(None, None)


def test_a_loss_that_is_no_number_names_the_learning_rate(train, splits, tmp_path):
    with pytest.raises(FloatingPointError, match="one, fold 1 of 2: the loss is .* lower learning_rate"):
        train(tmp_path, splits, learning_rate=1e30)
    assert not (tmp_path / "models").exists()


# Three streams, each of which learns on its own.


@pytest.fixture
def streams() -> tuple[Classifier, torch.Tensor, torch.Tensor]:
    """A classifier of three streams without dropout, with a batch of features and labels."""
    torch.manual_seed(0)
    recipe = make_recipe(**THREE_STREAM)
    network = build_model(**describe_architecture(recipe, CLASSES), dropout=0.0)
    classifier = Classifier(network, recipe, from_features=True, make_training_loader=None, make_choosing_loader=None,
                            seed=0, title="streams")
    classifier.on_train_epoch_start()
    return classifier, torch.randn(5, 8, 3 * network.feature_width), torch.tensor([0, 1, 2, 1, 0])


def test_the_loss_of_three_streams_is_the_mean_of_their_losses(streams):
    classifier, features, labels = streams
    loss = classifier.training_step((features, labels), 0)
    losses = [functional.cross_entropy(head(part), labels)
              for head, part in zip(classifier.network.heads, features.chunk(3, dim=-1), strict=True)]
    assert loss.item() == pytest.approx(torch.stack(losses).mean().item())
    fused = functional.cross_entropy(classifier.network.classify(features), labels)
    assert loss.item() != pytest.approx(fused.item(), rel=1e-4)


@pytest.mark.parametrize("stream", [0, 1, 2])
def test_a_stream_learns_the_same_whatever_the_others_see(streams, stream):
    classifier, features, labels = streams
    width = classifier.network.feature_width
    other = torch.zeros_like(features)
    other[..., stream * width:(stream + 1) * width] = features[..., stream * width:(stream + 1) * width]
    gradients = []
    for items in (features, other):
        classifier.zero_grad()
        classifier.training_step((items, labels), 0).backward()
        gradients.append([[parameter.grad for parameter in head.parameters()] for head in classifier.network.heads])
    for number, (one, two) in enumerate(zip(*gradients, strict=True)):
        assert all(torch.allclose(*pair, atol=1e-7) for pair in zip(one, two, strict=True)) == (number == stream)


def test_the_accuracy_of_three_streams_is_that_of_all_together(streams):
    classifier, features, labels = streams
    classifier.training_step((features, labels), 0)
    right = (classifier.network.classify(features).argmax(1) == labels).sum()
    assert classifier.sums["training"][1:] == [right, 5]


# Number formats.


def test_precision_is_chosen_by_the_processor_unless_it_is_given(monkeypatch):
    assert choose_precision("bf16-mixed") == "bf16-mixed" and choose_precision("32-true") == "32-true"
    for able, precision in ((True, "bf16-mixed"), (False, "32-true")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: {"avx512_bf16": able})
        assert choose_precision("auto") == precision
        with autocast(precision):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == (torch.bfloat16 if able else torch.float32)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is kept on Linux alone")
def test_memory_that_is_freed_serves_the_next_step():
    script = """
import resource, numpy
from health_actions.learning.precision import keep_memory
kept = keep_memory()
def ask():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    numpy.ones(50_000_000, numpy.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(kept, *[ask() for _ in range(3)])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    kept, _, *later = done.stdout.split()
    assert kept == "False" or max(map(int, later)) < 1000  # pages of 4 kB; 12,000 where they are asked for anew


def test_three_dimensional_convolutions_are_trained_in_float32_unless_another_precision_is_given(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    networks = nn.Sequential(nn.Conv2d(3, 4, 3)), nn.Sequential(nn.Conv3d(3, 4, 3))
    assert [choose_precision("auto", "cpu", network) for network in networks] == ["bf16-mixed", "32-true"]
    assert choose_precision("bf16-mixed", "cpu", networks[1]) == "bf16-mixed"


def test_the_precision_that_was_chosen_stands_in_the_card(train, first_fold, tmp_path, monkeypatch):
    monkeypatch.setattr("health_actions.learning.training.choose_precision", lambda *_, **__: "bf16-mixed")
    train(tmp_path, first_fold, epochs=1, precision="auto")
    _, card = load_model(tmp_path / "models" / "fold_1")
    assert card["training"]["precision"] == "bf16-mixed"
