"""A trained model that is given videos: which action a clip shows, and what a long video shows over time."""

import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from health_actions.data.extraction import sample_indices
from health_actions.data.frames import open_clip, read_index
from health_actions.data.transforms import CentreCrop, build_input_transform, place_frames
from health_actions.data.video import UnreadableVideo, sample_frames
from health_actions.learning.evaluation import read_cards
from health_actions.learning.precision import autocast
from health_actions.models.folder import load_model
from health_actions.paths import atomic_write, place_inside

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


@dataclass(frozen=True)
class Familiarity:
    """How near a clip is to what a model learned from: its features against those of the training clips.

    The squared Mahalanobis distance to the nearest class, with one covariance for all (Lee et al., 2018, "A simple
    unified framework for detecting out-of-distribution samples"). The features are what the last layer takes.

    Args:
        means: float32 (classes, features).
        precision: float32 (features, features), inverse of the covariance.
        largest: distance up to which a clip is taken for one of the classes.
    """

    means: torch.Tensor
    precision: torch.Tensor
    largest: float = float("inf")

    def measure(self, features: torch.Tensor) -> torch.Tensor:
        """Distances of float32 (count, features) to the nearest class: (count,), 0 or more."""
        away = features[:, None] - self.means
        return ((away @ self.precision) * away).sum(-1).amin(1).clamp_min(0)

    def save(self, file: Path) -> None:
        """Write it as a safetensors file, whole or not at all."""
        with atomic_write(file) as temporary:
            save_file({"means": self.means.contiguous(), "precision": self.precision.contiguous(),
                       "largest": torch.tensor([self.largest])}, temporary)

    @classmethod
    def load(cls, file: Path) -> "Familiarity":
        """Read what `save` wrote. Raises ValueError, one line, for anything else; nothing in it is run."""
        try:
            stored = load_file(file)
            return cls(stored["means"], stored["precision"], float(stored["largest"]))
        except (KeyError, ValueError, RuntimeError, SafetensorError) as error:
            raise ValueError(f"{file} tells no familiarity: {str(error).splitlines()[0]}; make it again (make repro)"
                             ) from None


class Answer(NamedTuple):
    """What a model says of one window of frames.

    Args:
        start, end: seconds of the video.
        frames: uint8 (window, height, width, 3), what it saw.
        probabilities: float (classes,), sum 1.
        features: float32 (features,), what its last layer took.
        action: the most probable class, or `NONE` where the clip is too far from what the model learned from.
    """

    start: float
    end: float
    frames: np.ndarray
    probabilities: np.ndarray
    features: torch.Tensor
    action: str


