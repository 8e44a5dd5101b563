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
GPU_SHARE = 0.3  # of a process's share of a GPU that images or features may take: training needs the rest
USABLE = 0.95  # of a GPU's memory, for all processes together; each has its share of it
PROCESS_BYTES = 2**29  # of a GPU's memory that a process takes beside its tensors: context and libraries
GROWING = "expandable_segments:True"
ALLOCATOR = "PYTORCH_CUDA_ALLOC_CONF"  # by its newer name torch 2.9 does not hear of it
SPARE = 2**28  # bytes; the same where a CPU cannot have so many more
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


def prepare() -> None:
    """Set the allocators up: see `keep_freed`, and CUDA's grows its segments, which leaves fewer gaps.

    Call it before torch is imported.
    """
    keep_freed()
    os.environ.setdefault(ALLOCATOR, GROWING)


def fence(device: torch.device, share: float = 1.0) -> None:
    """Set what this process's tensors may take of a GPU to its share: beyond that it is out of memory, not others."""
    if device.type == "cuda":
        import torch

        torch.cuda.set_per_process_memory_fraction(USABLE * min(share, 1.0), torch.cuda.current_device())


def budget(device: torch.device) -> float:
    """Return the bytes of a GPU that images or features of this process may take.

    It is a part of the process's share, so that all that share the GPU may decide alike, or of what is free, if that is
    less.
    """
    import torch

    free, total = torch.cuda.mem_get_info(device)
    here = torch.cuda.current_device()  # what follows takes no device without index
    return GPU_SHARE * min(free, total * torch.cuda.get_per_process_memory_fraction(here))


def give_back(device: str) -> None:
    """Return memory that no tensor takes to the device (cpu or cuda), if that is a GPU, for others that share it."""
    if device == "cuda":
        import torch

        torch.cuda.empty_cache()


def peak_reserved(device: torch.device) -> int:
    """Return the most bytes that CUDA's allocator took of `device` since `reset_peak`; 0 on a CPU."""
    import torch

    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else 0


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

    cuBLAS, cuDNN and oneDNN have other words for it, too: so has any RuntimeError with next to no memory free for
    `device`, as long as whatever was computed is still held.
    """
    texts = ("out of memory", "can't allocate memory", "_ALLOC_FAILED")  # the last is of cuBLAS and cuDNN
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and (any(text in str(error) for text in texts) or _is_full(device))
    )


def _is_full(device: torch.device | None) -> bool:
    """Return whether there is next to no memory that the system, a GPU's driver or its allocator here could give."""
    if device is None:
        return False
    import torch

    if device.type == "cpu":
        try:
            torch.empty(SPARE, dtype=torch.uint8)
        except RuntimeError:
            return True
    if device.type != "cuda":
        return False
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
