"""The sweep's record: an append-only file of events, and the one function that folds them into a state.

Everything else (study, rungs, numbering, tables, live view) is derived from that state, live and on resume alike.

Events, with what they carry beside `v, n, t, event, trial, attempt`:

    sweep_started   spec                            what was asked, and every auto as it was resolved
    trial_proposed  params, config                  the searched values, and the whole configuration
    trial_attempt                                   the trial was handed to Ray
    trial_epoch     metrics, worker (with the first of an attempt)
    trial_ended     status, stop_reason, error, worker (if no epoch was told before)
    attempt_lost    error                           worker or node died; the trial waits for another attempt
    sweep_resumed   spec                            as it is now; whatever was running then waits
    sweep_ended     reason                          finished | sweep_budget | signal | failed; running trials wait

Events that were appended together are there together or not at all: all but the last of them carry `more: true`.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any

from trainables.config import better, form_key

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
    losses: int = 0  # attempts lost since the command began
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
    forms: dict[str, dict[str, str]] = field(default_factory=dict)  # form key → precision and memory format
    finished: int = 0  # trials that have ended
    next_trial: int = 0  # above every number that was ever given to a trial
    next_n: int = 0
    first_proposal: float | None = None
    idle_s: float = 0.0  # since the first proposal, between two commands
    active_s: float = 0.0  # from the first proposal to the last end of a trial, without the time between commands
    last_t: float | None = None
    ended: str | None = None  # the reason, once the sweep has ended

    def record(self) -> dict[str, Any]:
        """What was asked, and every auto as it was resolved: `sweep.json`, and the metadata of the tables."""
        return {**self.spec, "forms": self.forms}


def fold(state: SweepState, event: Event) -> SweepState:
    """Advance `state` (in place: sweeps have 10⁵ events) by one event, and return it.

    Depends on its arguments alone. What an event presupposes may be missing, its line damaged: events of an unknown
    trial change nothing but the numbering, and all others what they can.
    """
    state.next_n = event["n"] + 1
    number = event.get("trial")
    if number is not None:
        state.next_trial = max(state.next_trial, number + 1)
    if event["event"] == "trial_proposed":
        _propose(state, event)
    elif number is None:
        _fold_sweep(state, event)
    elif number in state.trials and state.trials[number].end is None:
        _fold_trial(state, state.trials[number], event)
    state.last_t = event["t"]
    return state


def _propose(state: SweepState, event: Event) -> None:
    number = event["trial"]
    state.trials[number] = TrialRecord(number, event["params"], event["config"], event["t"])
    state.waiting.append(number)
    if state.first_proposal is None:
        state.first_proposal = event["t"]


def _fold_sweep(state: SweepState, event: Event) -> None:
    kind = event["event"]
    if kind == "sweep_started":
        state.spec = event["spec"]
    elif kind == "sweep_ended":
        state.ended = event["reason"]
        if state.running:
            _mark_active(state, event)
        _interrupt(state)
    elif kind == "sweep_resumed":
        if state.last_t is not None and state.first_proposal is not None:
            state.idle_s += max(event["t"] - state.last_t, 0.0)
        again = {name: event["spec"][name] for name in ("plan", "slots") if name in event["spec"]}
        resumed = [
            *state.spec.get("resumed", []),
            {n: v for n, v in event["spec"].items() if n not in ("plan", "split")},
        ]
        state.spec = {**state.spec, **again, "resumed": resumed}
        state.ended = None
        _interrupt(state)
        for number in state.waiting:
            state.trials[number].losses = 0  # what took the workers then may be mended


def _interrupt(state: SweepState) -> None:
    """Whatever was running waits, with what waited before, in the order of proposal."""
    for number in state.running:
        state.trials[number].running = False
    state.waiting = sorted({*state.waiting, *state.running})
    state.running = {}


def _fold_trial(state: SweepState, trial: TrialRecord, event: Event) -> None:
    kind = event["event"]
    if kind == "trial_attempt":
        trial.attempt, trial.running = event["attempt"], True
        trial.started_at = event["t"] if trial.started_at is None else trial.started_at
        state.running[trial.number] = trial.attempt
        _unqueue(state, trial.number)
    elif kind == "trial_epoch" and event["metrics"]["epoch"] > trial.last_epoch:
        _count_epoch(state, trial, event)
    elif kind == "attempt_lost" and trial.running:
        trial.losses += 1
        trial.running = False
        del state.running[trial.number]
        state.waiting.append(trial.number)
    elif kind == "trial_ended":
        _meet(state, trial, event)
        trial.end = {name: event[name] for name in ("status", "stop_reason", "error")}
        trial.running, trial.ended_at = False, event["t"]
        state.running.pop(trial.number, None)
        _unqueue(state, trial.number)
        state.finished += 1
        _mark_active(state, event)


def _mark_active(state: SweepState, event: Event) -> None:
    state.active_s = max(event["t"] - (state.first_proposal or 0.0) - state.idle_s, 0.0)


def _count_epoch(state: SweepState, trial: TrialRecord, event: Event) -> None:
    metrics = event["metrics"]
    score = trial.score_with(metrics)
    if score != trial.score:
        trial.best_epoch = metrics["epoch"]
    trial.score = score
    _meet(state, trial, event)
    trial.epochs.append({**metrics, "attempt": event["attempt"], "score": score, "ended_at": event["t"]})
    state.scores.setdefault(metrics["epoch"], {})[trial.number] = score


def _meet(state: SweepState, trial: TrialRecord, event: Event) -> None:
    """Note what an attempt's first result says of its worker."""
    if "worker" in event:
        trial.worker = event["worker"]
        if "form" in trial.worker:
            state.forms.setdefault(form_key(trial.config), trial.worker["form"])


