"""The sweep's record on the disk: an append-only file of events, which `orchestrator.record.state` folds.

Events that were appended together are there together or not at all: all but the last of them carry `more: true`.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from orchestrator.record import events, journal_lines, paths
from orchestrator.record.confusions import Confusions, ConfusionsWriter, put_aside
from orchestrator.record.decoding import RecordError
from orchestrator.record.events import Event, TrialEpoch
from orchestrator.record.journal_lines import SCHEMA, Damage, Lines
from orchestrator.record.lock import Lease
from orchestrator.record.retelling import retell
from orchestrator.record.state import SweepState, fold, replay
from trainables.files import replace_file, sync_folder


class JournalError(RuntimeError):
    """The journal cannot be opened or written; the message says why and what to do."""


class Journal:
    """The file and the state that it folds to. One writer: the driver, which holds the sweep's lock.

    An event is on the disk before anyone sees its effect: `append` writes, flushes, folds, then calls subscribers.
    Pickles as its path alone (Tune pickles whatever it is given, once, and never unpickles it here).
    """

    def __init__(
        self,
        path: Path,
        clock: Callable[[], float] = time.time,
        known: tuple[Lines, SweepState] | None = None,
        lease: Lease | None = None,
    ) -> None:
        """Open `path`, repair a torn or damaged file, and fold its events.

        Args:
            known: its lines as they were read before this process had the lock, and the state that they fold to. It is
                taken, and nothing is read again, unless the file is damaged or has changed since.
            lease: this process's hold on the sweep. Once another process has taken it over, nothing more is written.

        Raises:
            RecordError: the file was written by another version of this project, whose schema this one does not read.
            JournalError: the file cannot be opened or repaired.
        """
        self.path = path
        self._clock = clock
        self._lease = lease
        self._subscribers: list[Callable[[Event], None]] = []
        self.failure: JournalError | None = None
        self.appending = False
        try:
            path.touch()
            if known is None or not known[0].is_clean or path.stat().st_size != known[0].size:
                known = None
            lines, self.damage = repair(path) if known is None else (known[0], [])
            self._file = path.open("ab", buffering=0)
            sync_folder(path)
        except OSError as error:
            raise JournalError(f"cannot open the journal {path}: {error.strerror}; {_what_to_do(error)}") from error
        self._generation = max(lines.generation + 1, 0 if lease is None else lease.generation)
        self._confusions = ConfusionsWriter(path.with_name(paths.CONFUSIONS))
        self.state = replay(lines, Confusions.at(path.with_name(paths.CONFUSIONS))) if known is None else known[1]
        self.state.next_n = lines.next_n  # above that of an event of a later version, which was passed over

    def subscribe(self, *subscribers: Callable[[Event], None]) -> None:
        """Have `subscribers` see what has happened so far, as `retell` has it, and all that is appended later."""
        for subscriber in subscribers:
            for event in retell(self.state):
                subscriber(event)
            self._subscribers.append(subscriber)

    def append(self, *appended: Event) -> None:
        """Write events in one flushed write, then fold them. On reading they are there together or not at all.

        Raises:
            JournalError: the disk did not take them (full, gone, read-only); nothing was folded, and nothing more
                is written. The sweep can be resumed once there is disk space: the torn end is repaired on opening.
            ValueError: an event holds NaN or an infinity, or a value of another type than its field.
        """
        lines = [journal_lines.encode(line) for line in self._stamped(list(map(self._put_aside, appended)))]
        read = [_checked(line) for line in lines]  # what a replay will see, and nobody else can change
        self.appending = True
        try:
            self._write(b"".join(lines))
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
            stamp = {"v": SCHEMA, "g": self._generation, "n": self.state.next_n + i - 1, "t": now}
            yield {**stamp, **event.content(), **({"more": True} if i < len(appended) else {})}

    def _put_aside(self, event: Event) -> Event:
        """Return an epoch's event without what was confused, which has a file of its own; any other as it is."""
        return put_aside(event, self._confusions) if isinstance(event, TrialEpoch) else event

    def _write(self, content: bytes) -> None:
        """Write and flush, or fail for good: after a failed flush nobody knows what a second one would mean."""
        if self.failure is None and self._lease is not None and (taker := self._lease.taker()) is not None:
            self.failure = JournalError(
                f"{self.path.parent} was taken over by {taker} while this process did not run; it writes nothing more"
            )
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
        self._confusions.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}


def _what_to_do(error: OSError) -> str:
    """Return what a user can do about `error`."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return f"{'free disk space' if full else 'see that it can be written'}, then go on with --resume"


def read(path: Path) -> tuple[list[Event], list[bytes]]:
    """Return the events of a journal that may be in use, and the lines that could not be read. Changes nothing.

    Raises:
        RecordError: the journal has a schema that this version does not read.
        OSError: the file cannot be read.
    """
    lines = Lines.at(path)
    return list(lines), list(lines.damaged())


def check_any(lines: Lines, name: str) -> None:
    """Raise RecordError if there are lines in the journal `name`, and none of them can be read."""
    if lines.any_complete and not len(lines):
        raise RecordError(
            f"{name} is damaged, or is not a journal: none of its lines can be read; restore it from a copy"
        )


def repair(path: Path) -> tuple[Lines, list[Damage]]:
    """Make `path` safe to append to; return its lines, and those that were left out, which a file beside it keeps.

    Raises:
        RecordError: no line of it can be read, or it has a schema that this version does not read; it stays as it is.
    """
    found = Lines.at(path)
    check_any(found, str(path))
    if found.damage:
        with path.with_name(paths.DAMAGED_LINES).open("ab") as aside:
            aside.writelines(line + b"\n" for line in found.damaged())
            aside.flush()
            os.fsync(aside.fileno())
    if found.is_clean:
        return found, []
    replace_file(path, (line + b"\n" for line in found.contents()))
    return Lines.at(path), found.damage


class Tail:
    """Reads the journal at `path`, which another process writes, as it grows. Changes nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0  # of what was not read yet
        self._next_n = 0

    def read(self) -> Iterator[Event]:
        """Yield the events since the last call, without a group whose end is not there yet; damaged lines are skipped.

        Raises:
            OSError: the file cannot be read.
        """
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            group: list[Event] = []
            size = 0
            for line in file:
                if not line.endswith(b"\n"):
                    break
                size += len(line)
                event = journal_lines.decode(line[:-1])
                if event is not None and event.n >= self._next_n:
                    group.append(event)
                if event is None or not event.more:
                    self._offset, size = self._offset + size, 0
                    self._next_n = group[-1].n + 1 if group else self._next_n
                    yield from group
                    group = []


def _checked(line: bytes) -> Event:
    """Return the event on a line that is to be written."""
    try:
        return events.parse(journal_lines.load(line))
    except RecordError as error:
        raise ValueError(f"this event would be damaged: {error}: {line[:200].decode()}") from error
