"""The papers' tables: by hand on few clips, and from the committed predictions."""

import io
import json
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import CLASSES, ROOT
from hypothesis import given
from hypothesis import strategies as st

from health_actions.learning import comparison
from health_actions.learning.comparison import add_difference, add_gains, choose_best, compare_pair, compare_starts
from health_actions.learning.scores import wilson_interval

A, B, C = CLASSES


def make_predictions(predicted: str) -> pd.DataFrame:
    """Predictions of five clips that show A A A B C: a letter a clip."""
    table = pd.DataFrame({"clip": list("vwxyz"), "class": [A, A, A, B, C],
                          "predicted": [dict(zip("ABC", CLASSES, strict=True))[letter] for letter in predicted]})
    return table.assign(**{name: (table["predicted"] == name) * 0.6 + 0.2 for name in CLASSES})


def make_card(validation, weights=None, frozen=False, size=32, window=8, epochs=4) -> dict:
    return {"clip": {"size": size, "window": window}, "scores": {"validation_clip_top1": validation},
            "training": {"weights": weights, "frozen_backbone": frozen, "epochs": epochs}}


SOME, RIGHT = make_predictions("ABBBB"), make_predictions("AAABC")


def test_a_published_number_lies_inside_above_or_below_the_interval():
    table = pd.DataFrame({"published": [0.5, 0.9, 0.1, np.nan, 0.5], "reproduced": 0.4, "low": [0.3] * 4 + [np.nan],
                          "high": 0.6, "clips": 5})
    found = add_difference(table)
    assert list(found) == ["published", "reproduced", "low", "high", "difference", "published_is", "clips"]
    assert found["published_is"].tolist() == ["inside", "above", "below", "", ""]
    assert found["difference"].tolist()[:3] == pytest.approx([-0.1, -0.5, 0.3]) and np.isnan(found["difference"][3])
    assert "difference" not in table


def test_a_run_has_its_accuracy_and_the_mean_of_what_chose_its_epochs():
    result = SimpleNamespace(predictions=SOME, chosen=pd.DataFrame({"fold": [1, 2], "clip_top1": [0.5, 1.0]}))
    whole = SimpleNamespace(predictions=RIGHT, chosen=result.chosen.head(1))
    table = comparison.compare_runs({"one": result, "other": whole}, CLASSES)
    assert table.drop(columns=["low", "high"]).values.tolist() == [["one", 0.75, 0.4, 5], ["other", 0.5, 1.0, 5]]
    assert table.loc[0, ["low", "high"]].tolist() == pytest.approx(wilson_interval(2, 5))
    assert list(comparison.compare_runs({}, CLASSES)) == list(table)


@given(st.integers(0, 5), st.integers(0, 20), st.integers(0, 20), st.integers(1, 5))
def test_a_pairs_p_is_that_of_the_clips_that_differ(both, only_first, only_second, neither):
    right = [(True, True)] * both + [(True, False)] * only_first + [(False, True)] * only_second
    right += [(False, False)] * neither
    clips = pd.DataFrame({"clip": range(len(right)), "class": A})
    first, second = (clips.assign(predicted=[A if pair[model] else B for pair in right]) for model in (0, 1))
    differing, least = only_first + only_second, min(only_first, only_second)
    tail = sum(math.comb(differing, number) for number in range(least + 1)) / 2 ** differing
    found = compare_pair(first, second[::-1])
    assert found == {"clips": len(right), "both": both, "only_first": only_first, "only_second": only_second,
                     "neither": neither, "p": pytest.approx(min(1, 2 * tail))}
    assert compare_pair(first.head(1), second)["clips"] == 1, "those that both were tested on"


@pytest.fixture
def clip_level():
    """c3d was never pretrained."""
    return {("c3d", "scratch"): RIGHT, ("small", "scratch"): SOME, ("small", "pretrained"): RIGHT}


@pytest.fixture
def starts(clip_level):
    cards = {("c3d", "scratch"): [make_card(0.9)], ("small", "scratch"): [make_card(0.5), make_card(1.0)],
             ("small", "pretrained"): [make_card(0.6)]}
    return compare_starts(clip_level, clip_level | {("small", "scratch"): RIGHT}, cards, CLASSES)


def test_each_model_and_start_has_a_row_and_the_gain_stands_in_the_pretrained_one(starts, clip_level):
    row = starts.loc[1]
    assert row[["model", "start", "pixels", "frames", "epochs", "validation", "clips"]].tolist() == [
        "small", "scratch", 32, 8, 4, 0.75, 5]
    assert row[["clip_top1", "low", "high"]].tolist() == pytest.approx([0.4, *wilson_interval(2, 5)])
    assert row[["video_top1", "video_low", "video_high"]].tolist() == pytest.approx([1, *wilson_interval(5, 5)])
    table = add_gains(starts, clip_level, {"small": 0.3, "c3d": 0.1})
    assert table["gain"].tolist() == pytest.approx([np.nan, np.nan, 0.6], nan_ok=True)
    assert table["published_gain"].tolist() == pytest.approx([np.nan, np.nan, 0.3], nan_ok=True)
    assert table.loc[2, "gain_p"] == pytest.approx(2 / 2 ** 3)  # 3 clips differ, all of them the pretrained one's
    alone = add_gains(starts.tail(1), clip_level, {})
    assert alone[["gain", "gain_p", "published_gain"]].isna().all(axis=None) and len(alone) == 1


