"""A trained model as a folder: weights.safetensors, and card.json that says what the weights are."""

import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from health_actions.models import build_model
from health_actions.paths import atomic_write, write_text

CARD_KEYS = ("architecture", "classes", "preprocessing", "clip", "training", "data", "scores")


def save_model(folder: Path, model: nn.Module, card: dict) -> None:
    """Write a model folder.

    Args:
        folder: made if missing.
        model: built by `build_model` with `card["architecture"]`.
        card: architecture (the arguments of `build_model`), classes, preprocessing (mean, std), clip (length, stride,
            window, size), training (protocol and settings), data (hash), scores.

    Raises:
        ValueError: when the card lacks one of these.
    """
    missing = [key for key in CARD_KEYS if key not in card]
    if missing:
        raise ValueError(f"the card of {folder} lacks {', '.join(missing)}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / "weights.safetensors") as temporary:
        save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, temporary)
    write_text(folder / "card.json", json.dumps(card, indent=1) + "\n")


def load_model(folder: Path) -> tuple[nn.Module, dict]:
    """Read a model folder: the model in evaluation mode, and its card.

    Raises:
        FileNotFoundError: when one of the two files is missing; says what makes it.
        ValueError: when a file is damaged or the two do not belong together.
    """
    folder = Path(folder)
    for name in ("card.json", "weights.safetensors"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"no {name} in {folder}: train the model first (make repro)")
    try:
        card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
        missing = [key for key in CARD_KEYS if key not in card]
        if missing:
            raise ValueError(f"its card lacks {', '.join(missing)}")
        if card["architecture"].get("pretrained") is not None:  # a card opens no other file
            raise ValueError("its card asks for weights from elsewhere")
        model = build_model(**card["architecture"])
        model.load_state_dict(load_file(folder / "weights.safetensors"))
    except (ValueError, LookupError, TypeError, AttributeError, RuntimeError, MemoryError, SafetensorError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{folder} is no usable model folder: {reason}") from None
    return model.eval(), card
