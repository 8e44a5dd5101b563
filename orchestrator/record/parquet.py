"""Tables as Parquet files that say which sweep they come from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.record.state import SweepState
from trainables.files import replace_file

SCHEMA_VERSION = 2


def make(rows: Sequence[dict[str, Any]], schema: pa.Schema, state: SweepState) -> pa.Table:
    """Return rows as a table of `schema`, with the sweep's record in its metadata."""
    provenance = {"schema_version": str(SCHEMA_VERSION), "sweep": json.dumps(state.record())}
    return pa.Table.from_pylist(rows, schema=schema.with_metadata(provenance))


def write(table: pa.Table, path: Path) -> None:
    """Write the table as a file, completely or not at all.

    Raises:
        OSError: the disk did not take it.
    """
    buffer = BytesIO()
    pq.write_table(table, buffer)
    replace_file(path, buffer.getvalue())
