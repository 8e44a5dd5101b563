"""A sweep's last words: the test set opened for the winner, tables, the model, the report.

All of it follows from the journal and the checkpoints, so a command that was killed meanwhile is followed by one that
says the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from orchestrator import report
from orchestrator.assessment import comparison, confirmation, tables
from orchestrator.assessment.confirmation import Confirmed
from orchestrator.bundle import bundle
from orchestrator.cluster import connection
from orchestrator.display import progress, summary
from orchestrator.plan.plan import Plan
from orchestrator.record import kept_weights
from orchestrator.record.journal import Journal
from orchestrator.record.kept_weights import Weights
from orchestrator.record.ranking import ranked
from orchestrator.record.state import SweepState, TrialRecord
from orchestrator.report import confusions
from trainables import datasets
from trainables.config import TrialConfig
from trainables.files import replace_json
from trainables.splits import SearchData, trial_rows
from trainables.storage import Storage

FINAL = "final.json"

Finder = Callable[[TrialRecord], Weights | None]
"""The weights that a trial kept, from wherever they lie."""


def conclude(
    journal: Journal, planned: Plan, data: SearchData, storage: Storage, shared: bool, people: Console
) -> None:
    """Open the test set for the confirmed winner, write all files, say where they are and what comes next.

    Args:
        shared: whether this machine sees the checkpoints of all others in `storage`.
    """
    state, folder = journal.state, journal.path.parent

    def find(trial: TrialRecord) -> Weights | None:
        wanted = (storage, trial.number, trial.best_epoch)
        found = kept_weights.find(*wanted)
        if found is None and not shared and trial.status != "stopped":
            found = connection.ask_node(trial.worker.get("node_id"), kept_weights.find, *wanted)
        return found

    won = confirmation.winner(state)
    if won is not None:
        _test(won, journal, planned, data, find, people)
    _write_tables(state, folder)
    candidates, final = [won.median_run()] if won else ranked(state), confirmation.final(state)
    kept = bundle.write(candidates, data, find, folder / "best", state.record(), final if won else None)
    if kept is not None:
        confusions.write(kept, data, folder)
    unconfirmed = {"trial": kept and kept.number, "score": kept and kept.score}
    replace_json(folder / FINAL, final if won else final | unconfirmed)
    _show(state, folder, people)


def show_finished(state: SweepState, folder: Path, people: Console) -> None:
    """Of a sweep that has its final word: what follows from the journal alone, made again, and what it came to."""
    _write_tables(state, folder)
    _show(state, folder, people)


def _write_tables(state: SweepState, folder: Path) -> None:
    tables.write_all(state, folder)
    if state.spec["plan"]["recipe"] is not None:
        comparison.write(state, folder)
    replace_json(folder / "sweep.json", state.record())


def _show(state: SweepState, folder: Path, people: Console) -> None:
    """The report, and the end as people see it."""
    try:
        report.write(folder)
    except Exception as error:  # nothing depends on the report: what goes wrong in it costs the sweep nothing
        people.print(f"{report.NAME} was not made: {type(error).__name__}: {error}", soft_wrap=True)
    summary.show_end(state, folder, people)


def is_concluded(folder: Path) -> bool:
    """Whether the sweep in `folder` has its final word, and the model that it names, whole."""
    try:
        final = json.loads((folder / FINAL).read_bytes())
        return final["trial"] is None or bundle.is_whole(folder / "best")
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _test(won: Confirmed, journal: Journal, planned: Plan, data: SearchData, find: Finder, people: Console) -> None:
    """Open the seal for the winner's models, and put what they reach on the test set into the journal.

    What was measured before, by a command that was killed after that, is not measured again.
    """
    due = [run for run in won.runs if "test" not in run.final_metrics]
    if not due:
        return
    from trainables.evaluation import measure

    runs, opening = [run.number for run in due], journal.state.openings
    if not journal.state.opened.issuperset(runs):  # else it was opened for them by a command that was killed then
        opening += 1
        journal.append({"event": "test_opened", "runs": runs, "opening": opening})
    images, labels = datasets.open_test(planned.load())
    with progress.testing(people, opening, len(labels), len(due)) as advance:
        for run in due:
            form = {**run.worker["format"], "image_size": run.worker["image_size"]}
            weights, config = find(run), TrialConfig.from_dict(run.config | form)
            if weights is None:
                people.print(f"the weights of trial {run.number} are gone: it is not tested")
                continue
            rows = trial_rows(data, config)
            statistics = (rows.mean, rows.std)
            found = measure(config, weights.tensors, images, labels, statistics, len(data.classes), weights.temperature)
            journal.append({"event": "test_measured", "trial": run.number, "metrics": found})
            advance()
