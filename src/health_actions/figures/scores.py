"""Charts of both studies: counts, learning curves, confusion matrices, scores with their intervals, rejection."""

import pandas as pd
import seaborn
from matplotlib import pyplot
from matplotlib.figure import Figure

from health_actions.figures.style import plot_facets, plot_intervals


def plot_counts(counts: pd.DataFrame) -> Figure:
    """Figure 2 of study A: clips per class (rows) and subset (columns), stacked."""
    axis = counts.plot.barh(stacked=True, figsize=(7.5, 0.27 * len(counts) + 0.8), width=0.75, edgecolor="white",
                            xlabel="clips", ylabel="")
    for bars, hatch in zip(axis.containers, ("", "//", ".."), strict=False):
        pyplot.setp(bars.patches, hatch=hatch)
    axis.invert_yaxis()
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend(ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
    return axis.figure


def plot_curves(table: pd.DataFrame, label: str, **facets) -> seaborn.FacetGrid:
    """`value` (0-1, or losses) by `epoch` in panels: a line is the mean of the folds, its band all of them."""
    grid = plot_facets(table.reset_index(drop=True), x="epoch", y="value", kind="line", errorbar=("pi", 100),
                       markers=True, markersize=4, err_kws={"linewidth": 0}, **facets)
    for axis in grid.axes.flat:
        axis.set_ylim(0, None if "loss" in axis.get_title("left") else 1)
        axis.xaxis.get_major_locator().set_params(integer=True)
    return grid.set_axis_labels("epoch", label)


def plot_learning_curves(histories: dict[str, pd.DataFrame]) -> Figure:
    """Figure 5 of study A: loss and clip top-1 by epoch; architecture -> its history.csv. See `plot_curves`."""
    parts = [history[["epoch"]].assign(model=model, clips=clips, measure=measure, value=history[f"{clips}_{column}"])
             for model, history in histories.items() for clips in ("training", "validation")
             for measure, column in (("loss", "loss"), ("clip top-1", "clip_top1"))]
    grid = plot_curves(pd.concat(parts), "", row="model", col="measure", hue="clips", style="clips", height=1.7,
                       aspect=2)
    return grid.set_titles("{row_name}: {col_name}").figure


def plot_confusions(counts: pd.DataFrame) -> Figure:
    """Figure 6 of study A: rows predicted, columns actual, counts of clips; shades are shares of the actual class."""
    figure, axis = pyplot.subplots(figsize=(7.2, 6))
    seaborn.heatmap(counts / counts.sum().clip(lower=1), annot=counts.astype(str).where(counts > 0, ""), fmt="",
                    cmap="Blues", vmin=0, vmax=1, linewidths=0.5, linecolor="#dddddd",
                    cbar_kws={"label": "share of the actual class"}, ax=axis)
    axis.set(xlabel="actual class", ylabel="predicted class")
    return figure


def plot_published_and_reproduced(table: pd.DataFrame, *, label: str = "architecture",
                                  chance: float | None = None) -> Figure:
    """Clip top-1 (`reproduced`, with low and high; shares of 1) with its 95 % interval, and published values if any."""
    series = {"reproduced, 95 % interval": "reproduced", "published": "published"}
    return plot_intervals(table, label, {"clip top-1": series}, chance=chance)


def plot_grid(table: pd.DataFrame) -> Figure:
    """Table 2 of study A: published and reproduced validation top-1 (0-1) by batch_size and learning_rate."""
    figure, axes = pyplot.subplots(1, 2, figsize=(7.5, 2.8), sharey=True)
    for axis, (column, title) in zip(axes, [("published", "published"), ("validation", "reproduced")], strict=True):
        grid = table.pivot(index="batch_size", columns="learning_rate", values=column).astype(float)
        seaborn.heatmap(grid, annot=True, fmt=".2f", cmap="Blues", vmin=0, vmax=1, linewidths=0.5, cbar=False, ax=axis)
        axis.set(title=f"{title}: validation clip top-1", xlabel="learning rate", ylabel="batch size")
    return figure


def plot_protocols(table: pd.DataFrame, *, chance: float | None = None) -> Figure:
    """Clip top-1 of each protocol and seed (`reproduced`, with low and high), and the mean of the seeds."""
    seeds = table.assign(seed="seed " + table["seed"].astype(str))
    means = table.groupby("protocol", sort=False, as_index=False)[["reproduced"]].mean().assign(seed="mean")
    return plot_intervals(pd.concat([seeds, means]), "protocol", {"clip top-1, with 95 % interval": {"": "reproduced"}},
                          group="seed", chance=chance)


def plot_legacy_switches(table: pd.DataFrame) -> Figure:
    """What each legacy switch changes in clip top-1 (difference, lowest and highest of its repeats; shares of 1)."""
    points = 100 * table.set_index("switch")[["difference", "lowest", "highest"]]
    figure = plot_intervals(points.set_axis(["difference", "low", "high"], axis=1).reset_index(), "switch", {
        "difference in clip top-1, points": {"difference, lowest to highest repeat": "difference"}}, bars=False)
    figure.axes[0].axvline(0, color="black", linewidth=0.8)
    return figure


def plot_class_scores(scores: pd.DataFrame) -> Figure:
    """Precision and recall of each class with their 95 % intervals; see `score_classes`."""
    return plot_intervals(scores, "class", {"share of 1, with 95 % interval": {
        "precision": "precision", "recall": "recall"}})


def plot_shares(table: pd.DataFrame, summary: pd.DataFrame) -> Figure:
    """Saliency in the moving region, by clip and with 95 % intervals; of `explain_folds` and `compare_shares`."""
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(7.5, 3.2), width_ratios=(1, 1.1))
    for kind, colour, mark in (("right", "C0", "o"), ("wrong", "C4", "X")):
        part = table[table["right"] == (kind == "right")]
        left.scatter(part["area"], part["share"], 22, colour, marker=mark, linewidth=0, alpha=0.8, label=kind)
    left.axline((0, 0), slope=1, color="black", linewidth=0.8, linestyle=":")
    left.set(xlim=(0, None), ylim=(0, None), xlabel="share of the area", ylabel="share of the saliency")
    left.legend(title="the prediction is", loc="upper left", fontsize=8, title_fontsize=8)
    labels = summary["model"] + ", " + summary["clips"] + " (" + summary["count"].astype(str) + ")"
    plot_intervals(summary.assign(label=labels), "label", {"share of the saliency / share of the area": {"": "ratio"}},
                   group="clips", bars=False, axes=[right])
    right.axvline(1, color="black", linewidth=0.8, linestyle=":")
    return figure


def plot_reject(scores: pd.DataFrame, largest: float) -> Figure:
    """Share of the test clips of each kind whose distance (0 or more) is at most a threshold; `largest` is in use."""
    figure, axis = pyplot.subplots(figsize=(7.5, 3.2))
    for (kind, part), style in zip(scores.groupby("kind", sort=False), ("-", "--", ":", "-."), strict=False):
        axis.ecdf(part["distance"], linestyle=style, label=f"{kind} ({len(part)} clips)")
    axis.axvline(largest, color="black", linewidth=0.8)
    axis.text(largest, 1.02, "in use", ha="center", fontsize=8)
    axis.set(xscale="log", ylim=(0, 1), ylabel="share of clips accepted",
             xlabel="threshold: largest accepted distance to the training clips")
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
