"""Duplicate clips: the same file, the same pictures encoded or scaled in another way, or parts of one recording."""

import hashlib
from collections.abc import Iterator
from itertools import combinations

import cv2
import numpy as np
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from health_actions.data.frames import Clip

ALIKE = 100  # clips with equal signatures of which every pair is listed
ROWS, PAIRS = 64, 1024  # compared at a time, so that memory stays flat


def compute_signature(frames: np.ndarray | Clip) -> np.ndarray:
    """Mean greys (0-255) of 16 x 16 blocks of 8 evenly spread frames: float32 (2048,). Sides of 16 pixels or more."""
    chosen = frames[np.linspace(0, len(frames) - 1, 8).round().astype(int)].mean(-1)
    area = 1
    for axis in (1, 2):
        edges = np.linspace(0, chosen.shape[axis], 17).astype(int)
        chosen = np.add.reduceat(chosen, edges[:-1], axis=axis)
        area = np.multiply.outer(area, np.diff(edges))
    return (chosen / area).astype(np.float32).ravel()


def find_duplicates(clips: pd.DataFrame, signatures: np.ndarray, *, tolerance: float = 2.0) -> pd.DataFrame:
    """Find pairs of duplicate clips. A clip cut at another moment, or mirrored, is not found.

    `signatures` is (clips, values), see `compute_signature`. Duplicates have a mean absolute difference in grey values
    up to `tolerance`. Measured on real clips: another size and encoder give up to 0.7; the nearest different clips of
    one scene differ by 4. Of more than `ALIKE` equal signatures, the further ones are paired with the first one alone.

    Returns one row a pair: clip, other, kind ("identical" or "near-identical"), difference, same_class, same_recording.
    """
    signatures = np.ascontiguousarray(signatures, np.float32)
    equal = pd.Series(range(len(clips))).groupby([hashlib.sha256(row).digest() for row in signatures])
    first, further = equal.transform("first").to_numpy(), equal.cumcount().to_numpy() >= ALIKE
    near = [*_find_near(signatures, np.flatnonzero(~further), tolerance * signatures.shape[1]),
            (first[further], np.flatnonzero(further), np.zeros(further.sum()))]
    one, other, distance = (np.concatenate(parts) for parts in zip(*near))
    order = np.lexsort((other, one))
    left, right = (clips.iloc[rows[order]].reset_index(drop=True) for rows in (one, other))
    return pd.DataFrame({
        "clip": left["clip"], "other": right["clip"],
        "kind": np.where(left["content"] == right["content"], "identical", "near-identical"),
        "difference": [round(value / signatures.shape[1], 2) for value in distance[order].tolist()],
        "same_class": left["class"] == right["class"], "same_recording": left["recording"] == right["recording"]})


def _find_near(signatures: np.ndarray, rows: np.ndarray, radius: float) -> Iterator[tuple[np.ndarray, ...]]:
    """Pairs of rows whose values differ by at most `radius` in sum: arrays one, other and distance, part by part."""
    # Only rows with near sums over 4 x 4 blocks of the picture are compared: sums differ at most as much as values do.
    place = np.arange(signatures.shape[1])
    groups = np.equal.outer(place // 64 % 4 * 4 + place // 4 % 4, np.arange(16)).astype(float)
    sums = np.concatenate([signatures[rows[start:start + PAIRS]] @ groups for start in range(0, len(rows), PAIRS)])
    tree = KDTree(sums)
    for start in range(0, len(rows), ROWS):
        found = tree.query_ball_point(sums[start:start + ROWS], radius * (1 + 1e-9) + 1e-6, p=1)  # rounding
        one = np.repeat(np.arange(start, start + len(found)), [len(others) for others in found])
        other = np.concatenate(found).astype(int)
        one, other = rows[one[one < other]], rows[other[one < other]]
        for part in range(0, len(one), PAIRS):
            pair = one[part:part + PAIRS], other[part:part + PAIRS]
            distance = np.abs(signatures[pair[0]].astype(float) - signatures[pair[1]]).sum(1)
            chosen = distance <= radius
            yield pair[0][chosen], pair[1][chosen], distance[chosen]


def find_overlaps(clips: pd.DataFrame, thumbnails: list[np.ndarray], *, least: int = 10,
                  threshold: float = 0.97) -> pd.DataFrame:
    """Find pairs of clips of one class that show the same moments, one of them later or longer than the other.

    What moves is compared, at every shift, see `correlate`. Of the real hand-wash clips, parts of one recording
    correlate with 1.00; the nearest two takes with 0.80.

    Args:
        thumbnails: of each clip in `clips`, (frames, values) grey, in equal steps of time.
        least: frames that must overlap.
        threshold: correlation from which two clips overlap.

    Returns the table of `find_duplicates`; its kind is "overlapping".
    """
    rows = []
    for numbers in clips.reset_index(drop=True).groupby("class", sort=False).groups.values():
        for one, other in combinations(numbers, 2):
            for shift in range(least - len(thumbnails[one]), len(thumbnails[other]) - least + 1):
                frames = min(len(thumbnails[one]) - max(0, -shift), len(thumbnails[other]) - max(0, shift))
                first, second = (thumbnails[number][start:start + frames] for number, start in (
                    (one, max(0, -shift)), (other, max(0, shift))))
                if frames >= least and correlate(first, second) > threshold:
                    rows.append((one, other, round(float(np.abs(first - second).mean()), 2)))
                    break
    left, right = (clips.iloc[[row[place] for row in rows]].reset_index(drop=True) for place in (0, 1))
    return pd.DataFrame({
        "clip": left["clip"], "other": right["clip"], "kind": "overlapping", "difference": [row[2] for row in rows],
        "same_class": True, "same_recording": left["recording"] == right["recording"]})


def correlate(first: np.ndarray, second: np.ndarray) -> float:
    """The correlation of how both (frames, values) change over time, all values together; 0 where nothing changes."""
    first, second = (frames - frames.mean(axis=0) for frames in (first, second))
    return float((first * second).sum() / np.sqrt(max((first**2).sum() * (second**2).sum(), 1e-9)))


def compute_thumbnails(frames: np.ndarray | Clip, size: tuple[int, int] = (24, 16)) -> np.ndarray:
    """Mean greys (0-255) of all frames at `size` (width, height): float32 (frames, width x height)."""
    small = [cv2.resize(frame.mean(-1, dtype=np.float32), size, interpolation=cv2.INTER_AREA) for frame in frames[:]]
    return np.stack(small).reshape(len(small), -1)


def drop_duplicates(clips: pd.DataFrame, duplicates: pd.DataFrame) -> pd.DataFrame:
    """Keep one clip of each set of duplicates: a given test clip before a validation clip before a training clip."""
    number = pd.Series(range(len(clips)), clips["clip"])
    pairs = tuple(number[duplicates[column]].to_numpy() for column in ("clip", "other"))
    graph = coo_matrix((np.ones(len(duplicates)), pairs), shape=(len(clips), len(clips)))
    rank = clips["given_split"].map({"testing": 0, "validation": 1}).fillna(2)
    ordered = clips.assign(group=connected_components(graph)[1], rank=rank).sort_values(["rank", "clip"])
    return clips.loc[sorted(ordered.drop_duplicates("group").index)].reset_index(drop=True)
