"""What a command comes to: a sweep's result, or what it would do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.plan.plan import Plan
from orchestrator.record.state import SweepState

if TYPE_CHECKING:
    import pandas as pd

    from orchestrator.bundle.classifier import Classifier


@dataclass(frozen=True)
class SweepResult:
    """What a sweep came to. `folder` holds its journal, tables and best model."""

    folder: Path
    state: SweepState
    ended: str  # finished | sweep_budget | signal
    wall_s: float  # of this command

    @property
    def leaderboard(self) -> pd.DataFrame:
        """A row a trial, sorted by rank; the columns are those of `leaderboard.parquet`."""
        from orchestrator.assessment import tables

        return tables.leaderboard(self.state).to_pandas()

    @property
    def best(self) -> dict[str, Any] | None:
        """trial, score, epoch and config of the best trial of the search, if one has a score."""
        from orchestrator.record.ranking import best_trial

        best = best_trial(self.state)
        if best is None:
            return None
        return {"trial": best.number, "score": best.score, "epoch": best.best_epoch, "config": best.config}

    @property
    def winner(self) -> dict[str, Any] | None:
        """The confirmed winner with its intervals and test figures, as in `final.json`; None if none is confirmed."""
        from orchestrator.assessment.confirmation import final

        found = final(self.state)
        return found if found["confirmed"] else None

    @property
    def bundle(self) -> Path | None:
        """The folder of the best model, if its weights were kept."""
        path = self.folder / "best"
        return path if path.is_dir() else None

    @property
    def report(self) -> Path | None:
        """The page that shows all of it."""
        path = self.folder / "report.html"
        return path if path.is_file() else None

    def model(self, device: str | None = None, trust: str | None = None) -> Classifier:
        """The best model, with its preprocessing; `device` and `trust` as of `bundle.load`.

        Raises:
            BundleError: there is none, or its files are not what was written.
        """
        from orchestrator.bundle import bundle

        return bundle.load(self.folder / "best", device, trust)

    def whole(self) -> bool:
        """Whether there is a best trial, and of a recipe a final run of every arm."""
        from orchestrator.assessment import comparison

        if self.state.spec["plan"]["recipe"] is not None:
            found = comparison.compare(self.state)
            return all(found.runs(arm) for arm in found.arms())
        return self.best is not None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, for `--json`."""
        from orchestrator.record.ranking import count_statuses, slot_use

        return {
            "sweep": self.folder.name,
            "ended": self.ended,
            "trials": count_statuses(self.state),
            "epochs": sum(len(trial.epochs) for trial in self.state.trials.values()),
            "best": self.best,
            "winner": self.winner,
            "leaderboard": str(self.folder / "leaderboard.parquet"),
            "comparison": str(self.folder / "comparison.parquet") if self.state.spec["plan"]["recipe"] else None,
            "bundle": self.bundle and str(self.bundle),
            "report": self.report and str(self.report),
            "wall_s": round(self.wall_s, 3),
            "slot_use": slot_use(self.state),
        }


@dataclass(frozen=True)
class DryRun:
    """What a sweep would do."""

    planned: Plan
    slots: int
    split: dict[str, Any]
    samples: list[dict[str, Any]]  # of what would be searched

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, for `--json`."""
        return {"plan": self.planned.to_dict(), "slots": self.slots, "split": self.split, "samples": self.samples}
