"""How a model computes: in bfloat16 where that is fast, else in float32 (float16 on older GPUs); in kept memory."""

import ctypes
import functools
import sys

import torch
from torch import nn


def choose_precision(precision: str, device: str = "cpu", network: nn.Module | None = None) -> str:
    """What "auto" means here: bfloat16 where the processor has instructions for it, else float32.

    On a GPU that has none but fast float16 (Volta, Turing) it is that one, with scaled gradients.

    On a CPU, a network with torch's own 3-D convolutions is trained in float32: torch 2.14 gives wrong weight gradients
    in bfloat16 (from memory that nothing was written to) where a layer's input is one or two values long, and losses
    become nan. `health_actions.models.speedups` avoids that.
    """
    if precision != "auto":
        return precision
    if device == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16-mixed"
        return "16-mixed" if torch.cuda.get_device_capability() >= (7, 0) else "32-true"
    if network is not None and any(type(layer) is nn.Conv3d for layer in network.modules()):
        return "32-true"
    capabilities = torch.cpu.get_capabilities()
    return "bf16-mixed" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "32-true"


def autocast(precision: str, device: str = "cpu"):
    """Lightning's names of precisions, for code outside its trainer."""
    return torch.autocast(device, torch.bfloat16, enabled=precision == "bf16-mixed")


M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # names of glibc's malloc.h


@functools.cache
def keep_memory() -> bool:
    """Let this process keep the memory that it frees, for what it computes next; returns whether it does.

    Every step of a training asks for the same large blocks. Linux gives and takes each anew, page by page, which took a
    third of a step; kept, the process takes about an eighth more memory. Elsewhere nothing changes.
    """
    if sys.platform != "linux":
        return False
    try:
        set_option = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library than glibc
        return False
    return bool(set_option(M_MMAP_MAX, 0) and set_option(M_TRIM_THRESHOLD, -1))


def prepare_training() -> None:
    """What makes every step faster: memory is kept, and numbers that all but vanish are zero."""
    keep_memory()
    torch.set_flush_denormal(True)  # gradients of that kind else take ten times as long
