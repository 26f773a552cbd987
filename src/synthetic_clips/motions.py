"""The nine medical actions of NTU RGB+D as movements of a posture.

Each function gets a Take and changes its posture, standing at rest in the beginning. Angles are in degrees, places in
centimetres at the usual stature, as in `figure`.
"""

from dataclasses import dataclass
from functools import wraps

import numpy as np

from synthetic_clips.curves import FPS, bump, jerk, rise, wander
from synthetic_clips.figure import SIDES, Posture

# Where a hand goes on the left side: part of the body that it moves with, place of the hand, direction of the elbow.
SITES = {
    "temple": ("head", (10.5, -6.5, 4.0), (1.0, -0.25, -0.05)),
    "forehead": ("head", (5.0, -12.5, 5.5), (1.0, -0.5, -0.2)),
    "mouth": ("head", (1.5, -14.0, -6.0), (0.8, -0.2, -1.0)),
    "neck": ("chest", (6.0, 9.5, 8.0), (1.0, -0.3, 0.7)),
    "chest": ("chest", (1.0, -15.5, -15.0), (1.0, 0.0, -0.5)),
    "back": ("pelvis", (9.0, 14.5, 12.0), (1.0, 0.9, 0.0)),
    "stomach": ("pelvis", (0.0, -17.0, 12.0), (1.0, 0.2, 0.0)),
}
SEAT = 46.0  # height of the stool, cm at the usual stature
SIT = -37.0  # how much the pelvis sinks to sit, cm at the usual stature
BEHIND = 42.0  # how far behind the person the stool stands, cm at the usual stature
STANDING = 93.0  # height of the pelvis when standing, cm at the usual stature


@dataclass
class Take:
    """One performance of an action: who moves how."""

    posture: Posture
    times: np.ndarray  # (frames,), seconds
    random: np.random.Generator
    side: int  # the hand that acts, 0 left, 1 right
    tempo: float  # 1 the usual
    size: float  # of the movements, 1 the usual
    habit: float  # 0-1, stays the same in all takes of a performer's action

    @property
    def length(self):
        return len(self.times) / FPS

    def draw(self, low, high):
        return self.random.uniform(low, high)

    def start(self):
        """When the action begins, seconds; late in a third of the takes."""
        return self.draw(0.0, 0.5 if self.random.random() < 1 / 3 else 0.12)

    def onset(self, length=0.45):
        """From rest (0) to the middle of the action (1), which it reaches within a second."""
        start, length = self.start(), length / self.tempo * self.draw(0.85, 1.15)
        return rise(self.times, max(min(start, 0.95 - length), 0), length)

    def look_anywhere(self, share=0.4):
        """In a share of the takes, turn the person to any side of the room."""
        if self.random.random() < share:
            self.posture.turn += self.draw(-180, 180)

    def wave(self, rate):
        """A swing between -1 and 1, `rate` times a second, a little uneven."""
        speed = rate * self.tempo * np.exp(0.15 * wander(self.random, len(self.times), 0.8)[:, 0])
        return np.sin(2 * np.pi * (np.cumsum(speed) / FPS + self.random.random()))

    def hand_to(self, side, site, weight, move=(0, 0, 0)):
        """Bring a hand to one of SITES, moved by `move`, cm."""
        frame, place, elbow = SITES[site]
        self.posture.reach(side, weight, frame, np.add(place, move), elbow)

    def lean(self, weight, spine, chest, head):
        """Bend forward (negative: backward) by degrees, when `weight` (frames) is 1."""
        for part, angle in ((self.posture.spine, spine), (self.posture.chest, chest), (self.posture.head, head)):
            part[:, 0] += weight * angle