def test_the_best_model_is_a_pretrained_one_if_there_is_any(starts, tmp_path):
    file = tmp_path / "evaluation" / "best.json"
    assert choose_best(starts, file)[["model", "start"]].tolist() == ["small", "pretrained"]
    assert json.loads(file.read_text()) == {"model": "small/pretrained", "validation": 0.6}
    scratch = starts[starts["start"] == "scratch"].assign(clip_top1=[0.0, 1.0])
    assert choose_best(scratch, file)["model"] == "c3d", "test clips have no say"
    assert choose_best(scratch.assign(validation=0.5), file)["model"] == "c3d", "the first of equals"
    table_1 = pd.DataFrame({"architecture": ["a", "b"], "validation": [0.2, 0.6], "reproduced": [0.9, 0.1]})
    assert choose_best(table_1, file)["architecture"] == "b" == json.loads(file.read_text())["model"]
    with pytest.raises(ValueError, match="at least one trained model"):
        choose_best(starts.head(0), file)


def test_missed_alerts_are_counted_by_hand():
    table = comparison.compare_alerts({("small", "scratch"): SOME}, CLASSES, [A, "none such", C])
    assert table[["action", "clips", "missed", "called"]].values.tolist() == [[A, 3, 2, 1], [C, 1, 1, 0]]
    assert table.loc[0, ["recall", "recall_low", "precision"]].tolist() == pytest.approx(
        [1 / 3, wilson_interval(1, 3)[0], 1])
    assert table.loc[1, "recall"] == 0 and np.isnan(table.loc[1, "precision"])
    assert "missed" in comparison.compare_alerts({}, CLASSES, [A])


def test_what_was_trained_is_listed_in_the_order_of_names(tmp_path):
    for folder in ("b/scratch/fold_1", "a/pretrained/fold_1", "a/scratch/fold_2", "c/scratch/fold_1"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "card.json").touch()
    (tmp_path / "b/pretrained").mkdir()
    assert comparison.list_trained(tmp_path, ["b", "a", "d"]) == [
        ("b", "scratch"), ("a", "scratch"), ("a", "pretrained")]
    with pytest.raises(FileNotFoundError, match="no trained fold of d in"):
        comparison.list_trained(tmp_path, ["d"])


def read(study: str, name: str) -> pd.DataFrame:
    """A committed table; skips where there is none."""
    found = [file for file in sorted((ROOT / "reports").rglob(f"{name}.csv")) if study in file.as_posix()]
    return pd.read_csv(found[0]) if found else pytest.skip(f"no committed {name}.csv of {study}")


def check_table(found: pd.DataFrame, study: str, name: str) -> None:
    found = pd.read_csv(io.StringIO(found.round(3).to_csv(index=False)))
    pd.testing.assert_frame_equal(found, read(study, name), check_exact=True)


def test_the_committed_predictions_of_study_a_give_its_table_1():
    table, cards = read("handwash", "table_1"), {}
    predictions = {name: read("handwash", f"predictions_{name}") for name in table["architecture"]}
    for row in table.itertuples():
        weights, frozen = row.weights.split(", ")
        cards[row.architecture] = [make_card(row.validation, None if weights == "random" else weights,
                                             frozen == "frozen", row.pixels, epochs=row.epochs)]
    paper = yaml.safe_load((ROOT / "published" / "handwash.yaml").read_text())["table_1"]
    classes = list(predictions["convlstm"].columns[4:])
    found = comparison.compare_architectures(predictions, cards, paper, classes).round(3)
    check_table(add_difference(found), "handwash", "table_1")


def test_the_committed_predictions_of_study_b_give_its_tables():
    table = read("ntu", "figure_16")
    clip_level, video_level = ({(row.model, row.start): read("ntu", f"predictions_{row.model}_{row.start}{end}")
                                for row in table.itertuples()} for end in ("", "_video"))
    cards = {(row.model, row.start): [make_card(row.validation, size=row.pixels, window=row.frames, epochs=row.epochs)]
             for row in table.itertuples()}
    paper = yaml.safe_load((ROOT / "published" / "ntu_2022.yaml").read_text())
    classes = list(next(iter(clip_level.values())).columns[4:])
    starts = compare_starts(clip_level, video_level, cards, classes)
    check_table(add_gains(starts, clip_level, paper["pretraining_gain"]), "ntu", "figure_16")
    top_k = comparison.compare_top_k(starts, paper["table_3_top1_top2"]).round(3)
    check_table(add_difference(top_k, published="published_top1", reproduced="clip_top1"), "ntu", "table_3")
    check_table(comparison.compare_alerts(clip_level, classes, ["falling_down", "staggering"]), "ntu", "alerts")
    start = comparison.prefer_pretrained(starts).set_index("model")["start"]["resnet101"]
    by_class = comparison.compare_classes(clip_level["resnet101", start], classes, paper["per_class"]["table_4"])
    check_table(add_difference(by_class.round(3), published="published_recall", reproduced="recall", low="recall_low",
                               high="recall_high"), "ntu", "table_4")
