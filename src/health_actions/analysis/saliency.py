"""Saliency: gradients of a model's logit with respect to pixels, and how much of them lies where something moves."""

import numpy as np
import torch
from captum.attr import Saliency
from scipy import ndimage
from torch import nn

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


def reset_weights(model: nn.Module) -> nn.Module:
    """Draw the weights of all trained layers anew, in place; frozen layers stay.

    A map that looks the same before and after shows edges of the picture, not what was learned (Adebayo et al., 2018).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for layer in model.modules():
            trained = any(parameter.requires_grad for parameter in layer.parameters(recurse=False))
            if trained and hasattr(layer, "reset_parameters"):  # tables of positions in transformers are no layers
                layer.reset_parameters()
    return model
