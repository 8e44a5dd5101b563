"""The weights that a sweep's results are made of: which are still needed, and what follows if they are lost.

A run whose weights are needed and lost is due again: it is trained once more from its seed, by this command or, if the
weights could not be saved because a disk is full, by the next one.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from orchestrator.assessment.confirmation import Confirmation, confirmation_of
from orchestrator.bundle import bundle
from orchestrator.bundle.contents import Choice, choices
from orchestrator.bundle.documents import CONFIRMED, ENSEMBLE, REFIT, SEARCHED
from orchestrator.plan.context import SweepContext
from orchestrator.record import kept_weights
from orchestrator.record.events import WeightsLost, WorkerFound
from orchestrator.record.paths import SweepFolder
from orchestrator.record.ranking import ranked
from orchestrator.record.state import SweepState, TrialRecord


def models(state: SweepState, confirmed: Confirmation | None) -> list[Choice]:
    """Return the models that `best/` may get: the first one, unless its weights cannot be had."""
    if confirmed is None:
        return choices(ranked(state), SEARCHED)
    mean = [] if confirmed.ensemble is None else [Choice(ENSEMBLE, confirmed.ensemble.runs)]
    refit = [] if confirmed.refit is None else [Choice(REFIT, (confirmed.refit,))]
    return [*mean, *refit, Choice(CONFIRMED, (confirmed.model,))]


def held(wanted: Iterable[Choice], folder: SweepFolder) -> Choice | None:
    """Return the first of the `wanted` models that is in `best/`; None if none is."""
    return next((choice for choice in wanted if bundle.holds(folder.bundle, choice)), None)


def needed(state: SweepState, confirmed: Confirmation, folder: Path) -> list[TrialRecord]:
    """Return the final runs whose weights are needed: to be measured on the test set, or for the bundle in `folder`."""
    first = models(state, confirmed)[0]
    runs = [*confirmed.untested(), *confirmed.unmeasured_members()]
    if not bundle.holds(folder, first):
        runs += first.runs
    runs += [confirmed.twin(run) for run in runs]  # of which a refit and an ensemble have the temperature
    return list({run.number: run for run in runs}.values())


class Guard:
    """Has final runs whose weights are needed and lost run again, each once a command."""

    def __init__(self, context: SweepContext) -> None:
        self._context = context
        self._ended = {run.number for run in context.state.trials.values() if run.end is not None}
        self._again: set[int] = set()

    def describe(self) -> None:
        """Record the workers of final runs that the journal does not know, because of a damaged line."""
        context = self._context
        for run in list(context.state.trials.values()):
            if run.final and run.status == "completed" and run.worker.format is None:
                worker = kept_weights.worker(context.storage, run.number)
                if worker is not None:
                    context.journal.append(WorkerFound(run.number, worker))

    def requeue(self) -> bool:
        """Have lost runs wait for another attempt once all trials have ended; return whether there are any."""
        context = self._context
        confirmed = confirmation_of(context.state, context.plan)
        runs = [] if confirmed is None else needed(context.state, confirmed, context.folder.bundle)
        lost = [run for run in runs if self._may_run(run) and self._is_lost(run)]
        for run in lost:
            self._again.add(run.number)
            context.journal.append(WeightsLost(run.number, "no whole checkpoint has them"))
            context.discard(run)
            context.console.print(
                f"the weights of trial {run.number} are gone or damaged, and best/ or the test needs them: it is run "
                "again from its seed",
                soft_wrap=True,
            )
        return bool(lost)

    def _may_run(self, run: TrialRecord) -> bool:
        """Return whether another attempt of `run` may help: what could not be saved just now cannot be saved again."""
        return run.number not in self._again and (run.unsaved is None or run.number in self._ended)

    def _is_lost(self, run: TrialRecord) -> bool:
        try:
            return self._context.weights(run) is None
        except OSError:  # nobody knows: `conclusion` says so
            return False
