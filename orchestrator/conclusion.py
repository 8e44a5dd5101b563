"""The end of a sweep: what it delivers, each a task whose state is in the journal.

The test set is opened for the winner; then come the model in `best/`, tables and report. Each is made of what is
before it, of the journal and of checkpoints. What cannot be made is owed: the command says so, and `--resume` makes it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from threading import Thread
from typing import TYPE_CHECKING

from rich.console import Console

from orchestrator import report
from orchestrator.assessment import comparison, refits, tables
from orchestrator.assessment.confirmation import Confirmation, confirmation_of, unconfirmed
from orchestrator.assessment.rung_trust import rung_trust
from orchestrator.assessment.weighing import weighed
from orchestrator.bundle import bundle, run_weights, test_set
from orchestrator.bundle.contents import CONFIG, digest
from orchestrator.bundle.documents import CONFIRMED, ENSEMBLE, KINDS, REFIT
from orchestrator.cluster import signals, slot_tasks
from orchestrator.display import progress, summary
from orchestrator.plan.context import SweepContext
from orchestrator.plan.plan import Plan
from orchestrator.record.events import Delivered, DeliveryFailed, Event, TrialEnded
from orchestrator.record.journal import Journal
from orchestrator.record.paths import SweepFolder
from orchestrator.record.state import SweepState
from orchestrator.report import confusions, contact_sheet
from orchestrator.search.trial_queue import TrialQueue
from trainables.errors import InputError
from trainables.files import replace_json, sha256

if TYPE_CHECKING:
    import ray


class OwedError(Exception):
    """A deliverable cannot be made; the message says why."""


def conclude(context: SweepContext) -> Confirmation | None:
    """Make all that the sweep delivers, record what is owed, show the end, and return the confirmation."""
    for name, make in DELIVERABLES.items():
        if context.here is not None and name == FIRST_WITHOUT_RAY:
            context.here.end()  # meanwhile the rest is made
        context.trace.next(name)
        signals.again()
        try:
            digest = make(context)
        except (OSError, InputError, test_set.UnmeasuredError, OwedError) as error:
            context.journal.append(DeliveryFailed(name, " ".join(str(error).split())))
        else:
            if digest is not None:
                context.journal.append(Delivered(name, digest))
    context.trace.next("show the end")
    confirmed = confirmation_of(context.state, context.plan)
    summary.show_end(context.state, context.plan, confirmed, context.folder, context.console)
    return confirmed


@dataclass
class Ahead:
    """Begins with the end when no trial is left to begin.

    What the report needs is imported here; a worker of this machine makes what needs no results. The same worker then
    measures the test set: it has imported torch, which takes seconds. On a cluster other machines may measure.

    Args:
        data: the rows that trials may see, in the object store.
    """

    context: SweepContext
    queue: TrialQueue
    data: ray.ObjectRef
    begun: bool = False

    def observe(self, event: Event) -> None:
        """Take in an event that has been folded."""
        alone = self.context.here is not None and not self.begun
        if alone and isinstance(event, TrialEnded) and self.queue.next(self.context.state) is None:
            self.begun = True
            Thread(target=import_module, args=("orchestrator.report.influence",), daemon=True).start()
            slot_tasks.begin(contact_sheet.save, self.context.plan, self.data, self.context.folder.contact)


def _test_metrics(context: SweepContext) -> str | None:
    """Measure the confirmed winner's models on the test set, once nothing is left to run."""
    confirmed = confirmation_of(context.state, context.plan)
    interrupted = context.state.ended == "signal"
    if confirmed is None or interrupted or not is_run(context.state, context.plan):
        return None
    test_set.measure(confirmed, context, progress.testing)
    measured = [run.final_metrics["test"].to_dict() for run in (*confirmed.winner.runs, *confirmed.refits)]
    return digest(json.dumps(measured).encode())


