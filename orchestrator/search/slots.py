"""The slots that a sweep has now, while machines join and leave, and those that it asks the cluster for."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from orchestrator.cluster import demand
from orchestrator.cluster.connection import nodes
from orchestrator.cluster.machine import Nodes, Slot
from orchestrator.record.events import SlotsChanged
from orchestrator.record.journal import Journal
from orchestrator.search.trial_queue import TrialQueue
from trainables.errors import counted

RECOUNT_S = 1.0  # how long a count is used
REPORTED_AFTER_S = 60.0  # of waiting for slots


def machines() -> Nodes:
    """Return what the machines of the connected cluster have now."""
    return [node.resources for node in nodes()]


class SlotCounter:
    """Counts the slots of the connected cluster: machines may join and leave."""

    def __init__(
        self,
        fitting: Callable[[Nodes], int],
        machines: Callable[[], Nodes] = machines,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take what returns how many slots fit on some machines, where these are asked for, and a clock, in seconds."""
        self._fitting = fitting
        self._machines = machines
        self._clock = clock
        self._slots = 0
        self._counted_at = -math.inf

    def __call__(self) -> int:
        """Return the number of slots; it is at most `RECOUNT_S` old."""
        now = self._clock()
        if now - self._counted_at > RECOUNT_S:
            self._counted_at = now
            self._count(self._machines())
        return self._slots

    def _count(self, machines: Nodes) -> None:
        """Note how many slots `machines` have."""
        self._slots = self._fitting(machines)


class NodeSlots:
    """Counts the slots of each node of the connected cluster."""

    def __init__(self, slot: Slot) -> None:
        """Take what a slot has."""
        self._slot = slot
        self._slots: dict[str, int] = {}
        self.kinds: dict[str, str | None] = {}  # of the GPUs of every node that there ever was, by its id
        self._counted_at = -math.inf

    def __call__(self) -> Mapping[str, int]:
        """Return the slots of every node that has any, by its id; they are at most `RECOUNT_S` old."""
        now = time.monotonic()
        if now - self._counted_at > RECOUNT_S:
            self._counted_at = now
            there = nodes()
            self._slots = {node.id: slots for node in there if (slots := node.resources.capacity(self._slot))}
            self.kinds |= {node.id: node.resources.kind for node in there}
        return self._slots


class GrowingSlots(SlotCounter):
    """Counts the slots of a cluster, asks it for more, and records and reports what comes of it.

    As many are asked for as the sweep may use, or as it had before machines were lost, but no more than it has trials
    for: so a cluster that grows also shrinks at the end of a search.
    """

    def __init__(
        self,
        fitting: Callable[[Nodes], int],
        slot: Slot,
        most: int | None,
        journal: Journal,
        queue: TrialQueue,
        report: Callable[[str], object],
        request: Callable[[Sequence[Mapping[str, float]]], None] = demand.request,
        machines: Callable[[], Nodes] = machines,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Count slots as `SlotCounter` does.

        Args:
            slot: what each has.
            most: slots to ask for; None: as many as there were.
            queue: of all trials.
            report: takes a message for the user.
            request: asks for slots, as `demand.request` does.
        """
        super().__init__(fitting, machines, clock)
        self._slot = slot
        self._limit = most
        self._request = request
        self._journal = journal
        self._queue = queue
        self._report = report
        self._most = 0  # slots that there ever were
        self._recorded = (-1, -1, -1)
        self._missing_since = math.inf
        self._reported = -1  # slots that there were when it was reported that some are missing

    def _count(self, machines: Nodes) -> None:
        super()._count(machines)
        self._most = max(self._most, self._slots)
        asked = min(self._limit or self._most, self._due())
        self._request(list(self._bundles(machines, asked)))
        holding = sum(node.capacity(self._slot) > 0 for node in machines)
        now = self._slots, holding, asked
        if now != self._recorded:
            self._recorded = now
            self._journal.append(SlotsChanged(*now))
        self._say(asked)

    def _bundles(self, machines: Nodes, slots: int) -> Iterator[dict[str, float]]:
        """Yield the resources of so many slots.

        Where their shares of a GPU differ those that are there come first, all of a machine together, as each kind of
        GPU holds another number of them.
        """
        cpus = self._slot.cpus
        for node in machines if self._slot.by_kind else ():
            if there := min(node.capacity(self._slot), slots):
                slots -= there
                yield {"CPU": there * cpus, "GPU": there * self._slot.gpus_of(node.kind)}
        for _ in range(slots):
            yield {"CPU": cpus, "GPU": self._slot.gpus}

    def _due(self) -> int:
        """Return how many trials could run now, if there were slots for all."""
        state = self._journal.state
        live = len(state.running) + len(state.waiting) + len(state.paused)
        if self._queue.next(state) is None:
            return live
        return max(live + self._queue.total() - len(state.trials), live + 1)

    def _say(self, asked: int) -> None:
        """Report once what the sweep waits for, if for a minute it has had fewer slots than it asks for."""
        if self._slots >= asked:
            self._missing_since, self._reported = math.inf, -1
            return
        self._missing_since = min(self._missing_since, self._clock())
        if self._clock() - self._missing_since >= REPORTED_AFTER_S and self._reported != self._slots:
            self._reported = self._slots
            self._report(
                f"waiting for machines: {counted(asked, 'slot')} of {self._slot} asked for, "
                f"{self._slots} there; what comes is used"
            )
