"""Weights of this project's trainings: model folders, and which weights a training of study B starts from."""

import json
from pathlib import Path

from safetensors.torch import save_file
from torch import nn

from health_actions.models import build_model
from health_actions.models.checkpoints import CARD_KEYS, read_folder, take_first_line
from health_actions.models.speedups import speed_up
from health_actions.paths import atomic_write, place_inside, write_text

SOURCE = ("the model zoo of the public repository okankop/Efficient-3DCNNs (Kopuklu et al., 2019), "
          "a folder of files that its README links")


def save_model(folder: Path, model: nn.Module, card: dict) -> None:
    """Write a model folder: weights.safetensors, and card.json that says what the weights are.

    Args:
        folder: made if missing.
        model: built by `build_model` with `card["architecture"]`.
        card: architecture (the arguments of `build_model`), classes, preprocessing (mean, std, colour), frames (height,
            length, stride of the store), clip (size, window, stride, crop), training (protocol and settings), data
            (hash), scores. A ValueError when it lacks one of these.
    """
    missing = [key for key in CARD_KEYS if key not in card]
    if missing:
        raise ValueError(f"the card of {folder} lacks {', '.join(missing)}")
    with atomic_write(Path(folder) / "weights.safetensors") as temporary:
        save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, temporary)
    write_text(Path(folder) / "card.json", json.dumps(card, indent=1) + "\n")


def load_model(folder: Path) -> tuple[nn.Module, dict]:
    """Read a model folder: the model in evaluation mode, made faster on CPUs by `speed_up`, and its card.

    Raises:
        FileNotFoundError: when one of the two files is missing; says what makes it.
        ValueError: when a file is damaged or the two do not belong together.
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
    return speed_up(model.eval()), card


def find_released(folder: Path, name: str) -> Path:
    """A released Kinetics-600 file.

    Raises:
        FileNotFoundError: when it is not there; says where to get it and how it must be called.
    """
    file = Path(folder) / name
    if not file.is_file():
        found = ", ".join(sorted(path.name for path in Path(folder).glob("*"))) or "nothing"
        raise FileNotFoundError(f"no {folder.name}/{name}: get it from {SOURCE} and put it there under this name. "
                                f"Found in {folder.name}/: {found}")
    return file


def write_start(folder: Path, weights: str | None) -> None:
    """Write `<folder>/start.json`: the path, from the project's root, of the weights to start from; None for none."""
    write_text(Path(folder) / "start.json", json.dumps({"weights": weights}) + "\n")


def read_start(folder: Path) -> str | None:
    """What `write_start` wrote.

    Raises:
        FileNotFoundError: when the pretraining has not run.
        ValueError: when the file is damaged, or names a path outside of the project.
    """
    file = Path(folder) / "start.json"
    if not file.is_file():
        raise FileNotFoundError(f"no {file}: run the pretraining first (make repro)")
    try:
        weights = json.loads(file.read_text(encoding="utf-8"))["weights"]
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{file} is damaged ({error}): run the pretraining again (make repro)") from None
    return None if weights is None else place_inside("", weights).as_posix()