def _bundle(context: SweepContext) -> str | None:
    """Write `best/`; a model of another trial that is there is set aside if no other can be written."""
    state, folder = context.state, context.folder
    confirmed = confirmation_of(state, context.plan)
    if confirmed is None and context.plan.confirm and bundle.kind(folder.bundle) in (CONFIRMED, ENSEMBLE, REFIT):
        context.console.print(
            f"{folder.bundle} keeps the confirmed model of an earlier command until today's best are confirmed",
            soft_wrap=True,
        )
        return sha256(folder.bundle / CONFIG)
    wanted = run_weights.models(state, confirmed)
    kept = bundle.write(wanted, context.data, context.weights, folder.bundle, state.spec, confirmed)
    there = kept or run_weights.held(wanted[:1], folder)
    if there is not None:
        confusions.write(there.trial if confirmed is None else confirmed.model, context.data, folder)
    elif bundle.set_aside(folder.bundle, folder.former_bundle):
        context.console.print(f"{folder.former_bundle} has the model that was in best/, of another trial")
    if wanted and there != wanted[0]:
        lost = f"the weights of trial {' and '.join(str(run.number) for run in wanted[0].runs)} are gone"
        if confirmed is not None or there is None:
            raise OwedError(f"{lost}, so it has not {KINDS[wanted[0].kind]}")
        context.console.print(f"best/ has trial {there.trial.number}, the next best one: {lost}", soft_wrap=True)
    return None if there is None else sha256(folder.bundle / CONFIG)


def _tables(context: SweepContext) -> str:
    """Write everything that follows from the journal and from `best/`."""
    state, folder = context.state, context.folder
    confirmed = confirmation_of(state, context.plan)
    _write_tables(state, context.plan, confirmed, folder)
    if not folder.contact.exists():
        contact_sheet.save(context.plan, context.data, folder.contact)
    best = run_weights.held(run_weights.models(state, confirmed), folder)
    owed = {"owed": state.owed} if state.owed else {}
    if confirmed is None:
        found = unconfirmed(state) | {"trial": best and best.trial.number, "score": best and best.trial.score}
    else:
        found = confirmed.to_dict() | {"best": best and best.to_dict()}
    rungs = rung_trust(state, context.plan)
    replace_json(folder.final, found | {"rungs": rungs and rungs.to_dict()} | weighed(state, context.plan) | owed)
    return sha256(folder.final)


def _report(context: SweepContext) -> str:
    """Write the page that shows all of it."""
    try:
        return sha256(report.write(context.folder.path))
    except Exception as error:  # nothing depends on the report: a fault of ours costs the sweep nothing else
        raise OwedError(f"{type(error).__name__}: {error}") from error


FIRST_WITHOUT_RAY = "best/"  # of a sweep on this machine alone

DELIVERABLES: Mapping[str, Callable[[SweepContext], str | None]] = {
    "test metrics": _test_metrics,
    "best/": _bundle,
    "tables": _tables,
    "report": _report,
}
"""What a sweep delivers, in the order in which it is made → what makes it, and returns the SHA-256 of its content, or
None where there is nothing to deliver yet.
"""


def is_run(state: SweepState, planned: Plan) -> bool:
    """Return whether every trial has ended and none is left to propose."""
    return state.finished == len(state.trials) and refits.queue(planned).next(state) is None


def is_delivered(journal: Journal, planned: Plan) -> bool:
    """Return whether nothing is left to be run, and all deliverables are there, but for a report, which is easily made.

    Of a sweep of an earlier version, whose journal says nothing of them, the files are looked at alone.
    """
    state, folder = journal.state, SweepFolder(journal.path.parent)
    reopened = replace(state, closed=None)  # a search that was closed for want of time goes on
    if state.owed or not is_run(reopened, planned):
        return False
    confirmed, known = confirmation_of(state, planned), state.deliverables.get("best/")
    try:
        final = json.loads(folder.final.read_bytes())
        if final["trial"] is not None and not bundle.is_complete(folder.bundle):
            return False
        if known is not None and known.digest != sha256(folder.bundle / CONFIG):
            return False
    except (OSError, ValueError, LookupError, TypeError):
        return False
    return confirmed is None or not run_weights.needed(state, confirmed, folder.bundle)


def show_finished(journal: Journal, planned: Plan, console: Console) -> Confirmation | None:
    """Write the tables and the report of a concluded sweep again, show what it came to, and return its confirmation."""
    state, folder = journal.state, SweepFolder(journal.path.parent)
    confirmed = confirmation_of(state, planned)
    _write_tables(state, planned, confirmed, folder)
    try:
        report.write(folder.path)
    except Exception as error:  # as in `_report`
        console.print(f"{folder.report.name} could not be written: {type(error).__name__}: {error}", soft_wrap=True)
    summary.show_end(state, planned, confirmed, folder, console)
    return confirmed


def _write_tables(state: SweepState, planned: Plan, confirmed: Confirmation | None, folder: SweepFolder) -> None:
    """Write everything that follows from the journal alone."""
    tables.write_all(state, folder, confirmed)
    if planned.recipe is not None:
        comparison.write(state, planned, folder)
    replace_json(folder.spec, state.record())
