"""What there is to run on, and how many slots it holds. Neither torch nor Ray is imported for it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trainables import cpus


@dataclass(frozen=True)
class Resources:
    """CPUs that may be used, and GPUs, of one machine."""

    cpus: int
    gpus: int

    def room(self, cpus: int, gpus: float) -> int:
        """How many slots of `cpus` CPUs and `gpus` GPUs (a whole one at most) fit at a time."""
        by_cpu = self.cpus // cpus
        return min(by_cpu, self.gpus * int(1 / gpus + 1e-9)) if gpus else by_cpu


Nodes = Sequence[Resources]
"""The machines of a cluster; a local sweep has one. A slot lies on one node."""


def room(nodes: Nodes, cpus: int, gpus: float) -> int:
    """How many slots of `cpus` CPUs and `gpus` GPUs fit at a time."""
    return sum(node.room(cpus, gpus) for node in nodes)


def widest_slot(nodes: Nodes, gpus: float, wanted: int) -> int:
    """The most CPUs that a slot may have so that `wanted` of them, or as many as there is room for, fit; 0: none."""
    wanted = min(wanted, room(nodes, 1, gpus))
    most = max((node.cpus for node in nodes), default=0)
    return next((cpus for cpus in range(most, 0, -1) if wanted and room(nodes, cpus, gpus) >= wanted), 0)


def local() -> Resources:
    """This machine's, as far as this process may use them."""
    return Resources(cpus.usable(), _gpus())


def _gpus() -> int:
    """NVIDIA devices, cut to CUDA_VISIBLE_DEVICES."""
    devices = len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return devices
    chosen = [name for name in visible.split(",") if name.strip() not in ("", "-1", "NoDevFiles")]
    return min(devices, len(chosen))
