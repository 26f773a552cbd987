"""The embedded clips in the manner of NTU RGB+D: skeletons, movements, cameras and files."""

from collections import Counter
from itertools import chain

import numpy as np
import pandas as pd
import pytest

from health_actions.data.clips import NTU_ACTIONS
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
from synthetic_clips.room import SIZE, camera_of

NUMBERS = {act.__name__: number for number, act in ACTIONS.items()}
MEDICAL_PERFORMERS = TRAINING + TESTED
FEET = {"jump_up": 40, "falling_down": 25, "lie_down": 23, "lie_still": 23, "get_up": 23}  # highest, cm; others 15
SEATED_TOO = ("sneeze_cough", "headache", "chest_pain", "back_pain", "neck_pain", "nausea_vomiting", "fan_self")


class Seen:
    """A take, in centimetres at the usual stature, with z up: joints (frames, 25, 3), and single ones by name."""

    def __init__(self, performer, repetition, action):
        self.performance = perform(performer, repetition, action)
        self.action, self.name = ACTIONS[action].__name__, f"P{performer:03d}R{repetition:03d}A{action:03d}"
        self.joints = self.performance.skeleton.joints / self.performance.performer.build.scale

    def __getattr__(self, name):
        if (joint := name.replace("_", " ")) not in JOINTS:
            raise AttributeError(name)
        return self.joints[:, JOINTS.index(joint)]

    @property
    def seated(self):
        return self.performance.posture.seat is not None


@pytest.fixture(scope="module")
def takes():
    """Every take that is filmed, by the name of its action."""
    found = {name: [] for name in NUMBERS}
    for performer, repetition, action in dict.fromkeys(clip[:3] for clip in list_clips()):
        found[ACTIONS[action].__name__].append(Seen(performer, repetition, action))
    return found


def test_the_list_of_clips_is_balanced():
    clips = list_clips()
    names = [clip_name(*clip) for clip in clips]
    assert len(set(names)) == len(clips) == (10 + 12) * 9 * 2 + 8 * 23 * 2 + 6 * (12 + 11)
    assert clip_name(1, 1, 43, 2) == "S001C002P001R001A043_rgb.avi"
    subsets = Counter((describe.subset, describe.action) for describe in map(describe_clip, names[::5]))
    assert {subset for subset, _ in subsets} == {"training", "testing", "source"}
    takes = Counter((performer, action) for performer, _, action, _ in clips)
    assert {takes[performer, 44] for performer in MEDICAL_PERFORMERS} == {2}
    assert all(takes[performer, action] == 2 for performer in SOURCE for action in EVERYDAY)
    for action in EVERYDAY:  # every second one is acted by half of those who are tested, once; no other acts it
        assert [takes[performer, action] for performer in TESTED] in ([1, 0] * 6, [0, 1] * 6)
        assert not any(takes[performer, action] for performer in TRAINING)
    cameras = {clip[:3]: clip[3] for clip in clips}
    for performer, action in {clip[::2] for clip in clips if clip[1] == 2}:  # no camera sees both takes
        assert cameras[performer, 1, action] != cameras[performer, 2, action]
    for action in (41, 45, 49):  # every camera sees each action about as often
        for group in (TRAINING, TESTED):
            seen = Counter(camera for performer, _, number, camera in clips if number == action and performer in group)
            assert set(seen) == {1, 2, 3} and max(seen.values()) - min(seen.values()) <= 1
    assert {SETUPS[number] for number in TESTED} <= {SETUPS[number] for number in TRAINING} == set(range(1, 7))


def test_the_actions_have_the_names_that_the_catalogue_reads_from_their_numbers():
    assert {number: NTU_ACTIONS[number] for number in ACTIONS} == {number: name for name, number in NUMBERS.items()}
    assert len(EVERYDAY) == 23 and set(EVERYDAY).isdisjoint(motions.MEDICAL) and len(ACTIONS) == 32


def test_a_name_tells_what_a_clip_shows():
    facts = describe_clip("S001C002P001R001A043_rgb.avi")
    assert (facts.setup, facts.camera, facts.performer, facts.action_name) == (1, 2, 1, "falling_down")
    assert facts.medical and facts.subset == "training" and facts.hand in ("left", "right")
    assert facts.frames == len(project_joints(1, 1, 43, 2))
    hands = Counter(describe_clip(clip_name(number, 1, 44, 1)).hand for number in MEDICAL_PERFORMERS)
    assert 0 < hands["left"] < hands["right"]


@pytest.mark.parametrize("name", ["falling.avi", "S001C002P001R001A003_rgb.avi", "S001C004P001R001A043_rgb.avi",
                                  "S001C002P030R001A043_rgb.avi", "S002C002P001R001A043_rgb.avi"])  # fmt: skip
def test_names_of_no_clip_are_refused(name):
    with pytest.raises(ValueError, match="expected one"):
        describe_clip(name)