@dataclass(frozen=True)
class Hold:
    """A posture to pass through, see `Posture`; feet, knees and hands are those of the acting side and of the other."""

    pelvis: tuple = (0, 0, 0)
    tilt: tuple = (0, 0)  # forward, to the left
    lean: tuple = (0, 0, 0)  # spine, chest and head forward
    feet: tuple = ((0, 0, 0), (0, 0, 0))  # outward, back, up
    bent: tuple = (0, 0, 0)
    toes: tuple = (0, 0, 0)
    loose: float = 0
    knees: tuple = (0, 0)
    roll: float = 0
    hands: tuple = (None, None)  # arguments of `Posture.reach`: frame, place, elbow


def go_through(take, holds, moments, power=None):
    """Pass through holds, each at its moment (seconds); returns their weights (holds, frames).

    power: of the time between two, to go faster and faster; by default all begins and ends softly.
    """
    posture, place = take.posture, np.interp(take.times, moments, np.arange(len(holds)))
    part = place % 1
    place = place - part + (part**2 * (3 - 2 * part) if power is None else part**power)
    weights = np.clip(1 - np.abs(place - np.arange(len(holds))[:, None]), 0, 1)
    for hold, weight in zip(holds, weights):
        posture.pelvis += np.outer(weight, hold.pelvis)
        posture.tilt[:, :2] += np.outer(weight, hold.tilt)
        take.lean(weight, *hold.lean)
        posture.bent += np.outer(weight, hold.bent)
        posture.toes += np.outer(weight, hold.toes)
        posture.loose += weight * hold.loose
        posture.roll += weight * hold.roll
        for side, foot, knee, hand in zip((take.side, 1 - take.side), hold.feet, hold.knees, hold.hands):
            posture.feet[side] += np.outer(weight, foot) * [SIDES[side], 1, 1]
            posture.knees[side] += weight * knee
            if hand:
                posture.reach(side, 0.95 * weight, *hand)
    return weights


def free_hand(take, side):
    """How far (0-1, frames) a hand hangs at rest."""
    return np.clip(1 - sum((reach.weight for reach in take.posture.reaches[side]), np.zeros(len(take.times))), 0, 1)


def sit(take, seated):
    """Between standing (0) and sitting on the stool (1), with hands that have nothing else to do on the knees."""
    posture = take.posture
    middle = 4 * seated * (1 - seated)
    take.lean(middle, 12, 9, -6)
    posture.tilt[:, 0] += 22 * middle
    posture.pelvis += np.outer(seated, [0, 40, 0])
    posture.pelvis[:, 2] += SIT * seated
    posture.seat = BEHIND
    for side in range(2):
        posture.reach(side, free_hand(take, side) * rise(seated, 0.3, 0.7) * 0.95, "floor", (12, 4, 57), (1, 0.8, 0))


def often_seated(act):
    """The action, in a third of the takes performed on the stool."""
    @wraps(act)
    def perform(take):
        posture, before = take.posture, take.posture.pelvis.copy()
        act(take)
        if take.random.random() < 1 / 3:
            posture.pelvis[:] = before + 0.2 * (posture.pelvis - before)
            posture.tilt *= 0.5
            for reaches in posture.reaches:
                reaches[:] = [reach for reach in reaches if reach.frame != "floor"]  # those to standing knees
            sit(take, np.ones(len(take.times)))
    return perform


def step_along(take, speed, rate, lift=9.0):
    """Legs walk where the person looks, with `speed` (frames, cm a second; negative: backward) and `rate` (strides a
    second); the middle of the way is where the person stands. Returns the phase (frames) of the strides."""
    posture, way = take.posture, np.radians(take.posture.turn)
    phase = rate * take.times + take.random.random()
    for side in range(2):
        part = (phase + side / 2) % 1
        swing = np.clip((part - 0.6) / 0.4, 0, 1)
        place = np.where(part < 0.6, part / 0.6 - 0.5, 0.5 - rise(swing, 0, 1))
        posture.feet[side][:, 1] += place * speed * 0.6 / rate
        posture.feet[side][:, 2] += lift * np.sin(np.pi * swing) * np.clip(np.abs(speed) / 50, 0, 1)
    posture.pelvis[:, 2] -= np.clip(np.abs(speed) / 50, 0, 1) * (3 + 1.5 * np.cos(4 * np.pi * phase))
    steps = np.stack([np.sin(way), -np.cos(way)], 1) * (speed / FPS)[:, None]
    path = np.cumsum(steps, axis=0)
    posture.path += path - (path.min(axis=0) + path.max(axis=0)) / 2
    return phase


