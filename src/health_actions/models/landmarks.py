"""Landmarks of hands and bodies in video: MediaPipe's four networks (weights/landmarks), and the steps around them.

A detector looks for palms, or for people, in the whole frame. A second network finds the landmarks in a turned square
crop round each. In the next frame the crop follows from them, and the detector is asked only where one is missing.
Order of landmarks (21 of a hand, 33 of a body), geometry and thresholds are those of MediaPipe 0.10.21 (The MediaPipe
Authors, github.com/google-ai-edge/mediapipe, Apache License 2.0), without its smoothing over time. Other than there, a
lost track is looked for in the same frame, palms, not boxes, tell whether two hands are one, and sides are remembered.
"""

import functools
from collections.abc import Callable, Iterable
from typing import NamedTuple

import cv2
import numpy as np
from onnxruntime import InferenceSession, SessionOptions
from scipy.special import expit, logit

from health_actions.paths import at_root

LEAST = 0.5  # score of a detection, presence of a hand or a body, peak of a heatmap: below, it is not there
OVERLAP = 0.3  # intersection over union of two boxes: above, they are of one palm or person
PALM = [0, 5, 9, 13, 17, 1, 2]  # the landmarks of a hand that the palm detector gives as well, in its order
STABLE = [0, 1, 2, 3, 5, 6, 9, 10, 13, 14, 17, 18]  # landmarks that move least: the next crop is round them
SAME = 0.15  # mean distance of two palms' axes by the side of a crop: below, they are one hand found twice
MEMORY = 0.95  # what a frame leaves of the evidence before it for a track's side


class Crop(NamedTuple):
    """A square in a frame: centre (x, y) and side in pixels; turned clockwise by `angle`, radians."""

    centre: np.ndarray
    side: float
    angle: float

    @property
    def turn(self) -> np.ndarray:
        """The rotation (2, 2) from the crop's axes to those of the frame."""
        return np.array([[np.cos(self.angle), -np.sin(self.angle)], [np.sin(self.angle), np.cos(self.angle)]])

    def cut(self, frame: np.ndarray, size: int) -> np.ndarray:
        """The square of a frame, float32 (1, size, size, 3), 0-1."""
        turn = self.turn * (self.side / size)
        matrix = np.column_stack([turn, self.centre - turn @ [size / 2, size / 2]])
        how = {"flags": cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, "borderMode": cv2.BORDER_REPLICATE}
        return cv2.warpAffine(frame, matrix, (size, size), **how)[None] * np.float32(1 / 255)

    def align(self, points: np.ndarray) -> np.ndarray:
        """Points (number, 3) along the crop's axes -> along those of the frame."""
        return np.column_stack([points[:, :2] @ self.turn.T, points[:, 2]])

    def place(self, points: np.ndarray) -> np.ndarray:
        """Points (number, 3) in shares of the crop, from its corner -> pixels of the frame; z grows with the side."""
        return self.align(points - [0.5, 0.5, 0]) * self.side + [*self.centre, 0]


