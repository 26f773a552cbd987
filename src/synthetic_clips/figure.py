"""A person as a skeleton of the 25 joints of NTU RGB+D, put into posture by angles and by where hands and feet are.

Lengths are in centimetres. The person's own axes: x to the person's left, y to the back, z up, the origin on the floor
between the feet. Turns are rotation vectors in degrees: (forward, to the left, about the own axis to the left). Sides
are numbered: 0 left, 1 right.
"""

from dataclasses import dataclass, field

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from synthetic_clips.render import unit

JOINTS = (
    "spine base", "spine middle", "neck", "head",
    "left shoulder", "left elbow", "left wrist", "left hand",
    "right shoulder", "right elbow", "right wrist", "right hand",
    "left hip", "left knee", "left ankle", "left foot",
    "right hip", "right knee", "right ankle", "right foot",
    "spine shoulder", "left hand tip", "left thumb", "right hand tip", "right thumb",
)  # fmt: skip
SIDES = (1, -1)  # the sign of x on the left and on the right
USUAL_STATURE = 172.0  # places on the body are given for this stature


@dataclass(frozen=True)
class Build:
    """Size and proportions of a body."""

    stature: float
    shoulders: float = 1.0  # width, 1 the usual
    arms: float = 1.0  # length, 1 the usual
    legs: float = 1.0
    girth: float = 1.0

    @property
    def scale(self):
        """Size against the usual stature."""
        return self.stature / USUAL_STATURE

    @property
    def thigh(self):
        return 0.24 * self.stature * self.legs

    @property
    def ankle(self):
        """Height of the ankle when the foot stands."""
        return 0.045 * self.stature


@dataclass
class Reach:
    """Where a hand goes: `weight` (frames) says when, from 0 to 1; `place` (frames, 3) is at the usual stature.

    frame: the part of the body that the place is relative to: head, chest (from the middle of the shoulders), pelvis,
    or floor (from the spot where the person stands). elbow: the direction in which the elbow points, in chest axes.
    """

    weight: np.ndarray
    frame: str
    place: np.ndarray
    elbow: np.ndarray


@dataclass
class Posture:
    """A movement: the posture in every frame. Made standing at rest, then changed by the functions of `motions`."""

    count: int
    pelvis: np.ndarray = field(init=False)  # (frames, 3), moved from where it is when standing
    tilt: np.ndarray = field(init=False)  # (frames, 3), turn of the pelvis and all above it
    spine: np.ndarray = field(init=False)  # (frames, 3), turn at the waist
    chest: np.ndarray = field(init=False)  # (frames, 3), turn in the middle of the spine
    head: np.ndarray = field(init=False)  # (frames, 3)
    shoulders: np.ndarray = field(init=False)  # (frames, 3), both: outward, back, up
    feet: np.ndarray = field(init=False)  # (2, frames, 3), moved from where they are when standing
    loose: np.ndarray = field(init=False)  # (frames,), 0 feet stand, 1 legs are carried along with the pelvis
    knees: np.ndarray = field(init=False)  # (2, frames), how far the legs are bent when loose, cm
    bent: np.ndarray = field(init=False)  # (frames, 3), added to where the knees point: outward, back, up of the pelvis
    toes: np.ndarray = field(init=False)  # (frames, 3), added to where the feet point: outward, back, up
    roll: np.ndarray = field(init=False)  # (frames,), turn about the body's own axis, before the tilt
    turn: np.ndarray = field(init=False)  # (frames,), turn to the left of the person and the floor about them
    path: np.ndarray = field(init=False)  # (frames, 2), where the person has gone, not turned by `turn`
    reaches: tuple[list[Reach], list[Reach]] = field(init=False)
    hanging: np.ndarray = field(init=False)  # (2, 3), where resting hands hang, added to straight down
    stance: float = 0.0  # feet apart, added to the width of the hips, cm at each side
    thing: str | None = None  # what the hand holds
    holder: int = 1  # the side that acts
    seat: float | None = None  # how far behind the person a stool stands, cm at the usual stature

    def __post_init__(self):
        for name in ("pelvis", "tilt", "spine", "chest", "head", "shoulders", "bent", "toes"):
            setattr(self, name, np.zeros((self.count, 3)))
        for name in ("loose", "roll", "turn"):
            setattr(self, name, np.zeros(self.count))
        self.feet, self.knees = np.zeros((2, self.count, 3)), np.zeros((2, self.count))
        self.path = np.zeros((self.count, 2))
        self.reaches = [], []
        self.hanging = np.zeros((2, 3))

    def reach(self, side, weight, frame, place, elbow):
        """Move a hand; place and elbow are given for the left side and mirrored for the right."""
        mirror = np.array([SIDES[side], 1, 1])
        place = np.broadcast_to(np.asarray(place, float) * mirror, (self.count, 3))
        elbow = np.broadcast_to(np.asarray(elbow, float) * mirror, (self.count, 3))
        self.reaches[side].append(Reach(np.broadcast_to(weight, self.count), frame, place, elbow))


