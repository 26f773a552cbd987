"""Models that a command names by a path: model folders, folders of folds, and files of published weights."""

import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import torch

from health_actions.learning.features import hash_files, hash_text
from health_actions.learning.recipe import Recipe, describe_architecture, describe_model, make_recipe
from health_actions.learning.scores import read_cards
from health_actions.models import build_model, load_published
from health_actions.models.checkpoints import read_folder, read_weights
from health_actions.models.weights import save_model
from health_actions.params import inspect_params, read_params
from health_actions.paths import place_inside
from health_actions.schema import BASE

STUDIES = ("ntu", "handwash")
ASK = "give --study handwash (hand washing) or --study ntu (medical actions)"


def choose_fold(folder: Path) -> Path:
    """Of the folds of one model, `<folder>/fold_<k>/`, the one with the best validation."""
    try:
        best = max(read_cards(folder), key=lambda card: card["scores"]["validation_clip_top1"])
        return place_inside(folder, f"fold_{best['training']['fold']}")
    except (LookupError, TypeError) as error:
        raise ValueError(f"a card.json in {folder} is not complete ({error}): train the model again") from None


def open_checkpoint(root: Path, path: Path, model: str | None = None, study: str | None = None
                    ) -> tuple[Path, dict, str]:
    """A model that a command names: its folder or file, its card, and the study that it belongs to.

    Args:
        path: a model folder, a folder of folds (of which the best one is taken), or a file, see `describe_weights`.
        model: its architecture, as params.yaml or study A's commands name it; None: whichever it is.
        study: None: that which has its classes.

    Raises:
        FileNotFoundError, ValueError: where there is no model, or it is not of this architecture or study.
    """
    path = Path(path).resolve()
    if path.is_dir() and not (path / "card.json").is_file():
        path = choose_fold(path)
    params = read_params(root)
    if path.is_dir():
        card = read_folder(path)[0]
        known = {name: {each for kind in ("classes", "source_classes", "everyday_classes")
                        for each in params[name].get(kind, [])} for name in STUDIES}
        owners = [name for name in STUDIES if known[name] & {*(card["classes"] or ())}] or [study]
    else:
        owner, card = describe_weights(root, path, study)
        owners = [owner]
    name = card["architecture"]["name"]
    if model not in (None, name, name.removeprefix("cnn_lstm_")):
        raise ValueError(f"{path} holds {name}, not {model}: give this name, or none")
    if owners == [None]:
        raise ValueError(f"{path}: its classes are of neither study; {ASK}")
    if study not in (None, *owners):
        raise ValueError(f"{path} is a model of study {owners[0]}, not {study}")
    return path, card, study or owners[0]


def describe_weights(root: Path, file: Path, study: str | None = None) -> tuple[str, dict]:
    """Study and card of a file of published weights: names and shapes tell architecture, frame size and LSTM width.

    All else is as the published profile has it, but for study A's frames, BGR in 0-1 as in its code. AlexNet's weights
    for 64 and 84 pixels are alike: a number in the file's name decides, else the profile. The card has no classes where
    the file has another number of them than the study.
    """
    state, params, other = read_weights(file)[1], inspect_params(root, BASE)[0], None
    for owner in [study] if study else STUDIES:
        settings = params[owner]
        sizes = settings.get("settings", {}).get("sizes", [])
        named = [size for size in sizes if str(size) in re.findall(r"\d+", file.stem)]
        frames = {name: settings["frames"].get(name, standard)
                  for name, standard in (("height", None), ("length", None), ("stride", 1))}
        for name in settings["architectures"]:
            given = {"precision": "32-true"}
            if name == "convlstm" or name.startswith("cnn_lstm"):  # study A's code showed them OpenCV's frames in 0-1
                given |= {"colour": "bgr", "normalise": False}
            recipe = replace(make_recipe(settings, owner, name, given), weights=None)
            recipe, count = fit_recipe(recipe, state, [*named, recipe.size, *sizes]) or (None, 0)
            if recipe:
                known = len(settings["classes"]) == count
                card = describe_model(recipe, settings["classes"] if known else [], frames)
                card |= {"training": {**asdict(recipe), "fold": 1}, "data": {"file": file.name}, "scores": {}}
                card["architecture"]["num_classes"] = count
                if known:
                    return owner, card
                other = other or (owner, card)
    if other is None:
        name, tensor = next(iter(state.items()), ("nothing", torch.empty(0)))
        raise ValueError(f"{file} fits no architecture of params.yaml at a size of its published profile; it begins "
                         f"with {name} {tuple(tensor.shape)}")
    return other


def fit_recipe(recipe: Recipe, state: Mapping[str, torch.Tensor], sizes: list[int]) -> tuple[Recipe, int] | None:
    """The recipe with the frame size and LSTM width of these weights, and their number of classes; None: none fits."""
    def outline(weights: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
        return {name: tuple(each.shape) for name, each in weights.items() if not name.endswith("num_batches_tracked")}

    def build(changed: Recipe, count: int) -> dict[str, tuple[int, ...]]:
        with torch.device("meta"):
            return outline(build_model(**describe_architecture(changed, range(count))).state_dict())

    shapes, first = outline(state), build(recipe, 2)
    count = (*shapes.get([*first][-1], ()), 0)[0]
    if shapes.keys() != first.keys() or count < 2:
        return None
    widths = [{"lstm_width": shapes[name][-1]} for name in ("rnn.weight_hh_l0",) if name in shapes]
    fitting = (replace(recipe, size=size, options=recipe.options | width)
               for width, size in itertools.product([{}, *widths], dict.fromkeys(sizes)))
    return next(((changed, count) for changed in fitting if build(changed, count) == shapes), None)


def adopt_weights(root: Path, file: Path, card: dict) -> Path:
    """The model folder, in `.resume`, of a file that `describe_weights` described."""
    if not card["classes"]:
        raise ValueError(f"{file} has {card['architecture']['num_classes']} classes, params.yaml has another number of "
                         "them: train from it first (health-actions train --checkpoint)")
    folder = Path(root) / ".resume" / "checkpoints" / hash_text(hash_files(file), json.dumps(card))
    if not (folder / "card.json").is_file():
        model = build_model(**card["architecture"])
        load_published(model, file)
        save_model(folder, model, card)
    return folder
