"""What params.yaml may hold: the types and ranges of all parameters, and sentences about what is wrong."""

import difflib
import functools
import json
import re
from collections.abc import Iterator
from itertools import takewhile
from typing import Annotated, Literal, get_args, get_origin

from pydantic import AfterValidator, BeforeValidator, Field, Strict, StrictBool, ValidationError, create_model
from pydantic.dataclasses import dataclass

from health_actions.learning import recipe
from health_actions.learning.recipe import Count, Number, Rate, RecipeFields, Seed, Share, Size, Some, Whole
from health_actions.paths import simplify_name

BASE = "published"  # the papers' values; another profile lists what differs
QUICK = {  # architectures, with their options, that are known without torch
    "convlstm": ["width", "dropout"],
    **dict.fromkeys(["cnn_lstm_custom", "cnn_lstm_resnet50", "cnn_lstm_alexnet", "cnn_lstm_efficientnet_lite0",
                     "cnn_lstm_efficientnet_lite2"],
                    ["freeze", "lstm_width", "dropout", "grid", "batch_norm"]),
    "three_stream": ["backbone", "freeze", "lstm_width", "dropout", "grid"],
    **dict.fromkeys(["c3d", "squeezenet"], ["dropout", "last_layer_only"]),
    **dict.fromkeys(["resnet18", "resnet50", "resnet101", "resnext101"], ["shortcut", "last_layer_only"]),
    **dict.fromkeys(["mobilenetv2", "shufflenetv2"], ["width_mult", "dropout", "last_layer_only"])}
# Names that tables (CSV) give back as numbers, truth values or empty cells; their own columns; what predict answers
# where it sees none of the classes; no names of folders.
UNSAFE = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?|[-+]?(inf(inity)?|nan)|true|false|#?n/?a|<na>|null|(?-i:None)|"
                    r"clip|class|fold|recording|take|predicted|all|everyday|file|start|end|action|probability|error|"
                    r"none of these|no action|nobody seen|no hand seen|.*[/\\\r\n].*|[\s.].*|.*\s|", re.IGNORECASE)


def _check_class(name):
    if not isinstance(name, str):
        raise ValueError(f'quote your class names ("step 1"): they must be text, found {json.dumps(name, default=str)}')
    if UNSAFE.fullmatch(name):
        raise ValueError(f'tables or folders would take "{name}" for something else than a class; rename it')
    return name


def _check_architecture(name: str) -> str:
    if name not in QUICK:
        from health_actions.models import MODEL_NAMES  # with torch, which takes seconds

        if name not in MODEL_NAMES:
            raise ValueError(f"unknown architecture {name}; known: {', '.join(MODEL_NAMES)}")
    return name


def _list_options(architecture: str) -> list[str]:
    if architecture not in QUICK:
        from health_actions.models import list_options

        return list_options(architecture)
    return QUICK[architecture]


@dataclass(frozen=True, kw_only=True, config=recipe.CHECKED)
class HandwashTraining(RecipeFields):
    folds_trained: Count | None


@dataclass(frozen=True, kw_only=True, config=recipe.CHECKED)
class NtuTraining(RecipeFields):
    starts: Some[Literal["scratch", "pretrained"]]


section = functools.partial(create_model, "Section", __config__=recipe.CHECKED)
Class = Annotated[str, BeforeValidator(_check_class)]
Architecture = Annotated[str, AfterValidator(_check_architecture)]
Folds = Annotated[int, Strict(), Field(ge=3)]  # for training, validation and testing
Protocol = Literal["stratified", "by_performer", "by_scene", "published"]
FRAMES = {"height": Size, "quality": Annotated[int, Strict(), Field(ge=1, le=95)], "address": str,
          "backend": Literal["threading", "loky", "multiprocessing", "sequential", "dask"]}
ANNOTATIONS = {"folds": Folds, "test_on": Literal["first_fold", "every_fold"], "seed": Seed,
               "keep_duplicates": StrictBool, "shares": recipe.Three[Count] | None, "lists": str}
