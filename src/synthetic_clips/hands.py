"""Anatomical hands of round cones: a wrist, a palm, five fingers of three jointed bones and a forearm.

A hand's own axes are radial (to the thumb), forward (to the fingers) and dorsal (out of the back of the hand).
The right hand is the left one mirrored. Lengths are in centimetres, angles in degrees.
"""

from dataclasses import dataclass, field

import numpy as np

from synthetic_clips.render import Cone, Ellipsoid, Spot, unit

# Where each finger leaves the palm (radial, forward, dorsal) and where its bone of the palm starts at the wrist.
KNUCKLES = np.array([[2.75, 8.9, -0.15], [0.75, 9.3, 0.15], [-1.2, 8.9, 0.05], [-2.95, 8.1, -0.35]])
CARPALS = np.array([[1.3, 0.9, 0.0], [0.45, 0.9, 0.1], [-0.5, 0.9, 0.1], [-1.3, 0.9, 0.0]])
BONES = np.array([[4.5, 2.7, 2.1], [5.0, 3.1, 2.2], [4.6, 2.9, 2.2], [3.6, 2.1, 1.9]])
THICKNESS = np.array([1.03, 1.05, 1.0, 0.88])
TAPER = (1.0, 0.9, 0.8, 0.64)  # finger radius at the knuckle, both joints and the tip


@dataclass(frozen=True)
class HandShape:
    """One person's hands: sizes relative to an average adult's, colours in linear light."""

    size: float = 1.0
    finger_length: float = 1.0
    finger_width: float = 1.0
    palm_width: float = 1.0
    skin: np.ndarray = field(default_factory=lambda: np.array([0.55, 0.33, 0.22]))
    palm: np.ndarray = field(default_factory=lambda: np.array([0.66, 0.40, 0.30]))
    gloss: float = 0.1
    sleeve: np.ndarray | None = None  # colour
    sleeve_start: float = 10.0  # cm from the wrist
    watch: np.ndarray | None = None  # colour, on the left wrist
    ring: bool = False  # on the left hand


@dataclass(frozen=True)
class HandPose:
    """Where a hand is and how it is bent.

    wrist, elbow: world points; forward, dorsal: world directions; flexion (4, 3): degrees of the joints of index to
    little finger, positive into the palm; spread (4,): degrees to the thumb's side; thumb: degrees that its root turns
    outwards from forward, into the palm, that its curl turns to the palm, and that its two joints bend.
    """

    wrist: np.ndarray
    forward: np.ndarray
    dorsal: np.ndarray
    elbow: np.ndarray
    flexion: np.ndarray
    spread: np.ndarray
    thumb: np.ndarray


def hand_axes(pose, side):
    """World directions (3, 3) of a hand's radial, forward and dorsal axis; side is +1 for left, -1 for right."""
    forward = unit(pose.forward)
    dorsal = unit(pose.dorsal - (np.asarray(pose.dorsal) @ forward) * forward)
    return np.stack([side * np.cross(forward, dorsal), forward, dorsal])


def hand_chains(pose, shape, side):
    """Joints (5, 4, 3) in the world, thumb first, of each finger from its root to its tip, and backs (5, 3, 3).

    The backs are the directions out of the nail's side of the three bones.
    """
    bend = np.radians(np.cumsum(pose.flexion, 1))
    turn = np.radians(pose.spread)
    ahead = np.stack([np.sin(turn), np.cos(turn), 0 * turn], -1)[:, None]
    up = np.array([0.0, 0.0, 1.0])
    bones = np.cos(bend)[..., None] * ahead - np.sin(bend)[..., None] * up
    backs = np.sin(bend)[..., None] * ahead + np.cos(bend)[..., None] * up
    steps = bones * (BONES * shape.finger_length)[..., None]
    roots = KNUCKLES * [shape.palm_width, 1, 1]
    fingers = np.concatenate([roots[:, None], roots[:, None] + np.cumsum(steps, 1)], 1)

    out, down, roll, *joints = np.radians(pose.thumb)
    root = np.array([np.sin(out) * np.cos(down), np.cos(out) * np.cos(down), -np.sin(down)])
    curl = np.array([-np.cos(roll), 0.25, -np.sin(roll)])
    curl = unit(curl - (curl @ root) * root)
    angles = np.array([0, joints[0], joints[0] + joints[1]])[:, None]
    thumb = np.cos(angles) * root + np.sin(angles) * curl
    nails = np.sin(angles) * root - np.cos(angles) * curl
    steps = thumb * (np.array([4.4, 3.5, 2.8]) * (1 + shape.finger_length) / 2)[:, None]
    start = np.array([1.9 * shape.palm_width, 1.7, -0.7])
    thumb = np.concatenate([start[None], start + np.cumsum(steps, 0)])

    axes = hand_axes(pose, side)
    joints = np.concatenate([thumb[None], fingers]) * shape.size @ axes + pose.wrist
    return joints, np.concatenate([nails[None], backs]) @ axes


