"""All that a sweep works with once it has started."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.plan.plan import Plan
from orchestrator.record.journal import Journal
from orchestrator.record.paths import SweepFolder
from orchestrator.record.state import SweepState
from trainables.storage import Storage

if TYPE_CHECKING:
    from rich.console import Console

    from trainables.splits import SearchData


@dataclass(frozen=True, eq=False)
class SweepContext:
    """A started sweep: its plan, its rows, its record, where its checkpoints are, and where messages go."""

    plan: Plan
    data: SearchData
    split: dict[str, Any]  # how the rows were split, as the record has it
    journal: Journal
    storage: Storage  # of the checkpoints
    shared: bool  # whether this machine sees the checkpoints of all others in `storage`
    console: Console

    @property
    def state(self) -> SweepState:
        """The folded journal."""
        return self.journal.state

    @property
    def folder(self) -> SweepFolder:
        """The sweep's folder."""
        return SweepFolder(self.journal.path.parent)
