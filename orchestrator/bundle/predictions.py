"""A model's predictions as a table with a row for each image, and the formats that it can be written in."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq

from orchestrator.bundle.classifier import Classifier
from orchestrator.bundle.explanation import Overlays
from trainables.datasets import pictures
from trainables.datasets.listing import Place
from trainables.datasets.pictures import Batch
from trainables.datasets.stored_images import gathered
from trainables.errors import shown


def label(
    classifier: Classifier,
    places: Iterable[Place],
    batches: Iterable[Batch],
    top: int,
    overlays: Overlays | None = None,
) -> Iterator[pa.RecordBatch]:
    """Label the images in `batches`, which lie at `places`, and yield their rows, as of `schema`, chunk by chunk.

    Overlays, if any, are named by the number of the row, from 0, and the image's file.
    """
    read, done = zip(places, pictures.each(batches, classifier.decode), strict=True), 0
    while chunk := list(islice(read, classifier.chunk_size)):
        decoded = [image for _, (_, image) in chunk]
        readable = np.array([not isinstance(image, str) for image in decoded])
        columns: list[list[Any]] = [
            [shown(file) for (file, _), _ in chunk],
            [row and row - 1 for (_, row), _ in chunk],
        ]
        if readable.any():
            images = gathered([image for image in decoded if not isinstance(image, str)])
            probabilities = classifier.probabilities(images)
            likeliest = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
            if overlays is not None:
                names = [f"{done + n:06}-{Path(columns[0][n]).stem}" for n in np.flatnonzero(readable)]
                overlays.write(names, images, likeliest[:, 0])
        done += len(decoded)
        for rank in range(top):
            labels = np.full(len(decoded), None, dtype=object)
            chances = np.full(len(decoded), None, dtype=object)
            if readable.any():
                labels[readable] = np.array(classifier.classes, dtype=object)[likeliest[:, rank]]
                chances[readable] = np.take_along_axis(probabilities, likeliest[:, rank : rank + 1], 1)[:, 0].tolist()
            columns += [labels.tolist(), chances.tolist()]
        columns.append([image if isinstance(image, str) else None for image in decoded])
        yield pa.record_batch(columns, schema=schema(top))


def schema(top: int) -> pa.Schema:
    """Return the columns: path, row (in a table, from 0), label, probability, label_2, probability_2, …, error.

    `error` is the reason why an image cannot be read. Messages count rows from 1; the column is an index, from 0.
    """
    ranked = [
        pa.field(f"{name}{suffix}", kind)
        for suffix in ("", *(f"_{rank}" for rank in range(2, top + 1)))
        for name, kind in (("label", pa.string()), ("probability", pa.float64()))
    ]
    return pa.schema(
        [pa.field("path", pa.string()), pa.field("row", pa.int64()), *ranked, pa.field("error", pa.string())]
    )


def encode(table: pa.Table, name: str) -> bytes:
    """Return the table as a file of the format `name`, one of `FORMATS`."""
    return FORMATS[name](table)


def _csv(table: pa.Table) -> bytes:
    buffer = BytesIO()
    csv.write_csv(table, buffer)
    return buffer.getvalue()


def _parquet(table: pa.Table) -> bytes:
    buffer = BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def _jsonl(table: pa.Table) -> bytes:
    return "".join(f"{json.dumps(row)}\n" for row in table.to_pylist()).encode()


def _text(table: pa.Table) -> bytes:
    """Return the table as aligned text, without empty columns."""
    shown = [name for name in table.column_names if name == "label" or table[name].null_count < len(table)]
    columns = [[name, *map(_cell, table[name].to_pylist())] for name in shown]
    widths = [max(map(len, column)) for column in columns]
    lines = (_line(cells, widths) for cells in zip(*columns, strict=True))
    return "".join(f"{line}\n" for line in lines).encode()


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else shown(value)


FORMATS = {"table": _text, "csv": _csv, "jsonl": _jsonl, "parquet": _parquet}
