"""The nodes and devices that attempts run on: where each one runs, and which fail again and again while others work.

Such a place is set aside for a while and then tried again, each time for twice as long. A node is avoided by the label
that Ray gives it. Ray cannot avoid a device, so a worker on one that is set aside holds it, without training.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from orchestrator.cluster.machine import Slot, slots_a_gpu
from orchestrator.record.events import AttemptLost
from orchestrator.record.facts import Place
from orchestrator.search.slots import NodeSlots

MOST_FAILURES = 3  # in a row, after which a place is set aside if others work
ASIDE_S, LONGEST_ASIDE_S = 60.0, 3600.0  # at first, and at most
STEADY_S = 30.0  # an attempt that has run for so long works

Where = tuple[str | None, str | None]
"""A node's id, and a device on it; None for the whole node."""


@dataclass
class _Health:
    """The record of a place: how its attempts went of late."""

    failures: int = 0  # in a row
    since: float = 0.0  # when the first of them was
    worked_at: float = float("-inf")  # when an epoch came from there
    times: int = 0  # that it was set aside in a row
    until: float = float("-inf")  # when it is tried again


class Room(NamedTuple):
    """The nodes and devices where an attempt may run, and the GPUs of its slot, where these differ between nodes."""

    avoid: list[str]  # nodes
    avoid_devices: list[Where]
    gpus: float | None = None
    only: Sequence[str] = ()  # nodes that have such slots; none: all that it does not avoid


