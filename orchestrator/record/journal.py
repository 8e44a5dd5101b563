"""The sweep's record on the disk: an append-only file of events, which `orchestrator.record.state` folds.

Events that were appended together are there together or not at all: all but the last of them carry `more: true`.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from orchestrator.record import former_schemas
from orchestrator.record.state import Event, fold, replay
from trainables.files import replace_file, sync_folder

SCHEMA = 3
READABLE = (2, SCHEMA)
"""The schemas that this version reads; those before `SCHEMA` are translated, line by line."""


class JournalError(RuntimeError):
    """The journal cannot be read or written; the message says why and what to do."""


class Journal:
    """The file and the state it folds to. One writer: the driver, which holds the sweep's lock.

    An event is on the disk before anyone sees its effect: `append` writes, flushes, folds, then tells subscribers.
    Pickles as its path alone (Tune pickles whatever it is given, once, and never unpickles it here).
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        """Open `path`, repairing a torn or damaged file, and fold what is there.

        Raises:
            JournalError: the file was written by a newer version of this project, or cannot be read or repaired.
        """
        self.path = path
        self._clock = clock
        self._subscribers: list[Callable[[Event], None]] = []
        self.failure: JournalError | None = None
        self.appending = False
        try:
            path.touch()
            self._read = repair(path)
            self._file = path.open("ab", buffering=0)
            sync_folder(path)
        except OSError as error:
            raise JournalError(f"cannot open the journal {path}: {error.strerror}; {_what_to_do(error)}") from error
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
        self.appending = True
        try:
            self._write("".join(f"{line}\n" for line in lines).encode())
            for line in lines:
                event = json.loads(line)  # what a replay will see, and nobody else can change
                fold(self.state, event)
                for subscriber in self._subscribers:
                    subscriber(event)
        finally:
            self.appending = False

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
            if os.fstat(self._file.fileno()).st_nlink == 0:  # else all that follows would be written to nowhere
                self.failure = JournalError(f"the journal {self.path} was deleted; the sweep ends, its record is gone")
                raise self.failure
        except OSError as error:
            self.failure = JournalError(
                f"cannot write the journal {self.path}: {error.strerror}; "
                f"nothing that is in it is lost: {_what_to_do(error)}"
            )
            raise self.failure from error

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}


def _what_to_do(error: OSError) -> str:
    """What people can do about it."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return f"{'make room' if full else 'see that it can be written'}, then go on with --resume"


def read(path: Path) -> tuple[list[Event], list[bytes]]:
    """The events of a journal that may be in use, and the lines that could not be read. Changes nothing.

    Raises:
        JournalError: the journal has a newer schema than this version knows.
        OSError: the file cannot be read.
    """
    whole, damaged = _scan(path.read_bytes(), str(path))
    return [event for event, _ in whole], damaged


def parse(content: bytes, name: str) -> list[Event]:
    """The events in what a journal called `name` holds; raises JournalError as `read`."""
    return [event for event, _ in _scan(content, name)[0]]


def missing(events: Sequence[Event]) -> int:
    """How many events `events`, as they were read, lack: they are numbered, and damaged lines are left out."""
    return events[-1]["n"] + 1 - len(events) if events else 0


class Tail:
    """Reads the journal at `path`, that another process writes, as it grows. Changes nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0  # of what was not read yet
        self._next_n = 0

    def read(self) -> list[Event]:
        """The events since the last time, but those whose group is not whole yet; damaged lines are passed over.

        Raises:
            OSError: the file cannot be read.
        """
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            lines = file.read().splitlines(keepends=True)
        events: list[Event] = []
        group: list[Event] = []
        size = 0
        for line in lines:
            if not line.endswith(b"\n"):
                break
            size += len(line)
            event = _parse(line)
            if event is not None and event["v"] in READABLE and event["n"] >= self._next_n:
                group.append(event)
            if event is None or not event.get("more"):
                events += group
                group = []
                self._offset += size
                self._next_n = events[-1]["n"] + 1 if events else self._next_n
                size = 0
        return events


def _scan(content: bytes, name: str) -> tuple[list[tuple[Event, bytes]], list[bytes]]:
    """The events with their lines, and the lines that could not be read."""
    whole: list[tuple[Event, bytes]] = []
    damaged: list[bytes] = []
    for line in content.split(b"\n"):
        event = _parse(line)
        if event is not None and event["v"] not in READABLE:
            other = "a newer" if event["v"] > SCHEMA else "the older"
            known = " and ".join(map(str, READABLE))
            raise JournalError(
                f"{name} has schema {event['v']}, this version reads {known}; use {other} sweep-orchestrator for it"
            )
        if event is not None and event["n"] > (whole[-1][0]["n"] if whole else -1):
            whole.append((event, line))
        elif line:
            damaged.append(line)
    while whole and whole[-1][0].get("more"):  # the rest of what was appended with it is missing
        damaged.append(whole.pop()[1])
    return whole, damaged


def repair(path: Path) -> list[Event]:
    """Make `path` safe to append to and return its events; damaged lines move to `journal.damaged.jsonl` beside it."""
    scanned, damaged = _scan(path.read_bytes(), str(path))
    whole = b"".join(line + b"\n" for _, line in scanned)
    if damaged:
        with path.with_suffix(".damaged.jsonl").open("ab") as aside:
            aside.writelines(line + b"\n" for line in damaged)
            aside.flush()
            os.fsync(aside.fileno())
    if path.stat().st_size != len(whole):
        replace_file(path, whole)
    return [event for event, _ in scanned]


def _parse(line: bytes) -> Event | None:
    """The event on this line, or None if the line is not one (torn or damaged)."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(event, dict) or not all(isinstance(event.get(name), int) for name in ("v", "n")):
        return None
    if event["v"] not in READABLE:
        return event
    if "event" not in event or "t" not in event:
        return None
    try:
        return event if event["v"] == SCHEMA else former_schemas.event(event)
    except (LookupError, AttributeError, TypeError):  # a value of another kind than that schema has
        return None