def _unqueue(state: SweepState, number: int) -> None:
    if number in state.waiting:
        state.waiting.remove(number)


class Journal:
    """The file and the state it folds to. One writer: the driver, which holds a lock on the file.

    An event is on the disk before anyone sees its effect: `append` writes, flushes, folds, then tells subscribers.
    Pickles as its path alone (Tune pickles whatever it is given, once, and never unpickles it here).
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        """Open `path`, repairing a torn or damaged file, and fold what is there.

        Raises:
            JournalError: the file is in use by another sweep, was written by a newer version of this project, or
                cannot be read or repaired.
        """
        self.path = path
        self._clock = clock
        self._subscribers: list[Callable[[Event], None]] = []
        self.failure: JournalError | None = None
        try:
            self._file, self._read = _open(path)
        except OSError as error:
            raise JournalError(f"cannot open the journal {path}: {error.strerror}") from error
        self.state = replay(self._read)

    def subscribe(self, subscriber: Callable[[Event], None]) -> None:
        """Have `subscriber` see the events that were read on opening, at once, and all that are appended later."""
        for event in self._read:
            subscriber(event)
        self._subscribers.append(subscriber)

    def append(self, *events: Event) -> None:
        """Write `events` in one flushed write, then fold them. On reading they are there together or not at all.

        Raises:
            JournalError: the disk did not take them (full, gone, read-only); nothing was folded, and nothing more
                is written. The sweep can be resumed once there is room: the torn end is repaired on opening.
            ValueError: an event holds NaN or an infinity.
        """
        lines = [json.dumps(event, allow_nan=False) for event in self._stamped(events)]
        self._write("".join(f"{line}\n" for line in lines).encode())
        for line in lines:
            event = json.loads(line)  # what a replay will see, and nobody else can change
            fold(self.state, event)
            for subscriber in self._subscribers:
                subscriber(event)

    def _stamped(self, events: tuple[Event, ...]) -> Iterable[Event]:
        now = round(self._clock(), 6)
        for i, event in enumerate(events, start=1):
            stamp = {"v": SCHEMA, "n": self.state.next_n + i - 1, "t": now, "trial": None, "attempt": None}
            yield {**stamp, **event, **({"more": True} if i < len(events) else {})}

    def _write(self, content: bytes) -> None:
        """Write and flush, or fail for good: after a failed flush nobody knows what a second one would mean."""
        if self.failure is not None:
            raise self.failure
        try:
            while content:
                content = content[self._file.write(content) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            self.failure = JournalError(
                f"cannot write the journal {self.path}: {error.strerror}; "
                "nothing that is in it is lost: make room, then go on with --resume"
            )
            raise self.failure from error

    def close(self) -> None:
        """Let go of the file, and of the lock on it."""
        self._file.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}


def _open(path: Path) -> tuple[FileIO, list[Event]]:
    """The file, locked and whole, to append to, and the events in it."""
    file = path.open("ab", buffering=0)
    try:
        _lock(file, path)
        before = os.fstat(file.fileno()).st_ino
        events = repair(path)
        if path.stat().st_ino != before:  # replaced
            file.close()
            file = path.open("ab", buffering=0)
            _lock(file, path)
        sync_folder(path)
    except BaseException:
        file.close()
        raise
    return file, events


def _lock(file: FileIO, path: Path) -> None:
    """Hold the file until it is closed or the process ends. Where the file system has no locks, do without."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise JournalError(f"the journal {path} is in use by another sweep; end that one first") from error
    except OSError:
        pass


