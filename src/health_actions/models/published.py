"""Weights in the published code's form, brought into the project's models."""

import collections
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

HEADS = ("classifier", "fc")
# What released checkpoints hold beside tensors: a score as a number of numpy's, which old and new versions name apart.
_SCALAR = np.float64(0).__reduce__()[0]
HARMLESS = [(_SCALAR, "numpy.core.multiarray.scalar"), (_SCALAR, "numpy._core.multiarray.scalar"), np.dtype,
            type(np.dtype("f8")), type(np.dtype("f4")), collections.defaultdict, dict]


def load_published(model: nn.Module, checkpoint, *, replace_head: bool = False) -> list[str]:
    """Load a published checkpoint into a model, every name and shape checked before anything is changed.

    Args:
        model: from `build_model`.
        checkpoint: path of a file or of a model folder of this project, a state dict, or a dict that holds one under
            `state_dict`; names as published, with or without the prefix `module.`. Files are read without executing
            anything that is pickled in them.
        replace_head: keep the model's own last layer where the checkpoint's is for another number of classes.

    Returns:
        The names that were skipped (empty unless `replace_head`).

    Raises:
        ValueError: when a name is missing, unknown or of another shape; lists them with the likely cause.
        FileNotFoundError: when the file does not exist.
    """
    if isinstance(checkpoint, str | Path):
        checkpoint = read_weights(Path(checkpoint))
    state = checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError("the checkpoint is no state dict: expected tensors by name, or a dict with `state_dict`")
    state = {name.removeprefix("module."): value for name, value in state.items()}
    own = model.state_dict()
    other_shape = [name for name in own if name in state and own[name].shape != state[name].shape]
    skipped = []
    if replace_head:
        skipped = [name for name in other_shape if name.split(".")[0] in HEADS and name.rsplit(".", 1)[0] == _last(own)]
        other_shape = [name for name in other_shape if name not in skipped]
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    unknown = [name for name in state if name not in own]
    if missing or unknown or other_shape:
        said = checkpoint.get("arch") if isinstance(checkpoint.get("arch"), str) else None
        raise ValueError(_explain(model, said, own, state, missing, unknown, other_shape))
    model.load_state_dict({**own, **{name: value for name, value in state.items() if name not in skipped}})
    return skipped


def read_weights(path: Path) -> Mapping:
    """Read a checkpoint file or a model folder as a dict that holds `state_dict`, and `arch` where it is known.

    Raises FileNotFoundError or ValueError, one line each.
    """
    if not path.is_dir():
        checkpoint = read_checkpoint(path)
        known = isinstance(checkpoint, Mapping) and "state_dict" in checkpoint
        return checkpoint if known else {"state_dict": checkpoint}
    for name in ("card.json", "weights.safetensors"):
        if not (path / name).is_file():
            raise FileNotFoundError(f"no {name} in {path}: not a model folder")
    try:
        card = json.loads((path / "card.json").read_text(encoding="utf-8"))
        return {"arch": card["architecture"]["name"], "state_dict": load_file(path / "weights.safetensors")}
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ValueError(f"{path} is no usable model folder: {str(error).splitlines()[0]}") from None


def read_checkpoint(path: Path) -> Mapping:
    """Read a checkpoint file without running code from it. Raises FileNotFoundError or ValueError, one line each."""
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        with torch.serialization.safe_globals(HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or hostile file makes the unpickler raise
        raise ValueError(f"{path} is not a checkpoint that can be read safely: "
                         f"{(str(error) or type(error).__name__).splitlines()[0]}") from None


def _last(own: Mapping) -> str:
    return list(own)[-1].rsplit(".", 1)[0]


def _explain(model, said, own, state, missing, unknown, other_shape) -> str:
    lines = ["the checkpoint does not fit the model:"]
    for title, names in (("missing", missing), ("unknown", unknown)):
        if names:
            lines.append(f"  {title} ({len(names)}): {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}")
    for name in other_shape[:4]:
        lines.append(f"  {name}: expected {tuple(own[name].shape)}, found {tuple(state[name].shape)}")
    return "\n".join([*lines, f"  likely cause: {_guess(model, said, own, missing, unknown, other_shape)}"])


def _guess(model, said, own, missing, unknown, other_shape) -> str:
    """The likely cause of a difference between a checkpoint (that calls itself `said`) and a model."""
    architecture, differing = getattr(model, "architecture", None), missing + unknown
    layers = {name.rsplit(".", 1)[0] for name in other_shape}
    if said and architecture:
        plain = "".join(letter for letter in said.lower().split("_")[0] if letter.isalnum())
        if not (architecture.startswith(plain) or plain.startswith(architecture)):  # "resnet" may be any ResNet
            return f"another architecture; the checkpoint says it is {said!r}, the model is {architecture!r}"
    if not differing and layers == {_last(own)}:
        return "other number of classes; replace_head=True keeps the model's own last layer"
    if architecture is None:
        return ("other frame size, LSTM width or network width in the checkpoint" if other_shape else
                "another architecture, backbone or shortcut type")
    if differing and all(".downsample." in name for name in differing):
        return f"other shortcut type; build the model with shortcut={'B' if unknown else 'A'!r}"
    if not differing and layers - {_last(own)} == {"fc1.0"}:
        return "other frame size or number of frames in the checkpoint: they make the width of C3D's first linear layer"
    if not differing and hasattr(model, "width_mult"):
        return f"other width in the checkpoint; the model has width_mult={model.width_mult}"
    return f"another architecture in the checkpoint than {architecture!r}"
