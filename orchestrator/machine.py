"""What there is to run on. Read from the operating system: neither torch nor Ray is imported for it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Resources:
    """CPUs that may be used, and GPUs."""

    cpus: int
    gpus: int


def local() -> Resources:
    """This machine's, as far as this process may use them."""
    return Resources(_cpus(), _gpus())


def _cpus() -> int:
    """Cores of this process's affinity, cut to the container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))


def _gpus() -> int:
    """NVIDIA devices, cut to CUDA_VISIBLE_DEVICES."""
    devices = len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return devices
    chosen = [name for name in visible.split(",") if name.strip() not in ("", "-1", "NoDevFiles")]
    return min(devices, len(chosen))