class Detector:
    """Palms, or people, anywhere in a frame.

    The network takes square images of `size` pixels, `black` to 1, and gives boxes in the cells of `grids`:
    pixels from cell to cell -> boxes of a cell.
    """

    def __init__(self, name: str, size: int, grids: dict[int, int], black: float):
        self.network, self.size, self.black = open_network(name), size, black
        lines = [(np.arange(size // step) + 0.5) * step for step in grids]
        cells = [np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 1, 2) for line in lines]
        self.cells = np.concatenate([np.repeat(cell, boxes, axis=0) for cell, boxes in zip(cells, grids.values())])

    def __call__(self, frame: np.ndarray) -> list[np.ndarray]:
        """Points (2 + keypoints, 2) of all it finds, pixels: corners of the box, keypoints. The most certain first."""
        scale = self.size / max(frame.shape[:2])
        height, width = (max(1, round(side * scale)) for side in frame.shape[:2])
        top, left = (self.size - height) // 2, (self.size - width) // 2
        image = np.full((1, self.size, self.size, 3), self.black, np.float32)
        small = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
        image[0, top:top + height, left:left + width] = small * np.float32((1 - self.black) / 255) + self.black
        boxes, scores = self.network(image)
        scores = expit(scores[:, 0])
        order = np.argsort(-scores, kind="stable")[:np.count_nonzero(scores >= LEAST)]
        scores, points = scores[order], boxes.reshape(len(boxes), -1, 2)[order]  # middle, size, keypoints
        middle, half = points[:, :1], points[:, 1:2] / 2
        points = np.concatenate([middle - half, middle + half, points[:, 2:]], axis=1) + self.cells[order]
        points, found = (points - [left, top]) / scale, []
        while len(points):  # all that overlap with the most certain one become one with it, weighted by their scores
            low, high = points[:, 0], points[:, 1]
            common = (np.minimum(high[0], high) - np.maximum(low[0], low)).clip(0).prod(axis=1)
            areas = (high - low).prod(axis=1)
            same = common > OVERLAP * (areas[0] + areas - common)
            same[0] = True
            found.append(np.average(points[same], axis=0, weights=scores[same]))
            points, scores = points[~same], scores[~same]
        return found


class HandTracker:
    """Up to two hands, from frame to frame of one video.

    Called with a frame, uint8 (height, width, 3), RGB, not mirrored, it returns float32 arrays, nan for what is
    missing. Slot 0 is the person's left hand, slot 1 the right one. image: landmarks (2, 21, 3), x and y in shares of
    the frame's width and height, z (smaller is nearer) of its width. world: (2, 21, 3), metres from the hand's middle,
    along the frame's axes. presence and handedness: (2,), probabilities of a hand, and of a right one.
    """

    SHAPES = {"image": (2, 21, 3), "world": (2, 21, 3), "presence": (2,), "handedness": (2,)}

    def __init__(self):
        self.detector = Detector("palm_detection_full", 192, {8: 2, 16: 6}, 0)
        self.network, self.hands = open_network("hand_landmark_full"), []

    def __call__(self, frame: np.ndarray) -> dict[str, np.ndarray]:
        tracked = [self.read(frame, hand["crop"], hand["right"]) for hand in self.hands]
        self.hands = []  # of two tracks on one hand the one stays whose side fits better
        for hand in sorted(filter(None, tracked), key=lambda hand: hand["right"] * (0.5 - hand["handedness"])):
            self.add(hand)
        for points in self.detector(frame) if len(self.hands) < 2 else []:
            if len(self.hands) < 2 and not self.is_known(points[2:]):
                low, high, wrist, _, middle_finger = points[:5]
                self.add(self.read(frame, surround(
                    (low + high) / 2, high - low, measure_angle(wrist, middle_finger), shift=0.5, scale=2.6)))
        hands = sorted(self.hands, key=lambda hand: hand["right"])
        slots = [0, 1] if len(hands) == 2 else [int(hand["right"] >= 0) for hand in hands]
        return collect(self.SHAPES, zip(slots, hands), frame)

    def add(self, hand: dict | None) -> None:
        """Take a hand into the tracks unless it is one of them."""
        if hand and not self.is_known(hand["image"][PALM, :2]):
            self.hands.append(hand)

    def is_known(self, palm: np.ndarray) -> bool:
        """Whether the points (7, 2) of a palm are those of a hand in the tracks, be it taken for the other hand."""
        return any(np.linalg.norm(draw_axis(hand["image"][PALM, :2]) - draw_axis(palm), axis=1).mean()
                   < SAME * hand["crop"].side for hand in self.hands)

    def read(self, frame: np.ndarray, crop: Crop, right: float = 0.0) -> dict | None:
        """A crop's hand, if any: image in pixels; `right`, log-odds of a right one; the crop for the next frame."""
        landmarks, (presence,), (handedness,), world = self.network(crop.cut(frame, 224))
        if not presence >= LEAST:
            return None
        image = crop.place(landmarks.reshape(21, 3) / [224, 224, 224 * 0.4])  # 0.4: MediaPipe's scale of depth
        points, right = image[:, :2], MEMORY * right + logit(handedness.clip(0.02, 0.98))
        angle = measure_angle(points[0], (points[5] + 2 * points[9] + points[13]) / 4)
        turn = Crop(points[0], 0, angle).turn
        low, high = (edge(points[STABLE] @ turn, axis=0) for edge in (np.min, np.max))  # along the next crop's axes
        return {"image": image, "world": crop.align(world.reshape(21, 3)), "presence": presence, "right": right,
                "handedness": handedness, "crop": surround(turn @ (low + high) / 2, high - low, angle, 0.1, 2)}


class PoseTracker:
    """One person, from frame to frame of one video: the one of whom the detector is most certain, until it is lost.

    Called with a frame, as `HandTracker`, it returns float32 arrays, nan for what is missing. image: landmarks (33, 3),
    in the units of a hand's. world: (33, 3), metres from the middle of the hips, along the frame's axes. visibility:
    (33,), probabilities that a landmark is in the frame and not hidden. presence: (), the probability of a person.
    """

    SHAPES = {"image": (33, 3), "world": (33, 3), "visibility": (33,), "presence": ()}

    def __init__(self):
        self.detector = Detector("pose_detection", 224, {8: 2, 16: 2, 32: 6}, -1)
        self.network, self.pose = open_network("pose_landmark_full"), None

    def __call__(self, frame: np.ndarray) -> dict[str, np.ndarray]:
        self.pose = self.read(frame, *self.pose["ends"]) if self.pose else None
        for points in [] if self.pose else self.detector(frame)[:1]:
            self.pose = self.read(frame, *points[2:4])
        return collect(self.SHAPES, [(..., self.pose)] if self.pose else [], frame)

    def read(self, frame: np.ndarray, hips: np.ndarray, end: np.ndarray) -> dict | None:
        """The person round the hips' middle who reaches to `end`, if any: image in pixels, both points as "ends"."""
        crop = Crop(hips, 2.5 * np.linalg.norm(end - hips), measure_angle(hips, end))
        landmarks, (presence,), heatmaps, world = self.network(crop.cut(frame, 256))
        if not presence >= LEAST:
            return None
        landmarks = landmarks.reshape(39, 5)  # x, y, z; visibility, presence
        points = np.column_stack([make_exact(landmarks[:, :2] / 256, heatmaps), landmarks[:, 2] / 256])
        image, world = crop.place(points), crop.align(world.reshape(39, 3))
        return {"image": image[:33], "world": world[:33], "visibility": expit(landmarks[:33, 3]), "presence": presence,
                "ends": image[33:35, :2]}


def detect_landmarks(frames: Iterable[np.ndarray], kind: str = "hands") -> dict[str, np.ndarray]:
    """Landmarks of "hands", or of a body ("pose"), in a video: what the kind's tracker gives, a row for each frame."""
    tracker = {"hands": HandTracker, "pose": PoseTracker}[kind]()
    rows = [tracker(frame) for frame in frames]
    return {name: np.array([row[name] for row in rows], np.float32).reshape(-1, *shape)
            for name, shape in tracker.SHAPES.items()}


@functools.cache
def open_network(name: str) -> Callable[[np.ndarray], list[np.ndarray]]:
    """A network on one thread, read once for all: an image (1, size, size, 3) -> its outputs in the file's order."""
    options = SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = InferenceSession(at_root(f"weights/landmarks/{name}.onnx"), options, providers=["CPUExecutionProvider"])
    return lambda image: [values[0] for values in session.run(None, {"image": image})]


def make_exact(points: np.ndarray, heatmaps: np.ndarray) -> np.ndarray:
    """Points (number, 2), shares of a crop, moved to the mean of heatmaps (number, cells, cells) that are sure."""
    cells, near = heatmaps.shape[1], np.arange(-3, 4)  # 7 x 7 of 64 x 64 cells
    columns, rows = np.floor(points * cells).astype(int).T
    columns, rows = columns[:, None, None] + near, rows[:, None, None] + near[:, None]
    inside = (rows >= 0) & (rows < cells) & (columns >= 0) & (columns < cells)
    places = np.arange(len(points))[:, None, None], rows.clip(0, cells - 1), columns.clip(0, cells - 1)
    weights = expit(heatmaps[places]) * inside
    means = [(weights * grid).sum(axis=(1, 2)) / weights.sum(axis=(1, 2)).clip(1e-9) for grid in (columns, rows)]
    sure = inside[:, 3, 3] & (weights.max(axis=(1, 2)) >= LEAST)
    return np.where(sure[:, None], np.stack(means, axis=1) / cells, points)


def surround(middle: np.ndarray, size: np.ndarray, angle: float, shift: float, scale: float) -> Crop:
    """A crop round a box (width, height): its longer side times `scale`, moved up its axes by `shift` of its height."""
    turn = Crop(middle, 0, angle).turn
    return Crop(middle - turn @ [0, shift * size[1]], scale * size.max(), angle)


def draw_axis(palm: np.ndarray) -> np.ndarray:
    """The points (3, 2) of a palm (7, 2) that stay where they are when left and right are mixed up."""
    return np.stack([palm[0], (palm[1] + palm[4]) / 2, (palm[2] + palm[3]) / 2])


def measure_angle(start: np.ndarray, end: np.ndarray) -> float:
    """The clockwise turn of a crop, radians, in which the line from start to end points up."""
    return np.arctan2(end[0] - start[0], start[1] - end[1])


def collect(shapes: dict[str, tuple], found: Iterable[tuple], frame: np.ndarray) -> dict[str, np.ndarray]:
    """Arrays of nan but for what was found in a frame: (slot, values by name), image brought from pixels to shares."""
    height, width = frame.shape[:2]
    result = {name: np.full(shape, np.nan, np.float32) for name, shape in shapes.items()}
    for slot, values in found:
        for name, array in result.items():
            array[slot] = values[name] / np.array([width, height, width]) if name == "image" else values[name]
    return result
