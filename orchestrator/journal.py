"""The sweep's record: an append-only file of events, and the one function that folds them into a state.

Everything else (study, rungs, numbering, tables, live view) is derived from that state, live and on resume alike.

Events, with what they carry beside `v, n, t, event, trial, attempt`:

    sweep_started   spec                            what was asked, and every auto as it was resolved
    trial_proposed  params, config                  the searched values, and the whole configuration
    trial_attempt                                   the trial was handed to Ray
    trial_epoch     metrics, worker (first of an attempt)
    trial_ended     status, stop_reason, error
    attempt_lost    error                           worker or node died; the trial waits for another attempt
    sweep_resumed   slots                           whatever was running then is lost, and waits
    sweep_ended     reason                          finished | sweep_budget | signal | failed
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainables.config import better

SCHEMA = 1

Event = dict[str, Any]


class JournalError(RuntimeError):
    """The journal cannot be read or written; the message says why and what to do."""


@dataclass
class TrialRecord:
    """What the journal says of one trial. `attempt` is the current one, -1 before the first."""

    number: int
    params: dict[str, Any]
    config: dict[str, Any]
    proposed_at: float
    attempt: int = -1
    running: bool = False
    started_at: float | None = None
    ended_at: float | None = None
    losses: int = 0
    epochs: list[dict[str, Any]] = field(default_factory=list)
    worker: dict[str, Any] = field(default_factory=dict)
    score: float | None = None
    best_epoch: int | None = None
    end: dict[str, Any] | None = None

    @property
    def last_epoch(self) -> int:
        return self.epochs[-1]["epoch"] if self.epochs else 0

    @property
    def status(self) -> str:
        """completed | stopped | diverged | failed | interrupted | running."""
        if self.end is not None:
            return str(self.end["status"])
        return "running" if self.running else "interrupted"

    def score_with(self, metrics: dict[str, Any]) -> float | None:
        """The running best of the trial's metric once `metrics` are counted in."""
        value = metrics[self.config["metric"]]
        return value if better(self.config["metric"], value, self.score) else self.score


@dataclass
class SweepState:
    """The folded journal: plain data, equal for equal events."""

    spec: dict[str, Any] = field(default_factory=dict)
    trials: dict[int, TrialRecord] = field(default_factory=dict)
    running: dict[int, int] = field(default_factory=dict)  # trial → its current attempt
    waiting: list[int] = field(default_factory=list)  # trials due for a (further) attempt, in order
    scores: dict[int, dict[int, float | None]] = field(default_factory=dict)  # epoch → trial → score there
    finished: int = 0  # trials that have ended
    next_n: int = 0
    first_proposal: float | None = None
    last_end: float | None = None
    idle_s: float = 0.0  # between an end of the sweep's command and its resumption
    last_t: float | None = None
    ended: str | None = None  # the reason, once the sweep has ended

    def active_s(self) -> float:
        """Seconds from the first proposal to the last end of a trial, without those between two commands."""
        if self.first_proposal is None or self.last_end is None:
            return 0.0
        return max(self.last_end - self.first_proposal - self.idle_s, 0.0)


def fold(state: SweepState, event: Event) -> SweepState:
    """Advance `state` (in place: sweeps have 10⁵ events) by one event, and return it.

    Depends on its arguments alone. Events that speak of a trial whose proposal is not there (its line was damaged)
    change nothing, so a damaged journal folds to what the rest of it says.
    """
    state.next_n = event["n"] + 1
    kind, t = event["event"], event["t"]
    if kind == "sweep_started":
        state.spec = event["spec"]
    elif kind == "sweep_ended":
        state.ended = event["reason"]
    elif kind == "sweep_resumed":
        _resume(state, event)
    elif kind == "trial_proposed":
        number = event["trial"]
        state.trials[number] = TrialRecord(number, event["params"], event["config"], t)
        state.waiting.append(number)
        if state.first_proposal is None:
            state.first_proposal = t
    elif event.get("trial") in state.trials:
        _fold_trial(state, state.trials[event["trial"]], event)
    state.last_t = t
    return state


def _resume(state: SweepState, event: Event) -> None:
    if state.last_t is not None and state.first_proposal is not None:
        state.idle_s += event["t"] - state.last_t
    state.spec = {**state.spec, **event["spec"]}
    state.ended = None
    for number in sorted(state.running):
        state.trials[number].running = False
    state.waiting = sorted({*state.waiting, *state.running})
    state.running = {}