def test_joints_are_finite_and_move_smoothly_above_the_floor(takes):
    for take in chain(*takes.values()):
        assert np.isfinite(take.joints).all(), take.name
        assert take.joints[..., 2].min() > 1 and take.joints[..., 2].max() < 240, take.name
        assert take.head[:, 2].min() > 9, take.name  # it is round: lower, the floor would cut it off
        lower = np.minimum(take.left_foot[:, 2], take.right_foot[:, 2])
        assert lower.max() < FEET.get(take.action, 15), take.name
        speed = np.linalg.norm(np.diff(take.joints, axis=0), axis=2).max()
        assert speed < 60, (take.name, speed)  # cm between two frames: nothing leaps


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


def test_who_falls_lies_or_half_sits_in_the_end_and_stays(takes):
    falls = takes["falling_down"]
    for fall in falls:
        assert fall.head[0, 2] > 100 and fall.spine_base[0, 2] > 50, (fall.name, "has not fallen yet")
        assert fall.spine_base[-1, 2] < 25 and fall.head[-1, 2] < 84, fall.name
        assert fall.joints[-10:, :, 2].max() < 90, fall.name
        for joint in (fall.spine_base, fall.head):  # over for 0.3 seconds
            assert np.ptp(joint[-9:], axis=0).max() < 3, fall.name
    lying = [fall.head[-1, 2] < 45 for fall in falls]
    assert 0.75 < np.mean(lying) < 1
    assert all(fall.joints[-10:, :, 2].max() < 75 for fall, flat in zip(falls, lying) if flat)


