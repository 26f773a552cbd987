"""What a video shows over time and where in it a model looks; drawn without pyplot, so threads may draw at once."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from scipy import ndimage

from health_actions.figures.pictures import take_squares


def write_time(seconds: float, _=None) -> str:
    """Minutes and seconds: 74.8 -> "1:15"."""
    return f"{round(seconds) // 60}:{round(seconds) % 60:02d}"


def plot_timeline(timeline: pd.DataFrame, events: pd.DataFrame, classes: list[str], alerts: list[str] = ()) -> Figure:
    """Each action's probability over time, with a bar for each event; alerts in another colour.

    Args:
        timeline: of `tabulate`, one row at least.
        events: of `find_events`.
        classes: a row each.
        alerts: those of the classes that must not be missed.
    """
    figure = Figure(figsize=(7.5, 0.27 * len(classes) + 1.2))
    axis = figure.add_subplot()
    middles = timeline[["start", "end"]].mean(axis=1).to_numpy()
    edges = np.concatenate([[timeline["start"].min()], (middles[1:] + middles[:-1]) / 2, [timeline["end"].max()]])
    rows = np.arange(len(classes) + 1) - 0.5
    shades = axis.pcolormesh(edges, rows, timeline[classes].T, cmap="Blues", vmin=0, vmax=1, rasterized=True)
    for event in events.itertuples():
        colour = "C1" if event.action in alerts else "black"
        axis.add_patch(Rectangle((event.start, classes.index(event.action) + 0.28), event.end - event.start, 0.2,
                                 facecolor=colour, edgecolor=colour, linewidth=1))
    axis.set(xlim=(0, edges[-1]), ylim=(len(classes) - 0.5, -0.5), xlabel="minutes:seconds of the video")
    axis.set_yticks(range(len(classes)), [name.replace("_", " ") for name in classes])
    for label, name in zip(axis.get_yticklabels(), classes, strict=True):
        label.set(color="C1", weight="bold") if name in alerts else None
    axis.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axis.xaxis.set_major_formatter(write_time)
    figure.colorbar(shades, ax=axis, label="probability", pad=0.01)
    return figure


def show_attention(frame: np.ndarray, saliency: np.ndarray) -> Figure:
    """The square in the middle of a frame in grey, bright where a model's answer depends on it.

    Args:
        frame: uint8 (height, width, 3).
        saliency: (height, width) of the square that the model saw, 0 or more; smoothed for the eye here.
    """
    strength = ndimage.gaussian_filter(saliency, len(saliency) / 40)
    strength = np.clip(strength / np.quantile(strength, 0.995).clip(1e-12), 0, 1)
    figure = Figure(figsize=(3.6, 3.6))
    axis = figure.add_subplot()
    axis.axis("off")
    whole = (0, 1, 0, 1)
    axis.imshow(take_squares(frame[None], 1)[0].mean(-1) * 0.6, cmap="gray", vmin=0, vmax=255, extent=whole,
                interpolation="antialiased")
    axis.imshow(strength, cmap="magma", alpha=strength ** 0.8, vmin=0, vmax=1, extent=whole, interpolation="bilinear")
    return figure
