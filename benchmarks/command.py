"""Commands, timed from the start of their process to its end, whatever they start in between."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.record import ROOT, BenchmarkError
from orchestrator.record.events import Event, TrialEpoch
from orchestrator.record.journal import read
from orchestrator.record.state import SweepState, replay

LIMIT_S = 1800.0  # of one command
SHOWN_LINES = 30  # of a failed command's output


@dataclass(frozen=True)
class Done:
    """A command that succeeded: the JSON object on its last line of output, and when it ran (Unix seconds)."""

    answer: dict[str, Any]
    started_at: float
    ended_at: float

    @property
    def wall_s(self) -> float:
        return self.ended_at - self.started_at


def run(arguments: list[str], environment: dict[str, str] | None = None, limit_s: float = LIMIT_S) -> Done:
    """Run `python ARGUMENTS` to its end.

    Raises:
        BenchmarkError: it failed, took too long or printed no JSON; with the end of its output.
    """
    started_at, started = time.time(), time.perf_counter()
    try:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=os.environ | (environment or {}),
            capture_output=True,
            text=True,
            timeout=limit_s,
        )
    except subprocess.TimeoutExpired as error:
        raise BenchmarkError(f"{' '.join(arguments)}: no end after {limit_s:g} s") from error
    wall_s = time.perf_counter() - started
    if done.returncode:
        raise BenchmarkError(_failure(arguments, f"exit code {done.returncode}", done))
    try:
        answer = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError) as error:
        raise BenchmarkError(_failure(arguments, "no JSON on its last line", done)) from error
    return Done(answer, started_at, started_at + wall_s)


def _failure(arguments: list[str], problem: str, done: subprocess.CompletedProcess[str]) -> str:
    """Return a message about a failed command with the end of its output."""
    lines = (done.stdout + done.stderr).strip().splitlines()[-SHOWN_LINES:]
    return "\n".join([f"python {' '.join(arguments)}: {problem}", *lines])


@dataclass(frozen=True)
class SweepRun:
    """One `python -m orchestrator.sweep … --json`, and the contents of its journal."""

    done: Done
    state: SweepState
    events: list[Event]

    @property
    def epochs(self) -> list[dict[str, Any]]:
        return [epoch for trial in self.state.trials.values() for epoch in trial.epochs]

    def phases(self) -> dict[str, float]:
        """Return the parts of the command's wall time in seconds; the six sum to it."""
        times: dict[str, list[float]] = {}
        for event in self.events:
            times.setdefault(event.kind, []).append(event.t)
        first = next(event for event in self.events if isinstance(event, TrialEpoch))
        training = first.t - first.metrics["train_s"] - first.metrics["eval_s"]
        marks = {
            "start_to_journal_s": self.done.started_at,  # imports, data, Ray
            "journal_to_proposal_s": times["sweep_started"][0],
            "proposal_to_training_s": times["trial_proposed"][0],  # Tune, actors, torch's import, model
            "training_to_last_end_s": training,
            "last_end_to_sweep_ended_s": times["trial_ended"][-1],
            "sweep_ended_to_exit_s": times["sweep_ended"][0],  # tables, bundle, Ray's end
        }
        ends = [*list(marks.values())[1:], self.done.ended_at]
        return {name: round(end - begin, 3) for (name, begin), end in zip(marks.items(), ends, strict=True)}


def sweep(
    arguments: list[str], results: Path, name: str, limit_s: float = LIMIT_S, *, budget: bool = False
) -> SweepRun:
    """Run a sweep with its folder under `results`; one with a time `budget` may leave runs that had not ended.

    Raises:
        BenchmarkError: it failed, or one of its trials did.
    """
    asked = ["-m", "orchestrator.sweep", *arguments, "--results", str(results), "--name", name, "--json"]
    done = run(asked, limit_s=limit_s)
    events, damaged = read(results / name / "journal.jsonl")
    state = replay(events)
    sound, ends = (*SOUND, *["interrupted"] * budget), ("finished", *["sweep_budget"] * budget)
    wrong = {t.number: t.error for t in state.trials.values() if t.status not in sound}
    if wrong or damaged or done.answer["ended"] not in ends:
        raise BenchmarkError(f"the sweep {name} {done.answer['ended']}, damaged lines {damaged}, trials {wrong}")
    return SweepRun(done, state, events)


SOUND = ("completed", "stopped", "diverged")
