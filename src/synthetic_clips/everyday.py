"""Everyday actions, to learn movement from before the medical ones: fifteen of NTU RGB+D and eight more; see `motions`.
"""

from dataclasses import replace

import numpy as np

from synthetic_clips.curves import bump, jerk, rise, wander
from synthetic_clips.figure import SIDES
from synthetic_clips.motions import MEDICAL, STANDING, Hold, go_through, sit, step_along

ON_THIGHS = (("pelvis", (12, -24, 7), (1, 0.8, 0)),) * 2
SQUAT = Hold((0, 10, 30 - STANDING), (22, 0), (16, 12, -22), ((5, 0, 0), (5, 0, 0)), bent=(0.5, 0, 0),
             toes=(0.3, 0, 0), hands=(("pelvis", (14, -42, 24), (1, 0.4, -0.5)),) * 2)  # fmt: skip
STEP_DOWN = Hold((0, 0, 52 - STANDING), (6, 0), (8, 6, 5), ((0, 40, 4), (2, -36, 0)),
                 hands=(None, ("floor", (12, -38, 54), (1, 0.4, 0))))  # fmt: skip
KNEELING = Hold((0, 0, 50 - STANDING), (2, 0), (2, 2, 4), ((2, 40, 0), (2, 38, 0)), toes=(0, 2, -0.3))
ON_HEELS = Hold((0, 36, 27 - STANDING), (8, 0), (4, 4, 8), ((1, 40, 0), (1, 39, 0)), toes=(0, 2, -0.3),
                hands=ON_THIGHS)  # fmt: skip
BOWED = Hold((0, 30, 34 - STANDING), (72, 0), (24, 14, 1), ((1, 40, 0), (1, 39, 0)), toes=(0, 2, -0.3),
             hands=(("floor", (17, -42, 4), (1, 0.6, 0.2)),) * 2)  # fmt: skip
ON_FOURS = Hold((0, 8, 48 - STANDING), (70, 0), (12, 6, -24), ((2, 44, 0), (2, 42, 0)), toes=(0, 2, -0.3),
                hands=(("floor", (17, -44, 4), (1, 0.6, 0.2)),) * 2)  # fmt: skip
PROP = ("floor", (28, 70, 4), (0.6, 1, 0))  # a hand on the floor behind
ON_KNEES = ("pelvis", (13, -34, 26), (1, 0.4, -0.3))
SEATED = Hold((0, 48, 15 - STANDING), (-6, 0), (12, 10, 6), ((2, -8, 0), (3, -12, 0)), bent=(0.3, 0, 1.5),
              toes=(0.2, 0, 0.2), hands=(PROP, ON_KNEES))  # fmt: skip
STRETCHED = Hold((0, 48, 15 - STANDING), (-8, 0), (8, 6, 8), ((2, -24, 0), (3, -27, 0)), bent=(0.2, 0, 1.5),
                 toes=(0.2, 0, 1.2), hands=(PROP, PROP))  # fmt: skip
CROSSED = Hold((0, 40, 15 - STANDING), (2, 0), (8, 8, 4), ((-14, 16, 0), (-10, 4, 0)), bent=(4, 0, 0.6),
               toes=(-1.2, 0.6, 0), hands=(("pelvis", (26, -22, 14), (1, 0.5, 0)),) * 2)  # fmt: skip
ON_BACK = Hold((0, 48, 15 - STANDING), (-86, 0), (2, 2, 2), loose=1, knees=(3, 6))


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


def sit_down(take):
    """From standing to sitting on a stool."""
    sit(take, rise(take.times, take.draw(0.1, 0.3), take.draw(1.0, 1.3) / take.tempo))


def stand_up(take):
    """From sitting on a stool to standing."""
    sit(take, 1 - rise(take.times, take.draw(0.2, 0.45), take.draw(1.0, 1.3) / take.tempo))


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


