"""The papers' tables: architectures, runs, networks and starts side by side, published beside reproduced."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from health_actions.learning.scores import score, score_classes, wilson_interval
from health_actions.paths import write_text

Key = tuple[str, str]  # of study B: model and start, "scratch" or "pretrained"


def add_difference(table: pd.DataFrame, *, published: str = "published", reproduced: str = "reproduced",
                   low: str = "low", high: str = "high") -> pd.DataFrame:
    """Add how far a reproduced share is from the published one, and whether this lies in the 95 % interval.

    Returns:
        The table with `difference` (reproduced less published) and `published_is` ("inside", "above" or "below" the
        interval; empty where nothing was published) after column `high`.
    """
    table, numbers, place = table.copy(), table[published].astype(float), table.columns.get_loc(high) + 1
    words = np.select([numbers.isna() | table[low].isna(), numbers > table[high], numbers < table[low]],
                      ["", "above", "below"], "inside")
    table.insert(place, "difference", (table[reproduced] - numbers).round(3))
    table.insert(place + 1, "published_is", words)
    return table


def summarise(predictions: pd.DataFrame, cards: list[dict], classes: list[str]) -> dict:
    """What all tables say of a model: from its cards, and its score on the test clips.

    Returns:
        pixels, frames, epochs, validation (mean of the folds' chosen epochs), clip_top1 with its 95 % interval low and
        high, clip_top2, clips.
    """
    own = score(predictions, classes)
    return {"pixels": cards[0]["clip"]["size"], "frames": cards[0]["clip"]["window"],
            "epochs": cards[0]["training"]["epochs"],
            "validation": float(np.mean([card["scores"]["validation_clip_top1"] for card in cards])),
            "clip_top1": own["clip_top1"], "low": own["clip_top1_low"], "high": own["clip_top1_high"],
            "clip_top2": own["clip_top2"], "clips": own["clips"]}


def compare_architectures(predictions: dict[str, pd.DataFrame], cards: dict[str, list[dict]],
                          published: dict[str, float], classes: list[str]) -> pd.DataFrame:
    """Study A's Table 1, one row an architecture: `summarise`, weights at the start, published and reproduced top-1."""
    rows = []
    for name, table in predictions.items():
        training = cards[name][0]["training"]
        weights = f"{training['weights'] or 'random'}, {'frozen' if training['frozen_backbone'] else 'trained'}"
        rows.append({"architecture": name, "weights": weights, "published": published.get(name),
                     **summarise(table, cards[name], classes)})
    return pd.DataFrame(rows).rename(columns={"clip_top1": "reproduced"})[[
        "architecture", "weights", "pixels", "epochs", "published", "reproduced", "low", "high", "clip_top2", "clips",
        "validation"]]


def compare_runs(results: dict, classes: list[str]) -> pd.DataFrame:
    """One row a run of `train_runs`: validation (mean of the chosen epochs), reproduced top-1, low, high and clips."""
    own = {name: score(result.predictions, classes) for name, result in results.items()}
    return pd.DataFrame(
        [(name, results[name].chosen["clip_top1"].mean(), row["clip_top1"], row["clip_top1_low"], row["clip_top1_high"],
          row["clips"]) for name, row in own.items()],
        columns=["run", "validation", "reproduced", "low", "high", "clips"])


def compare_pair(first: pd.DataFrame, second: pd.DataFrame) -> dict:
    """McNemar's exact test of two models on the clips that both were tested on (McNemar, 1947).

    Only clips that one model has right and the other wrong tell which is better. If neither is, such a clip is as
    likely one's as the other's.

    Returns:
        clips (n), both, only_first, only_second, neither (clips that are right so), p (two-sided).
    """
    merged = first.merge(second, on=["clip", "class"], suffixes=("_first", "_second"))
    one, other = ((merged[f"predicted_{name}"] == merged["class"]).to_numpy() for name in ("first", "second"))
    counts = {"both": one & other, "only_first": one & ~other, "only_second": ~one & other, "neither": ~one & ~other}
    counts = {"clips": len(merged), **{name: int(clips.sum()) for name, clips in counts.items()}}
    differing = counts["only_first"] + counts["only_second"]
    return {**counts, "p": float(binomtest(counts["only_first"], differing).pvalue) if differing else 1.0}


def list_trained(models: Path, names: list[str]) -> list[Key]:
    """(model, start) of each trained `<models>/<model>/<start>/fold_<k>` of study B, in the order of names.

    Raises:
        FileNotFoundError: when there is none.
    """
    found = [(name, start) for name in names for start in ("scratch", "pretrained")
             if any((Path(models) / name / start).glob("fold_*/card.json"))]
    if not found:
        raise FileNotFoundError(f"no trained fold of {', '.join(names)} in {models}: train a model first (make repro)")
    return found


def compare_starts(clip_level: dict[Key, pd.DataFrame], video_level: dict[Key, pd.DataFrame],
                   cards: dict[Key, list[dict]], classes: list[str]) -> pd.DataFrame:
    """One row a model and start of study B: `summarise`, top-2 with its interval, and the same at video level.

    Args:
        clip_level, video_level: predictions from the centre window of each clip, and from several windows.
        cards: of the folds.
    """
    rows = []
    for (model, start), table in clip_level.items():
        row, video = summarise(table, cards[model, start], classes), score(video_level[model, start], classes, "video")
        clips = row.pop("clips")
        low, high = wilson_interval(round(row["clip_top2"] * clips), clips)
        rows.append({"model": model, "start": start, **row, "clip_top2_low": low, "clip_top2_high": high,
                     "video_top1": video["video_top1"], "video_low": video["video_top1_low"],
                     "video_high": video["video_top1_high"], "video_top2": video["video_top2"], "clips": clips})
    return pd.DataFrame(rows)


def add_gains(starts: pd.DataFrame, clip_level: dict[Key, pd.DataFrame], published: dict[str, float]) -> pd.DataFrame:
    """Figure 16 as a table: `compare_starts` with gain, gain_p (of `compare_pair`) and published_gain of pretraining.

    They stand in a pretrained model's row; gain and p only where it was trained from scratch, too.
    """
    top1, table = starts.set_index(["model", "start"])["clip_top1"], starts.reset_index(drop=True)
    table[["gain", "gain_p", "published_gain"]] = np.nan
    for row, (model, start) in enumerate(top1.index):
        if start == "pretrained":
            table.loc[row, "published_gain"] = published.get(model, np.nan)
            if (model, "scratch") in top1.index:
                pair = compare_pair(clip_level[model, "scratch"], clip_level[model, "pretrained"])
                table.loc[row, ["gain", "gain_p"]] = top1[model, start] - top1[model, "scratch"], pair["p"]
    return table


def prefer_pretrained(starts: pd.DataFrame) -> pd.DataFrame:
    """One row a model, as in study B's Table 3: pretrained, or from scratch where it was not pretrained."""
    ranked = starts.sort_values("start", key=lambda start: start != "pretrained", kind="stable")
    return ranked.drop_duplicates("model").sort_index().reset_index(drop=True)


def choose_best(table: pd.DataFrame, file: Path) -> pd.Series:
    """The row of the model with the highest validation; `file` (best.json) notes it for `studies.find_best`.

    Test clips have no say. Pretrained models of study B go first; of equals the first one is taken.

    Args:
        table: of `compare_architectures`, or of `compare_starts`.
        file: gets model ("convlstm", or "squeezenet/pretrained") and validation.

    Raises:
        ValueError: when there is no model to choose from.
    """
    if table.empty:
        raise ValueError("expected at least one trained model to choose from, found none: run make repro")
    if "start" in table and "pretrained" in set(table["start"]):
        table = table[table["start"] == "pretrained"]
    best = table.loc[table["validation"].idxmax()]
    model = f"{best['model']}/{best['start']}" if "start" in table else best["architecture"]
    write_text(file, json.dumps({"model": model, "validation": float(best["validation"])}) + "\n")
    return best


def compare_top_k(starts: pd.DataFrame, published: dict[str, dict[str, float]]) -> pd.DataFrame:
    """Study B's Table 3: one row a model of `compare_starts`, beside the paper's numbers (model -> top1 and top2)."""
    table = prefer_pretrained(starts).drop(columns=["pixels", "frames", "epochs", "validation"])
    for place, name in ((2, "top1"), (3, "top2")):
        shares = [published.get(model, {}).get(name, np.nan) for model in table["model"]]
        table.insert(place, f"published_{name}", shares)
    return table


def compare_classes(predictions: pd.DataFrame, classes: list[str], published: dict[str, list[float]]) -> pd.DataFrame:
    """Study B's Tables 4 to 6: `score_classes` of the actions, beside the paper's precision, recall and F1 of each."""
    own = score_classes(predictions, classes).rename(columns={"class": "action"})
    for place, measure in enumerate(("precision", "recall", "f1")):
        shares = [published.get(action, [np.nan] * 3)[place] for action in classes]
        own.insert(2 + place, f"published_{measure}", shares)
    return own


def compare_alerts(predictions: dict[Key, pd.DataFrame], classes: list[str], alerts: list[str]) -> pd.DataFrame:
    """How often each model misses the actions that must not be missed; alerts that are no class are left out.

    Returns:
        model, start, action, clips (n that show it), missed, recall with its 95 % interval, called (n predicted as it),
        precision with its interval (nan where none was predicted so).
    """
    rows, columns = [], ["model", "start", "action", "clips", "missed", "recall", "recall_low", "recall_high", "called",
                         "precision", "precision_low", "precision_high"]
    for (model, start), table in predictions.items():
        for action in [name for name in alerts if name in classes]:
            shown, called = table["class"] == action, table["predicted"] == action
            found, clips, calls = int((shown & called).sum()), int(shown.sum()), int(called.sum())
            rows.append([model, start, action, clips, clips - found, found / clips if clips else np.nan,
                         *wilson_interval(found, clips), calls, found / calls if calls else np.nan,
                         *wilson_interval(found, calls)])
    return pd.DataFrame(rows, columns=columns)
