"""Saliency: gradients of a model's logit with respect to pixels, and how much of them lies where something moves."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from captum.attr import Saliency
from scipy import ndimage, stats
from torch import nn

from health_actions.analysis.recognition import Recogniser
from health_actions.data.frames import open_clip
from health_actions.data.transforms import place_frames
from health_actions.models.weights import load_model
from health_actions.progress import track

# Grey values of 255, after smoothing. Between neighbouring sampled frames, half of the pixels change by less than 0.4
# (noise); the tenth that changes most, where hands are, by 7 or more in rendered clips and 24 in real ones.
MOTION_THRESHOLD = 8.0


def compute_saliency(model: nn.Module, clip: torch.Tensor, target: int) -> torch.Tensor:
    """Absolute gradient of one class's logit with respect to each pixel (Simonyan et al., 2014).

    Args:
        model: evaluated without dropout and left as it was; what it computes without a gradient (optical flow) has no
            part in the result.
        clip: (3, frames, height, width) float32 as the model takes it.
        target: number of the class.

    Returns:
        (frames, height, width) float32, 0 or more: the largest of the three colours.
    """
    was_training, pixels = model.training, clip[None].detach().float().requires_grad_()
    model.eval()
    try:
        return Saliency(model).attribute(pixels, target=target, abs=True)[0].amax(0).detach()
    finally:
        model.train(was_training)


def find_motion(frames: np.ndarray) -> np.ndarray:
    """The moving region of a clip: in these clips hands, arms and water, not the sink.

    A pixel moves when its smoothed grey value differs by more than `MOTION_THRESHOLD` from that in the previous or the
    next frame. What the whole frame changes by (a lamp, the camera's exposure) is no motion. The region is widened by
    1/32 of the height for the edges of hands, and by a frame before and after, for hands that turn about.

    uint8 (frames, height, width, 3), at least 2 frames -> bool (frames, height, width).
    """
    size = frames.shape[1]
    # Smoothed over 3 pixels at 64: half a finger's width, and noise of single pixels is divided by more than 3.
    smooth = ndimage.gaussian_filter(frames.mean(-1, dtype=np.float32), (0, *[max(1.0, size / 64)] * 2))
    changes = np.diff(smooth, axis=0)
    moved = np.abs(changes - np.median(changes, axis=(1, 2), keepdims=True)) > MOTION_THRESHOLD
    still = np.zeros_like(moved[:1])
    moved = np.concatenate([still, moved]) | np.concatenate([moved, still])
    return ndimage.maximum_filter(moved, (3, *[2 * round(size / 32) + 1] * 2))


def share_in_motion(saliency: np.ndarray, motion: np.ndarray) -> tuple[float, float]:
    """The moving region's share of a clip's saliency, and its share of the area.

    Each frame's area is weighted by its saliency: an LSTM depends most on the last frames, so that without weights the
    two shares would differ even for saliency that is uniform within each frame.

    Args:
        saliency: (frames, height, width), 0 or more.
        motion: bool (frames, height, width).

    Returns:
        Two shares of 1. The first is nan without saliency, or (the second is then 0) where nothing moves.
    """
    frames = saliency.sum((1, 2), dtype=np.float64)
    if not frames.any():
        return float("nan"), float(motion.mean())
    area = float(np.average(motion.mean((1, 2)), weights=frames))
    return float(saliency[motion].sum(dtype=np.float64) / frames.sum()) if area else float("nan"), area


def reset_weights(model: nn.Module, seed: int = 0) -> nn.Module:
    """Draw the weights of all trained layers anew, in place; frozen layers stay.

    A map that looks the same before and after shows edges of the picture, not what was learned (Adebayo et al., 2018).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in model.modules():
            trained = any(parameter.requires_grad for parameter in layer.parameters(recurse=False))
            if trained and hasattr(layer, "reset_parameters"):  # tables of positions in transformers are no layers
                layer.reset_parameters()
    return model


def draw_clips(predictions: pd.DataFrame, count: int, seed: int = 0) -> pd.DataFrame:
    """`count` rows of predictions: all misclassified ones, the others (at least half) drawn evenly from the folds."""
    is_right = predictions["class"] == predictions["predicted"]
    drawn = predictions[is_right].sample(frac=1, random_state=seed)
    turns = drawn.groupby("fold").cumcount().sort_values(kind="stable").index
    return predictions.loc[sorted([*predictions.index[~is_right], *turns[:max(count - sum(~is_right), count // 2)]])]


def explain_folds(models: Path, chosen: pd.DataFrame, *, frames_folder: Path,
                  keep: set[str] = frozenset()) -> tuple[pd.DataFrame, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Saliency of each fold's model for the class that it predicted, in the centre windows of its test clips.

    Args:
        models: folder of one architecture, with `fold_<k>/`.
        chosen: one row a clip, with clip, fold, class and predicted.

    Returns:
        One row a clip: clip, fold, class, predicted, right, share and area as of `share_in_motion`, untrained_share and
        untrained_area of the same model with weights drawn anew; and of the clips in `keep`: clip -> (saliency,
        motion), each (window, size, size).
    """
    rows, maps = [], {}
    for fold, part in chosen.groupby("fold"):
        folder = Path(models) / f"fold_{fold}"
        trained, untrained = Recogniser(folder), reset_weights(load_model(folder)[0])
        title = f"{folder.parent.name}, fold {fold}: saliency"
        for row in track(part.to_dict("records"), total=len(part), title=title):
            frames = trained.spatial(torch.from_numpy(open_clip(frames_folder, row["clip"])[:]).permute(0, 3, 1, 2))
            numbers = place_frames(len(frames), trained.window, trained.stride)
            motion = find_motion(frames.permute(0, 2, 3, 1).numpy())[numbers]
            clip, target = trained.transform(frames[numbers]).transpose(0, 1), trained.classes.index(row["predicted"])
            saliency, control = (compute_saliency(model, clip, target).numpy() for model in (trained.model, untrained))
            rows.append((row["clip"], fold, row["class"], row["predicted"], row["class"] == row["predicted"],
                         *share_in_motion(saliency, motion), *share_in_motion(control, motion)))
            if row["clip"] in keep:
                maps[row["clip"]] = saliency, motion
    columns = ["clip", "fold", "class", "predicted", "right", "share", "area", "untrained_share", "untrained_area"]
    return pd.DataFrame(rows, columns=columns).round(4), maps


def compare_shares(table: pd.DataFrame) -> pd.DataFrame:
    """The moving region's share of the saliency relative to its share of the area, which uniform saliency would give.

    Args:
        table: of `explain_folds`; clips without a share (nothing moves) are left out.

    Returns:
        Four rows: model (trained, untrained) and clips (right, wrong), with count, share and area (means), ratio (of
        the two means), low and high (95 %, bootstrap over clips; nan below 2 clips).
    """
    def divide(shares: np.ndarray, areas: np.ndarray, axis: int = -1) -> np.ndarray:
        return shares.mean(axis) / areas.mean(axis)

    rows = []
    for model, columns in (("trained", ["share", "area"]), ("untrained", ["untrained_share", "untrained_area"])):
        for clips in ("right", "wrong"):
            part = table.loc[table["right"] == (clips == "right"), columns].dropna()
            (share, area), low, high = part.mean(), np.nan, np.nan
            if len(part) > 1:
                low, high = stats.bootstrap(tuple(part.to_numpy(float).T), divide, paired=True, method="percentile",
                                            rng=np.random.default_rng(0)).confidence_interval
            rows.append({"model": model, "clips": clips, "count": len(part), "share": share, "area": area,
                         "ratio": share / area, "low": low, "high": high})
    return pd.DataFrame(rows)


def summarise_shares(ratios: pd.DataFrame) -> str:
    """The ratios of `compare_shares` as sentences."""
    sentences = []
    for row in ratios[ratios["count"] > 0].itertuples():
        verdict = "above chance" if row.low > 1 else "below chance" if row.high < 1 else "not different from chance"
        sentences.append(
            f"{row.model.capitalize()} model, {row.count} {row.clips} clips: the moving region is {row.area:.1%} of "
            f"the area and has {row.share:.1%} of the saliency, {row.ratio:.2f} times as much (95 % interval "
            f"{row.low:.2f} to {row.high:.2f}; {verdict}).")
    return "\n\n".join(sentences)
