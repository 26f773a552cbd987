"""What a network is made of, part by part: read off the network itself while a clip runs through it."""

import re
import time

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from health_actions.models.mobilenetv2 import InvertedResidual
from health_actions.models.network3d import GlobalMean
from health_actions.models.resnet3d import Block
from health_actions.models.shufflenetv2 import Unit
from health_actions.models.squeezenet import Fire

COLUMNS = ["part", "kind", "repeats", "channels", "frames", "height", "width", "parameters", "multiply_adds"]
WORDS = {InvertedResidual: "inverted residual block", Unit: "shuffle unit", Fire: "fire module", GlobalMean: "mean"}
# torch's modules of layers that go with the layer before them.
COMPANIONS = ("batchnorm", "activation", "dropout", "normalization")


def describe_structure(model: nn.Module, *, frames: int, size: int) -> pd.DataFrame:
    """A row a part of a network, in the order in which a clip runs through them.

    Blocks that follow each other and are of one kind and output size share a row; so do a layer and the normalisation
    and activation behind it. What the network computes outside of its parts has a row "others" at the end.

    Args:
        model: takes clips (1, 3, frames, size, size); it is left in evaluation mode.
        frames: of the clip.
        size: height and width in pixels.

    Returns:
        part (name in the network), kind, repeats, channels, frames, height and width of what comes out (missing where
        there is none), parameters, and multiply_adds: millions for one clip, in convolutions, linear layers and
        matrix products. Both sum up to those of the whole network (`evaluation.count_operations`).
    """
    units = _list_units(model)
    outputs, operations = {}, dict.fromkeys(units, 0)
    counter, hooks = FlopCounterMode(display=False), []
    for name, unit in units.items():
        def start(module, inputs, name=name):
            operations[name] -= counter.get_total_flops()

        def stop(module, inputs, output, name=name):
            operations[name] += counter.get_total_flops()
            outputs[name] = _measure(module, output)

        hooks += [unit.register_forward_pre_hook(start), unit.register_forward_hook(stop)]
    weights = next(model.parameters())
    try:
        with torch.inference_mode(), counter:
            model.eval()(torch.zeros(1, 3, frames, size, size, device=weights.device, dtype=weights.dtype))
    finally:
        for hook in hooks:
            hook.remove()

    counted, rows = set(), []
    for name in [*outputs, *(name for name in units if name not in outputs)]:
        unit = units[name]
        fresh = {id(weight): weight.numel() for weight in unit.parameters() if id(weight) not in counted}
        counted |= set(fresh)
        rows.append({"names": [name], "kind": _name_kind(unit), "repeats": 1,
                     **outputs.get(name, _measure(unit, None)), "parameters": sum(fresh.values()),
                     "multiply_adds": operations[name], "companion": _is_companion(unit)})
    rest = {"names": ["others"], "kind": "others", "repeats": 1, **_measure(model, None), "companion": False,
            "parameters": sum(weight.numel() for weight in model.parameters() if id(weight) not in counted),
            "multiply_adds": counter.get_total_flops() - sum(operations.values())}
    rows = _merge(rows) + ([rest] if rest["parameters"] or rest["multiply_adds"] else [])
    siblings = {}
    for name in units:
        siblings.setdefault(name.rpartition(".")[0], []).append(name)
    table = pd.DataFrame([row | {"part": _name_part(row["names"], siblings)} for row in rows])[COLUMNS]
    # torch counts a multiplication and an addition as two.
    return table.astype(dict.fromkeys(["channels", "frames", "height", "width"], "Int64")).assign(
        multiply_adds=table["multiply_adds"] / 2e6)


