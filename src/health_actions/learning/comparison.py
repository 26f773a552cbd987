"""What the papers' tables share: published beside reproduced numbers, two models on the same clips, the best model."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from health_actions.learning.scores import score
from health_actions.paths import write_text


def add_difference(table: pd.DataFrame, *, published: str = "published", reproduced: str = "reproduced",
                   low: str = "low", high: str = "high") -> pd.DataFrame:
    """Add, after column `high`, how far a reproduced share is from the published one, and where the latter lies.

    `difference` is reproduced less published; `published_is` is "inside", "above" or "below" the 95 % interval, or
    empty where nothing was published.
    """
    table, numbers, place = table.copy(), table[published].astype(float), table.columns.get_loc(high) + 1
    words = np.select([numbers.isna() | table[low].isna(), numbers > table[high], numbers < table[low]],
                      ["", "above", "below"], "inside")
    table.insert(place, "difference", (table[reproduced] - numbers).round(3))
    table.insert(place + 1, "published_is", words)
    return table


def summarise(predictions: pd.DataFrame, cards: list[dict], classes: list[str]) -> dict:
    """What both studies' tables say of a model: its input, its training and its score on the test clips.

    `training` (nan where it was not measured) and `validation` are means of the folds' chosen epochs; low and high are
    the 95 % interval of clip_top1.
    """
    own = score(predictions, classes)
    training = [card["scores"].get("training_clip_top1", np.nan) for card in cards]
    return {"pixels": cards[0]["clip"]["size"], "frames": cards[0]["clip"]["window"],
            "epochs": cards[0]["training"]["epochs"],
            "training": float(np.mean(training)),
            "validation": float(np.mean([card["scores"]["validation_clip_top1"] for card in cards])),
            "clip_top1": own["clip_top1"], "low": own["clip_top1_low"], "high": own["clip_top1_high"],
            "clip_top2": own["clip_top2"], "clips": own["clips"]}


def compare_runs(results: dict, classes: list[str]) -> pd.DataFrame:
    """One row a run of `train_runs`: validation (mean of the chosen epochs), reproduced top-1, low, high and clips."""
    own = {"clip_top1": "reproduced", "clip_top1_low": "low", "clip_top1_high": "high", "clips": "clips"}
    table = pd.DataFrame([{"run": name, "validation": result.chosen["clip_top1"].mean(),
                           **score(result.predictions, classes)} for name, result in results.items()],
                         columns=["run", "validation", *own])
    return table.rename(columns=own)


def compare_pair(first: pd.DataFrame, second: pd.DataFrame) -> dict:
    """McNemar's exact test (1947) of two models on the clips that both were tested on: counts of clips, two-sided p.

    Only clips on which exactly one model is right count. If both models are equally good, each is right on half of
    these.
    """
    merged = first.merge(second, on=["clip", "class"], suffixes=("_first", "_second"))
    one, other = ((merged[f"predicted_{name}"] == merged["class"]).to_numpy() for name in ("first", "second"))
    counts = {"both": one & other, "only_first": one & ~other, "only_second": ~one & other, "neither": ~one & ~other}
    counts = {"clips": len(merged), **{name: int(clips.sum()) for name, clips in counts.items()}}
    differing = counts["only_first"] + counts["only_second"]
    return {**counts, "p": float(binomtest(counts["only_first"], differing).pvalue) if differing else 1.0}


def choose_best(table: pd.DataFrame, file: Path) -> pd.Series:
    """The row of the model with the highest validation (of equals the first); test clips have no say.

    `file` (best.json) notes it for `studies.find_best`: "convlstm", or "squeezenet/pretrained" where the table has
    starts. Pretrained models go before those from scratch.

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
