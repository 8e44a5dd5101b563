"""How much memory a trial holds, what is kept of it between its steps, and whether it failed for want of it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
KEPT, LARGEST = 2**30, 2**25  # bytes; glibc allows no larger MMAP_THRESHOLD


def keep_freed() -> None:
    """Have this process keep what tensors free, up to a GiB, for those of the next step.

    By default glibc gives most of it back at once, and the system hands it out again page by page, zeroed. Without that
    training on a CPU is faster by 11 % (ResNet-18) and 16 % (EfficientNet-B0), for ResNet-20 slower by 2.5 %, within
    noise (benchmarks/evidence/kept_memory.json). Does nothing with another C library, or where the environment has
    settings of glibc's own.
    """
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(TRIM_THRESHOLD, KEPT)
        library.mallopt(MMAP_THRESHOLD, LARGEST)


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
    """Give back what allocators only keep, and let the peaks begin anew (the process's on Linux alone)."""
    with contextlib.suppress(OSError, AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)
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
