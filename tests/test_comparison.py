"""What the papers' tables share: by hand on few clips, and from the committed predictions."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import CLASSES, ROOT
from hypothesis import given
from hypothesis import strategies as st

from health_actions.learning import comparison
from health_actions.learning.comparison import (
    add_difference,
    choose_best,
    compare_pair,
    compare_pairs,
    correct_holm,
    permute_signs,
)
from health_actions.learning.scores import wilson_interval

A, B, C = CLASSES


def make_predictions(predicted: str) -> pd.DataFrame:
    """Predictions of five clips, of as many performers, that show A A A B C: a letter a clip."""
    table = pd.DataFrame({"clip": list("vwxyz"), "recording": range(5), "class": [A, A, A, B, C],
                          "predicted": [dict(zip("ABC", CLASSES, strict=True))[letter] for letter in predicted]})
    return table.assign(**{name: (table["predicted"] == name) * 0.6 + 0.2 for name in CLASSES})


def test_a_published_number_differs_where_the_errors_of_both_do_not_explain_it():
    table = pd.DataFrame({"published": [0.5, 0.9, 0.1, np.nan, 0.5], "reproduced": 0.4, "low": [0.3] * 4 + [np.nan],
                          "high": 0.6, "clips": 5})
    found = add_difference(table, 40)
    assert list(found) == ["published", "reproduced", "low", "high", "difference", "difference_low", "difference_high",
                           "published_is", "clips"]
    assert found["published_is"].tolist() == ["near", "above", "below", "", ""]
    assert found["difference"].tolist()[:3] == pytest.approx([-0.1, -0.5, 0.3]) and np.isnan(found["difference"][3])
    assert "difference" not in table
    edge = table.head(1).assign(published=0.62)  # outside the reproduced interval
    assert add_difference(edge)["published_is"].item() == "above", "a number that is taken as exact"
    assert add_difference(edge, [40])["published_is"].item() == "near", "its own error reaches so far"
    # Newcombe (1998), method 10, his example (a): 56 of 70 against 48 of 80 differ by 0.0524 to 0.3339.
    low, high = wilson_interval(56, 70)
    example = pd.DataFrame({"published": [48 / 80], "reproduced": 56 / 70, "low": low, "high": high})
    assert add_difference(example, 80).filter(like="difference_").values.tolist() == [[0.052, 0.334]]


def test_a_run_has_its_accuracy_and_the_mean_of_what_chose_its_epochs():
    result = SimpleNamespace(predictions=make_predictions("ABBBB"), chosen=pd.DataFrame({"clip_top1": [0.5, 1.0]}))
    whole = SimpleNamespace(predictions=make_predictions("AAABC"), chosen=result.chosen.head(1))
    table = comparison.compare_runs({"one": result, "other": whole}, CLASSES)
    assert table.drop(columns=["low", "high"]).values.tolist() == [["one", 0.75, 0.4, 5, 5], ["other", 0.5, 1.0, 5, 5]]
    assert table.loc[0, ["low", "high"]].tolist() == pytest.approx(wilson_interval(2, 5))
    assert list(comparison.compare_runs({}, CLASSES)) == list(table)


@given(st.integers(0, 5), st.integers(0, 6), st.integers(0, 6), st.integers(1, 5))
def test_clips_of_as_many_performers_give_the_binomial_p(both, only_first, only_second, neither):
    right = [(True, True)] * both + [(True, False)] * only_first + [(False, True)] * only_second
    right += [(False, False)] * neither
    clips = pd.DataFrame({"clip": range(len(right)), "recording": range(len(right)), "class": A})
    first, second = (clips.assign(predicted=[A if pair[model] else B for pair in right]) for model in (0, 1))
    differing, least = only_first + only_second, min(only_first, only_second)
    tail = sum(math.comb(differing, number) for number in range(least + 1)) / 2 ** differing
    found = compare_pair(first, second[::-1])
    assert found == {"clips": len(right), "performers": len(right), "both": both, "only_first": only_first,
                     "only_second": only_second, "neither": neither,
                     "difference": pytest.approx((only_first - only_second) / len(right)),
                     "p": pytest.approx(min(1, 2 * tail))}
    assert compare_pair(first.head(1), second)["clips"] == 1, "those that both were tested on"


def test_many_clips_of_few_performers_show_no_difference():
    clips = pd.DataFrame({"clip": range(80), "recording": np.repeat(range(4), 20), "class": A, "predicted": A})
    found = compare_pair(clips, clips.assign(predicted=B))
    assert found["difference"] == 1 and found["p"] == 2 / 2 ** 4, "of four signs, two patterns of 16 are as extreme"
    assert permute_signs(np.ones(40)) == 1 / 10_001 and permute_signs([]) == permute_signs([0, 0]) == 1
    pairs = compare_pairs({"one": clips, "two": clips.assign(predicted=B)}, [("one", "two"), ("one", "one")])
    assert pairs["p"].tolist() == [0.25, 1] and (pairs["tests"] == 2).all()
    assert compare_pairs({}, []).empty


def test_several_p_values_are_corrected_as_in_holms_example():
    assert correct_holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert correct_holm([0.9, 0.6]).tolist() == [1, 1] and correct_holm([]).tolist() == []


def test_the_best_model_is_a_pretrained_one_if_there_is_any(tmp_path):
    starts = pd.DataFrame({"model": ["c3d", "small", "small"], "start": ["scratch", "scratch", "pretrained"],
                           "validation": [0.9, 0.75, 0.6], "clip_top1": [0.0, 1.0, 0.5]})
    file = tmp_path / "evaluation" / "best.json"
    assert choose_best(starts, file)[["model", "start"]].tolist() == ["small", "pretrained"]
    assert json.loads(file.read_text()) == {"model": "small/pretrained", "validation": 0.6}
    assert choose_best(starts.head(2), file)["model"] == "c3d", "test clips have no say"
    assert choose_best(starts.head(2).assign(validation=0.5), file)["model"] == "c3d", "the first of equals"
    table_1 = pd.DataFrame({"architecture": ["a", "b"], "validation": [0.2, 0.6], "reproduced": [0.9, 0.1]})
    assert choose_best(table_1, file)["architecture"] == "b" == json.loads(file.read_text())["model"]
    with pytest.raises(ValueError, match="at least one trained model"):
        choose_best(starts.head(0), file)


@pytest.mark.parametrize("folder, table, top1", [("handwash/04_handwash_evaluation", "table_1", "reproduced"),
                                                 ("ntu/17_ntu_evaluation", "figure_16", "clip_top1")])
def test_the_committed_predictions_give_the_numbers_of_the_tables(folder, table, top1):
    folder = ROOT / "reports" / folder
    if not (folder / f"{table}.csv").is_file():
        pytest.skip(f"no committed {table}.csv")
    rows = pd.read_csv(folder / f"{table}.csv").dropna(subset="validation")  # baselines have none
    for row in rows.to_dict("records"):
        name = row["architecture"] if "architecture" in row else f"{row['model']}_{row['start']}"
        predictions = pd.read_csv(folder / f"predictions_{name}.csv")
        cards = [{"clip": {"size": row["pixels"], "window": 8}, "training": {"epochs": row["epochs"]},
                  "scores": {"validation_clip_top1": row["validation"] + step,
                             "training_clip_top1": row["training"] - step}} for step in (-0.1, 0.1)]
        classes = list(predictions)[list(predictions).index("predicted") + 1:]
        found = comparison.summarise(predictions, cards, classes)
        found[top1] = found.pop("clip_top1")
        assert found.pop("frames") == 8 and {"low", "high", "performers"} <= set(row)
        shared = found.keys() & row.keys()  # Table 1 has no interval of top-2
        assert {name: np.round(found[name], 3) for name in shared} == {name: row[name] for name in shared}
