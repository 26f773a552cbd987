"""From trained models to numbers: a table of predictions, and every metric from it."""

import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from health_actions.datasets import FeatureDataset, FrameDataset, build_loader, load_features
from health_actions.models.folder import load_model
from health_actions.precision import autocast
from health_actions.progress import track
from health_actions.transforms import build_input_transform


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
    """The cards of one architecture's folds, in order. Raises FileNotFoundError where none was trained."""
    paths = sorted(Path(models).glob("fold_*/card.json"), key=lambda path: int(path.parent.name.partition("_")[2]))
    if not paths:
        raise FileNotFoundError(f"no trained fold in {models}: name the model in handwash.models of params.yaml")
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


def choose_architecture(table_1: pd.DataFrame, base: str) -> str:
    """The architecture that later experiments vary: the best of Table 1 by validation for "best", else the one named.

    Raises:
        ValueError: when Table 1 has no such architecture; lists those it has.
    """
    known = list(table_1["architecture"])
    if base != "best" and base not in known:
        raise ValueError(f"base is {base!r}, but Table 1 has: best, {', '.join(known)}")
    return table_1.loc[table_1["validation"].idxmax(), "architecture"] if base == "best" else base


def compare_runs(results: dict, classes: list[str]) -> pd.DataFrame:
    """One row a run: what chose its epochs and what the test clips gave.

    Args:
        results: as of `health_actions.training.train_runs`.

    Returns:
        run, validation (mean of the folds' chosen epochs), reproduced (clip-level top-1 of the test clips), low and
        high (95 %), clips (n).
    """
    rows = []
    for name, result in results.items():
        tested = score(result.predictions, classes)
        rows.append({"run": name, "validation": result.chosen["clip_top1"].mean(), "reproduced": tested["clip_top1"],
                     "low": tested["clip_top1_low"], "high": tested["clip_top1_high"], "clips": tested["clips"]})
    return pd.DataFrame(rows, columns=["run", "validation", "reproduced", "low", "high", "clips"])


def compare_pair(first: pd.DataFrame, second: pd.DataFrame) -> dict:
    """McNemar's exact test of two models on the clips that both were tested on.

    Only clips that one of them has right and the other wrong tell which is better; if neither is, such a clip is as
    likely one's as the other's (McNemar, 1947).

    Returns:
        clips (n), both, only_first, only_second, neither (clips that are right so), p (two-sided).
    """
    merged = first.merge(second, on=["clip", "class"], suffixes=("_first", "_second"))
    one = (merged["predicted_first"] == merged["class"]).to_numpy()
    other = (merged["predicted_second"] == merged["class"]).to_numpy()
    only_first, only_second = int((one & ~other).sum()), int((~one & other).sum())
    differing = only_first + only_second
    p = binomtest(only_first, differing).pvalue if differing else 1.0
    return {"clips": len(merged), "both": int((one & other).sum()), "only_first": only_first,
            "only_second": only_second, "neither": int((~one & ~other).sum()), "p": float(p)}


def count_operations(model: nn.Module, *, frames: int, size: int) -> int:
    """Multiply-adds of a model for one clip, in its convolutions and linear layers (recurrent ones are not counted)."""
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), counter:
        model.eval()(torch.zeros(1, 3, frames, size, size))
    return counter.get_total_flops() // 2  # it counts a multiplication and an addition as two


def list_trained(models: Path, names: list[str], starts: tuple[str, ...] = ("scratch", "pretrained")
                 ) -> list[tuple[str, str]]:
    """What was trained of study B: (model, start) of each `<models>/<model>/<start>/fold_<k>`, in the order of names.

    Raises:
        FileNotFoundError: when nothing was.
    """
    found = [(name, start) for name in names for start in starts
             if any((Path(models) / name / start).glob("fold_*/card.json"))]
    if not found:
        raise FileNotFoundError(f"no trained fold of {', '.join(names)} in {models}: train a model first (make repro)")
    return found


def compare_starts(clip_level: dict[tuple[str, str], pd.DataFrame], video_level: dict[tuple[str, str], pd.DataFrame],
                   cards: dict[tuple[str, str], list[dict]], classes: list[str]) -> pd.DataFrame:
    """One row a model and start of study B.

    Args:
        clip_level: (model, start) -> predictions from the centre window of each clip.
        video_level: the same from several windows of each.
        cards: (model, start) -> cards of its folds.

    Returns:
        model, start, pixels, frames, epochs, validation (mean of the folds' best), clip_top1 with low and high (95 %),
        clip_top2 with clip_top2_low and clip_top2_high, video_top1 with video_low and video_high, video_top2, clips.
    """
    rows = []
    for (model, start), table in clip_level.items():
        own = cards[model, start]
        clip, video = score(table, classes), score(video_level[model, start], classes, "video")
        top2_low, top2_high = give_interval(round(clip["clip_top2"] * clip["clips"]), clip["clips"])
        rows.append({
            "model": model, "start": start, "pixels": own[0]["clip"]["size"], "frames": own[0]["clip"]["window"],
            "epochs": own[0]["training"]["epochs"],
            "validation": float(np.mean([card["scores"]["validation_clip_top1"] for card in own])),
            "clip_top1": clip["clip_top1"], "low": clip["clip_top1_low"], "high": clip["clip_top1_high"],
            "clip_top2": clip["clip_top2"], "clip_top2_low": top2_low, "clip_top2_high": top2_high,
            "video_top1": video["video_top1"], "video_low": video["video_top1_low"],
            "video_high": video["video_top1_high"], "video_top2": video["video_top2"], "clips": clip["clips"]})
    return pd.DataFrame(rows)


