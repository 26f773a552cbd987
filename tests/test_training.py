import json
import math

import pandas as pd
import pytest
import torch
from conftest import CLASSES, list_files

from health_actions.evaluation import predict_folds
from health_actions.extraction import extract_frames
from health_actions.models.folder import load_model
from health_actions.precision import autocast, choose_precision
from health_actions.training import Classifier, hash_code, train_folds

PIXELS = ("cnn_lstm_custom", {"options": {"lstm_width": 16}, "augmentation": "translation"})
FROZEN = ("cnn_lstm_efficientnet_lite0", {"options": {"freeze": True, "lstm_width": 16}, "augmentation": "contrast",
                                          "augmented_copies": 1})


class Interrupted(Exception):
    """Somebody pulled the plug."""


def train(folder, name, splits, index, frames_folder, **settings) -> pd.DataFrame:
    return train_folds(name, splits, index, frames_folder=frames_folder, output=folder / "models",
                       resume_folder=folder / "resume", **{
                           "classes": CLASSES, "size": 32, "window": 8, "epochs": 3, "batch_size": 4,
                           "learning_rate": 0.003, "betas": [0.9, 0.999], "weight_decay": 0.0, "gamma": 0.9,
                           "accelerator": "cpu", "precision": "32-true", **settings})


@pytest.fixture(scope="module")
def trained(splits, index, frames_folder, tmp_path_factory):
    """Two folds of a ConvLSTM: folder and history."""
    folder = tmp_path_factory.mktemp("trained")
    return folder, train(folder, "convlstm", splits, index, frames_folder, epochs=6, options={"dropout": 0.2})


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
    assert list_files(trained[0]) == [f"models/fold_{fold}/{name}" for fold in (1, 2)
                                      for name in ("card.json", "weights.safetensors")] + ["models/history.csv"]


def test_the_card_tells_what_the_weights_are(trained, splits):
    folder, history = trained
    card = json.loads((folder / "models" / "fold_2" / "card.json").read_text())
    assert card["classes"] == CLASSES and card["clip"] == {"size": 32, "window": 8}
    assert card["architecture"]["name"] == "convlstm" and card["preprocessing"]["std"] == [1.0, 1.0, 1.0]
    assert card["data"]["clips"] == splits[splits["fold"] == 2]["subset"].value_counts().to_dict()
    assert card["training"]["learning_rate"] == 0.003 and card["training"]["epochs"] == 6
    assert not card["training"]["frozen_backbone"] and card["training"]["fold"] == 2
    fold = history[history["fold"] == 2].set_index("epoch")
    assert card["scores"]["validation_clip_top1"] == pytest.approx(fold["validation_clip_top1"].max(), abs=1e-4)
    best = fold[fold["validation_clip_top1"] == fold["validation_clip_top1"].max()]["validation_loss"].idxmin()
    assert card["scores"]["best_epoch"] == best


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


def test_of_epochs_that_hardly_differ_the_card_names_that_of_the_weights(splits, index, frames_folder, tmp_path):
    history = train(tmp_path, "convlstm", splits[splits["fold"] == 1], index, frames_folder, learning_rate=1e-6,
                    options={"dropout": 0.0}, seed=4)
    assert history["validation_clip_top1"].nunique() == 1 and history["validation_clip_top1"].min() > 0
    assert history["validation_loss"].diff().max() < -3e-5
    _, card = load_model(tmp_path / "models" / "fold_1")
    assert card["scores"]["best_epoch"] == 3
    assert measure(tmp_path, splits, frames_folder, 1) == pytest.approx(history["validation_loss"][2], abs=2e-5)


def test_another_seed_gives_other_weights(splits, index, frames_folder, tmp_path):
    first_fold = splits[splits["fold"] == 1]
    one, two = (train(tmp_path / str(seed), "convlstm", first_fold, index, frames_folder, epochs=1, seed=seed)
                for seed in (0, 1))
    assert not one.equals(two)


@pytest.mark.parametrize(("name", "settings"), [PIXELS, FROZEN], ids=["from pixels", "frozen"])
def test_an_interrupted_run_ends_with_the_same_result(name, settings, splits, index, frames_folder, tmp_path,
                                                      monkeypatch):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    expected = train(whole, name, splits, index, frames_folder, **settings)
    start = Classifier.on_train_epoch_start

    def interrupt(self):
        if "fold 2" in self.title and self.current_epoch == 1:
            raise Interrupted
        start(self)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Classifier, "on_train_epoch_start", interrupt)
        train(broken, name, splits, index, frames_folder, **settings)
    assert not (broken / "models" / "history.csv").exists() and list(broken.glob("resume/*/fold_2/last.ckpt"))
    begun = []
    monkeypatch.setattr(Classifier, "on_train_epoch_start",
                        lambda self: (begun.append((self.title[-6], self.current_epoch)), start(self)))
    history = train(broken, name, splits, index, frames_folder, **settings)
    assert begun == [("2", 1), ("2", 2)]  # what was done is not done again
    pd.testing.assert_frame_equal(history, expected, check_exact=True)
    for file in ("history.csv", "fold_1/weights.safetensors", "fold_2/weights.safetensors", "fold_1/card.json",
                 "fold_2/card.json"):
        assert (broken / "models" / file).read_bytes() == (whole / "models" / file).read_bytes(), file


def test_a_frozen_backbone_learns_with_dropout_whether_its_features_are_new_or_kept(splits, index, frames_folder,
                                                                                   tmp_path):
    name, settings = FROZEN
    first_fold = splits[splits["fold"] == 1]
    for run in ("new", "kept"):
        history = train(tmp_path, name, first_fold, index, frames_folder, epochs=2, **settings)
        if run == "new":
            expected = history
    pd.testing.assert_frame_equal(history, expected, check_exact=True)


def test_frames_sampled_in_another_way_do_not_resume_an_interrupted_run(splits, index, frames_folder, data_folder,
                                                                       tmp_path, monkeypatch):
    first_fold = splits[splits["fold"] == 1]
    start = Classifier.on_train_epoch_start

    def interrupt(self):
        if self.current_epoch == 1:
            raise Interrupted
        start(self)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Classifier, "on_train_epoch_start", interrupt)
        train(tmp_path, "convlstm", first_fold, index, frames_folder)
    other = extract_frames(data_folder, tmp_path / "frames", CLASSES, sizes=[32], length=10, stride=1, processes=1)
    begun = []
    monkeypatch.setattr(Classifier, "on_train_epoch_start",
                        lambda self: (begun.append(self.current_epoch), start(self)))
    train(tmp_path, "convlstm", first_fold, other, tmp_path / "frames")
    assert begun == [0, 1, 2]


def test_a_loss_that_is_no_number_names_the_learning_rate(splits, index, frames_folder, tmp_path):
    with pytest.raises(FloatingPointError, match="custom, fold 1 of 2: the loss is .* lower learning_rate"):
        train(tmp_path, "cnn_lstm_custom", splits, index, frames_folder, learning_rate=1e30, options={"lstm_width": 8})
    assert not (tmp_path / "models").exists()


def test_precision_is_chosen_by_the_processor_unless_it_is_given(monkeypatch):
    assert choose_precision("bf16-mixed") == "bf16-mixed" and choose_precision("32-true") == "32-true"
    for able, precision in ((True, "bf16-mixed"), (False, "32-true")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: {"avx512_bf16": able})
        assert choose_precision("auto") == precision
        with autocast(precision):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == (torch.bfloat16 if able else torch.float32)


def test_the_codes_hash_is_one_of_all_its_files():
    assert hash_code() == hash_code() and len(hash_code()) == 64
