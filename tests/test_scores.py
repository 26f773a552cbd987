"""Predictions of trained models, and the metrics computed from them."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import CLASSES
from hypothesis import given
from hypothesis import strategies as st

from health_actions.data.transforms import build_input_transform, build_spatial
from health_actions.learning.baselines import predict_baselines
from health_actions.learning.datasets import ClipDataset, take_clips
from health_actions.learning.features import prepare_features
from health_actions.learning.recipe import Recipe
from health_actions.learning.scores import (
    bootstrap_interval,
    count_confusions,
    list_mix_ups,
    predict_folds,
    predict_levels,
    read_cards,
    score,
    score_classes,
    wilson_interval,
)
from health_actions.models import build_model
from health_actions.models.weights import load_model, save_model

A, B, C = CLASSES


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    """Starting processes takes longer than what they do here."""
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")


def make_predictions(rows, classes=CLASSES) -> pd.DataFrame:
    """A table of predictions from (class, probability of each class); each clip by a performer of its own."""
    table = pd.DataFrame([probabilities for _, probabilities in rows], columns=classes)
    table.insert(0, "recording", range(len(rows)))
    table.insert(0, "class", [label for label, _ in rows])
    table.insert(1, "predicted", table[classes].idxmax(axis=1))
    return table


BY_HAND = make_predictions([(A, [0.7, 0.2, 0.1]), (A, [0.4, 0.5, 0.1]), (A, [0.1, 0.6, 0.3]), (B, [0.3, 0.6, 0.1]),
                            (C, [0.3, 0.5, 0.2])])


def test_accuracy_is_that_computed_by_hand():
    result = score(BY_HAND, CLASSES)
    assert result["clips"] == result["performers"] == 5 and "movements" not in result
    assert result["clip_top1"] == 2 / 5 and result["clip_top2"] == 3 / 5
    assert score(BY_HAND.assign(take=list("aabcc"), recording=0), CLASSES).items() >= {
        "clips": 5, "movements": 3, "performers": 1}.items()
    assert (result["clip_top1_low"], result["clip_top1_high"]) == pytest.approx((0.1176, 0.7693), abs=1e-4)  # Wilson
    assert score(BY_HAND, CLASSES, "video")["video_top1"] == 2 / 5
    two = ["fall", "other"]  # as few classes as there can be
    result = score(make_predictions([("fall", [0.9, 0.1]), ("other", [0.6, 0.4])], two), two)
    assert (result["clip_top1"], result["clip_top2"]) == (0.5, 1.0)


def test_each_class_has_precision_and_recall_computed_by_hand():
    by_class = score_classes(BY_HAND, [*CLASSES, "step_3"]).set_index("class")
    assert list(by_class) == ["clips", "performers", "precision", "precision_low", "precision_high", "recall",
                              "recall_low", "recall_high", "f1"]
    assert by_class["clips"].tolist() == by_class["performers"].tolist() == [3, 1, 1, 0]
    assert by_class["precision"].tolist() == pytest.approx([1, 1 / 4, 0, 0])
    assert by_class["recall"].tolist() == pytest.approx([1 / 3, 1, 0, 0])
    assert by_class["f1"].tolist() == pytest.approx([1 / 2, 2 / 5, 0, 0])
    tested = by_class[by_class["clips"] > 0]
    assert ((tested["recall_low"] <= tested["recall"]) & (tested["recall"] <= tested["recall_high"])).all()
    assert by_class.loc["step_3", ["recall_low", "recall_high"]].isna().all()


@given(st.integers(1, 500).flatmap(lambda count: st.tuples(st.integers(0, count), st.just(count))))
def test_an_interval_holds_its_share_and_lies_between_0_and_1(numbers):
    correct, count = numbers
    low, high = wilson_interval(correct, count)
    assert 0 <= low <= correct / count + 1e-12 and correct / count - 1e-12 <= high <= 1 and low < high
    assert (1 - high, 1 - low) == pytest.approx(wilson_interval(count - correct, count))
    assert np.isnan(wilson_interval(0, 0)).all()


def test_clips_of_one_performer_count_together():
    people = np.repeat(range(6), 10)
    alike, mixed = people < 3, np.arange(60) % 2 == 0  # half of the clips: those of three performers, or half of each
    low, high = bootstrap_interval(alike, people)
    assert (low, high) == bootstrap_interval(alike, people) and low < 0.2 and high > 0.8, "the same draws; n is six"
    assert bootstrap_interval(mixed, people) == wilson_interval(30, 60), "clips differ, performers do not"
    assert bootstrap_interval(mixed, range(60)) == wilson_interval(30, 60), "each clip by a performer of its own"
    few = [True] * 7 + [False] * 3 + [True] * 5 + [False] * 5  # draws of two performers lie between 0.5 and 0.7
    assert bootstrap_interval(few, people[:20]) == wilson_interval(12, 20), "as wide as for independent clips"
    assert bootstrap_interval(alike[:10], people[:10]) == wilson_interval(1, 1)
    assert bootstrap_interval(~alike[:20], people[:20]) == wilson_interval(0, 2)
    assert bootstrap_interval(mixed[:10], people[:10]) == wilson_interval(0.5, 1)
    assert np.isnan(bootstrap_interval([], [])).all()


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=12), min_size=1, max_size=12))
def test_an_interval_over_performers_holds_the_share_and_lies_between_0_and_1(answers):
    right, people = np.concatenate(answers), np.repeat(range(len(answers)), list(map(len, answers)))
    low, high = bootstrap_interval(right, people)
    least = wilson_interval(right.sum(), len(right))
    assert low <= least[0] + 1e-12 and least[1] - 1e-12 <= high, "no narrower than that of independent clips"
    assert 0 <= low <= right.mean() + 1e-12 and right.mean() - 1e-12 <= high <= 1 and low < high


@given(st.lists(st.booleans(), min_size=1, max_size=12), st.integers(1, 12), st.integers(1, 4))
def test_where_performers_have_one_share_it_is_one_of_wilsons(answers, performers, times):
    """Never narrower than that of as many independent clips, never wider than that of as many performers."""
    right, people = np.tile(answers, performers * times), np.repeat(range(performers), len(answers) * times)
    low, high = bootstrap_interval(right, people)
    inner, outer = (wilson_interval(right.mean() * count, count) for count in (len(right), performers))
    assert outer[0] - 1e-12 <= low <= inner[0] + 1e-12 and inner[1] - 1e-12 <= high <= outer[1] + 1e-12


def test_rows_are_predicted_and_columns_actual_classes_and_the_most_frequent_confusion_comes_first():
    counts = count_confusions(BY_HAND, CLASSES)
    assert (counts.index.name, counts.columns.name) == ("predicted", "actual")
    assert counts.loc[B, A] == 2 and counts.sum().tolist() == [3, 1, 1] and counts.sum(axis=1).tolist() == [1, 4, 0]
    for table in (counts, counts.rename_axis(None, axis=1)):  # the second as read from a file
        assert list_mix_ups(table)[["actual", "predicted", "clips"]].values.tolist() == [[A, B, 2], [C, B, 1]]
    assert list_mix_ups(count_confusions(BY_HAND.assign(predicted=BY_HAND["class"]), CLASSES)).empty


def make_card(fold, colour="rgb", test_window="centre", window_seed=0, **architecture) -> dict:
    name = architecture.get("name", "convlstm")
    return {"architecture": {"name": name, "num_classes": 3, "frames": 8, "size": 32, **architecture},
            "classes": CLASSES, "preprocessing": {"mean": [0.0] * 3, "std": [1.0] * 3, "colour": colour},
            "frames": {"height": 32, "length": 10, "stride": 4},
            "clip": {"size": 32, "crop": "squash", "window": 8, "stride": 1, "test_window": test_window},
            "training": {"architecture": name, "precision": "32-true", "fold": fold, "window_seed": window_seed},
            "data": {}, "scores": {}}


def save_models(folder, **card) -> None:
    """An untrained model for each of two folds."""
    for fold in (1, 2):
        torch.manual_seed(fold)
        made = make_card(fold, **card)
        save_model(folder / f"fold_{fold}", build_model(**made["architecture"]), made)


@pytest.fixture(scope="module")
def predicted(splits, frames_folder, tmp_path_factory):
    """Predictions of two untrained models for the test clips of their folds."""
    folder = tmp_path_factory.mktemp("models") / "convlstm"
    save_models(folder)
    return folder, predict_folds(folder, splits, frames_folder=frames_folder)


def test_every_test_clip_is_predicted_once_by_its_fold(predicted, splits):
    table, columns = predicted[1], ["clip", "fold", "recording", "class"]
    tested = splits[splits["subset"] == "testing"]
    assert sorted(table[columns].values.tolist()) == sorted(tested[columns].values.tolist())
    assert table["clip"].is_unique and list(table) == [*columns, "predicted", *CLASSES]
    assert table[CLASSES].sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-5)
    assert (table["predicted"] == table[CLASSES].idxmax(axis=1)).all()


def test_a_fold_that_was_not_trained_is_left_out_and_none_at_all_is_an_error(splits, frames_folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="no trained fold in .*: train the model first"):
        predict_folds(tmp_path, splits, frames_folder=frames_folder)
    with pytest.raises(FileNotFoundError, match="no trained fold in .*: train the model first"):
        read_cards(tmp_path)
    save_models(tmp_path)
    (tmp_path / "fold_1").rename(tmp_path / "fold_10")
    assert set(predict_folds(tmp_path, splits, frames_folder=frames_folder)["fold"]) == {2}
    assert [card["training"]["fold"] for card in read_cards(tmp_path)] == [2, 1], "in the order of the folders"


def answer_by_hand(model, splits, frames_folder, windows: int, flip: bool) -> np.ndarray:
    """Probabilities of all windows of the first fold's test clips, computed step by step."""
    tested = splits[(splits["subset"] == "testing") & (splits["fold"] == 1)]
    dataset = ClipDataset(tested, classes=CLASSES, frames_folder=frames_folder, window=8, windows=windows,
                          spatial=build_spatial("squash", 32)[1],
                          input_transform=build_input_transform([0.0] * 3, [1.0] * 3))
    items = torch.stack([dataset[number][0] for number in range(len(dataset))]).reshape(-1, 3, 8, 32, 32)
    with torch.inference_mode():
        return model(items.flip(1) if flip else items).softmax(1).reshape(len(dataset), 1 + windows, -1).numpy()


