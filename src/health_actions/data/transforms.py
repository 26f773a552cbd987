"""What is done to a clip's frames before a model sees them; one convention for every model.

A clip is a tensor (frames, 3, height, width) here, the form that torchvision's transforms take, so that each frame of a
clip is changed in the same way. Frames are numbered from 0. Boxes are (left, top, right, bottom) in pixels, right and
bottom not included.
"""

import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

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
# What study B's released Kinetics-600 weights were trained with: pixels in 0-255 minus this mean, divided by 1; for
# `build_input_transform(*ACTIVITYNET, "bgr")`. The list is the mean of red, green and blue (the code it comes from, 3D
# ResNets, reads RGB), yet the code that trained the weights subtracts it in this order from OpenCV's BGR frames: blue
# got the mean of red. The weights learned with that, so it stays. It belongs to those weights, not to the models.
ACTIVITYNET = ([114.7748 / 255, 107.7354 / 255, 99.4750 / 255], [1 / 255] * 3)
SCALES = (1.0, 0.97, 0.9409, 0.912673, 0.88529281)  # of the short side: study B's training crops
CORNERS = ("c", "tl", "tr", "bl", "br")  # where a crop lies: in the centre, top left, ..., bottom right
PLACES = ("random", "centre", "begin")  # where a window lies
AUGMENTATIONS = {
    "none": None,
    "translation": v2.RandomAffine(degrees=0, translate=(0.2, 0)),
    "contrast": v2.ColorJitter(contrast=0.5),
    "mirror": v2.RandomHorizontalFlip(p=1),
}


