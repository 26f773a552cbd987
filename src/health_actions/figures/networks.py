"""How a network is built, as a picture."""

import textwrap

import numpy as np
import pandas as pd
from matplotlib import pyplot
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter


def draw_structure(table: pd.DataFrame, title: str) -> Figure:
    """The parts of one network from left to right; see `structure.describe_structure`.

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
        kind = row.kind.replace(" x ", "\u00a0\u00d7\u00a0")  # no line ends within the size of a kernel
        first, *others = (f"{row.repeats} \u00d7 {kind}" if row.repeats > 1 else kind).split(" + ")
        above = [textwrap.fill(text, 160 // columns, break_long_words=False)
                 for text in dict.fromkeys((row.part, first, *(f"+ {other}" for other in others)))]
        axis.text(middle, 0.58, "\n".join(above), ha="center", va="bottom", fontsize=7.5)
        size = " \u00d7 ".join(f"{value:.0f}" for value in (row.frames, row.height, row.width) if pd.notna(value))
        costs = [EngFormatter()(float(f"{value:.3g}")) if value else "" for value in (
            row.parameters, 1e6 * row.multiply_adds)]
        facts = ["" if pd.isna(row.channels) else str(row.channels), size, *costs]
        axis.text(middle, -0.58, "\n".join(fact or "\u2013" for fact in facts), ha="center", **below)
    figure.suptitle(title, x=0, ha="left", fontsize=11)
    return figure
