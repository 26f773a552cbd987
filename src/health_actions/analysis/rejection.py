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
from sklearn.metrics import roc_auc_score, roc_curve

from health_actions.data.video import UnreadableVideo
from health_actions.learning.scores import wilson_interval
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


def split_unknown(clips: pd.DataFrame) -> pd.DataFrame:
    """Unknown clips with `part`: "choosing" (the threshold) or "testing" it. No person is in both parts; where one
    person acts in all clips of a kind, no action is.

    Args:
        clips: kind, recording (the person) and class.
    """
    group = clips["recording"].where(clips.groupby("kind")["recording"].transform("nunique") > 1, clips["class"])
    place = group.groupby(clips["kind"]).transform(lambda names: names.rank(method="dense"))
    return clips.assign(part=np.where(place % 2 == 1, "choosing", "testing"))


def choose_threshold(scores: pd.DataFrame) -> float:
    """The distance with the largest sum of two shares, known clips accepted and unknown clips rejected (Youden, 1950).

    Args:
        scores: kind ("known", or what the unknown clips are; each kind has the same weight) and distance. Without
            unknown clips, all known clips are accepted.

    Raises:
        ValueError: without known clips.
    """
    is_unknown, distance = scores["kind"] != "known", scores["distance"]
    if is_unknown.all():
        raise ValueError("a threshold needs clips of known actions, found none: are there validation clips?")
    if not is_unknown.any():
        return float(distance.max())
    weights = 1 / scores.groupby("kind")["kind"].transform("size")
    wrong, right, cuts = roc_curve(is_unknown, distance, sample_weight=weights, drop_intermediate=False)
    gains = (right - wrong)[:-1]  # the last cut rejects everything
    best = np.flatnonzero(np.isclose(gains, gains.max()))[-1]  # the lowest of equally good cuts
    return float(cuts[1] if best == 0 else (cuts[best] + cuts[best + 1]) / 2)  # midway to the next clip


def error_rates(scores: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """Shares of known clips that are rejected and of unknown clips that are accepted; scores as of `choose_threshold`.

    Returns:
        A row a kind: kind, mistake ("rejected" or "accepted"), clips (n), wrong, rate, low, high (95 %), auroc (area
        under the ROC curve against the known clips; nan for these).
    """
    known, rows = scores.loc[scores["kind"] == "known", "distance"], []
    for kind, part in scores.groupby("kind", sort=False):
        is_known, rejected = kind == "known", int((part["distance"] > threshold).sum())
        wrong = rejected if is_known else len(part) - rejected
        low, high = wilson_interval(wrong, len(part))
        auroc = np.nan if is_known or known.empty else roc_auc_score(
            np.repeat([0, 1], [len(known), len(part)]), pd.concat([known, part["distance"]]))
        rows.append({"kind": kind, "mistake": "rejected" if is_known else "accepted", "clips": len(part),
                     "wrong": wrong, "rate": wrong / len(part), "low": low, "high": high, "auroc": auroc})
    return pd.DataFrame(rows)