def build_input_transform(mean: list[float], std: list[float], colour: str = "rgb") -> v2.Transform:
    """uint8 frames in 0-255 -> float32, scaled to 0-1, minus mean, divided by std (per channel, in 0-1).

    `colour` "bgr" gives the channels to the model in the order of OpenCV, as study A's code did; mean and std stay, so
    their first entries are then blue's (see `ACTIVITYNET`).
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


def corner_box(width: int, height: int, scale: float, corner: str) -> tuple[int, int, int, int]:
    """A square of study B's training crops: (left, top, right, bottom) in pixels.

    Its side is the short side x scale, rounded down; in the centre it is rounded down to an even number, as published.

    Args:
        width, height: of the frame, pixels.
        scale: above 0, up to 1.
        corner: one of `CORNERS`.

    Raises:
        ValueError: for another corner or scale, and a frame so small that nothing is left of it.
    """
    if corner not in CORNERS:
        raise ValueError(f"a crop's corner must be one of {', '.join(CORNERS)}, found {corner!r}")
    if not 0 < scale <= 1:
        raise ValueError(f"a crop's scale must lie above 0 and up to 1, found {scale}")
    side = int(min(width, height) * scale)
    if side < 2:
        raise ValueError(f"a crop must be 2 pixels wide or more; {scale} of {width} x {height} pixels gives {side}")
    if corner == "c":
        left, top, side = width // 2 - side // 2, height // 2 - side // 2, side // 2 * 2
    else:
        left = 0 if corner[1] == "l" else width - side
        top = 0 if corner[0] == "t" else height - side
    return left, top, left + side, top + side


def centre_box(width: int, height: int, size: int) -> tuple[tuple[int, int], tuple[int, int, int, int]]:
    """Study B's test crop: (width, height) that a frame is scaled to, and the box that is then taken of it, in pixels.

    The short side becomes `size`, the long side is rounded down; half pixels of the box go to the even number, as
    published.

    Raises:
        ValueError: for a frame or a size without pixels.
    """
    if min(width, height, size) < 1:
        raise ValueError(f"frames and crops need pixels, found {width} x {height} and {size}")
    short = min(width, height)
    scaled = int(size * width / short), int(size * height / short)
    left, top = (round((side - size) / 2) for side in scaled)
    return scaled, (left, top, left + size, top + size)


class MultiScaleCornerCrop(v2.Transform):
    """Study B's training crop: a square at one of four corners or the centre, bilinearly resized; see `corner_box`.

    Scale and corner are drawn once a call, by torch's global generator (see `datasets.draw_augmentation`): every frame
    of a clip is cropped in the same way.

    Args:
        size: of the result, pixels.
        scales: to draw from, above 0 and up to 1.

    Raises:
        ValueError: for a size below 2 or no scales; for scales that are out of range when the first of them is drawn.
    """

    def __init__(self, size: int, scales: tuple[float, ...] = SCALES):
        super().__init__()
        _check_size(size)
        if not scales:
            raise ValueError("a training crop needs one scale at least, found none")
        self.size, self.scales = size, tuple(scales)

    def make_params(self, flat_inputs: list) -> dict:
        """Draw scale, corner and box for the size of the first input (a clip or a frame)."""
        height, width = functional.get_size(flat_inputs[0])
        scale = self.scales[int(torch.randint(len(self.scales), ()))]
        corner = CORNERS[int(torch.randint(len(CORNERS), ()))]
        return {"scale": scale, "corner": corner, "box": corner_box(width, height, scale, corner)}

    def transform(self, inpt: torch.Tensor, params: dict) -> torch.Tensor:
        """(..., 3, height, width) -> (..., 3, size, size) of the same dtype."""
        left, top, right, bottom = params["box"]
        return functional.resized_crop(inpt, top, left, bottom - top, right - left, [self.size, self.size])


class CentreCrop(v2.Transform):
    """Study B's test crop: the short side bilinearly scaled to `size`, then the square in the centre; see `centre_box`.

    Args:
        size: of the result, pixels.

    Raises:
        ValueError: for a size below 2.
    """

    def __init__(self, size: int):
        super().__init__()
        _check_size(size)
        self.size = size

    def make_params(self, flat_inputs: list) -> dict:
        """Scaled size and box for the size of the first input (a clip or a frame)."""
        height, width = functional.get_size(flat_inputs[0])
        scaled, box = centre_box(width, height, self.size)
        return {"scaled": scaled, "box": box}

    def transform(self, inpt: torch.Tensor, params: dict) -> torch.Tensor:
        """(..., 3, height, width) -> (..., 3, size, size) of the same dtype."""
        (width, height), (left, top, right, bottom) = params["scaled"], params["box"]
        return functional.crop(functional.resize(inpt, [height, width]), top, left, bottom - top, right - left)


class MiddleSquare(v2.Transform):
    """The square in the middle of a picture, as high (or wide) as its short side."""

    def transform(self, inpt: torch.Tensor, params: dict) -> torch.Tensor:
        """(..., 3, height, width) -> (..., 3, side, side) of the same dtype."""
        return functional.center_crop(inpt, [min(functional.get_size(inpt))] * 2)


def build_crops(size: int, *, flip: float = 0.5, scales: tuple[float, ...] = SCALES,
                middle_square: bool = False) -> tuple[v2.Transform, v2.Transform]:
    """Study B's crops of training clips (a corner, then mirrored or not) and of all others (the centre).

    The paper mirrors first. With places on the left and on the right drawn alike, the order makes no difference to what
    is drawn how often, and the whole picture takes longer to mirror than everything else.

    Both take clips (frames, 3, height, width), uint8 or float, and give (frames, 3, size, size) of the same dtype and
    range; the first draws by torch's global generator.

    Args:
        size: pixels.
        flip: probability of mirroring a training clip, 0-1.
        scales: see `MultiScaleCornerCrop`.
        middle_square: take the corners of the square in the middle. The paper's are those of the whole picture, and
            of a person in the middle of a wide one, four in five such crops show a part or nothing.

    Raises:
        ValueError: for a size below 1, no scales, or a probability that is none.
    """
    steps = [*([MiddleSquare()] if middle_square else []), MultiScaleCornerCrop(size, scales),
             v2.RandomHorizontalFlip(flip)]
    return v2.Compose(steps), CentreCrop(size)


def place_frames(length: int, window: int, stride: int = 1, how: str = "centre",
                 generator: torch.Generator | None = None, *, last_start: bool = False) -> torch.Tensor:
    """Numbers of the frames of one window of a clip: every `stride`-th, so all different where the clip is long enough.

    A window spans window x stride frames. A clip that is shorter is looped from its start, wherever the window should
    have been.

    Args:
        length: frames of the clip.
        window: frames to take.
        stride: 1 takes consecutive frames.
        how: "begin", "centre", or "random", one start in as many as fit.
        generator: draws the random start.
        last_start: whether the last start that fits is drawn, too. The published code leaves it out, so study B's
            windows never end with a long clip's last frames; study A's do (`place_window`).

    Returns:
        Frame numbers from 0, int64 (window,).

    Raises:
        ValueError: for a length, window or stride below 1, another `how`, and "random" without a generator.
    """
    _check_window(length, window, stride)
    start = _choose_start(length - window * stride, how, generator, last_start)
    return _take_frames(torch.tensor(start), length, window, stride)


def spread_frames(length: int, window: int, stride: int, count: int) -> torch.Tensor:
    """Numbers of the frames of windows that are spread evenly over a clip, to score the whole clip ("even crops").

    The first window begins with the clip and the last one's span ends with it; one alone lies in the centre. Of a clip
    that is shorter than a span, all windows are the same loop. See `place_frames`.

    Args:
        length: frames of the clip.
        window: frames of each window.
        stride: 1 takes consecutive frames.
        count: windows.

    Returns:
        Frame numbers from 0, int64 (count, window).

    Raises:
        ValueError: for a length, window, stride or count below 1.
    """
    _check_window(length, window, stride)
    if count < 1:
        raise ValueError(f"a clip is scored by 1 window or more, found {count}")
    free = max(0, length - window * stride)
    if count == 1:
        starts = torch.tensor([free // 2])
    else:  # to the nearest frame, in whole numbers: the same on every machine
        starts = (2 * free * torch.arange(count) + count - 1) // (2 * (count - 1))
    return _take_frames(starts, length, window, stride)


def place_window(length: int, window: int, generator: torch.Generator | None = None) -> int:
    """First frame of a window of consecutive sampled frames: random with a generator (training), else the centre.

    As `place_frames` with stride 1 and `last_start`, but study A's clips have one length, so a short one is an error.

    Raises:
        ValueError: when the window is longer than the clip.
    """
    if window > length:
        raise ValueError(f"a window of {window} frames does not fit into the {length} sampled frames of a clip")
    return _choose_start(length - window, "centre" if generator is None else "random", generator, True)


def _choose_start(free: int, how: str, generator: torch.Generator | None, last_start: bool) -> int:
    """A start from 0 to `free`, the frames that are left beside the window's span; 0 where there are none."""
    if how not in PLACES:
        raise ValueError(f"a window's place must be one of {', '.join(PLACES)}, found {how!r}")
    if how == "random":
        if generator is None:
            raise ValueError("a random window needs a generator to draw it, found none")
        return int(torch.randint(max(1, free + last_start), (), generator=generator))
    return max(0, free) // 2 if how == "centre" else 0


def _take_frames(starts: torch.Tensor, length: int, window: int, stride: int) -> torch.Tensor:
    return (starts[..., None] + stride * torch.arange(window)) % length


def _check_window(length: int, window: int, stride: int) -> None:
    if min(length, window, stride) < 1:
        raise ValueError("length, window and stride must be 1 or more, "
                         f"found {length} frames, a window of {window}, a stride of {stride}")


def _check_size(size: int) -> None:
    if size < 2:  # torch fails inside at a single pixel of uint8
        raise ValueError(f"a crop's size must be 2 pixels or more, found {size}")


def _reverse_channels(frames: torch.Tensor) -> torch.Tensor:
    return frames.flip(-3)
