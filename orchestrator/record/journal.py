"""The sweep's record on the disk: an append-only file of events, which `orchestrator.record.state` folds.

Events that were appended together are there together or not at all: all but the last of them carry `more: true`.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from orchestrator.record import events, former_schemas, paths
from orchestrator.record.decoding import RecordError
from orchestrator.record.events import Event
from orchestrator.record.state import fold, replay
from trainables.files import replace_file, sync_folder

SCHEMA = 3
READABLE = (2, SCHEMA)
"""The schemas that this version reads; those before `SCHEMA` are translated, line by line."""


class JournalError(RuntimeError):
    """The journal cannot be opened or written; the message says why and what to do."""


class Journal:
    """The file and the state that it folds to. One writer: the driver, which holds the sweep's lock.

    An event is on the disk before anyone sees its effect: `append` writes, flushes, folds, then calls subscribers.
    Pickles as its path alone (Tune pickles whatever it is given, once, and never unpickles it here).
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        """Open `path`, repair a torn or damaged file, and fold its events.

        Raises:
            RecordError: the file was written by another version of this project, whose schema this one does not read.
            JournalError: the file cannot be opened or repaired.
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

    def append(self, *appended: Event) -> None:
        """Write events in one flushed write, then fold them. On reading they are there together or not at all.

        Raises:
            JournalError: the disk did not take them (full, gone, read-only); nothing was folded, and nothing more
                is written. The sweep can be resumed once there is room: the torn end is repaired on opening.
            ValueError: an event holds NaN or an infinity, or a value of another type than its field.
        """
        lines = [json.dumps(line, allow_nan=False) for line in self._stamped(appended)]
        read = [_checked(line) for line in lines]  # what a replay will see, and nobody else can change
        self.appending = True
        try:
            self._write("".join(f"{line}\n" for line in lines).encode())
            for event in read:
                fold(self.state, event)
                for subscriber in self._subscribers:
                    subscriber(event)
        finally:
            self.appending = False

    def _stamped(self, appended: Sequence[Event]) -> Iterator[dict[str, Any]]:
        """Yield the events as lines, with their numbers and the time."""
        now = round(self._clock(), 6)
        for i, event in enumerate(appended, start=1):
            stamp = {"v": SCHEMA, "n": self.state.next_n + i - 1, "t": now}
            yield {**stamp, **event.content(), **({"more": True} if i < len(appended) else {})}

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
        """Close the file."""
        self._file.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}


def _what_to_do(error: OSError) -> str:
    """Return what a user can do about `error`."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return f"{'make room' if full else 'see that it can be written'}, then go on with --resume"


def read(path: Path) -> tuple[list[Event], list[bytes]]:
    """Return the events of a journal that may be in use, and the lines that could not be read. Changes nothing.

    Raises:
        RecordError: the journal has a schema that this version does not read.
        OSError: the file cannot be read.
    """
    return parse(path.read_bytes(), str(path))


def parse(content: bytes, name: str) -> tuple[list[Event], list[bytes]]:
    """Return the events in the content of the journal `name`, and the lines that could not be read.

    Raises:
        RecordError: as `read`.
    """
    whole, damaged = _scan(content, name)
    return [event for event, _ in whole], damaged


def check_events(content: bytes, found: Sequence[Event], name: str) -> None:
    """Raise RecordError if there are lines in the `content` of the journal `name`, and none of them is an event."""
    if b"\n" in content and not found:
        raise RecordError(
            f"{name} is damaged, or is not a journal: none of its lines can be read; restore it from a copy"
        )


def missing(read_events: Sequence[Event]) -> int:
    """Return how many events are missing among those that were read: they are numbered, and damaged ones left out."""
    return read_events[-1].n + 1 - len(read_events) if read_events else 0


class Tail:
    """Reads the journal at `path`, which another process writes, as it grows. Changes nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0  # of what was not read yet
        self._next_n = 0

    def read(self) -> list[Event]:
        """Return the events since the last call, without a group whose end is not there yet; damaged lines are skipped.

        Raises:
            OSError: the file cannot be read.
        """
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            lines = file.read().splitlines(keepends=True)
        found: list[Event] = []
        group: list[Event] = []
        size = 0
        for line in lines:
            if not line.endswith(b"\n"):
                break
            size += len(line)
            event = None
            with suppress(RecordError):  # no sweep that runs has another schema
                event = _parse(line, str(self._path))
            if event is not None and event.n >= self._next_n:
                group.append(event)
            if event is None or not event.more:
                found += group
                group = []
                self._offset += size
                self._next_n = found[-1].n + 1 if found else self._next_n
                size = 0
        return found


def _scan(content: bytes, name: str) -> tuple[list[tuple[Event, bytes]], list[bytes]]:
    """Return the events with their lines, and the lines that could not be read."""
    whole: list[tuple[Event, bytes]] = []
    damaged: list[bytes] = []
    last = -1
    for line in content.split(b"\n"):
        event = _parse(line, name) if line else None
        if event is not None and event.n > last:
            whole.append((event, line))
            last = event.n
        elif line:
            damaged.append(line)
    while whole and whole[-1][0].more:  # the rest of what was appended with it is missing
        damaged.append(whole.pop()[1])
    return whole, damaged


def repair(path: Path) -> list[Event]:
    """Make `path` safe to append to and return its events; damaged lines move to `journal.damaged.jsonl` beside it.

    Raises:
        RecordError: no line of it can be read, or it has a schema that this version does not read; it stays as it is.
    """
    content = path.read_bytes()
    scanned, damaged = _scan(content, str(path))
    check_events(content, [event for event, _ in scanned], str(path))
    whole = b"".join(line + b"\n" for _, line in scanned)
    if damaged:
        with path.with_name(paths.DAMAGED_LINES).open("ab") as aside:
            aside.writelines(line + b"\n" for line in damaged)
            aside.flush()
            os.fsync(aside.fileno())
    if path.stat().st_size != len(whole):
        replace_file(path, whole)
    return [event for event, _ in scanned]


def _parse(line: bytes, name: str) -> Event | None:
    """Return the event on a line of the journal `name`; None if it is torn or damaged.

    Raises:
        RecordError: the line has a schema that this version does not read.
    """
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if type(found) is not dict or type(found.get("v")) is not int or type(found.get("n")) is not int:
        return None
    schema = found["v"]
    if schema not in READABLE:
        other, known = "a newer" if schema > SCHEMA else "the older", " and ".join(map(str, READABLE))
        raise RecordError(
            f"{name} has schema {schema}, this version reads {known}; use {other} sweep-orchestrator for it"
        )
    try:
        return events.parse(found if schema == SCHEMA else former_schemas.event(found))
    except RecordError:
        return None


def _checked(line: str) -> Event:
    """Return the event on a line that is to be written."""
    try:
        return events.parse(json.loads(line))
    except RecordError as error:
        raise ValueError(f"this event would be damaged: {error}: {line[:200]}") from error