class Recogniser:
    """A model folder, ready for videos; may be used from several threads.

    Args:
        folder: as of `save_model`.
        frames: those of the study whose clips it learned from, which tell how clips were sampled; or
        sampling: itself.
        familiarity: None takes every clip for one of the classes.

    Raises:
        FileNotFoundError, ValueError: see `load_model`.
    """

    def __init__(self, folder: Path, *, frames: Path | None = None, sampling: Sampling | None = None,
                 familiarity: Familiarity | None = None):
        self.model, self.card = load_model(folder)
        try:
            self.sampling, self.familiarity = sampling or read_sampling(self.card, frames), familiarity
            self.classes: list[str] = self.card["classes"]
            self.window, self.size = self.card["clip"]["window"], self.card["clip"]["size"]
            self.transform = build_input_transform(**{name: self.card["preprocessing"][name]
                                                      for name in ("mean", "std", "colour")})
        except (LookupError, TypeError) as error:
            raise ValueError(f"the card of {folder} is not complete ({error}): train the model again") from None
        self.fit: nn.Module = nn.Identity() if self.sampling.height is None else CentreCrop(self.size)
        self.taken = threading.local()
        self.read = sample_frames  # how a video becomes frames; the app, which takes anybody's files, reads them apart
        last = [module for module in self.model.modules() if getattr(module, "weight", None) is not None][-1]
        last.register_forward_pre_hook(self._take_features)

    def _take_features(self, _, inputs: tuple[torch.Tensor]) -> None:
        self.taken.features = inputs[0].detach().float().flatten(2).mean(2) if inputs[0].ndim > 2 else inputs[
            0].detach().float()

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

    def recognise(self, path: Path) -> Answer:
        """What one clip shows: the answer to the window that the studies' tests see.

        Raises:
            UnreadableVideo: when it is no video, damaged, too short, or longer than `CLIP_SECONDS`.
        """
        frames = list(self.read(path, every=1 / RATE, longest=CLIP_SECONDS, **self.scale))
        chosen = self.choose_frames(len(frames))
        window = np.stack([frames[number] for number in chosen])
        return self.answer([(chosen[0] / RATE, (chosen[-1] + 1) / RATE, window)])[0]

    def answer(self, windows: list[tuple[float, float, np.ndarray]]) -> list[Answer]:
        """Answers to windows: (start, end, frames) each, see `Answer`."""
        if not windows:
            return []
        frames = torch.from_numpy(np.concatenate([frames for _, _, frames in windows])).permute(0, 3, 1, 2)
        clips = self.transform(self.fit(frames)).unflatten(0, (len(windows), -1)).transpose(1, 2)
        with torch.inference_mode(), autocast(self.card["training"]["precision"]):
            probabilities = self.model(clips).double().softmax(1).numpy()
        features = self.taken.features
        known = [True] * len(windows) if self.familiarity is None else (
            self.familiarity.measure(features) <= self.familiarity.largest).tolist()
        actions = [self.classes[int(shares.argmax())] if believed else NONE
                   for shares, believed in zip(probabilities, known, strict=True)]
        return [Answer(*window, *said) for window, *said in zip(windows, probabilities, features, actions, strict=True)]

    def watch(self, path: Path, *, every: float = 0.5, batch: int = 4):
        """What a video of any length shows over time; memory stays as it is however long it is.

        Args:
            path: the video.
            every: seconds from one window to the next.
            batch: windows that go through the model together.

        Yields:
            An `Answer` for each window in turn. A video that is shorter than a window is looped.

        Raises:
            UnreadableVideo: see `sample_frames`.
        """
        step = self.sampling.stride / RATE
        hop = max(1, round(every / step))
        kept, waiting, count = deque(maxlen=self.window), [], 0
        for frame in self.read(path, every=step, longest=LONGEST, **self.scale):
            kept.append(frame)
            count += 1
            if count >= self.window and (count - self.window) % hop == 0:
                waiting.append(((count - self.window) * step, count * step, np.stack(kept)))
            if len(waiting) == batch:
                yield from self.answer(waiting)
                waiting = []
        if count < self.window:
            waiting.append((0.0, count * step, np.stack([kept[number % count] for number in range(self.window)])))
        yield from self.answer(waiting)


def tabulate(answers, classes: list[str]) -> pd.DataFrame:
    """A timeline of answers: a row a window with start, end (seconds), action, and the probability of each class."""
    return pd.DataFrame([{"start": answer.start, "end": answer.end, "action": answer.action,
                          **dict(zip(classes, answer.probabilities, strict=True))} for answer in answers],
                        columns=["start", "end", "action", *classes])


def find_model(folder: Path) -> Path:
    """Of an architecture's trained folds the one whose validation was best.

    Raises:
        FileNotFoundError: when none was trained; says what trains one.
        ValueError: when the card of the best leads to another folder.
    """
    try:
        cards = read_cards(folder)
    except FileNotFoundError:
        raise FileNotFoundError(f"no trained model in {folder}: make repro trains it") from None
    best = max(cards, key=lambda card: card["scores"]["validation_clip_top1"])
    return place_inside(folder, f"fold_{best['training']['fold']}")


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


def find_events(timeline: pd.DataFrame, classes: list[str], *, shortest: float = 0.0) -> pd.DataFrame:
    """Stretches of a timeline in which the same action is seen.

    Args:
        timeline: of `tabulate`.
        shortest: seconds; shorter events are left out.

    Returns:
        action, start, end (seconds), confidence (mean of its largest probabilities), windows.
    """
    changes = timeline["action"] != timeline["action"].shift()
    rows = timeline.assign(confidence=timeline[classes].max(axis=1), stretch=changes.cumsum())
    events = rows.groupby("stretch", as_index=False).agg(
        action=("action", "first"), start=("start", "first"), end=("end", "last"), confidence=("confidence", "mean"),
        windows=("action", "size"))
    lasting = (events["action"] != NONE) & (events["end"] - events["start"] >= shortest)
    return events.loc[lasting].drop(columns="stretch").reset_index(drop=True)
