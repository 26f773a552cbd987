"""Scores: a table of predictions by trained models, and every metric computed from it, with 95 % intervals.

Clips of one performer are alike, so an interval is one over performers: `bootstrap_interval`.
"""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import norm, t
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from torch import nn

from health_actions.data.transforms import build_input_transform, build_spatial
from health_actions.learning.datasets import ClipDataset, FeatureDataset, build_loader
from health_actions.learning.features import load_features
from health_actions.learning.landmarks import predict_rows, read_rows
from health_actions.learning.precision import autocast, prepare_training
from health_actions.models.weights import load_model
from health_actions.progress import track


def predict_folds(models: Path, splits: pd.DataFrame, **options) -> pd.DataFrame:
    """Each fold's model predicts its own test clips, at clip level alone: `predict_levels` without further windows."""
    return predict_levels(models, splits, **options)["clip"]


def predict_levels(models: Path, splits: pd.DataFrame, *, windows: int = 0, features: Path | None = None,
                   device: str = "cpu", **options) -> dict[str, pd.DataFrame]:
    """Each fold's model predicts its own test clips in one pass, at clip level and at video level.

    Args:
        models: folder of one architecture, with `fold_<k>/` for each trained fold; without any: FileNotFoundError.
        splits: one row a clip and fold.
        windows: of a clip, at video level; 0: as at clip level.
        features: of the clips in `splits`, as of `prepare_features`.
        device: "cpu" or "cuda".
        options: frames_folder, stream, batch and change, see `answer_windows`.

    Returns:
        "clip" and "video" -> the tables of `predict_clips`, one below the other. "clip": of one window of each clip.
        "video": the mean of the probabilities over `windows`, spread evenly over the clip.
    """
    kept = None if features is None else load_features(features)
    rows = {clip: row for row, clip in enumerate(splits["clip"].drop_duplicates())}
    tables = {"clip": [], "video": []}
    for fold, clips in splits[splits["subset"] == "testing"].groupby("fold"):
        folder = Path(models) / f"fold_{fold}"
        if folder.exists():
            model, card = load_model(folder, device)
            answers = answer_windows(model, card, clips, features=kept, rows=rows, windows=windows, **options)
            tables["clip"].append(tabulate(answers[:, 0], card, clips))
            tables["video"].append(tabulate(answers[:, -windows:].mean(axis=1), card, clips))
    if not tables["clip"]:
        raise FileNotFoundError(f"no trained fold in {models}: train the model first (make repro)")
    return {level: pd.concat(parts, ignore_index=True) for level, parts in tables.items()}


def predict_clips(model: nn.Module, card: dict, clips: pd.DataFrame, **options) -> pd.DataFrame:
    """Probabilities of a model for clips: of the centre window of each, or of a random one where the card says so.

    Args:
        model, card, clips: see `answer_windows`; clips also have class, recording (the performer), take where known.
        options: all others of `answer_windows` but windows.

    Returns:
        One row a clip: clip, fold, recording, take (if given), class, predicted, then the probability of each class
        (sum 1).
    """
    return tabulate(answer_windows(model, card, clips, **options)[:, 0], card, clips)


