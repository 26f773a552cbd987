"""A trained model that is given videos: which action a clip shows, and what a long video shows over time."""

from collections import deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from health_actions.evaluation import read_cards
from health_actions.extraction import sample_indices
from health_actions.frames import open_clip, read_index
from health_actions.models.folder import load_model
from health_actions.precision import autocast
from health_actions.transforms import CentreCrop, build_input_transform, place_frames
from health_actions.video import UnreadableVideo, sample_frames

RATE = 30  # frames per second of the clips of both studies; other videos are seen as often
NONE = "none of these"
CLIP_SECONDS = 30.0  # a longer video is watched, not recognised as one clip
LONGEST = 4 * 3600.0  # seconds of a video that is watched


@dataclass(frozen=True)
class Sampling:
    """How a study makes a model's input of a clip; see `extract_frames` and `extract_archives`.

    Args:
        stride: from one frame that the model sees to the next, in frames at 30 per second.
        length: of study A: frames kept of a clip, of which the centre window is seen; None for study B.
        height: of study B: pixels in height before the square in the middle is cropped; None for study A.
    """

    stride: int
    length: int | None = None
    height: int | None = None


class Recogniser:
    """A model folder, ready for videos.

    Args:
        folder: as of `save_model`.
        frames: those of the study whose clips it learned from, which tell how clips were sampled; or
        sampling: itself.
        threshold: largest probability below which a clip shows none of the classes; 0 takes every clip for one of them.

    Raises:
        FileNotFoundError, ValueError: see `load_model`.
    """

    def __init__(self, folder: Path, *, frames: Path | None = None, sampling: Sampling | None = None,
                 threshold: float = 0.0):
        self.model, self.card = load_model(folder)
        self.sampling, self.threshold = sampling or read_sampling(self.card, frames), threshold
        self.classes: list[str] = self.card["classes"]
        self.window, self.size = self.card["clip"]["window"], self.card["clip"]["size"]
        preprocessing = self.card["preprocessing"]
        self.transform = build_input_transform(preprocessing["mean"], preprocessing["std"], preprocessing["colour"])
        self.fit: nn.Module = nn.Identity() if self.sampling.height is None else CentreCrop(self.size)

    @property
    def scale(self) -> dict:
        """How a video's frames are scaled while they are decoded; see `sample_frames`."""
        return {"height": self.sampling.height} if self.sampling.height else {"size": self.size}

    def choose_frames(self, length: int) -> np.ndarray:
        """Numbers of the frames of a clip that the tests of the studies see: those of its centre window.

        Raises:
            UnreadableVideo: when the clip is too short.
        """
        if self.sampling.length is None:
            if length < self.window:
                raise UnreadableVideo(f"too short: {length} frames, at least {self.window} are needed")
            return place_frames(length, self.window, self.sampling.stride).numpy()
        kept = sample_indices(length, length=self.sampling.length, stride=self.sampling.stride)
        start = (len(kept) - self.window) // 2
        return kept[start:start + self.window]

    def recognise(self, path: Path) -> dict:
        """What one clip shows.

        Returns:
            frames: uint8 (window, height, width, 3), those that the model saw; probabilities: float (classes,), sum 1.

        Raises:
            UnreadableVideo: when it is no video, damaged, too short, or longer than `CLIP_SECONDS`.
        """
        frames = list(sample_frames(path, every=1 / RATE, longest=CLIP_SECONDS, **self.scale))
        chosen = np.stack([frames[number] for number in self.choose_frames(len(frames))])
        return {"frames": chosen, "probabilities": self.classify(chosen[None])[0]}

    def classify(self, windows: np.ndarray) -> np.ndarray:
        """Probabilities of windows: uint8 (count, window, height, width, 3) -> float (count, classes)."""
        frames = torch.from_numpy(windows).flatten(0, 1).permute(0, 3, 1, 2)
        clips = self.transform(self.fit(frames)).unflatten(0, windows.shape[:2]).transpose(1, 2)
        with torch.inference_mode(), autocast(self.card["training"]["precision"]):
            return self.model(clips).double().softmax(1).numpy()

    def watch(self, path: Path, *, every: float = 0.5, batch: int = 4):
        """What a video of any length shows over time; memory stays as it is however long it is.

        Args:
            path: the video.
            every: seconds from one window to the next.
            batch: windows that go through the model together.

        Yields:
            For each window in turn: start and end in seconds, its middle frame, and float (classes,) probabilities. A
            video that is shorter than a window is looped.

        Raises:
            UnreadableVideo: see `sample_frames`; or when there is nothing in it.
        """
        step = self.sampling.stride / RATE
        hop = max(1, round(every / step))
        kept, waiting, count = deque(maxlen=self.window), [], 0
        for frame in sample_frames(path, every=step, longest=LONGEST, **self.scale):
            kept.append(frame)
            count += 1
            if count >= self.window and (count - self.window) % hop == 0:
                waiting.append((count, np.stack(kept)))
            if len(waiting) == batch:
                yield from self._answer(waiting, step)
                waiting = []
        if count < self.window:
            looped = [kept[number % count] for number in range(self.window)]
            waiting.append((count, np.stack(looped)))
        yield from self._answer(waiting, step)

    def _answer(self, waiting: list[tuple[int, np.ndarray]], step: float):
        if waiting:
            probabilities = self.classify(np.stack([window for _, window in waiting]))
            for (count, window), answer in zip(waiting, probabilities, strict=True):
                start = max(0, count - self.window) * step
                yield start, min(count, start / step + self.window) * step, window[len(window) // 2], answer

    def name(self, probabilities: np.ndarray) -> str:
        """The class of the largest probability, or `NONE` where that is below the threshold."""
        return self.classes[int(probabilities.argmax())] if probabilities.max() >= self.threshold else NONE


def find_model(folder: Path) -> Path:
    """Of an architecture's trained folds the one whose validation was best.

    Raises:
        FileNotFoundError: when none was trained; says what trains one.
    """
    try:
        cards = read_cards(folder)
    except FileNotFoundError:
        raise FileNotFoundError(f"no trained model in {folder}: make repro trains it") from None
    best = max(cards, key=lambda card: card["scores"]["validation_clip_top1"])
    return Path(folder) / f"fold_{best['training']['fold']}"


def read_sampling(card: dict, frames: Path) -> Sampling:
    """How a study's clips were sampled, from a model's card and the frames that it learned from.

    Args:
        card: of the model.
        frames: as of `extract_frames` or `extract_archives`.
    """
    index = read_index(frames).query("status == 'ok'")
    if card["clip"]["stride"] is None:
        return Sampling(int(index["stride"].max()), length=int(index["length"].max()))
    return Sampling(card["clip"]["stride"], height=open_clip(frames, index["clip"].iloc[0])[0:1].shape[1])


def find_events(timeline: pd.DataFrame, classes: list[str], *, threshold: float, shortest: float = 0.0) -> pd.DataFrame:
    """Stretches of a timeline in which the same action is seen.

    Args:
        timeline: a row a window: start and end (seconds), and the probability of each class.
        threshold: see `Recogniser`.
        shortest: seconds; shorter events are left out.

    Returns:
        action, start, end (seconds), confidence (mean of its largest probabilities), windows.
    """
    columns = ["action", "start", "end", "confidence", "windows"]
    if timeline.empty:
        return pd.DataFrame(columns=columns)
    probabilities = timeline[classes].to_numpy()
    best = probabilities.max(1)
    seen = np.where(best >= threshold, np.array(classes, dtype=object)[probabilities.argmax(1)], NONE)
    runs = np.cumsum(np.concatenate([[False], seen[1:] != seen[:-1]]))
    rows = timeline[["start", "end"]].assign(action=seen, confidence=best, run=runs)
    events = rows.groupby("run", as_index=False).agg(
        action=("action", "first"), start=("start", "first"), end=("end", "last"), confidence=("confidence", "mean"),
        windows=("action", "size"))
    lasting = events["end"] - events["start"] >= shortest
    return events.loc[(events["action"] != NONE) & lasting, columns].reset_index(drop=True)
