"""Fourteen everyday actions of NTU RGB+D, to learn movement from before the medical ones; see `motions`."""

import numpy as np

from synthetic_clips.curves import bump, jerk, rise
from synthetic_clips.figure import SIDES
from synthetic_clips.motions import MEDICAL

SEAT = 46.0  # height of the stool, cm at the usual stature
SIT = -37.0  # how much the pelvis sinks to sit, cm at the usual stature


def drink_water(take):
    """A cup raised to the mouth, the head tilting back."""
    on = take.onset(0.6) * (1 - 0.5 * rise(take.times, take.length - 0.4, 0.4))
    take.posture.thing = "cup"
    take.hand_to(take.side, "mouth", on, (2, -5, -3))
    take.lean(on * rise(take.times, 0.5, 0.5), -2, -5, -22 * take.size)


def brush_hair(take):
    """A brush stroking over the side of the head again and again."""
    on, stroke = take.onset(), take.wave(1.2)
    take.posture.thing = "brush"
    place = np.stack([14 + 2 * stroke, -1 + 5 * stroke, 2 + 10 * stroke], 1)
    take.posture.reach(take.side, on, "head", place, (1, -0.2, 0.2))
    take.posture.head[:, 1] -= on * SIDES[take.side] * 8


def pick_up(take):
    """Bending down to the floor with one hand and up again with a bottle."""
    down = bump(take.times, take.draw(0, 0.1), take.length * take.draw(0.85, 0.98))
    down = np.sqrt(down)
    take.posture.thing = "bottle"
    take.posture.reach(take.side, down, "floor", (10, -36, 12), (1, 0.5, 0))
    take.lean(down, 25, 20, 5)
    take.posture.tilt[:, 0] += 35 * down
    take.posture.pelvis += np.outer(down, [0, 18, -28 * take.size])


def throw(take):
    """An arm drawn back over the shoulder and flung forward."""
    start = take.draw(0.35, 0.5)
    back, fling = rise(take.times, 0, start), rise(take.times, start + 0.25, 0.2)
    sign, ease = SIDES[take.side], 1 - rise(take.times, start + 0.8, 0.5)
    place = np.outer(1 - fling, [30, 16, 22]) + np.outer(fling, [4, -56, -4])
    take.posture.reach(take.side, back * ease, "chest", place, (1, 0.4, 0.2))
    turn = (1.6 * fling - back) * 26 * take.size * ease
    take.posture.chest[:, 2] += sign * -turn
    take.posture.spine[:, 2] += sign * -0.5 * turn
    take.lean(fling * ease, 12, 8, 0)
    take.lean(back * (1 - fling), -6, -5, 0)
    take.posture.feet[1 - take.side] += np.outer(rise(take.times, start + 0.1, 0.3), [0, -22, 0])


def _sitting(take, seated):
    """Between standing (0) and sitting on the stool (1)."""
    posture = take.posture
    middle = 4 * seated * (1 - seated)
    take.lean(middle, 12, 9, -6)
    posture.tilt[:, 0] += 22 * middle
    posture.pelvis += np.outer(seated, [0, 40, 0])
    posture.pelvis[:, 2] += SIT * seated
    posture.seat = 42.0
    for side in range(2):
        posture.reach(side, rise(seated, 0.3, 0.7) * 0.95, "pelvis", (13, -32, 14), (1, 0.8, 0))


def sit_down(take):
    """From standing to sitting on a stool."""
    _sitting(take, rise(take.times, take.draw(0.1, 0.3), take.draw(1.0, 1.3) / take.tempo))


def stand_up(take):
    """From sitting on a stool to standing."""
    _sitting(take, 1 - rise(take.times, take.draw(0.2, 0.45), take.draw(1.0, 1.3) / take.tempo))


def clapping(take):
    """Both hands meeting before the chest again and again."""
    on, apart = take.onset(0.35), 0.5 + 0.5 * take.wave(2.3)
    for side in range(2):
        place = np.stack([4 + 15 * apart * take.size, -32 - 2 * apart, np.full_like(apart, -12 + 6 * take.habit)], 1)
        take.posture.reach(side, on, "chest", place, (1, 0.2, -0.7))


