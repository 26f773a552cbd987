"""What is done to a clip's frames before a model sees them.

A clip is a tensor (frames, 3, height, width) here, the form that torchvision's transforms take. All frames of a clip
are changed in the same way. Boxes are (left, top, right, bottom) in pixels, right and bottom excluded.
"""

import functools

import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

# Mean and standard deviation per channel of inputs (RGB, 0-1), by the data that weights were trained on.
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
KINETICS = ([0.43216, 0.394666, 0.37645], [0.22803, 0.22145, 0.216989])
# Study B's released Kinetics-600 weights, for `build_input_transform(*ACTIVITYNET, "bgr")`: pixels in 0-255 minus this
# mean. It is the mean of red, green and blue, but the code that trained the weights subtracted it in this order from
# OpenCV's BGR frames: blue got the mean of red. So the order stays.
ACTIVITYNET = ([114.7748 / 255, 107.7354 / 255, 99.4750 / 255], [1 / 255] * 3)
SCALES = (1.0, 0.97, 0.9409, 0.912673, 0.88529281)  # of the short side: study B's training crops
CORNERS = ("c", "tl", "tr", "bl", "br")  # where a crop lies: centre, top left, top right, bottom left, bottom right
PLACES = ("random", "centre", "begin")  # where a window lies in a clip
AUGMENTATIONS = {
    "none": None,
    "translation": v2.RandomAffine(degrees=0, translate=(0.2, 0)),
    "contrast": v2.ColorJitter(contrast=0.5),
    "mirror": v2.RandomHorizontalFlip(p=1),
}


def build_input_transform(mean: list[float], std: list[float], colour: str = "rgb") -> v2.Transform:
    """uint8 frames in 0-255 -> float32, scaled to 0-1, minus mean, divided by std (per channel, in 0-1).

    `colour` "bgr" reverses the channels, as study A's code did; the first of mean and std then apply to blue.
    """
    order = [v2.Lambda(functools.partial(torch.flip, dims=(-3,)))] if colour == "bgr" else []
    return v2.Compose([*order, v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])


def build_augmentation(name: str) -> v2.Transform | None:
    """Study A's augmentations of training clips (its Table 4), and mirroring. Each changes every clip it is given.

    Names: "none", "translation" (up to a fifth of the width to the left or right; the border is filled with black),
    "contrast" (factor 0.5 to 1.5) or "mirror" (left and right; `mirror_class` gives the class then shown).
    """
    if name not in AUGMENTATIONS:
        raise ValueError(f"unknown augmentation {name!r}; known: {', '.join(AUGMENTATIONS)}")
    return AUGMENTATIONS[name]


def mirror_class(name: str, classes: list[str]) -> str:
    """The class that a mirrored clip of class `name` shows: left and right are exchanged."""
    sides = {"left": "right", "right": "left"}
    other = "_".join(sides.get(part, part) for part in name.split("_"))
    if other not in classes:
        raise ValueError(f"a mirrored clip of {name} shows {other}, which is none of the classes: {', '.join(classes)}")
    return other


def corner_box(width: int, height: int, scale: float, corner: str) -> tuple[int, int, int, int]:
    """A square of study B's training crops: (left, top, right, bottom) in pixels, of a frame width x height.

    Its side is the short side x `scale` (above 0, up to 1), rounded down; in the centre it is rounded down to an even
    number, as published. `corner` is one of `CORNERS`.
    """
    side = int(min(width, height) * scale)
    if corner not in CORNERS or scale > 1 or side < 2:
        raise ValueError(f"a crop needs a corner of {', '.join(CORNERS)}, a scale in 0-1 and 2 pixels or more; "
                         f"found corner {corner!r} and scale {scale} of {width} x {height} pixels")
    if corner == "c":
        left, top, side = width // 2 - side // 2, height // 2 - side // 2, side // 2 * 2
    else:
        left, top = width - side if corner[1] == "r" else 0, height - side if corner[0] == "b" else 0
    return left, top, left + side, top + side


class MultiScaleCornerCrop(v2.Transform):
    """Study B's training crop: a square at a corner or in the centre (`corner_box`), scaled bilinearly to size x size.

    Scale and corner are drawn once a call, by torch's global generator (see `datasets.draw_augmentation`).
    """

    def __init__(self, size: int):
        super().__init__()
        self.size = size

    def make_params(self, flat_inputs: list) -> dict:
        """Draw scale, corner and box for the size of the first input (a clip or a frame)."""
        height, width = functional.get_size(flat_inputs[0])
        scale = SCALES[int(torch.randint(len(SCALES), ()))]
        corner = CORNERS[int(torch.randint(len(CORNERS), ()))]
        return {"scale": scale, "corner": corner, "box": corner_box(width, height, scale, corner)}

    def transform(self, inpt: torch.Tensor, params: dict) -> torch.Tensor:
        """(..., 3, height, width) -> (..., 3, size, size) of the same dtype and range."""
        left, top, right, bottom = params["box"]
        return functional.resized_crop(inpt, top, left, bottom - top, right - left, [self.size, self.size])


