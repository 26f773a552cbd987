"""Charts of both studies: counts, learning curves, confusion matrices, scores with their intervals."""

import pandas as pd
import seaborn
from matplotlib import pyplot
from matplotlib.figure import Figure

from health_actions.figures.style import plot_intervals


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


def plot_facets(table: pd.DataFrame, **options) -> seaborn.FacetGrid:
    """`seaborn.relplot`, each panel with a scale that fits it."""
    # seaborn lays out its own figures. Not pyplot.rc_context: it would switch off the display of later figures.
    layout = "figure.constrained_layout.use"
    before, pyplot.rcParams[layout] = pyplot.rcParams[layout], False
    try:
        return seaborn.relplot(table, facet_kws={"sharex": False, "sharey": False}, **options)
    finally:
        pyplot.rcParams[layout] = before


def plot_curves(table: pd.DataFrame, label: str, **facets) -> seaborn.FacetGrid:
    """`value` (0-1, or losses) by `epoch` in panels: a line is the mean of the folds, its band all of them."""
    grid = plot_facets(table.reset_index(drop=True), x="epoch", y="value", kind="line", errorbar=("pi", 100),
                       markers=True, markersize=4, err_kws={"linewidth": 0}, **facets)
    for axis in grid.axes.flat:
        axis.set_ylim(0, None if "loss" in axis.get_title("left") else 1)
        axis.xaxis.get_major_locator().set_params(integer=True)
    return grid.set_axis_labels("epoch", label)


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