def read(path: Path) -> tuple[list[Event], list[bytes]]:
    """The events of a journal that may be in use, and the lines that could not be read. Changes nothing.

    Raises:
        JournalError: the journal has a newer schema than this version knows.
        OSError: the file cannot be read.
    """
    whole, damaged = _scan(path)
    return [event for event, _ in whole], damaged


def _scan(path: Path) -> tuple[list[tuple[Event, bytes]], list[bytes]]:
    """As `read`, with each event's line."""
    whole: list[tuple[Event, bytes]] = []
    damaged: list[bytes] = []
    for line in path.read_bytes().split(b"\n"):
        event = _parse(line)
        if event is not None and event["v"] > SCHEMA:
            raise JournalError(
                f"{path} has schema {event['v']}, this version reads up to {SCHEMA}; install a newer sweep-orchestrator"
            )
        if event is not None and event["n"] > (whole[-1][0]["n"] if whole else -1):
            whole.append((event, line))
        elif line:
            damaged.append(line)
    while whole and whole[-1][0].get("more"):  # the rest of what was appended with it is missing
        damaged.append(whole.pop()[1])
    return whole, damaged


def replay(events: Iterable[Event]) -> SweepState:
    """The state that `events` fold to."""
    state = SweepState()
    for event in events:
        fold(state, event)
    return state


def repair(path: Path) -> list[Event]:
    """Make `path` safe to append to and return its events; damaged lines move to `journal.damaged.jsonl` beside it."""
    scanned, damaged = _scan(path)
    whole = b"".join(line + b"\n" for _, line in scanned)
    if damaged:
        with path.with_suffix(".damaged.jsonl").open("ab") as aside:
            aside.writelines(line + b"\n" for line in damaged)
            aside.flush()
            os.fsync(aside.fileno())
    if path.stat().st_size != len(whole):
        replace_file(path, whole)
    return [event for event, _ in scanned]


def replace_file(path: Path, content: bytes) -> None:
    """Write `content` so that a reader, or a crash, sees the old file or the new one, whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(path: Path) -> None:
    """Have the folder's entry of `path` survive a loss of power, where the file system can promise that."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(folder)
    finally:
        os.close(folder)


def _parse(line: bytes) -> Event | None:
    """The event on this line, or None if the line is not one (torn or damaged)."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    if not isinstance(event, dict) or not all(isinstance(event.get(name), int) for name in ("v", "n")):
        return None
    return event if event["v"] > SCHEMA or ("event" in event and "t" in event) else None
