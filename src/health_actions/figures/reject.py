"""Charts of what a model rejects."""

import numpy as np
import pandas as pd
from matplotlib import pyplot
from matplotlib.figure import Figure


def plot_reject(scores: pd.DataFrame, largest: float) -> Figure:
    """Share of the test clips that are believed at each threshold, known ones and unknown ones by kind.

    Args:
        scores: kind ("known" or what the unknown clips are) and distance, 0 or more.
        largest: the threshold in use.
    """
    figure, axis = pyplot.subplots(figsize=(7.5, 3.2))
    above = scores.loc[scores["distance"] > 0, "distance"]
    steps = np.geomspace(above.min() / 1.5, above.max() * 1.5, 300) if len(above) else np.array([0.1, 10])
    for (kind, part), style in zip(scores.groupby("kind", sort=False), ("-", "--", ":", "-."), strict=False):
        shares = (part["distance"].to_numpy()[:, None] <= steps).mean(0)
        axis.plot(steps, shares, style, label=f"{kind} ({len(part)} clips)")
    place = np.clip(largest, steps[0], steps[-1])
    axis.axvline(place, color="black", linewidth=0.8)
    axis.text(place, 1.02, "in use", ha="center", fontsize=8)
    axis.set(xscale="log", xlim=(steps[0], steps[-1]), ylim=(0, 1), ylabel="share of clips believed",
             xlabel="threshold: largest distance to the training clips that is believed")
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
