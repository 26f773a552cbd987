"""Tables and sentences as readers see them: words for column names, one column for an interval, separated thousands.

CSV files keep the plain column names; only what a notebook or page displays is changed here.
"""

import pandas as pd
from pandas.io.formats.style import Styler

WORDS = {
    "clip_top1": "top-1", "clip_top2": "top-2", "video_top1": "video top-1", "video_top2": "video top-2", "f1": "F1",
    "published_top1": "published top-1", "published_top2": "published top-2", "published_f1": "published F1",
    "training_clip_top1": "training top-1", "validation_clip_top1": "validation top-1", "video": "video top-1",
    "training": "on training clips", "gain_p": "p of the gain", "auroc": "AUROC", "onnxruntime": "ONNX Runtime",
    "torch": "PyTorch",
    "multiply_adds": "multiply-adds (million)", "published_multiply_adds": "published multiply-adds (million)",
    "operations": "multiply-adds (thousand million)", "pixel_change": "mean change of a pixel (of 255)",
}
FITTED = 0.9  # top-1 on its own training clips below which a network's accuracy says nothing about its architecture
VALUES = {"published_is": {"above": "higher", "below": "lower", "near": "no difference measured"}}


def name_column(name: str) -> str:
    """A column's name in words: `published_parameters` is "published parameters"."""
    return WORDS.get(name, str(name).replace("_", " "))


def show_table(table: pd.DataFrame, *, digits: int = 3, **words: str) -> Styler:
    """A table for display.

    `low` and `high` become one column "95 % interval", `recall_low` and `recall_high` "95 % interval of recall". Models
    that do not fit their training clips (column `training` below `FITTED`) are grey. Where `training`, `validation` or
    `testing` are whole numbers, they count clips.

    Args:
        table: as written to a CSV file; its index is not shown.
        words: column -> its name here, where the usual one is wrong.
    """
    shown = table.reset_index(drop=True)
    subsets = {"training": "training clips", "validation": "validation clips", "testing": "test clips"}
    counts = {name: title for name, title in subsets.items() if pd.api.types.is_integer_dtype(table.get(name))}
    words, is_scored = counts | words, "training" in table and "training" not in counts
    grey = table["training"].to_numpy() < FITTED if is_scored else [False] * len(table)
    for low in [name for name in map(str, table.columns) if name == "low" or name.endswith("_low")]:
        high, measure = f"{low.removesuffix('low')}high", low.removesuffix("low").rstrip("_")
        if high not in shown:
            continue
        ends = zip(shown[low], shown[high], strict=True)
        title = "95 % interval" + (f" of {name_column(measure)}" if measure else "")
        shown[low] = ["-" if pd.isna(start) else f"{start:.{digits}f} to {end:.{digits}f}" for start, end in ends]
        shown = shown.rename(columns={low: title}).drop(columns=high)
    for name in [name for name in shown if name == "p" or str(name).endswith("_p")]:
        shown[name] = ["-" if pd.isna(p) else format_p(p, "") for p in shown[name]]
    for name in VALUES.keys() & set(shown):
        shown[name] = shown[name].replace(VALUES[name])
    for name, values in shown.select_dtypes("float").items():  # learning rates would be 0.000
        if values.abs().between(0, 10.0**-digits, inclusive="neither").any():
            shown[name] = ["-" if pd.isna(value) else f"{value:g}" for value in values]
    whole = [name for name, values in shown.select_dtypes("float").items()
             if values.max() > 1 and (values.dropna() % 1 == 0).all()]
    shown = shown.astype(dict.fromkeys(whole, "Int64"))
    shown = shown.rename(columns=lambda name: words.get(str(name), name_column(name)))
    return shown.style.hide().format(precision=digits, thousands=",", na_rep="-").apply(
        lambda row: ["color: gray" if grey[row.name] else ""] * len(row), axis=1)


def format_p(p: float, name: str = "p ") -> str:
    """A p-value: "p = 0.016", "p < 0.001"; without the name "0.016", "< 0.001"."""
    if p < 0.001:
        return f"{name}< 0.001"
    return f"{name}= {p:.3f}" if name else f"{p:.3f}"


def describe_pairs(tests: pd.DataFrame) -> str:
    """A list, a sentence for each row of `comparison.compare_pairs`; a difference is claimed only where p < 0.05."""
    lines = []
    for test in tests.itertuples():
        verdict = "no difference could be measured"
        if test.p < 0.05:
            verdict = f"{test.first if test.difference > 0 else test.second} is better"
        how = "paired by performer" + (f", Holm's correction for {test.tests} tests" if test.tests > 1 else "")
        least = test.tests * 2.0 ** (1 - test.performers)
        few = "" if least < 0.05 else f"; with {test.performers} performers no p below {min(least, 1):.2g} is possible"
        lines.append(f"- Of {test.clips:,} clips of {test.performers} performers that both were tested on, "
                     f"{test.first} alone is right on {test.only_first}, {test.second} alone on {test.only_second}: "
                     f"{verdict} ({how}, {format_p(test.p)}{few}).")
    return "\n".join(lines)


def describe_best(tests: pd.DataFrame) -> str:
    """How the others stand to one model: rows of `comparison.compare_pairs`, of which it is the first in each."""
    shown, difference = tests["p"] < 0.05, tests["difference"]
    groups = {"worse:": shown & (difference > 0), "better:": shown & (difference < 0),
              "no difference could be measured from": ~shown}
    words = [f"{words} {', '.join(tests.loc[rows, 'second'])}" for words, rows in groups.items() if rows.any()]
    return "; ".join(words) or "there is no other that fits its training clips"