def walk(take):
    """Steps along a way of about two metres, arms swinging; in a third of the takes the person turns round."""
    posture, t, random = take.posture, take.times, take.random
    take.look_anywhere(1)
    speed = np.full(len(t), take.draw(65, 105))
    if random.random() < 0.35:
        middle = take.draw(0.3, 0.7) * take.length
        posture.turn += random.choice([-1, 1]) * take.draw(90, 180) * rise(t, middle - 0.5, 1.0)
        speed *= 1 - 0.6 * bump(t, middle - 0.5, 1.0)
    elif random.random() < 0.4:  # setting off, or stopping
        on = rise(t, take.draw(0, 0.7), 0.6)
        speed *= on if random.random() < 0.5 else on[::-1]
    phase = step_along(take, speed, take.draw(0.8, 1.0))
    posture.tilt[:, 2] += 4 * np.sin(2 * np.pi * phase)
    take.lean(1, 3, 2, take.draw(0, 12))
    carrying = random.random() < 0.2
    for side, sign in enumerate(SIDES):
        swing = sign * np.cos(2 * np.pi * phase) * np.clip(speed / 80, 0, 1) * take.size
        place = np.stack([np.full(len(t), 25.0), -5 - 19 * swing, 5 * swing**2 - 8 - 3 * swing], 1)
        if not carrying or side != take.side:
            posture.reach(side, 0.95, "pelvis", place, (0.3, 1, -0.2))
    if carrying:
        posture.thing = "paper"
        posture.reach(take.side, 0.95, "chest", (10, -30, -20), (1, 0.3, -0.6))


def _rest_arms(take, on):
    """Arms of somebody who stands and waits: hanging, folded, in the pockets, behind the back or on a hip."""
    manner = take.random.choice(["hanging", "folded", "pockets", "behind", "hip", "before"])
    places = {"folded": ("chest", (-10, -20, -22), (1, -0.2, -0.6)), "pockets": ("pelvis", (18, -5, 3), (1, 0.8, 0)),
              "behind": ("pelvis", (3, 17, 4), (1, 0.9, 0)), "hip": ("pelvis", (20, -3, 12), (1, 0.6, 0)),
              "before": ("pelvis", (1, -17, 0), (1, 0.4, 0))}  # fmt: skip
    for side in range(2):
        if manner in places and (manner != "hip" or side == take.side):
            frame, place, elbow = places[manner]
            place = np.add(place, (0, -4 * side, 3 * side)) if manner in ("folded", "before") else place
            take.posture.reach(side, 0.95 * on, frame, place, elbow)


def _look_about(take, size=1.0):
    """The head turning and nodding, the weight shifting."""
    random, count = take.random, len(take.times)
    take.posture.head += size * wander(random, count, 0.9, 3) * [6, 3, take.draw(4, 22)]
    take.posture.chest += size * wander(random, count, 1.2, 3) * [2, 1.5, 3]


def stand_still(take):
    """Standing and waiting, the weight shifting a little."""
    take.look_anywhere()
    _rest_arms(take, 1 if take.random.random() < 0.6 else take.onset(0.6))
    _look_about(take)
    shift = wander(take.random, len(take.times), 1.3)[:, 0]
    take.posture.pelvis[:, 0] += 2.5 * shift
    take.posture.spine[:, 1] -= 2 * shift


def sit_still(take):
    """Sitting on the stool all the time, reading, resting or looking about."""
    posture, random = take.posture, take.random
    take.look_anywhere()
    manner = random.choice(["knees", "reading", "bent", "folded"])
    take.lean(1, *{"reading": (6, 8, 22), "bent": (28, 14, 4)}.get(manner, (3, 3, 4)))
    for side in range(2):
        if manner == "reading":
            posture.reach(side, 0.95, "chest", (9, -30, -20 + random.normal(0, 2)), (1, 0.2, -0.8))
        elif manner == "bent":
            posture.reach(side, 0.95, "floor", (2, -6, 58), (1, 0.2, -0.5))
        elif manner == "folded":
            posture.reach(side, 0.95, "chest", (-10, -20 - 4 * side, -22 + 3 * side), (1, -0.2, -0.6))
    if manner == "reading":
        posture.thing = "paper"
    sit(take, np.ones(len(take.times)))
    _look_about(take, 0.5 if manner == "reading" else 1)


def _go(take, *holds, wait=0.3):
    """Pass through holds over the whole clip, perhaps waiting before and after, perhaps only a part of the way."""
    take.look_anywhere()
    first = 0 if take.random.random() < 0.7 else take.draw(0, 0.5)  # has begun before the clip
    start, end = take.draw(0, wait), take.length - take.draw(0, wait)
    steps = np.cumsum([0, *(take.draw(0.8, 1.2) for _ in holds[1:])])
    weights = go_through(take, holds, start + (end - start) * (steps / steps[-1] - first / len(holds)))
    _look_about(take, 0.6)
    return weights


def squat_down(take):
    """Squatting down, and up again or staying."""
    _go(take, *[(Hold(), SQUAT, Hold()), (Hold(), SQUAT, SQUAT, Hold()), (Hold(), SQUAT, SQUAT), (SQUAT, SQUAT, Hold())]
        [take.random.choice(4, p=[0.4, 0.2, 0.2, 0.2])])  # fmt: skip


