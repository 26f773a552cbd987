"""A recipe: everything that a training depends on besides its clips."""

import dataclasses
import hashlib
from dataclasses import dataclass, field

from health_actions.data.transforms import NORMALISATION, build_augmentation
from health_actions.paths import at_root

CHOICES = {"colour": ("rgb", "bgr"), "test_window": ("centre", "random"), "choose_on": ("validation", "testing"),
           "optimizer": ("adam", "adamw", "sgd"), "schedule": ("exponential", "steps", "one_cycle")}


@dataclass(frozen=True)
class Recipe:
    """Everything that a training depends on besides its clips.

    Args:
        architecture: name for `build_model`.
        size: height and width of the frames, pixels; one of those that were extracted.
        window: consecutive sampled frames that the model sees, or every `stride`-th frame of a clip.
        epochs, batch_size, learning_rate, weight_decay: of the optimizer.
        betas: of Adam.
        gamma: factor of the learning rate after each epoch, or at each of `milestones`.
        weights: to start from: None for random ones, "imagenet" of a backbone, or the path from the project's root of
            a model's folder or of a released checkpoint.
        options: further arguments of `build_model`.
        augmentation: of training clips, see `build_augmentation`.
        augmentation_probability: share of training clips that are changed, 0-1.
        augmented_copies: how many changed versions of a clip a frozen backbone sees; an epoch draws one of them.
        seed: of everything random; None draws a new one at each run, as the paper's code did.
        precision: see `choose_precision`; or as Lightning takes it ("32-true", "bf16-mixed").
        colour: order of the channels, "rgb", or "bgr" as in the paper's code.
        normalise: bring frames to the mean and deviation that ImageNet weights expect; False as in the paper's code.
        test_window: "centre", or "random" at validation and test, too, as in the paper's code.
        window_seed: of these random windows.
        choose_on: clips that choose the epoch: "validation", or "testing", which are then no test any more.
        stride: None for study A's frames; else see `FrameDataset`: training clips are then cropped as in study B, too.
        flip, middle_square: of these crops, see `build_crops`.
        optimizer: "adam", "adamw" or "sgd".
        momentum, dampening: of "sgd".
        schedule: of the learning rate: "exponential" (every epoch), "steps" (after the epochs in `milestones`), or
            "one_cycle": up from a 25th in the first 3 tenths of all steps, then down to nothing (Smith, 2018).
        milestones: see `schedule`.
        label_smoothing: share of the target that all classes get alike, 0-1.
        mean, std: per channel, of frames in 0-1, where `weights` want other ones than the architecture's.

    Raises:
        ValueError: for a choice that does not exist.
    """

    architecture: str
    size: int
    window: int
    epochs: int
    batch_size: int
    learning_rate: float
    betas: list[float]
    weight_decay: float
    gamma: float
    weights: str | None = None
    options: dict = field(default_factory=dict)
    augmentation: str = "none"
    augmentation_probability: float = 0.5
    augmented_copies: int = 2
    seed: int | None = 0
    precision: str = "auto"
    colour: str = "rgb"
    normalise: bool = True
    test_window: str = "centre"
    window_seed: int = 0
    choose_on: str = "validation"
    stride: int | None = None
    flip: float = 0.5
    middle_square: bool = False
    optimizer: str = "adam"
    momentum: float = 0.9
    dampening: float = 0.0
    schedule: str = "exponential"
    milestones: list[int] = field(default_factory=list)
    label_smoothing: float = 0.0
    mean: list[float] | None = None
    std: list[float] | None = None

    def __post_init__(self):
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be {' or '.join(known)}, found {getattr(self, name)!r}")
        if not 0 <= self.augmentation_probability <= 1:
            raise ValueError(f"augmentation_probability must lie in 0-1, found {self.augmentation_probability}")
        if self.augmented_copies < 1:
            raise ValueError(f"augmented_copies must be at least 1, found {self.augmented_copies}")
        if self.architecture == "three_stream" and not self.normalise:
            raise ValueError("three_stream normalises its streams itself: normalise must be true")
        build_augmentation(self.augmentation)

    @property
    def normalisation(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation per channel of frames in 0-1."""
        unchanged = [0.0] * 3, [1.0] * 3
        if self.mean is not None:
            return self.mean, self.std or unchanged[1]
        return NORMALISATION.get(self.architecture, unchanged) if self.normalise else unchanged


def describe_architecture(recipe: Recipe, classes: list[str]) -> dict:
    """The arguments of `build_model` for a recipe."""
    weights = str(at_root(recipe.weights)) if "/" in (recipe.weights or "") else recipe.weights
    return {"name": recipe.architecture, "num_classes": len(classes), "frames": recipe.window, "size": recipe.size,
            "pretrained": weights, **recipe.options}


def hash_weights(recipe: Recipe) -> str:
    """A hash of the files that a training starts from; empty where it starts from none."""
    if "/" not in (recipe.weights or ""):
        return ""
    path = at_root(recipe.weights)
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def read_recipe(card: dict) -> Recipe:
    """The recipe by which a model was trained, from its card, to vary it."""
    names = {entry.name for entry in dataclasses.fields(Recipe)}
    return Recipe(**{name: value for name, value in card["training"].items() if name in names})
