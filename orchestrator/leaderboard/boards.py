"""The sweeps at a path: a sweep's folder, a folder of sweeps or a lone leaderboard, on a disk or in a bucket.

Nothing is changed, so a sweep that runs can be looked at. Neither torch nor Ray is imported.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.assessment import fraction_curve, tables
from orchestrator.assessment.confirmation import Confirmation, confirmation_of
from orchestrator.assessment.fraction_curve import Bin
from orchestrator.bundle.contents import CONFIG
from orchestrator.plan import recorded
from orchestrator.plan.plan import Plan
from orchestrator.plan.recorded import OpenFile, RecordedSweep
from orchestrator.record import former_schemas, journal_lines, parquet
from orchestrator.record.decoding import RecordError, from_json
from orchestrator.record.events import Event
from orchestrator.record.facts import Spec
from orchestrator.record.journal_lines import Damage
from orchestrator.record.paths import BUNDLE, JOURNAL, LEADERBOARD
from orchestrator.record.state import SweepState
from trainables.storage import Storage, below

LONG = 30_000_000
"""Bytes of a journal, from which on the table is read in its place, if it is as new; reading it takes some seconds."""


@dataclass(frozen=True)
class Board:
    """A sweep as it was read: from its journal, or from its table alone.

    `state`, `events` and `confirmation` are from the journal. A lone table has none; of a long sweep it is read only
    when one of them is asked for.
    """

    name: str
    place: str  # the path as given, or below it
    table: pa.Table  # as `tables.leaderboard`
    plan: Plan
    spec: Spec
    formats: dict[str, dict[str, str]]  # as in `SweepState`
    open_file: OpenFile | None = field(default=None, repr=False)  # of the sweep's folder; None of a lone table
    long: bool = False  # the table is as new as the journal, which is too long to be read without need

    @cached_property
    def recorded(self) -> RecordedSweep | None:
        """The sweep as its journal has it."""
        return None if self.open_file is None else recorded.read_from(self.open_file, self.place)

    @property
    def state(self) -> SweepState | None:
        return None if self.recorded is None else self.recorded.state

    @property
    def events(self) -> Iterable[Event]:
        return () if self.recorded is None else self.recorded.events

    @cached_property
    def confirmation(self) -> Confirmation | None:
        return None if self.state is None else confirmation_of(self.state, self.plan)

    @property
    def kept(self) -> str | None:
        """The kind of the model in `best/`, one of `documents.KINDS`; None if there is none, or it is not known."""
        if self.open_file is None:
            return None
        try:
            with self.open_file(f"{BUNDLE}/{CONFIG}") as file:
                return str(json.loads(file.read())["kind"])
        except (OSError, ValueError, LookupError, TypeError):
            return None

    @property
    def missing(self) -> int:
        """The number of events that are lost to damage of the journal, as far as it was read."""
        return 0 if self.long or self.recorded is None else self.recorded.events.missing

    @property
    def damage(self) -> list[Damage]:
        """The lines of the journal that are left out, as far as it was read."""
        return [] if self.long or self.recorded is None else self.recorded.events.damage

    @property
    def metric(self) -> str:
        return self.plan.space.base.metric

    @property
    def validation(self) -> tuple[Any, ...]:
        """Equal for sweeps whose scores are of the same rows and the same metric."""
        return self.metric, *(self.spec.split.get(name) for name in ("data_fingerprint", "validation_fingerprint"))

    def counts(self) -> dict[str, int]:
        """Count the trials of each status that occurs."""
        return dict(Counter(self.table["status"].to_pylist()))

    def curves(self, table: pa.Table) -> dict[str, list[Bin]]:
        """Return the score against the train fraction, arm by arm, of the trials in `table`."""
        return fraction_curve.curves(self.plan, table)


def find(paths: Iterable[str]) -> tuple[list[Board], list[str]]:
    """Return the sweeps at `paths`, and a message for each of several that cannot be read.

    Raises:
        RecordError: there is none that can be read.
    """
    boards: list[Board] = []
    skipped: list[str] = []
    for path in paths:
        try:
            found = list(_at(path))
        except (RecordError, OSError) as error:
            skipped += _problems(path, error)
            continue
        boards += [one for one in found if isinstance(one, Board)]
        skipped += [one for one in found if isinstance(one, str)]
    if not boards:
        raise RecordError(*skipped)
    often = Counter(board.name for board in boards)
    return [replace(board, name=board.place) if often[board.name] > 1 else board for board in boards], skipped


def _at(path: str) -> Iterator[Board | str]:
    """Yield the sweeps at one path, and a message for each folder in it that is no sweep."""
    storage, name = _opened(path)
    if name is not None:
        yield _from_table(storage, name, path)
    elif (board := _in_folder(storage, path)) is not None:
        yield board
    else:
        inner = sorted(folder for folder in storage.folders() if not folder.startswith("."))
        if not inner:
            raise RecordError(
                f"{path} is not a sweep's folder: it has neither {JOURNAL} nor {LEADERBOARD}; name one, such as "
                "results/NAME"
            )
        for folder in inner:
            place = below(path, folder)
            try:
                board = _in_folder(_opened(place)[0], place)
                yield board or f"{place} is not a sweep's folder: it has neither {JOURNAL} nor {LEADERBOARD}"
            except (RecordError, OSError) as error:
                yield from _problems(place, error)


def _opened(path: str) -> tuple[Storage, str | None]:
    """Return the folder that `path` is, or is in, and the file's name if it is a file.

    Raises:
        RecordError: there is nothing.
    """
    if "://" in path:
        parts = urlsplit(path)
        if not parts.path.endswith(".parquet"):
            return Storage(path), None
        folder, _, name = parts.path.rpartition("/")
        return Storage(parts._replace(path=folder).geturl()), name
    place = Path(path).expanduser().absolute()
    if not place.exists():
        raise RecordError(f"{path}: there is no such file or folder; name a sweep's folder, such as results/NAME")
    return (Storage(str(place)), None) if place.is_dir() else (Storage(str(place.parent)), place.name)


def _in_folder(storage: Storage, place: str) -> Board | None:
    """Return the sweep whose folder this is: from its journal, which is the record, else from its table."""
    names = storage.names()
    if JOURNAL not in names:
        return _from_table(storage, LEADERBOARD, place) if LEADERBOARD in names else None
    open_file = partial(_open, storage)
    if LEADERBOARD in names and (board := _of_long_sweep(storage, place, open_file)) is not None:
        return board
    sweep = recorded.read_from(open_file, place)
    state, confirmed = sweep.state, confirmation_of(sweep.state, sweep.plan)
    table = tables.leaderboard(state, confirmed)
    board = Board(_name(place), place, table, sweep.plan, state.spec, state.formats, open_file)
    vars(board).update(recorded=sweep, confirmation=confirmed)  # they are known already
    return board


def _of_long_sweep(storage: Storage, place: str, open_file: OpenFile) -> Board | None:
    """Return a sweep whose journal is long from its table, if that is whole and holds all that the journal does."""
    try:
        with open_file(JOURNAL) as file:
            if file.seek(0, os.SEEK_END) < LONG:
                return None
            last = journal_lines.last_change(file)
        board = _from_table(storage, LEADERBOARD, place)
    except (OSError, RecordError):  # the journal is the record: what is wrong with it is reported where it is read
        return None
    known = (board.table.schema.metadata or {}).get(b"events", b"")
    is_new = known.isdigit() and int(known) > last
    return replace(board, name=_name(place), open_file=open_file, long=True) if is_new else None


def _from_table(storage: Storage, name: str, place: str) -> Board:
    """Return the sweep that a lone `leaderboard.parquet` describes."""
    content = _read(storage, name)
    try:
        # In this thread: Arrow's own may abort the process at its end (apache/arrow#34314, #50482).
        table = pq.read_table(pa.BufferReader(content), use_threads=False, pre_buffer=False)
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:  # all that pyarrow raises of a damaged file
        raise RecordError(
            f"{place} is damaged, or is not a Parquet file; give a sweep's folder, such as results/NAME"
        ) from error
    version, record = _described(table, place)
    if "rank" not in table.column_names:
        raise RecordError(f"{place} is not a leaderboard: it has no column rank; give {LEADERBOARD}")
    try:
        if version < parquet.SCHEMA_VERSION:
            table, record = _of_schema_1(table), former_schemas.spec(record)
        spec = from_json(Spec, record)
        plan = Plan.from_dict(spec.plan)
        formats = from_json(dict[str, dict[str, str]], record.get("formats", {}))
        return Board(plan.name, place, _as_now(table), plan, spec, formats)
    except RecordError as error:
        raise error.within(f"{place} does not say of which sweep it is") from error
    except (pa.ArrowException, ValueError) as error:
        raise RecordError(f"{place} has a column with other values than a leaderboard has: {_short(error)}") from error


def _described(table: pa.Table, place: str) -> tuple[int, dict[str, Any]]:
    """Return the schema of a table and the record of the sweep that it is of, as its metadata have them."""
    metadata = table.schema.metadata or {}
    if b"schema_version" not in metadata or b"sweep" not in metadata:
        raise RecordError(f"{place} is not a leaderboard: its metadata do not say of which sweep; give {LEADERBOARD}")
    try:
        version = int(metadata[b"schema_version"])
        record = from_json(dict[str, Any], json.loads(metadata[b"sweep"]))
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{place} is damaged: its metadata cannot be read ({_short(error)})") from error
    if version > parquet.SCHEMA_VERSION:
        raise RecordError(
            f"{place} has schema {version}, this version reads {parquet.SCHEMA_VERSION}; use a newer sweep-orchestrator"
        )
    return version, record


def _of_schema_1(table: pa.Table) -> pa.Table:
    """Return a leaderboard of schema 1 with the names of schema 2."""
    if "figures" not in table.column_names:
        return table
    texts = [former_schemas.final_metrics_text(text) for text in table["figures"].to_pylist()]
    place = table.column_names.index("figures")
    return table.set_column(place, "final_metrics", pa.array(texts, pa.string()))


def _as_now(table: pa.Table) -> pa.Table:
    """Return a table of any earlier version with today's columns and types; what it lacks is null.

    A further column of numbers whose name begins with `val_` is the user's metric.
    """
    schema = tables.LEADERBOARD
    for own in table.schema:
        if own.name not in schema.names and own.name.startswith("val_") and own.type == pa.float64():
            schema = schema.append(own)
    columns = [
        table[field.name].cast(field.type) if field.name in table.column_names else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.table(columns, schema.with_metadata(table.schema.metadata))


def _open(storage: Storage, name: str) -> BinaryIO:
    if storage.is_folder:
        return (Path(storage.uri) / name).open("rb")
    return BytesIO(_read(storage, name))


def _read(storage: Storage, name: str) -> bytes:
    if storage.is_folder:
        return (Path(storage.uri) / name).read_bytes()
    with storage.open(name) as file:
        content: bytes = file.read()
    return content


def _name(place: str) -> str:
    path = urlsplit(place).path.rstrip("/") if "://" in place else str(Path(place).expanduser().absolute())
    return path.rpartition("/")[2]


def _problems(place: str, error: RecordError | OSError) -> list[str]:
    """Return the messages of an error, each of which names the place."""
    return error.problems if isinstance(error, RecordError) else [f"{place} cannot be read: {error.strerror or error}"]


def _short(error: Exception) -> str:
    """Return the first line of an exception's message, with its kind, since the message alone may mean little."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__} {lines[0][:200]}"
