"""Charts of study B: eight networks from two starts, what they cost, how they are built, how the best one behaves."""

import textwrap

import numpy as np
import pandas as pd
from matplotlib import pyplot
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from health_actions.figures.scores import plot_curves
from health_actions.figures.style import plot_facets, plot_intervals, span_decades


def plot_behaviour(table: pd.DataFrame) -> Figure:
    """Share of clips that behave as expected, a colour a kind of test; see `behaviour.check_behaviour`."""
    tested = table["clips"] > 0
    labels = table["test"] + " (" + table["clips"].astype(str).where(tested, "not tested") + ")"
    table = table.assign(label=labels, rate=table["rate"].where(tested))
    return plot_intervals(table, "label", {"share of the clips that behave as expected, with 95 % interval": {
        "": "rate"}}, group="kind")


def plot_starts(starts: pd.DataFrame, *, chance: float | None = None) -> Figure:
    """Figure 16 of study B: clip top-1 from scratch and from pretrained weights; see `comparison.compare_starts`."""
    panels = {"clip top-1, with 95 % interval": {"": "clip_top1"}}
    return plot_intervals(starts, "model", panels, group="start", chance=chance)


def plot_top_k(table: pd.DataFrame) -> Figure:
    """Figure 17 of study B: published and reproduced top-1 and top-2; see `comparison.compare_top_k`."""
    table = table.assign(label=table["model"] + table["start"].map({"scratch": " (scratch)"}).fillna(""))
    return plot_intervals(table, "label", {f"top-{k}": {
        "reproduced (clips), 95 % interval": f"clip_top{k}", "published": f"published_top{k}"} for k in (1, 2)})


def plot_action_scores(table: pd.DataFrame) -> Figure:
    """Figures 18 to 20 of study B: published (if any) and reproduced scores; see `comparison.compare_classes`."""
    names = {"precision": "precision", "recall": "recall", "F1": "f1"}
    panels = {"reproduced: share of 1, 95 % interval": names}
    if table["published_f1"].notna().any():
        panels["published: share of 1"] = {name: f"published_{column}" for name, column in names.items()}
    labels = table["action"] + " (" + table["clips"].astype(str) + ")"
    return plot_intervals(table.assign(action=labels), "action", panels)


def plot_validation_curves(histories: dict[tuple[str, str], pd.DataFrame], *, chance: float) -> Figure:
    """Validation clip top-1 by epoch, a panel a model; (model, start) -> its history.csv. See `plot_curves`."""
    table = pd.concat([history.assign(model=model, start=start, value=history["validation_clip_top1"])
                       for (model, start), history in histories.items()])
    grid = plot_curves(table, "clip top-1", col="model", hue="start", style="start", height=1.9,
                       col_wrap=min(4, table["model"].nunique()))
    return grid.refline(y=chance, color="black", linestyle=":").set_titles("{col_name}").figure


def plot_accuracy_costs(table: pd.DataFrame) -> Figure:
    """Published and reproduced top-1 against million multiply-adds of a clip, and published clips per second."""
    panels = {"published": ("published_multiply_adds", "published_top1", "million multiply-adds"),
              "reproduced, clip-level": ("multiply_adds", "clip_top1", "million multiply-adds"),
              "published speed": ("clips_per_second", "published_top1", "clips per second")}
    points = pd.concat([table.assign(panel=title, cost=table[cost].astype(float), accuracy=table[accuracy])
                        for title, (cost, accuracy, _) in panels.items()]).dropna(subset=["cost", "accuracy"])
    grid = plot_facets(points, x="cost", y="accuracy", col="panel", hue="model", style="model", s=80, height=3,
                       aspect=0.75, palette="colorblind", markers=dict(zip(table["model"].unique(), "os^vDPX*<>")))
    for title, axis in grid.axes_dict.items():
        axis.set(**span_decades(points.loc[points["panel"] == title, ["cost"]]), ylim=(0, 1), xlabel=panels[title][2])
        axis.grid(alpha=0.3)
    return grid.set_titles("{col_name}").set_ylabels("top-1").figure


def plot_costs(table: pd.DataFrame) -> Figure:
    """In place of Figure 6 of study B: parameters and million multiply-adds of a clip, counted here and published."""
    columns = {"parameters": "parameters", "multiply_adds": "million multiply-adds for one clip"}
    figure = plot_intervals(table, "model", {
        label: {"counted here": column, "published": f"published_{column}"} for column, label in columns.items()},
        bars=False)
    for axis, column in zip(figure.axes, columns, strict=True):
        axis.set(**span_decades(table[[column, f"published_{column}"]]))
        axis.grid(alpha=0.3)
    return figure


def draw_structure(table: pd.DataFrame, title: str) -> Figure:
    """Figures 7 to 14 of study B: the parts of one network from left to right; see `structure.describe_structure`.

    A block's height is the root of the height of the maps that come out of it (a bar where there are no maps); the more
    channels they have, the darker it is. Above it stand name, kind and repeats; below it output and costs.
    """
    lines = -(-len(table) // 12)
    columns = max(6, -(-len(table) // lines))
    heights, channels = table["height"].astype(float), table["channels"].astype(float)
    sides = (heights / heights.max()).fillna(0).clip(lower=0.015) ** 0.5
    shades = (0.1 + 0.75 * np.log2(channels) / max(1.0, np.log2(channels.max()))).fillna(0.1)
    figure, axes = pyplot.subplots(lines, 1, figsize=(10, 3.4 * lines), squeeze=False)
    below = {"va": "top", "fontsize": 7.5, "linespacing": 1.7}
    for axis in axes[:, 0]:
        axis.set(xlim=(-0.9 * columns / 11, columns), ylim=(-1.25, 1.1))
        axis.axis("off")
        axis.text(0, -0.58, "channels\nframes, pixels\nparameters\nmultiply-adds", ha="right", style="italic", **below)
    for number, row in enumerate(table.itertuples()):
        axis, middle, side = axes[number // columns, 0], number % columns + 0.5, sides.iloc[number]
        axis.add_patch(pyplot.Rectangle((middle - 0.28, -side / 2), 0.56, side, edgecolor="black",
                                        facecolor=pyplot.get_cmap("Greys")(shades.iloc[number])))
        if number % columns:
            axis.annotate("", (middle - 0.3, 0), (middle - 0.7, 0), arrowprops={"arrowstyle": "-|>", "color": "black"})
        kind = f"{row.repeats} \u00d7 {row.kind}" if row.repeats > 1 else row.kind
        kind = kind.replace(" x ", "\u00a0\u00d7\u00a0")  # no line ends within the size of a kernel
        above = [textwrap.fill(text, 160 // columns, break_long_words=False) for text in (row.part, kind)]
        axis.text(middle, 0.58, "\n".join(above), ha="center", va="bottom", fontsize=7.5)
        size = " \u00d7 ".join(f"{value:.0f}" for value in (row.frames, row.height, row.width) if pd.notna(value))
        costs = [EngFormatter()(float(f"{value:.3g}")) if value else "" for value in (
            row.parameters, 1e6 * row.multiply_adds)]
        facts = ["" if pd.isna(row.channels) else str(row.channels), size, *costs]
        axis.text(middle, -0.58, "\n".join(fact or "\u2013" for fact in facts), ha="center", **below)
    figure.suptitle(title, x=0, ha="left", fontsize=11)
    return figure