@often_seated
def sneeze_cough(take):
    """Two or three sudden bows of head and chest with the hand at the mouth."""
    t, size = take.times, take.size
    start = take.start()
    hand = rise(t, start, 0.3 / take.tempo)
    take.hand_to(take.side, "mouth", hand)
    if take.habit < 0.35:
        take.hand_to(1 - take.side, "mouth", hand, (1, -3, -2))
    when, gap = start + take.draw(0.3, 0.42), take.draw(0.6, 0.78) / take.tempo
    while when < take.length - 0.25:
        burst = jerk(t, when, 0.12, 0.42) * take.draw(0.85, 1.15) * size
        back = bump(t, when - 0.3, 0.36)
        take.lean(back, -5, -9, -14)
        take.lean(burst, 17, 26, 26)
        take.posture.pelvis += np.outer(burst, [0, 7, -5])
        take.posture.shoulders[:, 2] += 2 * back
        when += gap * take.draw(0.9, 1.15)


def staggering(take):
    """Unsteady steps from side to side or along a way, the body tilting, arms out for balance."""
    posture, t, size = take.posture, take.times, take.size
    take.look_anywhere()
    on, along = rise(t, take.start(), 0.3), take.random.random() < 0.4
    rate = take.draw(0.62, 0.8) * take.tempo
    phase = 2 * np.pi * (rate * t + (0.0 if take.random.random() < 0.5 else 0.5))
    reach = 24 * np.clip(size, 0.8, 1.2) * take.draw(1, 1.7 if take.random.random() < 1 / 3 else 1)
    if along:
        reach *= 0.5
        speed = take.random.choice([-1, 1]) * take.draw(30, 75) + 35 * wander(take.random, len(t), 0.8)[:, 0]
        step_along(take, on * speed, take.draw(0.8, 1.1), 12)
        for side, sign in enumerate(SIDES):
            posture.feet[side][:, 0] += on * (reach * np.sin(phase - 0.6) + sign * 6)
    # When the body has gone to one side the feet follow it one after the other, with a step at each swing.
    for side, sign in enumerate(SIDES if not along else ()):
        delay = 0.10 / rate
        late = np.clip(t - delay - (0.08 / rate if sign * np.sin(phase[-1]) < 0 else 0.0), 0, None)
        swing = np.sin(2 * np.pi * rate * late + phase[0])
        steps = np.tanh(2.6 * swing) / np.tanh(2.6)
        moving = np.abs(np.gradient(steps) * FPS) / (2.6 * 2 * np.pi * rate)
        posture.feet[side][:, 0] = on * reach * steps + sign * 5 * on
        posture.feet[side][:, 1] = 9 * on * np.sin(2 * np.pi * 0.6 * rate * late + sign)
        posture.feet[side][:, 2] = 9 * on * np.clip(moving, 0, 1)
    sway = np.sin(phase)
    posture.pelvis[:, 0] += on * reach * 1.1 * sway
    posture.pelvis[:, 1] += on * 7 * np.sin(0.6 * phase + 1)
    posture.pelvis[:, 2] -= on * (5 + 4 * np.abs(np.cos(phase)))
    tilt = on * size * 15 * np.sin(phase + take.draw(0.4, 0.9))
    posture.tilt[:, 1] += 0.7 * tilt
    posture.spine[:, 1] += 0.7 * tilt
    posture.head[:, 1] -= 0.5 * tilt
    posture.tilt[:, 2] += on * 12 * np.sin(0.7 * phase + 2)
    take.lean(on, 5 + 6 * np.sin(0.8 * phase), 5, 6)
    if along:
        rock = on * take.wave(0.6) * size
        posture.tilt[:, 0] += 9 * rock
        take.lean(rock, 8, 6, -4)
    for side, sign in enumerate(SIDES):
        lift = sign * 16 * np.sin(phase + 0.8) + 5 * take.wave(1.2)
        place = np.stack([48 + 4 * take.wave(0.8), -10 + 10 * take.wave(0.7), lift - 22], 1)
        posture.reach(side, 0.9 * on, "chest", place, (0.4, 0.8, -0.5))


