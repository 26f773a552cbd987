"""The steps of washing hands as poses of two hands over time.

Every step is written for its left variant; `mirrored` makes the right one. World axes: x right in the picture, y to
the faucet, z up to the camera; centimetres from the middle of the hands. Each step takes the place in its periodic
movement (`wave`, about -1 to 1), a slower irregular one (`sway`, about -1 to 1) and how a person does the step
(`habit`, 0 to 1), and returns the poses of the left and of the right hand.
"""

from dataclasses import replace

import numpy as np

from synthetic_clips.hands import HandPose, HandShape, hand_chains
from synthetic_clips.render import unit

OPEN = np.array([[6, 8, 5], [4, 8, 5], [4, 8, 5], [6, 10, 6]], float)
FIST = np.array([[66, 100, 60], [70, 102, 60], [72, 102, 60], [74, 100, 60]], float)
FAN = np.array([7, 1, -5, -12], float)
FLAT_THUMB = np.array([12, 8, 40, 5, 5], float)  # along the hand
WIDE_THUMB = np.array([52, 12, 30, 8, 5], float)  # away from the hand


def turned(vector, axis, degrees):
    """A vector turned about an axis by an angle in degrees."""
    axis, angle, vector = unit(axis), np.radians(degrees), np.asarray(vector, float)
    along = axis * (axis @ vector)
    return along + (vector - along) * np.cos(angle) + np.cross(axis, vector) * np.sin(angle)


def pose(middle, forward, dorsal, elbow, flexion=OPEN, spread=FAN, thumb=FLAT_THUMB, reach=9.0):
    """A hand whose point `reach` cm from the wrist (its knuckles by default) lies at `middle`."""
    wrist = np.asarray(middle, float) - reach * unit(forward)
    bent = [np.asarray(part, float) for part in (elbow, flexion, spread, thumb)]
    return HandPose(wrist, unit(forward), unit(dorsal), *bent)


def mirrored(left, right):
    """Both hands as seen in a mirror, so that each takes the other's part."""

    def flip(hand):
        sign = np.array([-1, 1, 1])
        return replace(hand, **{part: getattr(hand, part) * sign for part in ("wrist", "forward", "dorsal", "elbow")})

    return flip(right), flip(left)


LEFT_ELBOW, RIGHT_ELBOW = np.array([-17.0, -42, 9]), np.array([17.0, -42, 9])


def _reaching(hand, side, target):
    """A hand moved so that the middle of its four fingertips is at target."""
    tips = hand_chains(hand, HandShape(), side)[0][1:, 3].mean(0)
    return replace(hand, wrist=hand.wrist + target - tips)


def _rolled(hand, degrees, axis=(0.0, 1, 0)):
    """A hand turned about an axis through the middle of both hands, by default the way to the faucet."""
    return replace(hand, **{name: turned(getattr(hand, name), np.array(axis), degrees)
                            for name in ("wrist", "forward", "dorsal")})


def palms(wave, sway, habit):
    """Step 1: pressed palms slide along each other, fingers to the faucet.

    habit: how far fingers and thumbs part, how far the wrists part, how high the fingers point.
    """
    slide, lean, roll = 2.4 * wave, 0.08 * sway, 0.12 * habit[0]
    flat = OPEN * 0.6, FAN * (0.1 + 0.5 * habit[0]), FLAT_THUMB + [20 * habit[0], 0, 0, 0, 0]
    aside, up = 0.1 * habit[1], 0.4 * habit[2] - 0.1
    left = pose([-2.1, 1 + slide, 0], [aside, 1, up], [-1, 0.1, roll + lean], LEFT_ELBOW, *flat)
    right = pose([2.1, 1 - slide, 0], [-aside, 1, up], [1, 0.1, roll - lean], RIGHT_ELBOW, *flat)
    return left, right


