"""The models that may be kept beside a confirmed winner's run, and what they reached: its refit, and an ensemble."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.assessment import intervals
from orchestrator.record.facts import Measured
from orchestrator.record.state import TrialRecord

LEVEL = 0.95


@dataclass(frozen=True)
class Ensemble:
    """The mean of several of the winner's runs or refits, that of the median run first, and what it reached.

    A refit cannot be scored on the validation set: there the ensemble of the runs that were refitted is meant.
    """

    runs: tuple[TrialRecord, ...]
    parts: Mapping[str, Measured]  # of the data

    @property
    def numbers(self) -> list[int]:
        """The numbers of the runs."""
        return [run.number for run in self.runs]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, as `final.json` has them."""
        validated = self.parts.get("validation")
        accuracy = None if validated is None else validated.accuracy
        return {"trials": self.numbers, "validation_accuracy": accuracy, **tested(self.parts.get("test"))}


def refit_result(run: TrialRecord) -> dict[str, Any]:
    """Return the result of a refit: plain JSON values, as `final.json` has them."""
    facts = {"trial": run.number, "epochs": run.last_epoch, "train_rows": run.worker.train_rows}
    return {**facts, **tested(run.final_metrics.get("test"))}


def tested(test: Measured | None) -> dict[str, Any]:
    """Return the accuracy on the test set and its interval over rows, None where it is not known."""
    if test is None or test.accuracy is None:
        return {"test_accuracy": None, "wilson": None}
    wilson = intervals.of_share(test.accuracy, test.rows, LEVEL)
    return {"test_accuracy": test.accuracy, "wilson": wilson}
