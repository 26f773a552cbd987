"""Charts of both studies: counts, learning curves, confusion matrices, accuracies with their intervals."""

import numpy as np
import pandas as pd
import seaborn
from matplotlib import pyplot
from matplotlib.figure import Figure

from health_actions.figures.style import BARS, span_interval


def plot_counts(counts: pd.DataFrame) -> Figure:
    """Figure 2 of study A: clips per class (rows) and subset (columns), stacked."""
    figure, axis = pyplot.subplots(figsize=(7.5, 3.2))
    bottom = np.zeros(len(counts))
    for subset, hatch in zip(counts.columns, ("", "//", ".."), strict=False):
        axis.bar(counts.index, counts[subset], bottom=bottom, label=subset, hatch=hatch, edgecolor="white", width=0.75)
        bottom += counts[subset].to_numpy()
    axis.set_ylabel("clips")
    axis.tick_params(axis="x", rotation=45)
    pyplot.setp(axis.get_xticklabels(), ha="right", rotation_mode="anchor")
    axis.legend(ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
    return figure


def plot_learning_curves(histories: dict[str, pd.DataFrame]) -> Figure:
    """Figure 5 of study A: loss and clip top-1 by epoch, a row an architecture; the line is the mean of the folds, the
    band from the lowest to the highest of them."""
    figure, axes = pyplot.subplots(len(histories), 2, figsize=(7.5, 1.9 * len(histories)), squeeze=False)
    for row, (name, history) in zip(axes, histories.items(), strict=True):
        for axis, measure in zip(row, ("loss", "clip_top1"), strict=True):
            for part, style in (("training", "--"), ("validation", "-")):
                epochs = history.groupby("epoch")[f"{part}_{measure}"]
                middle = epochs.mean()
                axis.plot(middle.index, middle, style, label=part)
                axis.fill_between(middle.index, epochs.min(), epochs.max(), alpha=0.15, linewidth=0)
            axis.set_ylim(bottom=0, top=1 if measure == "clip_top1" else None)
            axis.set_title(f"{name}: {'clip top-1' if measure == 'clip_top1' else measure}", fontsize=9)
            axis.set_xlim(left=1)
    for axis in axes[-1]:
        axis.set_xlabel("epoch")
    axes[0, 0].legend(fontsize=8)
    return figure


def plot_confusions(counts: pd.DataFrame) -> Figure:
    """Figure 6 of study A: rows predicted, columns actual, counts of clips; shades are shares of the actual class."""
    figure, axis = pyplot.subplots(figsize=(7.2, 6))
    shares = counts / counts.sum().clip(lower=1)
    labels = counts.astype(str).where(counts > 0, "")
    seaborn.heatmap(shares, annot=labels, fmt="", cmap="Blues", vmin=0, vmax=1, linewidths=0.5, linecolor="#dddddd",
                    cbar_kws={"label": "share of the actual class"}, ax=axis)
    axis.set_xlabel("actual class")
    axis.set_ylabel("predicted class")
    return figure


def plot_published_and_reproduced(table: pd.DataFrame, *, label: str = "architecture") -> Figure:
    """A bar a row with its 95 % interval, and a mark where the paper's number is.

    Args:
        table: with `label`, published (may be empty), reproduced, low and high; shares of 1.
    """
    figure, axis = pyplot.subplots(figsize=(7.5, 0.45 * len(table) + 1))
    places = np.arange(len(table))
    errors = np.abs(table[["low", "high"]].to_numpy().T - table["reproduced"].to_numpy())
    axis.barh(places, table["reproduced"], xerr=errors, height=0.6, color="C0", ecolor="black", capsize=3,
              label="reproduced, 95 % interval")
    if "published" in table:
        axis.plot(table["published"], places, "D", color="C1", markeredgecolor="black", label="published")
    axis.set_yticks(places, table[label])
    axis.invert_yaxis()
    axis.set_xlim(0, 1)
    axis.set_xlabel("clip top-1")
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return figure


def plot_grid(table: pd.DataFrame) -> Figure:
    """Table 2 of study A as heat maps: batch_size and learning_rate against published and reproduced accuracy.

    Args:
        table: a row a pair of values, with published and validation (shares of 1; what the paper chose by).
    """
    figure, axes = pyplot.subplots(1, 2, figsize=(7.5, 2.8), sharey=True)
    for axis, (column, title) in zip(axes, [("published", "published"), ("validation", "reproduced")], strict=True):
        grid = table.pivot(index="batch_size", columns="learning_rate", values=column).astype(float)
        seaborn.heatmap(grid, annot=True, fmt=".2f", cmap="Blues", vmin=0, vmax=1, linewidths=0.5, cbar=False, ax=axis)
        axis.set(title=f"{title}: validation clip top-1", xlabel="learning rate", ylabel="batch size")
    return figure


def plot_protocols(table: pd.DataFrame) -> Figure:
    """Clip top-1 of each seed under each protocol, with its 95 % interval; bars from zero are their means.

    Args:
        table: protocol, seed, reproduced, low, high; shares of 1.
    """
    figure, axis = pyplot.subplots(figsize=(7.5, 3))
    for place, (_, part) in enumerate(table.groupby("protocol", sort=False)):
        axis.bar(place, part["reproduced"].mean(), width=0.7, color="C5", alpha=0.6)
        places = place + np.linspace(-0.2, 0.2, len(part)) * (len(part) > 1)
        errors = np.abs(part[["low", "high"]].to_numpy().T - part["reproduced"].to_numpy())
        axis.errorbar(places, part["reproduced"], yerr=errors, fmt="o", color="C0", capsize=3)
    protocols = list(table["protocol"].drop_duplicates())
    axis.set_xticks(range(len(protocols)), protocols)
    axis.set_ylim(0, 1)
    axis.set_ylabel("clip top-1")
    return figure


def plot_switches(table: pd.DataFrame) -> Figure:
    """What each switch changes: difference to the right way in points, as a mark, with the span of the repeats.

    Args:
        table: switch, difference, lowest and highest (shares of 1).
    """
    figure, axis = pyplot.subplots(figsize=(7.5, 0.4 * len(table) + 0.8))
    places = np.arange(len(table))
    axis.hlines(places, 100 * table["lowest"], 100 * table["highest"], color="C0")
    axis.plot(100 * table["difference"], places, "o", color="C0")
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_yticks(places, table["switch"])
    axis.invert_yaxis()
    axis.set_xlabel("difference in clip top-1, points")
    return figure


def plot_class_scores(scores: pd.DataFrame) -> Figure:
    """Precision and recall of each class as grouped bars with their 95 % intervals; see `score_classes`."""
    figure, axis = pyplot.subplots(figsize=(7.5, 3.2))
    places = np.arange(len(scores))
    for number, measure in enumerate(("precision", "recall")):
        colour, hatch = BARS[number]
        axis.bar(places + (number - 0.5) * 0.4, scores[measure], 0.4, color=colour, hatch=hatch, edgecolor="white",
                 yerr=span_interval(scores, measure), ecolor="black", capsize=2, error_kw={"elinewidth": 1},
                 label=f"{measure}, 95 % interval")
    axis.set_ylim(0, 1)
    axis.set_ylabel("share")
    axis.set_xticks(places, scores["class"], rotation=45, ha="right", rotation_mode="anchor")
    axis.legend(ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    return figure


def plot_shares(table: pd.DataFrame, summary: pd.DataFrame) -> Figure:
    """Saliency in the moving region: each clip's share over its area, and the ratio of both with its 95 % interval.

    Args:
        table: of `saliency.explain_folds`.
        summary: of `saliency.compare_shares`.
    """
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(7.5, 3.2), width_ratios=(1, 1.1))
    most = max(0.1, table[["share", "area"]].max().max() * 1.08) if len(table) else 1
    left.plot([0, most], [0, most], color="black", linewidth=0.8, linestyle=":")
    styles = {"right": ("o", "C0"), "wrong": ("X", "C1")}
    for clips, (marker, colour) in styles.items():
        part = table[table["right"] == (clips == "right")]
        left.scatter(part["area"], part["share"], 22, colour, marker=marker, linewidth=0, alpha=0.8, label=clips)
    left.set(xlim=(0, most), ylim=(0, most), xlabel="share of the area", ylabel="share of the saliency")
    left.legend(title="the clip's class is", loc="upper left", fontsize=8, title_fontsize=8)
    places = np.arange(len(summary))
    for place, row in zip(places, summary.itertuples(), strict=True):
        marker, colour = styles[row.clips]
        right.plot([row.low, row.high], [place, place], color=colour)
        right.plot(row.ratio, place, marker, color=colour, markersize=8,
                   markerfacecolor=colour if row.model == "trained" else "white")
    right.axvline(1, color="black", linewidth=0.8, linestyle=":")
    right.set_yticks(places, [f"{row.model}, {row.clips} ({row.count})" for row in summary.itertuples()])
    right.invert_yaxis()
    right.set_xlabel("share of the saliency / share of the area")
    return figure
