"""What is done to a clip's frames before a model sees them.

A clip is a tensor (frames, 3, height, width), and all its frames are changed in the same way. Boxes are (left, top,
right, bottom) in pixels, right and bottom excluded.
"""

import functools
from collections.abc import Sequence

import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

# Mean and standard deviation per channel (RGB, 0-1) of the images that weights were trained on.
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
SCALES = (1.0, 0.97, 0.9409, 0.912673, 0.88529281)  # of the short side: study B's training crops
CORNERS = ("c", "tl", "tr", "bl", "br")  # where a crop lies: centre, top left, top right, bottom left, bottom right
CROPS = {"corner": CORNERS, "centre": ("c",), "random": ()}  # study B's kinds -> corners to draw from; (): anywhere


class ChangeBackground(v2.Transform):
    """Another background: what hardly moves in a clip takes on up to half of the colours of a random smooth picture."""

    def make_params(self, flat_inputs: list) -> dict:
        """Draw 4 x 4 colours (0-255) and their share (0-0.5)."""
        return {"colours": 255 * torch.rand(1, 3, 4, 4), "share": 0.5 * torch.rand(())}

    def transform(self, inpt: torch.Tensor, params: dict) -> torch.Tensor:
        """uint8 (frames, 3, height, width) -> the same; a pixel moves by its distance from its median over time."""
        frames = inpt.float()
        moves = (frames - frames.median(dim=0).values).abs().amax(dim=1, keepdim=True)
        share = params["share"] * (1 - moves / 32).clamp(min=0)
        other = functional.resize(params["colours"], functional.get_size(frames), antialias=False)
        return frames.lerp(other, share).to(inpt.dtype)


AUGMENTATIONS = {
    "none": None,
    "translation": v2.RandomAffine(degrees=0, translate=(0.2, 0)),  # up to a fifth of the width, filled with black
    "contrast": v2.ColorJitter(contrast=0.5),  # factor 0.5 to 1.5
    "mirror": v2.RandomHorizontalFlip(p=1),
    # Not in the paper: other cameras and other rooms.
    "camera": v2.Compose([v2.ColorJitter(0.4, 0.4, 0.4, 0.08), ChangeBackground()]),
}


def build_input_transform(mean: list[float], std: list[float], colour: str = "rgb") -> v2.Transform:
    """uint8 frames in 0-255 -> float32, scaled to 0-1, minus mean, divided by std (per channel, in 0-1).

    `colour` "bgr" reverses the channels, as both papers' code did; the first of mean and std then apply to blue.
    """
    order = [v2.Lambda(functools.partial(torch.flip, dims=(-3,)))] if colour == "bgr" else []
    return v2.Compose([*order, v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])


def build_augmentation(name: str) -> v2.Transform | None:
    """One of `AUGMENTATIONS`, of training clips; study A's Table 4 has the first three. Each changes every clip."""
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
    """A square of study B's training crops at one of `CORNERS`: (left, top, right, bottom).

    Its side is the short side x `scale` (up to 1), rounded down; in the centre to an even number, as published.
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


class MultiScaleCrop(v2.Transform):
    """Study B's training crop: a square of which scale and place are drawn, scaled bilinearly to size x size.

    Its place is one of `corners` (see `corner_box`), or anywhere in the frame where there are none.
    """

    def __init__(self, size: int, corners: Sequence[str] = CORNERS, scales: Sequence[float] = SCALES):
        super().__init__()
        self.size, self.corners, self.scales = size, corners, scales

    def make_params(self, flat_inputs: list) -> dict:
        """Draw scale, corner ("" for anywhere) and box once for all frames, by torch's global generator."""
        height, width = functional.get_size(flat_inputs[0])
        scale = self.scales[int(torch.randint(len(self.scales), ()))]
        if self.corners:
            corner = self.corners[int(torch.randint(len(self.corners), ()))]
            return {"scale": scale, "corner": corner, "box": corner_box(width, height, scale, corner)}
        side = corner_box(width, height, scale, "tl")[2]
        left, top = (round(float(torch.rand(())) * (length - side)) for length in (width, height))
        return {"scale": scale, "corner": "", "box": (left, top, left + side, top + side)}

    def transform(self, inpt: torch.Tensor, params: dict) -> torch.Tensor:
        """(..., 3, height, width) -> (..., 3, size, size) of the same dtype and range."""
        left, top, right, bottom = params["box"]
        return functional.resized_crop(inpt, top, left, bottom - top, right - left, [self.size, self.size])


