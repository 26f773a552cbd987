"""How a person looks: the surfaces of body, hair and clothes around a skeleton.

Surfaces are in decimetres: the renderer's blending and shading are made for things of a hand's size.
"""

from dataclasses import dataclass

import numpy as np

from synthetic_clips.figure import SIDES, Build, Skeleton
from synthetic_clips.render import Cone, Ellipsoid, linear, unit

TORSO, LEGS, ARMS, HEAD, HAIR, FACE, SHOES, THING, STOOL = 0, 1, (2, 3), 4, 5, 6, (7, 8), 9, 10


@dataclass(frozen=True)
class Costume:
    """Colours in linear light and cut of the clothes."""

    skin: np.ndarray
    hair: np.ndarray
    shirt: np.ndarray
    sleeve: np.ndarray
    trousers: np.ndarray
    shoes: np.ndarray
    long_sleeves: bool
    bare_shins: bool
    hair_length: int  # 0 short, 1 usual, 2 long


def _cone(start, end, radii, color, body, **more):
    return Cone(start / 10, end / 10, (radii[0] / 10, radii[1] / 10), color=color, body=body, gloss=0.05, **more)


def _lump(center, axes, half, color, body, **more):
    """An ellipsoid; axes: (3, 3) with the directions of its half axes as columns."""
    return Ellipsoid(center / 10, (axes * half).T / 10, color=color, body=body, gloss=0.05, **more)


def _head(head, axes, neck, chest_axes, costume, scale):
    """Head, hair and face."""
    def at(x, y, z):
        return head + axes @ np.array([x, y, z]) * scale

    found = [
        _cone(neck - chest_axes[:, 2] * 5 * scale, head, (5.6 * scale, 5.2 * scale), costume.skin, HEAD),
        _lump(head, axes, np.array([7.6, 9.6, 11.6]) * scale, costume.skin, HEAD),
        _cone(at(0, -9.4, 0), at(0, -10.8, -2.4), (1.0 * scale, 1.3 * scale), costume.skin, HEAD),
        _lump(at(0, -8.4, -6.2), axes, np.array([2.6, 1.0, 0.8]) * scale, linear(150, 62, 58), FACE),
    ]
    for sign in SIDES:
        eye = np.array([1.5, 0.9, 0.9]) * scale
        found.append(_lump(at(3.2 * sign, -8.9, 1.2), axes, eye, linear(22, 18, 18), FACE))
    size = np.array([[8.0, 9.6, 10.6], [8.7, 10.4, 11.4], [9.2, 10.8, 11.8]][costume.hair_length]) * scale
    found.append(_lump(at(0, 2.0, 2.6), axes, size, costume.hair, HAIR))
    if costume.hair_length == 2:
        found.append(_cone(at(0, 4.5, 0), at(0, 8.5, -20), (8.0 * scale, 6.0 * scale), costume.hair, HAIR))
    return found


