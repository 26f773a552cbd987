"""What a model looks at: gradients of its answer to the pixels, and how much of them lies where something moves."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from captum.attr import Saliency
from scipy import ndimage, stats
from torch import nn

from health_actions.data.frames import load_frames
from health_actions.data.transforms import build_input_transform, place_window
from health_actions.learning.datasets import FrameDataset
from health_actions.models.folder import load_model
from health_actions.progress import track

# Grey values of 255, after smoothing. Between neighbouring sampled frames, half of the pixels change by less than 0.4
# (noise); the tenth that changes most, where hands are, by 7 or more in rendered clips and 24 in real ones.
MOTION_THRESHOLD = 8.0


def compute_saliency(model: nn.Module, clip: torch.Tensor, target: int) -> torch.Tensor:
    """How strongly the logit of one class depends on each pixel: its gradient (Simonyan et al., 2014).

    Args:
        model: in evaluation mode here, and left as it was; frozen parameters do not matter. What it computes outside of
            the gradient (optical flow) has no part in the result.
        clip: (3, frames, height, width) float32 as the model takes it.
        target: number of the class.

    Returns:
        (frames, height, width) float32, 0 or more: absolute gradients, the largest of the three colours.
    """
    was_training, pixels = model.training, clip[None].detach().float().requires_grad_()
    model.eval()
    try:
        gradients = Saliency(model).attribute(pixels, target=target, abs=True)
    finally:
        model.train(was_training)
    return gradients[0].amax(0).detach()


def find_motion(frames: np.ndarray) -> np.ndarray:
    """Where a clip moves: in these clips hands, arms and water, not the sink.

    A pixel moves when its smoothed grey value differs by more than `MOTION_THRESHOLD` from that in the previous or the
    next frame. What the whole frame changes by (a lamp, the camera's exposure) is no motion. The region is widened by
    1/32 of the height for the edges of hands, and by a frame before and after, for hands that turn about.

    Args:
        frames: uint8 (frames, height, width, 3), at least 2 frames.

    Returns:
        bool (frames, height, width).
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
    """The share of a clip's saliency that lies in the moving region, and the share of its area that the region covers.

    A frame's area counts as much as its saliency: an LSTM depends most on the last frames, and were hands still there,
    the two shares would differ although the model looks anywhere alike.

    Args:
        saliency: (frames, height, width), 0 or more.
        motion: bool (frames, height, width).

    Returns:
        Two shares of 1. The first is nan where there is nothing to share: when nothing moves in the frames that matter
        (the second is 0 then), or when no pixel matters.
    """
    frames = saliency.sum((1, 2), dtype=np.float64)
    if not frames.any():
        return float("nan"), float(motion.mean())
    area = float(np.average(motion.mean((1, 2)), weights=frames))
    return float(saliency[motion].sum(dtype=np.float64) / frames.sum()) if area else float("nan"), area


def unlearn(model: nn.Module, seed: int = 0) -> nn.Module:
    """Draw the weights of all layers that were trained anew; changes and returns the model.

    Frozen layers stay, and so do the tables of positions in transformers, which are no layers.

    A map that looks the same before and after shows edges of the picture, not what was learned (Adebayo et al., 2018).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in model.modules():
            trained = any(parameter.requires_grad for parameter in layer.parameters(recurse=False))
            if trained and hasattr(layer, "reset_parameters"):
                layer.reset_parameters()
    return model


def draw_clips(predictions: pd.DataFrame, count: int, seed: int = 0) -> pd.DataFrame:
    """Choose `count` tested clips: all that are misclassified, the rest (at least half) drawn evenly from all folds.

    Args:
        predictions: one row a clip, with clip, fold, class and predicted.

    Returns:
        Those rows, in their order.
    """
    is_right = predictions["class"] == predictions["predicted"]
    drawn = predictions[is_right].sample(frac=1, random_state=seed)
    turns = drawn.groupby("fold").cumcount().sort_values(kind="stable").index
    return predictions.loc[sorted([*predictions.index[~is_right], *turns[:max(count - sum(~is_right), count // 2)]])]


def explain_folds(models: Path, chosen: pd.DataFrame, *, frames_folder: Path,
                  keep: set[str] = frozenset()) -> tuple[pd.DataFrame, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Let each fold's model tell what it looked at in its test clips: the centre window, the class that it predicted.

    Args:
        models: folder of one architecture, with `fold_<k>/`.
        chosen: one row a clip, with clip, fold, class and predicted.
        keep: clips whose maps are returned.

    Returns:
        One row a clip: clip, fold, class, predicted, right, share and area as of `share_in_motion`, untrained_share and
        untrained_area of the same model unlearned; and clip -> (saliency, motion), each (window, size, size), of the
        clips to keep.
    """
    rows, maps = [], {}
    for fold, part in chosen.groupby("fold"):
        model, card = load_model(Path(models) / f"fold_{fold}")
        untrained = unlearn(load_model(Path(models) / f"fold_{fold}")[0])
        size, window, preprocessing = card["clip"]["size"], card["clip"]["window"], card["preprocessing"]
        transform = build_input_transform(preprocessing["mean"], preprocessing["std"], preprocessing["colour"].lower())
        dataset = FrameDataset(frames_folder, part, card["classes"], size=size, window=window,
                               input_transform=transform)
        title = f"{Path(models).name}, fold {fold}: saliency"
        for place, row in enumerate(track(part.itertuples(), total=len(part), title=title)):
            clip, target = dataset[place][0], card["classes"].index(row.predicted)
            motion = take_window(find_motion(load_frames(frames_folder, row.clip, size)), window)
            saliency = compute_saliency(model, clip, target).numpy()
            control = compute_saliency(untrained, clip, target).numpy()
            actual = part.at[row.Index, "class"]
            rows.append((row.clip, fold, actual, row.predicted, actual == row.predicted,
                         *share_in_motion(saliency, motion), *share_in_motion(control, motion)))
            if row.clip in keep:
                maps[row.clip] = saliency, motion
    columns = ["clip", "fold", "class", "predicted", "right", "share", "area", "untrained_share", "untrained_area"]
    return pd.DataFrame(rows, columns=columns).round(4), maps


def take_window(frames: np.ndarray, window: int) -> np.ndarray:
    """The frames of the centre window, the one that a model is tested on."""
    start = place_window(len(frames), window)
    return frames[start:start + window]


def compare_shares(table: pd.DataFrame) -> pd.DataFrame:
    """How much more saliency the moving region holds than its area would at random.

    Args:
        table: of `explain_folds`; clips without a share (nothing moves) are left out.

    Returns:
        Four rows: model (trained, untrained) and clips (right, wrong), with count, share and area (means), ratio (of
        the two means; above 1: the model looks at what moves), low and high (95 %, bootstrap over clips; nan below 2).
    """
    rows = []
    for model, columns in (("trained", ["share", "area"]), ("untrained", ["untrained_share", "untrained_area"])):
        for clips in ("right", "wrong"):
            part = table.loc[table["right"] == (clips == "right"), columns].dropna()
            values = part.to_numpy(float).T
            share, area = part.mean()
            low = high = np.nan
            if len(part) > 1:
                low, high = stats.bootstrap(tuple(values), _divide_means, paired=True, method="percentile",
                                            rng=np.random.default_rng(0)).confidence_interval
            rows.append({"model": model, "clips": clips, "count": len(part), "share": share, "area": area,
                         "ratio": share / area, "low": low, "high": high})
    return pd.DataFrame(rows)


def summarise_shares(ratios: pd.DataFrame) -> str:
    """The ratios of `compare_shares` as sentences."""
    sentences = []
    for row in ratios[ratios["count"] > 0].itertuples():
        verdict = ("more than by chance" if row.low > 1 else "less than by chance" if row.high < 1
                   else "not to be told from chance")
        sentences.append(
            f"{row.model.capitalize()} model, {row.count} {row.clips} clips: the moving region is {row.area:.1%} of "
            f"the area and holds {row.share:.1%} of the saliency, {row.ratio:.2f} times as much (95 % interval "
            f"{row.low:.2f} to {row.high:.2f}; {verdict}).")
    return "\n\n".join(sentences)


def _divide_means(shares: np.ndarray, areas: np.ndarray, axis: int = -1) -> np.ndarray:
    return shares.mean(axis) / areas.mean(axis)
