"""What a video shows over time; drawn without pyplot, so that threads may draw at once."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from health_actions.analysis.recognition import UNSEEN


def write_time(seconds: float, _=None) -> str:
    """Minutes and seconds: 74.8 -> "1:15"."""
    return f"{round(seconds) // 60}:{round(seconds) % 60:02d}"


def plot_timeline(timeline: pd.DataFrame, events: pd.DataFrame, classes: list[str], alerts: list[str] = ()) -> Figure:
    """Each action's probability over time, with a bar for each event; alerts in another colour, grey where `UNSEEN`.

    Args:
        timeline, events: of `build_timeline` (one row at least) and `find_events`.
        classes, alerts: a row each; those of them that must not be missed.
    """
    figure = Figure(figsize=(7.5, 0.27 * len(classes) + 1.2))
    axis = figure.add_subplot(facecolor="0.8")
    edges = [*timeline["start"], timeline["end"].iloc[-1]]
    shown = timeline[classes].mask(timeline["action"].isin(UNSEEN.values()))
    shades = axis.pcolormesh(edges, np.arange(len(classes) + 1) - 0.5, shown.T, cmap="Blues", vmin=0, vmax=1,
                             rasterized=True)
    for number, name in enumerate(classes):
        own = events[events["action"] == name]
        axis.broken_barh(np.column_stack([own["start"], own["end"] - own["start"]]), (number + 0.28, 0.2),
                         color="C1" if name in alerts else "black", linewidth=0)
    axis.set(xlim=(0, edges[-1]), ylim=(len(classes) - 0.5, -0.5), xlabel="minutes:seconds of the video",
             yticks=range(len(classes)), yticklabels=[name.replace("_", " ") for name in classes])
    for label in axis.get_yticklabels():
        if label.get_text().replace(" ", "_") in alerts:
            label.set(color="C1", weight="bold")
    axis.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axis.xaxis.set_major_formatter(write_time)
    figure.colorbar(shades, ax=axis, label="probability", pad=0.01)
    return figure
