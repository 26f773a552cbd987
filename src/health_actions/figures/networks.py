"""Charts of study B: eight networks from two starts, what they cost, how they are built, how the best one behaves."""

import textwrap

import numpy as np
import pandas as pd
from matplotlib import pyplot
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from health_actions.figures.style import BARS, MARKS, draw_groups, span_interval


def plot_behaviour(table: pd.DataFrame) -> Figure:
    """Behaviour tests: the share of clips that behave as expected, with its 95 % interval, in groups by kind.

    Args:
        table: of `behaviour.check_behaviour`; a test without clips is named, with a dash instead of a mark.
    """
    kinds = table.groupby("kind", sort=False)
    counts = kinds.size()
    figure, axes = pyplot.subplots(len(counts), 1, figsize=(7.5, 0.34 * len(table) + 0.6 * len(counts) + 0.3),
                                   sharex=True, squeeze=False, height_ratios=list(counts))
    for number, (axis, (kind, part)) in enumerate(zip(axes[:, 0], kinds, strict=True)):
        for place, row in enumerate(part.itertuples()):
            if row.clips:
                axis.plot([row.low, row.high], [place, place], color=f"C{number}")
                axis.plot(row.rate, place, "o", color=f"C{number}", clip_on=False)
            else:
                axis.text(0.01, place, "- not tested", va="center", fontsize=8)
        axis.set_yticks(range(len(part)), [f"{row.test} ({row.clips})" for row in part.itertuples()])
        axis.set(xlim=(0, 1), ylim=(len(part) - 0.5, -0.5), title=kind)
        axis.grid(axis="x", alpha=0.3)
    axes[-1, 0].set_xlabel("share of the clips that behave as expected")
    return figure


def plot_starts(starts: pd.DataFrame) -> Figure:
    """Figure 16 of study B: clip top-1 from scratch and from pretrained weights, with 95 % intervals.

    Args:
        starts: of `evaluation.compare_starts`; a start that was not trained has no bar.
    """
    models = list(starts["model"].drop_duplicates())
    names = [(start, title) for start, title in (("scratch", "from scratch"), ("pretrained", "pretrained"))
             if start in set(starts["start"])]
    figure, axis = pyplot.subplots(figsize=(7.5, 0.5 * len(models) + 1))
    parts = {title: starts[starts["start"] == start].set_index("model").reindex(models) for start, title in names}
    styles = {"from scratch": BARS[1], "pretrained": BARS[0]}
    draw_groups(axis, models, {title: (part["clip_top1"], part["low"], part["high"]) for title, part in parts.items()},
                 styles=styles)
    axis.set_xlabel("clip top-1, with 95 % interval")
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return figure


