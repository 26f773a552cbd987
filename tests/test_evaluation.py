import json
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import CLASSES
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from health_actions.data.transforms import build_input_transform
from health_actions.learning.comparison import (
    add_gains,
    choose_architecture,
    choose_model,
    compare_alerts,
    compare_architectures,
    compare_classes,
    compare_pair,
    compare_runs,
    compare_starts,
    compare_top_k,
    count_missed,
    list_trained,
    prefer_pretrained,
)
from health_actions.learning.datasets import FrameDataset, cache_features, take_clips
from health_actions.learning.evaluation import (
    count_confusions,
    give_interval,
    list_mix_ups,
    predict_clips,
    predict_folds,
    read_cards,
    score,
    score_classes,
)
from health_actions.models import build_model
from health_actions.models.folder import load_model, save_model
from health_actions.models.structure import count_operations, measure_latency

A, B, C = CLASSES


def make_predictions(rows, classes=CLASSES) -> pd.DataFrame:
    """A table of predictions from (class, probability of each class)."""
    table = pd.DataFrame([probabilities for _, probabilities in rows], columns=classes)
    table.insert(0, "class", [label for label, _ in rows])
    table.insert(1, "predicted", table[classes].idxmax(axis=1))
    return table


BY_HAND = make_predictions([(A, [0.7, 0.2, 0.1]), (A, [0.4, 0.5, 0.1]), (A, [0.1, 0.6, 0.3]), (B, [0.3, 0.6, 0.1]),
                            (C, [0.3, 0.5, 0.2])])


def test_accuracy_is_that_computed_by_hand():
    result = score(BY_HAND, CLASSES)
    assert result["clips"] == 5 and result["clip_top1"] == 2 / 5 and result["clip_top2"] == 3 / 5
    assert (result["clip_top1_low"], result["clip_top1_high"]) == pytest.approx((0.1176, 0.7693), abs=1e-4)  # Wilson


def test_two_classes_are_enough():
    classes = ["fall", "other"]
    result = score(make_predictions([("fall", [0.9, 0.1]), ("other", [0.6, 0.4])], classes), classes)
    assert (result["clip_top1"], result["clip_top2"]) == (0.5, 1.0)


def test_classes_that_were_never_tested_do_not_matter():
    classes = [*CLASSES, "step_3"]
    result = score(BY_HAND.assign(step_3=0.0), classes)
    assert (result["clip_top1"], result["clip_top2"]) == (2 / 5, 3 / 5)


def test_each_class_has_precision_and_recall_computed_by_hand():
    by_class = score_classes(BY_HAND, [*CLASSES, "step_3"]).set_index("class")
    assert by_class["clips"].tolist() == [3, 1, 1, 0]
    assert by_class["precision"].tolist() == pytest.approx([1, 1 / 4, 0, 0])
    assert by_class["recall"].tolist() == pytest.approx([1 / 3, 1, 0, 0])
    assert by_class["f1"].tolist() == pytest.approx([1 / 2, 2 / 5, 0, 0])
    tested = by_class[by_class["clips"] > 0]
    assert ((tested["recall_low"] <= tested["recall"]) & (tested["recall"] <= tested["recall_high"])).all()
    assert by_class.loc["step_3", ["recall_low", "recall_high"]].isna().all()


@given(st.integers(1, 500).flatmap(lambda count: st.tuples(st.integers(0, count), st.just(count))))
def test_an_interval_holds_its_share_and_lies_between_0_and_1(numbers):
    correct, count = numbers
    low, high = give_interval(correct, count)
    assert 0 <= low <= correct / count + 1e-12 and correct / count - 1e-12 <= high <= 1 and low < high
    turned = give_interval(count - correct, count)
    assert (1 - high, 1 - low) == pytest.approx(turned)


def test_no_clips_have_no_interval():
    assert np.isnan(give_interval(0, 0)).all()


def test_rows_are_predicted_and_columns_actual_classes():
    counts = count_confusions(BY_HAND, CLASSES)
    assert (counts.index.name, counts.columns.name) == ("predicted", "actual")
    assert counts.loc[B, A] == 2 and counts.loc[A, B] == 0 and counts.loc[B, C] == 1
    assert counts.sum().tolist() == [3, 1, 1] and counts.sum(axis=1).tolist() == [1, 4, 0]


