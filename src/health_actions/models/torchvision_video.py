"""torchvision's video models under their own names."""

import functools

import torch
import torchvision
from torch import nn
from torch.nn import functional

from health_actions.models.cnn_lstm import load_from_hub

VIDEO_NAMES = torchvision.models.list_models(module=torchvision.models.video)


def build_video_model(name: str, *, num_classes: int, size: int, pretrained: str | None = None) -> nn.Module:
    """Build one of torchvision's video models; names and shapes of its weights are torchvision's.

    Args:
        name: one of `VIDEO_NAMES`.
        num_classes: number of logits.
        size: not used. MViT takes 16 frames of 224 pixels and S3D needs 16 of 224 or more: they enlarge other clips to
            that by interpolation (and cost as much as if they were so large).
        pretrained: None, or "kinetics400": torchvision's weights with a new last layer.

    Raises:
        ValueError: for weights that do not exist.
        FileNotFoundError: when the weights cannot be had, see `load_from_hub`.
    """
    if pretrained not in (None, "kinetics400"):
        raise ValueError(f"{name}: pretrained must be None or 'kinetics400', found {pretrained!r}")
    network = torchvision.models.get_model(name, num_classes=num_classes)
    if pretrained:
        weights = torchvision.models.get_model_weights(name).KINETICS400_V1
        load_from_hub(network, weights, f"Kinetics-400 weights of {name}")
    if name == "s3d" or name.startswith("mvit"):
        network.register_forward_pre_hook(functools.partial(_fit, exact=name != "s3d"))
    return network


def _fit(network: nn.Module, inputs: tuple[torch.Tensor], exact: bool) -> torch.Tensor:
    """A hook instead of a module around the network, so that the weights keep torchvision's names."""
    clips, = inputs
    found, needed = tuple(clips.shape[2:]), (16, 224, 224)
    if not exact:
        needed = tuple(max(pair) for pair in zip(found, needed))
    return clips if found == needed else functional.interpolate(clips, needed, mode="trilinear")