STUDY = {"classes": Annotated[list[Class], Field(min_length=2)], "models": Some[Architecture],
         "reject": section(unknown_clips=Whole),
         "landmark_training": section(epochs=Count, batch_size=Count, learning_rate=Rate, weight_decay=recipe.Number,
                                      label_smoothing=Share, balance=Share, seed=Seed),
         "export": section(tolerance=Number, compared_clips=Count)}
HANDWASH = section(
    **STUDY, rival=str, landmark_fusion=section(unknown_clips=Whole),
    frames=section(**FRAMES, length=recipe.Window, stride=Count),
    annotations=section(**ANNOTATIONS, protocol=Literal[Protocol, "lists"]), training=HandwashTraining,
    architectures=dict[Architecture, HandwashTraining],
    settings=section(base=str, folds_trained=Count, epochs=Count, grid_epochs=Count, grid_size=Size | None,
                     grid_window=recipe.Window | None, augmentation_size=Size | None, batch_sizes=Some[Count],
                     learning_rates=Some[Rate], sizes=Some[Size], augmentations=Some[recipe.Augmentation]),
    errors=section(base=str, saliency_clips=Whole, most_errors=Whole),
    legacy_switches=section(base=str, folds_trained=Count, epochs=Count, repeats=Count),
    protocols=section(base=str, epochs=Count, compared_protocols=Some[Protocol], compared_folds=Folds,
                      seeds=Some[Seed]))
NTU = section(
    **STUDY, source_classes=list[Class], everyday_classes=list[Class], frames=section(**FRAMES, as_folders=StrictBool),
    annotations=section(**ANNOTATIONS, tolerance=Number,
                        protocol=Literal[Protocol, "cross_subject", "cross_view", "cross_setup", "lists"]),
    landmark_fusion=section(unknown_clips=Whole, certainty=Share), transforms=section(shown=Class),
    training=NtuTraining, architectures=dict[Architecture, NtuTraining],
    pretraining=dict[Architecture, section(epochs=Whole, released=str | None)],
    evaluation=section(windows=Count), actions=section(alerts=list[Class], detailed=dict[str, str]),
    behaviour=section(base=str, falling=Class, hand_action=Class, brightness=Some[Rate], shift=Share, mask=Share))
PARAMETERS = section(
    profile=str, handwash=HANDWASH, ntu=NTU,
    machine=section(accelerator=Literal["auto", "cpu", "gpu"], devices=Count, compile=Annotated[
        Literal[True, False, "auto"], BeforeValidator(lambda value: value if isinstance(value, bool) else str(value))]))
COMMON = {"handwash": ["classes", "models", "rival"],  # stand apart from the profiles
          "ntu": ["classes", "source_classes", "everyday_classes", "models"]}
# Parameter -> where what it names must be listed; a base may also be "best".
REFERENCES = {"handwash.models": "architectures", "handwash.rival": "architectures", "handwash.settings.base": "models",
              "handwash.errors.base": "models", "handwash.legacy_switches.base": "models",
              "handwash.protocols.base": "models", "ntu.models": "architectures", "ntu.behaviour.base": "models",
              "ntu.transforms.shown": "classes", "ntu.actions.alerts": "classes", "ntu.behaviour.falling": "classes"}


