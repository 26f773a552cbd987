"""torchvision's video models under their own names."""

import functools

import torch
import torchvision
from torch import nn
from torch.nn import functional

from health_actions.models.cnn_lstm import load_from_hub

# Name -> its Kinetics-400 weights; their transforms know the mean and standard deviation that they expect.
VIDEO_WEIGHTS = {name: torchvision.models.get_model_weights(name).KINETICS400_V1
                 for name in torchvision.models.list_models(module=torchvision.models.video)}


def build_video_model(name: str, *, num_classes: int, pretrained: str | None = None) -> nn.Module:
    """Build one of `VIDEO_WEIGHTS`; names and shapes of its weights are torchvision's.

    MViT takes 16 frames of 224 pixels and S3D needs 16 of 224 or more: they enlarge other clips to that by
    interpolation (and cost as much as if they were so large). `pretrained`: "kinetics400" keeps all but the last layer.
    """
    if pretrained not in (None, "kinetics400"):
        raise ValueError(f"{name}: pretrained must be None or 'kinetics400', found {pretrained!r}")
    network = torchvision.models.get_model(name, num_classes=num_classes)
    if pretrained:
        load_from_hub(network, VIDEO_WEIGHTS[name], f"Kinetics-400 weights of {name}")
    if name == "s3d" or name.startswith("mvit"):
        # A hook instead of a module around the network, so that the weights keep torchvision's names.
        network.register_forward_pre_hook(functools.partial(_enlarge, exact=name != "s3d"))
    return network


def _enlarge(network: nn.Module, inputs: tuple[torch.Tensor], exact: bool) -> torch.Tensor:
    found = tuple(inputs[0].shape[2:])
    needed = tuple(least if exact else max(least, length) for least, length in zip((16, 224, 224), found))
    return inputs[0] if found == needed else functional.interpolate(inputs[0], needed, mode="trilinear")