def _landing(take, begin, way, far):
    """How a fall from `begin` ends: flat, on the side or half sitting, `far` cm towards `way` (0 ahead, 90 left)."""
    angle = np.radians(way)
    toward = np.array([np.sin(angle), -np.cos(angle)])
    place = np.add(begin.pelvis[:2], far * toward)
    if abs(way) > 125 and take.random.random() < 0.3:  # half sitting
        back = take.draw(20, 50)
        feet = tuple((take.draw(0, 12), place[1] - take.draw(45, 75), 0) for _ in range(2))
        hands = tuple(("floor", (take.draw(22, 34), place[1] + take.draw(22, 40), 4), (0.5, 1, 0)) for _ in range(2))
        return Hold((*place, 15 - STANDING), (toward[1] * -back, toward[0] * back), (8, 6, take.draw(-10, 20)), feet,
                    bent=(0.3, 0, 1.5), toes=(0.2, 0, 1.2), hands=hands)  # fmt: skip
    roll = take.draw(-75, 75) if take.random.random() < 0.5 else 0
    aside, down = abs(np.sin(angle - np.radians(roll))), max(np.cos(angle - np.radians(roll)), 0)
    flat = 86 - 6 * aside
    bends = tuple(take.draw(2, 14 + 26 * aside) for _ in range(2))
    lean = np.array([take.draw(0, 10), take.draw(0, 8), take.draw(-4, 6)]) * (1 - 0.7 * down)  # not into the floor
    return Hold((*place, 14 + 6 * aside - STANDING), (-toward[1] * flat, toward[0] * flat), tuple(lean), loose=1,
                knees=bends, roll=roll)  # fmt: skip


def _throw_arms(take, fall, start, length, spot):
    """Arms in a fall: stretched to the floor at `spot` (x, y), flung out, or limp; then at rest on the floor."""
    t, kind = take.times, take.random.choice(["catching", "flung", "limp"], p=[0.4, 0.35, 0.25])
    if kind == "catching":
        out = rise(t, start + 0.3 * length, 0.5 * length) * (1 - rise(t, start + length, 0.35))
    else:
        out = bump(t, start - 0.1, length + 0.3) * (kind == "flung")
    rests = [(30, -16, 22), (24, -14, -38), (44, -6, -4), (16, -20, -16), (20, -12, 34)]
    for side, sign in enumerate(SIDES):
        free = free_hand(take, side) * 0.95
        if kind == "catching":
            place = np.array([(spot[0] + sign * take.draw(10, 22)) * sign, spot[1] + take.draw(-8, 8), 4])
            take.posture.reach(side, free * out, "floor", place, (1, 0.4, 0))
        else:
            place = (32 + take.draw(-8, 8), take.draw(-35, 10), 10 + take.draw(-10, 20))
            take.posture.reach(side, free * out, "chest", place, (0.8, 0.6, -0.3))
        rest = rests[take.random.integers(len(rests))]
        take.posture.reach(side, free * np.clip(fall - out, 0, 1), "chest", rest, (1, 0.3, -0.3))


