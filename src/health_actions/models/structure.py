"""What a network is made of and what it costs: read off the network itself while a clip runs through it."""

import re
import statistics
import timeit
from collections import Counter

import pandas as pd
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from torch.utils.flop_counter import FlopCounterMode

SIZES = ["channels", "frames", "height", "width"]
SILENT = ("container", "batchnorm", "activation", "dropout", "flatten", "normalization")  # layers without own rows


def describe_structure(model: nn.Module, *, frames: int, size: int) -> pd.DataFrame:
    """A row a part of a network (it may be on the meta device), in the order in which a clip runs through them.

    Blocks that follow each other and are of one kind and output size share a row; so do a layer and the normalisation
    and activation behind it. Channels, frames, height and width are those of what comes out, missing where there is
    none. Column multiply_adds has millions for one clip, as `count_operations` counts them.
    """
    lists, names, sizes, rows = {""}, {}, {}, []
    for name, module in model.named_modules():
        if name and name.rpartition(".")[0] in lists:
            if isinstance(module, nn.Sequential | nn.ModuleList) and not _is_plain(module):
                lists.add(name)  # there are blocks in it: it is taken apart
            else:
                names[module] = name
    with register_module_forward_hook(lambda module, _, output: sizes.update({module: _measure(module, output)})):
        counter = _count(model, frames, size)
    counts = {name.partition(".")[2]: sum(found.values()) for name, found in counter.get_flop_counts().items()}
    for module in filter(names.get, sizes):
        name, row = names[module], rows[-1] if rows else {"list": None}
        parent, _, last = name.rpartition(".")
        look = {"list": parent, "kind": _name_kind(module), **dict.fromkeys(SIZES), **sizes[module]}
        silent = row["list"] == parent and _is_silent(module)
        if silent or last.isdigit() and look.items() <= row.items():
            row["part"] = f"{row['first']}-{last}" if last.isdigit() else f"{row['part']}, {name}"
        else:
            row = {**look, "first": name, "part": name, "repeats": 0, "parameters": 0, "multiply_adds": 0}
            rows.append(row)
        row["repeats"] += not silent
        row["parameters"] += sum(weights.numel() for weights in module.parameters())
        row["multiply_adds"] += counts.get(name, 0)
    table = pd.DataFrame(rows)
    is_whole = ~table["list"].duplicated(keep=False) & (table["list"] != "")  # one row for all of a list
    table["part"] = table["list"].where(is_whole, table["part"])
    table["multiply_adds"] /= 2e6  # torch counts a multiplication and an addition as two
    columns = ["part", "kind", "repeats", *SIZES, "parameters", "multiply_adds"]
    return table[columns].astype(dict.fromkeys([*SIZES, "parameters"], "Int64"))


def count_operations(model: nn.Module, *, frames: int, size: int) -> int:
    """Multiply-adds of a model for one clip, in convolutions, linear layers and matrix products (LSTMs do not count).

    Taps of a kernel that meet padding count; biases, normalisation, activations and poolings do not.
    """
    return _count(model, frames, size).get_total_flops() // 2


def measure_latency(model: nn.Module, *, frames: int, size: int) -> float:
    """Median seconds that a model takes for one clip: five runs, after one to warm up."""
    clip = torch.zeros(1, 3, frames, size, size)
    model.eval()
    with torch.inference_mode():
        return statistics.median(timeit.repeat(lambda: model(clip), number=1, repeat=6)[1:])


def _count(model: nn.Module, frames: int, size: int) -> FlopCounterMode:
    weights = next(model.parameters())
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model.eval()(torch.zeros(1, 3, frames, size, size, device=weights.device, dtype=weights.dtype))
    return counter


def _is_plain(module: nn.Module) -> bool:
    """Whether it is a layer, or layers in sequence: no block."""
    return all(isinstance(part, nn.Sequential) or not list(part.children()) for part in module.modules())


def _is_silent(module: nn.Module) -> bool:
    return all(type(layer).__module__.rpartition(".")[2] in SILENT for layer in module.modules())


def _measure(module: nn.Module, output) -> dict[str, int]:
    """Channels, frames, height and width of an output, as far as it has them."""
    _, *shape = (output if isinstance(output, torch.Tensor) else output[0]).shape
    if len(shape) < 3:  # channels, or (places, channels)
        return {"channels": shape[-1]}
    if any(isinstance(layer, nn.LayerNorm) for layer in module.modules()):  # transformers: channels last
        shape = [shape[-1], *shape[:-1]]
    return {"channels": shape[0], **dict(zip(SIZES[:0:-1], shape[:0:-1]))}  # single frames are only high and wide


def _name_kind(module: nn.Module) -> str:
    """In words, such as "basic block", "bottleneck, 32 groups" or "2 convolutions 3 x 3 x 3 + pooling"."""
    loud = [layer for layer in module.modules() if not list(layer.children()) and not _is_silent(layer)]
    kinds = Counter()
    for layer in loud if loud and _is_plain(module) else [module]:
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(layer).__name__).lower()
        groups = {part.groups for part in layer.modules() if 1 < getattr(part, "groups", 1) < part.in_channels}
        if name.startswith("conv") and hasattr(layer, "kernel_size"):
            name, groups = f"convolution {' x '.join(map(str, layer.kernel_size))}", {}
        kinds["pooling" if "pool" in name else ", ".join([name, *(f"{count} groups" for count in groups)])] += 1
    several = re.compile("^(convolution|pooling)")
    return " + ".join(kind if count == 1 else f"{count} " + several.sub(r"\1s", kind) for kind, count in kinds.items())
