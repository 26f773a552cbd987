"""Recognition of actions in videos by a trained model: one action a clip, or windows over the time of a long video."""

import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from health_actions.data.extraction import sample_indices
from health_actions.data.frames import open_clip
from health_actions.data.transforms import build_input_transform, build_spatial, place_frames
from health_actions.data.video import RATE, UnreadableVideo, sample_frames
from health_actions.learning.landmarks import EVERY, WINDOW, predict_windows, sample_landmarks
from health_actions.learning.precision import autocast
from health_actions.models.landmark_stream import join_values
from health_actions.models.weights import load_model

NONE = "none of these"
EVERYDAY = "everyday"  # the class of study B's landmark stream that is no medical action
UNSEEN = {"hands": "no hand seen", "pose": "nobody seen"}  # where landmarks are missing in most frames
LEAST_SEEN = 0.25  # share of a window's frames in which somebody or a hand must be found
CLIP_SECONDS = 30.0  # a longer video is watched window by window, not recognised as one clip
LONGEST = 4 * 3600.0  # seconds of a video that is watched


class Answer(NamedTuple):
    """A model's answer to one window of frames."""

    start: float  # seconds of the video
    end: float
    frames: np.ndarray  # uint8 (window, height, width, 3), before they are scaled or cropped for the model
    probabilities: np.ndarray  # float64 (classes,), sum 1
    features: np.ndarray  # float32 (features,), the input of the model's last layer
    action: str  # the most probable class; `NONE` where the detector rejects the features; `UNSEEN`
    found: list[dict] | None = None  # landmarks in each frame, as a tracker of `models.landmarks` gives them


class Recogniser:
    """A model folder, ready for videos; sampling and transforms come from its card. May be used from several threads.

    Args:
        folder: as of `save_model`.
        device: "cpu" or "cuda".
        detector: a `rejection.MahalanobisDetector`; None accepts every clip.
        read: makes frames of a video, as `sample_frames`; `sample_in_sandbox` for files that nobody has checked.

    Raises:
        FileNotFoundError, ValueError: see `load_model`; ValueError also when the card lacks something.
    """

    def __init__(self, folder: Path, *, detector=None, read: Callable[..., Iterator[np.ndarray]] = sample_frames,
                 device: str = "cpu"):
        self.model, self.card = load_model(folder, device)
        self.device, self.detector, self.read, self.last = device, detector, read, threading.local()
        try:
            clip, store, colours = self.card["clip"], self.card["frames"], self.card["preprocessing"]
            self.window, self.size, self.stride = clip["window"], clip["size"], clip["stride"]
            self.height, self.length, self.store_stride = store["height"], store["length"], store["stride"]
            self.classes, self.precision = list(self.card["classes"]), self.card["training"]["precision"]
            self.spatial = build_spatial(clip["crop"], clip["size"])[1]
            self.transform = build_input_transform(colours["mean"], colours["std"], colours["colour"].lower())
        except (LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"the card of {folder} is not complete ({error}): train the model again") from None
        layer = [module for module in self.model.modules() if getattr(module, "weight", None) is not None][-1]
        layer.register_forward_pre_hook(lambda _, inputs: setattr(self.last, "inputs", inputs[0].float().cpu()))

    def choose_frames(self, length: int) -> np.ndarray:
        """Of a clip's frames at 30 per second, the numbers of those in the window that the studies' tests use.

        Raises:
            UnreadableVideo: when the clip is too short.
        """
        if length < (self.length or self.window):
            raise UnreadableVideo(f"too short: {length} frames at {RATE} per second, "
                                  f"at least {self.length or self.window} are needed")
        stored = np.arange(length)
        if self.length:
            stored = sample_indices(length, length=self.length, stride=self.store_stride)
        return stored[place_frames(len(stored), self.window, self.stride).numpy()]

    def recognise(self, path: Path) -> Answer:
        """The answer to one clip.

        Raises:
            UnreadableVideo: for a file that is not a video, damaged, too short, or longer than `CLIP_SECONDS`.
        """
        frames = list(self.read(path, height=self.height, every=1 / RATE, longest=CLIP_SECONDS))
        chosen = self.choose_frames(len(frames))
        window = np.stack([frames[number] for number in chosen])
        return self.classify([(chosen[0] / RATE, (chosen[-1] + 1) / RATE, window)])[0]

    def watch(self, path: Path, *, every: float = 0.5, batch: int = 4) -> Iterator[Answer]:
        """Answers over the time of a video of any length; memory does not grow with it.

        A video that is shorter than a window is looped.

        Args:
            path: the video.
            every: seconds from one window to the next.
            batch: windows that go through the model together.

        Raises:
            UnreadableVideo: see `sample_frames`.
        """
        step = self.store_stride * self.stride / RATE  # seconds from one frame of a window to the next
        hop = max(1, round(every / step))
        kept, waiting, count = deque(maxlen=self.window), [], 0
        for frame in self.read(path, height=self.height, every=step, longest=LONGEST):
            kept.append(frame)
            count += 1
            if count >= self.window and (count - self.window) % hop == 0:
                waiting.append(((count - self.window) * step, count * step, np.stack(kept)))
            if len(waiting) == batch:
                yield from self.classify(waiting)
                waiting = []
        if 0 < count < self.window:
            waiting.append((0.0, count * step, np.stack([kept[number % count] for number in range(self.window)])))
        yield from self.classify(waiting)

    def classify(self, windows: list[tuple[float, float, np.ndarray]]) -> list[Answer]:
        """Answers to windows of frames: (start, end, frames) each, see `Answer`."""
        if not windows:
            return []
        frames = torch.from_numpy(np.concatenate([frames for _, _, frames in windows])).permute(0, 3, 1, 2)
        clips = self.transform(self.spatial(frames)).unflatten(0, (len(windows), -1)).transpose(1, 2)
        with torch.inference_mode(), autocast(self.precision):
            probabilities = self.model(clips.to(self.device)).double().softmax(1).cpu().numpy()
        features = self.last.inputs.reshape(*self.last.inputs.shape[:2], -1).mean(-1).numpy()
        actions = [self.classes[number] for number in probabilities.argmax(1)]
        if self.detector is not None:
            is_near = self.detector.distance(features) <= self.detector.threshold
            actions = [action if near else NONE for action, near in zip(actions, is_near, strict=True)]
        return [Answer(*parts) for parts in zip(*zip(*windows), probabilities, features, actions, strict=True)]


