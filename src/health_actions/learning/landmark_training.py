"""Training of a landmark stream: windows of landmarks, varied as other cameras and people would, and a plain loop."""

from math import log

import torch

from health_actions.learning.landmarks import WINDOW
from health_actions.learning.training import compute_loss
from health_actions.models.landmark_stream import LandmarkStream, join_parts, mirror_values, split_values

# The default of `offset`. Less for bodies: 0.07 of a trunk moves a hand from the neck to the head.
OFFSET = {"hands": 0.07, "pose": 0.02}


def vary_landmarks(clips: list[torch.Tensor], labels: torch.Tensor, kind: str, mirrored: list[int],
                   generator: torch.Generator, *, speed: float = 2.0, turn: float = 15.0, noise: float = 0.02,
                   offset: float | None = None, stretch: float = 0.1, apart: float = 0.1, missing: float = 0.15
                   ) -> tuple[torch.Tensor, torch.Tensor]:
    """A random window of each clip, as another camera and another person would give it, and its label.

    Args:
        clips: rows (frames, values) of each, of any length.
        labels: class numbers.
        mirrored: each class's number in a mirror; half of the windows are mirrored.
        speed: windows are up to so many times faster or slower.
        turn: deviation of the camera's turn about its axis, degrees.
        noise: deviation of each point in each frame, in units of the palm or trunk.
        offset: the same in all frames of a window, since on other people the points lie elsewhere; None: `OFFSET`.
        stretch: the picture is wider or narrower by up to this share, and depths by up to three times it.
        apart: deviation of each hand's place in the picture, in units of the palm.
        missing: frames are lost with a probability of up to this; one hand, or the person, is lost for a while in
            twice this share of windows.
    """
    count = len(clips)

    def draw(low: float, high: float, *shape: int) -> torch.Tensor:
        return torch.rand(count, *shape, generator=generator) * (high - low) + low

    def widen(values: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return values.reshape(*values.shape, *[1] * (other.ndim - values.ndim))

    last = torch.tensor([len(rows) - 1 for rows in clips])
    span = torch.minimum(last, WINDOW * draw(-log(speed), log(speed)).exp())
    places = draw(0, 1) * (last - span)
    places = (places[:, None] + torch.arange(WINDOW) * span[:, None] / WINDOW).round().long()
    parts = split_values(torch.stack([rows[place] for rows, place in zip(clips, places)]), kind)
    flip = draw(0, 1) < 0.5
    parts = [torch.where(widen(flip, part), other, part) for part, other in zip(parts, mirror_values(parts, kind))]
    labels = torch.where(flip, torch.tensor(mirrored)[labels], labels)
    image, world, third = parts
    angle = torch.randn(count, generator=generator) * torch.pi / 180 * turn
    image, world = turn_points(image, angle), turn_points(world, angle)
    start, end = (9, 0) if kind == "hands" else (11, 23)
    unit = (image[..., start, :2] - image[..., end, :2]).norm(dim=-1).flatten(1).nanmedian(dim=1).values.nan_to_num(0)
    offset, who, now = OFFSET[kind] if offset is None else offset, image.shape[2], torch.arange(WINDOW)
    wide = torch.stack([draw(-stretch, stretch).exp(), torch.ones(count), 1 + 3 * draw(-stretch, stretch)], dim=1)
    image, world = (points * wide[:, None, None, None] for points in (image, world))
    for deviation, frames in ((noise, WINDOW), (offset, 1)):
        shape = (count, frames, *image.shape[2:])
        image = image + torch.randn(shape, generator=generator) * widen(unit * deviation, image)
        world = world + torch.randn(shape, generator=generator) * deviation * 0.1
    image = image + torch.randn((count, 1, who, 1, 3), generator=generator) * widen(unit * apart, image)
    lost = draw(0, 1, WINDOW, who) < draw(0, missing)[:, None, None]
    first, which = draw(0, WINDOW, 1), torch.randint(who, (count, 1), generator=generator)
    gone = (now >= first) & (now < first + draw(1, WINDOW, 1)) & (draw(0, 1, 1) < 2 * missing)
    lost |= gone[..., None] & (torch.arange(who) == which)[:, None]
    parts = [torch.where(widen(lost, part), torch.nan, part) for part in (image, world, third)]
    return join_parts(parts), labels


def turn_points(points: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
    """Points (windows, ..., 3) turned clockwise by angles (windows,), radians, in the plane of the picture."""
    x, y, z = points.unbind(-1)
    cos, sin = (values.reshape(-1, *[1] * (x.ndim - 1)) for values in (angle.cos(), angle.sin()))
    return torch.stack([cos * x - sin * y, sin * x + cos * y, z], dim=-1)


def train_stream(clips: list[torch.Tensor], labels: list[int], kind: str, mirrored: list[int], *, epochs: int = 60,
                 batch_size: int = 64, learning_rate: float = 0.003, weight_decay: float = 0.02,
                 label_smoothing: float = 0.05, balance: float = 0.0, seed: int = 0, **variation) -> LandmarkStream:
    """Train a landmark stream on rows (frames, values) of clips.

    Args:
        clips, labels, kind, mirrored: see `vary_landmarks`, which `variation` goes to.
        balance: 0 counts clips alike; 1 counts classes alike, however many clips they have; between: a compromise.
    """
    torch.manual_seed(seed)
    generator, labels = torch.Generator().manual_seed(seed), torch.tensor(labels)
    network = LandmarkStream(kind, len(mirrored))
    network.mirrored.copy_(torch.tensor(mirrored))
    network.learn_scale(vary_landmarks(clips, labels, kind, mirrored, generator, **variation)[0])
    weights = labels.bincount(minlength=len(mirrored)).clamp(min=1).float() ** -balance
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=weight_decay)
    steps = epochs * -(-len(clips) // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
    network.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(clips), generator=generator).split(batch_size):
            rows, targets = vary_landmarks([clips[number] for number in batch], labels[batch], kind, mirrored,
                                           generator, **variation)
            loss = compute_loss(network(rows), targets, label_smoothing, weights)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()
