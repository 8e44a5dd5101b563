"""Machines to run on, and how many slots they hold. Needs neither torch nor Ray."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainables import devices, hardware
from trainables.errors import counted


@dataclass(frozen=True)
class Resources:
    """The CPUs and GPUs of one machine that may be used."""

    cpus: int
    gpus: int
    unusable: tuple[str, ...] = ()  # sentences about GPUs that are seen, and why torch cannot compute on them

    def capacity(self, cpus: int, gpus: float) -> int:
        """Return how many slots of `cpus` CPUs and `gpus` GPUs (at most a whole one) fit at a time."""
        by_cpu = self.cpus // cpus
        return min(by_cpu, self.gpus * int(1 / gpus + 1e-9)) if gpus else by_cpu


Nodes = Sequence[Resources]
"""The machines of a cluster; a local sweep has one. A slot lies on one node."""


@dataclass(frozen=True)
class Node:
    """A machine of the connected cluster."""

    id: str
    name: str
    resources: Resources
    memory: float  # bytes that Ray plans for workers
    object_store: float  # bytes
    kind: str | None = None  # of its GPUs, as Ray names it


def capacity(nodes: Nodes, cpus: int, gpus: float) -> int:
    """Return how many slots of `cpus` CPUs and `gpus` GPUs fit on all nodes at a time."""
    return sum(node.capacity(cpus, gpus) for node in nodes)


def widest_slot(nodes: Nodes, gpus: float, wanted: int) -> int:
    """Return the most CPUs that a slot may have so that `wanted` slots, or as many as fit at all, fit; 0 if none do."""
    wanted = min(wanted, capacity(nodes, 1, gpus))
    most = max((node.cpus for node in nodes), default=0)
    return next((cpus for cpus in range(most, 0, -1) if wanted and capacity(nodes, cpus, gpus) >= wanted), 0)


def describe(cpus: int, gpus: float) -> str:
    """Return a slot's share of a machine as a text."""
    return counted(cpus, "CPU") if not gpus else f"{counted(cpus, 'CPU')} and {gpus:g} GPU{'' if gpus == 1 else 's'}"


def local() -> Resources:
    """Return what this process may use of this machine."""
    return Resources(hardware.usable_cpus(), len(devices.usable()), tuple(devices.unusable()))


def warnings(nodes: Nodes) -> list[str]:
    """Return a warning for each GPU of these machines that is seen and cannot be used."""
    return [f"warning: {sentence}" for node in nodes for sentence in node.unusable]
