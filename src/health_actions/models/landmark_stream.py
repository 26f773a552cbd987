"""The landmark stream: hands or a body in a window of frames, as points, to logits; one linear head, others over time.

A frame is one row of `join_values`: what the trackers of `landmarks` find, nan where something is missing. A hand that
is missing for a moment is taken from the nearest frame (`fill_gaps`). What is missing longer, and a missing body,
enters no mean, and that it is missing is an input of its own.
"""

from math import prod

import numpy as np
import torch
from torch import nn

from health_actions.models.landmarks import HandTracker, PoseTracker

TRACKERS = {"hands": HandTracker, "pose": PoseTracker}
# What a row has of a tracker's result, in this order: places in the picture, metres, a probability.
PARTS = {"hands": ("image", "world", "handedness"), "pose": ("image", "world", "visibility")}
# Left and right points of a body.
SIDES = [(1, 4), (2, 5), (3, 6), (7, 8), (9, 10), *((left, left + 1) for left in range(11, 33, 2))]
SWAPPED = [dict(SIDES + [pair[::-1] for pair in SIDES]).get(point, point) for point in range(33)]
TRUNK = [0, 7, 8, *range(11, 17), *range(23, 29)]  # nose, ears, shoulders, elbows, wrists, hips, knees, ankles
TIPS = [4, 8, 12, 20]  # of thumb, index, middle and little finger
LARGEST = 5.0  # standard deviations: no feature counts for more
REACH = 8  # frames: a hand that is not found is taken to be where it is found within so many
# How many heads convolve, and which of all heads answer. Trainings differ, so many answer for hands. The linear one
# does not: from round 2 of docs/real_clips.md on it is the worst on real hands.
TEMPORAL, ANSWERING = {"hands": 9, "pose": 1}, {"hands": slice(1, None), "pose": slice(None)}


def join_values(found: dict[str, np.ndarray], aspect: float, kind: str) -> np.ndarray:
    """What `detect_landmarks` found -> float32 (frames, values), places in the picture in shares of its height.

    Args:
        found: of frames of one video.
        aspect: their width divided by their height.
        kind: "hands" or "pose".
    """
    found = {**found, "image": found["image"] * np.array([aspect, 1, aspect], np.float32)}
    return np.concatenate([found[name].reshape(len(found["image"]), -1) for name in PARTS[kind]], axis=1)


def split_values(rows: torch.Tensor, kind: str) -> list[torch.Tensor]:
    """Rows (..., values) -> image and world (..., who, points, 3), handedness (..., 2) or visibility (..., 1, points).

    `who` is the left and the right hand, or one person.
    """
    shapes = [TRACKERS[kind].SHAPES[name] for name in PARTS[kind]]
    parts = [part.unflatten(-1, shape) for part, shape in zip(rows.split(list(map(prod, shapes)), dim=-1), shapes)]
    return parts if kind == "hands" else [part.unsqueeze(rows.ndim - 1) for part in parts]


def join_parts(parts: list[torch.Tensor]) -> torch.Tensor:
    """The parts of `split_values` of windows -> rows (windows, frames, values)."""
    return torch.cat([part.flatten(2) for part in parts], dim=-1)


def mirror_values(parts: list[torch.Tensor], kind: str) -> list[torch.Tensor]:
    """The parts of `split_values` as a mirror shows them: left and right change places."""
    image, world, third = parts
    flip = torch.tensor([-1.0, 1, 1])
    if kind == "hands":
        return [image.flip(-3) * flip, world.flip(-3) * flip, 1 - third.flip(-1)]
    return [image[..., SWAPPED, :] * flip, world[..., SWAPPED, :] * flip, third[..., SWAPPED]]


