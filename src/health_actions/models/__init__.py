"""The studies' models, and torchvision's video models, behind one function.

Every model takes clips (batch, 3, frames, size, size) as float32 and returns logits (batch, num_classes).
"""

import copy
import inspect
from functools import partial

from torch import nn

from health_actions.models.c3d import C3d
from health_actions.models.checkpoints import load_published
from health_actions.models.cnn_lstm import BACKBONES, UNCHANGED, CnnLstm
from health_actions.models.convlstm import ConvLstm
from health_actions.models.landmark_stream import LandmarkStream
from health_actions.models.mobilenetv2 import MobileNetV2
from health_actions.models.network3d import Network3d
from health_actions.models.resnet3d import RESNETS, ResNet3d
from health_actions.models.shufflenetv2 import ShuffleNetV2
from health_actions.models.squeezenet import SqueezeNet
from health_actions.models.three_stream import ThreeStream
from health_actions.models.torchvision_video import VIDEO_WEIGHTS, build_video_model
from health_actions.paths import at_root

__all__ = ["MODEL_NAMES", "build_model", "get_normalisation", "list_options", "load_published"]

# Name -> what builds the model; mean and standard deviation per channel (RGB, 0-1) of the frames it expects.
REGISTRY = {
    "convlstm": (ConvLstm, UNCHANGED),
    **{f"cnn_lstm_{name}": (partial(CnnLstm, name), expected) for name, (_, expected) in BACKBONES.items()},
    "three_stream": (ThreeStream, UNCHANGED),
    "c3d": (C3d, UNCHANGED),
    **{name: (partial(ResNet3d, name), UNCHANGED) for name in RESNETS},
    "mobilenetv2": (MobileNetV2, UNCHANGED),
    "shufflenetv2": (ShuffleNetV2, UNCHANGED),
    "squeezenet": (SqueezeNet, UNCHANGED),
    **{name: (partial(build_video_model, name), (weights.transforms().mean, weights.transforms().std))
       for name, weights in VIDEO_WEIGHTS.items()},
}
MODEL_NAMES = list(REGISTRY)


def get_normalisation(name: str) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel (RGB) to bring frames in 0-1 to; ValueError for an unknown model."""
    if name not in REGISTRY:
        raise ValueError(f"unknown model {name!r}; known models: {', '.join(MODEL_NAMES)}")
    return REGISTRY[name][1]


def list_options(name: str) -> list[str]:
    """What `build_model` takes as options of one of `MODEL_NAMES`."""
    accepted = inspect.signature(REGISTRY[name][0]).parameters
    options = [option for option in accepted if option not in ("num_classes", "frames", "size", "pretrained")]
    # Study B's networks take no `pretrained`: they all start in the same way.
    return options if "pretrained" in accepted else [*options, "last_layer_only"]


def build_model(name: str, *, num_classes: int, frames: int, size: int, pretrained: str | None = None,
                **options) -> nn.Module:
    """Build a model by its name in the papers or in torchvision.

    Args:
        name: one of `MODEL_NAMES`.
        num_classes, frames, size: logits, at least 2; frames of a clip, at least 8, and their pixels, at least 32 x 32.
        pretrained: None for random weights; "imagenet" for a CNN-LSTM's backbone; "kinetics400" for torchvision's video
            models; or the path, absolute or from the project's root, of a published file or of a model folder. From it
            everything is taken but the head of study B's 3-D CNNs, and of a model for another number of classes.
        options: further arguments of the model's class (`lstm_width`, `freeze`, `shortcut`, `width_mult`, ...); for the
            3-D CNNs of study B also `last_layer_only`, which freezes everything but the head.

    ValueError for what is unknown or too small, and for weights that do not fit; FileNotFoundError where they are not.
    """
    if name == "landmarks":  # no pictures go in, but points
        return LandmarkStream(num_classes=num_classes, **options)
    get_normalisation(name)  # refuses unknown names
    build, given = REGISTRY[name][0], {"num_classes": num_classes, "frames": frames, "size": size}
    for what, least in (("num_classes", 2), ("frames", 8), ("size", 32)):
        if given[what] < least:
            raise ValueError(f"{name}: {what} must be at least {least}, found {given[what]}")
    from_file = pretrained not in (None, "imagenet", "kinetics400")
    accepted, known = inspect.signature(build).parameters, list_options(name)
    if "pretrained" in accepted:
        given["pretrained"] = None if from_file else pretrained
        if from_file and "freeze" in known:  # as with ImageNet weights
            options.setdefault("freeze", name != "cnn_lstm_custom")
    unknown = [option for option in options if option not in known]
    if unknown:
        raise ValueError(f"{name} has no option {', '.join(unknown)}; it has {', '.join(known) or 'none'}")
    last_layer_only = options.pop("last_layer_only", False)
    network = build(**{what: value for what, value in given.items() if what in accepted}, **options)
    if isinstance(network, Network3d):
        network.architecture = name
        if pretrained is not None:
            head = network.get_submodule(network.head)
            initial_weights = copy.deepcopy(head.state_dict())
            load_published(network, at_root(pretrained), replace_head=True)
            head.load_state_dict(initial_weights)
        if last_layer_only:
            network.freeze_body()
    elif from_file and "pretrained" in accepted:
        load_published(network, at_root(pretrained), replace_head=True)
    elif "pretrained" not in accepted and (pretrained or last_layer_only):
        raise ValueError(f"{name} can only start from scratch: its class takes no `pretrained` and is no Network3d")
    return network
