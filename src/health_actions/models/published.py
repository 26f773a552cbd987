"""Weights in the published code's form, brought into the project's models."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

HEADS = ("classifier", "fc")


def load_published(model: nn.Module, checkpoint, *, replace_head: bool = False) -> list[str]:
    """Load a published checkpoint into a model, every name and shape checked before anything is changed.

    Args:
        model: from `build_model`.
        checkpoint: path of a file, a state dict, or a dict that holds one under `state_dict`; names as published,
            with or without the prefix `module.`. Files are read without executing anything that is pickled in them.
        replace_head: keep the model's own last layer where the checkpoint's is for another number of classes.

    Returns:
        The names that were skipped (empty unless `replace_head`).

    Raises:
        ValueError: when a name is missing, unknown or of another shape; lists them with the likely cause.
        FileNotFoundError: when the file does not exist.
    """
    if isinstance(checkpoint, str | Path):
        checkpoint = read_checkpoint(Path(checkpoint))
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
        raise ValueError(_explain(own, state, missing, unknown, other_shape))
    model.load_state_dict({**own, **{name: value for name, value in state.items() if name not in skipped}})
    return skipped


def read_checkpoint(path: Path) -> Mapping:
    """Read a checkpoint file without running code from it. Raises FileNotFoundError or ValueError, one line each."""
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or hostile file makes the unpickler raise
        raise ValueError(f"{path} is not a checkpoint that can be read safely: "
                         f"{(str(error) or type(error).__name__).splitlines()[0]}") from None


def _last(own: Mapping) -> str:
    return list(own)[-1].rsplit(".", 1)[0]


def _explain(own, state, missing, unknown, other_shape) -> str:
    lines = ["the checkpoint does not fit the model:"]
    for title, names in (("missing", missing), ("unknown", unknown)):
        if names:
            lines.append(f"  {title} ({len(names)}): {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}")
    for name in other_shape[:4]:
        lines.append(f"  {name}: expected {tuple(own[name].shape)}, found {tuple(state[name].shape)}")
    if other_shape and {name.rsplit(".", 1)[0] for name in other_shape} == {_last(own)}:
        lines.append("  likely cause: other number of classes; replace_head=True keeps the model's own last layer")
    elif other_shape:
        lines.append("  likely cause: other frame size, LSTM width or network width in the checkpoint")
    elif missing or unknown:
        lines.append("  likely cause: another architecture, backbone or shortcut type")
    return "\n".join(lines)
