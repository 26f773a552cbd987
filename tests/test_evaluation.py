import json

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import CLASSES
from hypothesis import given
from hypothesis import strategies as st

from health_actions.evaluation import (
    compare_architectures,
    count_confusions,
    give_interval,
    list_mix_ups,
    predict_folds,
    read_cards,
    score,
    score_classes,
)
from health_actions.models import build_model
from health_actions.models.folder import save_model

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


def make_card(fold, validation, precision="32-true") -> dict:
    return {"architecture": {"name": "convlstm", "num_classes": 3, "frames": 8, "size": 32}, "classes": CLASSES,
            "preprocessing": {"mean": [0.0] * 3, "std": [1.0] * 3}, "clip": {"size": 32, "window": 8},
            "training": {"precision": precision, "weights": None, "frozen_backbone": False, "epochs": 4, "fold": fold},
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


@pytest.fixture(scope="module")
def predicted(splits, frames_folder, tmp_path_factory):
    """Predictions of two untrained models for the test clips of their folds."""
    folder = tmp_path_factory.mktemp("models") / "convlstm"
    for fold in (1, 2):
        torch.manual_seed(fold)
        card = make_card(fold, 0.5)
        save_model(folder / f"fold_{fold}", build_model(**card["architecture"]), card)
    return folder, predict_folds(folder, splits, frames_folder=frames_folder, batch_size=3)


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
    again = predict_folds(folder, splits, frames_folder=frames_folder, batch_size=8)
    pd.testing.assert_frame_equal(again, table, atol=1e-5, rtol=0)