def hand_surfaces(pose, shape, side, body):
    """Surfaces of one hand and its forearm (list of Cone and Ellipsoid); side is +1 for left, -1 for right.

    Skin has number `body`; a sleeve, watch or ring `body + 1`.
    """
    axes, size = hand_axes(pose, side), shape.size
    joints, backs = hand_chains(pose, shape, side)
    forward, dorsal = axes[1:]

    def place(*local):
        return np.array(local) * [shape.palm_width, 1, 1] * size @ axes + pose.wrist

    look = {"color": shape.skin, "back": shape.palm, "body": body, "gloss": shape.gloss}
    dark, nail = shape.skin * 0.45, np.minimum(shape.palm * 1.15 + 0.06, 1)
    surfaces = []
    for chain, back, thick in zip(joints, backs, np.concatenate([[1.12], THICKNESS])):
        radii = np.array(TAPER) * thick * shape.finger_width * size
        if thick > 1.1:
            radii *= [1.25, 1.0, 1.0, 1.05]
        for bone in range(3):
            crease = Spot(0.97, 0.1, -back[bone], 0.5, shape.palm * 0.6, 0.5)
            if bone == 2:
                spots = (Spot(0.75, 0.42, back[bone], 0.16, nail, 0.75),)
            else:
                spots = (Spot(1.0, 0.16, back[bone], 0.3, dark, 0.45), crease)
            ends = chain[bone : bone + 2]
            surfaces.append(Cone(*ends, radii[bone : bone + 2], front=back[bone], spots=spots, **look))
    for number, (carpal, knuckle) in enumerate(zip(CARPALS, KNUCKLES)):
        radii = 1.5 * size, 1.15 * (1 - 0.05 * number) * shape.finger_width * size
        spots = (Spot(1.0, 0.09, dorsal, 0.22, dark, 0.4),)
        surfaces.append(Cone(place(*carpal), place(*knuckle), radii, front=dorsal, spots=spots, **look))
    thumb = joints[0]
    thenar = unit(thumb[1] - thumb[0])
    across = unit(np.cross(thenar, dorsal))
    ball = np.stack([thenar * 2.9, across * 1.55, np.cross(thenar, across) * 1.45]) * size
    surfaces += [
        Ellipsoid((thumb[0] * 0.45 + thumb[1] * 0.55) - 0.35 * dorsal * size, ball, front=dorsal, **look),
        Cone(place(-2.3, 2.2, -0.75), place(-2.5, 5.0, -0.6), (1.25 * size, 1.15 * size), front=dorsal, **look),
        Cone(place(2, 5.6, -0.2), thumb[0] * 0.35 + thumb[1] * 0.65, (0.95 * size, 0.95 * size), front=dorsal, **look),
    ]
    # The forearm is wider than thick at the wrist, so it is two cones side by side that meet at the elbow.
    arm = unit(np.asarray(pose.elbow) - pose.wrist)
    flat = unit(np.cross(arm, dorsal))
    for offset in (-0.85, 0.85):
        start = pose.wrist + flat * offset * size + forward * 0.4 * size
        middle = pose.wrist + arm * 11 * size + flat * offset * 1.3 * size
        surfaces.append(Cone(start, middle, (1.85 * size, 2.7 * size), front=dorsal, **look))
        surfaces.append(Cone(middle, middle + arm * 22 * size, (2.7 * size, 3.6 * size), front=dorsal, **look))
    if shape.sleeve is not None:
        begin = shape.sleeve_start * size
        for offset in (-1.1, 1.1):
            start = pose.wrist + arm * begin + flat * offset * size
            hem = Spot(0.0, 0.025, -arm, 9.0, shape.sleeve * 0.5, 0.8)
            cloth = {"color": shape.sleeve, "body": body + 1, "gloss": 0.0, "open_ends": True, "spots": (hem,)}
            surfaces.append(Cone(start, start + arm * 30, (3.3 * size, 4.6 * size), **cloth))
    if shape.watch is not None and side > 0:
        for offset in (-0.9, 0.9):
            start = pose.wrist + arm * 2.2 * size + flat * offset * size
            band = {"color": shape.watch, "body": body + 1, "gloss": 0.3, "open_ends": True}
            surfaces.append(Cone(start, start + arm * 1.9, (2.2 * size, 2.3 * size), **band))
        face = np.stack([flat * 1.7, arm * 1.7, dorsal * 0.5]) * size
        center = pose.wrist + arm * 3.2 * size + dorsal * 2.2 * size
        surfaces.append(Ellipsoid(center, face, color=shape.watch * 0.4 + 0.02, body=body + 1, gloss=0.8))
    if shape.ring and side > 0:
        start, end = joints[3, 0] * 0.55 + joints[3, 1] * 0.45, joints[3, 0] * 0.4 + joints[3, 1] * 0.6
        radius = 1.02 * shape.finger_width * size
        gold = {"color": np.array([0.75, 0.55, 0.2]), "body": body + 1, "gloss": 0.9, "open_ends": True}
        surfaces.append(Cone(start, end, (radius, radius), **gold))
    return surfaces