def test_predictions_are_those_computed_step_by_step(predicted, splits, frames_folder, tmp_path):
    save_models(tmp_path, colour="bgr")
    for folder, windows, flip in ((predicted[0], 0, False), (predicted[0], 3, False), (tmp_path, 2, True)):
        tables = predict_levels(folder, splits, frames_folder=frames_folder, windows=windows)
        expected = answer_by_hand(load_model(folder / "fold_1")[0], splits, frames_folder, windows, flip)
        for level, answers in (("clip", expected[:, 0]), ("video", expected[:, min(1, windows):].mean(axis=1))):
            table = tables[level]
            np.testing.assert_allclose(table.loc[table["fold"] == 1, CLASSES], answers, atol=5e-6)


def test_both_levels_of_one_pass_are_those_of_two(predicted, splits, frames_folder, tmp_path):
    save_models(tmp_path, test_window="random", window_seed=1)
    for folder in (predicted[0], tmp_path):
        tables = predict_levels(folder, splits, frames_folder=frames_folder, windows=3, batch=2)
        pd.testing.assert_frame_equal(tables["clip"], predict_folds(folder, splits, frames_folder=frames_folder),
                                      atol=2e-6, rtol=0)
        assert (tables["clip"][CLASSES] - tables["video"][CLASSES]).abs().to_numpy().max() > 1e-5
    fixed = predict_levels(predicted[0], splits, frames_folder=frames_folder, windows=3)["video"]
    pd.testing.assert_frame_equal(tables["video"], fixed, atol=2e-6, rtol=0, obj="spread windows are never drawn")


