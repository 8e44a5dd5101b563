"""Sweeps as a user runs them, the processes that they start, and checks that hold whatever has happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
from conftest import ROOT, Finished

from orchestrator.record.events import Event
from orchestrator.record.journal import read
from orchestrator.record.state import SweepState, replay

WITNESS = Path(__file__).parent / "witness"
DIGITS = (
    "digits", "--quick", "--confirm", "0", "--name", "sweep",
    "--set", "precision=float32", "memory_format=contiguous",  # a measurement decides auto, and could do so anew
)  # fmt: skip
CURVE = ("step", "lr", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_f1", "stop_reason")
LEFT_S = 20.0  # the longest that a process may outlive its driver
WAITING_S = 90.0  # for Ray's processes that ask the dead head for a minute: agents, and workers not yet registered
MOST_LOST_S = 15.0  # of training, if that is more than an epoch
SLACK_S = 1.0  # from an epoch's end to its line in the witness, and while a state is written
WAITING = ("ray::DashboardAgent", "ray::RuntimeEnvAgent", "default_worker.py")

Line = dict[str, Any]
"""A line of the witness: trial, attempt, pid, t, and `begins` (after which epoch) or the metrics of an epoch."""


class Command:
    """A command in the background, which notes all processes that it starts."""

    def __init__(self, arguments: Iterable[str], environment: dict[str, str], log: Path) -> None:
        self.started_at = time.time()
        self._log = log
        self._seen: set[psutil.Process] = set()
        with log.with_suffix(".out").open("wb") as out, log.with_suffix(".err").open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=ROOT, env=environment, stdout=out, stderr=err, start_new_session=True,
            )  # fmt: skip

    @property
    def runs(self) -> bool:
        return self.process.poll() is None

    def children(self) -> set[psutil.Process]:
        """Return all processes that were ever seen, with those of now while the command runs."""
        with suppress(psutil.NoSuchProcess):
            self._seen.update(psutil.Process(self.process.pid).children(recursive=True))
        return self._seen

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Kill the driver alone, at once; the processes that it has started get no signal."""
        self.children()
        self.process.send_signal(number)
        self.process.wait()

    def wait(self, seconds: float = 240) -> Finished:
        """Wait until the command ends by itself, and return its output."""
        deadline = time.monotonic() + seconds
        while self.runs:
            assert time.monotonic() < deadline, f"no end after {seconds:.0f} s:\n{self.errors()}"
            self.children()
            time.sleep(0.2)
        return Finished(
            self.process.returncode,
            self._log.with_suffix(".out").read_text(),
            self._log.with_suffix(".err").read_text(),
        )

    def errors(self) -> str:
        """Return what the command wrote to standard error."""
        return self._log.with_suffix(".err").read_text()

    def wait_until_gone(self, seconds: float = LEFT_S, but: tuple[str, ...] = ()) -> float:
        """Wait until all processes that it started have ended, except for some names; return the seconds it took."""
        started = time.monotonic()
        while alive := [text for process in self._seen if (text := _alive(process)) and not text.endswith(but)]:
            assert time.monotonic() - started < seconds, f"alive after {seconds:.0f} s: {alive}"
            time.sleep(0.05)
        return time.monotonic() - started

    def end(self) -> None:
        """End all of its processes by force."""
        if self.runs:
            self.kill()
        for process in self._seen:
            with suppress(psutil.NoSuchProcess):
                process.kill()


def _alive(process: psutil.Process) -> str | None:
    """Return a description of the process if it is alive."""
    with suppress(psutil.NoSuchProcess):
        if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            return f"{process.pid} {' '.join(process.cmdline()[:2]).strip()}"
    return None


class Sweep:
    """One sweep of digits, the commands that work on it, and its witness, which lies elsewhere.

    `epoch_s` makes epochs last longer: of all trials ("*"), or of some (by number).
    """

    def __init__(
        self, results: Path, home: Path, environment: dict[str, str], epoch_s: dict[str, float] | None = None
    ) -> None:
        self.folder = results / "sweep"
        self.commands: list[Command] = []
        self._home = home
        self._witness = home / "witness.jsonl"
        self.environment = {
            **environment,
            "PYTHONPATH": os.pathsep.join([str(WITNESS), *filter(None, [environment.get("PYTHONPATH")])]),
            "CHAOS_WITNESS": str(self._witness),
            "CHAOS_EPOCH_S": json.dumps(epoch_s or {}),
        }

    @property
    def journal(self) -> Path:
        return self.folder / "journal.jsonl"

    def start(self, *arguments: str, quick: bool = True, environment: dict[str, str] | None = None) -> Command:
        """Start the sweep from its beginning: of DIGITS with further arguments, or not `quick`, with these alone."""
        return self._command((*(DIGITS if quick else ()), *arguments), environment)

    def resume(self, *arguments: str, environment: dict[str, str] | None = None) -> Command:
        return self._command(("--resume", "sweep", *arguments), environment)

    def _command(self, arguments: tuple[str, ...], environment: dict[str, str] | None) -> Command:
        command = Command(
            ("orchestrator.sweep", *arguments, "--json", "--results", str(self.folder.parent)),
            self.environment | (environment or {}),
            self._home / f"{len(self.commands)}.log",
        )
        self.commands.append(command)
        return command

    def count(self, kind: str) -> int:
        """Return how many events of a kind the journal has now."""
        try:
            return self.journal.read_bytes().count(f'"event": "{kind}"'.encode())
        except OSError:
            return 0

    def events(self) -> list[Event]:
        return read(self.journal)[0] if self.journal.exists() else []

    def state(self) -> SweepState:
        return replay(self.events())

    def witness(self) -> list[Line]:
        """Return the lines that the training itself has written, in order."""
        if not self._witness.exists():
            return []
        return [json.loads(line) for line in self._witness.read_text().splitlines()]

    def begun(self, trial: int) -> int:
        """Return how often a trial began or went on, by the witness."""
        return sum("begins" in line and line["trial"] == trial for line in self.witness())