def build_spatial(crop: str, size: int, *, flip: float = 0.5, middle_square: bool = False,
                  scales: Sequence[float] | None = None) -> tuple[v2.Transform, v2.Transform]:
    """How frames become size x size pixels: (transform of training clips, transform of all others).

    "squash" (study A) scales the whole frame to a square, whatever its shape. Study B's crops, of `scales` (by default
    `SCALES`), are "corner" (at a corner or the centre), "centre" and "random" (anywhere): training clips by
    `MultiScaleCrop`, then mirrored with the probability `flip`; of others the short side is scaled to `size`, then the
    square in the centre is cut. Study B's paper mirrors first: the same, since left and right are drawn equally often,
    but slower. `middle_square` crops the square in the middle of the frame: of a person in a wide one, four in five of
    the paper's crops show a part or nothing.
    """
    if crop not in ("squash", *CROPS) or size < 2:  # torch fails inside at one pixel of uint8
        raise ValueError(f"expected the crop {', '.join(('squash', *CROPS))} and a size of 2 pixels or more, "
                         f"found crop {crop!r} and size {size}")
    if crop == "squash":
        return v2.Resize([size, size]), v2.Resize([size, size])
    square = [v2.Lambda(_cut_middle_square)] if middle_square else []
    cut = MultiScaleCrop(size, CROPS[crop], scales or SCALES)
    training = v2.Compose([*square, cut, v2.RandomHorizontalFlip(flip)])
    return training, v2.Compose([v2.Resize(size), v2.CenterCrop(size)])


def _cut_middle_square(frames: torch.Tensor) -> torch.Tensor:
    return functional.center_crop(frames, [min(functional.get_size(frames))] * 2)


def place_frames(length: int, window: int, stride: int = 1, how: str = "centre",
                 generator: torch.Generator | None = None) -> torch.Tensor:
    """Numbers of `window` frames, `stride` apart, of a clip of `length` frames, from 0: int64 (window,).

    A window spans window x stride frames; a shorter clip is looped from its start. At "random" the generator draws a
    start that fits, but not the last one where several fit, as in the published code of study B.
    """
    if min(length, window, stride) < 1:
        raise ValueError("frames are placed by numbers of 1 or more, "
                         f"found length {length}, window {window}, stride {stride}")
    free, start = max(0, length - window * stride), 0
    if how not in ("random", "centre", "begin") or how == "random" and generator is None:
        raise ValueError(f"a window lies at one of random, centre, begin (random needs a generator), found {how!r}")
    if how == "random":
        start = int(torch.randint(max(1, free), (), generator=generator))
    elif how == "centre":
        start = free // 2
    return (start + stride * torch.arange(window)) % length


def spread_frames(length: int, window: int, stride: int, count: int) -> torch.Tensor:
    """Numbers of the frames of `count` windows spread evenly over a clip ("even crops"): int64 (count, window).

    The first begins with the clip, the span of the last ends with it; a single one lies in the centre.
    """
    if count < 1:
        raise ValueError(f"frames are placed by numbers of 1 or more, found count {count}")
    if count == 1:
        return place_frames(length, window, stride)[None]
    free = max(0, length - window * stride)
    # To the nearest frame, in whole numbers: the same on every machine.
    starts = (2 * free * torch.arange(count) + count - 1) // (2 * (count - 1))
    return (starts[:, None] + place_frames(length, window, stride, "begin")) % length
