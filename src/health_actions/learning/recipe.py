"""A recipe: everything that a training depends on besides its clips."""

from dataclasses import dataclass, field

from health_actions.data.transforms import build_augmentation
from health_actions.models import get_normalisation

CHOICES = {"crop": ("squash", "corner"), "colour": ("rgb", "bgr"), "test_window": ("centre", "random"),
           "choose_on": ("validation", "testing"), "optimizer": ("adam", "adamw", "sgd"),
           "schedule": ("exponential", "steps", "one_cycle")}


def _is_number(value, least: float = float("-inf"), most: float = float("inf")) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most


def _is_list(value, count: int) -> bool:
    return isinstance(value, list | tuple) and len(value) == count and all(map(_is_number, value))


CHECKS = {  # parameter -> what its value must fulfil, and this in words
    **{name: (known.__contains__, " or ".join(known)) for name, known in CHOICES.items()},
    **dict.fromkeys(("size", "window", "stride", "epochs", "batch_size", "augmented_copies"),
                    (lambda value: type(value) is int and value >= 1, "a whole number of 1 or more")),
    **dict.fromkeys(("learning_rate", "weight_decay", "gamma"),
                    (lambda value: _is_number(value, 0), "a number of 0 or more")),
    **dict.fromkeys(("augmentation_probability", "flip", "momentum", "dampening", "label_smoothing"),
                    (lambda value: _is_number(value, 0, 1), "a number in 0-1")),
    **dict.fromkeys(("mean", "std"), (lambda value: value is None or _is_list(value, 3), "a list of 3 numbers")),
    "betas": (lambda value: _is_list(value, 2), "a list of 2 numbers")}


@dataclass(frozen=True)
class Recipe:
    """Everything that a training depends on besides its clips; a ValueError names what has a wrong value."""

    architecture: str  # as `build_model` takes it
    size: int  # height and width of the model's input, pixels
    window: int  # the model sees so many frames of the store, `stride` apart
    epochs: int
    batch_size: int
    learning_rate: float
    betas: list[float]  # of adam and adamw
    weight_decay: float
    gamma: float  # factor of the learning rate, see schedule
    weights: str | None = None  # None: random; "imagenet"; or the path of a model folder or a checkpoint, from the root
    options: dict = field(default_factory=dict)  # further arguments of `build_model`
    stride: int = 1
    crop: str = "squash"  # study A's, or "corner", study B's; see `build_spatial`
    flip: float = 0.5  # share of corner crops that are mirrored
    middle_square: bool = False  # corner crops of the square in the middle alone
    augmentation: str = "none"  # of training clips, see `build_augmentation`
    augmentation_probability: float = 0.5  # share of training clips that are augmented
    augmented_copies: int = 2  # augmented versions of a clip that a frozen backbone sees; an epoch draws one of them
    seed: int | None = 0  # of everything random; None draws a new one for each run, as study A's code did
    precision: str = "auto"  # see `choose_precision`, or as Fabric takes it ("32-true", "bf16-mixed")
    colour: str = "rgb"  # order of the channels; "bgr" as in the papers' code
    mean: list[float] | None = None  # per channel, of frames in 0-1; None: the architecture's (`get_normalisation`)
    std: list[float] | None = None
    normalise: bool = True  # False leaves frames in 0-1 where mean is None, as study A's code did
    test_window: str = "centre"  # "random" in validation and test, too, as in study A's code
    window_seed: int = 0  # of these random windows
    choose_on: str = "validation"  # clips that choose the epoch; "testing" makes the test score too high
    optimizer: str = "adam"  # or "adamw", "sgd"
    momentum: float = 0.9  # of sgd, and dampening
    dampening: float = 0.0
    schedule: str = "exponential"  # of the learning rate; "steps" at milestones, "one_cycle"; see `build_schedule`
    milestones: list[int] = field(default_factory=list)
    label_smoothing: float = 0.0  # share of the target that is spread over all classes

    def __post_init__(self):
        for name, (is_correct, expected) in CHECKS.items():
            if not is_correct(getattr(self, name)):
                raise ValueError(f"{name} must be {expected}, found {getattr(self, name)!r}")
        if self.architecture == "three_stream" and not self.normalise:
            raise ValueError("normalise must be true for three_stream, which normalises its streams itself")
        build_augmentation(self.augmentation)

    @property
    def normalisation(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation per channel of frames in 0-1."""
        if self.mean is not None:
            return self.mean, self.std or [1.0] * 3
        return get_normalisation(self.architecture) if self.normalise else ([0.0] * 3, [1.0] * 3)


def describe_architecture(recipe: Recipe, classes: list[str]) -> dict:
    """The arguments of `build_model` for a recipe."""
    return {"name": recipe.architecture, "num_classes": len(classes), "frames": recipe.window, "size": recipe.size,
            "pretrained": recipe.weights, **recipe.options}


def read_recipe(card: dict) -> Recipe:
    """The recipe by which a model was trained, from its card; to vary it, see `dataclasses.replace`."""
    return Recipe(**{key: value for key, value in card["training"].items() if key in Recipe.__dataclass_fields__})