def hand_waving(take):
    """A raised hand swinging widely from side to side."""
    on, swing = take.onset(0.4), take.wave(1.6)
    place = np.stack([34 + 15 * swing * take.size, np.full_like(swing, -10), 40 - 4 * swing**2], 1)
    take.posture.reach(take.side, on, "chest", place, (1, 0.3, -0.3))


def kicking(take):
    """A leg swung back and kicked forward."""
    start = take.draw(0.3, 0.45)
    back, kick = bump(take.times, start - 0.3, 0.6), jerk(take.times, start + 0.1, 0.25, 0.5)
    second = jerk(take.times, start + 1.2, 0.25, 0.5)
    forward = kick + second
    take.posture.feet[take.side] += np.outer(back, [0, 34, 18]) + np.outer(forward, [0, -68, 46 * take.size])
    take.posture.pelvis[:, 0] -= SIDES[take.side] * 7 * np.clip(back + forward, 0, 1)
    take.lean(forward, -6, -4, 6)
    for side in range(2):
        take.posture.reach(side, 0.7 * np.clip(back + forward, 0, 1), "chest", (42, -6, -28), (0.5, 1, 0))


def jump_up(take):
    """Crouching and jumping, arms swinging up."""
    when = 0.05
    while when + 0.7 < take.length:
        crouch, up = bump(take.times, when, 0.5) + bump(take.times, when + 0.62, 0.4), bump(take.times, when + 0.3, 0.5)
        take.posture.pelvis[:, 2] += -22 * take.size * crouch + 24 * up
        take.posture.feet[:, :, 2] += 24 * up
        take.lean(crouch, 18, 14, -8)
        for side in range(2):
            take.posture.reach(side, 0.9 * up, "chest", (26, -26, 24), (1, 0.5, -0.3))
        when += take.draw(1.1, 1.3)


def phone_call(take):
    """A phone held at the ear."""
    on, sign = take.onset(0.5), SIDES[take.side]
    take.posture.thing = "phone"
    take.posture.reach(take.side, on, "head", (11.5, -2, -3), (0.9, -0.3, -0.8))
    take.posture.head[:, 1] += on * sign * 8
    take.posture.spine[:, 2] += on * 8 * take.wave(0.4)


def bow(take):
    """A bow from the hips, arms along the body, and up again."""
    down = np.sqrt(bump(take.times, 0, take.length * take.draw(0.85, 1)))
    take.posture.tilt[:, 0] += 24 * down * take.size
    take.lean(down, 18 * take.size, 12, 10)
    take.posture.pelvis[:, 1] += 12 * down
    for side in range(2):
        take.posture.reach(side, 0.9 * down, "pelvis", (21, -8, -18), (0.5, 1, 0))


def wipe_face(take):
    """A hand rubbing over the face from side to side."""
    on, rub = take.onset(0.4), take.wave(1.5)
    place = np.stack([1.5 + 8 * rub * take.size, -14 + 1.5 * np.abs(rub), 1 + 5 * take.wave(0.8)], 1)
    take.posture.reach(take.side, on, "head", place, (1, -0.4, -0.5))
    take.lean(on, 0, 4, 8)


def cross_hands(take):
    """Both forearms crossed before the face: say stop."""
    on = take.onset(0.4) * (1 - 0.3 * bump(take.times, 0.9, 0.7))
    for side in range(2):
        take.posture.reach(side, on, "chest", (-16, -30 - 5 * side, 14 + 6 * take.habit), (1, -0.1, -0.6))


EVERYDAY = {1: drink_water, 4: brush_hair, 6: pick_up, 7: throw, 8: sit_down, 9: stand_up, 10: clapping,
            23: hand_waving, 24: kicking, 27: jump_up, 28: phone_call, 35: bow, 37: wipe_face,
            40: cross_hands}  # fmt: skip
ACTIONS = dict(sorted((EVERYDAY | MEDICAL).items()))
