"""The sweeps at a path: a sweep's folder, a folder of sweeps or a lone leaderboard, on a disk or in a bucket.

Nothing is changed, so a sweep that runs can be looked at. Neither torch nor Ray is imported.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.assessment import fraction_curve, tables
from orchestrator.assessment.fraction_curve import Bin
from orchestrator.plan.plan import Plan
from orchestrator.record import former_schemas, parquet, reading
from orchestrator.record.decoding import RecordError, from_json
from orchestrator.record.events import Event
from orchestrator.record.facts import Spec
from orchestrator.record.paths import JOURNAL
from orchestrator.record.paths import LEADERBOARD as TABLE
from orchestrator.record.state import SweepState
from trainables.errors import ConfigError
from trainables.storage import Storage, below


class BoardError(ConfigError):
    """A path at which no sweep can be read."""


@dataclass(frozen=True)
class Board:
    """A sweep as it was read. `state` and `events` are its journal's; a lone table has none."""

    name: str
    place: str  # the path as given, or below it
    table: pa.Table  # as `tables.leaderboard`
    spec: Spec
    formats: dict[str, dict[str, str]]  # as in `SweepState`
    state: SweepState | None = None
    events: list[Event] = field(default_factory=list, repr=False)

    @cached_property
    def plan(self) -> Plan:
        return Plan.from_dict(self.spec.plan)

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
        BoardError: there is none that can be read.
    """
    boards: list[Board] = []
    skipped: list[str] = []
    for path in paths:
        try:
            found = list(_at(path))
        except (BoardError, RecordError, OSError) as error:
            skipped.append(_sentence(path, error))
            continue
        boards += [one for one in found if isinstance(one, Board)]
        skipped += [one for one in found if isinstance(one, str)]
    if not boards:
        raise BoardError(*skipped)
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
            raise BoardError(f"no sweep there: neither {JOURNAL} nor {TABLE}; name one, as results/NAME")
        for folder in inner:
            place = below(path, folder)
            try:
                board = _in_folder(_opened(place)[0], place)
                yield board or f"{place} is no sweep's folder: neither {JOURNAL} nor {TABLE} in it"
            except (BoardError, RecordError, OSError) as error:
                yield _sentence(place, error)


def _opened(path: str) -> tuple[Storage, str | None]:
    """Return the folder that `path` is, or is in, and the file's name if it is a file.

    Raises:
        BoardError: there is nothing.
    """
    if "://" in path:
        parts = urlsplit(path)
        if not parts.path.endswith(".parquet"):
            return Storage(path), None
        folder, _, name = parts.path.rpartition("/")
        return Storage(parts._replace(path=folder).geturl()), name
    place = Path(path).expanduser().absolute()
    if not place.exists():
        raise BoardError("there is no such file or folder")
    return (Storage(str(place)), None) if place.is_dir() else (Storage(str(place.parent)), place.name)


def _in_folder(storage: Storage, place: str) -> Board | None:
    """Return the sweep whose folder this is: from its journal, which is the record, else from its table."""
    names = storage.names()
    if JOURNAL not in names:
        return _from_table(storage, TABLE, place) if TABLE in names else None
    record = reading.read(storage, place)
    state = record.state
    Plan.from_dict(state.spec.plan)  # a damaged one is refused here
    return Board(_name(place), place, tables.leaderboard(state), state.spec, state.formats, state, record.events)


def _from_table(storage: Storage, name: str, place: str) -> Board:
    """Return the sweep that a lone `leaderboard.parquet` describes."""
    content = _read(storage, name)
    try:
        table = pq.read_table(pa.BufferReader(content))
    except (pa.ArrowException, OSError) as error:
        raise BoardError(f"it is damaged, or no leaderboard: {_short(error)}") from error
    version, record = _metadata(table)
    if version < parquet.SCHEMA_VERSION:
        table, record = _of_schema_1(table), former_schemas.spec(record)
    spec = from_json(Spec, record)
    try:
        rows = _as_now(table)
    except pa.ArrowException as error:
        raise BoardError(f"it is damaged: {_short(error)}") from error
    plan = Plan.from_dict(spec.plan)
    return Board(plan.name, place, rows, spec, from_json(dict[str, dict[str, str]], record.get("formats", {})))


def _metadata(table: pa.Table) -> tuple[int, dict[str, Any]]:
    """Return the schema of a leaderboard and the record of its sweep.

    Raises:
        BoardError: the table is no leaderboard, or of a newer schema.
    """
    metadata = table.schema.metadata or {}
    if b"schema_version" not in metadata or b"sweep" not in metadata:
        raise BoardError("it is no leaderboard: its metadata do not say of which sweep")
    try:
        version, record = int(metadata[b"schema_version"]), json.loads(metadata[b"sweep"])
    except (ValueError, RecursionError) as error:
        raise BoardError(f"its metadata are damaged: {_short(error)}") from error
    if version > parquet.SCHEMA_VERSION:
        raise BoardError(f"it has schema {version}, this version reads {parquet.SCHEMA_VERSION}: update this project")
    if "rank" not in table.column_names:
        raise BoardError(f"it is no leaderboard: there is no column rank; give {TABLE}")
    if not isinstance(record, dict):
        raise BoardError("its metadata are damaged: the record of the sweep is not an object")
    return version, record


def _of_schema_1(table: pa.Table) -> pa.Table:
    """Return a leaderboard of schema 1 with the names of schema 2."""
    if "figures" not in table.column_names:
        return table
    texts = [former_schemas.final_metrics_text(text) for text in table["figures"].to_pylist()]
    place = table.column_names.index("figures")
    return table.set_column(place, "final_metrics", pa.array(texts, pa.string()))


def _as_now(table: pa.Table) -> pa.Table:
    """Return a table of any earlier version with today's columns and types; what it lacks is null."""
    columns = [
        table[field.name].cast(field.type) if field.name in table.column_names else pa.nulls(len(table), field.type)
        for field in tables.LEADERBOARD
    ]
    return pa.table(columns, tables.LEADERBOARD.with_metadata(table.schema.metadata))


def _read(storage: Storage, name: str) -> bytes:
    with storage.open(name) as file:
        content: bytes = file.read()
    return content


def _name(place: str) -> str:
    path = urlsplit(place).path.rstrip("/") if "://" in place else str(Path(place).expanduser().absolute())
    return path.rpartition("/")[2]


def _sentence(place: str, error: Exception) -> str:
    said = error.strerror if isinstance(error, OSError) and error.strerror else error
    return f"{place} cannot be read: {said}"


def _short(error: Exception) -> str:
    """Return the first line of an exception's message, with its kind, since the message alone may mean little."""
    said = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__} {said[0][:200]}"