def falling_down(take):
    """Losing balance, collapsing or slipping off a stool, and dropping to the floor, where the body stays."""
    posture, t, random = take.posture, take.times, take.random
    take.look_anywhere()
    kind = random.choice(["topple", "collapse", "slip"], p=[0.5, 0.27, 0.23])
    length = take.draw(0.45, 1.1)
    start = min(take.draw(0.05, 0.9), take.length - 0.5 - length)
    way = random.choice([-1, 1]) * take.draw(0, 75 if kind == "slip" else 180)
    angle = np.radians(way)
    toward = np.array([np.sin(angle), -np.cos(angle)])
    begin, knees = Hold(), ()
    if kind == "slip":
        begin, posture.seat = Hold((0, 40, SIT)), BEHIND
    if kind == "collapse":
        knees = (Hold((0, -20, 50 - STANDING), (8, 0), (14, 10, 12), ((2, 20, 0), (2, 18, 0)), toes=(0, 1.6, -0.3)),)
    far = take.draw(*{"slip": (45, 75), "topple": (10, 70), "collapse": (5, 35)}[kind])
    landing = _landing(take, (Hold((0, -8, 0)), *knees)[-1], way, far)  # who slips lands before the stool
    moments = [0, start, *(start + length * take.draw(0.4, 0.55) for _ in knees), start + length]
    fall = go_through(take, [begin, begin, *knees, landing], moments, take.draw(1.4, 2.1))[-1]
    middle = 4 * fall * (1 - fall)
    take.lean(middle, take.draw(0, 14), take.draw(0, 14), take.draw(-14, 14))  # curled up or stretched
    posture.knees += middle * take.draw(0, 30)
    posture.pelvis[:, 2] -= middle * take.draw(0, 18) * (kind == "topple")
    posture.pelvis[:, 2] += take.draw(0, 5) * jerk(t, start + length, 0.08, 0.25)
    posture.head[:, :2] += np.outer(fall, [4 * random.normal(), 12 * toward[0]])
    posture.head += fall[:, None] * wander(random, len(t), 0.8, 3) * take.draw(0, 5)
    if random.random() < 0.2:  # unwell before
        take.hand_to(take.side, random.choice(["chest", "forehead", "stomach"]), 0.95 * (1 - rise(fall, 0, 0.3)))
    spot = np.array(landing.pelvis[:2]) + toward * take.draw(40, 60)
    _throw_arms(take, fall, start, length, spot)
    if kind == "slip":
        for side in range(2):
            posture.reach(side, free_hand(take, side) * 0.95 * (1 - rise(fall, 0, 0.4)), "floor", (12, 4, 57),
                          (1, 0.8, 0))  # fmt: skip


@often_seated
def headache(take):
    """Hands at the temples or the forehead, the head bowed and slowly swaying, elbows out."""
    posture, on, size = take.posture, take.onset(), take.size
    site = "temple" if take.habit < 0.7 else "forehead"
    rub = take.wave(1.6)[:, None] * [0.6, 0.6, 1.4]
    take.hand_to(take.side, site, on, rub)
    both = take.habit < 0.7
    if both:
        take.hand_to(1 - take.side, site, on, rub * [1, 1, -1])
    sway = take.wave(0.7)
    take.lean(on, 5 * size, 10 * size, 22 * size + 5 * sway)
    posture.head[:, 1] += on * size * 11 * take.wave(0.75)
    posture.spine[:, 1] += on * size * 4 * sway
    posture.shoulders[:, 2] += 2 * on


@often_seated
def chest_pain(take):
    """A hand, or both, on the middle of the chest, shoulders curled, the upper body bent and rocking."""
    posture, on, size = take.posture, take.onset(0.4), take.size
    rub = take.wave(1.3)[:, None] * [1.5, 0.3, 1.5]
    take.hand_to(take.side, "chest", on, rub)
    if take.habit < 0.45:
        take.hand_to(1 - take.side, "chest", on, rub * [-1, 1, 1] + [3, -4, -5])
    rock = take.wave(0.9) * size
    take.lean(on, 9 * size + 4 * rock, 14 * size + 4 * rock, 13 * size)
    posture.spine[:, 1] += on * 5 * take.wave(0.6)
    posture.shoulders += np.outer(on, [-1.5, -4, 1.5])
    posture.pelvis += np.outer(on, [0, 8, -5 * size]) + np.outer(on * rock, [0, 1, -2])


