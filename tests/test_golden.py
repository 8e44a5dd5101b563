"""Formats are promised: sweeps of every earlier schema are read by every command, with the values that they had then.

A folder `golden/schema-N` holds small sweeps of digits that the version with journal schema N made: `search` (stopped,
diverged, failed and confirmed trials), `recipe` (two arms, searched), `interrupted` (with the states of its running
trials), `ensemble` (of refits: bundle schema 5), `late` (as the last revision of that schema wrote it). `expected.json`
and `predictions.csv` beside them are what that version read in them. They are never changed; a new schema gets a folder
of its own.
"""

from __future__ import annotations

import csv
import json
import shutil
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from conftest import Command

from orchestrator import bundle
from orchestrator.assessment import comparison
from orchestrator.plan.plan import Plan
from orchestrator.record import journal
from orchestrator.record.journal_lines import READABLE, SCHEMA, Lines
from orchestrator.record.ranking import best_trial, count_statuses
from orchestrator.record.state import replay

GOLDEN = Path(__file__).parent / "golden"
SCHEMAS = sorted(path.name for path in GOLDEN.glob("schema-*"))
NAMES = ("search", "recipe", "interrupted", "ensemble", "late")
SWEEPS = [f"{schema}/{name}" for schema in SCHEMAS for name in NAMES if (GOLDEN / schema / name).is_dir()]


@pytest.fixture
def sweep(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a copy of one golden sweep, which a test may change."""
    return shutil.copytree(GOLDEN / request.param, tmp_path / Path(request.param).name)


def expected(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / "expected.json").read_text())
    assert isinstance(found, dict)
    return found


def test_there_is_a_golden_folder_of_every_former_schema() -> None:
    assert {f"schema-{schema}" for schema in READABLE if schema < SCHEMA} <= set(SCHEMAS)


@pytest.mark.parametrize("name", SWEEPS)
def test_the_journal_folds_to_what_it_was(name: str) -> None:
    folder = GOLDEN / name
    events, damaged = journal.read(folder / "journal.jsonl")
    state, known = replay(events), expected(folder)
    assert not damaged
    assert {str(number): trial.score for number, trial in state.trials.items()} == known["scores"]
    assert count_statuses(state) == known["statuses"]
    best = best_trial(state)
    assert best is not None
    assert best.number == known["best"]
    assert (
        "arms" not in known or list(comparison.compare(state, Plan.from_dict(state.spec.plan)).arms()) == known["arms"]
    )


@pytest.mark.parametrize("sweep", SWEEPS, indirect=True)
def test_leaderboard_report_and_doctor_read_it(sweep: Path, command: Command) -> None:
    known = expected(sweep)
    done = command("orchestrator.leaderboard", sweep, "--json", "--top", "100")
    assert done.code == 0, done.err
    scores = {str(row["trial"]): row["score"] for row in done.result["trials"]}
    assert scores == {number: score for number, score in known["scores"].items() if number in scores}
    assert done.result["sweeps"][0]["trials"] == known["statuses"]
    done = command("orchestrator.report", sweep)
    assert done.code == 0, done.err
    assert (sweep / "report.html").stat().st_size > 1_000_000


@pytest.mark.parametrize("sweep", SWEEPS, indirect=True)
def test_a_lone_leaderboard_is_read(sweep: Path, command: Command) -> None:
    known = expected(sweep)
    done = command("orchestrator.leaderboard", sweep / "leaderboard.parquet", "--json", "--top", "100")
    assert done.code == 0, done.err
    scores = {str(row["trial"]): row["score"] for row in done.result["trials"]}
    assert scores == {number: score for number, score in known["scores"].items() if number in scores}
    final = [json.loads(row["final_metrics"]) for row in done.result["trials"] if row["final_metrics"]]
    assert all(set(parts) <= {"train", "validation", "test", "common", "external"} for parts in final)


@pytest.mark.parametrize("name", SWEEPS)
def test_the_bundle_labels_as_it_did(name: str) -> None:
    folder = GOLDEN / name
    with (folder / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    model = bundle.load(folder / "best", device="cpu")
    found = model.predict([GOLDEN / Path(name).parent / row["path"] for row in rows])
    assert list(found.labels) == [row["label"] for row in rows]
    likeliest = found.probabilities.max(axis=1).tolist()
    assert likeliest == pytest.approx([float(row["probability"]) for row in rows], rel=0.05)  # bfloat16, another CPU
    described = bundle.read(folder / "best").metrics
    assert set(described.parts) <= {"train", "validation", "test", "common", "external"}


@pytest.mark.parametrize("sweep", [name for name in SWEEPS if "interrupted" not in name], indirect=True)
def test_resuming_an_ended_sweep_shows_what_it_came_to(sweep: Path, command: Command) -> None:
    known, before = expected(sweep), (sweep / "journal.jsonl").read_bytes()
    done = command("orchestrator.sweep", "--results", sweep.parent, "--resume", sweep.name, "--json")
    assert done.code == 0, done.err
    assert (done.result["ended"], done.result["trials"]) == ("finished", known["statuses"])
    assert done.result["best"]["trial"] == known["best"]
    if known["final"]["confirmed"]:
        assert done.result["winner"]["trial"] == known["final"]["trial"]
        validation = known["final"].get("validation") or known["final"]["core"]  # before schema 3
        assert done.result["winner"]["validation"] == validation
        tested, then = done.result["winner"]["test"], dict(known["final"]["test"])
        narrow = then.pop("predicted")  # where seeds agreed by chance
        assert narrow is None or tested["predicted"][0] <= narrow[0] <= narrow[1] <= tested["predicted"][1]
        assert tested | then == tested  # or more
    assert (sweep / "journal.jsonl").read_bytes() == before


INTERRUPTED = [
    pytest.param(name, marks=[] if name.startswith(SCHEMAS[-1]) else pytest.mark.slow)  # half a minute each
    for name in SWEEPS
    if "interrupted" in name
]


@pytest.mark.parametrize("sweep", INTERRUPTED, indirect=True)
def test_an_interrupted_sweep_goes_on(sweep: Path, command: Command, request: pytest.FixtureRequest) -> None:
    known, before = expected(sweep), (sweep / "journal.jsonl").read_bytes()
    done = command("orchestrator.sweep", "--results", sweep.parent, "--resume", sweep.name, "--json")
    assert done.code == 0, done.err
    assert set(done.result["trials"]) <= {"completed", "stopped"}
    assert sum(done.result["trials"].values()) == 6
    assert done.result["winner"]["test"]["rows"] == 359
    after = (sweep / "journal.jsonl").read_bytes()
    assert after.startswith(before), "what was written then stays as it was"
    state = replay(journal.read(sweep / "journal.jsonl")[0])
    ended = [number for number, status in statuses(before).items() if status]
    assert {number: state.trials[int(number)].score for number in ended} == {n: known["scores"][n] for n in ended}
    if request.node.callspec.params["sweep"].startswith("schema-2"):
        trial = state.trials[3]  # had ended in its worker, and the driver did not know
        assert (trial.status, trial.last_epoch, trial.attempt) == ("completed", 6, 1)


def statuses(content: bytes) -> dict[str, bool]:
    """Whether each trial had ended, by number."""
    state = replay(Lines(lambda: BytesIO(content), "journal"))
    return {str(number): trial.end is not None for number, trial in state.trials.items()}
