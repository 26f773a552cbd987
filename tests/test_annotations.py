import json

import pandas as pd
import pytest
from conftest import CLASSES, list_files, make_clips
from hypothesis import given
from hypothesis import strategies as st

from health_actions.data.annotations import audit_splits, count_clips, write_annotations
from health_actions.data.frames import name_folders
from health_actions.data.lists import read_lists
from health_actions.data.splits import make_splits


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
    assert (tmp_path / "testlist01.txt").read_text() == f'"{label}/another name" {CLASSES.index(label) + 1}\n'
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


# Lists that are given as the split.


def make_ntu_clips(names="S015C003P008R002A041 S015C003P015R001A041 S015C002P019R001A041 S015C003P017R002A042 "
                         "S015C003P015R001A042 S015C001P037R001A042") -> pd.DataFrame:
    return make_clips([(f"{name}_rgb", {"41": "sneeze_cough", "42": "staggering"}[name[-2:]], name[8:12], name[4:8])
                       for name in names.split()])


def test_actions_of_ntu_have_its_numbers(tmp_path):
    clips = make_ntu_clips()
    splits = clips.assign(fold=1, subset=["training", "validation", "testing"] * 2)
    write_annotations(tmp_path, "ntu", splits, dict.fromkeys(clips["clip"], 40), ["sneeze_cough", "staggering"],
                      names=name_folders(clips))
    assert (tmp_path / "classInd.txt").read_text() == "41 sneeze_cough\n42 staggering\n"
    assert (tmp_path / "trainlist01.txt").read_text().splitlines() == [
        "sneeze_cough/S015C003P008R002A041_rgb 41", "staggering/S015C003P017R002A042_rgb 42"]


LETTERS = st.characters(codec="utf-8", exclude_characters="/", exclude_categories=["C", "Z"]) | st.just(" ")


@given(st.lists(st.text(LETTERS, min_size=1, max_size=8).map(str.strip).filter(bool), min_size=6, max_size=9,
                unique_by=str.casefold), st.booleans())
def test_what_is_written_is_read_back(tmp_path_factory, names, named):
    folder = tmp_path_factory.mktemp("lists")
    clips = make_clips([(f"{CLASSES[number % 2]}/{name}_", CLASSES[number % 2], f"{number:03d}", "G01")
                        for number, name in enumerate(names)])
    splits = make_splits(clips, protocol="stratified", folds=3)
    write_annotations(folder, "handwash", splits, dict.fromkeys(clips["clip"], 40), CLASSES,
                      names=name_folders(clips) if named else None)
    for _ in ("lists", "JSON"):
        read = make_splits(clips, protocol="lists", folds=4, lists=folder)
        pd.testing.assert_frame_equal(read, splits)
        assert read_lists(folder, clips)[1].empty
        for file in folder.glob("trainlist*"):
            file.unlink()


def test_lists_as_the_paper_prints_them_are_the_split(tmp_path):
    (tmp_path / "classInd.txt").write_text("41 sneezeCough\n42 staggering\n")
    (tmp_path / "trainlist01.txt").write_text("snz/S015C003P008R002A041 41\nsnz/S015C003P015R001A041 41\n"
                                              "snz/S015C002P019R001A041 41\n"
                                              "stag/S015C003P017R002A042 42\nsnz/S015C009P009R009A041.avi 41\n\n")
    (tmp_path / "testlist01.txt").write_text('"Sneeze or Cough/S015C003P008R002A041" 41\r\n'
                                             "Staggering/S015C003P015R001A042 42\r\n")
    clips = make_ntu_clips()
    given, notes = read_lists(tmp_path, clips)
    assert dict(zip(given["clip"].str.removesuffix("_rgb"), given["given_split"])) == {
        "S015C003P008R002A041": "testing", "S015C003P015R001A041": "training", "S015C002P019R001A041": "training",
        "S015C003P017R002A042": "training", "S015C003P015R001A042": "testing"}
    assert notes.to_numpy().tolist() == [
        [1, "snz/S015C009P009R009A041.avi", "named in trainlist01.txt, line 5, but not among the clips in use"],
        [1, "S015C003P008R002A041_rgb", "in trainlist01.txt, line 1, too: used for testing alone"],
        [1, "S015C001P037R001A042_rgb", "there, but in no list: not used"]]
    splits = make_splits(clips, protocol="lists", folds=4, lists=tmp_path)
    assert sorted(splits["subset"]) == ["testing", "testing", "training", "training", "validation"]


def test_the_papers_json_has_its_test_clips_under_validation(tmp_path):
    names = ["S015C003P008R002A041", "S015C003P015R001A041", "S015C003P017R002A042"]
    database = {f"{name}_rgb": {"subset": subset, "annotations": {"label": label, "segment": [1, 50]}} for name, subset,
                label in zip(names, ["training", "training", "validation"], ["snz", "snz", "check"])}
    (tmp_path / "ntu_01.json").write_text(json.dumps({"labels": ["snz", "stag"], "database": database}))
    given, notes = read_lists(tmp_path, make_ntu_clips())
    assert given["given_split"].tolist() == ["training", "training", "testing"] and len(notes) == 3


GOOD = {"trainlist01.txt": "a/S015C003P008R002A041 41\nb/S015C003P017R002A042 42\n",
        "testlist01.txt": "S015C003P015R001A041 41\n", "classInd.txt": "41 sneezeCough\n42 staggering\n"}


@pytest.mark.parametrize(("files", "words"), [
    ({"trainlist01.txt": None}, "no trainlist01.txt and no JSON like ntu_01.json in "),
    ({"testlist01.txt": None}, "no testlist01.txt in "),
    ({"testlist01.txt": "S015C003P015R001A041"}, "testlist01.txt, line 1: expected a clip and the number of its "),
    ({"testlist01.txt": ""}, "leave no testing clips: 2 of 6 clips are named there"),
    ({"trainlist01.txt": "other 41"}, "leave no training clips: 1 of 6 clips are named there"),
    ({"testlist01.txt": "S015C003P015R001A041 43"}, "line 1: class 43 is none of classInd.txt: 41, 42"),
    ({"testlist01.txt": "S015C003P015R001A041 42"},
     "testlist01.txt, line 1: S015C003P015R001A041 is said to be staggering, the clip S015C003P015R001A041_rgb is "),
    ({"testlist01.txt": "S015C003P015R001A041 42", "classInd.txt": None}, "is said to be staggering, the clip"),
    ({"classInd.txt": "sneezeCough 41"}, "classInd.txt, line 1: expected a number and the name of a class, "),
    ({"testlist01.txt": b"\xff\x00\x80"}, "testlist01.txt, line 1: expected a clip"),
    ({"trainlist01.txt": None, "ntu_01.json": "[1"}, "ntu_01.json is no JSON of clips with subset and label"),
    ({"trainlist01.txt": None, "ntu_01.json": '{"database": {"x": {"subset": "dev", "annotations": {"label": "y"}}}}'},
     "ntu_01.json, x: unknown subset 'dev'; known: training, validation, testing"),
    ({"trainlist01.txt": None, "ntu_01.json": "{}", "a_01.json": "{}"}, "several JSON of one fold: a_01.json, ntu_")])
def test_wrong_lists_are_reported_in_one_line(tmp_path, files, words):
    for name, content in (GOOD | files).items():
        if content is not None:
            (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        make_splits(make_ntu_clips(), protocol="lists", folds=4, lists=tmp_path)
    assert words in str(caught.value) and "\n" not in str(caught.value)