@dataclass
class Workers:
    """The places of one command.

    `capacity` returns how many slots a node has by its id; `slot` is what each has. `kinds` are those of the GPUs of
    every node that there ever was, by its id.
    """

    capacity: Callable[[], Mapping[str, int]] = dict
    slot: Slot = field(default_factory=lambda: Slot(1))
    clock: Callable[[], float] = time.monotonic
    kinds: Mapping[str, str | None] = field(default_factory=dict)

    @classmethod
    def of_slots(cls, slot: Slot) -> Workers:
        """Return the places of the connected cluster, with such slots."""
        slots = NodeSlots(slot)
        return cls(slots, slot, kinds=slots.kinds)

    def __post_init__(self) -> None:
        self._held: dict[str, tuple[Where, float]] = {}  # Tune's id of a trial → the device, until when at least
        self._leaving: dict[str, Place] = {}  # Tune's id → where its worker is about to end
        self._health: dict[Where, _Health] = {}
        self._running: dict[tuple[int, int], tuple[Place, float]] = {}  # (trial, attempt) → where, since when
        self._aside: dict[Where, Place] = {}

    @property
    def any_began(self) -> bool:
        """True once any worker has begun any attempt."""
        return bool(self._health)

    def begin(self, trial: int, attempt: int, place: Place) -> None:
        """Note where an attempt runs."""
        self._running[trial, attempt] = place, self.clock()
        for where in _levels(place):
            self._health.setdefault(where, _Health())

    def work(self, trial: int, attempt: int) -> None:
        """Note that an epoch, or part of the features, came from an attempt."""
        place = self.place(trial, attempt)
        for where in _levels(place) if place is not None else ():
            self._health[where] = _Health(worked_at=self.clock(), until=self._health[where].until)

    def place(self, trial: int, attempt: int) -> Place | None:
        """Return where an attempt runs; None if it is not known."""
        return self._running.get((trial, attempt), (None,))[0]

    def end(self, trial: int, attempt: int) -> None:
        """Note that an attempt has ended."""
        self._running.pop((trial, attempt), None)

    def forgive(self, failures: Iterable[AttemptLost]) -> None:
        """Clear failures that were the trial's fault after all."""
        for event in failures:
            for where in _levels(event.place) if event.place is not None else ():
                health = self._health.get(where)
                if health is not None:
                    health.failures = max(health.failures - 1, 0)

    def fail(self, place: Place) -> tuple[Place, int, float] | None:
        """Note a failure; return what is to be set aside, after how many failures in a row, and for how many seconds.

        None if nothing is: there were fewer failures, or no other place works.
        """
        now = self.clock()
        for where in _levels(place):
            health = self._health.setdefault(where, _Health())
            health.since = now if health.failures == 0 else health.since
            health.failures += 1
        for where in _levels(place):  # the device first
            health = self._health[where]
            others = [other for other in self._health if not _covers(where, other) and not _covers(other, where)]
            within = [other for other in self._health if _covers(where, other) and other != where]
            if health.failures < MOST_FAILURES or any(self._works(other, health.since) for other in within):
                continue
            if any(self._works(other, health.since) for other in others):
                seconds = min(ASIDE_S * 2**health.times, LONGEST_ASIDE_S)
                health.times, health.until = health.times + 1, now + seconds
                self._aside[where] = Place(place.node, *where)
                return self._aside[where], health.failures, seconds
        return None

    def _works(self, where: Where, since: float) -> bool:
        """Return whether a place has worked since then, or has an attempt that has run for long."""
        if where in self._aside:
            return False
        steady = self.clock() - STEADY_S
        return self._health[where].worked_at > since or any(
            _covers(where, place.where) and began < steady for place, began in self._running.values()
        )

    def reopened(self) -> list[Place]:
        """Return the places whose time has come, which may be tried again from now on."""
        due = [where for where in self._aside if self._health[where].until <= self.clock()]
        return [self._aside.pop(where) for where in due]

    def free(self, slots: int, running: int) -> int:
        """Return how many of the cluster's slots are free for attempts, with so many running."""
        return int(min(slots, self._available())) - running - len(self._leaving)

    def _available(self) -> float:
        """Return how many slots of all nodes are neither set aside nor held."""
        return sum(self._in_use().values()) - len(self._held) if self.capacity() else math.inf

    def _in_use(self) -> dict[str, int]:
        """Return the slots of every node that is not set aside, by its id."""
        aside = {where[0] for where in self._aside if where[1] is None}
        return {node: slots for node, slots in self.capacity().items() if node not in aside}

    def hold(self, tune_id: str, place: Place) -> None:
        """Note that a worker holds its device without training, so that attempts find another place."""
        self._held.setdefault(tune_id, (place.where, self.clock() + STEADY_S))

    def dismiss(self, tune_id: str, place: Place) -> None:
        """Note that a worker is to end its process, which it does when it is asked to go on."""
        self._leaving[tune_id] = place

    def keeps(self, tune_id: str) -> bool:
        """Return whether a worker without a trial should go on holding its device, or end its process."""
        where, until = self._held.get(tune_id, (None, 0.0))
        return tune_id in self._leaving or where in self._aside or self.clock() < until

    def release(self, tune_id: str) -> None:
        """Note that a worker has ended, or gets another trial."""
        self._held.pop(tune_id, None)
        self._leaving.pop(tune_id, None)

    def avoid(self, failures: Iterable[AttemptLost]) -> tuple[list[str], list[Where]]:
        """Return the nodes and the devices on which a trial that has failed so should not be tried again."""
        nodes = {str(node) for node, device in self._aside if device is None}
        devices = {where for where in self._aside if where[1] is not None}
        places = [event.place for event in failures if event.place is not None]
        failed_nodes = {str(place.node_id) for place in places}
        if set(self.capacity()) - nodes - failed_nodes:
            nodes |= failed_nodes
        else:
            failed = {place.where for place in places if place.device is not None}
            known = {where for where in self._health if where[1] is not None}
            devices |= failed if known - devices - failed else set()
        return sorted(nodes), sorted(devices, key=str)

    def room(self, node_id: str | None, failures: Iterable[AttemptLost], taken: Mapping[float | None, int]) -> Room:
        """Return where the next attempt at a trial may run.

        It goes on with the kind of GPU with which it began, if a node with that is left. Where slots differ between
        kinds, that kind must have a free one; if not, the attempt gets one of those of which most are free.

        Args:
            node_id: where the trial began; None if it did not.
            failures: its attempts that failed.
            taken: slots that running attempts take, by their GPUs.
        """
        nodes, devices = self.avoid(failures)
        there = self._in_use()
        kind = None if node_id is None else self.kinds.get(node_id)
        alike = {node for node in there if kind is not None and self.kinds.get(node) == kind}
        possible = {node: slots for node, slots in there.items() if node not in nodes} or there
        if not self.slot.by_kind:
            others = there.keys() - alike if alike & possible.keys() else set()
            return Room(sorted({*nodes, *others}), devices)
        free = self._free_on(possible, taken)
        kept = {node for node in alike & possible.keys() if free[self._gpus_of(node)] > 0} or possible.keys()
        most = max(map(self._gpus_of, kept), key=lambda gpus: (free[gpus], gpus), default=self.slot.gpus)
        return Room(nodes, devices, most, sorted(node for node in kept if self._gpus_of(node) == most))

    def _free_on(self, nodes: Mapping[str, int], taken: Mapping[float | None, int]) -> Counter[float]:
        """Return how many slots are surely free on some nodes, which have so many, by their GPUs."""
        # an attempt may be on any of them until its place is known
        free = Counter[float]({gpus: -count for gpus, count in taken.items() if gpus is not None})
        for node, slots in nodes.items():
            free[self._gpus_of(node)] += slots
        elsewhere = (place.node_id for place, _ in self._running.values() if place.node_id not in nodes)
        free.update(map(self._gpus_of, elsewhere))
        unused = [*(node for (node, _), _ in self._held.values()), *(place.node_id for place in self._leaving.values())]
        free.subtract(self._gpus_of(node) for node in unused if node in nodes)
        return free

    def _gpus_of(self, node_id: str | None) -> float:
        """Return the GPUs of a slot on a node."""
        return self.slot.gpus_of(None if node_id is None else self.kinds.get(node_id))

    def has_left(self, avoid: Iterable[str], only: Iterable[str]) -> bool:
        """Return whether no node is there any more of those where an attempt may run, as in `Room`."""
        there, wanted = set(self.capacity()), set(only)
        return not there & wanted if wanted else bool(there) and there <= set(avoid)

    @property
    def several(self) -> bool:
        """True if there is more than one node or device."""
        return len({where for where in self._health if where[1] is not None}) > 1 or len(self.capacity()) > 1

    def has_room_outside(self, places: Iterable[Place], slots: int, running: int) -> bool:
        """Return whether one of `slots` is free that is on none of `places`, or there is nothing but these.

        Args:
            running: the number of attempts that run; of some it may not be known yet where.
        """
        inside = {self._widest(place) for place in places}
        outside = min(slots, self._available() - sum(map(self._usable_on, inside)))
        taken = [*(place for place, _ in self._running.values()), *self._leaving.values()]
        there = sum(any(_covers(where, place.where) for where in inside) for place in taken)
        return outside <= 0 or running + len(self._leaving) - there < outside

    def _widest(self, place: Place) -> Where:
        """Return the node of a place if there are others, else its device."""
        return (place.node_id, None) if len(self.capacity()) > 1 or place.device is None else place.where

    def _usable_on(self, where: Where) -> int:
        """Return how many of the slots that may be used a place has."""
        if where[1] is not None:
            return slots_a_gpu(self._gpus_of(where[0])) - sum(held == where for held, _ in self._held.values())
        nodes = self.capacity()
        return nodes.get(str(where[0]), 0) if len(nodes) > 1 and where not in self._aside else 0


def _levels(place: Place) -> list[Where]:
    """Return a place's device, if it has one, and its node."""
    node = place.node_id, None
    return [node] if place.device is None else [place.where, node]


def _covers(wide: Where, narrow: Where) -> bool:
    """Return whether the second place is the first, or on it."""
    return wide == narrow or (wide[1] is None and wide[0] == narrow[0])