def plot_top_k(table: pd.DataFrame) -> Figure:
    """Figure 17 of study B: top-1 and top-2 of each model, published beside reproduced with 95 % intervals.

    Args:
        table: of `evaluation.compare_top_k`.
    """
    figure, axes = pyplot.subplots(1, 2, figsize=(7.5, 0.5 * len(table) + 1.2), sharey=True)
    intervals = {"top1": ("low", "high"), "top2": ("clip_top2_low", "clip_top2_high")}
    for axis, (name, (low, high)) in zip(axes, intervals.items(), strict=True):
        groups = {"reproduced": (table[f"clip_{name}"], table[low], table[high])}
        if table[f"published_{name}"].notna().any():
            groups = {"published": (table[f"published_{name}"], None, None)} | groups
        draw_groups(axis, [f"{row.model}{' (scratch)' * (row.start == 'scratch')}" for row in table.itertuples()],
                     groups, styles={"published": BARS[2], "reproduced": BARS[0]})
        axis.set_xlabel(f"top-{name[-1]} (reproduced: of clips)")
    handles, labels = axes[0].get_legend_handles_labels()
    axes[0].legend(handles, labels, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return figure


def plot_action_scores(table: pd.DataFrame) -> Figure:
    """Figures 18 to 20 of study B: precision, recall and F1 of each action, published above reproduced; reproduced
    precision and recall with their 95 % intervals.

    Args:
        table: of `evaluation.compare_classes`; without published numbers the upper panel is left out.
    """
    measures = ("precision", "recall", "f1")
    panels = [("published", "published_"), ("reproduced, clip-level", "")]
    if table[[f"published_{measure}" for measure in measures]].isna().all(axis=None):
        panels = panels[1:]
    figure, axes = pyplot.subplots(len(panels), 1, figsize=(7.5, 2.1 * len(panels) + 0.8), sharex=True, squeeze=False)
    places = np.arange(len(table))
    for axis, (title, prefix) in zip(axes[:, 0], panels, strict=True):
        for number, measure in enumerate(measures):
            colour, hatch = BARS[number]
            errors = None if prefix or measure == "f1" else span_interval(table, measure)
            axis.bar(places + (number - 1) * 0.27, table[f"{prefix}{measure}"], 0.27, color=colour, hatch=hatch,
                     edgecolor="white", yerr=errors, ecolor="black", capsize=2, error_kw={"elinewidth": 1},
                     label=measure.replace("f1", "F1"))
        axis.set(ylim=(0, 1), title=title)
        axis.grid(axis="y", alpha=0.3)
        axis.set_axisbelow(True)
    axis.set_xticks(places, [f"{row.action} ({row.clips})" for row in table.itertuples()], rotation=35, ha="right",
                    rotation_mode="anchor")
    axis.set_xlabel("action (reproduced test clips)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=3)
    return figure


def plot_validation_curves(histories: dict[tuple[str, str], pd.DataFrame], *, chance: float) -> Figure:
    """Validation clip top-1 by epoch, a panel a model; the line is the mean of the folds, the band all of them.

    Args:
        histories: (model, start) -> its history.csv.
        chance: what guessing gives; dotted.
    """
    models = list(dict.fromkeys(model for model, _ in histories))
    columns = min(4, len(models))
    rows = -(-len(models) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(max(3.5, 1.9 * columns), 1.8 * rows + 0.5), sharey=True,
                                   squeeze=False)
    styles = {"scratch": ("--", "C4"), "pretrained": ("-", "C0")}
    lines = dict.fromkeys(start for start in styles if start in {start for _, start in histories})
    for axis, model in zip(axes.flat, models, strict=False):
        for start, (style, colour) in styles.items():
            if (model, start) in histories:
                epochs = histories[model, start].groupby("epoch")["validation_clip_top1"]
                middle = epochs.mean()
                marker = "o" if len(middle) == 1 else None
                lines[start] = axis.plot(middle.index, middle, style, color=colour, marker=marker)[0]
                axis.fill_between(middle.index, epochs.min(), epochs.max(), color=colour, alpha=0.15, linewidth=0)
        lines["guessing"] = axis.axhline(chance, color="black", linewidth=0.8, linestyle=":")
        axis.set(ylim=(0, 1), title=model, xlabel="epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
    for axis in axes.flat[len(models):]:
        axis.axis("off")
    for axis in axes[:, 0]:
        axis.set_ylabel("clip top-1")
    figure.legend(lines.values(), lines.keys(), loc="outside upper right", ncols=3)
    return figure


def plot_accuracy_costs(table: pd.DataFrame) -> Figure:
    """Top-1 against what it costs, a mark a model: published and reproduced against million multiply-adds of a clip as
    that run saw it, published against published clips per second.

    Args:
        table: model, published_top1, clip_top1, published_multiply_adds and multiply_adds (millions), clips_per_second.
    """
    panels = [("published", "published_multiply_adds", "published_top1", "million multiply-adds"),
              ("reproduced, clip-level", "multiply_adds", "clip_top1", "million multiply-adds"),
              ("published speed", "clips_per_second", "published_top1", "clips per second")]
    panels = [panel for panel in panels if table[list(panel[1:3])].notna().all(axis=1).any()]
    figure, axes = pyplot.subplots(1, max(1, len(panels)), figsize=(7.5, 3.6), sharey=True, squeeze=False)
    marks = {}
    for axis, (title, cost, accuracy, label) in zip(axes[0], panels, strict=False):
        for number, row in enumerate(table.itertuples()):
            mark = axis.plot(getattr(row, cost), getattr(row, accuracy), MARKS[number % len(MARKS)], color=f"C{number}",
                             markerfacecolor="none", markeredgewidth=1.8, markersize=8, linestyle="none")[0]
            marks.setdefault(row.model, mark)
        axis.set(xscale="log", ylim=(0, 1), xlabel=label, title=title)
        values = table[[column for _, column, _, other in panels if other == label]]
        lowest, highest = np.log10([values.min(axis=None), values.max(axis=None)])
        axis.set_xlim(10 ** np.floor(lowest - 0.05), 10 ** np.ceil(highest + 0.05))  # whole decades
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("top-1")
    figure.legend(marks.values(), marks.keys(), loc="outside lower center", ncols=4)
    return figure


def draw_structure(table: pd.DataFrame, title: str) -> Figure:
    """Figures 7 to 14 of study B: the parts of one network from left to right, rows of up to twelve.

    A block is as high as the root of the height of the maps that come out of it (a bar where there are no maps), and
    darker the more channels they have. Above it name, kind and how often; below it what comes out and what it costs.

    Args:
        table: of `models.structure.describe_structure`.
    """
    lines = -(-len(table) // 12)
    columns = max(6, -(-len(table) // lines))
    wide = 160 // columns  # letters
    heights, channels = table["height"].astype(float), table["channels"].astype(float)
    sides = (heights / heights.max()).fillna(0).clip(lower=0.015) ** 0.5
    shades = (0.1 + 0.75 * np.log2(channels) / max(1.0, np.log2(channels.max()))).fillna(0.1)
    figure, axes = pyplot.subplots(lines, 1, figsize=(10, 3.4 * lines), squeeze=False)
    for number, row in enumerate(table.itertuples()):
        axis, middle = axes[number // columns, 0], number % columns + 0.5
        side, shade = sides.iloc[number], shades.iloc[number]
        axis.add_patch(pyplot.Rectangle((middle - 0.28, -side / 2), 0.56, side, edgecolor="black",
                                        facecolor=pyplot.get_cmap("Greys")(shade)))
        if number % columns:
            axis.annotate("", (middle - 0.3, 0), (middle - 0.7, 0), arrowprops={"arrowstyle": "-|>", "color": "black"})
        kind = f"{row.repeats} \u00d7 {row.kind}" if row.repeats > 1 else row.kind
        kind = kind.replace(" x ", "\u00a0\u00d7\u00a0")  # lines do not end within the size of a kernel
        above = [line for text in (row.part, kind) for line in textwrap.wrap(text, wide, break_long_words=False)]
        axis.text(middle, 0.58, "\n".join(above), ha="center", va="bottom", fontsize=7.5)
        size = " \u00d7 ".join(str(value) for value in (row.frames, row.height, row.width) if pd.notna(value))
        below = [row.channels if pd.notna(row.channels) else "\u2013", size or "\u2013", _shorten(row.parameters),
                 _shorten(1e6 * row.multiply_adds)]
        for line, value in enumerate(below):
            axis.text(middle, -0.66 - 0.17 * line, value, ha="center", va="center", fontsize=7.5)
    for axis in axes[:, 0]:
        axis.set(xlim=(-0.9 * columns / 11, columns), ylim=(-1.25, 1.1))
        axis.axis("off")
        for line, label in enumerate(("channels", "frames, pixels", "parameters", "multiply-adds")):
            axis.text(0, -0.66 - 0.17 * line, label, ha="right", va="center", fontsize=7.5, style="italic")
    figure.suptitle(title, x=0, ha="left", fontsize=11)
    return figure


def _shorten(value: float) -> str:
    """Three digits and k (thousand), M (million) or G (thousand million)."""
    for unit, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= factor:
            return f"{value / factor:.{max(0, 2 - int(np.log10(value / factor)))}f} {unit}"
    return f"{value:.0f}" if value else "\u2013"


def plot_costs(table: pd.DataFrame) -> Figure:
    """In place of Figure 6 of study B: what each model costs, counted here (circles) and published (diamonds).

    Args:
        table: model, parameters, published_parameters, multiply_adds and published_multiply_adds (millions of a clip);
            published ones may be missing.
    """
    figure, axes = pyplot.subplots(1, 2, figsize=(7.5, 0.4 * len(table) + 1.2), sharey=True)
    places = np.arange(len(table))
    panels = {"parameters": (1, "parameters"), "multiply_adds": (1e6, "multiply-adds for one clip")}
    for axis, (column, (factor, label)) in zip(axes, panels.items(), strict=True):
        published = table[f"published_{column}"].astype(float) * factor
        counted = table[column].astype(float) * factor
        axis.plot(published, places, "D", color="C1", markerfacecolor="none", markeredgewidth=1.6, markersize=11,
                  linestyle="none", label="published")
        axis.plot(counted, places, "o", color="C0", markersize=5, linestyle="none", label="counted here")
        values = np.log10(pd.concat([published, counted]).dropna())
        axis.set(xscale="log", xlabel=label)
        axis.set_xlim(10 ** np.floor(values.min() - 0.05), 10 ** np.ceil(values.max() + 0.05))  # whole decades
        axis.grid(alpha=0.3)
        axis.set_axisbelow(True)
    axes[0].set_yticks(places, table["model"])
    axes[0].set_ylim(len(table) - 0.5, -0.5)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return figure
