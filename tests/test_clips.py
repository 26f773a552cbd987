import hashlib
import itertools
import os
import unicodedata
from pathlib import Path

import pandas as pd
import pytest
from conftest import CLASSES
from hypothesis import given
from hypothesis import strategies as st

from health_actions.data.clips import NTU_ACTIONS, NoClips, find_clips, read_handwash_name, read_ntu_name

FALL = "S001C002P003R001A043_rgb.avi"
SPLITS = "train, training, val, valid, validation, test, testing"


def lay(folder, *paths):
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"x")
    return folder


def find_one(folder, path) -> dict:
    [row] = find_clips(lay(folder, path), CLASSES).to_dict("records")
    return row


@pytest.mark.parametrize("name", ["HandWash_002_A_01_G_01", "handwash_002_a_01_g01", "HandWash_002_A_01_G_01_T_02"])
def test_a_clip_has_the_facts_of_its_path(tmp_path, name):
    row = find_one(tmp_path, f"Step_1/{name}.mp4")
    assert row == {"clip": f"Step_1/{name}", "path": f"Step_1/{name}.mp4", "class": "step_1", "recording": "002",
                   "scene": "G01", "given_split": "", "reason": "", "note": ""}


@given(st.integers(0, 999), st.integers(1, 12), st.integers(0, 99), st.booleans(),
       st.sampled_from(["", "_T_01", "_T_02"]))
def test_a_handwash_name_tells_recording_scene_and_action(recording, action, scene, underscore, take):
    stem = f"HandWash_{recording:03d}_A_{action:02d}_G{'_' if underscore else ''}{scene:02d}{take}"
    name = read_handwash_name(stem, CLASSES)
    assert (name.recording, name.scene) == (f"{recording:03d}", f"G{scene:02d}")
    assert name.action == (CLASSES[action - 1] if action <= 3 else f"A{action:02d}")


@given(st.integers(1, 999), st.integers(1, 3), st.integers(1, 999), st.integers(1, 2),
       st.sampled_from(list(NTU_ACTIONS)))
def test_an_ntu_name_tells_performer_camera_take_and_action(setup, camera, performer, repetition, action):
    stem = f"S{setup:03d}C{camera:03d}P{performer:03d}R{repetition:03d}A{action:03d}"
    name = read_ntu_name(f"{stem}_rgb", [])
    assert (name.recording, name.scene, name.action) == (f"P{performer:03d}", f"C{camera:03d}", NTU_ACTIONS[action])
    assert name.take == stem.replace(f"C{camera:03d}", ""), "the same from every camera"


@pytest.mark.parametrize(("stem", "performer"), [("subject_3_07", "subject_3"), ("Subject 12 fall", "subject 12"),
                                                 ("person1-a", "person1"), ("my clip", "my clip")])
def test_other_names_tell_the_person_where_they_can(stem, performer):
    assert read_ntu_name(stem, CLASSES).recording == performer


def test_the_takes_of_a_performer_are_clips_of_one_recording_and_scene(tmp_path):
    lay(tmp_path, *(f"Step_1/HandWash_009_A_01_G_01_T_{take}.mp4" for take in ("01", "02")))
    clips = find_clips(tmp_path, CLASSES)
    assert clips["clip"].nunique() == 2 and (clips[["reason", "note"]] == "").all(axis=None)
    assert set(zip(clips["recording"], clips["scene"])) == {("009", "G01")}


def test_ntu_clips_lie_in_the_folder_itself_or_in_class_folders(tmp_path):
    lay(tmp_path, FALL, "Headache/subject_1_02.mp4", "stray.avi", "S001C001P001R001A007_rgb.avi")
    clips = find_clips(tmp_path, ["falling_down", "headache"], "ntu").set_index("path")
    assert tuple(clips.loc[FALL, ["class", "take", "reason"]]) == ("falling_down", "S001P003R001A043", "")
    assert tuple(clips.loc["Headache/subject_1_02.mp4", ["class", "recording", "take"]]) == (
        "headache", "subject_1", "Headache/subject_1_02")
    assert "named like S001C001P001R001A043" in clips.loc["stray.avi", "reason"]
    assert clips.loc["S001C001P001R001A007_rgb.avi", "reason"] == "action throw is no class"


