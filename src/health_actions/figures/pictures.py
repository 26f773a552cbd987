"""Frames of clips in rows, and frames with the saliency of a model."""

import cv2
import numpy as np
from matplotlib import colormaps, pyplot
from matplotlib.figure import Figure
from scipy import ndimage


def show_strips(strips: dict[str, np.ndarray], *, height: float = 0.75) -> Figure:
    """Rows of frames, `height` inches high: title -> uint8 (columns, height, width, 3)."""
    return show_snapshots({title: list(frames) for title, frames in strips.items()}, height=height)


def show_classes(frames: dict[str, np.ndarray], *, columns: int = 4) -> Figure:
    """Figure 1 of study A: one frame of each class; class -> uint8 (height, width, 3)."""
    rows = -(-len(frames) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(columns * 2.0, rows * 1.65), squeeze=False)
    for axis, (name, frame) in zip(axes.flat, frames.items(), strict=False):
        axis.imshow(frame)
        axis.set_title(name, fontsize=9, loc="center")
    pyplot.setp(axes.ravel(), xticks=[], yticks=[], frame_on=False)
    return figure


def overlay_saliency(frames: np.ndarray, saliency: np.ndarray) -> np.ndarray:
    """Frames in grey, bright where a model's answer depends on them: uint8 as `frames` (count, height, width, 3).

    `saliency` (count, rows, columns), 0 or more, is of the whole frames; it is smoothed and scaled frame by frame.
    """
    strength = ndimage.gaussian_filter(saliency.astype(float), (0, saliency.shape[1] / 40, saliency.shape[1] / 40))
    strength /= np.quantile(strength, 0.995, axis=(1, 2), keepdims=True).clip(1e-12)
    strength = np.stack([cv2.resize(one, frames.shape[2:0:-1]) for one in strength.clip(0, 1)])
    alpha = strength[..., None] ** 0.8
    heat, grey = 255 * colormaps["magma"](strength)[..., :3], 0.6 * frames.mean(-1, keepdims=True)
    return (alpha * heat + (1 - alpha) * grey).astype(np.uint8)


def show_snapshots(rows: dict[str, list[np.ndarray]], *, captions: dict[str, list[str]] | None = None,
                   boxes: dict[str, list[list[tuple]]] | None = None, height: float = 0.8) -> Figure:
    """Figures 2 and 3 of study B: rows of pictures of one height, whatever their shape.

    Args:
        rows: title -> pictures, uint8 (height, width, 3) each.
        captions: title -> a text under each of the row's pictures; rows may be missing.
        boxes: title -> the boxes to outline in each picture, (left, top, right, bottom) in pixels; rows may be missing.
        height: of a picture, inches.
    """
    captions, boxes, gap, below = captions or {}, boxes or {}, 0.06, 0.25 if captions else 0.03  # of a picture's height
    widths = {title: [picture.shape[1] / picture.shape[0] for picture in row] for title, row in rows.items()}
    widest = max(sum(row) + gap * (len(row) - 1) for row in widths.values())
    figure, axes = pyplot.subplots(len(rows), 1, squeeze=False,
                                   figsize=(widest * height + 1.6, len(rows) * height * (1 + below)))
    for axis, (title, pictures) in zip(axes[:, 0], rows.items(), strict=True):
        lefts = np.cumsum([0.0, *(width + gap for width in widths[title])])
        for number, picture in enumerate(pictures):
            left, width, scale = lefts[number], widths[title][number], 1 / picture.shape[0]
            axis.imshow(picture, extent=(left, left + width, 0, 1), interpolation="antialiased")
            for place, box in enumerate(boxes[title][number] if title in boxes else []):
                axis.add_patch(pyplot.Rectangle(
                    (left + box[0] * scale, 1 - box[3] * scale), (box[2] - box[0]) * scale, (box[3] - box[1]) * scale,
                    fill=False, edgecolor=f"C{place + 1}", linewidth=1.2))
            if title in captions:
                axis.text(left + width / 2, -0.05, captions[title][number], ha="center", va="top", fontsize=7)
        axis.set(xlim=(0, widest), ylim=(-below, 1), aspect="equal", xticks=[], yticks=[])
        axis.set_ylabel(title, rotation=0, ha="right", va="center", fontsize=8)
        axis.spines[:].set_visible(False)
    return figure


def take_squares(frames, columns: int) -> np.ndarray:
    """`columns` evenly spread frames of a clip (array or `frames.Clip`), the square in the middle of each; uint8."""
    chosen = frames[np.linspace(0, len(frames) - 1, columns).round().astype(int)]
    side = min(chosen.shape[1:3])
    top, left = (chosen.shape[1] - side) // 2, (chosen.shape[2] - side) // 2
    return chosen[:, top:top + side, left:left + side]
