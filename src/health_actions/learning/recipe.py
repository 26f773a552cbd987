"""A recipe: everything that a training depends on besides its clips. Imported without torch, to check params.yaml."""

import json
import re
from dataclasses import field
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field, Strict, StrictBool, ValidationError, model_validator
from pydantic.dataclasses import dataclass

Item = TypeVar("Item")
Some = Annotated[list[Item], Field(min_length=1)]
Three = Annotated[list[Item], Field(min_length=3, max_length=3)]
Whole = Annotated[int, Strict(), Field(ge=0)]
Count = Annotated[int, Strict(), Field(ge=1)]
Window = Annotated[int, Strict(), Field(ge=8)]  # frames, and pixels, that every model can take
Size = Annotated[int, Strict(), Field(ge=32)]
Seed = Annotated[int, Strict(), Field(ge=0, lt=2**32)]  # of numpy
Number = Annotated[float, Strict(), Field(ge=0)]
Rate = Annotated[float, Strict(), Field(gt=0)]
Share = Annotated[float, Strict(), Field(ge=0, le=1)]
Scale = Annotated[float, Strict(), Field(gt=0, le=1)]
Beta = Annotated[float, Strict(), Field(ge=0, lt=1)]
Augmentation = Literal["none", "translation", "contrast", "mirror", "camera"]
CHECKED = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class RecipeFields:
    """The values of a `Recipe`; a pydantic ValidationError has all that are wrong."""

    architecture: str  # as `build_model` takes it
    size: Size  # height and width of the model's input, pixels
    window: Window  # the model sees so many frames of the store, `stride` apart
    epochs: Count
    batch_size: Count
    learning_rate: Rate
    betas: Annotated[list[Beta], Field(min_length=2, max_length=2)]  # of adam and adamw
    weight_decay: Number
    gamma: Number  # factor of the learning rate, see schedule
    weights: str | None = None  # None: random; "imagenet"; or the path of a model folder or a checkpoint, from the root
    options: dict[str, Any] = field(default_factory=dict)  # further arguments of `build_model`
    stride: Count = 1
    crop: Literal["squash", "corner", "centre", "random"] = "squash"  # study A's, or study B's; see `build_spatial`
    scales: Some[Scale] | None = None  # of study B's training crops: shares of the short side; None: the published five
    flip: Share = 0.5  # share of study B's training crops that are mirrored
    middle_square: StrictBool = False  # study B's crops of the square in the middle alone
    training_window: Literal["random", "centre"] = "random"  # where the window of a training clip lies
    augmentation: Augmentation = "none"  # of training clips, see `build_augmentation`
    augmentation_probability: Share = 0.5  # share of training clips that are augmented
    augmented_copies: Count = 2  # augmented versions of a clip that a frozen backbone sees; an epoch draws one of them
    seed: Seed | None = 0  # of everything random; None draws a new one for each run, as study A's code did
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"  # as Fabric's, or see `choose_precision`
    colour: Literal["rgb", "bgr"] = "rgb"  # order of the channels; "bgr" as in the papers' code
    mean: Three[Number] | None = None  # per channel, of frames in 0-1; None: the architecture's (`get_normalisation`)
    std: Three[Rate] | None = None
    normalise: StrictBool = True  # False leaves frames in 0-1 where mean is None, as study A's code did
    test_window: Literal["centre", "random"] = "centre"  # "random" in validation and test, too, as in study A's code
    window_seed: Seed = 0  # of these random windows
    keep: Literal["best", "last"] = "best"  # the weights of which epoch; the last needs no clips that choose it
    choose_on: Literal["validation", "testing"] = "validation"  # chooses the epoch; "testing" makes its score too high
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    momentum: Share = 0.9  # of sgd
    dampening: Share = 0.0  # of sgd: a step adds 1 - dampening of its gradient to the momentum
    schedule: Literal["exponential", "steps", "one_cycle"] = "exponential"  # of the learning rate; steps: at milestones
    milestones: list[Count] = field(default_factory=list)
    head_rate: Rate = 1.0  # of a 3-D CNN's output layer, as a factor of learning_rate
    label_smoothing: Share = 0.0  # share of the target that is spread over all classes

    @model_validator(mode="after")
    def _check_together(self):
        if self.architecture == "three_stream" and not self.normalise:
            raise ValueError("normalise must be true for three_stream, which normalises its streams itself")
        if self.keep == "last" and self.choose_on == "testing":
            raise ValueError("choose_on must be 'validation' where keep is 'last', which chooses no epoch")
        return self


