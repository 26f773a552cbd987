"""What is done to a clip's frames before a model sees them; one convention for every model.

A clip is a tensor (frames, 3, height, width) here, the form that torchvision's transforms take, so that each frame of a
clip is changed in the same way.
"""

import torch
from torchvision.transforms import v2

# Mean and standard deviation per channel of the inputs (RGB, 0-1) that the weights a model may start from expect.
# Models that are not named here get frames in 0-1, as published.
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
KINETICS = ([0.43216, 0.394666, 0.37645], [0.22803, 0.22145, 0.216989])
NORMALISATION = {
    **dict.fromkeys(["cnn_lstm_alexnet", "cnn_lstm_resnet50", "cnn_lstm_densenet121"], IMAGENET),
    "cnn_lstm_efficientnet_lite0": ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5]),
    **dict.fromkeys(["r3d_18", "mc3_18", "r2plus1d_18", "s3d"], KINETICS),
    **dict.fromkeys(["mvit_v1_b", "mvit_v2_s"], ([0.45] * 3, [0.225] * 3)),
    **dict.fromkeys(["swin3d_t", "swin3d_s", "swin3d_b"], IMAGENET),
}
AUGMENTATIONS = {
    "none": None,
    "translation": v2.RandomAffine(degrees=0, translate=(0.2, 0)),
    "contrast": v2.ColorJitter(contrast=0.5),
    "mirror": v2.RandomHorizontalFlip(p=1),
}


def build_input_transform(mean: list[float], std: list[float], colour: str = "rgb") -> v2.Transform:
    """uint8 frames in 0-255 -> float32, scaled to 0-1, minus mean, divided by std (per channel, in 0-1).

    `colour` "bgr" gives the channels to the model in the order of OpenCV, as study A's code did; mean and std stay.
    """
    order = [v2.Lambda(_reverse_channels)] if colour == "bgr" else []
    return v2.Compose([*order, v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])


def build_augmentation(name: str) -> v2.Transform | None:
    """Study A's augmentations of training clips (Table 4), and mirroring; each changes every clip that it is given.

    Args:
        name: "none", "translation" (up to a fifth of the width to the left or right; black comes in), "contrast"
            (between half and one and a half) or "mirror" (left and right; see `mirror_class` for what it then shows).

    Raises:
        ValueError: for a name that is not known; nothing is trained "with augmentation" that does not exist.
    """
    if name not in AUGMENTATIONS:
        raise ValueError(f"unknown augmentation {name!r}; known: {', '.join(AUGMENTATIONS)}")
    return AUGMENTATIONS[name]


def mirror_class(name: str, classes: list[str]) -> str:
    """The class that a mirrored clip of class `name` shows: the other hand's where the class is one hand's.

    Raises:
        ValueError: when the other hand's class is missing among `classes`.
    """
    sides = {"left": "right", "right": "left"}
    other = "_".join(sides.get(part, part) for part in name.split("_"))
    if other not in classes:
        raise ValueError(f"a mirrored clip of {name} shows {other}, which is none of the classes: {', '.join(classes)}")
    return other


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


def _reverse_channels(frames: torch.Tensor) -> torch.Tensor:
    return frames.flip(-3)
