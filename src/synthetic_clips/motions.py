"""The nine medical actions of NTU RGB+D as movements of a posture.

Each function gets a Take and changes its posture, standing at rest in the beginning. Angles are in degrees, places in
centimetres at the usual stature, as in `figure`.
"""

from dataclasses import dataclass

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

    def onset(self, length=0.45):
        """From rest (0) to the middle of the action (1)."""
        return rise(self.times, self.draw(0.0, 0.12), length / self.tempo * self.draw(0.85, 1.15))

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


def sneeze_cough(take):
    """Two or three sudden bows of head and chest with the hand at the mouth."""
    t, size = take.times, take.size
    start = take.draw(0.0, 0.1)
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
    """Unsteady steps from side to side, the body tilting, arms out for balance."""
    posture, t, size = take.posture, take.times, take.size
    on = rise(t, 0, 0.3)
    rate = take.draw(0.62, 0.8) * take.tempo
    phase = 2 * np.pi * (rate * t + (0.0 if take.random.random() < 0.5 else 0.5))
    reach = 24 * np.clip(size, 0.8, 1.2)
    # When the body has gone to one side the feet follow it one after the other, with a step at each swing.
    for side, sign in enumerate(SIDES):
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
    for side, sign in enumerate(SIDES):
        lift = sign * 16 * np.sin(phase + 0.8) + 5 * take.wave(1.2)
        place = np.stack([48 + 4 * take.wave(0.8), -10 + 10 * take.wave(0.7), lift - 22], 1)
        posture.reach(side, 0.9 * on, "chest", place, (0.4, 0.8, -0.5))


def falling_down(take):
    """Losing balance and dropping to the floor, where the body stays."""
    posture, t = take.posture, take.times
    start, length = take.draw(0.12, 0.3), take.draw(0.7, 0.9) / np.clip(take.tempo, 0.9, 1.15)
    way = np.radians(take.draw(45, 150) * take.random.choice([-1, 1]))  # 0 forward, 90 to the left
    toward = np.array([np.sin(way), -np.cos(way)])
    part = np.clip((t - start) / length, 0, 1)
    fall = part**2 * (3 - 2 * part) * 0.35 + part**2.2 * 0.65
    landed = start + length
    rebound = jerk(t, landed, 0.08, 0.25)
    flat = 86 - 8 * abs(np.sin(way)) - 4 * rebound
    posture.tilt[:, 0], posture.tilt[:, 1] = -toward[1] * fall * flat, toward[0] * fall * flat
    lying = 12 + 6 * abs(np.sin(way))
    sink = np.clip(1.25 * part - 0.1, 0, 1) ** 1.6
    posture.pelvis[:, 2] = -(90 - lying) * np.clip(sink, 0, 1) + 3 * rebound
    shift = bump(t, start - 0.1, length) * 16
    posture.pelvis[:, :2] += shift[:, None] * toward + fall[:, None] * np.outer(np.ones(len(t)), toward) * 2
    posture.loose = rise(t, start + 0.3 * length, 0.6 * length)
    posture.knees = 34 * bump(t, start, 1.3 * length) + take.draw(8, 22) * fall
    settle = fall * (1 + 0.05 * take.wave(0.5))
    take.lean(settle, take.draw(0, 10), take.draw(0, 8), -8 * bump(part, 0.1, 0.8) + take.draw(-4, 6))
    posture.head[:, 1] += 14 * toward[0] * fall
    flail = bump(t, start - 0.1, length + 0.3)
    for side in range(2):
        ahead = (32 + take.draw(-8, 8), -34 * np.cos(way) + 5, 10)
        posture.reach(side, 0.9 * flail, "chest", ahead, (0.8, 0.6, -0.3))
        # Lying, one arm is up beside the head, the other along the body.
        rest = (30, -16, 22) if (side == 0) == (toward[0] > 0) else (24, -14, -38)
        posture.reach(side, np.clip(fall - 0.9 * flail, 0, 1) * 0.95, "chest", rest, (1, 0.3, -0.3))


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
