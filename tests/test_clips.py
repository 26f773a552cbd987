import pytest
from conftest import CLASSES, HANDWASH_CLASSES
from hypothesis import given
from hypothesis import strategies as st

from health_actions.data.clips import HANDWASH_NAME, NoClips, find_clips


def lay(folder, *paths):
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"x")
    return folder


def find_one(folder, path, classes=CLASSES) -> dict:
    [row] = find_clips(lay(folder, path), classes).to_dict("records")
    return row


@pytest.mark.parametrize("name", ["HandWash_002_A_01_G_01", "HandWash_002_A_01_G01", "handwash_002_a_01_g_01"])
def test_both_spellings_of_a_name_tell_recording_and_scene(tmp_path, name):
    row = find_one(tmp_path, f"Step_1/{name}.mp4")
    assert (row["recording"], row["scene"], row["class"]) == ("002", "G01", "step_1")
    assert (row["clip"], row["path"]) == (f"Step_1/{name}", f"Step_1/{name}.mp4")
    assert (row["given_split"], row["reason"], row["note"]) == ("", "", "")


@given(st.integers(0, 999), st.integers(1, 12), st.integers(0, 99), st.booleans())
def test_numbers_of_any_name_are_found_again(recording, action, scene, underscore):
    name = f"HandWash_{recording:03d}_A_{action:02d}_G{'_' if underscore else ''}{scene:02d}"
    found = HANDWASH_NAME.match(name)
    assert (int(found["recording"]), int(found["action"])) == (recording, action)
    assert int(found["scene"].replace("_", "")[1:]) == scene


def test_any_other_name_is_a_recording_of_its_own(tmp_path):
    row = find_one(tmp_path, "Step_1/my clip.v2.mov")
    assert (row["clip"], row["recording"], row["scene"]) == ("Step_1/my clip.v2", "my clip.v2", "unknown")
    assert row["reason"] == ""


@pytest.mark.parametrize(("folder", "split"), [("train", "training"), ("Train", "training"), ("VAL", "validation"),
                                               ("Valid", "validation"), ("test", "testing"), ("Testing", "testing")])
def test_split_folders_are_known_in_any_case(tmp_path, folder, split):
    row = find_one(tmp_path, f"{folder}/Step_1/a.mp4")
    assert (row["given_split"], row["class"], row["reason"]) == (split, "step_1", "")


@pytest.mark.parametrize("folder", ["Step_2_Left", "step 2 left", "STEP-2-LEFT", "Step_2 left "])
def test_class_folders_may_be_spelled_in_another_way(tmp_path, folder):
    assert find_one(tmp_path, f"{folder}/a.mp4")["class"] == "step_2_left"


def test_an_unknown_class_folder_is_left_out_with_its_name(tmp_path):
    row = find_one(tmp_path, "Step_9/a.mp4")
    assert row["class"] == "" and row["reason"] == "unknown class folder 'Step_9'"


def test_a_file_that_is_no_video_by_its_name_is_left_out(tmp_path):
    clips = find_clips(lay(tmp_path, "Step_1/a.mp4", "Step_1/notes.txt"), CLASSES).set_index("path")
    assert clips.loc["Step_1/a.mp4", "reason"] == ""
    assert "no video by its name" in clips.loc["Step_1/notes.txt", "reason"]


def test_two_videos_of_one_name_are_one_clip(tmp_path):
    clips = find_clips(lay(tmp_path, "Step_1/a.avi", "Step_1/a.mp4"), CLASSES)
    assert (clips["reason"] == "").sum() == 1
    assert clips.loc[clips["reason"] != "", "reason"].item() == "another file has the same name with another suffix"


def test_a_picture_of_the_same_name_does_not_take_a_videos_place(tmp_path):
    clips = find_clips(lay(tmp_path, "Step_1/a.jpg", "Step_1/a.mp4"), CLASSES).set_index("path")
    assert clips.loc["Step_1/a.mp4", "reason"] == ""
    assert "no video by its name" in clips.loc["Step_1/a.jpg", "reason"]


def test_hidden_files_and_files_elsewhere_are_not_listed(tmp_path):
    lay(tmp_path, "Step_1/a.mp4", "Step_1/._a.mp4", ".hidden/Step_1/a.mp4", ".DS_Store", "README.md",
        "other/Step_1/a.mp4", "train/deeper/Step_1/a.mp4")
    assert list(find_clips(tmp_path, CLASSES)["path"]) == ["Step_1/a.mp4"]


def test_a_name_that_contradicts_its_folder_is_noted_and_used(tmp_path):
    row = find_one(tmp_path, "Step_1/HandWash_002_A_03_G_01.mp4")
    assert row["note"] == "its name says action step_2_right, its folder step_1" and row["reason"] == ""


def test_clips_come_in_the_order_of_their_paths(tmp_path):
    names = ["Step_2_Left/b.mp4", "Step_1/c.mp4", "Step_1/a.mp4"]
    assert list(find_clips(lay(tmp_path, *names), CLASSES)["path"]) == sorted(names)


def test_an_empty_folder_shows_what_is_expected_and_what_is_there(tmp_path):
    lay(tmp_path / "videos", "deep/er/Step_1/a.mp4", "b.mp4")
    with pytest.raises(NoClips) as caught:
        find_clips(tmp_path / "videos", CLASSES)
    expected, found = str(caught.value).split("\nFound\n")
    assert "videos/Step_1/HandWash_001_A_01_G_01.mp4" in expected and "videos/train/Step_2_Right/" in expected
    assert "videos/b.mp4" in found and "videos/deep/er/Step_1/a.mp4" in found


def test_a_missing_folder_is_told(tmp_path):
    with pytest.raises(NoClips, match="no such folder"):
        find_clips(tmp_path / "none", CLASSES)


def test_real_clips_are_all_understood(real_clips):
    clips = find_clips(real_clips, HANDWASH_CLASSES)
    assert len(clips) == 69 and clips["class"].nunique() == 12
    assert (clips[["reason", "note"]] == "").all(axis=None)
    assert set(clips["scene"]) == {"G01"} and clips["recording"].nunique() == 8