def kneel(take):
    """Down on the knees, staying there or sitting on the heels and bowing to the floor as in prayer."""
    _go(take, *[(Hold(), STEP_DOWN, KNEELING, KNEELING), (Hold(), STEP_DOWN, KNEELING, ON_HEELS),
                (ON_HEELS, BOWED, BOWED, ON_HEELS), (KNEELING, ON_HEELS, BOWED), (ON_HEELS, ON_HEELS),
                (BOWED, BOWED, ON_HEELS)][take.random.integers(6)])  # fmt: skip


def _lying(take):
    """Lying on the back or on a side, with arms anyhow."""
    roll = take.draw(-85, 85) if take.random.random() < 0.5 else take.draw(-8, 8)
    aside = abs(np.sin(np.radians(roll)))
    rests = [(26, -3, -44), (24, -16, -32), (40, -2, 10), (14, -18, -18), (16, -4, 30)]
    hands = tuple(("chest", rests[take.random.integers(len(rests))], (1, 0.5, -0.2)) for _ in range(2))
    bends = tuple(take.draw(2, 36) for _ in range(2))
    return replace(ON_BACK, pelvis=(0, 48, 15 + 5 * aside - STANDING), roll=roll, knees=bends, hands=hands,
                   lean=(take.draw(0, 8 + 12 * aside), take.draw(0, 6), take.draw(0, 12)))  # fmt: skip


def _lying_ahead(take):
    """Lying on the front or nearly so."""
    hands = tuple(("chest", place, (1, 0.2, 0)) for place in ((30, -14, 24), (22, -12, -36)))
    return Hold((0, 0, 16 - STANDING), (84, 0), (0, 0, -6), ((2, 40, 0), (2, 38, 0)), loose=1,
                knees=(take.draw(2, 20), take.draw(2, 10)), roll=take.draw(-40, 40), hands=hands)  # fmt: skip


def _ways_down(take):
    """Holds from standing to lying, deliberately: by sitting down first, or by kneeling."""
    if take.random.random() < 0.7:
        return Hold(), SQUAT, take.random.choice([SEATED, STRETCHED]), _lying(take)
    return Hold(), STEP_DOWN, ON_FOURS, _lying_ahead(take)


def lie_down(take):
    """Slowly squatting or kneeling, a hand on the floor, then sitting or on all fours, then lying down."""
    holds = _ways_down(take)
    _go(take, *holds[take.random.choice([0, 0, 0, 1, 2]):], wait=0.15)


def get_up(take):
    """From lying or kneeling up to standing, or to sitting on the floor."""
    holds = _ways_down(take)[::-1]
    part = take.random.choice(["all", "kneeling", "half"], p=[0.5, 0.25, 0.25])
    _go(take, *{"all": holds, "kneeling": (KNEELING, STEP_DOWN, Hold()), "half": holds[:3]}[part], wait=0.2)


def lie_still(take):
    """Lying on the floor all the time, moving a little, or turning over."""
    take.look_anywhere(1)
    turns = take.random.random() < 0.3
    holds = [_lying(take), _lying(take)] if turns else [_lying(take) if take.random.random() < 0.75 else
                                                        _lying_ahead(take)] * 2  # fmt: skip
    go_through(take, holds, [take.draw(0.1, 0.5), take.length - take.draw(0.1, 0.5)])
    _look_about(take, 0.6)
    take.posture.knees += 3 * wander(take.random, len(take.times), 1.0, 2).T


def sit_on_floor(take):
    """Sitting on the floor, legs crossed, bent or stretched, reading or resting; sometimes sitting down there first."""
    seat = [SEATED, STRETCHED, CROSSED][take.random.integers(3)]
    reading = seat is CROSSED and take.random.random() < 0.5
    if reading:
        take.posture.thing = "paper"
        seat = replace(seat, hands=(("chest", (9, -29, -22), (1, 0.2, -0.8)),) * 2, lean=(10, 10, 22))
    _go(take, *((seat, seat) if take.random.random() < 0.6 or reading else (Hold(), SQUAT, seat)))


EVERYDAY = {1: drink_water, 4: brush_hair, 6: pick_up, 7: throw, 8: sit_down, 9: stand_up, 10: clapping,
            23: hand_waving, 24: kicking, 27: jump_up, 28: phone_call, 35: bow, 37: wipe_face,
            40: cross_hands, 80: squat_down, 121: walk, 122: stand_still, 123: sit_still, 124: kneel, 125: lie_down,
            126: get_up, 127: lie_still, 128: sit_on_floor}  # fmt: skip
ACTIONS = dict(sorted((EVERYDAY | MEDICAL).items()))
