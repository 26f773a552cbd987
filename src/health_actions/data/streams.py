"""What else a clip shows than its colours: where things move, and which way their edges run.

Both are drawn as images, so that any network that looks at frames can look at them.
"""

import cv2
import numpy as np
from skimage.feature import hog

ORIENTATIONS = 9
CELL = 8  # pixels


def draw_flow(frames: np.ndarray, limit: float = 0.125) -> np.ndarray:
    """Dense optical flow from each frame to the next (Dense Inverse Search; Kroeger et al., 2016) as images.

    Args:
        frames: uint8 (frames, height, width, 3), RGB, sides of at least 16 pixels.
        limit: the fastest motion that is told apart, as a part of the frame's width a frame: clips look alike at any
            size.

    Returns:
        uint8 (frames, height, width, 3). Channel 0: motion to the right, 1: downwards (128 is still, 255 the limit, 1
        the limit the other way), 2: speed (0 is still, 255 the limit). The last frame repeats the one before it; a
        clip of one frame is still.

    Raises:
        ValueError: for another shape or type of `frames`.
    """
    grey = _make_grey(frames)
    # Results then do not depend on the machine's number of cores, nor do clips that are worked on side by side compete.
    cv2.setNumThreads(1)
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow = np.zeros((*grey.shape, 2), np.float32)
    for number in range(len(grey) - 1):
        flow[number] = search.calc(grey[number], grey[number + 1], None)
    flow[-1] = flow[-2:][0]
    flow /= limit * grey.shape[2]
    speed = np.linalg.norm(flow, axis=-1, keepdims=True)
    images = np.concatenate([128 + 127 * flow.clip(-1, 1), 255 * speed.clip(0, 1)], axis=-1)
    return images.round().astype(np.uint8)


def draw_gradients(frames: np.ndarray) -> np.ndarray:
    """Histograms of oriented gradients (Dalal and Triggs, 2005) as images.

    Each cell of 8 x 8 pixels shows a line along every one of nine orientations in which it has edges; the stronger, the
    brighter. In each frame the strongest line is white: brightness and contrast of the light do not matter.

    Args:
        frames: uint8 (frames, height, width, 3), RGB, sides of at least 16 pixels. Below 32 cells are smaller, so that
            there are 4 x 4 or more; pixels beyond the last whole cell stay black.

    Returns:
        uint8 (frames, height, width, 3), three equal channels; black where nothing has an edge.

    Raises:
        ValueError: for another shape or type of `frames`.
    """
    grey = _make_grey(frames)
    _, height, width = grey.shape
    cell = min(CELL, min(height, width) // 4)
    rows, columns = height // cell, width // cell
    # The whole frame is one block of cells: normalised by its neighbours alone, a bare wall's noise would be as bright
    # as a hand's edges.
    histograms = np.stack([
        hog(image, ORIENTATIONS, (cell, cell), (rows, columns), block_norm="L2-Hys", feature_vector=False)[0, 0]
        for image in grey])
    histograms /= np.maximum(histograms.max(axis=(1, 2, 3), keepdims=True), np.finfo(np.float64).tiny)
    lines = np.einsum("frco,oyx->frycx", histograms, _draw_lines(cell))
    images = np.zeros(frames.shape, np.uint8)
    images[:, :rows * cell, :columns * cell] = (
        (255 * lines.clip(0, 1)).round().reshape(len(grey), rows * cell, columns * cell, 1))
    return images


def _draw_lines(cell: int) -> np.ndarray:
    """One line through the middle of a cell for each orientation: (ORIENTATIONS, cell, cell), 0-1."""
    # An edge runs across its gradient, whose angle is the middle of the histogram's bin.
    angles = (np.arange(ORIENTATIONS)[:, None, None] + 0.5) * np.pi / ORIENTATIONS
    y, x = np.mgrid[:cell, :cell] - (cell - 1) / 2
    # The middle lies between pixels: a line of two pixels, and softer sides.
    return (1.5 - np.abs(x * np.cos(angles) + y * np.sin(angles))).clip(0, 1)


def _make_grey(frames: np.ndarray) -> np.ndarray:
    shape, kind = getattr(frames, "shape", ()), getattr(frames, "dtype", type(frames).__name__)
    if kind != np.uint8 or len(shape) != 4 or shape[0] < 1 or shape[3] != 3 or min(shape[1:3]) < 16:
        raise ValueError("expected one or more frames as uint8 (frames, height, width, 3), of at least 16 x 16 pixels; "
                         f"found {kind} {tuple(shape)}")
    return np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames])