def test_a_change_of_frames_reaches_the_model(predicted, splits, frames_folder):
    folder, table = predicted
    dark = predict_folds(folder, splits, frames_folder=frames_folder, change=lambda frames, *_: frames // 4)
    assert (dark[CLASSES] - table[CLASSES]).abs().to_numpy().max() > 1e-4
    same = predict_folds(folder, splits, frames_folder=frames_folder, change=lambda frames, *_: frames)
    pd.testing.assert_frame_equal(same, table)


def test_random_windows_are_drawn_by_the_seed_of_the_card(predicted, splits, frames_folder, tmp_path):
    tables = []
    for name, seed in (("one", 1), ("again", 1), ("other", 3)):
        save_models(tmp_path / name, test_window="random", window_seed=seed)
        tables.append(predict_folds(tmp_path / name, splits, frames_folder=frames_folder))
    pd.testing.assert_frame_equal(tables[0], tables[1], check_exact=True)
    assert not tables[0].equals(tables[2]) and not tables[0].equals(predicted[1])


def keep_features(folder, splits, index, frames_folder, **options):
    """Untrained models for two folds that share a frozen backbone, and the file of its features."""
    name = options.pop("name")
    recipe = Recipe(architecture=name, size=32, window=8, epochs=1, batch_size=1, learning_rate=1, betas=[0, 0],
                    gamma=1, weight_decay=0, options=options, mean=[0.0] * 3, std=[1.0] * 3, precision="32-true")
    torch.manual_seed(0)
    model = build_model(**make_card(1, name=name, **options)["architecture"])
    for fold in (1, 2):
        save_model(folder / f"fold_{fold}", model, make_card(fold, name=name, **options))
    return prepare_features(recipe, take_clips(splits, index), CLASSES, frames_folder, folder)


def test_cached_features_are_answered_as_the_frames_are(splits, index, frames_folder, tmp_path):
    file = keep_features(tmp_path, splits, index, frames_folder, name="cnn_lstm_custom", freeze=True, lstm_width=8)
    table, from_features = (predict_folds(tmp_path, splits, frames_folder=frames_folder, features=features)
                            for features in (None, file))
    pd.testing.assert_frame_equal(from_features, table, atol=1e-4, rtol=0)
    assert table[CLASSES].std().max() > 1e-3, "clips are answered differently"


def test_streams_answer_alone_and_together_by_their_mean(splits, index, frames_folder, tmp_path):
    file = keep_features(tmp_path, splits, index, frames_folder, name="three_stream", backbone="custom", lstm_width=8)
    fused, *alone = [predict_folds(tmp_path, splits, frames_folder=frames_folder, features=file, stream=stream)[CLASSES]
                     .to_numpy() for stream in (None, 0, 1, 2)]
    np.testing.assert_allclose(fused, np.mean(alone, axis=0), atol=3e-6)
    assert all(np.abs(alone[one] - alone[two]).max() > 1e-3 for one in range(3) for two in range(one))


def test_baselines_know_how_often_a_class_is_and_what_a_mean_frame_shows(splits, frames_folder):
    tables = predict_baselines(splits, CLASSES, frames_folder)
    tested = splits[splits["subset"] == "testing"]
    for table in tables.values():
        assert table[["clip", "fold", "class"]].values.tolist() == tested[["clip", "fold", "class"]].values.tolist()
        assert table[CLASSES].sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-5)
    assert tables["class_prior"][CLASSES].to_numpy() == pytest.approx(1 / 3, abs=1e-6), "as many clips of each class"
    assert (tables["class_prior"]["predicted"] == A).all()
    assert score(tables["mean_frame"], CLASSES)["clip_top1"] == 1, "classes differ in brightness"
    few = splits[(splits["class"] != C) | (splits["subset"] == "testing")]
    assert (predict_baselines(few, CLASSES, frames_folder)["mean_frame"][C] == 0).all(), "a class that none learned"
