"""Rejection of clips that show none of the known actions, by the Mahalanobis distance of their features."""

from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from scipy.spatial.distance import cdist
from sklearn.covariance import LedoitWolf

from health_actions.data.video import UnreadableVideo
from health_actions.paths import atomic_write
from health_actions.progress import track


@dataclass(frozen=True)
class MahalanobisDetector:
    """Squared Mahalanobis distance to the nearest class mean, one covariance for all classes (Lee et al., 2018, "A
    simple unified framework for detecting out-of-distribution samples and adversarial attacks").
    """

    means: np.ndarray  # float32 (classes, features)
    precision: np.ndarray  # float32 (features, features), the inverse of the covariance
    threshold: float = float("inf")  # largest distance at which a clip is accepted as one of the classes

    @classmethod
    def fit(cls, features: np.ndarray, labels: list[str], classes: list[str]) -> "MahalanobisDetector":
        """Class means, and the covariance around them (Ledoit & Wolf's, for few clips and many features).

        Args:
            features: float32 (clips, features) of training clips with `labels`; classes without clips are left out.
        """
        own = np.array(labels)
        means = {name: features[own == name].mean(0) for name in classes if (own == name).any()}
        centred = features - np.stack([means[name] for name in own])
        precision = LedoitWolf(assume_centered=True).fit(centred.astype(np.float64)).precision_
        return cls(np.stack(list(means.values())), precision.astype(np.float32))

    def distance(self, features: np.ndarray) -> np.ndarray:
        """Distances of float32 (clips, features) to the nearest class: float64 (clips,), 0 or more."""
        return (cdist(features, self.means, "mahalanobis", VI=self.precision) ** 2).min(1)

    def save(self, file: Path) -> None:
        """Write a safetensors file, as a whole or not at all."""
        with atomic_write(file) as temporary:
            save_file({"means": self.means, "precision": self.precision, "threshold": np.array([self.threshold])},
                      temporary)

    @classmethod
    def load(cls, file: Path) -> "MahalanobisDetector":
        """Read what `save` wrote; no code in the file is run. Raises ValueError for any other file."""
        try:
            stored = load_file(file)
            return cls(stored["means"], stored["precision"], float(stored["threshold"][0]))
        except (LookupError, ValueError, RuntimeError, SafetensorError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{file} is not a saved detector ({reason}); make it again (make repro)") from None


def spread_clips(clips: pd.DataFrame, count: int) -> pd.DataFrame:
    """At most `count` clips, spread evenly over the classes: the first of each class, then the second, and so on."""
    turn = clips.groupby("class").cumcount()
    return clips.assign(turn=turn).sort_values(["turn", "class"], kind="stable").head(count).drop(columns="turn")


def extract_features(recogniser, clips: pd.DataFrame, data: Path) -> tuple[pd.DataFrame, np.ndarray]:
    """The readable clips with `predicted`, and their features float32 (clips, features): inputs of the last layer.

    Args:
        recogniser: a `recognition.Recogniser`.
        clips: path (of the video, in `data`); other columns are kept.
    """
    def look(path: str):
        try:
            return recogniser.recognise(Path(data) / path)
        except UnreadableVideo:
            return None

    work = joblib.Parallel(n_jobs=-1, prefer="threads", return_as="generator")(
        joblib.delayed(look)(path) for path in clips["path"])
    answers = list(track(work, total=len(clips), title="features of clips"))
    seen = [answer for answer in answers if answer is not None]
    table = clips[[answer is not None for answer in answers]]
    table = table.assign(predicted=[recogniser.classes[answer.probabilities.argmax()] for answer in seen])
    return table, np.stack([answer.features for answer in seen]) if seen else np.zeros((0, 0), np.float32)