def wait_for(condition: Callable[[], Any], command: Command, seconds: float = 90, pause: float = 0.02) -> None:
    """Wait until `condition` holds, while the command runs."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert command.runs, f"the command ended:\n{command.errors()}"
        assert time.monotonic() < deadline, f"not reached within {seconds:.0f} s:\n{command.errors()}"
        time.sleep(pause)


def check(sweep: Sweep, trials: int) -> SweepState:
    """Check a sweep that has finished, whatever came between, and return its state.

    All trials that were asked for are in journal and leaderboard, each ended once; no trial trained after its end;
    every epoch is recorded once, with metrics that are, to the bit, those of every attempt that trained it.
    """
    events, damaged = read(sweep.journal)
    assert not damaged
    state = replay(events)
    assert sorted(state.trials) == list(range(trials))
    assert state.finished == trials
    for kind, key in (("trial_epoch", _epoch_of), ("trial_ended", _trial_of), ("trial_proposed", _trial_of)):
        counts = Counter(key(event) for event in events if event.kind == kind)
        assert not [key for key, count in counts.items() if count > 1], f"{kind} recorded twice"
    check_witness(sweep, state)
    check_tables(sweep.folder, state)
    return state


def check_witness(sweep: Sweep, state: SweepState) -> None:
    """Check that the journal agrees with what the training itself has written."""
    curves: dict[tuple[int, int], Line] = {}
    for line in sweep.witness():
        trial = state.trials[line["trial"]]
        if "begins" in line:
            assert trial.ended_at is None or line["t"] < trial.ended_at, f"trial {trial.number} ran again after its end"
        else:
            metrics = {name: line[name] for name in CURVE}
            assert curves.setdefault((trial.number, line["epoch"]), metrics) == metrics, "two attempts differ"
    for trial in state.trials.values():
        assert [epoch["epoch"] for epoch in trial.epochs] == list(range(1, len(trial.epochs) + 1))
        for epoch in trial.epochs:
            assert {name: epoch[name] for name in CURVE} == curves[trial.number, epoch["epoch"]]


def check_tables(folder: Path, state: SweepState) -> None:
    """Check that the tables can be read, and are those of `state`."""
    rows = pq.read_table(folder / "leaderboard.parquet").to_pylist()
    assert {row["trial"]: row["score"] for row in rows} == {n: trial.score for n, trial in state.trials.items()}
    history = pq.read_table(folder / "history.parquet").to_pylist()
    assert Counter(row["trial"] for row in history) == Counter(
        trial.number for trial in state.trials.values() for _ in trial.epochs
    )


def check_plain(done: Finished, *codes: int) -> None:
    """Check that the command ended with one of `codes` and without a traceback."""
    assert done.code in codes, f"exit code {done.code}:\n{done.err}"
    assert "Traceback" not in done.err + done.out, done.err


def check_kept(before: SweepState, after: SweepState) -> None:
    """Check that trials that had ended before are as they were."""
    for number, trial in before.trials.items():
        if trial.end is not None:
            now = after.trials[number]
            assert (now.end, now.epochs, now.attempt) == (trial.end, trial.epochs, trial.attempt)


def _trial_of(event: Any) -> int:
    return int(event.trial)


def _epoch_of(event: Any) -> tuple[int, int]:
    return event.trial, event.metrics["epoch"]


class Leaving:
    """A wait beside the test for the processes of a killed command to end, first without those of WAITING, then all."""

    def __init__(self, command: Command, waiting: bool) -> None:
        self._failure: AssertionError | None = None
        self._seconds: list[float] = []
        self._waits = [(LEFT_S, WAITING), (WAITING_S, ())][: 2 if waiting else 1]
        self._command = command
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self._thread.start()

    def _wait(self) -> None:
        try:
            for seconds, but in self._waits:
                self._seconds.append(self._command.wait_until_gone(seconds, but) + sum(self._seconds))
        except AssertionError as error:
            self._failure = error

    def seconds(self) -> list[float]:
        """Return the seconds that each wait took, counted from the start."""
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        return self._seconds
