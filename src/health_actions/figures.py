"""The reports' charts, in one style (matplotlibrc); each function draws one figure and returns it."""

import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn
from matplotlib import pyplot
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from scipy import ndimage

from health_actions.paths import replacing


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure, SVG for charts and PNG or JPEG for pictures, the same bytes at every run."""
    metadata = {".svg": {"Date": None}, ".png": {"Software": None}}
    with replacing(path) as temporary:
        figure.savefig(temporary, metadata=metadata.get(path.suffix))


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


def plot_published_and_reproduced(table: pd.DataFrame, *, label: str = "architecture") -> Figure:
    """A bar a row with its 95 % interval, and a mark where the paper's number is.

    Args:
        table: with `label`, published (may be empty), reproduced, low and high; shares of 1.
    """
    figure, axis = pyplot.subplots(figsize=(7.5, 0.45 * len(table) + 1))
    places = np.arange(len(table))
    errors = np.abs(table[["low", "high"]].to_numpy().T - table["reproduced"].to_numpy())
    axis.barh(places, table["reproduced"], xerr=errors, height=0.6, color="C0", ecolor="black", capsize=3,
              label="reproduced, 95 % interval")
    if "published" in table:
        axis.plot(table["published"], places, "D", color="C1", markeredgecolor="black", label="published")
    axis.set_yticks(places, table[label])
    axis.invert_yaxis()
    axis.set_xlim(0, 1)
    axis.set_xlabel("clip top-1")
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return figure


def plot_grid(table: pd.DataFrame) -> Figure:
    """Table 2 of study A as heat maps: batch_size and learning_rate against published and reproduced accuracy.

    Args:
        table: a row a pair of values, with published and validation (shares of 1; what the paper chose by).
    """
    figure, axes = pyplot.subplots(1, 2, figsize=(7.5, 2.8), sharey=True)
    for axis, (column, title) in zip(axes, [("published", "published"), ("validation", "reproduced")], strict=True):
        grid = table.pivot(index="batch_size", columns="learning_rate", values=column).astype(float)
        seaborn.heatmap(grid, annot=True, fmt=".2f", cmap="Blues", vmin=0, vmax=1, linewidths=0.5, cbar=False, ax=axis)
        axis.set(title=f"{title}: validation clip top-1", xlabel="learning rate", ylabel="batch size")
    return figure


def plot_protocols(table: pd.DataFrame) -> Figure:
    """Clip top-1 of each seed under each protocol, with its 95 % interval; bars from zero are their means.

    Args:
        table: protocol, seed, reproduced, low, high; shares of 1.
    """
    figure, axis = pyplot.subplots(figsize=(7.5, 3))
    for place, (_, part) in enumerate(table.groupby("protocol", sort=False)):
        axis.bar(place, part["reproduced"].mean(), width=0.7, color="C5", alpha=0.6)
        places = place + np.linspace(-0.2, 0.2, len(part)) * (len(part) > 1)
        errors = np.abs(part[["low", "high"]].to_numpy().T - part["reproduced"].to_numpy())
        axis.errorbar(places, part["reproduced"], yerr=errors, fmt="o", color="C0", capsize=3)
    protocols = list(table["protocol"].drop_duplicates())
    axis.set_xticks(range(len(protocols)), protocols)
    axis.set_ylim(0, 1)
    axis.set_ylabel("clip top-1")
    return figure


def plot_switches(table: pd.DataFrame) -> Figure:
    """What each switch changes: difference to the right way in points, as a mark, with the span of the repeats.

    Args:
        table: switch, difference, lowest and highest (shares of 1).
    """
    figure, axis = pyplot.subplots(figsize=(7.5, 0.4 * len(table) + 0.8))
    places = np.arange(len(table))
    axis.hlines(places, 100 * table["lowest"], 100 * table["highest"], color="C0")
    axis.plot(100 * table["difference"], places, "o", color="C0")
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_yticks(places, table["switch"])
    axis.invert_yaxis()
    axis.set_xlabel("difference in clip top-1, points")
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


def show_error(frames: np.ndarray, saliency: np.ndarray, motion: np.ndarray, like: np.ndarray | None, *,
               titles: dict[str, str]) -> Figure:
    """Figures 7 to 9 of study A: a misclassified clip, what the model looked at, and a clip of the class predicted.

    Args:
        frames: uint8 (columns, size, size, 3).
        saliency: (columns, height, width), 0 or more; smoothed for the eye here, and bright where it is strongest in
            its frame, and a number says which share of the saliency of all columns the frame has.
        motion: bool (columns, height, width); outlined.
        like: as `frames`; None leaves the row empty.
        titles: of the rows clip, saliency and like.
    """
    columns, height = saliency.shape[:2]
    strength = ndimage.gaussian_filter(saliency, (0, height / 40, height / 40))
    strength = np.clip(strength / np.quantile(strength, 0.995, axis=(1, 2), keepdims=True).clip(1e-12), 0, 1)
    grey = np.repeat(frames.mean(-1, keepdims=True) * 0.6, 3, axis=-1).astype(np.uint8)
    figure, axes = pyplot.subplots(3, 1, figsize=(columns * 1.2, 3.4))
    place = {"extent": (0, 1.5 * columns, 0, 1), "aspect": "equal"}  # frames are squares made of 3:2 pictures
    for axis, (row, pictures) in zip(axes, {"clip": frames, "saliency": grey, "like": like}.items(), strict=True):
        axis.set_title(titles[row], fontsize=9)
        axis.axis("off")
        if pictures is not None:
            axis.imshow(np.concatenate(list(pictures), axis=1), **place, interpolation="antialiased")
            axis.vlines(1.5 * np.arange(1, columns), 0, 1, color="white", linewidth=2)
    joined = np.concatenate(list(strength), axis=1)
    axes[1].imshow(joined, cmap="magma", alpha=joined ** 0.8, vmin=0, vmax=1, **place, interpolation="bilinear")
    axes[1].contour(np.concatenate(list(motion), axis=1), levels=[0.5], colors="#56B4E9", linewidths=0.8,
                    extent=(0, 1.5 * columns, 1, 0))
    for column, share in enumerate(saliency.sum((1, 2)) / max(saliency.sum(), 1e-12)):
        axes[1].text(1.5 * column + 0.05, 0.05, f"{share:.0%}", color="white", fontsize=8,
                     bbox={"facecolor": "black", "edgecolor": "none", "pad": 1})
    return figure


def plot_shares(table: pd.DataFrame, summary: pd.DataFrame) -> Figure:
    """Saliency in the moving region: each clip's share over its area, and the ratio of both with its 95 % interval.

    Args:
        table: of `saliency.explain_folds`.
        summary: of `saliency.compare_shares`.
    """
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(7.5, 3.2), width_ratios=(1, 1.1))
    most = max(0.1, table[["share", "area"]].max().max() * 1.08) if len(table) else 1
    left.plot([0, most], [0, most], color="black", linewidth=0.8, linestyle=":")
    styles = {"right": ("o", "C0"), "wrong": ("X", "C1")}
    for clips, (marker, colour) in styles.items():
        part = table[table["right"] == (clips == "right")]
        left.scatter(part["area"], part["share"], 22, colour, marker=marker, linewidth=0, alpha=0.8, label=clips)
    left.set(xlim=(0, most), ylim=(0, most), xlabel="share of the area", ylabel="share of the saliency")
    left.legend(title="the clip's class is", loc="upper left", fontsize=8, title_fontsize=8)
    places = np.arange(len(summary))
    for place, row in zip(places, summary.itertuples(), strict=True):
        marker, colour = styles[row.clips]
        right.plot([row.low, row.high], [place, place], color=colour)
        right.plot(row.ratio, place, marker, color=colour, markersize=8,
                   markerfacecolor=colour if row.model == "trained" else "white")
    right.axvline(1, color="black", linewidth=0.8, linestyle=":")
    right.set_yticks(places, [f"{row.model}, {row.clips} ({row.count})" for row in summary.itertuples()])
    right.invert_yaxis()
    right.set_xlabel("share of the saliency / share of the area")
    return figure


def show_snapshots(rows: dict[str, list[np.ndarray]], *, captions: dict[str, list[str]] | None = None,
                   boxes: dict[str, list[list[tuple]]] | None = None, height: float = 0.8) -> Figure:
    """Figures 2 and 3 of study B: rows of pictures of one height, whatever their shape.

    Args:
        rows: title -> pictures, uint8 (height, width, 3) each.
        captions: title -> a text under each of the row's pictures; rows may be missing.
        boxes: title -> the boxes to outline in each picture, (left, top, right, bottom) in pixels; rows may be missing.
        height: of a picture, inches.

    Raises:
        ValueError: when a row's captions or boxes are not as many as its pictures.
    """
    captions, boxes, gap = captions or {}, boxes or {}, 0.06
    for name, more in [(name, more) for texts in (captions, boxes) for name, more in texts.items()]:
        if len(more) != len(rows.get(name, [])):
            count = len(rows.get(name, []))
            raise ValueError(f"row {name!r} has {count} pictures, found captions or boxes of {len(more)}")
    widths = {title: [picture.shape[1] / picture.shape[0] for picture in pictures] for title, pictures in rows.items()}
    widest = max(sum(row) + gap * (len(row) - 1) for row in widths.values())
    figsize = widest * height + 1.6, len(rows) * height * 1.3
    figure, axes = pyplot.subplots(len(rows), 1, figsize=figsize, squeeze=False)
    for axis, (title, pictures) in zip(axes[:, 0], rows.items(), strict=True):
        left = 0.0
        for number, (picture, width) in enumerate(zip(pictures, widths[title], strict=True)):
            axis.imshow(picture, extent=(left, left + width, 0, 1), interpolation="antialiased")
            scale = 1 / picture.shape[0]
            for place, box in enumerate(boxes.get(title, [[]] * len(pictures))[number]):
                axis.add_patch(pyplot.Rectangle(
                    (left + box[0] * scale, 1 - box[3] * scale), (box[2] - box[0]) * scale, (box[3] - box[1]) * scale,
                    fill=False, edgecolor=f"C{place + 1}", linewidth=1.2))
            if title in captions:
                axis.text(left + width / 2, -0.05, captions[title][number], ha="center", va="top", fontsize=7)
            left += width + gap
        axis.set(xlim=(0, widest), ylim=(-0.25, 1), aspect="equal", xticks=[], yticks=[])
        axis.set_ylabel(title, rotation=0, ha="right", va="center", fontsize=8)
        axis.spines[:].set_visible(False)
    return figure


def take_squares(frames, columns: int) -> np.ndarray:
    """Evenly spread frames of a clip, the square in the middle: uint8 (columns, height, height, 3).

    Args:
        frames: uint8 (length, height, width, 3), an array or a `ClipArchive`; the width is the height at least.
        columns: frames to take.
    """
    chosen = frames[np.linspace(0, len(frames) - 1, columns).round().astype(int)]
    height, width = chosen.shape[1:3]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return chosen[:, top:top + side, left:left + side]


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


# Fill and hatch of the bars of a group: told apart in black and white, too.
BARS = (("C0", ""), ("C4", "///"), ("C5", "..."), ("C3", "xxx"))
MARKS = "os^vDPX*<>"


def _draw_groups(axis, labels: list[str], groups: dict[str, tuple], *, styles: dict | None = None) -> None:
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
    _draw_groups(axis, models, {title: (part["clip_top1"], part["low"], part["high"]) for title, part in parts.items()},
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
        _draw_groups(axis, [f"{row.model}{' (scratch)' * (row.start == 'scratch')}" for row in table.itertuples()],
                     groups, styles={"published": BARS[2], "reproduced": BARS[0]})
        axis.set_xlabel(f"top-{name[-1]} (reproduced: of clips)")
    handles, labels = axes[0].get_legend_handles_labels()
    axes[0].legend(handles, labels, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return figure


def plot_action_scores(table: pd.DataFrame) -> Figure:
    """Figures 18 to 20 of study B: precision, recall and F1 of each action, published above reproduced.

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
            axis.bar(places + (number - 1) * 0.27, table[f"{prefix}{measure}"], 0.27, color=colour, hatch=hatch,
                     edgecolor="white", label=measure.replace("f1", "F1"))
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
