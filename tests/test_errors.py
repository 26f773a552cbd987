"""The table and the page of the misclassified clips."""

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from conftest import CLASSES, make_clips

from health_actions.analysis.errors import (
    compare_mix_ups,
    describe_error,
    is_other_hand,
    list_errors,
    name_picture,
    summarise_errors,
    write_page,
)
from health_actions.learning.scores import count_confusions

A, B, C = CLASSES
CLIPS = make_clips([("one/a", A, "001", "G01"), ("one/b", A, "002", "G01"), ("two/a", B, "001", "G01"),
                    ("two/b", B, "001", "G02"), ("two/c", B, "002", "G01"), ("six/a", C, "001", "G02"),
                    ("six/b", C, "002", "G01")])


def make_predictions(rows) -> pd.DataFrame:
    """A table of predictions from (clip, probabilities)."""
    table = pd.DataFrame([probabilities for _, probabilities in rows], columns=CLASSES)
    table.insert(0, "clip", [clip for clip, _ in rows])
    table.insert(1, "fold", 1)
    table.insert(2, "class", table["clip"].map(CLIPS.set_index("clip")["class"]))
    table.insert(3, "predicted", table[CLASSES].idxmax(axis=1))
    return table


PREDICTIONS = make_predictions([("one/a", [0.3, 0.6, 0.1]), ("one/b", [0.9, 0.1, 0]), ("two/a", [0.1, 0.7, 0.2]),
                                ("two/b", [0, 1, 0]), ("two/c", [0, 0.1, 0.9]), ("six/a", [0.15, 0.8, 0.05])])
ERRORS = list_errors(PREDICTIONS, CLIPS)


@pytest.mark.parametrize("actual, predicted, expected", [
    ("step_2_left", "step_2_right", True), ("step_2_right", "step_2_left", True),
    ("step_2_left", "step_4_right", False),
    ("step_1", "step_3", False), ("step_1", "step_1", False), ("step_2_left", "step_2_left", False)])
def test_the_other_hand_is_known_by_its_name(actual, predicted, expected):
    assert is_other_hand(actual, predicted) is expected


def test_errors_are_listed_the_most_confident_first():
    assert ERRORS["clip"].tolist() == ["two/c", "six/a", "one/a"] and ERRORS["number"].tolist() == [1, 2, 3]
    assert ERRORS["probability"].tolist() == [0.9, 0.8, 0.6]
    assert ERRORS["probability_actual"].tolist() == [0.1, 0.05, 0.3]
    assert ERRORS["other_hand"].tolist() == [True, True, False]
    assert ERRORS["recording"].tolist() == ["002", "001", "001"]


def test_an_error_is_shown_beside_a_right_clip_of_its_scene():
    like = ERRORS.set_index("clip")
    assert like.loc["six/a", "like"] == "two/b"  # of the same scene, and the most certain one
    assert like.loc["one/a", "like"] == "two/a"  # of the same scene, although two/b is more certain
    assert like.loc["one/a", "like_probability"] == 0.7


def test_where_none_is_right_any_clip_of_the_class_is_shown():
    row = ERRORS.set_index("clip").loc["two/c"]
    assert row["like"] == "six/b" and np.isnan(row["like_probability"])  # a training clip of the same scene


def test_where_the_class_has_no_clip_none_is_shown():
    predictions = PREDICTIONS[PREDICTIONS["class"] != C]
    errors = list_errors(predictions, CLIPS[CLIPS["class"] != C]).set_index("clip")
    assert errors.loc["two/c", "predicted"] == C and errors.loc["two/c", "like"] == ""


def test_the_summary_counts():
    summary = summarise_errors(ERRORS, PREDICTIONS, CLIPS, CLASSES)
    assert "3 of 6 test clips (50.0%)" in summary and "other hand: 2 of these 3" in summary
    assert "second choice: 2 of 3" in summary
    assert "2 of 2 recordings, most of them in 001: 2 of its 4 clips" in summary


def test_no_errors_are_no_problem(tmp_path):
    right = PREDICTIONS[PREDICTIONS["class"] == PREDICTIONS["predicted"]].reset_index(drop=True)
    errors = list_errors(right, CLIPS)
    assert errors.empty and summarise_errors(errors, right, CLIPS, CLASSES) == "None of 3 test clips is misclassified."
    write_page(tmp_path / "errors.html", errors, right, CLASSES, architecture="convlstm", summary="None.", pictures=60,
               synthetic=0)
    page = (tmp_path / "errors.html").read_text()
    assert "<img" not in page and "synthetic" not in page


def test_mix_ups_of_the_paper_stand_beside_ours():
    confusions = count_confusions(PREDICTIONS, CLASSES)
    both = compare_mix_ups(confusions, [[5, 0, 0], [0, 4, 0], [0, 2, 3]])
    assert both.to_dict("split")["data"] == [[B, C, 2, 1], [A, B, 0, 1], [C, B, 0, 1]]
    alone = compare_mix_ups(confusions, None)
    assert alone["published"].isna().all() and alone["reproduced"].tolist() == [1, 1, 1]


def write(tmp_path, **options) -> str:
    errors = ERRORS.assign(share=0.3, area=0.2)
    options = {"architecture": "convlstm", "summary": "3 <of> 6", "pictures": 60, "synthetic": 6} | options
    write_page(tmp_path / "errors.html", errors, PREDICTIONS, CLASSES, **options)
    return (tmp_path / "errors.html").read_text()


def test_the_page_shows_every_error_and_loads_nothing_from_the_web(tmp_path):
    page = write(tmp_path)
    found = BeautifulSoup(page, "html.parser")
    assert sorted(image["src"] for image in found.select("img[alt]")) == sorted(
        f"errors/{name_picture(row.number, row.clip)}" for row in ERRORS.itertuples())
    assert "http" not in page and "<script" not in page and "3 &lt;of&gt; 6" in page
    links = [link["href"] for link in found.select("a")]
    assert "../../index.html" in links and all(found.find(id=link[1:]) for link in links if link.startswith("#"))
    # one/a comes first: it is of the first class
    assert [number.get_text() for number in found.select(".number")][:3] == ["0.300", "0.600", "0.100"]
    assert page == write(tmp_path)


def test_the_titles_of_a_picture_name_clip_and_classes():
    row = next(ERRORS.assign(share=0.3, area=0.2).itertuples())
    titles = describe_error(row)
    assert titles["clip"] == "two/c (G01): step_2_left (0.10), predicted as step_2_right (0.90)"
    assert titles["saliency"].endswith("the outlined moving region, 20% of the area, has 30% of it")
    assert titles["like"] == "six/b (G01): step_2_right, not correctly classified"
    assert describe_error(row._replace(like=""))["like"] == "no clip of step_2_right"


def test_the_page_says_how_many_errors_are_shown(tmp_path):
    page = write(tmp_path, pictures=1)
    assert page.count("<img") == 1 and "The 1 with the highest probability" in page and "all 3" in page


def test_the_page_says_how_many_clips_are_synthetic(tmp_path):
    assert "These are synthetic clips" in write(tmp_path, synthetic=6)
    assert "2 of the 6 test clips are synthetic" in write(tmp_path, synthetic=2)
    assert "synthetic" not in write(tmp_path, synthetic=0)