def test_the_most_frequent_mix_up_comes_first():
    mix_ups = list_mix_ups(count_confusions(BY_HAND, CLASSES))
    assert mix_ups[["actual", "predicted", "clips"]].values.tolist() == [[A, B, 2], [C, B, 1]]
    from_file = count_confusions(BY_HAND, CLASSES).rename_axis(None, axis=1)
    assert list_mix_ups(from_file).equals(mix_ups)
    assert list_mix_ups(count_confusions(BY_HAND.assign(predicted=BY_HAND["class"]), CLASSES)).empty


def make_card(fold, validation, colour="rgb", test_window="centre", window_seed=0, **architecture) -> dict:
    name = architecture.get("name", "convlstm")
    return {"architecture": {"name": name, "num_classes": 3, "frames": 8, "size": 32, **architecture},
            "classes": CLASSES, "preprocessing": {"mean": [0.0] * 3, "std": [1.0] * 3, "colour": colour},
            "clip": {"size": 32, "window": 8, "test_window": test_window},
            "training": {"architecture": name, "precision": "32-true", "weights": None, "frozen_backbone": False,
                         "epochs": 4, "fold": fold, "window_seed": window_seed},
            "data": {}, "scores": {"validation_clip_top1": validation}}


def test_cards_come_in_the_order_of_the_folds(tmp_path):
    for fold in (10, 2, 1):
        (tmp_path / f"fold_{fold}").mkdir()
        (tmp_path / f"fold_{fold}" / "card.json").write_text(json.dumps(make_card(fold, 0.5)))
    assert [card["training"]["fold"] for card in read_cards(tmp_path)] == [1, 2, 10]


def test_table_1_has_a_row_an_architecture():
    cards = {"convlstm": [make_card(1, 0.5), make_card(2, 1.0)], "other": [make_card(1, 0.2)]}
    table = compare_architectures(dict.fromkeys(cards, BY_HAND), cards, {"convlstm": 0.9}, CLASSES).set_index(
        "architecture")
    assert table.loc["convlstm", ["published", "reproduced", "clips", "validation"]].tolist() == [0.9, 0.4, 5, 0.75]
    assert table["weights"].tolist() == ["random, trained"] * 2 and np.isnan(table.loc["other", "published"])


def test_a_run_has_its_accuracy_and_the_mean_of_what_chose_its_epochs():
    result = SimpleNamespace(predictions=BY_HAND, chosen=pd.DataFrame({"fold": [1, 2], "clip_top1": [0.5, 1.0]}))
    whole = SimpleNamespace(predictions=BY_HAND.assign(predicted=BY_HAND["class"]), chosen=result.chosen.head(1))
    table = compare_runs({"one": result, "other": whole}, CLASSES)
    assert list(table) == ["run", "validation", "reproduced", "low", "high", "clips"]
    assert table.drop(columns=["low", "high"]).values.tolist() == [["one", 0.75, 0.4, 5], ["other", 0.5, 1.0, 5]]
    assert table.loc[0, ["low", "high"]].tolist() == pytest.approx(give_interval(2, 5))


def make_pair(both, only_first, only_second, neither) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two models' predictions of the same clips, of which so many are right; the second in another order."""
    right = [(True, True)] * both + [(True, False)] * only_first + [(False, True)] * only_second
    right += [(False, False)] * neither
    clips = pd.DataFrame({"clip": [f"c{number:02d}" for number in range(len(right))], "class": A})
    first, second = (clips.assign(predicted=[A if pair[model] else B for pair in right]) for model in (0, 1))
    return first, second[::-1]


def test_a_pair_is_compared_as_by_hand():
    # 7 clips differ; at most 1 of them is the first model's: 2 * (1 + 7) / 2 ** 7
    assert compare_pair(*make_pair(3, 1, 6, 2)) == {
        "clips": 12, "both": 3, "only_first": 1, "only_second": 6, "neither": 2, "p": pytest.approx(0.125)}


@given(st.integers(0, 5), st.integers(0, 20), st.integers(0, 20), st.integers(1, 5))
def test_a_pairs_p_is_that_of_the_clips_that_differ(both, only_first, only_second, neither):
    differing, least = only_first + only_second, min(only_first, only_second)
    tail = sum(math.comb(differing, number) for number in range(least + 1)) / 2 ** differing
    found = compare_pair(*make_pair(both, only_first, only_second, neither))
    assert found["p"] == pytest.approx(min(1, 2 * tail))
    assert compare_pair(*make_pair(both, only_second, only_first, neither))["p"] == pytest.approx(found["p"])


def test_a_pair_is_compared_on_the_clips_that_both_were_tested_on():
    first, second = make_pair(3, 2, 2, 2)
    assert compare_pair(first.head(4), second)["clips"] == 4


