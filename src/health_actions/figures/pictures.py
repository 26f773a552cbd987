"""Frames of clips in rows: montages, snapshots after transforms, misclassified clips."""

import numpy as np
from matplotlib import pyplot
from matplotlib.figure import Figure
from scipy import ndimage


def show_strips(strips: dict[str, np.ndarray], *, columns: int, height: float = 0.75) -> Figure:
    """Rows of frames, a row a title: title -> uint8 (columns, size, size, 3)."""
    size = next(iter(strips.values())).shape[1]
    figure, axes = pyplot.subplots(len(strips), 1, figsize=(columns * height + 1.6, len(strips) * height))
    for axis, (title, frames) in zip(np.atleast_1d(axes), strips.items(), strict=True):
        axis.imshow(np.concatenate(list(frames), axis=1))
        axis.set_ylabel(title, rotation=0, ha="right", va="center", fontsize=8)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
        for column in range(1, columns):
            axis.axvline(column * size - 0.5, color="white", linewidth=1)
    return figure


def show_classes(frames: dict[str, np.ndarray], *, columns: int = 4) -> Figure:
    """Figure 1 of study A: one frame of each class; class -> uint8 (size, size, 3)."""
    rows = -(-len(frames) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(columns * 2.0, rows * 1.65), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, (name, frame) in zip(axes.flat, frames.items(), strict=False):
        axis.imshow(frame, aspect=2 / 3)  # frames are squares made of 3:2 pictures
        axis.set_title(name, fontsize=9, loc="center")
    return figure


def show_error(frames: np.ndarray, saliency: np.ndarray, motion: np.ndarray, like: np.ndarray | None, *,
               titles: dict[str, str]) -> Figure:
    """Figures 7 to 9 of study A: a misclassified clip, what the model looked at, and a clip of the class predicted.

    Args:
        frames: uint8 (columns, size, size, 3).
        saliency: (columns, height, width), 0 or more; smoothed for the eye here, and bright where it is strongest in
            its frame, and a number says which share of the saliency of all columns the frame has.
        motion: bool (columns, height, width); outlined.
        like: as `frames`; None leaves the row empty.
        titles: of the rows clip, saliency and like.
    """
    columns, height = saliency.shape[:2]
    strength = ndimage.gaussian_filter(saliency, (0, height / 40, height / 40))
    strength = np.clip(strength / np.quantile(strength, 0.995, axis=(1, 2), keepdims=True).clip(1e-12), 0, 1)
    grey = np.repeat(frames.mean(-1, keepdims=True) * 0.6, 3, axis=-1).astype(np.uint8)
    figure, axes = pyplot.subplots(3, 1, figsize=(columns * 1.2, 3.4))
    place = {"extent": (0, 1.5 * columns, 0, 1), "aspect": "equal"}  # frames are squares made of 3:2 pictures
    for axis, (row, pictures) in zip(axes, {"clip": frames, "saliency": grey, "like": like}.items(), strict=True):
        axis.set_title(titles[row], fontsize=9)
        axis.axis("off")
        if pictures is not None:
            axis.imshow(np.concatenate(list(pictures), axis=1), **place, interpolation="antialiased")
            axis.vlines(1.5 * np.arange(1, columns), 0, 1, color="white", linewidth=2)
    joined = np.concatenate(list(strength), axis=1)
    axes[1].imshow(joined, cmap="magma", alpha=joined ** 0.8, vmin=0, vmax=1, **place, interpolation="bilinear")
    axes[1].contour(np.concatenate(list(motion), axis=1), levels=[0.5], colors="#56B4E9", linewidths=0.8,
                    extent=(0, 1.5 * columns, 1, 0))
    for column, share in enumerate(saliency.sum((1, 2)) / max(saliency.sum(), 1e-12)):
        axes[1].text(1.5 * column + 0.05, 0.05, f"{share:.0%}", color="white", fontsize=8,
                     bbox={"facecolor": "black", "edgecolor": "none", "pad": 1})
    return figure


def show_snapshots(rows: dict[str, list[np.ndarray]], *, captions: dict[str, list[str]] | None = None,
                   boxes: dict[str, list[list[tuple]]] | None = None, height: float = 0.8) -> Figure:
    """Figures 2 and 3 of study B: rows of pictures of one height, whatever their shape.

    Args:
        rows: title -> pictures, uint8 (height, width, 3) each.
        captions: title -> a text under each of the row's pictures; rows may be missing.
        boxes: title -> the boxes to outline in each picture, (left, top, right, bottom) in pixels; rows may be missing.
        height: of a picture, inches.

    Raises:
        ValueError: when a row's captions or boxes are not as many as its pictures.
    """
    captions, boxes, gap = captions or {}, boxes or {}, 0.06
    for name, more in [(name, more) for texts in (captions, boxes) for name, more in texts.items()]:
        if len(more) != len(rows.get(name, [])):
            count = len(rows.get(name, []))
            raise ValueError(f"row {name!r} has {count} pictures, found captions or boxes of {len(more)}")
    widths = {title: [picture.shape[1] / picture.shape[0] for picture in pictures] for title, pictures in rows.items()}
    widest = max(sum(row) + gap * (len(row) - 1) for row in widths.values())
    figsize = widest * height + 1.6, len(rows) * height * 1.3
    figure, axes = pyplot.subplots(len(rows), 1, figsize=figsize, squeeze=False)
    for axis, (title, pictures) in zip(axes[:, 0], rows.items(), strict=True):
        left = 0.0
        for number, (picture, width) in enumerate(zip(pictures, widths[title], strict=True)):
            axis.imshow(picture, extent=(left, left + width, 0, 1), interpolation="antialiased")
            scale = 1 / picture.shape[0]
            for place, box in enumerate(boxes.get(title, [[]] * len(pictures))[number]):
                axis.add_patch(pyplot.Rectangle(
                    (left + box[0] * scale, 1 - box[3] * scale), (box[2] - box[0]) * scale, (box[3] - box[1]) * scale,
                    fill=False, edgecolor=f"C{place + 1}", linewidth=1.2))
            if title in captions:
                axis.text(left + width / 2, -0.05, captions[title][number], ha="center", va="top", fontsize=7)
            left += width + gap
        axis.set(xlim=(0, widest), ylim=(-0.25, 1), aspect="equal", xticks=[], yticks=[])
        axis.set_ylabel(title, rotation=0, ha="right", va="center", fontsize=8)
        axis.spines[:].set_visible(False)
    return figure


def take_squares(frames, columns: int) -> np.ndarray:
    """Evenly spread frames of a clip, the square in the middle: uint8 (columns, height, height, 3).

    Args:
        frames: uint8 (length, height, width, 3), an array or a `ClipArchive`; the width is the height at least.
        columns: frames to take.
    """
    chosen = frames[np.linspace(0, len(frames) - 1, columns).round().astype(int)]
    height, width = chosen.shape[1:3]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return chosen[:, top:top + side, left:left + side]
