"""From trained models to numbers: a table of predictions, and every metric from it."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from health_actions.datasets import FrameDataset, build_loader
from health_actions.models.folder import load_model
from health_actions.precision import autocast
from health_actions.progress import track
from health_actions.transforms import build_input_transform


def predict_folds(models: Path, splits: pd.DataFrame, *, frames_folder: Path, batch_size: int = 8) -> pd.DataFrame:
    """Let each fold's model see its own test clips, once: the centre window of each.

    Args:
        models: folder of one architecture, with `fold_<k>/`.
        splits: one row a clip and fold.

    Returns:
        One row a tested clip: clip, fold, class, predicted, then the probability of each class (sum 1).
    """
    tables = []
    for fold, part in splits[splits["subset"] == "testing"].groupby("fold"):
        model, card = load_model(Path(models) / f"fold_{fold}")
        classes, preprocessing = card["classes"], card["preprocessing"]
        dataset = FrameDataset(frames_folder, part, classes, size=card["clip"]["size"], window=card["clip"]["window"],
                               input_transform=build_input_transform(preprocessing["mean"], preprocessing["std"]))
        batches = build_loader(dataset, batch_size=batch_size)
        with torch.inference_mode(), autocast(card["training"]["precision"]):
            logits = [model(clips).double() for clips, _ in
                      track(batches, total=len(batches), title=f"{Path(models).name}, fold {fold}: test clips")]
        probabilities = torch.cat(logits).softmax(1).numpy().round(6)
        table = pd.DataFrame(probabilities, columns=classes)
        table.insert(0, "clip", list(part["clip"]))
        table.insert(1, "fold", fold)
        table.insert(2, "class", list(part["class"]))
        table.insert(3, "predicted", [classes[number] for number in probabilities.argmax(1)])
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def give_interval(correct: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share: clips that are right out of clips that were tested."""
    if count == 0:
        return float("nan"), float("nan")
    interval = binomtest(int(correct), int(count)).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def score(predictions: pd.DataFrame, classes: list[str]) -> dict:
    """Clip-level accuracy of a table of predictions.

    Returns:
        clips (n), clip_top1, clip_top1_low and clip_top1_high (95 %), clip_top2; shares of 1.
    """
    labels = predictions["class"].map(classes.index).to_numpy()
    correct = int((predictions["class"] == predictions["predicted"]).sum())
    low, high = give_interval(correct, len(predictions))
    best_two = np.argsort(-predictions[classes].to_numpy(), axis=1, kind="stable")[:, :2]
    top2 = (best_two == labels[:, None]).any(axis=1).mean()
    return {"clips": len(predictions), "clip_top1": correct / len(predictions), "clip_top1_low": low,
            "clip_top1_high": high, "clip_top2": float(top2)}


def score_classes(predictions: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """Precision, recall and F1 of each class (0 where a class was never predicted), with its number of test clips."""
    precision, recall, f1, count = precision_recall_fscore_support(
        predictions["class"], predictions["predicted"], labels=classes, zero_division=0)
    intervals = [give_interval(round(share * n), n) for share, n in zip(recall, count, strict=True)]
    return pd.DataFrame({"class": classes, "clips": count, "precision": precision, "recall": recall,
                         "recall_low": [low for low, _ in intervals], "recall_high": [high for _, high in intervals],
                         "f1": f1})


def count_confusions(predictions: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """Confusion matrix as published (Figure 6): a row is a predicted class, a column the actual one."""
    counts = confusion_matrix(predictions["class"], predictions["predicted"], labels=classes).T
    return pd.DataFrame(counts, index=pd.Index(classes, name="predicted"), columns=pd.Index(classes, name="actual"))


def list_mix_ups(confusions: pd.DataFrame) -> pd.DataFrame:
    """Which class was called which, the most frequent first: actual, predicted, clips; see `count_confusions`."""
    long = confusions.rename_axis("predicted").melt(ignore_index=False, var_name="actual", value_name="clips")
    long = long.reset_index()
    wrong = long[(long["actual"] != long["predicted"]) & (long["clips"] > 0)]
    return wrong.sort_values("clips", ascending=False, kind="stable", ignore_index=True)


def read_cards(models: Path) -> list[dict]:
    """The cards of one architecture's folds, in order."""
    paths = sorted(Path(models).glob("fold_*/card.json"), key=lambda path: int(path.parent.name.partition("_")[2]))
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def compare_architectures(predictions: dict[str, pd.DataFrame], cards: dict[str, list[dict]],
                          published: dict[str, float], classes: list[str]) -> pd.DataFrame:
    """Table 1: one row an architecture.

    Args:
        predictions: architecture -> table of `predict_folds`.
        cards: architecture -> cards of its folds.
        published: architecture -> accuracy in the paper; one that is not there has none.

    Returns:
        architecture, weights (what the backbone started from, frozen or trained), pixels, epochs, published, reproduced
        (clip-level top-1), low and high (95 %), clip_top2, clips, and validation (mean of the folds' best epochs).
    """
    rows = []
    for name, table in predictions.items():
        first, result = cards[name][0], score(table, classes)
        training = first["training"]
        rows.append({
            "architecture": name,
            "weights": f"{training['weights'] or 'random'}, {'frozen' if training['frozen_backbone'] else 'trained'}",
            "pixels": first["clip"]["size"], "epochs": training["epochs"], "published": published.get(name),
            "reproduced": result["clip_top1"], "low": result["clip_top1_low"], "high": result["clip_top1_high"],
            "clip_top2": result["clip_top2"], "clips": result["clips"],
            "validation": float(np.mean([card["scores"]["validation_clip_top1"] for card in cards[name]]))})
    return pd.DataFrame(rows)