def answer_windows(model: nn.Module, card: dict, clips: pd.DataFrame, *, frames_folder: Path,
                   features: torch.Tensor | None = None, rows: dict[str, int] | None = None, stream: int | None = None,
                   windows: int = 0, batch: int | None = None, change=None) -> np.ndarray:
    """Probabilities of a model for windows of clips: float64 (clips, 1 + windows, classes), sum 1.

    The first window of a clip lies in its centre, or is drawn where the card says so; a landmark stream answers for
    whole clips, and there is no other window of features.

    Args:
        model, card: as of `load_model`.
        clips: one row a clip: clip and class.
        features, rows: of a frozen backbone, as of `load_features`, and clip -> row there; None reads frames.
        stream: number of the stream that answers alone, of a model with several; needs features.
        windows: further ones, spread evenly over the clip.
        batch: clips at a time; None: 16 windows.
        change: of the frames, see `ClipDataset`.
    """
    if card["architecture"]["name"] == "landmarks":
        kept = read_rows(Path(frames_folder).with_name("landmarks"), list(clips["clip"]), model.kind)
        return np.stack([predict_rows(model, rows) for rows in kept])[:, None]
    classes, preprocessing, training, shape = card["classes"], card["preprocessing"], card["training"], card["clip"]
    draw = (training["window_seed"], training["fold"], "testing") if shape["test_window"] == "random" else None
    common = {"classes": classes, "window": shape["window"], "stride": shape["stride"], "draw": draw}
    if features is not None:
        dataset, precision, windows = FeatureDataset(clips, features=features, rows=rows, **common), "32-true", 0
        answer = model.classify if stream is None else lambda items: model.classify_streams(items)[:, stream]
    else:
        transform = build_input_transform(preprocessing["mean"], preprocessing["std"], preprocessing["colour"].lower())
        dataset = ClipDataset(clips, frames_folder=frames_folder, input_transform=transform, windows=windows,
                              spatial=build_spatial(shape["crop"], shape["size"])[1], change=change, **common)
        answer, precision = model, training["precision"]
    loader = build_loader(dataset, batch_size=batch or max(1, 16 // (1 + windows)))
    device = next((weights.device for weights in model.parameters()), "cpu")  # an exported model has none
    prepare_training()
    model.eval()
    with torch.inference_mode(), autocast(precision):
        logits = [answer((items.flatten(0, 1) if windows else items).to(device)).double().cpu() for items, _ in
                  track(loader, total=len(loader), title=f"{training['architecture']}, fold {training['fold']}")]
    return torch.cat(logits).softmax(1).unflatten(0, (-1, 1 + windows)).numpy()


def tabulate(probabilities: np.ndarray, card: dict, clips: pd.DataFrame) -> pd.DataFrame:
    """The table of `predict_clips` for probabilities (clips, classes) of a model with this card."""
    classes, training, probabilities = card["classes"], card["training"], probabilities.round(6)
    table = clips[["clip", "recording", *(["take"] if "take" in clips else []), "class"]].reset_index(drop=True).assign(
        predicted=np.array(classes)[probabilities.argmax(1)])
    table.insert(1, "fold", training["fold"])
    return pd.concat([table, pd.DataFrame(probabilities, columns=classes)], axis=1)


def bootstrap_interval(right: Iterable, performers: Iterable) -> tuple[float, float]:
    """95 % interval of a share of clips, for other performers: percentiles of 2,000 shares, always the same draws.

    Each draw takes as many performers as there are, with replacement and with all their clips (a cluster bootstrap:
    Davison & Hinkley, 1997, 3.8); for the percentiles see `expand_percentiles`. Of no clips it is nan.

    It is never narrower than Wilson's of as many independent clips: clips of one performer vary no less than these (a
    design effect of 1 at least; Korn & Graubard, 1998), and draws of few performers differ too little. Where no clip
    differs (a share of 0 or 1), or there is one performer, nothing tells how alike a performer's clips are: it is
    Wilson's of as many trials as there are performers, as where each clip is of another performer.

    Args:
        right: of each clip, whether it counts.
        performers: of each clip, whoever acts in it.
    """
    clips = pd.DataFrame({"right": np.asarray(right, float), "performer": np.asarray(performers)})
    sums, counts = clips.groupby("performer")["right"].agg(["sum", "size"]).to_numpy(float).T
    share = clips["right"].mean()
    if len(counts) in (0, 1, len(clips)) or share in (0, 1):
        return wilson_interval(share * len(counts), len(counts))
    drawn = np.random.default_rng(0).multinomial(len(counts), np.full(len(counts), 1 / len(counts)), 2000)
    low, high = np.percentile(drawn @ sums / (drawn @ counts), expand_percentiles(len(counts)))
    least = wilson_interval(sums.sum(), len(clips))
    return float(min(low, least[0])), float(max(high, least[1]))


def expand_percentiles(performers: int) -> tuple[float, float]:
    """The percentiles of draws of so many performers (2 or more) that hold about 95 % (Hesterberg, 2015).

    2.5 and 97.5 for many; farther out for few, whose draws differ too little. Of fewer than six, the extremes of all
    draws are still too near.
    """
    low = 100 * norm.cdf(-np.sqrt(performers / (performers - 1)) * t.ppf(0.975, performers - 1))
    return float(low), float(100 - low)


def wilson_interval(correct: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval (1927) of a share of independent trials: `correct` of `count`; nan of none."""
    if count == 0:
        return float("nan"), float("nan")
    share, square = correct / count, norm.ppf(0.975) ** 2 / count
    centre, reach = share + square / 2, np.sqrt(square * (share * (1 - share) + square / 4))
    low, high = ((centre + side * reach) / (1 + square) for side in (-1, 1))
    return float(max(low, 0)), float(min(high, 1))


def count_units(predictions: pd.DataFrame) -> dict[str, int]:
    """How many clips, movements (where a column `take` tells them) and performers a table of predictions has."""
    columns = {"movements": "take", "performers": "recording"}
    return {"clips": len(predictions),
            **{name: predictions[column].nunique() for name, column in columns.items() if column in predictions}}


def score(predictions: pd.DataFrame, classes: list[str], level: str = "clip") -> dict:
    """Accuracy of a table of predictions: `count_units`, then clip_top1 and clip_top2, each with 95 % interval.

    The ends of the intervals are clip_top1_low, clip_top1_high and so on. `level` names them, as in the papers: "clip"
    for one window a clip, "video" for the mean over several.
    """
    labels = predictions["class"].map(classes.index).to_numpy()
    best_two = np.argsort(-predictions[classes].to_numpy(), axis=1, kind="stable")[:, :2]
    scores = dict(count_units(predictions))
    for name, right in (("top1", predictions["class"] == predictions["predicted"]),
                        ("top2", (best_two == labels[:, None]).any(axis=1))):
        low, high = bootstrap_interval(right, predictions["recording"])
        scores |= {f"{level}_{name}": float(right.mean()), f"{level}_{name}_low": low, f"{level}_{name}_high": high}
    return scores


def score_classes(predictions: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """Of each class: clips (n), performers, precision (0 where it was never predicted), recall and f1.

    Precision and recall have 95 % intervals (`_low`, `_high`; nan where n is 0).
    """
    precision, recall, f1, count = precision_recall_fscore_support(
        predictions["class"], predictions["predicted"], labels=classes, zero_division=0)
    right = predictions["class"] == predictions["predicted"]
    shown = [predictions["class"] == name for name in classes]
    called = [predictions["predicted"] == name for name in classes]
    performers = [predictions.loc[clips, "recording"].nunique() for clips in shown]
    table = pd.DataFrame({"class": classes, "clips": count, "performers": performers})
    for name, shares, parts in (("precision", precision, called), ("recall", recall, shown)):
        intervals = [bootstrap_interval(right[clips], predictions.loc[clips, "recording"]) for clips in parts]
        table[[name, f"{name}_low", f"{name}_high"]] = np.column_stack([shares, intervals])
    return table.assign(f1=f1)


def count_confusions(predictions: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """Confusion matrix as published (Figure 6): a row is a predicted class, a column the actual one."""
    counts = confusion_matrix(predictions["class"], predictions["predicted"], labels=classes).T
    return pd.DataFrame(counts, index=pd.Index(classes, name="predicted"), columns=pd.Index(classes, name="actual"))


def list_mix_ups(confusions: pd.DataFrame) -> pd.DataFrame:
    """Confusions of `count_confusions` as a list, the most frequent first: actual, predicted, clips."""
    long = confusions.rename_axis("predicted").melt(ignore_index=False, var_name="actual", value_name="clips")
    wrong = long.reset_index().query("actual != predicted and clips > 0")
    return wrong.sort_values("clips", ascending=False, kind="stable", ignore_index=True)


def read_cards(models: Path) -> list[dict]:
    """The cards of one architecture's folds, in order. Raises FileNotFoundError where none was trained."""
    paths = sorted(Path(models).glob("fold_*/card.json"), key=lambda path: int(path.parent.name.partition("_")[2]))
    if not paths:
        raise FileNotFoundError(f"no trained fold in {models}: train the model first (make repro)")
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]
