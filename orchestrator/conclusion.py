"""The end of a sweep: the test set is opened for the winner; tables, the model and the report are written.

All of it follows from the journal and the checkpoints, so `--resume` does the same after a command that was killed.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from rich.console import Console

from orchestrator import report
from orchestrator.assessment import comparison, confirmation, tables
from orchestrator.assessment.confirmation import Confirmed
from orchestrator.bundle import bundle
from orchestrator.cluster import connection
from orchestrator.display import progress, summary
from orchestrator.plan.context import SweepContext
from orchestrator.record import kept_weights
from orchestrator.record.events import TestMeasured, TestOpened
from orchestrator.record.kept_weights import Weights
from orchestrator.record.paths import SweepFolder
from orchestrator.record.ranking import ranked
from orchestrator.record.state import SweepState, TrialRecord
from orchestrator.report import confusions
from trainables import datasets
from trainables.config import TrialConfig
from trainables.files import replace_json
from trainables.trial_rows import trial_rows

Finder = Callable[[TrialRecord], Weights | None]
"""Finds the weights that a trial kept, wherever they are."""


def conclude(context: SweepContext) -> None:
    """Open the test set for the confirmed winner, write all files, and show where they are and what comes next."""
    state, folder = context.state, context.folder

    def find(trial: TrialRecord) -> Weights | None:
        wanted = (context.storage, trial.number, trial.best_epoch)
        weights = kept_weights.find(*wanted)
        if weights is None and not context.shared and trial.status != "stopped":
            weights = connection.ask_node(trial.worker.node_id, kept_weights.find, *wanted)
        return weights

    winner = confirmation.winner(state)
    if winner is not None:
        _test(winner, context, find)
    _write_tables(state, folder)
    candidates, final = [winner.median_run()] if winner else ranked(state), confirmation.final(state)
    kept = bundle.write(candidates, context.data, find, folder.bundle, state.spec, final if winner else None)
    if kept is not None:
        confusions.write(kept, context.data, folder.path)
    unconfirmed = {"trial": kept and kept.number, "score": kept and kept.score}
    replace_json(folder.final, final if winner else final | unconfirmed)
    _show(state, folder, context.console)


def show_finished(state: SweepState, folder: SweepFolder, console: Console) -> None:
    """Write the tables and the report of a concluded sweep again, and show what it came to."""
    _write_tables(state, folder)
    _show(state, folder, console)


def is_concluded(folder: SweepFolder) -> bool:
    """Return whether the sweep in `folder` has its `final.json`, and the complete model that it names."""
    try:
        final = json.loads(folder.final.read_bytes())
        return final["trial"] is None or bundle.is_complete(folder.bundle)
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _write_tables(state: SweepState, folder: SweepFolder) -> None:
    """Write everything that follows from the journal alone."""
    tables.write_all(state, folder.path)
    if state.spec.plan["recipe"] is not None:
        comparison.write(state, folder.path)
    replace_json(folder.spec, state.record())


def _show(state: SweepState, folder: SweepFolder, console: Console) -> None:
    """Write the report, and show the end of the sweep."""
    try:
        report.write(folder.path)
    except Exception as error:  # nothing depends on the report: what goes wrong in it costs the sweep nothing
        console.print(f"{folder.report.name} could not be written: {type(error).__name__}: {error}", soft_wrap=True)
    summary.show_end(state, folder.path, console)


def _test(winner: Confirmed, context: SweepContext, find: Finder) -> None:
    """Open the test set for the winner's models, and put what they reach there into the journal.

    What a command measured before it was killed is not measured again.
    """
    untested = [run for run in winner.runs if "test" not in run.final_metrics]
    if not untested:
        return
    from trainables.evaluation import measure_images

    journal, numbers = context.journal, [run.number for run in untested]
    opening = context.state.openings
    if not context.state.opened.issuperset(numbers):  # else a command opened it for them and was killed then
        opening += 1
        journal.append(TestOpened(numbers, opening))
    images, labels = datasets.open_test(context.plan.load())
    with progress.testing(context.console, opening, len(labels), len(untested)) as advance:
        for run in untested:
            weights = find(run)
            if weights is None:
                context.console.print(f"the weights of trial {run.number} are gone: it is not tested")
                continue
            config = TrialConfig.from_dict(run.worker.resolve(run.config))
            rows = trial_rows(context.data, config)
            classes = len(context.data.classes)
            measured = measure_images(
                config, weights.tensors, images, labels, (rows.mean, rows.std), classes, weights.temperature
            )
            journal.append(TestMeasured(run.number, measured))
            advance()