@pytest.mark.parametrize("number", [61, 103, 120])
def test_an_action_of_ntu_without_a_name_here_goes_by_its_number(tmp_path, number):
    lay(tmp_path, f"S018C001P041R001A{number:03d}_rgb.avi")
    [row] = find_clips(tmp_path, ["headache", f"a{number:03d}"], "ntu").to_dict("records")
    assert (row["class"], row["recording"], row["reason"]) == (f"a{number:03d}", "P041", "")


@pytest.mark.parametrize(("folder", "split"), [
    ("train/step 2 left", "training"), ("Train/STEP-2-LEFT", "training"), ("VAL/Step_2 left ", "validation"),
    ("Valid/step_2_left", "validation"), ("test/Step_2_Left", "testing"), ("Testing/Step_2_Left", "testing")])
def test_folders_of_splits_and_classes_may_be_spelled_differently(tmp_path, folder, split):
    row = find_one(tmp_path, f"{folder}/a.mp4")
    assert (row["given_split"], row["class"], row["reason"]) == (split, "step_2_left", "")


def test_videos_of_one_name_are_clips_with_a_hash_and_a_picture_of_that_name_is_none(tmp_path):
    """Where one disk has two files, another one that ignores case has one."""
    lay(tmp_path, "Step_1/a.v2.jpg", "Step_1/a.v2.avi", "Step_1/a.v2.mp4", "step_1/A.v2.mp4", "Step_1/b.mp4")
    clips = find_clips(tmp_path, CLASSES).set_index("path")
    assert clips["reason"].str[:25].to_dict() == dict.fromkeys(clips.index, "") | {
        "Step_1/a.v2.jpg": "not a video by its suffix"}
    usable = clips.loc[clips["reason"] == "", "clip"]
    assert usable["Step_1/b.mp4"] == "Step_1/b" and usable.str.lower().nunique() == 4
    hashes = {path: hashlib.sha256(path.encode()).hexdigest()[:8] for path in usable.index}
    assert usable["Step_1/a.v2.avi"] == f"Step_1/a.v2-{hashes['Step_1/a.v2.avi']}"
    assert usable["step_1/A.v2.mp4"] == f"step_1/A.v2-{hashes['step_1/A.v2.mp4']}"


def test_hidden_files_and_other_files_elsewhere_are_not_listed(tmp_path):
    lay(tmp_path, "Step_1/a.mp4", "Step_1/._a.mp4", ".hidden/Step_1/a.mp4", ".DS_Store", "README.md", "a/b/c.txt")
    assert list(find_clips(tmp_path, CLASSES)["path"]) == ["Step_1/a.mp4"]


@pytest.mark.parametrize(("path", "reason"), [
    ("a.mp4", "lies in no folder; expected"), ("Step_1/day2/b.MP4", "lies in Step_1/day2; expected"),
    ("Subject 1/Step_1/01.mp4", "lies in Subject 1/Step_1; "), ("eval/a.mp4", "unknown class folder 'eval'; "),
    ("Step_1/day2/b.WMV", "lies in Step_1/day2; expected"), ("eval/a.flv", "unknown class folder 'eval'; "),
    ("eval/Step_1/a.mp4", "lies in eval/Step_1; "), ("Test set/Step_1/a.avi", "lies in Test set/Step_1; "),
    ("training set/Step_1/a.avi", "lies in training set/"),
    ("train/deeper/Step_1/a.mp4", "lies in train/deeper/Step_1; "), ("test/a.mp4", "unknown class folder 'test'; ")])
@pytest.mark.parametrize("naming", ["handwash", "ntu"])
def test_a_video_elsewhere_is_listed_with_what_is_expected(tmp_path, path, reason, naming):
    rows = find_clips(lay(tmp_path, "Step_1/a.mp4", path), CLASSES, naming).set_index("path")
    assert len(rows) == 2 and rows.loc["Step_1/a.mp4", "reason"] == ""
    if (path, naming) == ("a.mp4", "ntu"):
        reason, expected = "neither in a class folder nor named like", "S001C001P001R001A043_rgb.avi"
    else:
        expected = f"<class>/ or <split>/<class>/, where <split> is one of {SPLITS}"
    assert rows.loc[path, "reason"].startswith(reason) and rows.loc[path, "reason"].endswith(expected)


