"""Study B's way from videos to frames, lists and splits."""

import json
import zipfile

import numpy as np
import pandas as pd
import pytest
from conftest import SHARED, draw_numbers, draw_square, list_files, tell_numbers, write_video
from hypothesis import given
from hypothesis import strategies as st

from health_actions.data.annotations import audit_splits, write_annotations
from health_actions.data.clips import NTU_ACTIONS, NoClips, find_clips, read_ntu_name
from health_actions.data.extraction import extract_archives, unpack_archives
from health_actions.data.frames import ClipArchive, name_folders, open_clip, read_index
from health_actions.data.splits import NTU_PROTOCOLS, hold_out, make_splits, sign
from health_actions.data.video import UnreadableVideo, stream_frames

CLASSES = ["falling_down", "headache"]
FALL, HEADACHE = "S001C002P003R001A043_rgb", "S001C001P001R002A044_rgb"


def extract(folder, output, classes=CLASSES, **settings):
    return extract_archives(folder, output, classes, **{"height": 32, "processes": 1, **settings})


@pytest.fixture
def folder(tmp_path):
    """A fall and a headache under NTU's names, 40 frames of 96 x 64."""
    write_video(tmp_path / "clips" / f"{FALL}.mp4", draw_numbers(), crf=8)
    write_video(tmp_path / "clips" / f"{HEADACHE}.mp4", draw_square())
    return tmp_path / "clips"


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