def backs(wave, sway, habit):
    """Step 2: the left palm slides over the back of the right hand, spread fingers between its fingers.

    habit: how far the upper fingers bend around the lower ones, and how much closer they are.
    """
    bend = OPEN + np.array([10 - 8 * wave, 8 - 6 * wave, 4]) + habit[0] * np.array([14, 26, 14])
    fan = FAN * (2.0 - 0.6 * habit[0])
    ahead = turned([0.36, 1, 0], [0, 0, 1], 4 * sway)
    left = pose(2.6 * wave * ahead + [0.3, 1.5, 1.3], ahead, [0, -0.1, 1], LEFT_ELBOW, bend, fan, WIDE_THUMB)
    right = pose([-0.3, 1.0, -1.3], [-0.34, 1, 0], [0, 0, 1], RIGHT_ELBOW, OPEN * (1 + habit[0]), fan, WIDE_THUMB)
    return left, right


def interlaced(wave, sway, habit):
    """Step 3: palm to palm, the fingers of both hands cross each other.

    habit: how straight and flat they lie, how far the wrists part, how far the hands slide.
    """
    straight, aside = 1 - (1 - habit[0]) ** 3, 0.1 + 0.2 * habit[1]
    bend = np.tile([44 - 36 * straight + 8 * wave, 66 - 58 * straight, 34 - 26 * straight], (4, 1))
    slide, lift, lean = np.array([0, 0.7 + 2 * straight * habit[2], 0]) * wave, 0.5 * (1 - straight), 0.08 * sway
    roll, bent = 0.26 - 0.24 * straight, (bend, FAN * (1.6 - 0.5 * straight), [20, 20 - 10 * straight, 30, 25, 25])
    left = pose(slide + [-1.2 - straight, 1.5, 0.4], [aside, 0.8, lift], [-1, 0.1, roll + lean], LEFT_ELBOW, *bent)
    right = pose([1.2 + straight, 2.1, -0.4] - slide, [-aside, 0.8, lift], [1, 0.1, roll - lean], RIGHT_ELBOW, *bent)
    return left, right


def hooks(wave, sway, habit):
    """Step 4: the bent fingers of the right hand lie in the bent fingers of the left, whose palm looks up.

    habit: how far the right hand covers the left and both thumbs part, how far it moves, how both are turned.
    """
    bend = np.tile([12, 88 + 6 * wave, 60], (4, 1))
    shift = np.array([(1.0 + 1.6 * habit[1]) * wave, 0.5 * sway, 0])
    thumb = [20 + 25 * habit[0], 20, 30, 15, 15]
    left = pose(shift + [-2.4, 0.3, -2.2], [0.85, 0.5, 0.05], [-0.1, 0.15, -1], [-26, -38, 8], bend, FAN * 0.6, thumb)
    over = np.array([2.8 - 1.2 * habit[0], 0.8, 2.7]) - shift * 0.7
    right = pose(over, [-0.87, 0.48 + 0.2 * habit[0], 0], [0.05, 0.15, 1], [26, -38, 9], bend, FAN * 0.6, thumb)
    return _rolled(left, 70 * habit[2] - 10), _rolled(right, 70 * habit[2] - 10)


