"""What the charts share: how they are saved, and values with their intervals."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import pyplot
from matplotlib.figure import Figure

from health_actions.paths import atomic_write

SERIES = (("C0", "", "o"), ("C4", "///", "X"), ("C5", "...", "s"), ("C3", "xxx", "^"))  # colour, hatch, mark
POINTS = ("published", "mean")  # series drawn as diamonds


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure, SVG for charts and PNG or JPEG for pictures; the same bytes at every run."""
    metadata = {".svg": {"Date": None}, ".png": {"Software": None}}
    with atomic_write(path) as temporary:
        figure.savefig(temporary, metadata=metadata.get(path.suffix))


def plot_intervals(table: pd.DataFrame, row: str, panels: dict[str, dict[str, str]], *, group: str | None = None,
                   bars: bool = True, chance: float | None = None, axes=None) -> Figure:
    """Horizontal values with their 95 % intervals: a row a label, a colour (and hatch or mark) a series.

    Args:
        table: labels in column `row`, values in the columns of `panels`, the ends of their intervals in `<column>_low`
            and `<column>_high`, or low and high. What is missing is not drawn.
        panels: label of a horizontal axis -> name of a series -> column. Series of `POINTS` are diamonds.
        group: column whose values are the series instead (each with at most one row of the table a label).
        bars: from 0, on axes from 0 to 1; else marks, on axes that fit them.
        chance: what guessing gives; a dotted line.
        axes: to draw on, one a panel; without them a new figure with a legend is made.
    """
    rows = list(dict.fromkeys(table[row]))
    parts = {str(name): part for name, part in table.groupby(group, sort=False)} if group else {"": table}
    names = next(iter(panels.values())) if group is None else parts if table[row].duplicated().any() else [""]
    several = len(set(names) - set(POINTS))  # beside each other in a row
    new = axes is None
    if new:
        size = 7.5, (0.22 + 0.16 * several) * len(rows) + 1
        axes = pyplot.subplots(1, len(panels), figsize=size, sharey=True, squeeze=False)[1][0]
    for axis, (label, columns) in zip(axes, panels.items(), strict=True):
        series = [(key or name, part, column) for name, column in columns.items() for key, part in parts.items()
                  if column in part and part[column].notna().any()]
        for number, (name, part, column) in enumerate(series):
            part, (colour, hatch, mark) = part.set_index(row).reindex(rows), SERIES[number % len(SERIES)]
            values, places = part[column].to_numpy(float), np.arange(len(rows))
            if name in POINTS:
                axis.plot(values, places, "D", color="C1" if bars else "none", markeredgecolor="black", markersize=9,
                          label=name)
                continue
            low, high = (f"{column}_low", f"{column}_high") if f"{column}_low" in part else ("low", "high")
            errors = np.abs(np.nan_to_num(part[[low, high]].to_numpy(float).T - values)) if low in part else None
            places = places + (number % several - (several - 1) / 2) * 0.8 / several
            if bars:
                axis.barh(places, values, 0.8 / several, xerr=errors, color=colour, hatch=hatch, label=name,
                          edgecolor="white", capsize=2, error_kw={"elinewidth": 1})
            else:
                axis.errorbar(values, places, xerr=errors, fmt=mark, color=colour, label=name, markersize=5,
                              clip_on=False, zorder=3)
        if chance is not None:
            axis.axvline(chance, color="black", linewidth=1.2, linestyle=":", label="chance")
        axis.set(xlabel=label, xlim=(0, 1) if bars else None, ylim=(len(rows) - 0.5, -0.5), yticks=range(len(rows)),
                 yticklabels=rows)
    if new:
        axes[0].figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=4)
    return axes[0].figure


def span_decades(values: pd.DataFrame) -> dict:
    """A logarithmic axis from one whole power of ten to another, as arguments of `Axes.set`."""
    logarithms = np.log10(values.astype(float))
    lowest, highest = np.floor(logarithms.min(axis=None) - 0.05), np.ceil(logarithms.max(axis=None) + 0.05)
    return {"xscale": "log", "xlim": (10 ** lowest, 10 ** highest)}
