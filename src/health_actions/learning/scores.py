"""Scores: a table of predictions by trained models, and every metric computed from it, with 95 % intervals."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from torch import nn

from health_actions.data.transforms import build_input_transform, build_spatial
from health_actions.learning.datasets import ClipDataset, FeatureDataset, build_loader
from health_actions.learning.features import load_features
from health_actions.learning.landmarks import predict_rows, read_rows
from health_actions.learning.precision import autocast, prepare_training
from health_actions.models.weights import load_model
from health_actions.progress import track


def predict_folds(models: Path, splits: pd.DataFrame, *, features: Path | None = None, device: str = "cpu",
                  **options) -> pd.DataFrame:
    """Each fold's model predicts its own test clips: the tables of `predict_clips`, one below the other.

    Args:
        models: folder of one architecture, with `fold_<k>/` for each trained fold; without any: FileNotFoundError.
        splits: one row a clip and fold.
        features: of the clips in `splits`, as of `prepare_features`.
        device: "cpu" or "cuda".
        options: frames_folder, stream, windows, batch and change, see `predict_clips`.
    """
    kept = None if features is None else load_features(features)
    rows = {clip: row for row, clip in enumerate(splits["clip"].drop_duplicates())}
    tested = splits[splits["subset"] == "testing"].groupby("fold")
    folds = [(Path(models) / f"fold_{fold}", clips) for fold, clips in tested]
    tables = [predict_clips(*load_model(folder, device), clips, features=kept, rows=rows, **options)
              for folder, clips in folds if folder.exists()]
    if not tables:
        raise FileNotFoundError(f"no trained fold in {models}: train the model first (make repro)")
    return pd.concat(tables, ignore_index=True)


def predict_clips(model: nn.Module, card: dict, clips: pd.DataFrame, *, frames_folder: Path,
                  features: torch.Tensor | None = None, rows: dict[str, int] | None = None, stream: int | None = None,
                  windows: int = 1, batch: int | None = None, change=None) -> pd.DataFrame:
    """Probabilities of a model for clips: of the centre window of each, or of a random one where the card says so.

    Args:
        model, card: as of `load_model`.
        clips: one row a clip: clip, class, fold.
        features, rows: of a frozen backbone, as of `load_features`, and clip -> row there; None reads frames.
        stream: number of the stream that answers alone, of a model with several; needs features.
        windows: spread evenly over the clip, their probabilities averaged; 1: the centre window alone.
        batch: clips at a time; None: 8 windows.
        change: of the frames, see `ClipDataset`.

    Returns:
        One row a clip: clip, fold, class, predicted, then the probability of each class (sum 1).
    """
    if card["architecture"]["name"] == "landmarks":
        kept = read_rows(Path(frames_folder).with_name("landmarks"), list(clips["clip"]), model.kind)
        return tabulate(np.stack([predict_rows(model, rows) for rows in kept]), card, clips)
    classes, preprocessing, training, shape = card["classes"], card["preprocessing"], card["training"], card["clip"]
    draw = (training["window_seed"], training["fold"], "testing") if shape["test_window"] == "random" else None
    common = {"classes": classes, "window": shape["window"], "stride": shape["stride"], "draw": draw}
    if features is not None:
        dataset, precision = FeatureDataset(clips, features=features, rows=rows, **common), "32-true"
        answer = model.classify if stream is None else lambda items: model.classify_streams(items)[:, stream]
    else:
        transform = build_input_transform(preprocessing["mean"], preprocessing["std"], preprocessing["colour"].lower())
        dataset = ClipDataset(clips, frames_folder=frames_folder, input_transform=transform, windows=windows,
                              spatial=build_spatial(shape["crop"], shape["size"])[1], change=change, **common)
        answer, precision = model, training["precision"]
    loader = build_loader(dataset, batch_size=batch or max(1, 8 // windows))
    device = next(model.parameters()).device
    prepare_training()
    model.eval()
    with torch.inference_mode(), autocast(precision):
        logits = [answer((items.flatten(0, 1) if windows > 1 else items).to(device)).double().cpu() for items, _ in
                  track(loader, total=len(loader), title=f"{training['architecture']}, fold {training['fold']}")]
    return tabulate(torch.cat(logits).softmax(1).unflatten(0, (-1, windows)).mean(1).numpy(), card, clips)


def tabulate(probabilities: np.ndarray, card: dict, clips: pd.DataFrame) -> pd.DataFrame:
    """The table of `predict_clips` for probabilities (clips, classes) of a model with this card."""
    classes, training, probabilities = card["classes"], card["training"], probabilities.round(6)
    table = clips[["clip"]].reset_index(drop=True).assign(
        fold=training["fold"], **{"class": list(clips["class"])}, predicted=np.array(classes)[probabilities.argmax(1)])
    return pd.concat([table, pd.DataFrame(probabilities, columns=classes)], axis=1)


def wilson_interval(correct: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share: clips that are right out of clips that were tested; nan of none."""
    if count == 0:
        return float("nan"), float("nan")
    interval = binomtest(int(correct), int(count)).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def score(predictions: pd.DataFrame, classes: list[str], level: str = "clip") -> dict:
    """Accuracy of a table of predictions: clips (n), clip_top1, clip_top1_low and clip_top1_high (95 %), clip_top2.

    `level` names them, as in the papers: "clip" for one window a clip, "video" for the mean over several.
    """
    labels = predictions["class"].map(classes.index).to_numpy()
    correct = int((predictions["class"] == predictions["predicted"]).sum())
    low, high = wilson_interval(correct, len(predictions))
    best_two = np.argsort(-predictions[classes].to_numpy(), axis=1, kind="stable")[:, :2]
    top2 = (best_two == labels[:, None]).any(axis=1).mean()
    return {"clips": len(predictions), f"{level}_top1": correct / len(predictions), f"{level}_top1_low": low,
            f"{level}_top1_high": high, f"{level}_top2": float(top2)}


def score_classes(predictions: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """Of each class: clips (n), precision (0 where it was never predicted), recall and f1.

    Precision and recall have 95 % intervals (`_low`, `_high`; nan where n is 0).
    """
    precision, recall, f1, count = precision_recall_fscore_support(
        predictions["class"], predictions["predicted"], labels=classes, zero_division=0)
    called = predictions["predicted"].value_counts().reindex(classes, fill_value=0)
    table = pd.DataFrame({"class": classes, "clips": count})
    for name, shares, counts in (("precision", precision, called), ("recall", recall, count)):
        intervals = [wilson_interval(round(share * n), n) for share, n in zip(shares, counts, strict=True)]
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
