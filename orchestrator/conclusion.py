"""The end of a sweep: the test set is opened for the winner; tables, the model and the report are written.

All of it follows from the journal and the checkpoints, so `--resume` does the same after a command that was killed.
"""

from __future__ import annotations

import json

from rich.console import Console

from orchestrator import report
from orchestrator.assessment import comparison, tables
from orchestrator.assessment.confirmation import Confirmation, confirmation_of, unconfirmed
from orchestrator.bundle import bundle, test_set
from orchestrator.bundle.contents import Choice, choices
from orchestrator.bundle.documents import CONFIRMED, ENSEMBLE, REFIT, SEARCHED
from orchestrator.display import progress, summary
from orchestrator.plan.context import SweepContext
from orchestrator.plan.plan import Plan
from orchestrator.record.paths import SweepFolder
from orchestrator.record.ranking import ranked
from orchestrator.record.state import SweepState
from orchestrator.report import confusions, contact_sheet
from trainables.files import replace_json


def conclude(context: SweepContext) -> Confirmation | None:
    """Open the test set for the confirmed winner, write all files, show the end, and return the confirmation."""
    state, folder = context.state, context.folder
    confirmed = confirmation_of(state, context.plan)
    if confirmed is not None:
        test_set.measure(confirmed, context, progress.testing)
        confirmed = confirmation_of(state, context.plan) or confirmed
    _write_tables(state, context.plan, confirmed, folder)
    kept = bundle.write(_choices(state, confirmed), context.data, context.weights, folder.bundle, state.spec, confirmed)
    if kept is not None:
        confusions.write(kept.trial if confirmed is None else confirmed.model, context.data, folder)
    contact_sheet.save(context.plan, context.data, folder.contact)
    if confirmed is None:
        best = None if kept is None else kept.trial
        replace_json(folder.final, unconfirmed(state) | {"trial": best and best.number, "score": best and best.score})
    else:
        replace_json(folder.final, confirmed.to_dict() | {"best": kept and kept.to_dict()})
    _show(state, context.plan, confirmed, folder, context.console)
    return confirmed


def _choices(state: SweepState, confirmed: Confirmation | None) -> list[Choice]:
    """Return the models that `best/` may get, the first one unless its weights are gone."""
    if confirmed is None:
        return choices(ranked(state), SEARCHED)
    mean = [] if confirmed.ensemble is None else [Choice(ENSEMBLE, confirmed.ensemble.runs)]
    refit = [] if confirmed.refit is None else [Choice(REFIT, (confirmed.refit,))]
    return [*mean, *refit, Choice(CONFIRMED, (confirmed.model,))]


def show_finished(state: SweepState, planned: Plan, folder: SweepFolder, console: Console) -> Confirmation | None:
    """Write the tables and the report of a concluded sweep again, show what it came to, and return its confirmation."""
    confirmed = confirmation_of(state, planned)
    _write_tables(state, planned, confirmed, folder)
    _show(state, planned, confirmed, folder, console)
    return confirmed


def is_concluded(folder: SweepFolder) -> bool:
    """Return whether the sweep in `folder` has its `final.json`, and the complete model that it names."""
    try:
        final = json.loads(folder.final.read_bytes())
        return final["trial"] is None or bundle.is_complete(folder.bundle)
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _write_tables(state: SweepState, planned: Plan, confirmed: Confirmation | None, folder: SweepFolder) -> None:
    """Write everything that follows from the journal alone."""
    tables.write_all(state, folder, confirmed)
    if planned.recipe is not None:
        comparison.write(state, planned, folder)
    replace_json(folder.spec, state.record())


def _show(
    state: SweepState, planned: Plan, confirmed: Confirmation | None, folder: SweepFolder, console: Console
) -> None:
    """Write the report, and show the end of the sweep."""
    try:
        report.write(folder.path)
    except Exception as error:  # nothing depends on the report: what goes wrong in it costs the sweep nothing
        console.print(f"{folder.report.name} could not be written: {type(error).__name__}: {error}", soft_wrap=True)
    summary.show_end(state, planned, confirmed, folder, console)