def describe_hands(rows: torch.Tensor) -> torch.Tensor:
    """Rows (windows, frames, values) -> features of each frame: each hand from its wrist, and one from the other.

    Here the hands are in the order of their places, from left to right: of hands that are seen from the side, as when
    both palms meet, the network guesses which is which. The unit is the length of the palm in the window.
    """
    image, world, handedness = order_hands(*fill_gaps(*split_values(rows, "hands")))
    places = image[..., :2]
    palm = (places[..., 9, :] - places[..., 0, :]).norm(dim=-1).flatten(1).nanmedian(dim=1).values
    places = places / palm[:, None, None, None, None]
    left, right = places.unbind(2)
    return torch.cat([
        (places - places[..., :1, :]).flatten(2), 10 * world.flatten(2),
        (right - left)[:, :, [0, 4, 8, 9]].flatten(2),
        (right[:, :, TIPS] - left[:, :, 9:10]).flatten(2), (left[:, :, TIPS] - right[:, :, 9:10]).flatten(2),
        handedness], dim=-1)


def fill_gaps(image: torch.Tensor, world: torch.Tensor, handedness: torch.Tensor) -> list[torch.Tensor]:
    """The parts of `split_values`, a missing hand as in the nearest frame of the window that is up to `REACH` away.

    How often hands are found depends on light, skin and blur more than on the action.
    """
    frame = torch.arange(image.shape[1])
    missing = image[:, :, :, 0, 0].isnan()  # (windows, frames, hands)
    away = (frame[:, None] - frame)[None, :, :, None].abs() + 99 * missing[:, None]  # (windows, frames, others, hands)
    least, nearest = away.min(dim=2)
    nearest = torch.where(least <= REACH, nearest, frame[:, None])
    window, hand = torch.arange(len(image))[:, None, None], torch.arange(2)
    return [part[window, nearest, hand] for part in (image, world, handedness)]


def order_hands(image: torch.Tensor, world: torch.Tensor, handedness: torch.Tensor) -> list[torch.Tensor]:
    """The parts of `split_values`, in each frame the hand that is further to the left first.

    A hand alone is compared with the middle between both hands in the window.
    """
    places = image[..., 0].mean(-1)
    middle = places.mean(-1, keepdim=True).nanmean(1, keepdim=True)
    middle = torch.where(middle.isnan(), places.flatten(1).nanmean(1)[:, None, None], middle)
    left, right = torch.where(places.isnan(), middle, places).unbind(-1)
    swap = left > right
    return [torch.where(swap.reshape(*swap.shape, *[1] * (part.ndim - 2)), part.flip(2), part)
            for part in (image, world, handedness)]


def describe_pose(rows: torch.Tensor) -> torch.Tensor:
    """Rows (windows, frames, values) -> features of each frame: the body from its hips, its lean, height and speed.

    The unit is the length of the trunk in the window; heights are above the lowest point of the window.
    """
    image, world, _ = (part.squeeze(2) for part in split_values(rows, "pose"))
    places = image[..., :2]
    hips, shoulders = places[:, :, 23:25].mean(2), places[:, :, 11:13].mean(2)
    trunk = shoulders - hips
    unit = trunk.norm(dim=-1).nanmedian(dim=1).values.clamp(min=1e-3)[:, None, None]
    floor = places[..., 1].nan_to_num(-torch.inf).flatten(1).amax(dim=1)[:, None]
    wrists = places[:, :, 15:17]
    return torch.cat([
        ((places[:, :, TRUNK] - hips[:, :, None]) / unit[..., None]).flatten(2), 2 * world[:, :, TRUNK].flatten(2),
        nn.functional.normalize(trunk, dim=-1),
        torch.stack([floor - hips[..., 1], floor - places[:, :, 0, 1]], dim=-1) / unit,
        (places.amax(2) - places.amin(2)) / unit, nn.functional.pad(hips.diff(dim=1), (0, 0, 1, 0)) / unit * 5,
        ((wrists - places[:, :, :1]) / unit[..., None]).flatten(2),
        ((wrists - shoulders[:, :, None]) / unit[..., None]).flatten(2)], dim=-1)


DESCRIBE = {"hands": describe_hands, "pose": describe_pose}


