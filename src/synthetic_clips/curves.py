"""Curves over time from which movements are made."""

import numpy as np
from scipy.ndimage import gaussian_filter1d

FPS = 30


def wander(random, count, seconds, columns=1):
    """Smooth random curves of shape (count, columns), deviation 1, that change over about `seconds`."""
    width = seconds * FPS / 2
    margin = int(4 * width) + 1
    curve = gaussian_filter1d(random.standard_normal((count + 2 * margin, columns)), width, axis=0)
    return curve[margin:-margin] * np.sqrt(2 * width * np.sqrt(np.pi))


def bump(times, start, length):
    """A smooth rise from 0 to 1 and back over `length` seconds from `start`."""
    return np.sin(np.pi * np.clip((times - start) / length, 0, 1)) ** 2


def rise(times, start, length):
    """A smooth rise from 0 to 1 over `length` seconds from `start`; 1 ever after."""
    part = np.clip((times - start) / length, 0, 1)
    return part**2 * (3 - 2 * part)


def jerk(times, start, attack=0.1, decay=0.4):
    """A sudden rise from 0 to 1 over `attack` seconds from `start` and a slower fall over `decay` seconds."""
    return rise(times, start, attack) * (1 - rise(times, start + attack, decay))
