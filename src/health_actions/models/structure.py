"""What a network is made of and what it costs: read off the network itself while a clip runs through it."""

import contextlib
import re
import statistics
import time
from collections import Counter

import pandas as pd
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

SIZES, COSTS = ["channels", "frames", "height", "width"], ["parameters", "multiply_adds"]
# torch's modules of layers that share a row with the layer before them.
SILENT = ("container", "batchnorm", "activation", "dropout", "flatten", "normalization")


def describe_structure(model: nn.Module, *, frames: int, size: int) -> pd.DataFrame:
    """A row a part of a network, in the order in which a clip runs through them.

    Blocks that follow each other and are of one kind and output size share a row; so do a layer and the normalisation
    and activation behind it. What the network computes outside of its parts has a row "others" at the end.

    Args:
        model: takes clips (1, 3, frames, size, size); it may be on the meta device, and is left in evaluation mode.
        frames, size: of the clip; pixels.

    Returns:
        part (name in the network), kind, repeats, channels, frames, height and width of what comes out (missing where
        there is none), parameters, and multiply_adds: millions for one clip, as `count_operations` counts them. Both
        sum up to those of the whole network.
    """
    units, sizes = _list_units(model), {}
    with contextlib.ExitStack() as hooks:
        for name, unit in units.items():
            hooks.enter_context(unit.register_forward_hook(
                lambda unit, _, output, name=name: sizes.update({name: _measure(unit, output)})))
        counter = _count(model, frames, size)
    counts = {name.partition(".")[2]: sum(found.values()) for name, found in counter.get_flop_counts().items()}
    table = pd.DataFrame([{
        "part": name, "kind": _name_kind(units[name]), **dict.fromkeys(SIZES), **found,
        "parameters": sum(weights.numel() for weights in units[name].parameters()),
        "multiply_adds": counts.get(name, 0)} for name, found in sizes.items()])
    parents, last = table["part"].str.rpartition(".")[0], table["part"].str.rpartition(".")[2]
    same_list = parents == parents.shift()
    silent = same_list & table["part"].map(lambda name: all(map(_is_silent, units[name].modules())))
    looks = table[["kind", *SIZES]].astype(object).fillna(0).mask(silent).ffill()
    equal = same_list & (looks == looks.shift()).all(axis=1) & (silent | last.str.isdigit())
    table = table.assign(repeats=~silent).groupby((~equal).cumsum()).agg({
        "part": lambda names: _join_names(list(names), list(units)), "kind": "first", "repeats": "sum",
        **dict.fromkeys(SIZES, "first"), **dict.fromkeys(COSTS, "sum")})
    whole = [sum(weights.numel() for weights in model.parameters()), counter.get_total_flops()]
    rest = pd.Series(whole, COSTS) - table[COSTS].sum()
    if rest.any():
        table.loc[len(table) + 1] = {"part": "others", "kind": "others", "repeats": 1, **rest}
    table["multiply_adds"] /= 2e6  # torch counts a multiplication and an addition as two
    return table.reset_index(drop=True).astype(dict.fromkeys([*SIZES, "parameters"], "Int64"))


def count_operations(model: nn.Module, *, frames: int, size: int) -> int:
    """Multiply-adds of a model for one clip, in convolutions, linear layers and matrix products (LSTMs do not count).

    Taps of a kernel that meet padding count; biases, normalisation, activations and poolings do not.
    """
    return _count(model, frames, size).get_total_flops() // 2


def measure_latency(model: nn.Module, *, frames: int, size: int, runs: int = 5) -> float:
    """Median seconds that a model takes for one clip, after a run to warm up."""
    clip, seconds = torch.zeros(1, 3, frames, size, size), []
    model.eval()
    with torch.inference_mode():
        for _ in range(runs + 1):
            started = time.perf_counter()
            model(clip)
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


def _count(model: nn.Module, frames: int, size: int) -> FlopCounterMode:
    weights = next(model.parameters())
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model.eval()(torch.zeros(1, 3, frames, size, size, device=weights.device, dtype=weights.dtype))
    return counter


def _list_units(module: nn.Module, prefix: str = "") -> dict[str, nn.Module]:
    """Name -> part; lists are taken apart if there are blocks in them, else they are one part."""
    units = {}
    for name, child in module.named_children():
        holds_blocks = isinstance(child, nn.Sequential | nn.ModuleList) and not _is_plain(child)
        units |= _list_units(child, f"{prefix}{name}.") if holds_blocks else {f"{prefix}{name}": child}
    return units


def _is_plain(module: nn.Module) -> bool:
    """Whether it is a layer, or layers in sequence: no block."""
    return all(isinstance(part, nn.Sequential) or not list(part.children()) for part in module.modules())


def _is_silent(layer: nn.Module) -> bool:
    return type(layer).__module__.rpartition(".")[2] in SILENT


def _measure(unit: nn.Module, output) -> dict[str, int]:
    """Channels, frames, height and width of an output, as far as it has them."""
    _, *shape = (output if isinstance(output, torch.Tensor) else output[0]).shape
    if len(shape) < 3:  # channels, or (places, channels)
        return {"channels": shape[-1]}
    if any(isinstance(layer, nn.LayerNorm) for layer in unit.modules()):  # transformers: channels last
        shape = [shape[-1], *shape[:-1]]
    return {"channels": shape[0], **dict(zip(SIZES[:0:-1], shape[:0:-1]))}  # single frames are only high and wide


def _name_kind(unit: nn.Module) -> str:
    """In words, such as "basic block", "bottleneck, 32 groups" or "2 convolutions 3 x 3 x 3 + pooling"."""
    loud = [layer for layer in unit.modules() if not list(layer.children()) and not _is_silent(layer)]
    kinds = Counter(_name_layer(layer) for layer in (loud if loud and _is_plain(unit) else [unit]))
    return " + ".join(kind if count == 1 else f"{count} {kind.replace('convolution', 'convolutions')}"
                      for kind, count in kinds.items())


def _name_layer(layer: nn.Module) -> str:
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(layer).__name__).lower()
    if name.startswith("conv") and hasattr(layer, "kernel_size"):
        return f"convolution {' x '.join(map(str, layer.kernel_size))}"
    groups = {part.groups for part in layer.modules() if 1 < getattr(part, "groups", 1) < part.in_channels}
    return "pooling" if "pool" in name else ", ".join([name, *(f"{count} groups" for count in groups)])


def _join_names(names: list[str], units: list[str]) -> str:
    """["features.2", "features.3"] -> "features.2-3"; the list's own name where these are all of it."""
    parent, _, last = names[-1].rpartition(".")
    if parent and len(names) == sum(unit.startswith(f"{parent}.") for unit in units):
        return parent
    return f"{names[0]}-{last}" if len(names) > 1 and last.isdigit() else ", ".join(names)
