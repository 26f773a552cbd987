"""Clips that show none of the known actions: how near to what it learned a clip must be for a model to be believed.

The distance is `recognition.Familiarity`'s. It is cut where the shares of known clips kept and of unknown clips
rejected are largest together (Youden, 1950), each kind of unknown clips counted alike.
"""

from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import torch
from sklearn.covariance import LedoitWolf
from sklearn.metrics import roc_auc_score

from health_actions.analysis.recognition import Familiarity, Recogniser
from health_actions.data.video import UnreadableVideo
from health_actions.learning.evaluation import give_interval
from health_actions.progress import track


def spread_clips(clips: pd.DataFrame, count: int) -> pd.DataFrame:
    """So many clips, as evenly over the classes as they come; all where there are not more."""
    place = clips.groupby("class").cumcount()
    return clips.assign(place=place).sort_values(["place", "class"], kind="stable").head(count).drop(columns="place")


def take_features(recogniser: Recogniser, clips: pd.DataFrame, data: Path) -> tuple[pd.DataFrame, torch.Tensor]:
    """What a model's last layer takes of each clip.

    Args:
        clips: clip and path (of the video, in `data`), and whatever else is to be kept.

    Returns:
        The clips that can be read, with `predicted`, and their features float32 (clips, features).
    """
    def look(path: str):
        try:
            return recogniser.recognise(Path(data) / path)
        except UnreadableVideo:
            return None

    work = joblib.Parallel(n_jobs=-1, prefer="threads", return_as="generator")(
        joblib.delayed(look)(path) for path in clips["path"])
    answers = list(track(work, total=len(clips), title="clips looked at"))
    read = [answer is not None for answer in answers]
    seen = [answer for answer in answers if answer is not None]
    if not seen:
        return clips.assign(predicted="").iloc[:0], torch.zeros(0, 0)
    return (clips[read].assign(predicted=[recogniser.classes[int(answer.probabilities.argmax())] for answer in seen]),
            torch.stack([answer.features for answer in seen]))


def learn_familiarity(features: torch.Tensor, labels: list[str], classes: list[str]) -> Familiarity:
    """Class means and the shared covariance (Ledoit & Wolf's, for few clips and many features) of training clips.

    Args:
        features: float32 (clips, features).
        labels: the class of each; classes without clips are left out.
    """
    own = np.array(labels)
    means = {name: features[own == name].mean(0) for name in classes if (own == name).any()}
    away = features - torch.stack([means[name] for name in own])
    precision = LedoitWolf(assume_centered=True).fit(away.double().numpy()).precision_
    return Familiarity(torch.stack(list(means.values())), torch.from_numpy(precision).float())


def halve(clips: pd.DataFrame) -> pd.DataFrame:
    """Say of each unknown clip whether it serves to choose the threshold or to test it.

    People stay on one side; where all clips of a kind are one person's, actions do.

    Args:
        clips: kind, recording (who acts) and class.

    Returns:
        The clips with `part`: "choosing" or "testing".
    """
    side = clips["recording"].where(clips.groupby("kind")["recording"].transform("nunique") > 1, clips["class"])
    place = side.groupby(clips["kind"]).transform(lambda names: names.rank(method="dense"))
    return clips.assign(part=np.where(place % 2 == 1, "choosing", "testing"))


def choose_largest(scores: pd.DataFrame) -> float:
    """The distance up to which a clip is believed to show a known action.

    Args:
        scores: kind ("known" or what the unknown clips are) and distance; without unknown clips all known are kept.

    Raises:
        ValueError: where known clips are missing.
    """
    known = scores.loc[scores["kind"] == "known", "distance"].to_numpy()
    unknown = [part["distance"].to_numpy() for kind, part in scores.groupby("kind") if kind != "known"]
    if not len(known):
        raise ValueError("a threshold needs clips that are known to the model; there are none to choose it by")
    if not unknown:
        return float(known.max())
    cuts = np.sort(scores["distance"].unique())
    gains = [(known <= cut).mean() + np.mean([(part > cut).mean() for part in unknown]) for cut in cuts]
    best = int(np.argmax(gains))
    return float(cuts[best] if best + 1 == len(cuts) else (cuts[best] + cuts[best + 1]) / 2)  # midway to the next clip


def tell_rates(scores: pd.DataFrame, largest: float) -> pd.DataFrame:
    """How often a threshold is wrong: known clips that it rejects, unknown ones that it believes, by kind.

    Args:
        scores: kind ("known" or what the unknown clips are) and distance.

    Returns:
        kind, mistake ("rejected" or "accepted"), clips (n), wrong, rate, low, high (95 %), auroc (area under the curve
        against the known clips; none for these).
    """
    known = scores.loc[scores["kind"] == "known", "distance"]
    rows = []
    for kind, part in scores.groupby("kind", sort=False):
        beyond = int((part["distance"] > largest).sum())
        wrong = beyond if kind == "known" else len(part) - beyond
        low, high = give_interval(wrong, len(part))
        area = float("nan") if kind == "known" or known.empty else roc_auc_score(
            np.repeat([0, 1], [len(known), len(part)]), pd.concat([known, part["distance"]]))
        rows.append({"kind": kind, "mistake": "rejected" if kind == "known" else "accepted", "clips": len(part),
                     "wrong": wrong, "rate": wrong / len(part), "low": low, "high": high, "auroc": area})
    return pd.DataFrame(rows)