def add_gains(starts: pd.DataFrame, clip_level: dict[tuple[str, str], pd.DataFrame], published: dict[str, float]
              ) -> pd.DataFrame:
    """Figure 16 as a table: what pretrained weights gain, in the row of the pretrained model where both were trained.

    Args:
        starts: of `compare_starts`.
        clip_level: the predictions it was made from.
        published: model -> the gain that the paper states.

    Returns:
        starts with gain (of clip_top1), gain_p (McNemar's exact test, see `compare_pair`) and published_gain.
    """
    top1 = starts.set_index(["model", "start"])["clip_top1"]
    both = {model for model, start in top1.index if start == "pretrained" and (model, "scratch") in top1.index}
    rows = []
    for model, start in top1.index:
        told = {"gain": np.nan, "gain_p": np.nan, "published_gain": np.nan}
        if start == "pretrained" and model in both:
            pair = compare_pair(clip_level[model, "scratch"], clip_level[model, "pretrained"])
            told |= {"gain": top1[model, "pretrained"] - top1[model, "scratch"], "gain_p": pair["p"]}
        if start == "pretrained":
            told["published_gain"] = published.get(model, np.nan)
        rows.append(told)
    return pd.concat([starts.reset_index(drop=True), pd.DataFrame(rows)], axis=1)


def prefer_pretrained(starts: pd.DataFrame) -> pd.DataFrame:
    """One row a model, as in the paper's Table 3: pretrained, or from scratch where it was not pretrained."""
    ranked = starts.sort_values("start", key=lambda start: start != "pretrained", kind="stable")
    return ranked.drop_duplicates("model").sort_index().reset_index(drop=True)


def choose_model(starts: pd.DataFrame) -> pd.Series:
    """The row of the model that is best by validation, among the pretrained ones if there are any.

    Test clips have no say. Of models that are equally good the first one is taken.

    Raises:
        ValueError: when no model is to choose from.
    """
    if starts.empty:
        raise ValueError("no trained model to choose from")
    pretrained = starts[starts["start"] == "pretrained"]
    among = starts if pretrained.empty else pretrained
    return among.loc[among["validation"].idxmax()]


def compare_top_k(starts: pd.DataFrame, published: dict[str, dict[str, float]]) -> pd.DataFrame:
    """Table 3: top-1 and top-2 of each model, published and reproduced, clip-level and video-level.

    Args:
        starts: of `compare_starts`.
        published: model -> top1 and top2 in the paper; one that is not there has none.
    """
    table = prefer_pretrained(starts)
    for place, name in ((2, "top1"), (3, "top2")):
        table.insert(place, f"published_{name}",
                     [published.get(model, {}).get(name, np.nan) for model in table["model"]])
    return table.drop(columns=["pixels", "frames", "epochs", "validation"])


def compare_classes(predictions: pd.DataFrame, classes: list[str], published: dict[str, list[float]]) -> pd.DataFrame:
    """Tables 4 to 6: precision, recall and F1 of each action, published and reproduced.

    Args:
        published: action -> precision, recall and F1 in the paper; one that is not there has none.

    Returns:
        action, clips, published_precision, published_recall, published_f1, precision, recall, f1, recall_low and
        recall_high (95 %).
    """
    own = score_classes(predictions, classes).rename(columns={"class": "action"})
    for place, measure in enumerate(("precision", "recall", "f1")):
        own[f"published_{measure}"] = [published.get(action, [np.nan] * 3)[place] for action in classes]
    return own[["action", "clips", "published_precision", "published_recall", "published_f1", "precision", "recall",
                "f1", "recall_low", "recall_high"]]


def compare_alerts(predictions: dict[tuple[str, str], pd.DataFrame], classes: list[str], alerts: list[str]
                   ) -> pd.DataFrame:
    """How often each model misses the actions that must not be missed; alerts that are no class are left out.

    Returns:
        model, start, action, clips (n that show it), missed, recall with recall_low and recall_high (95 %), called (n
        that were called so), precision with precision_low and precision_high (no number where none was called so).
    """
    rows = []
    for (model, start), table in predictions.items():
        for action in [name for name in alerts if name in classes]:
            shown, called = table["class"] == action, table["predicted"] == action
            found, clips, calls = int((shown & called).sum()), int(shown.sum()), int(called.sum())
            low, high = give_interval(found, clips)
            precision_low, precision_high = give_interval(found, calls)
            rows.append({
                "model": model, "start": start, "action": action, "clips": clips, "missed": clips - found,
                "recall": found / clips if clips else np.nan, "recall_low": low, "recall_high": high, "called": calls,
                "precision": found / calls if calls else np.nan, "precision_low": precision_low,
                "precision_high": precision_high})
    return pd.DataFrame(rows, columns=["model", "start", "action", "clips", "missed", "recall", "recall_low",
                                       "recall_high", "called", "precision", "precision_low", "precision_high"])


def count_missed(alerts: pd.DataFrame) -> pd.DataFrame:
    """Clips of all alert actions together that each model missed, the fewest first: model, start, clips, missed."""
    sums = alerts.groupby(["model", "start"], sort=False, as_index=False)[["clips", "missed"]].sum()
    return sums.sort_values("missed", kind="stable", ignore_index=True)


def measure_latency(model: nn.Module, *, frames: int, size: int, runs: int = 5) -> float:
    """Median seconds that a model takes for one clip, after a run to warm up."""
    clip, seconds = torch.zeros(1, 3, frames, size, size), []
    model.eval()
    with torch.inference_mode():
        for _ in range(runs + 1):
            started = time.perf_counter()
            model(clip)
            seconds.append(time.perf_counter() - started)
    return float(np.median(seconds[1:]))
