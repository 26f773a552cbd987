"""Charts of what a model rejects."""

import numpy as np
import pandas as pd
from matplotlib import pyplot
from matplotlib.figure import Figure


def plot_reject(scores: pd.DataFrame, threshold: float) -> Figure:
    """Share of the test clips that would be rejected at each threshold, known ones and unknown ones by kind.

    Args:
        scores: kind ("known" or what the unknown clips are) and score, 0-1.
        threshold: the one in use.
    """
    figure, axis = pyplot.subplots(figsize=(7.5, 3.2))
    steps = np.linspace(0, 1, 201)
    for (kind, part), style in zip(scores.groupby("kind", sort=False), ("-", "--", ":", "-."), strict=False):
        shares = (part["score"].to_numpy()[:, None] < steps).mean(0)
        axis.plot(steps, shares, style, label=f"{kind} ({len(part)} clips)")
    axis.axvline(threshold, color="black", linewidth=0.8)
    axis.text(threshold, 1.02, f"in use: {threshold:.2f}", ha="center", fontsize=8)
    axis.set(xlim=(0, 1), ylim=(0, 1), xlabel="threshold: smallest probability that is believed",
             ylabel="share of clips rejected")
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
