"""Tables as Parquet files that say which sweep they come from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.record.state import SweepState
from trainables.files import new_file

SCHEMA_VERSION = 2


def make(rows: Sequence[dict[str, Any]], schema: pa.Schema, state: SweepState) -> pa.Table:
    """Return rows as a table of `schema`, with the sweep's record in its metadata."""
    return pa.Table.from_pylist(rows, schema=described(schema, state))


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
        for piece in [pieces] if isinstance(pieces, pa.Table) else pieces:
            writer.write_table(piece)