def count_whole_operations(model: nn.Module, *, frames: int, size: int) -> int:
    """Operations of a model for one clip as counters of its kind that only know layers' shapes have them.

    Every tap of a kernel counts, those that see padding too, and so do biases (one a value) and batch normalisation
    (two a value). `evaluation.count_operations` and `describe_structure` count what is computed here: `Conv3d` leaves
    out taps that see nothing but padding, and both leave out biases and normalisation.

    Args:
        model: of convolutions, linear layers and batch normalisation; other layers count nothing. It may be on the meta
            device, where nothing is computed.
        frames, size: of the clip.
    """
    total, hooks = 0, []

    def count(layer, inputs, output):
        nonlocal total
        # Normalisation: a weight and a bias a channel.
        total += output.numel() * (layer.weight[:1].numel() + (layer.bias is not None))

    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Conv3d | nn.BatchNorm3d):
            hooks.append(layer.register_forward_hook(count))
    try:
        with torch.inference_mode():
            model.eval()(torch.zeros(1, 3, frames, size, size, device=next(model.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
    return total


def _list_units(module: nn.Module, prefix: str = "") -> dict[str, nn.Module]:
    """Name -> part; lists are taken apart if there are blocks in them, else they are one part."""
    units = {}
    for name, child in module.named_children():
        holds_blocks = isinstance(child, nn.Sequential | nn.ModuleList) and not _is_plain(child)
        units |= _list_units(child, f"{prefix}{name}.") if holds_blocks else {f"{prefix}{name}": child}
    return units


def _is_plain(module: nn.Module) -> bool:
    """Whether it is a layer, or layers in sequence: no list of blocks."""
    children = list(module.children())
    return not children or (isinstance(module, nn.Sequential) and all(map(_is_plain, children)))


def _list_layers(module: nn.Module) -> list[nn.Module]:
    """The layers of a plain part, see `_is_plain`."""
    return [layer for layer in module.modules() if not list(layer.children())]


def _is_companion(module: nn.Module) -> bool:
    return all(type(layer).__module__.rpartition(".")[2] in COMPANIONS for layer in _list_layers(module))


def _measure(module: nn.Module, output) -> dict[str, int | None]:
    """Channels, frames, height and width of an output; None what it does not have."""
    while isinstance(output, list | tuple):
        output = output[0]
    shape = tuple(output.shape) if isinstance(output, torch.Tensor) else ()
    channels = places = None
    if len(shape) in (4, 5):  # (batch, channels, frames, height, width), or single frames without the third
        channels, places = shape[1], shape[2:]
        if any(isinstance(layer, nn.LayerNorm) for layer in module.modules()):  # transformers: channels last
            channels, places = shape[-1], shape[1:-1]
    elif shape:  # (batch, channels) or (batch, places, channels)
        channels = shape[-1]
    return {"channels": channels, **dict(zip(["width", "height", "frames"], [*(places or ())[::-1], *[None] * 3],
                                             strict=False))}


def _name_kind(module: nn.Module) -> str:
    """Plain words: "2 convolutions 3 x 3 x 3 + pooling", "bottleneck block"."""
    if isinstance(module, Block):
        groups = module.conv2.groups
        return f"{'bottleneck' if module.depth > 2 else 'basic'} block" + (f", {groups} groups" if groups > 1 else "")
    if type(module) in WORDS or not _is_plain(module):
        return WORDS.get(type(module), _split_name(module))
    kinds = {}
    for layer in _list_layers(module):
        if not _is_companion(layer) and not isinstance(layer, nn.Flatten | nn.Identity):
            kind = _name_layer(layer)
            kinds[kind] = kinds.get(kind, 0) + 1
    if not kinds:
        return _split_name(module)
    if len(kinds) > 2:  # no sizes where that would be a long list
        short = {}
        for kind, count in kinds.items():
            short[kind.split()[0]] = short.get(kind.split()[0], 0) + count
        kinds = short
    return " + ".join(kind if count == 1 else f"{count} {kind.replace('convolution', 'convolutions')}"
                      for kind, count in kinds.items())


def _name_layer(layer: nn.Module) -> str:
    """Of one layer without parts."""
    name = type(layer).__name__
    if name.startswith("Conv") and hasattr(layer, "kernel_size"):
        return f"convolution {' x '.join(map(str, layer.kernel_size))}"
    if isinstance(layer, nn.Linear):
        return "linear"
    if name.startswith("Adaptive") or isinstance(layer, GlobalMean):
        return "mean"
    return "pooling" if "Pool" in name else _split_name(layer)


def _split_name(module: nn.Module) -> str:
    """ "SepInceptionBlock3D" -> "sep inception block"; short names in capitals stay."""
    name = type(module).__name__.removesuffix("3D").removesuffix("3d")
    words = re.findall(r"[A-Z]+[0-9]*(?![a-z])|[A-Z]?[a-z0-9]+", name)
    return " ".join(word if word.isupper() and len(word) > 1 else word.lower() for word in words) or name


def _merge(rows: list[dict]) -> list[dict]:
    """Put equal blocks in succession, and layers and their companions, into one row."""
    merged = []
    for row in rows:
        last = merged[-1] if merged else None
        same_list = last and last["names"][-1].rpartition(".")[0] == row["names"][0].rpartition(".")[0]
        equal = same_list and all(last[key] == row[key] for key in ("kind", "channels", "frames", "height", "width"))
        numbered = row["names"][0].rpartition(".")[2].isdigit()
        if same_list and (row["companion"] or (equal and numbered)) and row["channels"] is not None:
            last["names"] = last["names"] + row["names"]
            last["repeats"] += not row["companion"]
            for key in ("parameters", "multiply_adds"):
                last[key] += row[key]
        else:
            merged.append(row)
    return merged


def _name_part(names: list[str], siblings: dict[str, list[str]]) -> str:
    """["features.2", "features.3"] -> "features.2-3"; the list's own name where these are all of it."""
    parent, _, first = names[0].rpartition(".")
    if parent and siblings[parent] == names:
        return parent
    if len(names) == 1:
        return names[0]
    last = names[-1].rpartition(".")[2]
    return f"{names[0]}-{last}" if first.isdigit() and last.isdigit() else ", ".join(names)


def count_operations(model: nn.Module, *, frames: int, size: int) -> int:
    """Multiply-adds of a model for one clip, in its convolutions and linear layers (recurrent ones are not counted)."""
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), counter:
        model.eval()(torch.zeros(1, 3, frames, size, size))
    return counter.get_total_flops() // 2  # it counts a multiplication and an addition as two


def measure_latency(model: nn.Module, *, frames: int, size: int, runs: int = 5) -> float:
    """Median seconds that a model takes for one clip, after a run to warm up."""
    clip, seconds = torch.zeros(1, 3, frames, size, size), []
    model.eval()
    with torch.inference_mode():
        for _ in range(runs + 1):
            started = time.perf_counter()
            model(clip)
            seconds.append(time.perf_counter() - started)
    return float(np.median(seconds[1:]))
