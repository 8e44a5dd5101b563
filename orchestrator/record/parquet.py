"""Tables as Parquet files that say which sweep they come from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.record.state import SweepState
from trainables.files import new_file

SCHEMA_VERSION = 2
GROUP = 1_024  # rows that are made and written together; a row group costs 5 kB in the file, 40 kB while it is written


def make(rows: Iterable[dict[str, Any]], schema: pa.Schema, state: SweepState) -> pa.Table:
    """Return rows as a table of `schema`, with the sweep's record in its metadata."""
    schema, rows = described(schema, state), iter(rows)
    some = iter(lambda: list(islice(rows, GROUP)), [])
    return pa.concat_tables([schema.empty_table(), *(pa.Table.from_pylist(each, schema) for each in some)])


def described(schema: pa.Schema, state: SweepState) -> pa.Schema:
    """Return the schema with the sweep's record in its metadata, and the number of events that its tables tell of."""
    record = {"schema_version": str(SCHEMA_VERSION), "sweep": json.dumps(state.record()), "events": str(state.next_n)}
    return schema.with_metadata(record)


def write(pieces: pa.Table | Iterable[pa.Table], path: Path, schema: pa.Schema | None = None) -> None:
    """Write a table, or pieces of one of this `schema`, as a file, completely or not at all.

    Raises:
        OSError: the disk did not take it.
    """
    if isinstance(pieces, pa.Table):
        schema = pieces.schema
    with new_file(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for group in _groups([pieces] if isinstance(pieces, pa.Table) else pieces):
            writer.write_table(group)


def _groups(pieces: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yield pieces of a table joined to row groups."""
    waiting: list[pa.Table] = []
    rows = 0
    for piece in pieces:
        waiting.append(piece)
        rows += len(piece)
        if rows >= GROUP:
            yield pa.concat_tables(waiting)
            waiting, rows = [], 0
    if waiting:
        yield pa.concat_tables(waiting)
