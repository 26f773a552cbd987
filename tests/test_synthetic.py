"""The renderer of the embedded clips."""

import av
import numpy as np
import pytest
from conftest import HANDWASH_CLASSES, list_files
from typer.testing import CliRunner

from health_actions.data.clips import find_clips
from health_actions.data.extraction import extract_frames
from health_actions.data.frames import load_frames
from health_actions.data.splits import find_duplicates, sign
from health_actions.data.video import probe, read_frames
from synthetic_clips.__main__ import app
from synthetic_clips.handwash import (
    ACTIONS,
    PAIRS,
    PERFORMERS,
    clip_path,
    file_twice,
    render_clip,
    write_clips,
)

SMALL = (60, 40)


def test_the_same_seed_draws_the_same_clip_and_another_one_another():
    first, again, other = (render_clip(1, 1, 1, seed=seed, size=SMALL, frames=3) for seed in (0, 0, 1))
    assert first.shape == (3, 40, 60, 3) and first.dtype == np.uint8
    assert (first == again).all()
    assert (first != other).any()


def test_performers_scenes_and_actions_look_different():
    clips = {(p, s, a): render_clip(p, s, a, size=SMALL, frames=2) for p, s, a in
             [(1, 1, 1), (2, 1, 1), (1, 3, 1), (1, 1, 5)]}
    reference = clips.pop((1, 1, 1)).astype(int)
    for what, clip in clips.items():
        assert np.abs(clip - reference).mean() > 2, what


def test_hands_move():
    clip = render_clip(3, 2, 2, size=SMALL, frames=30).astype(int)
    assert np.abs(clip[15] - clip[0]).mean() > 2


def test_written_clips_are_laid_out_like_the_real_set_and_say_that_they_are_synthetic(tmp_path):
    paths = write_clips(tmp_path, performers=1, takes=1, actions=["Step_2_Left"], duration=0.4, processes=1)
    assert [path.relative_to(tmp_path).parts[0] for path in paths] == ["Step_2_Left"]
    assert paths[0].name.startswith("HandWash_001_A_02_G_0")
    facts = probe(paths[0])
    assert facts.synthetic and (facts.width, facts.height, facts.frames, facts.fps) == (240, 160, 12, 30)
    assert read_frames(paths[0], [0, 11])[None].shape == (2, 160, 240, 3)


def test_writing_goes_on_where_it_was(tmp_path):
    arguments = {"performers": 1, "takes": 1, "actions": ["Step_1", "Step_3"], "duration": 0.2, "processes": 1}
    kept, lost = write_clips(tmp_path, **arguments)
    before, content = kept.stat().st_mtime_ns, lost.read_bytes()
    lost.unlink()
    write_clips(tmp_path, **arguments)
    assert kept.stat().st_mtime_ns == before
    assert lost.read_bytes() == content


@pytest.mark.parametrize("wrong", [{"performers": 0}, {"takes": 9}, {"actions": ["Step_99"]}])
def test_wrong_arguments_are_refused(tmp_path, wrong):
    with pytest.raises(ValueError):
        write_clips(tmp_path, **wrong)


@pytest.fixture
def filled(tmp_path):
    """A folder with a file where each performer's first wash has its clips; each file has its own bytes."""
    for performer in range(PERFORMERS):
        for action in range(len(ACTIONS)):
            path = clip_path(tmp_path, performer, PAIRS[performer][0], action)
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"{performer} {action}")
    return tmp_path


@pytest.mark.parametrize("copies", [0, 1, 2, 3, 10])
def test_whole_washes_are_filed_twice_under_the_next_recording_numbers(filled, copies):
    paths = file_twice(filled, copies)
    clips = find_clips(filled, HANDWASH_CLASSES)
    assert (clips["note"] == "").all()  # each copy's name tells the action of its folder
    made = clips[clips["recording"].astype(int) > PERFORMERS]
    assert sorted(made["path"]) == sorted(path.relative_to(filled).as_posix() for path in paths)
    assert list(made["recording"].unique()) == [f"{PERFORMERS + 1 + copy:03d}" for copy in range(copies)]
    assert (made.groupby("recording")["class"].apply(sorted).apply(lambda found: found == HANDWASH_CLASSES)).all()


def test_copies_have_the_bytes_and_the_scene_of_one_wash_each(filled):
    paths = file_twice(filled, 3)
    shown = {}
    for path in paths:
        _, recording, _, action, _, scene = path.stem.split("_")
        performer, original = path.read_text().split()
        assert int(original) == int(action) - 1 and int(scene) - 1 == PAIRS[int(performer)][0]
        shown.setdefault(recording, set()).add(performer)
    assert list(shown.values()) == [{"0"}, {"3"}, {"6"}]


def test_a_wash_that_is_not_there_is_not_filed_twice(filled):
    lost = clip_path(filled, 5, PAIRS[5][0], 0)
    lost.unlink()
    assert len(file_twice(filled, 2)) == 23
    assert not (lost.parent / f"HandWash_012_A_01_G_{PAIRS[5][0] + 1:02d}.mp4").exists()


@pytest.mark.parametrize("copies", [-1, 11])
def test_more_washes_than_performers_are_not_filed_twice(filled, copies):
    before = list_files(filled)
    with pytest.raises(ValueError, match=f"copies: expected 0 to 10, found {copies}"):
        file_twice(filled, copies)
    assert list_files(filled) == before


def test_the_command_draws_clips_and_files_a_wash_twice_whose_copies_are_found(tmp_path):
    arguments = "--performers 1 --takes 1 --action Step_1 --action Step_3 --duration 0.4 --processes 1 --copies 1"
    told = CliRunner().invoke(app, ["handwash", str(tmp_path / "clips"), *arguments.split()]).stdout
    assert told.startswith("4 clips, ") and len(list_files(tmp_path / "clips")) == 4
    index = extract_frames(tmp_path / "clips", tmp_path / "frames", HANDWASH_CLASSES, sizes=[32], length=8, stride=1,
                           processes=1)
    signatures = np.stack([sign(load_frames(tmp_path / "frames", clip, 32)) for clip in index["clip"]])
    pairs = find_duplicates(index, signatures)
    assert pairs[["clip", "other", "kind", "same_class"]].values.tolist() == [
        [f"{name}/HandWash_001_{action}", f"{name}/HandWash_011_{action}", "identical", True]
        for name, action in (("Step_1", "A_01_G_01"), ("Step_3", "A_04_G_01"))]


def test_clips_of_a_real_camera_are_not_taken_for_synthetic(tmp_path):
    path = tmp_path / "own.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode())
    assert not probe(path).synthetic