@often_seated
def back_pain(take):
    """Hands on the lower back, elbows out behind, hips forward, the upper body arched back."""
    posture, on, size = take.posture, take.onset(), take.size
    rub = take.wave(1.1)[:, None] * [1.5, 0, 2.5]
    take.hand_to(take.side, "back", on, rub)
    if take.habit < 0.65:
        take.hand_to(1 - take.side, "back", on, rub * [1, 0, -1])
    bend = 0.5 + 0.5 * take.wave(0.6)
    take.lean(on, (-6 - 6 * bend) * size, (-5 - 5 * bend) * size, -2 - 8 * bend)
    posture.tilt[:, 0] -= on * (3 + 2 * bend)
    posture.spine[:, 1] += on * size * 6 * take.wave(0.6)
    posture.pelvis += np.outer(on * (0.6 + 0.4 * bend), [0, -10 * size, -2])


@often_seated
def neck_pain(take):
    """A hand at the back of the neck, its elbow up, the head rolling from side to side."""
    posture, on, size, sign = take.posture, take.onset(0.5), take.size, SIDES[take.side]
    rub = take.wave(1.5)[:, None] * [2.5, 0.0, 1.5]
    take.hand_to(take.side, "neck", on, rub)
    roll = take.wave(0.7)
    posture.head[:, 0] += on * (6 + 8 * take.wave(0.5)) * size
    posture.head[:, 1] -= on * sign * (10 + 15 * roll) * size
    posture.head[:, 2] += on * 12 * take.wave(0.5)
    posture.chest[:, 1] -= on * sign * (4 + 2 * roll)
    posture.shoulders[:, 2] += 1.5 * on


@often_seated
def nausea_vomiting(take):
    """A deep bow from the hips with a hand on the stomach, heaving, staying bent."""
    posture, t, on, size = take.posture, take.times, take.onset(0.6), np.clip(take.size, 0.95, 1.15)
    take.hand_to(take.side, "stomach", on)
    if take.habit < 0.4:
        take.hand_to(1 - take.side, "stomach", on, (3, -4, -6))
    elif take.habit < 0.75:
        posture.reach(1 - take.side, on, "floor", (13, -22, 50), (1, 0.4, 0))  # on the knee
    heave = sum(jerk(t, when, 0.15, 0.4) for when in np.arange(0.75, take.length, take.draw(0.6, 0.8) / take.tempo))
    posture.tilt[:, 0] += on * 27 * size
    take.lean(on, 24 * size, 17 * size, 10)
    take.lean(on * heave, 7, 11, 16)
    posture.pelvis += np.outer(on, [0, 20, -9]) + np.outer(on * heave, [0, 2, -4])
    posture.shoulders[:, 1] -= 3 * on
    posture.stance += 4


@often_seated
def fan_self(take):
    """A hand, in half of the cases with a sheet of paper, waving fast beside the face, the body upright."""
    posture, on, size, sign = take.posture, take.onset(0.4), take.size, SIDES[take.side]
    fan = take.wave(2.6)
    if take.habit < 0.5:
        posture.thing = "paper"
    middle = np.array([23.0 + 5 * take.random.random(), -27.0, 12.0 + 5 * take.random.random()])
    swing = fan[:, None] * np.array([14.0, -4.0, 4.0]) * np.clip(size, 0.9, 1.25)
    posture.reach(take.side, on, "chest", middle + swing, (0.7, 0.1, -1.0))
    posture.head[:, 0] += on * -7
    posture.head[:, 2] += on * sign * 7
    posture.spine[:, 1] += on * 2 * take.wave(0.5)


MEDICAL = {41: sneeze_cough, 42: staggering, 43: falling_down, 44: headache, 45: chest_pain, 46: back_pain,
           47: neck_pain, 48: nausea_vomiting, 49: fan_self}  # fmt: skip
