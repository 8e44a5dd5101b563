"""How much memory a trial held, and whether it failed for want of it."""

from __future__ import annotations

import contextlib
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def peak_mb() -> float:
    """The most memory that this process held since `reset_peak`, in units of 2²⁰ bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def peak_gpu_mb(device: torch.device) -> float | None:
    """The most memory that CUDA's allocator held on `device` since `reset_peak`, likewise; None on a CPU."""
    if device.type != "cuda":
        return None
    import torch

    return torch.cuda.max_memory_allocated(device) / 2**20


def reset_peak(device: torch.device) -> None:
    """Give back what CUDA's allocator only keeps, and let the peaks begin anew (the process's on Linux alone)."""
    if device.type == "cuda":
        import torch

        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    with contextlib.suppress(OSError):  # proc(5), clear_refs: 5 sets the peak to what is held now
        Path("/proc/self/clear_refs").write_text("5")


def out_of_memory(error: Exception) -> bool:
    """Whether `error` says that there was too little memory; but for CUDA's allocator torch says so only in words."""
    words = ("out of memory", "can't allocate memory", "_ALLOC_FAILED")  # the last of cuBLAS and cuDNN
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )
