"""What the charts share: how they are written, and what tells bars and marks apart, in black and white, too."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from health_actions.paths import atomic_write

# Fill and hatch of the bars of a group: told apart in black and white, too.
BARS = (("C0", ""), ("C4", "///"), ("C5", "..."), ("C3", "xxx"))
MARKS = "os^vDPX*<>"


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure, SVG for charts and PNG or JPEG for pictures, the same bytes at every run."""
    metadata = {".svg": {"Date": None}, ".png": {"Software": None}}
    with atomic_write(path) as temporary:
        figure.savefig(temporary, metadata=metadata.get(path.suffix))


def span_interval(table: pd.DataFrame, measure: str) -> np.ndarray:
    """Distances from a measure to the ends of its interval, as Matplotlib's bars take them: (2, rows), 0 where none is.

    Args:
        table: with `measure`, `<measure>_low` and `<measure>_high`.
    """
    ends = table[[f"{measure}_low", f"{measure}_high"]].to_numpy(float).T
    return np.abs(np.nan_to_num(ends - table[measure].to_numpy(float)))


def draw_groups(axis, labels: list[str], groups: dict[str, tuple], *, styles: dict | None = None) -> None:
    """Horizontal bars from zero, a group a label: name -> values, and their intervals' lows and highs (or None)."""
    height, places = 0.8 / len(groups), np.arange(len(labels))
    for number, (name, (values, low, high)) in enumerate(groups.items()):
        values = np.asarray(values, float)
        colour, hatch = (styles or {}).get(name, BARS[number])
        errors = None if low is None else np.abs(np.nan_to_num(np.array([low, high], float) - values))
        axis.barh(places + (number - (len(groups) - 1) / 2) * height, values, height, xerr=errors, color=colour,
                  hatch=hatch, edgecolor="white", ecolor="black", capsize=2, error_kw={"elinewidth": 1}, label=name)
    axis.set_yticks(places, labels)
    axis.set(xlim=(0, 1), ylim=(len(labels) - 0.5, -0.5))
