"""From trained models to numbers: a table of predictions, and every metric from it."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from health_actions.data.transforms import build_input_transform
from health_actions.learning.datasets import FeatureDataset, FrameDataset, build_loader, load_features
from health_actions.learning.precision import autocast, keep_memory
from health_actions.models.folder import load_model
from health_actions.progress import track

# scipy.stats and sklearn are imported where they are needed: a training predicts without them, a second sooner.


def predict_folds(models: Path, splits: pd.DataFrame, *, frames_folder: Path, features: Path | None = None,
                  stream: int | None = None, windows: int = 1, change=None) -> pd.DataFrame:
    """Let each fold's model see its own test clips, once.

    Args:
        models: folder of one architecture, with `fold_<k>/` for each fold that was trained.
        splits: one row a clip and fold.
        features: the clips' features as of `cache_features`, where they are at hand; clips as of `take_clips`.
        stream: number of the stream that answers alone, of a model with several; needs features.
        windows, change: see `predict_clips`.

    Returns:
        See `predict_clips`; the folds one below the other.

    Raises:
        FileNotFoundError: when no fold was trained.
    """
    kept = None if features is None else load_features(features)
    rows = {clip: row for row, clip in enumerate(splits["clip"].drop_duplicates())}
    tables = []
    for fold, part in splits[splits["subset"] == "testing"].groupby("fold"):
        folder = Path(models) / f"fold_{fold}"
        if folder.exists():
            model, card = load_model(folder)
            tables.append(predict_clips(model, card, part, frames_folder=frames_folder, features=kept, rows=rows,
                                        stream=stream, windows=windows, change=change))
    if not tables:
        raise FileNotFoundError(f"no trained fold in {models}: train the model first (make repro)")
    return pd.concat(tables, ignore_index=True)


def predict_clips(model: nn.Module, card: dict, clips: pd.DataFrame, *, frames_folder: Path,
                  features: torch.Tensor | None = None, rows: dict[str, int] | None = None,
                  stream: int | None = None, windows: int = 1, change=None, batch_size: int = 8) -> pd.DataFrame:
    """Probabilities of a model for clips: of the centre window of each, or of a random one where the card says so.

    Such a score is one of clips (`clip_top1`). The mean over several windows of each is one of videos (`video_top1`),
    as the papers call a whole recording.

    Args:
        model, card: as of `load_model`.
        clips: one row a clip: clip, class, fold.
        features, rows: of a frozen backbone, as of `load_features`, and each clip's row there.
        stream: see `predict_folds`.
        windows: how many, spread evenly over the clip, whose probabilities are averaged; 1: the centre window alone.
        change: of the frames, see `FrameDataset`; not of features.

    Returns:
        One row a clip: clip, fold, class, predicted, then the probability of each class (sum 1).
    """
    classes, preprocessing, training = card["classes"], card["preprocessing"], card["training"]
    window, draw = card["clip"]["window"], None
    if card["clip"]["test_window"] == "random":
        draw = (training["window_seed"], training["fold"], "testing")
    if features is not None:
        dataset = FeatureDataset(features, [rows[clip] for clip in clips["clip"]],
                                 [classes.index(label) for label in clips["class"]], window=window, draw=draw)
    else:
        transform = build_input_transform(preprocessing["mean"], preprocessing["std"], preprocessing["colour"].lower())
        dataset = FrameDataset(frames_folder, clips, classes, size=card["clip"]["size"], window=window,
                               input_transform=transform, draw=draw, stride=card["clip"].get("stride"), windows=windows,
                               change=change)
    batches = build_loader(dataset, batch_size=max(1, batch_size // windows))
    keep_memory()
    model.eval()
    if features is None:
        answer = model
    else:
        answer = model.classify if stream is None else lambda items: model.classify_streams(items)[:, stream]
    # What stands behind cached features computes in float32, as it was trained.
    with torch.inference_mode(), autocast(training["precision"] if features is None else "32-true"):
        logits = [answer(items.flatten(0, 1) if windows > 1 else items).double() for items, _ in
                  track(batches, total=len(batches), title=f"{training['architecture']}, fold {training['fold']}")]
    probabilities = torch.cat(logits).softmax(1).unflatten(0, (-1, windows)).mean(1).numpy().round(6)
    table = pd.DataFrame(probabilities, columns=classes)
    table.insert(0, "clip", list(clips["clip"]))
    table.insert(1, "fold", training["fold"])
    table.insert(2, "class", list(clips["class"]))
    table.insert(3, "predicted", [classes[number] for number in probabilities.argmax(1)])
    return table


def give_interval(correct: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share: clips that are right out of clips that were tested."""
    if count == 0:
        return float("nan"), float("nan")
    from scipy.stats import binomtest

    interval = binomtest(int(correct), int(count)).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def score(predictions: pd.DataFrame, classes: list[str], level: str = "clip") -> dict:
    """Accuracy of a table of predictions, named for what was scored: windows of clips, or whole videos.

    Returns:
        clips (n), clip_top1, clip_top1_low and clip_top1_high (95 %), clip_top2; shares of 1. With the level "video":
        video_top1, ...
    """
    labels = predictions["class"].map(classes.index).to_numpy()
    correct = int((predictions["class"] == predictions["predicted"]).sum())
    low, high = give_interval(correct, len(predictions))
    best_two = np.argsort(-predictions[classes].to_numpy(), axis=1, kind="stable")[:, :2]
    top2 = (best_two == labels[:, None]).any(axis=1).mean()
    return {"clips": len(predictions), f"{level}_top1": correct / len(predictions), f"{level}_top1_low": low,
            f"{level}_top1_high": high, f"{level}_top2": float(top2)}


