"""The studies' models, and torchvision's video models, behind one function.

Every model takes clips (batch, 3, frames, size, size) as float32 and returns logits (batch, num_classes).
"""

import functools
import inspect

from torch import nn

from health_actions.models.cnn_lstm import BACKBONES, CnnLstm
from health_actions.models.convlstm import ConvLstm
from health_actions.models.published import load_published
from health_actions.models.resnet3d import ARCHITECTURES, ResNet3d
from health_actions.models.three_stream import ThreeStream
from health_actions.models.torchvision_video import VIDEO_NAMES, build_video_model

__all__ = ["MODEL_NAMES", "build_model", "load_published"]

KINDS = {
    "convlstm": ConvLstm,
    **{f"cnn_lstm_{backbone}": functools.partial(CnnLstm, backbone) for backbone in BACKBONES},
    "three_stream": ThreeStream,
    **{name: functools.partial(ResNet3d, name) for name in ARCHITECTURES},
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
        pretrained: None for random weights, or the name of the weights to start from (see the model's class).
        options: what else the model's class takes (`lstm_width`, `freeze`, `shortcut`, ...).

    Raises:
        ValueError: for an unknown name or option, or a clip that is too small; says what is possible.
    """
    if name not in MODEL_NAMES:
        raise ValueError(f"unknown model {name!r}; known models: {', '.join(MODEL_NAMES)}")
    for what, value, least in (("num_classes", num_classes, 2), ("frames", frames, 8), ("size", size, 32)):
        if value < least:
            raise ValueError(f"{name}: {what} must be at least {least}, found {value}")
    known = [option for option in inspect.signature(KINDS[name]).parameters
             if option not in ("num_classes", "size", "pretrained")]
    unknown = [option for option in options if option not in known]
    if unknown:
        raise ValueError(f"{name} has no option {', '.join(unknown)}; it has {', '.join(known) or 'none'}")
    return KINDS[name](num_classes=num_classes, size=size, pretrained=pretrained, **options)