def test_operations_are_the_multiply_adds_of_convolutions_and_linear_layers():
    convolution, linear = nn.Conv3d(3, 4, 3, padding=1, bias=False), nn.Linear(4 * 2 * 5 * 5, 7)
    convolved = 4 * 2 * 5 * 5 * 3 * 27  # values of the output, each a sum over 3 channels x 27 places
    assert count_operations(convolution, frames=2, size=5) == convolved
    assert count_operations(nn.Sequential(convolution, nn.Flatten(), linear), frames=2, size=5) == convolved + 200 * 7


def save_models(folder, **card) -> None:
    """An untrained model for each of two folds."""
    for fold in (1, 2):
        torch.manual_seed(fold)
        made = make_card(fold, 0.5, **card)
        save_model(folder / f"fold_{fold}", build_model(**made["architecture"]), made)


@pytest.fixture(scope="module")
def predicted(splits, frames_folder, tmp_path_factory):
    """Predictions of two untrained models for the test clips of their folds."""
    folder = tmp_path_factory.mktemp("models") / "convlstm"
    save_models(folder)
    return folder, predict_folds(folder, splits, frames_folder=frames_folder)


def test_every_test_clip_is_predicted_once_by_its_fold(predicted, splits):
    table = predicted[1]
    tested = splits[splits["subset"] == "testing"]
    columns = ["clip", "fold", "class"]
    assert sorted(table[columns].values.tolist()) == sorted(tested[columns].values.tolist())
    assert table["clip"].is_unique and list(table) == [*columns, "predicted", *CLASSES]


def test_probabilities_sum_to_one_and_the_largest_is_predicted(predicted):
    table = predicted[1]
    assert table[CLASSES].sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-5)
    assert (table["predicted"] == table[CLASSES].idxmax(axis=1)).all()


def test_predictions_do_not_depend_on_the_batch_size(predicted, splits, frames_folder):
    folder, table = predicted
    model, card = load_model(folder / "fold_2")
    clips = splits[(splits["subset"] == "testing") & (splits["fold"] == 2)]
    again = predict_clips(model, card, clips, frames_folder=frames_folder, batch_size=3)
    pd.testing.assert_frame_equal(again, table[table["fold"] == 2].reset_index(drop=True), atol=1e-5, rtol=0)


def test_a_fold_that_was_not_trained_is_left_out(splits, frames_folder, tmp_path):
    save_models(tmp_path)
    (tmp_path / "fold_1").rename(tmp_path / "fold_7")
    assert set(predict_folds(tmp_path, splits, frames_folder=frames_folder)["fold"]) == {2}


def test_a_folder_without_a_trained_fold_is_told(splits, frames_folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="no trained fold in .*: train the model first"):
        predict_folds(tmp_path, splits, frames_folder=frames_folder)


def test_a_model_for_bgr_is_shown_bgr(predicted, splits, frames_folder, tmp_path):
    save_models(tmp_path, colour="bgr")
    table = predict_folds(tmp_path, splits, frames_folder=frames_folder)
    model, _ = load_model(tmp_path / "fold_1")
    dataset = FrameDataset(frames_folder, splits[(splits["subset"] == "testing") & (splits["fold"] == 1)], CLASSES,
                           size=32, window=8, input_transform=build_input_transform([0.0] * 3, [1.0] * 3))
    with torch.inference_mode():
        expected = model(torch.stack([clip.flip(0) for clip, _ in map(dataset.__getitem__, range(len(dataset)))]))
    np.testing.assert_allclose(table.loc[table["fold"] == 1, CLASSES], expected.softmax(1), atol=2e-6)
    assert (table[CLASSES] - predicted[1][CLASSES]).abs().to_numpy().max() > 1e-4


def test_random_windows_are_drawn_anew_for_each_seed_and_the_same_for_one(predicted, splits, frames_folder, tmp_path):
    tables = []
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        save_models(tmp_path / name, test_window="random", window_seed=seed)
        tables.append(predict_folds(tmp_path / name, splits, frames_folder=frames_folder))
    pd.testing.assert_frame_equal(tables[0], tables[1], check_exact=True)
    assert not tables[0].equals(tables[2]) and not tables[0].equals(predicted[1])


def keep_features(folder, splits, index, frames_folder, **architecture):
    """Untrained models for two folds that share a frozen backbone, and the file of its features."""
    torch.manual_seed(0)
    card = make_card(1, 0.5, **architecture)
    model = build_model(**card["architecture"])
    for fold in (1, 2):
        save_model(folder / f"fold_{fold}", model, make_card(fold, 0.5, **card["architecture"]))
    return cache_features(model, frames_folder, take_clips(splits, index), folder, size=32, key="",
                          input_transform=build_input_transform([0.0] * 3, [1.0] * 3), precision="32-true")


