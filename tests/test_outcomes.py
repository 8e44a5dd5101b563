"""The table of outcomes: complete, as its page shows it, and what the journal gets is what it says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from itertools import product
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from simulation import SPACE

from orchestrator.record.events import (
    AttemptLost,
    SweepResumed,
    SweepStarted,
    TrialAttempt,
    TrialEnded,
    TrialEpoch,
    TrialProposed,
)
from orchestrator.record.facts import Place, Spec
from orchestrator.record.journal import Journal, read
from orchestrator.record.state import End, replay
from orchestrator.search import outcomes
from orchestrator.search.incidents import Incident, Incidents
from orchestrator.search.outcomes import LEAST_ROWS, MOST_LOSSES, TABLE, Row, decide, halved, learned, signature
from orchestrator.search.workers import Workers
from trainables.gradients import _micro_batches

A, B = Place("a", "id of a", None, 1), Place("b", "id of b", None, 2)
INCIDENTS = ("not_finite", "out_of_memory", "error", "storage", "died", "set_aside")
DERIVED = ("completed", "unscored", "stopped", "duplicate", "lost", "interrupted")


def cells(row: Row) -> list[str]:
    """Return a row as the page shows it."""
    flag = {None: "", True: "yes", False: "no"}
    end = row.status or ""
    end += f" (`{row.stop_reason}`)" if row.stop_reason else ""
    conditions = [flag[row.alone], flag[row.again], flag[row.divisible]]
    return [f"`{row.happened}`", *conditions, row.fault, row.learns, row.retried, row.charged, end]


def test_the_page_shows_the_table_and_nothing_else() -> None:
    page = (ROOT / "docs" / "outcomes.md").read_text()
    shown = [[cell.strip() for cell in line.strip("|").split("|")] for line in re.findall(r"^\| `.*\|$", page, re.M)]
    assert shown == [cells(row) for row in TABLE]


def test_every_case_has_one_row() -> None:
    assert {row.happened for row in TABLE} == {*INCIDENTS, *DERIVED}
    for happened in {row.happened for row in TABLE}:
        for case in product((True, False), repeat=3):
            fitting = [
                row
                for row in TABLE
                if row.happened == happened
                and all(
                    asked in (None, given)
                    for asked, given in zip((row.alone, row.again, row.divisible), case, strict=True)
                )
            ]
            assert fitting == [decide(happened, *case)]


def test_what_workers_report_is_in_the_table() -> None:
    code = (ROOT / "trainables" / "trainable.py").read_text() + (ROOT / "orchestrator/search/tuning.py").read_text()
    named = set(re.findall(r'"(not_finite|out_of_memory|error|storage|died|set_aside)"', code))
    assert named <= set(INCIDENTS)
    assert {"not_finite", "out_of_memory", "error", "died", "set_aside"} <= named


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """Yield the journal of a sweep whose trial 0 runs."""
    with closing(Journal(tmp_path / "journal.jsonl")) as journal:
        journal.append(SweepStarted(Spec(plan={"name": "s"})))
        journal.append(TrialProposed(0, {}, SPACE.base.to_dict()), TrialAttempt(0, 0))
        yield journal


def fail(
    journal: Journal, incidents: Incidents, happened: str, place: Place, *, alone: bool = True, rows: int = LEAST_ROWS
) -> bool:
    """Record an incident of the running attempt, and begin another attempt if there is one to be."""
    trial = journal.state.trials[0]
    text = "Traceback\nValueError: 3 is not 4"
    alive = incidents.record(
        trial, trial.attempt, Incident(happened=happened, error=text, alone=alone, micro_batch=rows), place
    )
    if trial.end is None:
        journal.append(TrialAttempt(0, trial.attempt + 1))
    return alive


@pytest.mark.parametrize("row", [row for row in TABLE if row.happened in INCIDENTS], ids=str)
def test_the_journal_gets_what_the_table_says(row: Row, journal: Journal) -> None:
    incidents = Incidents(journal, workers := Workers(), pytest.fail)
    workers.begin(0, 0, A)
    alone, rows = row.alone is not False, 100 if row.divisible else LEAST_ROWS
    if row.again:
        fail(journal, incidents, row.happened, A, alone=alone)
        workers.begin(0, 1, B)
    alive = fail(journal, incidents, row.happened, B, alone=alone, rows=rows)
    trial = journal.state.trials[0]
    assert alive == (row.retried == "no")
    last = next(e for e in reversed(read(journal.path)[0]) if isinstance(e, AttemptLost | TrialEnded))
    if row.retried == "no":
        assert isinstance(last, TrialEnded)
        assert (trial.status, last.stop_reason, last.fault) == (row.status, row.stop_reason, row.fault)
        assert trial.end is not None
        assert learned(trial.end, scored=False, shared_slot=not alone) == row.learns
        assert "ValueError" in (trial.error or "")
    else:
        assert isinstance(last, AttemptLost)
        assert (last.happened, last.place, last.charged) == (row.happened, B, row.charged == "worker")
        assert trial.end is None
        assert (last.alone, last.micro_batch) == (row.retried == "alone", 50 if row.retried == "smaller" else 0)


def test_a_trial_without_memory_goes_on_alone_and_then_with_fewer_and_fewer_rows(journal: Journal) -> None:
    """None of that counts as a loss, or is in the record of the place."""
    incidents = Incidents(journal, workers := Workers(), pytest.fail)
    trial, needs = journal.state.trials[0], []
    rows = 128
    while trial.end is None:
        workers.begin(0, trial.attempt, A)
        fail(journal, incidents, "out_of_memory", A, alone=trial.alone, rows=trial.micro_batch or rows)
        needs.append((trial.alone, trial.micro_batch))
    assert needs == [(True, 0), *((True, rows) for rows in (64, 32, 16, 8, 4, 4))]
    assert trial.end == End("failed", "out_of_memory", "Traceback\nValueError: 3 is not 4", "settings")
    assert (trial.losses, trial.failures, journal.state.set_aside) == (0, [], [])
    again = replay(read(journal.path)[0])
    assert (again.trials[0].alone, again.trials[0].micro_batch) == (True, 4)


def test_what_a_trial_needs_is_kept_on_resume(journal: Journal) -> None:
    incidents = Incidents(journal, Workers(), pytest.fail)
    fail(journal, incidents, "out_of_memory", A, alone=False)
    fail(journal, incidents, "out_of_memory", A, rows=100)
    journal.append(SweepResumed(Spec(plan={"name": "s"})))
    trial = journal.state.trials[0]
    assert (trial.alone, trial.micro_batch) == (True, 50)


@pytest.mark.parametrize(
    ("rows", "expected"), [(None, 0), (1, 0), (4, 0), (5, 4), (7, 4), (9, 5), (100, 50), (128, 64)]
)
def test_halves_never_leave_single_rows(rows: int | None, expected: int) -> None:
    assert halved(rows) == expected
    for batch in range(5, 40):
        if expected:
            assert min(map(len, torch.arange(batch).tensor_split(_micro_batches(expected, batch)))) >= 2


def test_a_trial_is_lost_after_six_attempts_without_progress(journal: Journal) -> None:
    """Twenty are lost in all; every epoch starts the count again."""
    incidents = Incidents(journal, workers := Workers(), pytest.fail)
    for epoch in range(1, 4):
        for _ in range(MOST_LOSSES):
            workers.begin(0, journal.state.trials[0].attempt, A)
            fail(journal, incidents, "died", A)
        attempt = journal.state.trials[0].attempt
        journal.append(TrialEpoch(0, attempt, {"epoch": epoch, "val_accuracy": 0.5}))
        assert journal.state.trials[0].losses == 0
    for _ in range(MOST_LOSSES + 1):
        assert journal.state.trials[0].end is None
        fail(journal, incidents, "died", A)
    assert journal.state.trials[0].end == End("failed", "lost", "Traceback\nValueError: 3 is not 4", "worker")


def test_other_than_workers_faults_cost_a_trial_nothing(journal: Journal) -> None:
    incidents = Incidents(journal, workers := Workers(), pytest.fail)
    workers.begin(0, 0, A)
    for happened in ("storage", "set_aside") * 10:
        fail(journal, incidents, happened, A)
    trial = journal.state.trials[0]
    assert (trial.end, trial.losses, trial.attempt) == (None, 0, 20)


def test_a_repeated_epoch_is_no_progress(journal: Journal) -> None:
    incidents = Incidents(journal, workers := Workers(), pytest.fail)
    workers.begin(0, 0, A)
    journal.append(TrialEpoch(0, 0, {"epoch": 1, "val_accuracy": 0.5}))
    fail(journal, incidents, "error", A)
    workers.begin(0, 1, B)
    journal.append(TrialEpoch(0, 1, {"epoch": 1, "val_accuracy": 0.5}))
    fail(journal, incidents, "error", B)
    assert journal.state.trials[0].end == End("failed", "error", "Traceback\nValueError: 3 is not 4", "settings")


@pytest.mark.parametrize(
    ("first", "second", "several", "expected"),
    [
        (A, B, True, True),
        (A, Place("a", "id of a", None, 3), True, False),  # the same node, though another process
        (A, Place("a", "id of a", None, 3), False, True),  # there is no other node
        (Place("a", "id of a", "GPU 0", 1), Place("a", "id of a", "GPU 1", 2), True, True),
        (Place("a", "id of a", "GPU 0", 1), Place("a", "id of a", "GPU 0", 2), True, False),
        (A, A, False, False),
    ],
)
def test_another_worker_is_another_node_or_device_where_there_is_one(
    first: Place, second: Place, several: bool, expected: bool
) -> None:
    lost = [AttemptLost(0, 0, "ValueError: at 0x7f00", "error", place=first)]
    assert outcomes.is_again("error", "ValueError: at 0x8a11", second, lost, several) is expected
    assert not outcomes.is_again("error", "KeyError: 1", second, lost, several)
    assert not outcomes.is_again("died", "ValueError: at 0x8a11", second, lost, several)


def test_the_same_error_is_the_same_with_other_numbers() -> None:
    first = "File x, line 3\nRuntimeError: CUDA out of memory. Tried to allocate 2.50 GiB at 0xffe2"
    second = "File y, line 9\nRuntimeError: CUDA out of memory. Tried to allocate 38.00 GiB at 0x12"
    assert signature(first) == signature(second) == "RuntimeError: CUDA out of memory. Tried to allocate #.# GiB at #"
    assert signature("") == ""


@pytest.mark.parametrize(
    ("end", "scored", "shared", "expected"),
    [
        (End("completed", "budget"), True, False, "value"),
        (End("completed", "budget"), False, False, "nothing"),
        (End("completed", "early_stop"), True, True, "value"),
        (End("stopped", "asha"), True, False, "pruned"),
        (End("stopped", "duplicate"), False, False, "nothing"),
        (End("failed", "error"), True, False, "nothing"),  # of an older version
        (End("failed", "error", "x", "settings"), True, False, "infeasible"),
        (End("failed", "lost", "x", "worker"), True, False, "nothing"),
        (End("failed", "out_of_memory"), False, True, "nothing"),
        (End("failed", "out_of_memory", "x", "settings"), False, True, "infeasible"),
    ],
)
def test_what_the_sampler_learns(end: End, scored: bool, shared: bool, expected: str) -> None:
    assert learned(end, scored=scored, shared_slot=shared) == expected