def thumb_clasp(wave, sway, habit):
    """Step 5: the right hand closes around the thumb of the open left hand, turns about it and comes off it.

    habit: how far the left hand is bent, how far the right one comes off the thumb, how far to the side, how far the
    left hand points to the right.
    """
    bend, forward = OPEN + habit[0] * np.array([20, 36, 18]), [0.65 + 0.4 * habit[3], 0.6, 0]
    left = pose([2.0, 1.5, -2], forward, [0.15, -0.15, -1], LEFT_ELBOW, bend, FAN, [68, 22, 30, 0, 0])
    thumb = hand_chains(left, HandShape(), 1)[0][0]
    # Closed, it stands beside the thumb and points to the faucet; off it, its back looks up and its tips to the thumb.
    off = (0.5 + 0.5 * habit[1]) * np.clip((1 - wave) / 2, 0, 1.2) ** 0.7
    ahead = unit(np.array([0, 1, 0.1]) * (1 - off) + off * np.array([-0.8 + 0.4 * habit[2], 0.75, -0.1]))
    dorsal = np.array([0.9, 0, 0.4]) * (1 - off) + off * np.array([0.1, 0.1, 1])
    dorsal = unit(dorsal - (dorsal @ ahead) * ahead)
    middle = thumb[2] + 2.1 * dorsal + np.array([(8 + 5 * habit[2]) * off, 0.4 * sway + 0.9 - 0.6 * off, 0.2])
    bent = np.array([80, 55, 25]) * (1 - off) + off * np.array([45, 75, 40])
    right = pose(middle, ahead, dorsal, RIGHT_ELBOW, np.tile(bent, (4, 1)), FAN * 0.3, [24, 22, 35, 10, 5])
    over = (20 * habit[0] - 10) * (1 - wave), unit([0, 0.95, 0.25])
    return _rolled(left, *over), _rolled(right, *over)


def fingertips(wave, sway, habit):
    """Step 6: the bunched fingertips of the right hand turn in the open palm of the left.

    habit: how much the left hand is cupped and how much steeper the right one stands.
    """
    cup = OPEN * (1 + 1.5 * habit[0])
    left = pose([-1.0, 3.0, -2.5], [0.36, 0.93, 0.05], [0.1, 0.05, -1], LEFT_ELBOW, cup, FAN * 0.6, [55, 10, 30, 5, 5])
    bunch = [[37, 56, 32], [42, 58, 33], [39, 58, 33], [48, 30, 16]]
    twist = np.array([-0.65, -0.1, -0.75]), 25 * wave - 10 * habit[0]
    ahead, dorsal = turned([-0.40, 0.85, -0.15 - 0.3 * habit[0]], *twist), turned([0.6, 0.3, 0.7], *twist)
    right = pose([0, 0, 0], ahead, dorsal, RIGHT_ELBOW, bunch, [-13, -7, 12, 22], [15, 39, 24, 26, 8])
    return left, _reaching(right, -1, np.array([-1.8 + 0.8 * sway, 0.6 + 0.8 * wave, -0.6]))


def wrist_clasp(wave, sway, habit):
    """Step 7: the right hand holds the wrist of the left fist, which turns in it, or rubs along it.

    habit: how far the fist is open, how far it turns, how much lower and from which side the right hand holds the arm.
    """
    fist, arm = FIST * (1 - 0.35 * habit[0]), unit([0.15, 1, 0.05])
    left = pose([-0.5, 7.5, 0], [0.12, 1, 0.05], [-0.4, 0, 0.9], [-9, -45, 5], fist, FAN * 0.2, [30, 50, 30, 40, 40])
    turns = 30 + 55 * habit[1]  # of the forearm: degrees to either side
    left = replace(left, dorsal=turned(left.dorsal, arm, turns * wave + 50 * (habit[2] - 0.4) + 14 * sway))
    if habit[3] < 0.35:  # from above, the thumb at the elbow's side, or from below and aside, the thumb on top
        ahead, dorsal = turned([-0.9, 0.35, 0.1], arm, 14 * sway), turned([0.1, 0, 1], arm, 14 * sway)
    else:
        under = 14 * sway - 100 * (habit[3] - 0.35)
        ahead, dorsal = turned([-0.7, 0.65, 0], arm, under), turned([0, 0, -1], arm, under)
    grip = np.array([[56, 52, 32], [58, 54, 32], [58, 54, 32], [56, 52, 32]], float)
    middle = np.array([-0.2, -2.4 - 1.5 * habit[2], 0]) + 2.6 * dorsal + arm * (2.0 * wave * (1 - 0.8 * habit[1]))
    right = pose(middle, ahead, dorsal, RIGHT_ELBOW + [6, 0, 0], grip, FAN * 0.5, [60, 40, 50, 20, 15])
    return left, right