class TemporalHead(nn.Module):
    """Features (windows, features, frames) -> logits (windows, classes), by residual convolutions over time.

    Args:
        features, num_classes: of the input, and logits.
        width, layers: channels and convolutions.
        dropout: share of the inputs of the last layer that training drops; of those of the convolutions half of it.
    """

    def __init__(self, features: int, num_classes: int, width: int, layers: int, dropout: float):
        super().__init__()
        self.first = nn.Sequential(nn.Conv1d(features, width, 1), nn.ReLU(), nn.Dropout(dropout / 2))
        self.layers = nn.ModuleList(nn.Sequential(nn.Conv1d(width, width, 3, padding=1), nn.BatchNorm1d(width),
                                                  nn.ReLU()) for _ in range(layers))
        self.last = nn.Sequential(nn.Dropout(dropout), nn.Linear(2 * width, num_classes))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """See the class."""
        hidden = self.first(features)
        for layer in self.layers:
            hidden = hidden + layer(hidden)
        return self.last(torch.cat([hidden.mean(2), hidden.amax(2)], dim=1))


class LandmarkStream(nn.Module):
    """Rows (windows, frames, values), nan where missing -> logits (windows, 1 + temporal, classes) of all heads.

    The first head is linear in statistics over time: mean, deviation, change from the first to the last third, speed,
    and share of frames in which a feature is there. The others convolve over time and differ in their initial weights.
    The answer is the mean probability of those in `ANSWERING`. See `three_stream.fuse_streams`.

    Args:
        kind: "hands" or "pose".
        num_classes: logits.
        temporal: how many heads convolve; None: `TEMPORAL`.
        width, layers, dropout: see `TemporalHead`. The statistics are dropped with the same probability.
    """

    def __init__(self, kind: str, num_classes: int, temporal: int | None = None, width: int = 96, layers: int = 2,
                 dropout: float = 0.5):
        super().__init__()
        self.kind = kind
        values = sum(prod(TRACKERS[kind].SHAPES[name]) for name in PARTS[kind])
        features = DESCRIBE[kind](torch.rand(1, 3, values)).shape[-1]
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))
        self.register_buffer("mirrored", torch.arange(num_classes))  # each class's number in a mirror
        self.linear = nn.Sequential(nn.Dropout(dropout), nn.Linear(5 * features, num_classes))
        self.temporal = nn.ModuleList(TemporalHead(2 * features, num_classes, width, layers, dropout)
                                      for _ in range(TEMPORAL[kind] if temporal is None else temporal))

    def learn_scale(self, rows: torch.Tensor) -> None:
        """Set mean and deviation of the features to those of windows (windows, frames, values)."""
        features = DESCRIBE[self.kind](rows).flatten(0, 1)
        self.mean.copy_(features.nanmean(0).nan_to_num(0))
        self.std.copy_((features - self.mean).square().nanmean(0).sqrt().nan_to_num(1).clamp(min=1e-3))

    def scale(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows -> features (windows, frames, features) in standard deviations from the mean, nan where missing."""
        return ((DESCRIBE[self.kind](rows) - self.mean) / self.std).clamp(-LARGEST, LARGEST)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """See the class."""
        features = self.scale(rows)
        inputs = torch.cat([features.nan_to_num(0), (~features.isnan()).float()], dim=-1).transpose(1, 2)
        return torch.stack([self.linear(compute_statistics(features)), *(head(inputs) for head in self.temporal)], 1)


def compute_statistics(features: torch.Tensor) -> torch.Tensor:
    """Features (windows, frames, features), nan where missing -> what the linear head sees, (windows, 5 x features)."""
    mean, third = average(features), max(1, features.shape[1] // 3)
    return torch.cat([mean, average((features - mean[:, None]).square()).sqrt(),
                      average(features[:, -third:]) - average(features[:, :third]),
                      average(features.diff(dim=1).abs()), 1 - features.isnan().float().mean(1)], dim=1)


def average(values: torch.Tensor) -> torch.Tensor:
    """The mean over time (axis 1) of what is there; 0 where nothing is."""
    return values.nanmean(dim=1).nan_to_num(0)
