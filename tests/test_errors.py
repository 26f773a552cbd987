"""The table of the misclassified clips, and the page that shows them."""

import jinja2
import numpy as np
import pandas as pd
import pytest
from conftest import CLASSES, make_clips

from health_actions.analysis.errors import is_other_hand, list_errors

A, B, C = CLASSES
CLIPS = make_clips([("one/a", A, "001", "G01"), ("one/b", A, "002", "G01"), ("two/a", B, "001", "G01"),
                    ("two/b", B, "001", "G02"), ("two/c", B, "002", "G01"), ("six/a", C, "001", "G02"),
                    ("six/b", C, "002", "G01")])
PREDICTIONS = pd.DataFrame([("one/a", 0.3, 0.6, 0.1), ("one/b", 0.9, 0.1, 0), ("two/a", 0.1, 0.7, 0.2),
                            ("two/b", 0, 1, 0), ("two/c", 0, 0.1, 0.9), ("six/a", 0.15, 0.8, 0.05)],
                           columns=["clip", *CLASSES]).assign(fold=1, recording=0)
PREDICTIONS["class"] = PREDICTIONS["clip"].map(CLIPS.set_index("clip")["class"])
PREDICTIONS["predicted"] = PREDICTIONS[CLASSES].idxmax(axis=1)
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
    assert list_errors(PREDICTIONS[PREDICTIONS["class"] == PREDICTIONS["predicted"]], CLIPS).empty


def test_an_error_is_shown_beside_a_clip_of_the_predicted_class():
    like = ERRORS.set_index("clip")["like"]
    assert like["six/a"] == "two/b"  # of the same scene, and the most certain one
    assert like["one/a"] == "two/a"  # of the same scene, although two/b is more certain
    assert like["two/c"] == "six/b"  # none is correctly classified: a training clip of the same scene
    certainty = ERRORS.set_index("clip")["like_probability"]
    assert certainty["one/a"] == 0.7 and np.isnan(certainty["two/c"])


@pytest.mark.parametrize("name", ["scene", "like", "actual", "number"])
def test_a_class_may_be_called_like_a_column_of_the_list(name):
    predictions, clips = PREDICTIONS.rename(columns={B: name}).replace(B, name), CLIPS.replace(B, name)
    pd.testing.assert_frame_equal(list_errors(predictions, clips)[[*ERRORS]].drop(columns="other_hand"),
                                  ERRORS.replace(B, name).drop(columns="other_hand"))


def test_an_error_is_listed_once_with_the_performer_of_the_clips_table():
    """Predictions from a CSV file have 1 where the clips have 001; a clip may be tested in several folds."""
    predictions = pd.concat([PREDICTIONS, PREDICTIONS.assign(fold=2)]).assign(recording=1, take=1)
    errors = list_errors(predictions, CLIPS)
    assert sorted(zip(errors["clip"], errors["fold"], errors["recording"], strict=True)) == sorted(
        (row.clip, fold, row.recording) for row in ERRORS.itertuples() for fold in (1, 2))
    with pytest.raises(ValueError, match="not a many-to-one merge"):
        list_errors(predictions, pd.concat([CLIPS, CLIPS]))


def test_where_the_class_has_no_clip_none_is_shown():
    predictions = PREDICTIONS[PREDICTIONS["class"] != C]
    errors = list_errors(predictions, CLIPS[CLIPS["class"] != C]).set_index("clip")
    assert errors.loc["two/c", "predicted"] == C and errors.loc["two/c", "like"] == ""


@pytest.mark.parametrize("count, shown, synthetic, expected", [
    (3, 3, 6, "These are synthetic clips"), (3, 3, 2, "2 of the 6 test clips are synthetic"),
    (3, 1, 0, "The 1 with the highest probability"), (3, 3, 0, "All are shown here"), (0, 0, 0, "None &lt;of&gt; 6")])
def test_the_page_says_how_many_errors_are_shown_and_clips_are_synthetic(count, shown, synthetic, expected):
    listed = [{**row, "picture": f"{row['number']}.jpg", "bars": []} for row in ERRORS.head(shown).to_dict("records")]
    groups = [(name, [error for error in listed if error["actual"] == name]) for name in CLASSES]
    templates = jinja2.Environment(loader=jinja2.PackageLoader("health_actions"), autoescape=True)
    page = templates.get_template("errors.html.j2").render(
        groups=[group for group in groups if group[1]], count=count, shown=shown, summary="None <of> 6",
        architecture="convlstm", synthetic=synthetic, tested=6)
    assert expected in page and page.count("<img") == shown and ("synthetic" in page) == bool(synthetic)
    assert "http" not in page and "<script" not in page and ("errors.csv" in page) == bool(count)
