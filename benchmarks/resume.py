"""The time until a killed sweep trains again: from the `--resume` command to the first new epoch in its journal.

    python -m benchmarks.resume

The digits sweep on two cores, its driver killed with SIGKILL once an epoch is in the journal and some more time has
passed, all that it had started gone; then `python -m orchestrator.sweep --resume`, timed from the start of the process
to the first epoch that it appends, and killed in its turn, n times in one sweep. Imports, Ray's start, the replay, the
workers' start and one epoch of a trial that begins again are all in it. Each must take at most 12 s. `phases` of every
run says where the time went; a sweep whose first epoch was never journalled would not do, so that the choice of
precision, which is made once a sweep, is not in it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import psutil
import tyro

from benchmarks.record import EVIDENCE, ROOT, BenchmarkError, Figure, Record, Target, two_cores
from orchestrator.record.events import Event, TrialAttempt, TrialEpoch
from orchestrator.record.journal import read

LIMIT_S = 120.0  # for a command's first epoch, and for what a killed one has started to go
TRIALS = 1000  # more than the kills leave time for


@dataclass(frozen=True)
class Options:
    """Time a sweep from `--resume` to the first new epoch."""

    kills: int = 7
    seed: int = 0
    """Seed of the moments of the kills."""
    evidence: Path = EVIDENCE
    """Folder of the evidence file that is written."""


def main() -> int:
    options = tyro.cli(Options)
    two_cores()
    record = Record("resume", asdict(options))
    random = Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        results = Path(folder)
        run_until_killed(results, random, "digits", "--name", "killed", "--trials", str(TRIALS))
        for _ in range(options.kills):
            record.add(run_until_killed(results, random, "--resume", "killed"))
    seconds = [run["first_epoch_s"] for run in record.runs]
    figures = [
        Figure("--resume to the first new epoch", "s", seconds, Target(12, statistic="max")),
        Figure("until a killed command's workers are gone", "s", [run["gone_s"] for run in record.runs]),
    ]
    return 0 if record.write(options.evidence, figures) else 1


def run_until_killed(results: Path, random: Random, *arguments: str) -> dict[str, Any]:
    """Start a command, kill its driver some time after its first epoch, wait for its workers to end; return figures."""
    journal = results / "killed" / "journal.jsonl"
    before = len(events(journal))
    started_at = time.time()
    command = [sys.executable, "-m", "orchestrator.sweep", *arguments, "--results", str(results), "--quiet"]
    output = results / "output"
    with output.open("wb") as file:
        process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file)
    children: list[psutil.Process] = []
    try:
        wait_for(lambda: process.poll() is not None or any_epoch(events(journal)[before:]))
        time.sleep(random.uniform(0, 3))
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(process.pid).children(recursive=True)
    finally:
        process.kill()
        process.wait()
    killed = time.monotonic()
    try:
        wait_for(lambda: not any(alive(child) for child in children))
    finally:
        gone_s = time.monotonic() - killed
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
    new = events(journal)[before:]
    if not any_epoch(new):
        raise BenchmarkError(f"the command ended before its first epoch: {output.read_text()}")
    return {**phases(new, started_at), "gone_s": round(gone_s, 3), "load_average": os.getloadavg()[0]}


def phases(new: list[Event], started_at: float) -> dict[str, Any]:
    """Return when the first epoch ended, and the parts of the time until then; a command's first event opens it."""
    first = next(event for event in new if isinstance(event, TrialEpoch))
    handed = next(event for event in new if isinstance(event, TrialAttempt))
    training = first.t - first.metrics["train_s"] - first.metrics["eval_s"]
    marks = [started_at, new[0].t, handed.t, training, first.t]
    names = ("start_to_journal_s", "journal_to_attempt_s", "attempt_to_training_s", "first_epoch_itself_s")
    spans = zip(names, marks, marks[1:], strict=False)
    return {
        "first_epoch_s": round(first.t - started_at, 3),
        "epochs_until_killed": sum(isinstance(event, TrialEpoch) for event in new),
        "phases": {name: round(end - begin, 3) for name, begin, end in spans},
    }


def events(journal: Path) -> list[Event]:
    return read(journal)[0] if journal.exists() else []


def any_epoch(new: list[Event]) -> bool:
    return any(isinstance(event, TrialEpoch) for event in new)


def alive(process: psutil.Process) -> bool:
    """Return whether the process runs and is none of Ray's agents, which wait for the dead head for a minute."""
    try:
        there = process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        return there and process.cmdline()[:1] != [] and not process.cmdline()[0].strip().endswith("Agent")
    except psutil.NoSuchProcess:
        return False


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not what():
        if time.monotonic() > deadline:
            raise BenchmarkError(f"not reached within {LIMIT_S:.0f} s")
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