class CentreCrop(v2.Compose):
    """Study B's test crop: the short side scaled bilinearly to `size` pixels, then the square in the centre.

    As published, the long side is rounded down, and half pixels of the square's place go to the even number.
    """

    def __init__(self, size: int):
        super().__init__([v2.Resize(size), v2.CenterCrop(size)])


class Squash(v2.Resize):
    """Study A's input: the whole frame scaled to size x size pixels, whatever its shape; bilinear, antialiased."""

    def __init__(self, size: int):
        super().__init__([size, size])


def build_spatial(crop: str, size: int, *, flip: float = 0.5, middle_square: bool = False
                  ) -> tuple[v2.Transform, v2.Transform]:
    """How frames become size x size pixels: (transform of training clips, transform of all others).

    crop      training clips                                    validation and test clips
    squash    `Squash`                                          `Squash`                      study A
    corner    `MultiScaleCornerCrop`, then mirrored or not      `CentreCrop`                  study B

    Both keep dtype and range; random numbers come from torch's global generator. Study B's paper mirrors first. Left
    and right corners are drawn equally often, so the order changes no distribution; a small crop is faster to mirror.

    Args:
        flip: probability of mirroring a training clip, 0-1 ("corner" alone).
        middle_square: crop the square in the middle of the frame ("corner" alone). The paper crops the whole frame; of
            a person in the middle of a wide one, four in five such crops show a part or nothing.
    """
    if crop not in ("squash", "corner") or size < 2:  # torch fails inside at one pixel of uint8
        raise ValueError("expected the crop squash or corner and a size of 2 pixels or more, "
                         f"found crop {crop!r} and size {size}")
    if crop == "squash":
        return Squash(size), Squash(size)
    square = [v2.Lambda(_cut_middle_square)] if middle_square else []
    return v2.Compose([*square, MultiScaleCornerCrop(size), v2.RandomHorizontalFlip(flip)]), CentreCrop(size)


def _cut_middle_square(frames: torch.Tensor) -> torch.Tensor:
    return functional.center_crop(frames, [min(functional.get_size(frames))] * 2)


def place_frames(length: int, window: int, stride: int = 1, how: str = "centre",
                 generator: torch.Generator | None = None) -> torch.Tensor:
    """Numbers of `window` frames, `stride` apart, of a clip of `length` frames, from 0: int64 (window,).

    A window spans window x stride frames. A shorter clip is looped from its start. Others lie where `how` says, at the
    "begin", in the "centre", or at "random": the generator draws a start that fits, but not the last one where several
    fit, as in the published code of study B.
    """
    _check_positive(length=length, window=window, stride=stride)
    free, start = max(0, length - window * stride), 0
    if how not in PLACES or how == "random" and generator is None:
        raise ValueError(f"a window lies at one of {', '.join(PLACES)} (random needs a generator), found {how!r}")
    if how == "random":
        start = int(torch.randint(max(1, free), (), generator=generator))
    elif how == "centre":
        start = free // 2
    return (start + stride * torch.arange(window)) % length


def spread_frames(length: int, window: int, stride: int, count: int) -> torch.Tensor:
    """Numbers of the frames of `count` windows spread evenly over a clip ("even crops"): int64 (count, window).

    The first window begins with the clip, the last one's span ends with it; a single one lies in the centre. All
    windows of a clip shorter than a span are the same loop. See `place_frames`.
    """
    _check_positive(length=length, window=window, stride=stride, count=count)
    free = max(0, length - window * stride)
    if count == 1:
        starts = torch.tensor([free // 2])
    else:  # to the nearest frame, in whole numbers: the same on every machine
        starts = (2 * free * torch.arange(count) + count - 1) // (2 * (count - 1))
    return (starts[:, None] + stride * torch.arange(window)) % length


def _check_positive(**numbers: int) -> None:
    if min(numbers.values()) < 1:
        found = ", ".join(f"{name} {number}" for name, number in numbers.items())
        raise ValueError(f"frames are placed by numbers of 1 or more, found {found}")