def score_classes(predictions: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """Precision, recall and F1 of each class (0 where a class was never predicted), with its number of test clips.

    Returns:
        class, clips, precision and recall with their 95 % intervals (`_low`, `_high`; none where n is 0), f1.
    """
    from sklearn.metrics import precision_recall_fscore_support

    precision, recall, f1, count = precision_recall_fscore_support(
        predictions["class"], predictions["predicted"], labels=classes, zero_division=0)
    called = predictions["predicted"].value_counts().reindex(classes, fill_value=0)
    table = {"class": classes, "clips": count}
    for name, shares, counts in (("precision", precision, called), ("recall", recall, count)):
        intervals = [give_interval(round(share * n), n) for share, n in zip(shares, counts, strict=True)]
        table |= {name: shares, f"{name}_low": [low for low, _ in intervals],
                  f"{name}_high": [high for _, high in intervals]}
    return pd.DataFrame({**table, "f1": f1})


def count_confusions(predictions: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """Confusion matrix as published (Figure 6): a row is a predicted class, a column the actual one."""
    from sklearn.metrics import confusion_matrix

    counts = confusion_matrix(predictions["class"], predictions["predicted"], labels=classes).T
    return pd.DataFrame(counts, index=pd.Index(classes, name="predicted"), columns=pd.Index(classes, name="actual"))


def list_mix_ups(confusions: pd.DataFrame) -> pd.DataFrame:
    """Which class was called which, the most frequent first: actual, predicted, clips; see `count_confusions`."""
    long = confusions.rename_axis("predicted").melt(ignore_index=False, var_name="actual", value_name="clips")
    long = long.reset_index()
    wrong = long[(long["actual"] != long["predicted"]) & (long["clips"] > 0)]
    return wrong.sort_values("clips", ascending=False, kind="stable", ignore_index=True)


def read_cards(models: Path) -> list[dict]:
    """The cards of one architecture's folds, in order. Raises FileNotFoundError where none was trained."""
    paths = sorted(Path(models).glob("fold_*/card.json"), key=lambda path: int(path.parent.name.partition("_")[2]))
    if not paths:
        raise FileNotFoundError(f"no trained fold in {models}: name the model in handwash.models of params.yaml")
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