def test_kept_features_are_answered_as_the_frames_are(splits, index, frames_folder, tmp_path):
    features = keep_features(tmp_path, splits, index, frames_folder, name="cnn_lstm_custom", freeze=True, lstm_width=8)
    table, from_features = (predict_folds(tmp_path, splits, frames_folder=frames_folder, features=file)
                            for file in (None, features))
    pd.testing.assert_frame_equal(from_features, table, atol=1e-4, rtol=0)
    assert table[CLASSES].std().max() > 1e-3, "clips are answered differently"


@pytest.fixture(scope="module")
def streams(splits, index, frames_folder, tmp_path_factory):
    """Predictions of untrained models of three streams, and of each stream alone."""
    folder = tmp_path_factory.mktemp("three_stream")
    features = keep_features(folder, splits, index, frames_folder, name="three_stream", backbone="custom", lstm_width=8)
    return [predict_folds(folder, splits, frames_folder=frames_folder, features=features, stream=stream)
            for stream in (None, 0, 1, 2)]


def test_all_streams_together_answer_the_mean_of_each_alone(streams):
    fused, *alone = [table[CLASSES].to_numpy() for table in streams]
    np.testing.assert_allclose(fused, np.mean(alone, axis=0), atol=3e-6)


def test_each_stream_answers_in_its_own_way(streams):
    answers = [table[CLASSES].to_numpy() for table in streams]
    assert all(np.abs(answers[one] - answers[two]).max() > 1e-3 for one in range(4) for two in range(one))


def test_the_architecture_to_vary_is_the_best_by_validation_or_the_one_named():
    table_1 = pd.DataFrame({"architecture": ["a", "b", "c"], "validation": [0.2, 0.6, 0.4],
                            "reproduced": [0.9, 0.1, 0.3]})
    assert choose_architecture(table_1, "best") == "b"
    assert choose_architecture(table_1, "c") == "c"
    with pytest.raises(ValueError, match="base is 'd', but Table 1 has: best, a, b, c"):
        choose_architecture(table_1, "d")


NUMBERED = BY_HAND.assign(clip=list("abcde"))  # 2 of 5 right, 3 of 5 among the first two
RIGHT = make_predictions([(label, [0.8 if name == label else 0.1 for name in CLASSES]) for label in BY_HAND["class"]]
                         ).assign(clip=list("abcde"))


@pytest.fixture
def clip_level():
    """c3d was never pretrained."""
    return {("c3d", "scratch"): RIGHT, ("small", "scratch"): NUMBERED, ("small", "pretrained"): RIGHT}


@pytest.fixture
def starts(clip_level):
    video_level = clip_level | {("small", "scratch"): RIGHT}
    cards = {("c3d", "scratch"): [make_card(1, 0.9)], ("small", "scratch"): [make_card(1, 0.5), make_card(2, 1.0)],
             ("small", "pretrained"): [make_card(1, 0.6)]}
    return compare_starts(clip_level, video_level, cards, CLASSES)


def test_each_model_and_start_has_a_row_with_clips_and_videos_named_apart(starts):
    assert starts[["model", "start"]].values.tolist() == [
        ["c3d", "scratch"], ["small", "scratch"], ["small", "pretrained"]]
    row = starts.loc[1]
    assert row[["pixels", "frames", "epochs", "validation", "clips"]].tolist() == [32, 8, 4, 0.75, 5]
    assert row[["clip_top1", "clip_top2", "video_top1", "video_top2"]].tolist() == pytest.approx([0.4, 0.6, 1, 1])
    assert row[["low", "high"]].tolist() == pytest.approx(give_interval(2, 5))
    assert row[["clip_top2_low", "clip_top2_high"]].tolist() == pytest.approx(give_interval(3, 5))
    assert row[["video_low", "video_high"]].tolist() == pytest.approx(give_interval(5, 5))


def test_a_gain_stands_in_the_pretrained_row_of_what_was_trained_from_both_starts(starts, clip_level):
    table = add_gains(starts, clip_level, {"small": 0.3, "c3d": 0.1})
    assert table["gain"].tolist() == pytest.approx([np.nan, np.nan, 0.6], nan_ok=True)
    assert table["published_gain"].tolist() == pytest.approx([np.nan, np.nan, 0.3], nan_ok=True)
    assert table.loc[2, "gain_p"] == pytest.approx(2 / 2 ** 3)  # 3 clips differ, all of them the pretrained one's
    alone = add_gains(starts.tail(1), clip_level, {})
    assert alone[["gain", "gain_p", "published_gain"]].isna().all(axis=None) and len(alone) == 1


