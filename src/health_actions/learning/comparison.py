"""The papers' tables: architectures, runs, networks and starts side by side, published beside reproduced."""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from health_actions.learning.evaluation import give_interval, score, score_classes


def add_difference(table: pd.DataFrame, *, published: str = "published", reproduced: str = "reproduced",
                   low: str = "low", high: str = "high") -> pd.DataFrame:
    """Say of each published number how far the reproduced one is from it, and whether it lies in its 95 % interval.

    Args:
        table: with the columns named; shares of 1.

    Returns:
        The table with `difference` (reproduced less published) and `published_is` ("inside", "above" or "below" the
        interval; nothing where nothing was published) after its interval.
    """
    numbers = table[published].astype(float)
    said = np.select([numbers.isna() | table[low].isna(), numbers > table[high], numbers < table[low]],
                     ["", "above", "below"], "inside")
    table = table.copy()
    place = list(table.columns).index(high) + 1
    table.insert(place, "difference", (table[reproduced] - numbers).round(3))
    table.insert(place + 1, "published_is", said)
    return table


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
        results: as of `health_actions.learning.training.train_runs`.

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
        action, clips, published_precision, published_recall, published_f1, precision and recall with their 95 %
        intervals, f1.
    """
    own = score_classes(predictions, classes).rename(columns={"class": "action"})
    for place, measure in enumerate(("precision", "recall", "f1")):
        own[f"published_{measure}"] = [published.get(action, [np.nan] * 3)[place] for action in classes]
    return own[["action", "clips", "published_precision", "published_recall", "published_f1", "precision",
                "precision_low", "precision_high", "recall", "recall_low", "recall_high", "f1"]]


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


def choose_folder(evaluation: Path) -> str:
    """A study's best model by validation, as its folder below the study's models: "convlstm", "c3d/pretrained".

    Args:
        evaluation: folder of the study's evaluation, which holds table_1.csv (study A) or figure_16.csv (study B).

    Raises:
        FileNotFoundError: when it holds neither; says what makes them.
    """
    if (Path(evaluation) / "table_1.csv").is_file():
        return choose_architecture(pd.read_csv(Path(evaluation) / "table_1.csv"), "best")
    if (Path(evaluation) / "figure_16.csv").is_file():
        best = choose_model(pd.read_csv(Path(evaluation) / "figure_16.csv"))
        return f"{best['model']}/{best['start']}"
    raise FileNotFoundError(f"no trained and evaluated models: {evaluation} has no table of them; run make repro first")
