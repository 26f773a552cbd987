"""Weights from files, published or of this project, brought into the networks; no file's code is ever run."""

import collections
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

CARD_KEYS = ("architecture", "classes", "preprocessing", "frames", "clip", "training", "data", "scores")
# What released checkpoints hold beside tensors: a score as a NumPy scalar, whose type NumPy 1 and 2 name differently.
_SCALAR = np.float64(0).__reduce__()[0]
HARMLESS = [(_SCALAR, "numpy.core.multiarray.scalar"), (_SCALAR, "numpy._core.multiarray.scalar"), np.dtype,
            type(np.dtype("f8")), type(np.dtype("f4")), collections.defaultdict, dict]


def load_published(model: nn.Module, checkpoint: str | Path | Mapping, *, replace_head: bool = False) -> list[str]:
    """Load a published checkpoint into a model, every name and shape checked before anything is changed.

    Args:
        checkpoint: path of a file or model folder, a state dict, or a dict that holds one under `state_dict`; names as
            published, with or without the prefix `module.`.
        replace_head: keep the model's last layer where the checkpoint's is for another number of classes.

    Returns:
        The names that were skipped (empty unless `replace_head`). A ValueError says what does not fit, and why.
    """
    said, state = _find_state(checkpoint) if isinstance(checkpoint, Mapping) else read_weights(Path(checkpoint))
    own = model.state_dict()
    last = list(own)[-1].rpartition(".")[0]
    other_shape = [name for name in own if name in state and own[name].shape != state[name].shape]
    skipped = [name for name in other_shape if replace_head and name.rpartition(".")[0] == last]
    differing = {
        "missing": [name for name in own if name not in state and not name.endswith("num_batches_tracked")],
        "unknown": [name for name in state if name not in own],
        "of another shape": [f"{name} (expected {tuple(own[name].shape)}, found {tuple(state[name].shape)})"
                             for name in other_shape if name not in skipped]}
    if any(differing.values()):
        listed = "; ".join(f"{len(names)} {kind}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
                           for kind, names in differing.items() if names)
        layers = {name.rpartition(".")[0] for name in other_shape} - {last}
        cause = _guess_cause(model, said, differing["missing"], differing["unknown"], layers)
        source = "the checkpoint" if isinstance(checkpoint, Mapping) else checkpoint
        raise ValueError(f"{source} does not fit the model: {listed}; likely cause: {cause}")
    model.load_state_dict({**own, **{name: value for name, value in state.items() if name not in skipped}})
    return skipped


def read_weights(path: Path) -> tuple[str | None, dict[str, torch.Tensor]]:
    """The architecture that a checkpoint file or a model folder names, if it does, and its tensors by their names."""
    if path.is_dir():
        card, state = read_folder(path)
        return card["architecture"]["name"], state
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}: expected a released checkpoint file or a model folder")
    try:
        with torch.serialization.safe_globals(HARMLESS):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or hostile file makes the unpickler raise
        raise ValueError(f"{path} is no checkpoint that can be read safely: {take_first_line(error)}") from None
    return _find_state(checkpoint, path)


def read_folder(folder: Path) -> tuple[dict, dict[str, torch.Tensor]]:
    """Card and weights of a model folder; FileNotFoundError or ValueError in one line where one is of no use."""
    for name in ("card.json", "weights.safetensors"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"no {name} in {folder}: train the model first (make repro)")
    try:
        card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
        missing = [key for key in CARD_KEYS if key not in card]
        if missing or "name" not in card["architecture"]:
            raise ValueError(f"its card lacks {', '.join(missing) or 'the name of its architecture'}")
        return card, load_file(folder / "weights.safetensors")
    except (ValueError, TypeError, RecursionError, SafetensorError) as error:
        raise ValueError(f"{folder} is no usable model folder: {take_first_line(error)}") from None


def take_first_line(error: Exception) -> str:
    """The first line of an error's message, or its kind where it has none."""
    return (str(error) or type(error).__name__).splitlines()[0]


def _find_state(checkpoint, path: Path | str = "the checkpoint") -> tuple[str | None, dict[str, torch.Tensor]]:
    state = checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError(f"{path} is no state dict: expected tensors by name, or a dict with `state_dict`")
    said = checkpoint.get("arch")
    return said if isinstance(said, str) else None, {str(name).removeprefix("module."): state[name] for name in state}


def _guess_cause(model: nn.Module, said: str | None, missing: list[str], unknown: list[str], layers: set[str]) -> str:
    """Why a checkpoint that calls itself `said` may not fit; `layers` before the last one are of another shape."""
    architecture, differing = getattr(model, "architecture", None), missing + unknown
    if said and architecture:
        plain = "".join(letter for letter in said.lower().split("_")[0] if letter.isalnum())
        if not (architecture.startswith(plain) or plain.startswith(architecture)):  # "resnet" may be any ResNet
            return f"another architecture; the checkpoint says it is {said!r}, the model is {architecture!r}"
    if differing and all(".downsample." in name for name in differing):
        return f"other shortcut type; build the model with shortcut={'B' if unknown else 'A'!r}"
    if differing:
        return f"another architecture or backbone than {architecture or type(model).__name__}"
    if not layers:
        return "other number of classes; replace_head=True keeps the model's own last layer"
    if layers == {"fc1.0"}:
        return "other frame size or number of frames in the checkpoint: they make the width of C3D's first linear layer"
    width = f"; the model has width_mult={model.width_mult}" if hasattr(model, "width_mult") else ""
    return f"other frame size, LSTM width or network width in the checkpoint{width}"