def test_clips_lie_in_the_folder_itself_or_in_one_folder_a_class(tmp_path):
    for path in (f"{FALL}.avi", "Headache/subject_1_02.mp4", "stray.avi", "S001C001P001R001A007_rgb.avi"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(b"x")
    clips = find_clips(tmp_path, CLASSES, "ntu").set_index("path")
    assert clips.loc[f"{FALL}.avi", "class"] == "falling_down" and clips.loc[f"{FALL}.avi", "reason"] == ""
    assert tuple(clips.loc["Headache/subject_1_02.mp4", ["class", "recording"]]) == ("headache", "subject_1")
    assert clips.loc["Headache/subject_1_02.mp4", "take"] == "Headache/subject_1_02"
    assert "named like S001C001P001R001A043" in clips.loc["stray.avi", "reason"]
    assert clips.loc["S001C001P001R001A007_rgb.avi", "reason"] == "action throw is none of the classes"


def test_an_empty_folder_is_told_with_what_was_expected(tmp_path):
    with pytest.raises(NoClips, match="S001C001P001R001A043_rgb.avi(.|\n)*an empty folder"):
        find_clips(tmp_path, CLASSES, "ntu")


def test_an_archive_holds_every_frame_as_a_picture_of_the_height_asked_for(folder, tmp_path):
    index = extract(folder, tmp_path / "frames").set_index("class")
    assert list(index["status"]) == ["ok", "ok"] and list(index["length"]) == [40, 40]
    frames = open_clip(tmp_path / "frames", FALL)
    assert len(frames) == 40 and frames[:].shape == (40, 32, 48, 3)
    assert tell_numbers(frames[[3, 30, 3]]) == [3, 30, 3]
    with zipfile.ZipFile(tmp_path / "frames" / f"{FALL}.zip") as archive:
        assert archive.namelist() == [*(f"image_{number:05d}.jpg" for number in range(1, 41)), "n_frames"]
        assert archive.read("n_frames") == b"40"


@pytest.mark.parametrize(("width", "height", "found"), [(1920, 1080, (240, 427)), (320, 240, (240, 320)),
                                                         (240, 426, (240, 135))])
def test_pictures_keep_their_shape(tmp_path, width, height, found):
    video = write_video(tmp_path / "a.mp4", draw_square(frames=8, width=width, height=height))
    assert {frame.shape[:2] for frame in stream_frames(video, 240)} == {found}


def test_what_is_there_is_kept_and_what_is_gone_is_deleted(folder, tmp_path):
    extract(folder, tmp_path / "frames")
    kept = tmp_path / "frames" / f"{FALL}.zip"
    written, before = kept.stat().st_mtime_ns, kept.read_bytes()
    (folder / f"{HEADACHE}.mp4").unlink()
    extract(folder, tmp_path / "frames")
    assert kept.stat().st_mtime_ns == written
    assert list_files(tmp_path / "frames") == [kept.name, "index.csv"]
    extract(folder, tmp_path / "frames", height=16)
    assert open_clip(tmp_path / "frames", FALL)[[0]].shape == (1, 16, 24, 3)
    extract(folder, tmp_path / "frames")
    assert kept.read_bytes() == before, "the same bytes again"


def test_a_damaged_archive_is_written_anew(folder, tmp_path):
    extract(folder, tmp_path / "frames")
    archive = tmp_path / "frames" / f"{FALL}.zip"
    whole = archive.read_bytes()
    archive.write_bytes(whole[:len(whole) // 2])
    with pytest.raises(ValueError, match=f"{FALL}.zip is no archive of frames"):
        ClipArchive(archive)
    extract(folder, tmp_path / "frames")
    assert archive.read_bytes() == whole


def test_a_missing_archive_says_what_makes_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="extract them first"):
        open_clip(tmp_path, FALL)


def test_videos_that_are_no_good_are_left_out_with_their_reason(folder, tmp_path):
    write_video(folder / "S001C001P001R001A043_rgb.mp4", draw_square(frames=7))
    whole = (folder / f"{FALL}.mp4").read_bytes()
    (folder / "S002C001P001R001A043_rgb.mp4").write_bytes(whole[:len(whole) // 2])
    (folder / "S003C001P001R001A043_rgb.mp4").write_bytes(b"")
    reasons = extract(folder, tmp_path / "frames").set_index("clip")["reason"]
    assert reasons["S001C001P001R001A043_rgb"] == "too short: 7 frames, at least 8 are needed"
    assert "empty file" in reasons["S003C001P001R001A043_rgb"] and reasons["S002C001P001R001A043_rgb"]
    assert len(list((tmp_path / "frames").glob("*.zip"))) == 2


def test_a_stream_that_ends_early_is_unreadable(folder, tmp_path):
    damaged = bytearray((folder / f"{HEADACHE}.mp4").read_bytes())
    damaged[len(damaged) // 3:len(damaged) * 2 // 3] = bytes(len(damaged) // 3 + 1)[:len(damaged) * 2 // 3
                                                                                  - len(damaged) // 3]
    (tmp_path / "damaged.mp4").write_bytes(damaged)
    with pytest.raises(UnreadableVideo):
        list(stream_frames(tmp_path / "damaged.mp4", 32))


def test_folders_of_pictures_have_the_names_of_the_json(folder, tmp_path):
    (folder / "headache").mkdir()
    (folder / f"{HEADACHE}.mp4").rename(folder / "headache" / f"{HEADACHE}.mp4")
    index = extract(folder, tmp_path / "frames")
    assert unpack_archives(tmp_path / "frames", index, tmp_path / "folders") == 2
    assert len(list((tmp_path / "folders" / "headache" / HEADACHE).glob("image_*.jpg"))) == 40
    splits = index[["clip", "class"]].assign(fold=1, subset=["training", "testing"])
    write_annotations(tmp_path, "ntu", splits, dict(zip(index["clip"], index["length"], strict=True)), CLASSES,
                      names=name_folders(index))
    entry = json.loads((tmp_path / "ntu_01.json").read_text())["database"][HEADACHE]
    assert entry == {"subset": "testing", "annotations": {"label": "headache", "segment": [1, 40]}}
    assert (tmp_path / "testlist01.txt").read_text() == f"headache/{HEADACHE} 2\n"


def test_clips_with_the_same_name_in_two_classes_keep_apart():
    names = name_folders(pd.DataFrame({"clip": ["fall/subject_1", "adl/subject_1", "adl/subject_2"]}))
    assert names == {"fall/subject_1": "fall_subject_1", "adl/subject_1": "adl_subject_1", "adl/subject_2": "subject_2"}


@pytest.fixture(scope="module")
def catalogue() -> pd.DataFrame:
    """12 performers x 2 actions, every movement filmed by three cameras."""
    rows = [(f"S001C{camera:03d}P{performer:03d}R001A{action:03d}", name, f"P{performer:03d}", f"C{camera:03d}",
             f"S001P{performer:03d}R001A{action:03d}")
            for performer in range(1, 13) for action, name in ((43, "falling_down"), (44, "headache"))
            for camera in (1, 2, 3)]
    clips = pd.DataFrame(rows, columns=["clip", "class", "recording", "scene", "take"])
    return clips.assign(given_split="", content=clips["clip"])


@pytest.mark.parametrize(("protocol", "column"), [("cross_subject", "recording"), ("cross_view", "scene")])
def test_ntus_protocols_keep_performers_or_cameras_apart(catalogue, protocol, column):
    splits = make_splits(catalogue, protocol=protocol, folds=4)
    tested = splits["subset"] == "testing"
    assert splits["fold"].unique().tolist() == [1] and len(splits) == len(catalogue)
    assert set(splits.loc[~tested, column]) <= set(NTU_PROTOCOLS[protocol][1])
    assert not set(splits.loc[tested, column]) & set(NTU_PROTOCOLS[protocol][1])
    validation, training = (set(splits.loc[splits["subset"] == subset, "recording"])
                            for subset in ("validation", "training"))
    assert validation and not validation & training, "performers who validate do not train"


def test_the_published_split_shares_performers_cameras_and_takes_and_the_audit_says_so(catalogue):
    nothing = pd.DataFrame(columns=["clip", "other"])
    rows = {protocol: audit_splits(make_splits(catalogue, protocol=protocol, folds=4, test_on="first_fold"), nothing,
                                   CLASSES).iloc[0] for protocol in ("published", "cross_subject", "cross_view")}
    assert min(rows["published"][["shared_recordings", "shared_scenes", "shared_takes"]]) > 0
    assert rows["cross_subject"]["shared_recordings"] == rows["cross_subject"]["shared_takes"] == 0
    assert rows["cross_view"]["shared_scenes"] == 0 and rows["cross_view"]["shared_takes"] > 0


def test_clips_that_are_all_on_one_side_of_ntus_list_are_told(catalogue):
    with pytest.raises(ValueError, match="cross_subject trains with P001(.|\n)*all on one side, subject_1"):
        make_splits(catalogue.assign(recording="subject_1"), protocol="cross_subject", folds=4)


@given(st.integers(2, 10), st.integers(0, 5))
def test_who_is_held_out_does_not_train(catalogue, parts, seed):
    splits = hold_out(catalogue, parts=parts, seed=seed)
    sides = {subset: set(rows["recording"]) for subset, rows in splits.groupby("subset")}
    assert set(sides) == {"training", "validation"} and not sides["training"] & sides["validation"]
    assert len(splits) == len(catalogue)


def test_the_signature_of_an_archive_is_that_of_its_frames(folder, tmp_path):
    extract(folder, tmp_path / "frames")
    frames = open_clip(tmp_path / "frames", HEADACHE)
    np.testing.assert_array_equal(sign(frames), sign(frames[:]))
    assert sign(frames).shape == (8 * 16 * 16,) and 0 <= sign(frames).min() <= sign(frames).max() <= 255


@pytest.mark.skipif(not (SHARED / "clips" / "falls").is_dir(), reason="the real fall clips are not at hand")
def test_real_falls_are_cut_into_frames_and_split_by_subject(tmp_path):
    index = extract(SHARED / "clips" / "falls", tmp_path, ["adl", "fall"], height=48, processes=2)
    assert (index["status"] == "ok").all() and len(index) == 26
    pd.testing.assert_series_equal(read_index(tmp_path)["recording"], index["recording"])
    splits = make_splits(index, protocol="by_performer", folds=4)
    assert splits["fold"].nunique() == 4 and (splits["subset"] == "testing").sum() == 26
    audit = audit_splits(splits, pd.DataFrame(columns=["clip", "other"]), ["adl", "fall"])
    assert (audit["shared_recordings"] == 0).all()
