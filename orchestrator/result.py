"""The result of a command: of a sweep, or of a dry run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.plan.forecast import Forecast
from orchestrator.plan.plan import Plan
from orchestrator.record.paths import SweepFolder
from orchestrator.record.state import SweepState
from trainables.datasets.inventory import Inventory

if TYPE_CHECKING:
    import pandas as pd

    from orchestrator.assessment.confirmation import Confirmation
    from orchestrator.bundle.classifier import Classifier


@dataclass(frozen=True)
class SweepResult:
    """The result of a sweep. `folder` holds its journal, tables and best model."""

    folder: Path
    plan: Plan
    state: SweepState
    confirmation: Confirmation | None  # of the best trials, once all their runs have ended
    ended: str  # finished | sweep_budget | signal
    wall_s: float  # of this command

    @property
    def leaderboard(self) -> pd.DataFrame:
        """One row per trial, sorted by rank; the columns are those of `leaderboard.parquet`."""
        from orchestrator.assessment import tables

        return tables.leaderboard(self.state, self.confirmation).to_pandas()

    @property
    def best(self) -> dict[str, Any] | None:
        """The trial, score, epoch and config of the best trial of the search; None if no trial has a score."""
        from orchestrator.record.ranking import best_trial

        best = best_trial(self.state)
        if best is None:
            return None
        return {"trial": best.number, "score": best.score, "epoch": best.best_epoch, "config": best.config}

    @property
    def front(self) -> list[dict[str, Any]]:
        """The trials that no other beats in all aims, the best score first: `trial`, `score`, and each aim by its name.

        Empty without `also`.
        """
        from orchestrator.assessment import weighing

        return weighing.front_values(self.state, self.plan)

    @property
    def winner(self) -> dict[str, Any] | None:
        """The confirmed winner with its intervals and test metrics, as in `final.json`; None if none is confirmed."""
        return None if self.confirmation is None else self.confirmation.to_dict()

    @property
    def owed(self) -> dict[str, str]:
        """Deliverables that could not be made, and why; `--resume` makes them."""
        return self.state.owed

    @property
    def bundle(self) -> Path | None:
        """The folder of the best model, if its weights were kept."""
        path = SweepFolder(self.folder).bundle
        return path if path.is_dir() else None

    @property
    def report(self) -> Path | None:
        """The page that shows the whole sweep, if it was written."""
        path = SweepFolder(self.folder).report
        return path if path.is_file() else None

    def __repr__(self) -> str:
        return "\n".join(self._lines())

    def _repr_html_(self) -> str:
        """Return the result as a notebook shows it: lines, a chart of the scores and the leaderboard's head."""
        from orchestrator.display.notebook import result_html

        return result_html(self._lines(), self.state, list(self.plan.space.distributions))

    def _lines(self) -> list[str]:
        """Return the sweep, its best trial, its confirmed winner and its report, a line each."""
        from orchestrator.record.ranking import count_statuses

        statuses = ", ".join(f"{number} {status}" for status, number in count_statuses(self.state).items())
        lines = [f"sweep {SweepFolder(self.folder).name}, {self.ended}: {statuses or 'no trials'}"]
        metric, best = self.plan.space.base.metric, self.best
        if best is not None:
            lines.append(f"best of the search: trial {best['trial']}, {metric} {best['score']:.4f}")
        if self.confirmation is not None:
            winner, test = self.confirmation.winner, self.confirmation.test
            tested = "" if test is None else f", {test.model_accuracy:.4f} accuracy on the test set"
            lines.append(f"winner: trial {winner.trial.number}, {metric} {winner.mean:.4f} confirmed{tested}")
        if self.plan.aims:
            lines.append(f"Pareto front: trials {', '.join(str(one['trial']) for one in self.front) or 'none'}")
        return lines + ([f"report: {self.report}"] if self.report else [])

    def model(self, device: str | None = None, trust: str | None = None) -> Classifier:
        """Load the best model with its preprocessing; `device` and `trust` are those of `bundle.load`.

        Raises:
            BundleError: there is none, or its files were altered.
        """
        from orchestrator.bundle import bundle

        return bundle.load(SweepFolder(self.folder).bundle, device, trust)

    def is_complete(self) -> bool:
        """Return whether there is a best trial or, of a recipe, a final training run of every arm."""
        from orchestrator.assessment import comparison

        if self.plan.recipe is not None:
            found = comparison.compare(self.state, self.plan)
            return all(found.runs(arm) for arm in found.arms())
        return self.best is not None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, as `--json` prints them."""
        from orchestrator.assessment import baseline, weighing
        from orchestrator.record.ranking import count_statuses, slot_use

        files = SweepFolder(self.folder)
        return {
            "sweep": files.name,
            "ended": self.ended,
            "trials": count_statuses(self.state),
            "epochs": sum(len(trial.epochs) for trial in self.state.trials.values()),
            "best": self.best,
            "winner": self.winner,
            **weighing.weighed(self.state, self.plan),
            "owed": self.owed,
            "commonest_share": baseline.share(self.state.spec.split),
            "leaderboard": str(files.leaderboard),
            "comparison": str(files.comparison) if self.plan.recipe else None,
            "bundle": self.bundle and str(self.bundle),
            "report": self.report and str(self.report),
            "wall_s": round(self.wall_s, 3),
            "slot_use": slot_use(self.state),
        }


@dataclass(frozen=True)
class DryRun:
    """The result of a dry run: what the sweep would do."""

    planned: Plan
    slots: int
    split: dict[str, Any]
    inventory: Inventory  # what the data set was read as
    samples: list[dict[str, Any]]  # the first proposals
    contact_sheet: Path  # the page with pictures of each class
    forecast: Forecast | None  # of the sweep's time, if steps of its trials can be run here

    def __repr__(self) -> str:
        trials = f"{self.planned.queue().total()} trials and runs, {self.slots} at a time"
        return f"plan of {self.planned.name}: {trials}; pictures: {self.contact_sheet}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, as `--json` prints them."""
        return {
            "plan": self.planned.to_dict(),
            "slots": self.slots,
            "split": self.split,
            "inventory": self.inventory.to_dict(),
            "samples": self.samples,
            "contact_sheet": str(self.contact_sheet),
            "forecast": self.forecast and self.forecast.to_dict(),
        }
