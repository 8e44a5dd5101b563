"""Machines to run on, and how many slots they hold. Needs neither torch nor Ray."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from trainables import devices, hardware
from trainables.errors import counted

WORKER_BYTES = 450 * 2**20  # memory of a worker that has imported torch, measured
WORKERS_SHARE = 0.7  # of a machine's memory: Ray takes the rest for shared images


@dataclass(frozen=True)
class Slot:
    """A trial's share of a machine."""

    cpus: int
    gpus: float = 0.0  # at most a whole one
    by_kind: Mapping[str, float] = field(default_factory=dict)  # kind of GPUs, as Ray names it → `gpus`, if another

    def gpus_of(self, kind: str | None) -> float:
        """Return the GPUs of a slot on a machine with GPUs of this kind."""
        return self.gpus if kind is None else self.by_kind.get(kind, self.gpus)

    def __str__(self) -> str:
        if not self.gpus:
            return counted(self.cpus, "CPU")
        others = ", ".join(f"{kind}: {share:g}" for kind, share in self.by_kind.items())
        gpus = f"{self.gpus:g} GPU{'' if self.gpus == 1 else 's'}{f' ({others})' if others else ''}"
        return f"{counted(self.cpus, 'CPU')} and {gpus}"


def share_of_gpu(slots: int) -> float:
    """Return the share of a GPU of each of so many slots: Ray counts in ten-thousandths, and would round up."""
    return math.floor(10_000 / slots) / 10_000


def slots_a_gpu(share: float) -> int:
    """Return how many slots with such a share of a GPU fit on one; 1 if they have none."""
    return max(int(1 / share + 1e-9), 1) if share else 1


@dataclass(frozen=True)
class Resources:
    """The CPUs and GPUs of one machine that may be used."""

    cpus: int
    gpus: int
    unusable: tuple[str, ...] = ()  # sentences about GPUs that are seen, and why torch cannot compute on them
    kind: str | None = None  # of the GPUs, as Ray names it
    memory: float = math.inf  # bytes for workers

    def capacity(self, slot: Slot) -> int:
        """Return how many slots fit at a time: each has a worker, which needs memory for torch alone.

        There is memory for one at least: what is short is said before a sweep, and a machine that is busy frees some.
        """
        gpus = slot.gpus_of(self.kind)
        by_gpu = self.gpus * slots_a_gpu(gpus) if gpus else math.inf
        return int(min(self.cpus // slot.cpus, by_gpu, max(self.memory / WORKER_BYTES, 1)))

    def is_tight(self, slot: Slot) -> bool:
        """Return whether there is no memory for one slot more than fit."""
        return self.capacity(slot) + 1 > self.memory / WORKER_BYTES


Nodes = Sequence[Resources]
"""The machines of a cluster; a local sweep has one. A slot lies on one node."""


@dataclass(frozen=True)
class Node:
    """A machine of the connected cluster."""

    id: str
    name: str
    resources: Resources
    object_store: float  # bytes


def capacity(nodes: Nodes, slot: Slot) -> int:
    """Return how many slots fit on all nodes at a time."""
    return sum(node.capacity(slot) for node in nodes)


def widest(slot: Slot, nodes: Nodes, wanted: int) -> Slot:
    """Return the slot with the most CPUs with which `wanted` of them, or as many as fit at all, fit; 0 if none do."""
    narrow, most = dataclasses.replace(slot, cpus=1), max((node.cpus for node in nodes), default=0)
    wanted = min(wanted, capacity(nodes, narrow))
    wider = (dataclasses.replace(slot, cpus=cpus) for cpus in range(most, 0, -1))
    fitting = (found for found in wider if wanted and capacity(nodes, found) >= wanted)
    return next(fitting, dataclasses.replace(slot, cpus=0))


def local() -> Resources:
    """Return what this process may use of this machine."""
    memory = WORKERS_SHARE * hardware.usable_memory()
    return Resources(hardware.usable_cpus(), len(devices.usable()), tuple(devices.unusable()), memory=memory)


def warnings(nodes: Nodes) -> list[str]:
    """Return a warning for each GPU of these machines that is seen and cannot be used."""
    return [f"warning: {sentence}" for node in nodes for sentence in node.unusable]
