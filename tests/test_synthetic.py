"""The renderer of the hand-wash clips, a tool apart from health_actions."""

import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from conftest import HANDWASH_CLASSES, draw_square, list_files
from conftest import write_video as film
from typer.testing import CliRunner

from health_actions.data import video
from health_actions.data.clips import find_clips
from health_actions.data.duplicates import compute_signature, find_duplicates
from health_actions.data.video import probe, stream_frames
from synthetic_clips import encode, poses
from synthetic_clips.__main__ import app
from synthetic_clips.handwash import (
    ACTIONS,
    PERFORMERS,
    STEPS,
    TAKES,
    clip_path,
    file_twice,
    render_clip,
    scene_of,
    write_clips,
)
from synthetic_clips.sink import SINKS

SMALL = (60, 40)


def list_parts(hands):
    """All arrays of two poses, in one."""
    return np.concatenate([np.ravel(part) for hand in hands for part in vars(hand).values()])


def test_it_works_without_health_actions_and_both_know_synthetic_clips_by_the_same_mark():
    code = ("import sys; sys.modules['health_actions'] = None; import synthetic_clips.__main__, synthetic_clips.ntu; "
            "sys.exit(any(name.startswith('health_actions.') for name in sys.modules))")
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
    assert encode.SYNTHETIC_MARK == video.SYNTHETIC_MARK


def test_equal_seeds_draw_equal_clips_and_other_seeds_others():
    first, again, other = (render_clip(1, 1, 1, seed=seed, size=SMALL, frames=3) for seed in (0, 0, 1))
    assert first.shape == (3, 40, 60, 3) and first.dtype == np.uint8
    assert (first == again).all() and (first != other).any()


def test_performers_scenes_takes_and_actions_look_different():
    assert scene_of(1) == scene_of(5) != scene_of(2)
    clips = {(p, t, a): render_clip(p, t, a, size=SMALL, frames=2) for p, t, a in
             [(1, 1, 1), (2, 1, 1), (5, 1, 1), (1, 0, 1), (1, 1, 5)]}
    reference = clips.pop((1, 1, 1)).astype(int)
    for what, clip in clips.items():
        assert np.abs(clip - reference).mean() > 2, what


def test_each_scene_has_four_performers_who_wash_there_in_both_takes(tmp_path):
    assert Counter(map(scene_of, range(PERFORMERS))) == dict.fromkeys(range(len(SINKS)), 4) and TAKES == 2
    paths = {performer: [clip_path(tmp_path, performer, take, 3) for take in range(TAKES)] for performer in (6, 15)}
    assert [[path.relative_to(tmp_path).as_posix() for path in found] for found in paths.values()] == [
        [f"Step_3/HandWash_{person}_A_04_G_{scene}_T_{take}.mp4" for take in ("01", "02")]
        for person, scene in (("007", "03"), ("016", "04"))]


def test_the_sink_around_the_hands_is_the_same_in_both_takes_and_another_for_other_performers():
    first, *others = (render_clip(*clip, size=SMALL, frames=1)[0].astype(float)
                      for clip in ((0, 0, 0), (0, 1, 0), (1, 0, 0), (2, 0, 0), (3, 0, 0), (4, 0, 0)))
    edge = np.ones(first.shape[:2], bool)
    edge[6:, 6:-6] = False  # the arms come in from below
    alike = [np.corrcoef(first[edge].ravel(), other[edge].ravel())[0, 1] for other in others]
    assert alike[0] > 0.95 and max(alike[1:]) < 0.8, alike


def test_hands_move():
    clip = render_clip(3, 1, 2, size=SMALL, frames=30).astype(int)
    assert np.abs(clip[15] - clip[0]).mean() > 2


@pytest.mark.parametrize("number", [2, 4, 5, 6, 7])
def test_steps_that_have_a_side_are_mirrored_for_the_other(number):
    (make, plain), (other, turned) = STEPS[f"Step_{number}_Left"], STEPS[f"Step_{number}_Right"]
    assert make is other and not plain and turned
    left, right = hands = make(0.4, 0.3, np.full(4, 0.6))
    mirror = poses.mirrored(left, right)
    for one, image in ((left, mirror[1]), (right, mirror[0])):
        for part in ("wrist", "elbow", "forward", "dorsal"):
            assert (getattr(image, part) == getattr(one, part) * [-1, 1, 1]).all(), part
        for part in ("flexion", "spread", "thumb"):
            assert (getattr(image, part) == getattr(one, part)).all(), part
    assert (list_parts(poses.mirrored(*mirror)) == list_parts(hands)).all()
    assert np.abs(list_parts(mirror) - list_parts(hands)).max() > 1, "the hands do not do the same"


@pytest.mark.parametrize("make", dict.fromkeys(make for make, _ in STEPS.values()), ids=lambda make: make.__name__)
def test_a_step_moves_and_each_person_does_it_in_a_way_of_their_own(make):
    usual = make(0.3, 0.2, np.full(4, 0.5))
    for values in ((-0.6, 0.2, np.full(4, 0.5)), (0.3, 0.2, np.zeros(4)), (0.3, 0.2, np.ones(4))):
        assert np.abs(list_parts(make(*values)) - list_parts(usual)).max() > 1
    corners = np.array(np.meshgrid(*[[0, 1]] * 4)).reshape(4, -1).T
    for hand in (hand for habit in corners for wave in (-1.4, 0, 1.4) for hand in make(wave, 1.5, habit)):
        assert np.isfinite(list_parts([hand])).all() and np.abs(hand.wrist).max() < 20  # cm
        for way in (hand.forward, hand.dorsal):
            assert np.linalg.norm(way) == pytest.approx(1)
        assert abs(hand.forward @ hand.dorsal) < 0.5, "the back of the hand looks out of it"


