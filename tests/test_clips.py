import pytest
from conftest import CLASSES, HANDWASH_CLASSES
from hypothesis import given
from hypothesis import strategies as st

from health_actions.data.clips import NTU_ACTIONS, NoClips, find_clips, read_handwash_name, read_ntu_name

FALL = "S001C002P003R001A043_rgb.avi"


def lay(folder, *paths):
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"x")
    return folder


def find_one(folder, path, classes=CLASSES) -> dict:
    [row] = find_clips(lay(folder, path), classes).to_dict("records")
    return row


@pytest.mark.parametrize("name", ["HandWash_002_A_01_G_01", "handwash_002_a_01_g01"])
def test_a_clip_has_the_facts_of_its_path(tmp_path, name):
    row = find_one(tmp_path, f"Step_1/{name}.mp4")
    assert row == {"clip": f"Step_1/{name}", "path": f"Step_1/{name}.mp4", "class": "step_1", "recording": "002",
                   "scene": "G01", "given_split": "", "reason": "", "note": ""}


@given(st.integers(0, 999), st.integers(1, 12), st.integers(0, 99), st.booleans())
def test_a_handwash_name_tells_recording_scene_and_action(recording, action, scene, underscore):
    stem = f"HandWash_{recording:03d}_A_{action:02d}_G{'_' if underscore else ''}{scene:02d}"
    name = read_handwash_name(stem, CLASSES)
    assert (name.recording, name.scene) == (f"{recording:03d}", f"G{scene:02d}")
    assert name.action == (CLASSES[action - 1] if action <= 3 else f"A{action:02d}")


def test_any_other_name_is_its_recording(tmp_path):
    row = find_one(tmp_path, "Step_1/my clip.v2.mov")
    assert (row["clip"], row["recording"], row["scene"]) == ("Step_1/my clip.v2", "my clip.v2", "unknown")
    assert row["reason"] == ""


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


def test_ntu_clips_lie_in_the_folder_itself_or_in_class_folders(tmp_path):
    lay(tmp_path, FALL, "Headache/subject_1_02.mp4", "stray.avi", "S001C001P001R001A007_rgb.avi")
    clips = find_clips(tmp_path, ["falling_down", "headache"], "ntu").set_index("path")
    assert tuple(clips.loc[FALL, ["class", "take", "reason"]]) == ("falling_down", "S001P003R001A043", "")
    assert tuple(clips.loc["Headache/subject_1_02.mp4", ["class", "recording", "take"]]) == (
        "headache", "subject_1", "Headache/subject_1_02")
    assert "named like S001C001P001R001A043" in clips.loc["stray.avi", "reason"]
    assert clips.loc["S001C001P001R001A007_rgb.avi", "reason"] == "action throw is no class"


@pytest.mark.parametrize(("folder", "split"), [("train", "training"), ("Train", "training"), ("VAL", "validation"),
                                               ("Valid", "validation"), ("test", "testing"), ("Testing", "testing")])
def test_split_folders_are_known_in_any_case(tmp_path, folder, split):
    row = find_one(tmp_path, f"{folder}/Step_1/a.mp4")
    assert (row["given_split"], row["class"], row["reason"]) == (split, "step_1", "")


@pytest.mark.parametrize("folder", ["Step_2_Left", "step 2 left", "STEP-2-LEFT", "Step_2 left "])
def test_class_folders_may_be_spelled_differently(tmp_path, folder):
    assert find_one(tmp_path, f"{folder}/a.mp4")["class"] == "step_2_left"


def test_two_videos_of_one_name_are_one_clip(tmp_path):
    clips = find_clips(lay(tmp_path, "Step_1/a.avi", "Step_1/a.mp4"), CLASSES)
    assert (clips["reason"] == "").sum() == 1
    assert clips.loc[clips["reason"] != "", "reason"].item() == "another file has this name with another suffix"


def test_a_picture_of_the_same_name_does_not_replace_a_video(tmp_path):
    clips = find_clips(lay(tmp_path, "Step_1/a.jpg", "Step_1/a.mp4"), CLASSES).set_index("path")
    assert clips.loc["Step_1/a.mp4", "reason"] == ""
    assert "not a video by its suffix" in clips.loc["Step_1/a.jpg", "reason"]


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


def test_an_empty_or_missing_folder_of_ntu_shows_its_names(tmp_path):
    with pytest.raises(NoClips, match="S001C001P001R001A043_rgb.avi(.|\n)*an empty folder"):
        find_clips(tmp_path, CLASSES, "ntu")
    with pytest.raises(NoClips, match="S001C001P001R001A043_rgb.avi(.|\n)*no such folder"):
        find_clips(tmp_path / "none", CLASSES, "ntu")


def test_real_clips_are_all_understood(real_clips):
    clips = find_clips(real_clips, HANDWASH_CLASSES)
    assert len(clips) == 69 and clips["class"].nunique() == 12
    assert (clips[["reason", "note"]] == "").all(axis=None)
    assert set(clips["scene"]) == {"G01"} and clips["recording"].nunique() == 8
