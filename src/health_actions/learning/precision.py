"""How a model computes: in bfloat16 where that is fast, else in float32 (float16 on older GPUs), with kept memory."""

import ctypes
import sys

import torch
from torch import nn

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # names of glibc's malloc.h


def choose_precision(precision: str, device: str = "cpu", network: nn.Module | None = None) -> str:
    """What "auto" means: bfloat16 where the processor has instructions for it, else float32.

    A GPU with fast float16 alone (Volta, Turing) takes that, with scaled gradients. On a CPU, a network with torch's
    own 3-D convolutions takes float32: their bfloat16 gradients are wrong in torch 2.14, see `models.speedups`.
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


def autocast(precision: str) -> torch.autocast:
    """On a CPU: bfloat16 for "bf16-mixed", else float32; Fabric's names, for code that does not use it."""
    return torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed")


def prepare_training() -> None:
    """Make each step faster: flush denormals to zero, and let the process keep the memory that it frees.

    Every step asks for the same large blocks. Linux gives and takes each page by page, which took a third of a step;
    kept, they take an eighth more memory. MALLOC_MMAP_MAX_=0 and MALLOC_TRIM_THRESHOLD_=-1 in the environment do the
    same, but only for processes that start with them.
    """
    torch.set_flush_denormal(True)  # gradients of that kind take ten times as long
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):  # glibc
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, -1)