def _fold_trial(state: SweepState, trial: TrialRecord, event: Event) -> None:
    kind, t = event["event"], event["t"]
    if kind == "trial_attempt":
        trial.attempt, trial.running = event["attempt"], True
        trial.started_at = t if trial.started_at is None else trial.started_at
        state.running[trial.number] = trial.attempt
        state.waiting.remove(trial.number)
    elif kind == "trial_epoch":
        metrics = event["metrics"]
        score = trial.score_with(metrics)
        if score is not None and score != trial.score:
            trial.best_epoch = metrics["epoch"]
        trial.score = score
        trial.worker = event.get("worker", trial.worker)
        trial.epochs.append({**metrics, "attempt": event["attempt"], "score": score, "ended_at": t})
        state.scores.setdefault(metrics["epoch"], {})[trial.number] = score
    elif kind == "attempt_lost":
        trial.losses += 1
        trial.running = False
        state.running.pop(trial.number, None)
        state.waiting.append(trial.number)
    elif kind == "trial_ended":
        trial.end = {name: event[name] for name in ("status", "stop_reason", "error")}
        trial.running, trial.ended_at = False, t
        state.running.pop(trial.number, None)
        if trial.number in state.waiting:
            state.waiting.remove(trial.number)
        state.finished += 1
        state.last_end = t


class Journal:
    """The file and the state it folds to. One writer: the driver.

    An event is on the disk before anyone sees its effect: `append` writes, flushes, folds, then tells subscribers.
    Pickles as its path alone (Tune pickles whatever it is given, once, and never unpickles it here).
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        """Open `path`, repairing a torn or damaged file, and fold what is there.

        Raises:
            JournalError: the file was written by a newer version of this project, or cannot be read or repaired.
        """
        self.path = path
        self.state = SweepState()
        self._clock = clock
        self._subscribers: list[Callable[[Event], None]] = []
        try:
            self._read = repair(path)
            self._file = path.open("ab")
        except OSError as error:
            raise JournalError(f"cannot open the journal {path}: {error.strerror}") from error
        for event in self._read:
            fold(self.state, event)

    def subscribe(self, subscriber: Callable[[Event], None]) -> None:
        """Have `subscriber` see the events that were read on opening, at once, and all that are appended from now on."""
        for event in self._read:
            subscriber(event)
        self._subscribers.append(subscriber)

    def append(self, *events: Event) -> None:
        """Write `events` in one flushed write, then fold them.

        Raises:
            JournalError: the disk did not take them (full, gone, read-only); nothing was folded. The sweep can be
                resumed once there is room: the torn end is repaired on opening.
        """
        now = self._clock()
        stamped = [
            {
                "v": SCHEMA,
                "n": self.state.next_n + i,
                "t": round(now, 6),
                "trial": None,
                "attempt": None,
                **event,
            }
            for i, event in enumerate(events)
        ]
        lines = "".join(json.dumps(event, allow_nan=False) + "\n" for event in stamped)
        try:
            self._file.write(lines.encode())
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise JournalError(
                f"cannot write the journal {self.path}: {error.strerror}; "
                "nothing that is in it is lost: make room, then go on with --resume"
            ) from error
        for event in stamped:
            fold(self.state, event)
            for subscriber in self._subscribers:
                subscriber(event)

    def close(self) -> None:
        self._file.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}


def read(path: Path) -> tuple[list[Event], list[bytes]]:
    """The events of a journal that may be in use, and the lines that could not be read. Changes nothing.

    Raises:
        JournalError: the journal has a newer schema than this version knows.
        OSError: the file cannot be read.
    """
    events: list[Event] = []
    damaged: list[bytes] = []
    for line in path.read_bytes().split(b"\n"):
        event = _parse(line, after=events[-1]["n"] if events else -1)
        if event is not None:
            events.append(event)
        elif line:
            damaged.append(line)
    if events and (newest := max(event["v"] for event in events)) > SCHEMA:
        raise JournalError(
            f"{path} has schema {newest}, this version reads up to {SCHEMA}; install a newer sweep-orchestrator"
        )
    return events, damaged


def replay(events: Iterable[Event]) -> SweepState:
    """The state that `events` fold to."""
    state = SweepState()
    for event in events:
        fold(state, event)
    return state


def repair(path: Path) -> list[Event]:
    """Make `path` safe to append to and return its events; damaged lines move to `journal.damaged.jsonl` beside it."""
    if not path.exists():
        return []
    events, damaged = read(path)
    whole = b"".join(json.dumps(event).encode() + b"\n" for event in events)
    if damaged:
        with path.with_suffix(".damaged.jsonl").open("ab") as aside:
            aside.writelines(line + b"\n" for line in damaged)
    if damaged or path.stat().st_size != len(whole):
        replace_file(path, whole)
    return events


def replace_file(path: Path, content: bytes) -> None:
    """Write `content` so that a reader, or a crash, sees the old file or the new one, whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _parse(line: bytes, after: int) -> Event | None:
    """The event on this line, or None if the line is not one (torn, damaged, or out of its order)."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    if not isinstance(event, dict) or not isinstance(event.get("n"), int) or event["n"] <= after:
        return None
    return event if isinstance(event.get("v"), int) and "event" in event and "t" in event else None