class Recipe(RecipeFields):
    """Everything that a training depends on besides its clips; a ValueError names all that have a wrong value."""

    def __init__(self, **values):
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ValueError("; ".join(explain(fault, name_place(fault["loc"])) for fault in error.errors())) from None

    @property
    def normalisation(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation per channel of frames in 0-1."""
        from health_actions.models import get_normalisation  # with torch

        if self.mean is not None:
            return self.mean, self.std or [1.0] * 3
        return get_normalisation(self.architecture) if self.normalise else ([0.0] * 3, [1.0] * 3)


def name_place(place: tuple[str | int, ...]) -> str:
    """A place in nested values as dvc writes it: "training.betas[1]"."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")


def explain(fault: dict, name: str) -> str:
    """One of pydantic's errors as a sentence: what is wrong, what is allowed, what was found (as YAML writes it)."""
    if fault["type"] == "missing":
        return f"{name} is missing"
    if fault["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{name} is unknown"
    if fault["type"] == "value_error":  # of one of our own checks
        return f"{name}: {fault['ctx']['error']}".removeprefix(": ")
    allowed = re.sub(" or (an )?instance of .*", "", fault["msg"])
    allowed = re.sub("^(Input|List|Dictionary) should", "must", allowed)
    return f"{name} {allowed}, found {json.dumps(fault['input'], default=str, skipkeys=True)}"


def describe_architecture(recipe: Recipe, classes: list[str]) -> dict:
    """The arguments of `build_model` for a recipe."""
    return {"name": recipe.architecture, "num_classes": len(classes), "frames": recipe.window, "size": recipe.size,
            "pretrained": recipe.weights, **recipe.options}


def describe_model(recipe: Recipe, classes: list[str], frames: dict) -> dict:
    """What a model's card says before its training; `frames` are the settings of the store, see `read_settings`."""
    mean, std = recipe.normalisation
    return {"architecture": {**describe_architecture(recipe, classes), "pretrained": None}, "classes": classes,
            "preprocessing": {"mean": mean, "std": std, "range": "0-1 before mean and std", "colour": recipe.colour},
            "frames": frames,
            "clip": {name: getattr(recipe, name) for name in ("size", "crop", "window", "stride", "test_window")}}


def make_recipe(settings: dict, study: str, name: str, given: dict[str, Any]) -> Recipe:
    """The recipe of an architecture of params.yaml; values that are given, and not None, replace its values.

    Args:
        settings: of the study.
        name: as in params.yaml, or as study A's commands have it: alexnet for cnn_lstm_alexnet.

    Raises:
        ValueError: for an architecture that params.yaml does not have; lists those it has.
    """
    known = settings["architectures"]
    name = name if name in known else f"cnn_lstm_{name}"
    if name not in known:
        raise ValueError(f"params.yaml has no architecture {name.removeprefix('cnn_lstm_')!r} of study {study}; it has "
                         f"{', '.join(known)}")
    values = settings["training"] | known[name] | {key: value for key, value in given.items() if value is not None}
    return Recipe(architecture=name, **{key: values[key] for key in Recipe.__dataclass_fields__ if key in values})


def read_recipe(card: dict) -> Recipe:
    """The recipe by which a model was trained, from its card; to vary it, see `dataclasses.replace`."""
    return Recipe(**{key: value for key, value in card["training"].items() if key in Recipe.__dataclass_fields__})
