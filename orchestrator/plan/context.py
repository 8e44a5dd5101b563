"""All that a sweep works with once it has started."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from orchestrator.cluster import connection
from orchestrator.cluster.connection import Connection
from orchestrator.plan.plan import Plan
from orchestrator.record import kept_weights
from orchestrator.record.events import GpuMeasured
from orchestrator.record.journal import Journal
from orchestrator.record.kept_weights import Weights
from orchestrator.record.paths import SweepFolder
from orchestrator.record.state import SweepState, TrialRecord
from orchestrator.record.trace import Trace
from orchestrator.search.slots import GrowingSlots, SlotCounter
from orchestrator.search.trial_queue import TrialQueue
from trainables.storage import Storage

if TYPE_CHECKING:
    from rich.console import Console

    from trainables.datasets.inventory import Inventory
    from trainables.models.filling import Filled
    from trainables.splits import SearchData


@dataclass(frozen=True, eq=False)
class SweepData:
    """The data of a sweep: the rows that trials may see, how they were split, and what the data set was read as."""

    rows: SearchData
    split: dict[str, Any]  # as the record has it
    inventory: Inventory
    filled: dict[tuple[str, str], Filled] = field(default_factory=dict)  # by model and weights, what these fill


@dataclass(frozen=True, eq=False)
class SweepContext:
    """A started sweep: its plan, its data, its record, where its checkpoints are, and where messages go."""

    plan: Plan
    loaded: SweepData
    journal: Journal
    storage: Storage  # of the checkpoints
    shared: bool  # whether this machine sees the checkpoints of all others in `storage`
    console: Console
    trace: Trace
    here: Connection | None = None  # Ray on this machine alone; else machines may come and go while the sweep runs
    measured: tuple[GpuMeasured, ...] = ()  # on GPUs, for the record

    @property
    def data(self) -> SearchData:
        """The rows that trials may see."""
        return self.loaded.rows

    @property
    def state(self) -> SweepState:
        """The folded journal."""
        return self.journal.state

    @property
    def folder(self) -> SweepFolder:
        """The sweep's folder."""
        return SweepFolder(self.journal.path.parent)

    def slot_counter(self, queue: TrialQueue) -> SlotCounter:
        """Return what counts the sweep's slots and, where machines may come, asks for as many as `queue` needs."""
        planned = self.plan
        if self.here is not None:
            return SlotCounter(planned.slots)
        report = partial(self.console.print, soft_wrap=True)
        return GrowingSlots(planned.slots, planned.slot, planned.concurrency, self.journal, queue, report)

    def weights(self, trial: TrialRecord) -> Weights | None:
        """Return the weights that `trial` kept, on whichever machine they are; None if they are nowhere.

        Raises:
            OSError: the storage, or the machine that should have them, does not answer.
        """
        wanted = (self.storage, trial.number, trial.best_epoch)
        found = kept_weights.find(*wanted)
        if found is None and not self.shared and trial.status != "stopped":
            found = connection.ask_node(trial.worker.node_id, kept_weights.find, *wanted)
        return found

    def discard(self, trial: TrialRecord) -> None:
        """Remove what is left of the states of `trial`, whose weights are damaged; raise OSError as `weights` does."""
        self.storage.remove_folder(str(trial.number))
        if not self.shared:
            connection.ask_node(trial.worker.node_id, self.storage.remove_folder, str(trial.number))
