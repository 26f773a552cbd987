"""The studies' models, and torchvision's video models, behind one function.

Every model takes clips (batch, 3, frames, size, size) as float32 and returns logits (batch, num_classes).
"""

import functools
import inspect

from torch import nn

from health_actions.models.c3d import C3d
from health_actions.models.cnn_lstm import BACKBONES, CnnLstm
from health_actions.models.convlstm import ConvLstm
from health_actions.models.mobilenetv2 import MobileNetV2
from health_actions.models.published import load_published
from health_actions.models.resnet3d import ARCHITECTURES, ResNet3d
from health_actions.models.shufflenetv2 import ShuffleNetV2
from health_actions.models.squeezenet import SqueezeNet
from health_actions.models.three_stream import ThreeStream
from health_actions.models.torchvision_video import VIDEO_NAMES, build_video_model

__all__ = ["MODEL_NAMES", "build_model", "load_published"]

KINDS = {
    "convlstm": ConvLstm,
    **{f"cnn_lstm_{backbone}": functools.partial(CnnLstm, backbone) for backbone in BACKBONES},
    "three_stream": ThreeStream,
    "c3d": C3d,
    **{name: functools.partial(ResNet3d, name) for name in ARCHITECTURES},
    "mobilenetv2": MobileNetV2,
    "shufflenetv2": ShuffleNetV2,
    "squeezenet": SqueezeNet,
    **{name: functools.partial(build_video_model, name) for name in VIDEO_NAMES},
}
MODEL_NAMES = list(KINDS)


def build_model(name: str, *, num_classes: int, frames: int, size: int, pretrained=None, **options) -> nn.Module:
    """Build a model by its name in the papers or in torchvision.

    Args:
        name: one of `MODEL_NAMES`.
        num_classes: number of logits, at least 2.
        frames: frames in a clip, at least 8.
        size: height and width of a frame in pixels, at least 32.
        pretrained: None for random weights, or the weights to start from: a name, or for the 3-D CNNs of study B the
            path of a checkpoint file or model folder (see the model's class).
        options: what else the model's class takes (`lstm_width`, `freeze`, `shortcut`, `width_mult`, ...).

    Raises:
        ValueError: for an unknown name or option, or a clip that is too small; says what is possible.
        FileNotFoundError: when the weights to start from are not there; says where they were looked for.
    """
    if name not in MODEL_NAMES:
        raise ValueError(f"unknown model {name!r}; known models: {', '.join(MODEL_NAMES)}")
    for what, value, least in (("num_classes", num_classes, 2), ("frames", frames, 8), ("size", size, 32)):
        if value < least:
            raise ValueError(f"{name}: {what} must be at least {least}, found {value}")
    taken = inspect.signature(KINDS[name]).parameters
    known = [option for option in taken if option not in ("num_classes", "frames", "size", "pretrained")]
    unknown = [option for option in options if option not in known]
    if unknown:
        raise ValueError(f"{name} has no option {', '.join(unknown)}; it has {', '.join(known) or 'none'}")
    if "frames" in taken:
        options["frames"] = frames
    return KINDS[name](num_classes=num_classes, size=size, pretrained=pretrained, **options)