def dress(skeleton: Skeleton, frame: int, build: Build, costume: Costume, thing=None, holder=1):
    """The surfaces of a person in one frame, in decimetres; thing: what the hand of side `holder` holds, or None."""
    scale, girth = build.scale, build.scale * build.girth
    joints = skeleton.joints[frame]
    pelvis_axes, chest_axes = skeleton.pelvis[frame], skeleton.chest[frame]
    base, middle, neck, head, top = joints[[0, 1, 2, 3, 20]]
    shirt, trousers, skin = costume.shirt, costume.trousers, costume.skin
    wide = np.array([girth * build.shoulders, girth, scale])
    found = [
        _lump(top - chest_axes[:, 2] * 15 * scale, chest_axes, np.array([16.5, 10.8, 19]) * wide, shirt, TORSO),
        _lump(middle, chest_axes, np.array([15, 10.8, 22]) * wide, shirt, TORSO),
        _lump(base + pelvis_axes[:, 2] * 5 * scale, pelvis_axes, np.array([15.8, 11.2, 15]) * wide, shirt, TORSO),
        _lump(base - pelvis_axes[:, 2] * 4 * scale, pelvis_axes, np.array([16.5, 11.8, 13]) * wide, trousers, LEGS),
        _cone(joints[4], joints[8], (6.6 * scale, 6.6 * scale), shirt, TORSO),
        _cone(top, neck, (8 * scale, 5.5 * scale), shirt, TORSO),
    ]
    for side in range(2):
        shoulder, elbow, wrist, hand = joints[4 + 4 * side : 8 + 4 * side]
        tip, thumb = joints[21 + 2 * side], joints[22 + 2 * side]
        body = ARMS[side]
        if costume.long_sleeves:
            cuff = elbow + 0.88 * (wrist - elbow)
            found += [
                _cone(shoulder, elbow, (6.0 * girth, 4.8 * girth), costume.sleeve, body),
                _cone(elbow, cuff, (4.8 * girth, 3.9 * girth), costume.sleeve, body),
            ]
        else:
            cuff = shoulder + 0.7 * (elbow - shoulder)
            found += [
                _cone(shoulder, cuff, (6.2 * girth, 5.8 * girth), costume.sleeve, body),
                _cone(cuff, elbow, (4.6 * girth, 4.2 * girth), skin, body),
                _cone(elbow, wrist, (4.0 * girth, 3.0 * girth), skin, body),
            ]
        found += [
            _cone(wrist, hand, (3.2 * scale, 4.4 * scale), skin, body),
            _cone(hand, tip, (4.4 * scale, 2.4 * scale), skin, body),
            _cone(wrist, thumb, (2.0 * scale, 1.5 * scale), skin, body),
        ]
        hip, knee, ankle, foot = joints[12 + 4 * side : 16 + 4 * side]
        shin = skin if costume.bare_shins else trousers
        thick = 1.12 if costume.bare_shins else 1.0
        found += [
            _cone(hip, knee, (9.4 * girth, 6.2 * girth * thick), trousers, LEGS),
            _cone(knee, ankle, (6.0 * girth, 4.2 * scale), shin, LEGS),
            _cone(ankle - unit(foot - ankle) * 2, foot, (4.6 * scale, 3.6 * scale), costume.shoes, SHOES[side]),
        ]
    found += _head(head, skeleton.head[frame], neck, chest_axes, costume, scale)
    if thing:
        found += _held(thing, joints, chest_axes, holder)
    return found


def _held(thing, joints, chest_axes, holder):
    """What a hand holds."""
    hand, tip = joints[7 + 4 * holder], joints[21 + 2 * holder]
    along = unit(tip - hand)
    if thing == "cup":
        start = hand + along * 5 - chest_axes[:, 2] * 5
        return [_cone(start, start + chest_axes[:, 2] * 10, (3.6, 4.2), linear(236, 236, 240), THING)]
    if thing == "phone":
        return [_cone(hand - along * 4, hand + along * 9, (3.2, 3.2), linear(30, 30, 36), THING)]
    if thing == "brush":
        return [_cone(hand, hand + along * 15, (2.0, 3.2), linear(150, 60, 40), THING)]
    if thing == "bottle":
        return [_cone(hand - along * 3, hand + along * 3, (5.5, 5.5), linear(70, 120, 60), THING)]
    if thing == "paper":
        toward_face = unit(np.cross(along, chest_axes @ [0.8 * SIDES[holder], 0.6, 0]))
        axes = np.stack([along, np.cross(toward_face, along), toward_face], 1)
        return [_lump(hand + along * 13, axes, np.array([11, 8, 1.0]), linear(240, 240, 234), THING)]
    raise ValueError(f"thing: expected cup, phone, brush, bottle or paper, found {thing}")


def stool(center, height):
    """A round stool on the floor at x, y (cm) with its seat at `height`, in decimetres."""
    x, y = center
    seat = np.array([x, y, height - 3])
    found = [Ellipsoid(seat / 10, np.diag([1.9, 1.9, 0.4]), color=linear(150, 104, 66), body=STOOL, gloss=0.1)]
    for angle in np.radians([45, 135, 225, 315]):
        way = np.array([np.cos(angle), np.sin(angle), 0])
        found.append(_cone(seat + way * 11, np.array([x, y, 1]) + way * 16, (1.8, 1.6), linear(96, 66, 44), STOOL))
    return found
