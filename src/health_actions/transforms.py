"""What is done to a clip's frames before a model sees them; one convention for every model.

A clip is a tensor (frames, 3, height, width) here, the form that torchvision's transforms take, so that each frame of a
clip is changed in the same way.
"""

import torch
from torchvision.transforms import v2

# Mean and standard deviation per channel of the inputs (RGB, 0-1) that the backbones' ImageNet weights expect. Models
# that start from random weights get frames in 0-1, as published.
NORMALISATION = {
    "cnn_lstm_alexnet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "cnn_lstm_resnet50": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "cnn_lstm_efficientnet_lite0": ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5]),
}
AUGMENTATIONS = ("none", "translation", "contrast")


def build_input_transform(mean: list[float], std: list[float]) -> v2.Transform:
    """uint8 frames in 0-255 -> float32, scaled to 0-1, minus mean, divided by std (per channel, in 0-1)."""
    return v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])


def build_augmentation(name: str, probability: float) -> v2.Transform:
    """Study A's augmentations of training clips (Table 4), applied with `probability` to whole clips.

    Args:
        name: "none", "translation" (up to a fifth of the width to the left or right; black comes in) or "contrast"
            (between half and one and a half).
        probability: 0-1.

    Raises:
        ValueError: for a name that is not known; nothing is trained "with augmentation" that does not exist.
    """
    changes = {
        "none": v2.Identity(),
        "translation": v2.RandomAffine(degrees=0, translate=(0.2, 0)),
        "contrast": v2.ColorJitter(contrast=0.5),
    }
    if name not in changes:
        raise ValueError(f"unknown augmentation {name!r}; known: {', '.join(AUGMENTATIONS)}")
    if not 0 <= probability <= 1:
        raise ValueError(f"the augmentation's probability must lie in 0-1, found {probability}")
    return v2.RandomApply([changes[name]], p=probability)


def place_window(length: int, window: int, generator: torch.Generator | None = None) -> int:
    """First frame of a window of consecutive sampled frames: random with a generator (training), else the centre.

    Raises:
        ValueError: when the window is longer than the clip.
    """
    if window > length:
        raise ValueError(f"a window of {window} frames does not fit into the {length} sampled frames of a clip")
    if generator is None:
        return (length - window) // 2
    return int(torch.randint(length - window + 1, (), generator=generator))
