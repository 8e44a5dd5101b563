"""The memory of a trial: its peak, what is kept between steps, and whether an error means that it ran out."""

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
LEAST_FREE = 0.05  # of a GPU's memory: with less, any error may mean that it ran out
KEPT, LARGEST = 2**30, 2**25  # bytes; glibc allows no larger MMAP_THRESHOLD than the second


def keep_freed() -> None:
    """Make this process keep the memory that tensors free, up to a GiB, for the tensors of the next step.

    By default glibc returns most of it at once, and the system hands it out again page by page, zeroed. With it kept,
    training on a CPU is faster by 11 % (ResNet-18) and 16 % (EfficientNet-B0), and slower by 2.5 % for ResNet-20, which
    is within noise (benchmarks/evidence/kept_memory.json). Nothing happens with another C library, or if the
    environment sets options of glibc's malloc.
    """
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(TRIM_THRESHOLD, KEPT)
        library.mallopt(MMAP_THRESHOLD, LARGEST)


def peak_mb() -> float:
    """Return the most memory that this process held since `reset_peak`, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def peak_gpu_mb(device: torch.device) -> float | None:
    """Return the most memory that CUDA's allocator held on `device` since `reset_peak`, in MiB; None on a CPU."""
    if device.type != "cuda":
        return None
    import torch

    return torch.cuda.max_memory_allocated(device) / 2**20


def reset_peak(device: torch.device) -> None:
    """Return unused memory of the allocators to the system, and reset the peaks (the process's on Linux only)."""
    with contextlib.suppress(OSError, AttributeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)
    if device.type == "cuda":
        import torch

        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    with contextlib.suppress(OSError):  # proc(5), clear_refs: 5 sets the peak to the present use
        Path("/proc/self/clear_refs").write_text("5")


def out_of_memory(error: Exception, device: torch.device | None = None) -> bool:
    """Return whether `error` means that memory ran out; often only the text of a RuntimeError shows it.

    cuBLAS and cuDNN have other words for it, too: so has any RuntimeError with next to no memory free on `device`.
    """
    texts = ("out of memory", "can't allocate memory", "_ALLOC_FAILED")  # the last is of cuBLAS and cuDNN
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and (any(text in str(error) for text in texts) or _is_full(device))
    )


def _is_full(device: torch.device | None) -> bool:
    """Return whether a GPU has next to no memory that its driver or this process's allocator could give."""
    if device is None or device.type != "cuda":
        return False
    import torch

    with contextlib.suppress(RuntimeError):  # the device may be out of order
        free, total = torch.cuda.mem_get_info(device)
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + kept < LEAST_FREE * total
    return False


def works(device: torch.device) -> bool:
    """Return whether a small product can be computed on `device`, once what is not used is given back."""
    import torch

    try:
        if device.type == "cuda":
            torch.cuda.empty_cache()
        compute(device)
    except Exception:  # whatever it is: the next trial would meet it, too
        return False
    return True


def compute(device: torch.device) -> None:
    """Compute a small product on `device`, and wait for it; raise whatever prevents that, a wrong result too."""
    if (found := float((ones(device) @ ones(device)).sum())) != 8**3:
        raise RuntimeError(f"it computes {found:g} where {8**3} is right")


def ones(device: torch.device) -> torch.Tensor:
    """Return a matrix of ones, float32 [8, 8]."""
    import torch

    return torch.ones(8, 8, device=device)
