"""Weights of this project's trainings: model folders, and which weights a training of study B starts from."""

import json
from pathlib import Path

from safetensors.torch import save_file
from torch import nn

from health_actions.models import build_model
from health_actions.models.checkpoints import CARD_KEYS, read_folder, take_first_line
from health_actions.models.speedups import speed_up
from health_actions.paths import atomic_write, place_inside, write_text


def save_model(folder: Path, model: nn.Module, card: dict) -> None:
    """Write weights.safetensors and card.json, whose `architecture` are the arguments of `build_model` for `model`."""
    missing = [key for key in CARD_KEYS if key not in card]
    if missing:
        raise ValueError(f"the card of {folder} lacks {', '.join(missing)}")
    with atomic_write(Path(folder) / "weights.safetensors") as temporary:
        save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, temporary)
    write_text(Path(folder) / "card.json", json.dumps(card, indent=1) + "\n")


def load_model(folder: Path, device: str = "cpu") -> tuple[nn.Module, dict]:
    """Read a model folder: the model in evaluation mode, made faster on a CPU by `speed_up`, and its card.

    FileNotFoundError or ValueError when a file is missing or damaged, or the two do not belong together.
    """
    card, state = read_folder(Path(folder))
    try:
        architecture = card["architecture"]
        if architecture.get("pretrained") is not None:  # a card opens no other file
            raise ValueError("its card asks for weights from elsewhere")
        model = build_model(**architecture)
        model.load_state_dict(state)
    except (ValueError, LookupError, TypeError, AttributeError, RuntimeError, MemoryError) as error:
        raise ValueError(f"{folder} is no usable model folder: {take_first_line(error)}") from None
    return speed_up(model.eval()) if device == "cpu" else model.eval().to(device), card


def write_start(folder: Path, weights: str | None) -> None:
    """Write `<folder>/start.json`: the path, from the project's root, of the weights to start from; None for none."""
    write_text(Path(folder) / "start.json", json.dumps({"weights": weights}) + "\n")


def read_start(folder: Path) -> str | None:
    """What `write_start` wrote; FileNotFoundError when the pretraining has not run, ValueError for a damaged file."""
    file = Path(folder) / "start.json"
    if not file.is_file():
        raise FileNotFoundError(f"no {file}: run the pretraining first (make repro)")
    try:
        weights = json.loads(file.read_text(encoding="utf-8"))["weights"]
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{file} is damaged ({error}): run the pretraining again (make repro)") from None
    return None if weights is None else place_inside("", weights).as_posix()
