import json

import pandas as pd
import pytest
from conftest import CLASSES, list_files

from health_actions.data.annotations import audit_splits, count_clips, write_annotations


@pytest.fixture(scope="module")
def written(index, splits, tmp_path_factory):
    output = tmp_path_factory.mktemp("annotations")
    write_annotations(output, "handwash", splits, dict(zip(index["clip"], index["frames"], strict=True)), CLASSES)
    return output


@pytest.mark.parametrize("fold", [1, 2])
def test_lists_hold_clips_and_class_numbers(written, splits, fold):
    assert (written / "classInd.txt").read_text() == "1 step_1\n2 step_2_left\n3 step_2_right\n"
    assert len(list_files(written)) == 9
    for name, subset in {"trainlist": "training", "vallist": "validation", "testlist": "testing"}.items():
        rows = splits[(splits["fold"] == fold) & (splits["subset"] == subset)]
        lines = (written / f"{name}{fold:02d}.txt").read_text().splitlines()
        assert lines == [f"{clip} {CLASSES.index(label) + 1}"
                         for clip, label in zip(rows["clip"], rows["class"], strict=True)]


def test_the_json_holds_subset_label_and_segment_of_each_clip(written, splits):
    content = json.loads((written / "handwash_02.json").read_text())
    assert content["labels"] == CLASSES
    assert content["database"] == {
        row["clip"]: {"subset": row["subset"], "annotations": {"label": row["class"], "segment": [1, 40]}}
        for row in splits[splits["fold"] == 2].to_dict("records")}


def test_clips_may_have_other_names_in_the_files(splits, tmp_path):
    first = splits[splits["fold"] == 1].head(1).assign(subset="testing")
    clip, label = first["clip"].item(), first["class"].item()
    write_annotations(tmp_path, "ntu", first, {clip: 40}, CLASSES, names={clip: "another name"})
    assert (tmp_path / "testlist01.txt").read_text() == f"{label}/another name {CLASSES.index(label) + 1}\n"
    assert list(json.loads((tmp_path / "ntu_01.json").read_text())["database"]) == ["another name"]


def test_counts_and_the_audit_by_hand(splits):
    counts = count_clips(splits, [*CLASSES, "step_3"])
    assert counts.loc["step_3"].tolist() == [0, 0, 0] and counts.to_numpy().sum() == 12
    splits = pd.DataFrame([("a", "step_1", "1", "unknown", 1, "training"),
                           ("b", "step_1", "2", "unknown", 1, "testing"),
                           ("c", "step_3", "1", "G01", 1, "testing"), ("d", "step_1", "3", "G01", 1, "validation")],
                          columns=["clip", "class", "recording", "scene", "fold", "subset"])
    pairs = [("a", "b"), ("d", "a"), ("c", "b"), ("c", "d"), ("e", "c")]  # e was left out of the split
    duplicates = pd.DataFrame(pairs, columns=["clip", "other"])
    [row] = audit_splits(splits, duplicates, ["step_1", "step_3"]).to_dict("records")
    assert row == {"fold": 1, "training": 1, "validation": 1, "testing": 2, "shared_recordings": 1, "shared_scenes": 1,
                   "shared_duplicates": 2, "classes_not_trained": "step_3"}
