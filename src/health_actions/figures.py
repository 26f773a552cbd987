"""The reports' charts, in one style (matplotlibrc); each function draws one figure and returns it."""

from pathlib import Path

import numpy as np
import pandas as pd
import seaborn
from matplotlib import pyplot
from matplotlib.figure import Figure

from health_actions.paths import replacing


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure, SVG for charts and PNG for pictures, the same bytes at every run."""
    with replacing(path) as temporary:
        figure.savefig(temporary, metadata={"Date": None} if path.suffix == ".svg" else {"Software": None})


def show_strips(strips: dict[str, np.ndarray], *, columns: int, height: float = 0.75) -> Figure:
    """Rows of frames, a row a title: title -> uint8 (columns, size, size, 3)."""
    size = next(iter(strips.values())).shape[1]
    figure, axes = pyplot.subplots(len(strips), 1, figsize=(columns * height + 1.6, len(strips) * height))
    for axis, (title, frames) in zip(np.atleast_1d(axes), strips.items(), strict=True):
        axis.imshow(np.concatenate(list(frames), axis=1))
        axis.set_ylabel(title, rotation=0, ha="right", va="center", fontsize=8)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
        for column in range(1, columns):
            axis.axvline(column * size - 0.5, color="white", linewidth=1)
    return figure


def show_classes(frames: dict[str, np.ndarray], *, columns: int = 4) -> Figure:
    """Figure 1 of study A: one frame of each class; class -> uint8 (size, size, 3)."""
    rows = -(-len(frames) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(columns * 2.0, rows * 1.65), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, (name, frame) in zip(axes.flat, frames.items(), strict=False):
        axis.imshow(frame, aspect=2 / 3)  # frames are squares made of 3:2 pictures
        axis.set_title(name, fontsize=9, loc="center")
    return figure


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


def plot_published_and_reproduced(table: pd.DataFrame) -> Figure:
    """A bar an architecture with its 95 % interval, and a mark where the paper's number is.

    Args:
        table: with architecture, published (may be empty), reproduced, low and high; shares of 1.
    """
    figure, axis = pyplot.subplots(figsize=(7.5, 0.55 * len(table) + 1))
    places = np.arange(len(table))
    errors = np.abs(table[["low", "high"]].to_numpy().T - table["reproduced"].to_numpy())
    axis.barh(places, table["reproduced"], xerr=errors, height=0.6, color="C0", ecolor="black", capsize=3,
              label="reproduced, 95 % interval")
    axis.plot(table["published"], places, "D", color="C1", markeredgecolor="black", label="published")
    axis.set_yticks(places, table["architecture"])
    axis.invert_yaxis()
    axis.set_xlim(0, 1)
    axis.set_xlabel("clip top-1")
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return figure


def plot_class_scores(scores: pd.DataFrame) -> Figure:
    """Precision and recall of each class as grouped bars; see `score_classes`."""
    figure, axis = pyplot.subplots(figsize=(7.5, 3.2))
    long = scores.melt("class", ["precision", "recall"], var_name="measure", value_name="share")
    seaborn.barplot(long, x="class", y="share", hue="measure", errorbar=None, ax=axis, palette=["C0", "C4"])
    axis.set_ylim(0, 1)
    axis.set_xlabel("")
    axis.tick_params(axis="x", rotation=45)
    pyplot.setp(axis.get_xticklabels(), ha="right", rotation_mode="anchor")
    axis.legend(title=None, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    return figure