def test_the_best_model_is_a_pretrained_one_if_there_is_any(starts):
    assert choose_model(starts)[["model", "start"]].tolist() == ["small", "pretrained"]
    scratch = starts[starts["start"] == "scratch"]
    assert choose_model(scratch)["model"] == "c3d"
    assert choose_model(scratch.assign(validation=0.5))["model"] == "c3d", "the first of equals"
    assert choose_model(scratch.assign(clip_top1=[0.0, 1.0]))["model"] == "c3d", "test clips have no say"
    with pytest.raises(ValueError, match="no trained model"):
        choose_model(starts.head(0))


def test_table_3_has_a_row_a_model_pretrained_where_it_was(starts):
    assert prefer_pretrained(starts)[["model", "start"]].values.tolist() == [["c3d", "scratch"],
                                                                             ["small", "pretrained"]]
    table = compare_top_k(starts, {"c3d": {"top1": 0.5, "top2": 0.7}})
    assert table.loc[0, ["published_top1", "published_top2", "clip_top1"]].tolist() == [0.5, 0.7, 1]
    assert table.loc[1, ["published_top1", "published_top2"]].isna().all() and "validation" not in table


def test_actions_are_compared_in_the_order_of_the_classes():
    table = compare_classes(BY_HAND, CLASSES, {B: [0.7, 0.6, 0.5], "another": [1, 1, 1]})
    assert table["action"].tolist() == CLASSES and table["clips"].tolist() == [3, 1, 1]
    assert table.loc[1, ["published_precision", "published_recall", "published_f1"]].tolist() == [0.7, 0.6, 0.5]
    assert table.loc[1, ["precision", "recall", "f1"]].tolist() == pytest.approx([1 / 4, 1, 2 / 5])
    assert table.loc[[0, 2], "published_f1"].isna().all()


def test_missed_alerts_are_counted_by_hand():
    table = compare_alerts({("small", "scratch"): BY_HAND}, CLASSES, [A, "none such", C])
    assert table[["action", "clips", "missed", "called"]].values.tolist() == [[A, 3, 2, 1], [C, 1, 1, 0]]
    assert table.loc[0, ["recall", "precision"]].tolist() == pytest.approx([1 / 3, 1])
    assert table.loc[0, ["recall_low", "recall_high"]].tolist() == pytest.approx(give_interval(1, 3))
    assert table.loc[0, ["precision_low", "precision_high"]].tolist() == pytest.approx(give_interval(1, 1))
    assert table.loc[1, "recall"] == 0 and np.isnan(table.loc[1, "precision"])


def test_the_model_that_misses_fewest_comes_first(clip_level):
    missed = count_missed(compare_alerts(clip_level, CLASSES, [A, C]))
    assert missed.values.tolist() == [["c3d", "scratch", 4, 0], ["small", "pretrained", 4, 0],
                                      ["small", "scratch", 4, 3]]
    assert count_missed(compare_alerts(clip_level, CLASSES, ["none such"])).empty


def test_two_classes_and_one_start_are_enough_for_study_b():
    classes = ["fall", "adl"]
    table = make_predictions([("fall", [0.9, 0.1]), ("adl", [0.6, 0.4])], classes).assign(clip=["a", "b"])
    only = {("small", "scratch"): table}
    starts = compare_starts(only, only, {("small", "scratch"): [make_card(1, 0.5)]}, classes)
    assert starts.loc[0, ["clip_top1", "clip_top2", "clips"]].tolist() == [0.5, 1, 2]
    assert choose_model(add_gains(starts, only, {}))["model"] == "small"
    assert compare_alerts(only, classes, ["fall", "staggering"])["recall"].tolist() == [1]


def test_what_was_trained_is_listed_in_the_order_of_names(tmp_path):
    for folder in ("b/scratch/fold_1", "a/pretrained/fold_1", "a/scratch/fold_2", "c/scratch/fold_1"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "card.json").touch()
    (tmp_path / "b/pretrained").mkdir()
    assert list_trained(tmp_path, ["b", "a", "d"]) == [("b", "scratch"), ("a", "scratch"), ("a", "pretrained")]
    with pytest.raises(FileNotFoundError, match="no trained fold of d in"):
        list_trained(tmp_path, ["d"])


def test_latency_is_a_positive_time():
    assert measure_latency(nn.Conv3d(3, 2, 3), frames=4, size=8, runs=2) > 0
