"""The embedded clips in the manner of NTU RGB+D: skeletons, movements, cameras and files."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest

from health_actions.data.video import probe, stream_frames
from synthetic_clips import motions
from synthetic_clips.everyday import ACTIONS, EVERYDAY
from synthetic_clips.figure import JOINTS
from synthetic_clips.ntu import (
    TESTED,
    TRAINING,
    clip_name,
    describe_clip,
    list_clips,
    locate_hands,
    montage,
    perform,
    project_joints,
    render_clip,
    write_clips,
)
from synthetic_clips.performers import SETUPS, SOURCE
from synthetic_clips.room import SIZE

NUMBERS = {act.__name__: number for number, act in ACTIONS.items()}
MEDICAL_PERFORMERS = TRAINING + TESTED


def _every_performance():
    """One performance of each action by two of its performers."""
    for action in ACTIONS:
        for performer in (SOURCE if action in EVERYDAY else MEDICAL_PERFORMERS)[:12:5]:
            yield perform(performer, 1, action), action


def test_the_list_of_clips_is_balanced():
    clips = list_clips()
    names = [clip_name(*clip) for clip in clips]
    assert len(set(names)) == len(clips) == 288 + 224
    assert clip_name(1, 1, 43, 2) == "S001C002P001R001A043_rgb.avi"
    subsets = Counter((describe.subset, describe.action) for describe in map(describe_clip, names[::5]))
    assert {subset for subset, _ in subsets} == {"training", "testing", "source"}
    takes = Counter((performer, action) for performer, _, action, _ in clips)
    assert {takes[performer, 44] for performer in TRAINING} == {2} and {takes[p, 44] for p in TESTED} == {3}
    for action in (41, 45, 49):  # every camera sees each action about as often
        seen = Counter(camera for performer, _, number, camera in clips if number == action and performer in TRAINING)
        assert set(seen) == {1, 2, 3} and max(seen.values()) - min(seen.values()) <= 1
    assert {SETUPS[number] for number in TESTED} <= {SETUPS[number] for number in TRAINING} == set(range(1, 7))


def test_a_name_tells_what_a_clip_shows():
    facts = describe_clip("S001C002P001R001A043_rgb.avi")
    assert (facts.setup, facts.camera, facts.performer, facts.action_name) == (1, 2, 1, "falling_down")
    assert facts.medical and facts.subset == "training" and facts.hand in ("left", "right")
    assert facts.frames == len(project_joints(1, 1, 43, 2))
    hands = Counter(describe_clip(clip_name(number, 1, 44, 1)).hand for number in MEDICAL_PERFORMERS)
    assert 0 < hands["left"] < hands["right"]


@pytest.mark.parametrize("name", ["falling.avi", "S001C002P001R001A003_rgb.avi", "S001C004P001R001A043_rgb.avi",
                                  "S001C002P011R001A043_rgb.avi", "S002C002P001R001A043_rgb.avi"])  # fmt: skip
def test_names_of_no_clip_are_refused(name):
    with pytest.raises(ValueError, match="expected one"):
        describe_clip(name)



def test_joints_are_finite_and_feet_are_near_the_ground():
    for performance, action in _every_performance():
        skeleton, name = performance.skeleton, ACTIONS[action].__name__
        assert np.isfinite(skeleton.joints).all(), name
        assert skeleton.joints[..., 2].min() > 0 and skeleton.joints[..., 2].max() < 240, name
        lower = np.minimum(skeleton.joint("left foot")[:, 2], skeleton.joint("right foot")[:, 2])
        assert lower.max() < (40 if name == "jump_up" else 25 if name == "falling_down" else 15), name
        speed = np.linalg.norm(np.diff(skeleton.joints, axis=0), axis=2).max()
        assert speed < 60, (name, speed)  # cm between two frames: nothing leaps


@pytest.mark.parametrize("name, site, part", [
    ("headache", ("temple", "forehead"), "head"), ("neck_pain", ("neck",), "chest"),
    ("chest_pain", ("chest",), "chest"), ("back_pain", ("back",), "pelvis"),
    ("nausea_vomiting", ("stomach",), "pelvis"),
])  # fmt: skip
@pytest.mark.parametrize("performer", [1, 5, 10, 16])
def test_the_hand_is_where_it_hurts(name, site, part, performer):
    performance = perform(performer, 1, NUMBERS[name])
    skeleton, side = performance.skeleton, performance.posture.holder
    middle = len(skeleton.joints) // 2
    origin = {"head": "head", "chest": "spine shoulder", "pelvis": "spine base"}[part]
    away = []
    for place in (motions.SITES[key][1] for key in site):
        place = np.array(place) * [(1, -1)[side], 1, 1] * performance.performer.build.scale
        there = skeleton.joint(origin)[middle] + getattr(skeleton, part)[middle] @ place
        away.append(np.linalg.norm(skeleton.joint(("left hand", "right hand")[side])[middle] - there))
    assert min(away) < 9  # cm


@pytest.mark.parametrize("performer", MEDICAL_PERFORMERS)
def test_who_falls_lies_in_the_end(performer):
    skeleton = perform(performer, 1, 43).skeleton
    assert skeleton.joint("head")[-1, 2] < 45
    assert skeleton.joints[-10:, :, 2].max() < 75
    assert np.abs(skeleton.joint("head")[-1] - skeleton.joint("head")[-8]).max() < 8  # and stays


def test_nearly_everyone_is_inside_the_middle_square():
    left, right = (SIZE[0] - SIZE[1]) / 2, (SIZE[0] + SIZE[1]) / 2
    lost, heights = [], []
    for performer, repetition, action, camera in list_clips()[::4]:
        pixels = project_joints(performer, repetition, action, camera)
        x, y = pixels[..., 0], pixels[..., 1]
        lost.append(((x < left) | (x > right) | (y < 0) | (y > SIZE[1])).mean())
        heights.append((y[0].max() - y[0].min()) / SIZE[1])
    assert np.mean(lost) < 0.005 and max(lost) < 0.1
    assert 0.6 < np.median(heights) < 0.85


def test_cameras_see_the_same_take_from_their_sides():
    assert perform(3, 1, 44).skeleton.joints.tolist() == perform(3, 1, 44, frames=None).skeleton.joints.tolist()
    widths = []
    for camera in (1, 2, 3):
        shoulders = project_joints(3, 1, 44, camera)[0, [JOINTS.index("left shoulder"), JOINTS.index("right shoulder")]]
        widths.append(shoulders[0, 0] - shoulders[1, 0])
    assert widths[1] > 15 and min(widths[0], widths[2]) < 0.85 * widths[1] and min(widths) > 0  # all see the front
    clips = [render_clip(3, 1, 44, camera, frames=1).astype(int) for camera in (1, 2, 3)]
    assert all(np.abs(clips[a] - clips[b]).mean() > 4 for a, b in ((0, 1), (1, 2), (0, 2)))


def test_the_acting_hand_is_known_in_rendered_clips_only():
    name = f"headache/{clip_name(3, 1, 44, 2).removesuffix('.avi')}"
    frames = describe_clip(name).frames
    clips = pd.DataFrame([(name, frames, True), (name, frames, False), (name, frames + 1, True),
                          ("fall/subject_1_3", 80, True)], columns=["clip", "length", "synthetic"])
    [(clip, (hand, leg))] = locate_hands(clips).items()
    assert clip == name and hand.shape == leg.shape == (frames, 2) and hand.min() > 0 and hand.max() < 1
    assert hand[frames // 2, 1] < 0.5 * leg[frames // 2, 1], "at the head, above the shin"
    assert not locate_hands(clips[1:]), "filmed, another clip of that name, another name"


def test_equal_seeds_draw_equal_clips_and_other_seeds_others():
    first, again, other = (render_clip(1, 1, 45, 2, seed=seed, frames=2) for seed in (0, 0, 1))
    assert first.shape == (2, 180, 320, 3) and first.dtype == np.uint8
    assert (first == again).all() and (first != other).any()
    assert np.abs(first.astype(int) - render_clip(2, 1, 45, 2, frames=2)).mean() > 4
    assert not np.array_equal(perform(1, 1, 45).skeleton.joints[:50], perform(1, 2, 45).skeleton.joints[:50])


def test_written_clips_are_named_like_ntus_and_say_that_they_are_synthetic(tmp_path):
    paths = write_clips(tmp_path, actions=["falling_down"], performers=[3], frames=4, processes=1)
    assert [path.name for path in paths] == [f"S002C00{camera}P003R001A043_rgb.avi" for camera in (1, 2, 3)]
    facts = probe(paths[0])
    assert facts.synthetic and (facts.width, facts.height, facts.frames, facts.fps) == (320, 180, 4, 30)
    first, *_ = stream_frames(paths[0], height=180)
    assert np.abs(first.astype(int) - render_clip(3, 1, 43, 1, frames=1)[0]).mean() < 4
    assert montage(tmp_path, performer=3, frames=2, width=80).size == (160, 3 * 45)
    with pytest.raises(ValueError, match="expected clips"):
        montage(tmp_path, performer=6)


def test_files_depend_neither_on_processes_nor_on_other_clips_and_are_kept(tmp_path):
    one = write_clips(tmp_path / "one", actions=[44, 49], performers=[6], frames=3, processes=1)
    two = write_clips(tmp_path / "two", actions=[49], performers=[6], frames=3, processes=2)
    contents = {path.name: path.read_bytes() for path in one}
    assert len(one) == 6 and all(contents[path.name] == path.read_bytes() for path in two)
    before = one[0].stat().st_mtime_ns
    one[1].unlink()
    write_clips(tmp_path / "one", actions=[44, 49], performers=[6], frames=3, processes=1)
    assert one[0].stat().st_mtime_ns == before and one[1].read_bytes() == contents[one[1].name]


@pytest.mark.parametrize("wrong", [{"performer": 11}, {"repetition": 3}, {"action": 2}, {"camera": 0}, {"frames": 0}])
def test_arguments_out_of_range_are_refused(wrong):
    arguments = {"performer": 1, "repetition": 1, "action": 44, "camera": 1} | wrong
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}: expected"):
        render_clip(**arguments)


@pytest.mark.parametrize("wrong", [{"actions": ["sleeping"]}, {"performers": [99]}, {"frames": 0}])
def test_wrong_choices_of_clips_are_refused(tmp_path, wrong):
    with pytest.raises(ValueError, match="expected"):
        write_clips(tmp_path, **wrong)


def test_an_everyday_action_can_be_one_more_class(tmp_path):
    """The README's extension: the performers of the medical actions act it, too, those who are tested as well."""
    more = list_clips((NUMBERS["sit_down"],))
    added = set(more) - set(list_clips())
    assert {performer for performer, *_ in added} == set(MEDICAL_PERFORMERS)
    assert {action for _, _, action, _ in added} == {NUMBERS["sit_down"]} and len(added) == 20 + 12
    paths = write_clips(tmp_path, actions=["sit_down"], also=["sit_down"], performers=[3], frames=4, processes=1)
    assert len(paths) == 3 and all(path.is_file() for path in paths)
    assert describe_clip(paths[0].name).action_name == "sit_down"
