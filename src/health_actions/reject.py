"""Clips that show none of the known actions: how sure a model must be before it is believed.

The score is the largest probability, the baseline of Hendrycks & Gimpel (2017), "A baseline for detecting
misclassified and out-of-distribution examples in neural networks". The threshold is the one with the largest sum of
known clips kept and unknown clips rejected (Youden, 1950).
"""

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score, roc_curve

from health_actions.evaluation import give_interval
from health_actions.progress import track
from health_actions.recognition import Recogniser
from health_actions.video import UnreadableVideo


def spread_clips(clips: pd.DataFrame, count: int) -> pd.DataFrame:
    """So many clips, as evenly over the classes as they come; all where there are not more."""
    place = clips.groupby("class").cumcount()
    return clips.assign(place=place).sort_values(["place", "class"], kind="stable").head(count).drop(columns="place")


def score_clips(recogniser: Recogniser, clips: pd.DataFrame, data: Path) -> pd.DataFrame:
    """The largest probability that a model gives to any of its classes, clip by clip.

    Args:
        clips: clip and path (of the video, in `data`), and whatever else is to be kept.

    Returns:
        The clips with `score` (0-1) and `predicted`; those that cannot be read are left out.
    """
    rows = []
    for row in track(clips.to_dict("records"), total=len(clips), title="clips scored"):
        try:
            answer = recogniser.recognise(Path(data) / row["path"])["probabilities"]
        except UnreadableVideo:
            continue
        rows.append({**row, "score": round(float(answer.max()), 6),
                     "predicted": recogniser.classes[int(answer.argmax())]})
    return pd.DataFrame(rows, columns=[*clips.columns, "score", "predicted"])


def halve(clips: pd.DataFrame) -> pd.DataFrame:
    """Say of each unknown clip whether it serves to choose the threshold or to test it: people stay on one side.

    Args:
        clips: kind and recording (who acts).

    Returns:
        The clips with `part`: "choosing" or "testing".
    """
    people = clips.groupby("kind")["recording"].transform(lambda names: names.rank(method="dense"))
    return clips.assign(part=np.where(people % 2 == 1, "choosing", "testing"))


def choose_threshold(known: np.ndarray, unknown: np.ndarray) -> float:
    """The score from which on a clip is believed to show a known action.

    Args:
        known, unknown: scores of clips that do and do not show one.

    Raises:
        ValueError: where one of the two is empty.
    """
    if not len(known) or not len(unknown):
        raise ValueError(f"a threshold needs clips that are known and clips that are not: found {len(known)} and "
                         f"{len(unknown)}")
    false, true, thresholds = roc_curve(np.repeat([1, 0], [len(known), len(unknown)]), np.concatenate([known, unknown]),
                                        drop_intermediate=False)
    best = int(np.argmax((true - false)[1:])) + 1  # the first point rejects everything, at no score at all
    return float(thresholds[best])


def tell_rates(scores: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """How often a threshold is wrong: known clips that it rejects, unknown ones that it believes, by kind.

    Args:
        scores: kind ("known" or what the unknown clips are) and score.

    Returns:
        kind, mistake ("rejected" or "accepted"), clips (n), wrong, rate, low, high (95 %), auroc (area under the curve
        against the known clips; none for these).
    """
    known = scores.loc[scores["kind"] == "known", "score"]
    rows = []
    for kind, part in scores.groupby("kind", sort=False):
        below = int((part["score"] < threshold).sum())
        wrong = below if kind == "known" else len(part) - below
        low, high = give_interval(wrong, len(part))
        area = float("nan") if kind == "known" else roc_auc_score(
            np.repeat([1, 0], [len(known), len(part)]), pd.concat([known, part["score"]]))
        rows.append({"kind": kind, "mistake": "rejected" if kind == "known" else "accepted", "clips": len(part),
                     "wrong": wrong, "rate": wrong / len(part), "low": low, "high": high, "auroc": area})
    return pd.DataFrame(rows)