@given(st.lists(st.lists(st.sampled_from(["Step_1", "test", "Test set", "eval", "s1", "deep"]), max_size=3).map(
    lambda folders: "/".join([*folders, "a.mp4"])), min_size=1, max_size=6, unique=True))
def test_every_video_is_used_or_listed(tmp_path_factory, paths):
    """Used are those in a class folder, or in one of a split."""
    folder = lay(tmp_path_factory.mktemp("data"), *paths, "Step_2_Left/used.mp4")
    clips = find_clips(folder, CLASSES)
    assert set(clips["path"]) == {*paths, "Step_2_Left/used.mp4"}
    assert set(clips.loc[clips["reason"] == "", "path"]) == {"Step_2_Left/used.mp4"} | (
        {"Step_1/a.mp4", "test/Step_1/a.mp4"} & set(paths))


def test_links_are_followed_and_each_file_is_used_once(tmp_path):
    folder = lay(tmp_path / "data", "Step_2_Left/b.mp4", "raw/c.mp4")
    lay(tmp_path / "disk", "a.mp4", "a2.mp4")
    for name, target in {"Step_1": "../disk", "Step_2_Left/up": "..", "Step_2-Left": "Step_2_Left",
                         "Step_2_Right": "raw", "Step_2_Left/d.mp4": "../../disk/a.mp4",
                         "Step_2_Left/broken.mp4": "nowhere"}.items():
        os.symlink(target, folder / name)
    clips = find_clips(folder, CLASSES).set_index("path")
    assert list(clips[clips["reason"] == ""].index) == [
        "Step_1/a.mp4", "Step_1/a2.mp4", "Step_2-Left/b.mp4", "Step_2-Left/d.mp4", "Step_2_Right/c.mp4"]
    assert clips.loc["Step_2_Left/b.mp4", "reason"] == "the same file as Step_2-Left/b.mp4"
    assert clips.loc["Step_2_Left/broken.mp4", "reason"] == "no file, or a link that leads nowhere"
    assert clips.loc["raw/c.mp4", "reason"].startswith("unknown class folder 'raw'")


def test_folders_that_link_to_each_other_are_listed_in_short(tmp_path):
    lay(tmp_path, *(f"c{number}/{number}.mp4" for number in range(7)))
    for here, there in itertools.permutations(range(7), 2):
        os.symlink(f"../c{there}", tmp_path / f"c{here}" / f"l{there}")
    clips = find_clips(tmp_path, [f"c{number}" for number in range(7)])
    assert list(clips.loc[clips["reason"] == "", "path"]) == [f"c{number}/{number}.mp4" for number in range(7)]
    assert len(clips) < 100


def test_a_folder_that_cannot_be_opened_is_listed_and_the_others_are_used(tmp_path, monkeypatch):
    def open_folder(path):
        if path.name in closed:
            raise PermissionError
        return iterdir(path)

    iterdir, closed, reason = Path.iterdir, {"Step_2_Left"}, "a folder that cannot be opened: change its permissions"
    monkeypatch.setattr(Path, "iterdir", open_folder)
    folder = lay(tmp_path / "data", *(f"{split}{name}/a.mp4" for split in ("", "train/")
                                      for name in ("Step_1", "Step_2_Left")))
    clips = find_clips(folder, CLASSES)
    assert dict(zip(clips["path"], clips["reason"], strict=True)) == {
        "Step_1/a.mp4": "", "Step_2_Left": reason, "train/Step_1/a.mp4": "", "train/Step_2_Left": reason}
    closed.add("data")
    with pytest.raises(NoClips, match=f"Found\n  data/.: {reason}$"):
        find_clips(folder, CLASSES)