def test_falls_differ_in_direction_speed_and_beginning(takes):
    falls, ways, lengths = takes["falling_down"], [], []
    for fall in falls:
        height = fall.spine_base[:, 2]
        high, low = np.max(height), np.min(height)
        lengths.append(np.argmax(height < low + 0.1 * (high - low)) - np.argmax(height < high - 0.1 * (high - low)))
        ways.append(np.degrees(np.arctan2(*(fall.head - fall.spine_base)[-1, :2])) // 90)
    assert min(Counter(ways).values()) > 4 and len(set(ways)) == 4, "to all sides of the room, and so of the picture"
    assert min(lengths) < 12 and max(lengths) > 20, "frames"
    assert 3 <= sum(fall.seated for fall in falls) < len(falls) / 2
    facing = [fall.performance.skeleton.pelvis[-1, 2, 1] for fall in falls]  # 1 on the front, -1 on the back
    assert min(facing) < -0.9 and max(facing) > 0.9 and sum(abs(turned) < 0.5 for turned in facing) > 4


def test_whoever_means_to_get_down_is_slower_than_most_who_fall(takes):
    fastest = {name: [-np.diff(take.head[:, 2]).min() for take in takes[name]]  # cm from frame to frame
               for name in ("falling_down", "squat_down", "kneel", "lie_down", "sit_on_floor")}
    assert np.median(fastest.pop("falling_down")) > max(map(max, fastest.values()))


def test_some_are_unwell_on_a_stool(takes):
    shares = [np.mean([take.seated for take in takes[name]]) for name in SEATED_TOO]
    assert 0.25 < np.mean(shares) < 0.42 and min(shares) > 0 and max(shares) < 0.6
    for take in chain(*(takes[name] for name in SEATED_TOO)):
        assert (take.spine_base[:, 2].max() < 60) if take.seated else (take.spine_base[0, 2] > 85), take.name
    assert not any(take.seated for take in takes["staggering"])


def _lies(take):
    """Whether one lies, in each frame."""
    return (take.head[:, 2] < 45) & (take.spine_base[:, 2] < 25)


def _stays(take, within):
    return np.ptp(take.spine_base, axis=0).max() < within  # cm


def _measure_way(take):
    """How far the pelvis goes over the floor."""
    return np.linalg.norm(np.diff(take.spine_base[:, :2], axis=0), axis=1).sum()


IS_DONE = {
    "squat_down": lambda take: take.spine_base[:, 2].min() < 60 < 85 < take.spine_base[:, 2].max(),
    "walk": lambda take: 100 < _measure_way(take) < 300 and take.spine_base[:, 2].min() > 75,
    "stand_still": lambda take: _stays(take, 20) and take.spine_base[:, 2].min() > 85,
    "sit_still": lambda take: _stays(take, 10) and take.spine_base[:, 2].max() < 60 and take.seated,
    "kneel": lambda take: max(take.left_knee[-1, 2], take.right_knee[-1, 2]) < 15 and take.spine_base[-1, 2] > 20,
    "lie_down": lambda take: _lies(take)[-1] and take.head[0, 2] > 70,
    "get_up": lambda take: take.head[-1, 2] > max(70, take.head[0, 2] + 35),
    "lie_still": lambda take: _lies(take).all() and _stays(take, 10),
    "sit_on_floor": lambda take: take.spine_base[-1, 2] < 25 and 60 < take.head[-1, 2] < 100,
}


@pytest.mark.parametrize("name", IS_DONE)
def test_an_everyday_action_is_what_it_is_called(takes, name):
    assert len(takes[name]) == 8 * 2 + 6 and not [take.name for take in takes[name] if not IS_DONE[name](take)]


def test_some_everyday_actions_are_turned_to_all_sides_and_some_have_begun_before_or_stop_on_the_way(takes):
    for name in ("walk", "stand_still", "kneel", "lie_down", "get_up", "lie_still", "sit_on_floor"):
        across = np.array([(take.left_hip - take.right_hip)[0, :2] for take in takes[name]])
        assert np.linalg.norm(np.mean(across / np.linalg.norm(across, axis=1, keepdims=True), axis=0)) < 0.8, name
    assert {bool(take.head[0, 2] > 130) for take in takes["lie_down"]} == {True, False}
    assert {bool(take.head[-1, 2] > 130) for take in takes["get_up"]} == {True, False}


def test_a_standing_foot_stays_where_it_is_when_one_walks(takes):
    for take in takes["walk"]:
        feet = np.stack([take.left_ankle, take.right_ankle], 1)
        slides = np.linalg.norm(np.diff(feet[..., :2], axis=0), axis=2).min(axis=1)
        assert np.median(slides) < 1.5, take.name  # cm from frame to frame


def test_nearly_everyone_is_inside_the_middle_square():
    left, right = (SIZE[0] - SIZE[1]) / 2, (SIZE[0] + SIZE[1]) / 2
    lost, heights = [], []
    for performer, repetition, action, camera in list_clips()[::3]:  # 3, so that both takes are among them
        pixels = project_joints(performer, repetition, action, camera)
        x, y = pixels[..., 0], pixels[..., 1]
        lost.append(((x < left) | (x > right) | (y < 0) | (y > SIZE[1])).mean())
        heights.append((y[0].max() - y[0].min()) / SIZE[1])
    assert np.mean(lost) < 0.005 and max(lost) < 0.25
    assert 0.5 < np.median(heights) < 0.75 and np.mean(np.array(heights) > 0.85) < 0.01  # some sit or lie


def test_every_room_has_cameras_at_a_height_and_distance_of_its_own():
    places = []
    for setup in sorted(set(SETUPS.values())):
        cameras = [camera_of(setup, number, np.random.default_rng([setup, number, take])).position * 10
                   for number in (1, 2, 3) for take in range(8)]
        assert np.ptp(cameras, axis=0).min() > 5, "put up anew for each recording"
        places.append([np.mean([c[2] for c in cameras]), np.mean([np.hypot(*c[:2]) for c in cameras])])
    heights, distances = np.sort(np.transpose(places))
    assert np.diff(heights).min() > 8 and heights[0] < 100 and heights[-1] > 200
    assert np.diff(distances).min() > 20 and distances[-1] > 1.5 * distances[0]
    [one, again] = (camera_of(3, 1, np.random.default_rng(5)) for _ in range(2))
    assert (one.position == again.position).all() and (one.axes == again.axes).all()


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
    assert [path.name for path in paths] == ["S002C003P003R001A043_rgb.avi", "S002C001P003R002A043_rgb.avi"]
    facts = probe(paths[0])
    assert facts.synthetic and (facts.width, facts.height, facts.frames, facts.fps) == (320, 180, 4, 30)
    first, *_ = stream_frames(paths[0], height=180)
    assert np.abs(first.astype(int) - render_clip(3, 1, 43, 3, frames=1)[0]).mean() < 4
    assert montage(tmp_path, performer=3, frames=2, width=80).size == (160, 45)
    with pytest.raises(ValueError, match="expected clips"):
        montage(tmp_path, performer=6)


def test_files_depend_neither_on_processes_nor_on_other_clips_and_are_kept(tmp_path):
    one = write_clips(tmp_path / "one", actions=[44, 49], performers=[6], frames=3, processes=1)
    two = write_clips(tmp_path / "two", actions=[49], performers=[6], frames=3, processes=2)
    contents = {path.name: path.read_bytes() for path in one}
    assert len(one) == 4 and all(contents[path.name] == path.read_bytes() for path in two)
    before = one[0].stat().st_mtime_ns
    one[1].unlink()
    write_clips(tmp_path / "one", actions=[44, 49], performers=[6], frames=3, processes=1)
    assert one[0].stat().st_mtime_ns == before and one[1].read_bytes() == contents[one[1].name]


@pytest.mark.parametrize("wrong", [{"performer": 30}, {"repetition": 3}, {"action": 2}, {"camera": 0}, {"frames": 0}])
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
    assert {action for _, _, action, _ in added} == {NUMBERS["sit_down"]} and len(added) == 38
    assert Counter(clip[0] for clip in added) == {performer: 2 if performer in TRAINING or TESTED.index(
        performer) % 2 else 1 for performer in MEDICAL_PERFORMERS}, "every second one acts it once already"
    paths = write_clips(tmp_path, actions=["sit_down"], also=["sit_down"], performers=[3], frames=4, processes=1)
    assert len(paths) == 2 and all(path.is_file() for path in paths)
    assert describe_clip(paths[0].name).action_name == "sit_down"
