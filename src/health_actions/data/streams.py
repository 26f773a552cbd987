"""Optical flow and histograms of oriented gradients, drawn as images: any network for frames can take them."""

import cv2
import numpy as np
from skimage.feature import hog

FASTEST = 0.125  # motion that flow shows, as a share of the frame's width a frame: images do not depend on the size
ORIENTATIONS, CELL = 9, 8  # of gradients: number, and pixels


def draw_flow(frames: np.ndarray) -> np.ndarray:
    """Dense optical flow from each frame to the next (Dense Inverse Search; Kroeger et al., 2016) as images.

    Frames (RGB) and images are uint8 (frames, height, width, 3), sides of at least 16 pixels; ValueError for others.
    Channel 0 of the images is motion to the right, 1 downwards (128 is still, 255 `FASTEST`, 1 `FASTEST` the other
    way), 2 speed (0 is still, 255 `FASTEST`). The last image repeats the one before; a single frame is still.
    """
    grey = _make_grey(frames)
    cv2.setNumThreads(1)  # clips are processed side by side; and results do not depend on the number of cores
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow = np.zeros((*grey.shape, 2), np.float32)
    for number in range(len(grey) - 1):
        flow[number] = search.calc(grey[number], grey[number + 1], None)
    flow[-1] = flow[-2:][0]
    flow /= FASTEST * grey.shape[2]
    speed = np.linalg.norm(flow, axis=-1, keepdims=True)
    return np.concatenate([128 + 127 * flow.clip(-1, 1), 255 * speed.clip(0, 1)], axis=-1).round().astype(np.uint8)


def draw_gradients(frames: np.ndarray) -> np.ndarray:
    """Histograms of oriented gradients (Dalal and Triggs, 2005) as images. Shapes and errors: see `draw_flow`.

    Each cell of 8 x 8 pixels shows a line along each of nine orientations in which it has edges. In each frame the
    strongest line is white, so the light does not matter. Below 32 pixels cells are smaller.
    """
    grey = _make_grey(frames)
    cell = min(CELL, min(grey.shape[1:]) // 4)
    rows, columns = (side // cell for side in grey.shape[1:])
    # The whole frame is one block of cells: normalised by neighbours alone, a wall's noise would be as bright as hands.
    histograms = np.stack([
        hog(image, ORIENTATIONS, (cell, cell), (rows, columns), block_norm="L2-Hys", feature_vector=False)[0, 0]
        for image in grey])
    histograms /= np.maximum(histograms.max(axis=(1, 2, 3), keepdims=True), np.finfo(np.float64).tiny)
    # One line through the middle of a cell for each orientation, two pixels wide with soft sides.
    angles = (np.arange(ORIENTATIONS)[:, None, None] + 0.5) * np.pi / ORIENTATIONS  # of gradients: across the edges
    y, x = np.mgrid[:cell, :cell] - (cell - 1) / 2
    shapes = (1.5 - np.abs(x * np.cos(angles) + y * np.sin(angles))).clip(0, 1)
    lines = np.einsum("frco,oyx->frycx", histograms, shapes).reshape(-1, rows * cell, columns * cell, 1)
    images = np.zeros(frames.shape, np.uint8)
    images[:, :rows * cell, :columns * cell] = (255 * lines.clip(0, 1)).round()
    return images


def _make_grey(frames: np.ndarray) -> np.ndarray:
    shape = getattr(frames, "shape", ())
    if len(shape) != 4 or frames.dtype != np.uint8 or shape[0] < 1 or shape[3] != 3 or min(shape[1:3]) < 16:
        raise ValueError("expected one or more frames as uint8 (frames, height, width, 3), of at least 16 x 16 pixels; "
                         f"found {getattr(frames, 'dtype', type(frames).__name__)} {tuple(shape)}")
    return np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames])