def find_faults(values: dict, merged: dict) -> list[str]:
    """What is wrong in params.yaml, a sentence each: the parameter with its profile, what is allowed, what was found.

    Args:
        values: as the file has them.
        merged: with the profile in use laid over the published one, see `read_params`.
    """
    faults = [f"{name} is written where no stage looks for it: it belongs to {place}"
              for name, place in _list_misplaced(values)]
    try:
        PARAMETERS.model_validate({name: _fill_architectures(merged[name]) for name in PARAMETERS.model_fields
                                   if name in merged})
    except ValidationError as error:
        found = [_describe(fault, values, str(values["profile"])) for fault in error.errors()]
        return list(dict.fromkeys([*faults, *found]))
    for name, kind in REFERENCES.items():
        study, *parts = name.split(".")
        used, known = functools.reduce(dict.get, parts, merged[study]), [*merged[study][kind]]
        faults += [f"{_find_place([study, *parts], values, values['profile'])} must name one of {', '.join(known)}, "
                   f"found {one}" for one in (used if isinstance(used, list) else [used])
                   if one.partition("/")[0] not in known and (one, parts[-1]) != ("best", "base")]
    for study in COMMON:
        for name, entry in _fill_architectures(merged[study])["architectures"].items():
            place, known = [study, "architectures", name, "options"], _list_options(name)
            faults += [f"{_find_place([*place, option], values, values['profile'])} is no option of {name}; "
                       f"known: {', '.join(known) or 'none'}" for option in entry["options"] if option not in known]
    for study, kinds in (("handwash", ["models"]), ("ntu", ["models"]), ("handwash", ["classes"]),
                         ("ntu", ["classes", "source_classes", "everyday_classes"])):
        names = [name for kind in kinds for name in merged[study][kind]]
        plain = [*map(simplify_name, names)]
        faults += [f"{study}: {name} is listed twice in {', '.join(kinds)}"
                   for number, name in enumerate(names) if plain[number] in plain[:number]]
    return faults


def _list_misplaced(values: dict) -> Iterator[tuple[str, str]]:
    for first, part in values.items():
        if first in COMMON and isinstance(part, dict):
            yield from ((f"{first}.{name}", BASE) for name in part if name not in COMMON[first])
        elif first not in (*COMMON, "profile", "machine"):  # a profile
            for second, inner in (part or {}).items() if isinstance(part, dict | None) else [("", {})]:
                if second not in COMMON:
                    yield f"{first}.{second}".strip("."), "no profile"
                yield from ((f"{first}.{second}.{name}", second) for name in COMMON.get(second, ())
                            if isinstance(inner, dict) and name in inner)


def _fill_architectures(study):
    """A study in which each architecture has the values of `training`, too; what is no study stays as it is."""
    known, training = (study.get(name) if isinstance(study, dict) else None for name in ("architectures", "training"))
    if not (isinstance(known, dict) and isinstance(training, dict)):
        return study
    filled = {name: {"architecture": str(name), **training, **entry} if isinstance(entry, dict) else entry
              for name, entry in known.items()}
    return {**study, "training": {"architecture": "any", "size": 32, **training}, "architectures": filled}


def _describe(fault: dict, values: dict, profile: str) -> str:
    place = [part for part in fault["loc"] if part != "[key]"]
    names = list(takewhile(lambda part: isinstance(part, str), place))
    name = _find_place(names, values, profile) + recipe.name_place(place[len(names):])
    if fault["type"] not in ("extra_forbidden", "unexpected_keyword_argument"):
        return recipe.explain(fault, name)
    known = PARAMETERS
    for part in names[:-1]:
        known = get_args(known)[1] if get_origin(known) is dict else known.__pydantic_fields__[part].annotation
    known = list(known.__pydantic_fields__)
    return f"{recipe.explain(fault, name)}; known: {', '.join(difflib.get_close_matches(names[-1], known) or known)}"


def _find_place(names: list[str], values: dict, profile: str) -> str:
    """Where a parameter is written, dotted: in the profile, among the published values, or apart from both."""
    places = [[profile, *names], [BASE, *names], names]
    if names[1:2] == ["architectures"]:
        places[2:2] = [[start, names[0], "training", *names[3:]] for start in (profile, BASE)]
    for place in places:
        value = values
        for part in place:
            value = value.get(part, KeyError) if isinstance(value, dict) else KeyError
        if value is not KeyError:
            return ".".join(place)
    if names[1:2] == ["architectures"] and names[-1] != "size":  # it is missing in all of them
        names = [names[0], "training", *names[3:]]
    return ".".join([BASE] * (len(names) > 2) + names)