@dataclass
class Skeleton:
    """Where a person is in every frame: joints (frames, 25, 3), and the axes (frames, 3, 3; columns) of three parts."""

    joints: np.ndarray
    pelvis: np.ndarray
    chest: np.ndarray
    head: np.ndarray

    def joint(self, name):
        """Positions (frames, 3) of a joint, by its name in JOINTS."""
        return self.joints[:, JOINTS.index(name)]


def _turns(degrees):
    return Rotation.from_rotvec(degrees, degrees=True).as_matrix()


def _moved(axes, vector):
    """Vectors (3,) or (frames, 3) in the world, from axes (frames, 3, 3)."""
    return np.einsum("fij,fj->fi", axes, np.broadcast_to(vector, (len(axes), 3)))


def _above(middle, radius, side, way, least):
    """Directions as `side`, turned about `way` as little as it takes for middle + radius * side to be `least` high."""
    other = np.cross(way, side)
    steep, top = np.hypot(side[:, 2], other[:, 2]), np.arctan2(other[:, 2], side[:, 2])
    allowed = np.arccos(np.clip((least - middle[:, 2]) / np.maximum(radius[:, 0] * steep, 1e-6), -1, 1))
    turn = (np.sign(top) * np.maximum(np.abs(top) - allowed, 0))[:, None]
    return side * np.cos(turn) + other * np.sin(turn)


def bend_limb(start, target, lengths, pole, least=5.0):
    """The middle joint and the end of a limb of two bones that reaches for a target; all of shape (frames, 3).

    lengths: of both bones; pole: the direction in which the middle joint points, if it is then at least `least` cm
    above the floor, else the nearest. A target out of reach is neared.
    """
    first, second = lengths
    way = target - start
    distance = np.linalg.norm(way, axis=1, keepdims=True)
    way = way / np.maximum(distance, 1e-6)
    distance = np.clip(distance, abs(first - second) + 1, 0.998 * (first + second))
    along = (first**2 + distance**2 - second**2) / (2 * distance)
    out = np.sqrt(np.maximum(first**2 - along**2, 0))

    def across(vector):
        return unit(vector - (vector * way).sum(1, keepdims=True) * way + 1e-6)

    # Where the pole passes along the limb, or down to the floor, its side changes at once; a joint takes some frames to
    # turn over.
    side = across(gaussian_filter1d(across(pole), 2.0, axis=0))
    side = gaussian_filter1d(_above(start + along * way, out, side, way, least), 1.3, axis=0)
    return start + along * way + out * side, start + distance * way


def _leg(build, posture, side, hip, ankle, pelvis_axes, level):
    """Joints of a leg, by name: where the foot stands, or carried along with the pelvis where it is loose."""
    sign, loose = SIDES[side], posture.loose[:, None]
    below = np.zeros((posture.count, 3)) + [sign * 4.0, -6, 0]
    below[:, 2] = posture.knees[side] - 1.94 * build.thigh
    ankle = ankle * (1 - loose) + (hip + _moved(pelvis_axes, below)) * loose
    ankle[:, 2] = np.maximum(ankle[:, 2], build.ankle)
    forward = _moved(pelvis_axes, [sign * 0.3, -1, 0])
    forward += _moved(pelvis_axes, [sign * 3, 0, 0]) * np.clip(-forward[:, 2:], 0, 1)  # aside, not into the floor
    pole = _moved(level, [sign * 0.2, -1, 0]) * (1 - loose) + forward * loose
    pole += _moved(pelvis_axes, posture.bent * [sign, 1, 1])
    knee, ankle = bend_limb(hip, ankle, (build.thigh, build.thigh), pole)
    ahead = _moved(level, [sign * 0.25, -1, 0]) * (1 - loose)
    ahead += _moved(pelvis_axes, [sign * 0.3, -0.7, -0.7]) * loose + _moved(level, posture.toes * [sign, 1, 1])
    foot = ankle + unit(ahead) * 0.085 * build.stature - [0, 0, 0.6 * build.ankle]
    foot[:, 2] = np.maximum(foot[:, 2], 2.5)
    return {"hip": hip, "knee": knee, "ankle": ankle, "foot": foot}


