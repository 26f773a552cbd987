import pytest
from conftest import CLASSES
from hypothesis import given
from hypothesis import strategies as st

from health_actions.data.clips import NTU_ACTIONS, NoClips, find_clips, read_handwash_name, read_ntu_name

FALL = "S001C002P003R001A043_rgb.avi"


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


@pytest.mark.parametrize(("folder", "split"), [
    ("train/step 2 left", "training"), ("Train/STEP-2-LEFT", "training"), ("VAL/Step_2 left ", "validation"),
    ("Valid/step_2_left", "validation"), ("test/Step_2_Left", "testing"), ("Testing/Step_2_Left", "testing")])
def test_folders_of_splits_and_classes_may_be_spelled_differently(tmp_path, folder, split):
    row = find_one(tmp_path, f"{folder}/a.mp4")
    assert (row["given_split"], row["class"], row["reason"]) == (split, "step_2_left", "")


def test_two_videos_of_one_name_are_one_clip_and_a_picture_of_that_name_is_none(tmp_path):
    clips = find_clips(lay(tmp_path, "Step_1/a.v2.jpg", "Step_1/a.v2.avi", "Step_1/a.v2.mp4"), CLASSES)
    other, picture, twin = "", "not a video by its suffix", "another file has this name with another suffix"
    assert all(reason.startswith(words) for reason, words in zip(clips["reason"], [other, picture, twin], strict=True))
    assert set(clips["clip"]) == {"Step_1/a.v2"} and clips["reason"][0] == "" and clips["scene"][0] == "unknown"


def test_hidden_files_and_files_elsewhere_are_not_listed(tmp_path):
    lay(tmp_path, "Step_1/a.mp4", "Step_1/._a.mp4", ".hidden/Step_1/a.mp4", ".DS_Store", "README.md",
        "other/Step_1/a.mp4", "train/deeper/Step_1/a.mp4")
    assert list(find_clips(tmp_path, CLASSES)["path"]) == ["Step_1/a.mp4"]


def test_a_name_that_contradicts_its_folder_is_noted_and_used(tmp_path):
    row = find_one(tmp_path, "Step_1/HandWash_002_A_03_G_01.mp4")
    assert row["note"] == "its name says action step_2_right, its folder step_1" and row["reason"] == ""


def test_an_empty_folder_shows_what_is_expected_and_what_is_there(tmp_path):
    lay(tmp_path / "videos", "deep/er/Step_1/a.mp4", "b.mp4")
    with pytest.raises(NoClips) as caught:
        find_clips(tmp_path / "videos", CLASSES)
    expected, found = str(caught.value).split("\nFound\n")
    assert "videos/Step_1/HandWash_001_A_01_G_01.mp4" in expected and "videos/train/Step_2_Right/" in expected
    assert "videos/b.mp4" in found and "videos/deep/er/Step_1/a.mp4" in found
    (tmp_path / "empty").mkdir()
    for name, words in {"empty": "an empty folder", "none": "no such folder"}.items():
        with pytest.raises(NoClips, match=f"S001C001P001R001A043_rgb.avi(.|\n)*{words}"):
            find_clips(tmp_path / name, CLASSES, "ntu")