class LandmarkRecogniser:
    """A model folder of a landmark stream, ready for videos, as `Recogniser` is. May be used from several threads.

    Args:
        folder: as of `save_model`.
        alerts: classes that must not be missed: a clip is one of them where one of its windows is.
        certainty: the least probability of another class but `EVERYDAY`, which is the answer below (if it is a class).
        read: makes frames of a video, as `sample_frames`; `sample_in_sandbox` for files that nobody has checked.

    Raises:
        FileNotFoundError, ValueError: see `load_model`.
    """

    def __init__(self, folder: Path, *, alerts: Collection[str] = (), certainty: float = 0.0,
                 read: Callable[..., Iterator[np.ndarray]] = sample_frames):
        self.model, self.card = load_model(folder)
        self.certainty, self.read = certainty, read
        self.kind, self.classes = self.model.kind, list(self.card["classes"])
        self.alerts = [number for number, name in enumerate(self.classes) if name in alerts]

    def recognise(self, path: Path) -> Answer:
        """The answer to one clip: the mean over its windows, or the window that is most certain of an alert.

        Raises:
            UnreadableVideo: for a file that is not a video, damaged, or longer than `CLIP_SECONDS`.
        """
        pairs = list(sample_landmarks(path, self.kind, longest=CLIP_SECONDS, read=self.read))
        return self.classify(pairs, len(pairs))

    def watch(self, path: Path, *, every: float = 0.5, batch: int = 1) -> Iterator[Answer]:
        """Answers over the time of a video of any length, a window each `every` seconds; see `Recogniser.watch`."""
        hop, kept, count = max(1, round(every / EVERY)), deque(maxlen=WINDOW), 0
        for pair in sample_landmarks(path, self.kind, longest=LONGEST, read=self.read):
            kept.append(pair)
            count += 1
            if count >= WINDOW and (count - WINDOW) % hop == 0:
                yield self.classify(list(kept), count)
        if 0 < count < WINDOW:
            yield self.classify(list(kept), count)

    def classify(self, pairs: list[tuple[np.ndarray, dict]], count: int) -> Answer:
        """The answer to the last of `count` frames: each a frame and what was found in it."""
        frames, found = map(list, zip(*pairs))
        together = {name: np.stack([each[name] for each in found]) for name in found[0]}
        height, width = frames[0].shape[:2]
        probabilities, action = self.judge(together, width / height)
        return Answer((count - len(pairs)) * EVERY, count * EVERY, np.stack(frames), probabilities,
                      np.zeros(0, np.float32), action, found)

    def judge(self, found: dict[str, np.ndarray], aspect: float) -> tuple[np.ndarray, str]:
        """Probabilities float64 (classes,) and the action for the landmarks of a clip, as `read_landmarks` gives them.

        `aspect`: width of a frame divided by its height.
        """
        windows = predict_windows(self.model, torch.from_numpy(join_values(found, aspect, self.kind)))
        alarms = windows[np.isin(windows.argmax(axis=1), self.alerts)]
        probabilities = alarms[alarms.max(axis=1).argmax()] if len(alarms) else windows.mean(axis=0)
        action = self.classes[probabilities.argmax()]
        if EVERYDAY in self.classes and not len(alarms) and probabilities.max() < self.certainty:
            action = EVERYDAY
        seen = np.isfinite(found["presence"]).reshape(len(found["presence"]), -1).any(axis=1).mean()
        return probabilities, action if seen >= LEAST_SEEN else UNSEEN[self.kind]


def view_window(frames_folder: Path, clip: str, card: dict, *, size: int | None = None,
                change: Callable | None = None) -> np.ndarray:
    """The window of a stored clip that a model's test uses, for pictures: uint8 (window, size, size, 3).

    Args:
        card: the model's; its size is used where `size` is None.
        change: of the frames before they are scaled or cropped, see `ClipDataset`.
    """
    archive, view = open_clip(frames_folder, clip), card["clip"]
    numbers = place_frames(len(archive), view["window"], view["stride"])
    frames = torch.from_numpy(archive[numbers.tolist()]).permute(0, 3, 1, 2)
    frames = change(frames, clip, numbers) if change else frames
    return build_spatial(view["crop"], size or view["size"])[1](frames).permute(0, 2, 3, 1).numpy()