def _arm(build, posture, side, parts, level):
    """Joints of an arm, by name; parts: origin (frames, 3) and axes (frames, 3, 3) of what a hand can move with."""
    sign, tall, scale = SIDES[side], build.stature, build.scale
    top, chest_axes = parts["chest"]
    girdle = posture.shoulders * [sign, 1, 1] + [sign * 0.105 * tall * build.shoulders, 0, -0.012 * tall]
    shoulder = top + _moved(chest_axes, girdle)
    upper, fore, palm = np.array([0.168, 0.145, 0.05]) * tall * build.arms
    length = upper + fore + palm
    hang = shoulder + _moved(level, (posture.hanging[side] + [8, -5, 0]) * [sign, 1, 1]) - [0, 0, 0.955 * length]
    weights = sum((reach.weight for reach in posture.reaches[side]), np.zeros(posture.count))
    target = hang * (1 - weights)[:, None]
    pole = _moved(chest_axes, [sign * 0.5, 1, -0.2]) * (1 - weights)[:, None]
    for reach in posture.reaches[side]:
        origin, axes = parts[reach.frame]
        target += reach.weight[:, None] * (origin + _moved(axes, reach.place * scale))
        pole += reach.weight[:, None] * _moved(chest_axes, unit(reach.elbow))
    # On its way a hand goes around the body, not through it.
    around = 4 * np.clip(weights * (1 - weights), 0, 1)[:, None]
    target += around * _moved(chest_axes, np.array([sign * 9.0, -5, 0]) * scale)
    target[:, 2] = np.maximum(target[:, 2], 4)
    elbow, hand = bend_limb(shoulder, target, (upper, fore + palm), pole)
    along = unit(hand - elbow)
    thumb = hand + 0.03 * tall * unit(along + _moved(chest_axes, [-0.9 * sign, -0.9, 0.3]))
    tip = hand + along * 0.055 * tall
    thumb[:, 2], tip[:, 2] = np.maximum(thumb[:, 2], 2), np.maximum(tip[:, 2], 2)
    return {"shoulder": shoulder, "elbow": elbow, "wrist": hand - along * palm, "hand": hand,
            "hand tip": tip, "thumb": thumb}  # fmt: skip


def pose(build: Build, posture: Posture, facing: float = 0.0, place=(0.0, 0.0)) -> Skeleton:
    """Put a body into posture.

    facing: degrees to the left of straight ahead (against y); place: x and y of the person in the room.
    """
    tall, scale, count = build.stature, build.scale, posture.count
    pelvis_axes = _turns(posture.tilt) @ _turns(np.outer(posture.roll, [0, 0, 1]))
    chest_half = pelvis_axes @ _turns(posture.spine)
    chest_axes = chest_half @ _turns(posture.chest)
    head_axes = chest_axes @ _turns(posture.head)
    level = _turns(posture.tilt * [0, 0, 1])
    joints = np.zeros((count, 25, 3))

    hip_height = 2 * build.thigh + build.ankle
    hips = [_moved(pelvis_axes, [sign * 0.052 * tall, 0, -0.02 * tall]) for sign in SIDES]
    ankles = []
    for side, sign in enumerate(SIDES):
        rest = np.array([sign * (0.05 * tall + posture.stance), 0.01 * tall, build.ankle])
        ankles.append(rest + posture.feet[side] * scale)
    base = posture.pelvis * scale + [0, 0, hip_height - 0.6 + 0.02 * tall]
    for side in range(2):  # standing legs let the pelvis down as far as they are apart or bent
        aside = np.linalg.norm((base + hips[side] - ankles[side])[:, :2], axis=1)
        highest = ankles[side][:, 2] + np.sqrt(np.maximum((1.99 * build.thigh) ** 2 - aside**2, 0)) - hips[side][:, 2]
        base[:, 2] = np.where(posture.loose < 0.5, np.minimum(base[:, 2], highest), base[:, 2])
    middle = base + _moved(chest_half, [0, -0.005 * tall, 0.12 * tall])
    top = middle + _moved(chest_axes, [0, 0.012 * tall, 0.165 * tall])
    neck = top + _moved(chest_axes, [0, -0.002 * tall, 0.035 * tall])
    skull = neck + _moved(head_axes, [0, -0.012 * tall, 0.085 * tall])
    joints[:, 0], joints[:, 1], joints[:, 2], joints[:, 3], joints[:, 20] = base, middle, neck, skull, top

    parts = {"pelvis": (base, pelvis_axes), "chest": (top, chest_axes), "head": (skull, head_axes),
             "floor": (np.zeros((count, 3)), np.broadcast_to(np.eye(3), (count, 3, 3)))}  # fmt: skip
    for side, name in enumerate(("left", "right")):
        limbs = _leg(build, posture, side, base + hips[side], ankles[side], pelvis_axes, level)
        for part, points in (limbs | _arm(build, posture, side, parts, level)).items():
            joints[:, JOINTS.index(f"{name} {part}")] = points

    turn = _turns(np.outer(facing + posture.turn, [0, 0, 1]))
    joints = joints @ turn.transpose(0, 2, 1)
    joints[..., :2] += (posture.path * scale @ _turns([0, 0, facing])[:2, :2].T + place)[:, None]
    return Skeleton(joints, turn @ pelvis_axes, turn @ chest_axes, turn @ head_axes)