def test_written_clips_are_laid_out_like_the_real_set_and_say_that_they_are_synthetic(tmp_path):
    paths = write_clips(tmp_path, performers=1, takes=1, actions=["Step_2_Left"], duration=0.4, processes=1)
    assert [path.relative_to(tmp_path).parts[0] for path in paths] == ["Step_2_Left"]
    assert paths[0].name == "HandWash_001_A_02_G_01_T_01.mp4"
    facts = probe(paths[0])
    assert facts.synthetic and (facts.width, facts.height, facts.frames, facts.fps) == (240, 160, 12, 30)
    assert [frame.shape for frame in stream_frames(paths[0], height=160)] == [(160, 240, 3)] * 12


def test_clips_of_a_camera_are_not_taken_for_synthetic(tmp_path):
    assert not probe(film(tmp_path / "own.mp4", draw_square(frames=2))).synthetic


def test_an_interrupted_rendering_resumes_and_a_failed_one_leaves_no_file(tmp_path):
    arguments = {"performers": 1, "takes": 1, "actions": ["Step_1", "Step_3"], "duration": 0.2, "processes": 1}
    kept, lost = write_clips(tmp_path, **arguments)
    before, content = kept.stat().st_mtime_ns, lost.read_bytes()
    lost.unlink()
    write_clips(tmp_path, **arguments)
    assert kept.stat().st_mtime_ns == before
    assert lost.read_bytes() == content
    with pytest.raises(RuntimeError), encode.write_whole(tmp_path / "new" / "clip.mp4") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert list_files(tmp_path / "new") == []


@pytest.mark.parametrize("wrong", [{"performers": 0}, {"performers": 17}, {"takes": 3},
                                   {"actions": ["Step_99"]}])
def test_wrong_arguments_are_refused(tmp_path, wrong):
    with pytest.raises(ValueError):
        write_clips(tmp_path, **wrong)


@pytest.fixture
def filled(tmp_path):
    """A folder with a file where each performer's first wash has its clips; each file has its own bytes."""
    for performer in range(PERFORMERS):
        for action in range(len(ACTIONS)):
            path = clip_path(tmp_path, performer, 0, action)
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"{performer} {action}")
    return tmp_path


@pytest.mark.parametrize("copies", [0, 1, 2, 3, 16])
def test_whole_washes_are_filed_twice_under_the_next_recording_numbers(filled, copies):
    paths = file_twice(filled, copies)
    clips = find_clips(filled, HANDWASH_CLASSES)
    assert (clips["note"] == "").all()  # each copy's name has the action of its folder
    made = clips[clips["recording"].astype(int) > PERFORMERS]
    assert sorted(made["path"]) == sorted(path.relative_to(filled).as_posix() for path in paths)
    assert list(made["recording"].unique()) == [f"{PERFORMERS + 1 + copy:03d}" for copy in range(copies)]
    assert (made.groupby("recording")["class"].apply(sorted).apply(lambda found: found == HANDWASH_CLASSES)).all()
    originals = {path.stem.split("_")[1]: path.read_text().split()[0] for path in paths}
    assert len(set(originals.values())) == copies, "each copy is of another performer"
    for path in paths:
        _, recording, _, action, _, scene, _, take = path.stem.split("_")
        assert path.read_text() == f"{originals[recording]} {int(action) - 1}"
        assert int(scene) - 1 == scene_of(int(originals[recording])) and take == "01"


def test_a_clip_that_is_missing_is_not_filed_twice(filled):
    lost = clip_path(filled, 8, 0, 0)
    lost.unlink()
    assert len(file_twice(filled, 2)) == 23
    assert [path.name for path in lost.parent.glob("HandWash_01[78]*")] == ["HandWash_017_A_01_G_01_T_01.mp4"]


@pytest.mark.parametrize("copies", [-1, 17])
def test_more_copies_than_performers_are_refused(filled, copies):
    with pytest.raises(ValueError, match=f"copies: expected 0 to 16, found {copies}"):
        file_twice(filled, copies)


def test_the_command_draws_clips_and_copies_of_them_that_are_found(tmp_path):
    arguments = "--performers 1 --takes 1 --action Step_1 --action Step_3 --duration 0.4 --processes 1 --copies 1"
    output = CliRunner().invoke(app, ["handwash", str(tmp_path), *arguments.split()]).stdout
    assert output.startswith("4 clips, ") and len(list_files(tmp_path)) == 4
    clips = find_clips(tmp_path, HANDWASH_CLASSES)
    clips = clips.assign(content=[(tmp_path / path).read_bytes() for path in clips["path"]])
    signatures = [compute_signature(np.stack([*stream_frames(tmp_path / path, height=32)])) for path in clips["path"]]
    pairs = find_duplicates(clips, np.stack(signatures))
    assert pairs[["clip", "other", "kind", "same_class"]].values.tolist() == [
        [f"{name}/HandWash_001_{action}", f"{name}/HandWash_017_{action}", "identical", True]
        for name, action in (("Step_1", "A_01_G_01_T_01"), ("Step_3", "A_04_G_01_T_01"))]
