"""What the papers' tables share: published beside reproduced numbers, two models on the same clips, the best model."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from health_actions.learning.scores import count_units, score, wilson_interval
from health_actions.paths import write_text


def add_difference(table: pd.DataFrame, published_clips: float | list[float] = np.nan, *, published: str = "published",
                   reproduced: str = "reproduced", low: str = "low", high: str = "high") -> pd.DataFrame:
    """Add, after column `high`, how far a reproduced share is from the published one, with the errors of both.

    `difference` is reproduced less published; difference_low and difference_high are its 95 % interval, put together of
    the two shares' own intervals (Newcombe, 1998, method 10; Zou & Donner, 2008). `published_is` is "above" or "below"
    where 0 lies outside, "near" where no difference could be measured, empty where nothing was published.

    Args:
        published_clips: of the published share, or of each row's; its interval is Wilson's, since nothing is known of
            its performers. nan: unknown, and the published share is taken as exact, which makes the interval too short.
    """
    table, numbers, place = table.copy(), table[published].astype(float), table.columns.get_loc(high) + 1
    sizes = np.broadcast_to(np.asarray(published_clips, float), len(table))
    theirs = np.array([(share, share) if np.isnan(size) else wilson_interval(share * size, size)
                       for share, size in zip(numbers, sizes, strict=True)]).reshape(-1, 2)
    below, above = np.hypot(table[reproduced] - table[low], theirs[:, 1] - numbers), np.hypot(
        table[high] - table[reproduced], numbers - theirs[:, 0])
    difference = table[reproduced] - numbers
    added = {"difference": difference, "difference_low": difference - below, "difference_high": difference + above}
    words = np.select([difference.isna() | below.isna(), added["difference_high"] < 0, added["difference_low"] > 0],
                      ["", "above", "below"], "near")
    for step, (name, values) in enumerate({**added, "published_is": words}.items()):
        table.insert(place + step, name, values.round(3) if name in added else values)
    return table


def summarise(predictions: pd.DataFrame, cards: list[dict], classes: list[str]) -> dict:
    """What both studies' tables say of a model: its input, its training and its score on the test clips.

    `training` (nan where it was not measured) and `validation` are means of the folds' kept epochs; low and high are
    the 95 % interval of clip_top1; at the end stands n (`count_units`).
    """
    own = score(predictions, classes)
    training = [card["scores"].get("training_clip_top1", np.nan) for card in cards]
    return {"pixels": cards[0]["clip"]["size"], "frames": cards[0]["clip"]["window"],
            "epochs": cards[0]["training"]["epochs"],
            "training": float(np.mean(training)),
            "validation": float(np.mean([card["scores"]["validation_clip_top1"] for card in cards])),
            "clip_top1": own["clip_top1"], "low": own["clip_top1_low"], "high": own["clip_top1_high"],
            **{name: own[name] for name in ("clip_top2", "clip_top2_low", "clip_top2_high")},
            **count_units(predictions)}


def compare_runs(results: dict, classes: list[str]) -> pd.DataFrame:
    """One row a run of `train_runs`: validation (mean of the kept epochs), reproduced top-1, low, high and n."""
    own = {"clip_top1": "reproduced", "clip_top1_low": "low", "clip_top1_high": "high", "clips": "clips",
           "performers": "performers"}
    table = pd.DataFrame([{"run": name, "validation": result.chosen["clip_top1"].mean(),
                           **score(result.predictions, classes)} for name, result in results.items()],
                         columns=["run", "validation", *own])
    return table.rename(columns=own)


def compare_pair(first: pd.DataFrame, second: pd.DataFrame) -> dict:
    """Two models on the clips that both were tested on, paired by performer: n, counts of clips, difference, p.

    `difference` is the mean over performers of the share right of the first less that of the second; p is of
    `permute_signs`.
    """
    merged = first.merge(second[["clip", "class", "predicted"]], on=["clip", "class"], suffixes=("_first", "_second"))
    one, other = ((merged[f"predicted_{name}"] == merged["class"]).to_numpy() for name in ("first", "second"))
    counts = {"both": one & other, "only_first": one & ~other, "only_second": ~one & other, "neither": ~one & ~other}
    differences = pd.Series(one.astype(float) - other).groupby(merged["recording"].to_numpy()).mean()
    return {**count_units(merged), **{name: int(clips.sum()) for name, clips in counts.items()},
            "difference": float(differences.mean()), "p": permute_signs(differences)}


def compare_pairs(predictions: dict[str, pd.DataFrame], pairs: list[tuple[str, str]]) -> pd.DataFrame:
    """`compare_pair` of several pairs of tables, a row each: first, second, ..., p (corrected by Holm), tests."""
    tests = [compare_pair(predictions[first], predictions[second]) for first, second in pairs]
    counted = pd.DataFrame(tests, columns=None if tests else ["difference", "p"])
    table = pd.DataFrame(pairs, columns=["first", "second"]).join(counted)
    return table.assign(p=correct_holm([test["p"] for test in tests]), tests=len(tests))


def permute_signs(differences: Iterable[float]) -> float:
    """Two-sided p of performers' differences: how often their mean is as far from 0 when each sign is random.

    Exact, of all patterns of signs, for up to 12 differences that are not 0; else of 10,000 patterns, always the same.
    """
    differences = np.asarray(differences, float)
    differences = differences[differences != 0]  # a sign does not change them
    count, drawn = len(differences), len(differences) > 12
    signs = (np.random.default_rng(0).integers(0, 2, (10_000, count)) if drawn
             else np.arange(2**count)[:, None] >> np.arange(count) & 1) * 2 - 1
    as_far = np.abs(signs @ differences) >= abs(differences.sum()) - 1e-9
    return float((as_far.sum() + drawn) / (len(signs) + drawn))


def correct_holm(p_values: Iterable[float]) -> np.ndarray:
    """p values corrected for being several (Holm, 1979), in the same order."""
    p_values = np.asarray(p_values, float)
    order = p_values.argsort(kind="stable")
    corrected = np.empty_like(p_values)
    corrected[order] = np.maximum.accumulate(p_values[order] * np.arange(len(order), 0, -1)).clip(max=1)
    return corrected


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