@pytest.mark.parametrize("forms", [("NFD", "NFC"), ("NFC", "NFD")])
def test_an_accent_may_be_written_as_one_or_two_characters(tmp_path, forms):
    """A Mac writes two."""
    folder, name = (unicodedata.normalize(form, "Stürzen") for form in forms)
    [row] = find_clips(lay(tmp_path, f"{folder}/a.mp4"), [name.lower()]).to_dict("records")
    assert (row["class"], row["reason"]) == (name.lower(), "")


def test_a_name_that_is_not_utf8_is_left_out_alone(tmp_path):
    try:
        lay(tmp_path, "Step_1/a.mp4", os.fsdecode(b"Step_1/caf\xe9.mp4"), os.fsdecode(b"\xe9/b.mp4"))
    except OSError:
        pytest.skip("this disk has UTF-8 names alone")
    clips = find_clips(tmp_path, CLASSES)
    clips.to_csv(tmp_path / "index.csv")
    assert dict(zip(clips["path"], clips["reason"], strict=True)) == {
        "Step_1/a.mp4": "", r"Step_1/caf\udce9.mp4": "its name is not UTF-8: rename it",
        r"\udce9/b.mp4": "its name is not UTF-8: rename it"}


@pytest.mark.parametrize("folder", ["Step_1", "Step\r1"])
def test_a_name_with_a_line_break_is_left_out_alone(tmp_path, folder):
    lay(tmp_path, "Step_1/a.mp4", f"{folder}/b\r.mp4", f"{folder}/c\nd.mp4")
    find_clips(tmp_path, CLASSES).to_csv(tmp_path / "index.csv", index=False)
    clips, place = pd.read_csv(tmp_path / "index.csv", keep_default_na=False), folder.replace("\r", r"\r")
    assert dict(zip(clips["path"], clips["reason"], strict=True)) == {
        "Step_1/a.mp4": "", rf"{place}/b\r.mp4": "its name has a line break: rename it",
        rf"{place}/c\nd.mp4": "its name has a line break: rename it"}


def test_clips_beside_the_folders_of_a_split_are_noted_and_used(tmp_path):
    lay(tmp_path, "Step_1/HandWash_002_A_03_G_01.mp4", "Step_1/b.mp4", "test/Step_1/c.mp4", "Step_9/d.mp4")
    clips, note = find_clips(tmp_path, CLASSES).set_index("path"), "in no split folder: it trains or validates"
    assert clips["note"].to_dict() == {
        "Step_1/HandWash_002_A_03_G_01.mp4": f"its name says action step_2_right, its folder step_1; {note}",
        "Step_1/b.mp4": note, "test/Step_1/c.mp4": "", "Step_9/d.mp4": ""}
    assert (clips["reason"] == "").tolist() == [True, True, False, True]


def test_a_name_that_contradicts_its_folder_is_noted_and_used(tmp_path):
    row = find_one(tmp_path, "Step_1/HandWash_002_A_03_G_01.mp4")
    assert row["note"] == "its name says action step_2_right, its folder step_1" and row["reason"] == ""


def test_an_empty_folder_shows_what_is_expected_and_what_is_there(tmp_path):
    lay(tmp_path / "videos", "deep/er/Step_1/a.mp4", "b.mp4")
    with pytest.raises(NoClips) as caught:
        find_clips(tmp_path / "videos", CLASSES)
    expected, found = str(caught.value).split("\nFound\n")
    assert "videos/Step_1/HandWash_001_A_01_G_01.mp4" in expected and "videos/train/Step_2_Right/" in expected
    assert "videos/b.mp4: lies in" in found and "videos/deep/er/Step_1/a.mp4: lies in deep/er/Step_1; " in found
    (tmp_path / "empty").mkdir()
    lay(tmp_path / "texts", "a.txt")
    with pytest.raises(NoClips, match="Found\n  texts/a.txt$"):
        find_clips(tmp_path / "texts", CLASSES)
    for name, words in {"empty": "an empty folder", "none": "no such folder"}.items():
        with pytest.raises(NoClips, match=f"S001C001P001R001A043_rgb.avi(.|\n)*{words}"):
            find_clips(tmp_path / name, CLASSES, "ntu")
