"""Frames of clips in rows, and frames with the saliency of a model or with the landmarks of hands and bodies."""

import cv2
import numpy as np
from matplotlib import colormaps, pyplot
from matplotlib.figure import Figure
from scipy import ndimage

# Pairs of the landmarks of `models.landmarks` that a line joins.
HAND_BONES = [(0, 1), (0, 5), (5, 9), (9, 13), (13, 17), (17, 0),
              *((point, point + 1) for point in range(20) if point % 4)]  # four bones a finger, the palm apart
BODY_BONES = [(0, 1), (1, 2), (2, 3), (3, 7), (0, 4), (4, 5), (5, 6), (6, 8), (9, 10), (11, 12), (11, 23), (12, 24),
              (23, 24), *((point + side, point + step + side) for side in (0, 1) for point, step in (
                  (11, 2), (13, 2), (15, 2), (15, 4), (15, 6), (17, 2), (23, 2), (25, 2), (27, 2), (27, 4), (29, 2)))]
COLOURS = [(0, 114, 178), (230, 159, 0)]  # of a left and a right hand


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


def draw_landmarks(frame: np.ndarray, found: dict[str, np.ndarray]) -> np.ndarray:
    """A copy of a frame, uint8 (height, width, 3), with lines and dots where a tracker found them.

    The left hand is blue, the right one orange, as a body is; of a body only what is visible is drawn.
    """
    frame, size, thickness = frame.copy(), frame.shape[1::-1], max(1, round(frame.shape[0] / 100))
    bones, colours = (HAND_BONES, COLOURS) if "handedness" in found else (BODY_BONES, COLOURS[1:])
    for points, colour in zip(found["image"].reshape(-1, *found["image"].shape[-2:]), colours, strict=True):
        seen = np.isfinite(points).all(axis=1) & (found.get("visibility", np.float32(1)) >= 0.5)
        places = {number: tuple((16 * points[number, :2] * size).round().astype(int).tolist())
                  for number in np.flatnonzero(seen)}  # 16: OpenCV takes sixteenths of a pixel with shift=4
        for paint, wider in (((255, 255, 255), max(1, thickness // 2)), (colour, 0)):  # a white rim shows on skin
            for start, end in bones:
                if start in places and end in places:
                    cv2.line(frame, places[start], places[end], paint, thickness + wider, cv2.LINE_AA, 4)
            for place in places.values():
                cv2.circle(frame, place, 16 * thickness + 8 * wider, paint, -1, cv2.LINE_AA, 4)
    return frame


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
