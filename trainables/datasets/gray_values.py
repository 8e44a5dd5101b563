"""Pictures whose gray values stand in a table: a column for each, or all of a picture in one column."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.datasets.listing import BATCH, Mask, Place
from trainables.datasets.pictures import Batch
from trainables.datasets.text_table import TextTable
from trainables.errors import DatasetError, shown

FEWEST = 16
"""Gray values of a picture that are recognized as such."""

_ROWS = 256  # that are split at a time


@dataclass(frozen=True, eq=False)
class GrayValues:
    """Gray pictures, uint8 [N, side, side], in the rows of a table that have these numbers, from 1."""

    pixels: NDArray[np.uint8]
    table: str
    numbers: Sequence[int]

    @classmethod
    def of(cls, table: TextTable, columns: Sequence[int], texts: Sequence[str]) -> GrayValues | None:
        """Return the pictures in `columns` or, without these, in `texts`; None if the texts are no gray values.

        Raises:
            DatasetError: a value is none from 0 to 255, or rows have different numbers of them.
        """
        if not columns and not (texts and _side(texts[0])):
            return None
        rows = table.read_bytes(columns) if columns else _split(table, texts)
        side = isqrt(rows.shape[1])
        return cls(rows.reshape(-1, side, side), str(table.path), range(1, len(rows) + 1))

    def take(self, rows: Sequence[int]) -> GrayValues:
        """Return the pictures at these positions."""
        return GrayValues(self.pixels[list(rows)], self.table, [self.numbers[row] for row in rows])

    def __len__(self) -> int:
        return len(self.pixels)

    def places(self) -> Iterator[Place]:
        return ((self.table, number) for number in self.numbers)

    def batches(self, rows: Mask | None = None) -> Iterator[Batch]:
        """Yield the pictures in the PGM format: a header, then the gray values as they are in memory."""
        chosen = np.arange(len(self)) if rows is None else np.flatnonzero(rows)
        head = b"P5 %d %d 255\n" % self.pixels.shape[:0:-1]
        for start in range(0, len(chosen), BATCH):
            some = chosen[start : start + BATCH]
            encoded = [head + self.pixels[row].tobytes() for row in some]
            yield Batch(self.table, [self.numbers[row] for row in some], encoded)

    def __str__(self) -> str:
        return f"gray pictures of {self.pixels.shape[2]}×{self.pixels.shape[1]}"


def _side(text: str) -> int:
    """Return the side of the square picture that a text has the gray values of, in pixels; 0 if it has none."""
    values = text.split()
    side = isqrt(len(values))
    return side if len(values) >= FEWEST and side**2 == len(values) and all(value.isdigit() for value in values) else 0


def _split(table: TextTable, texts: Sequence[str]) -> NDArray[np.uint8]:
    """Return the values of all texts, uint8 [N, values]."""
    import pyarrow as pa
    import pyarrow.compute as pc

    values = _side(texts[0]) ** 2
    rows: NDArray[np.uint8] = np.empty((len(texts), values), dtype=np.uint8)
    for start in range(0, len(texts), _ROWS):
        lists = pc.utf8_split_whitespace(pa.array(texts[start : start + _ROWS]))
        lengths = pc.list_value_length(lists).to_numpy()
        if (lengths != values).any():
            row = int(np.argmax(lengths != values))
            raise DatasetError(
                f"{shown(table.path)}, row {start + row + 1}: {lengths[row]:,} gray values, not {values:,}"
            )
        try:
            rows[start : start + _ROWS] = _bytes(lists).reshape(-1, values)
        except pa.ArrowInvalid as error:
            raise DatasetError(
                f"{shown(table.path)}, rows {start + 1} to {start + len(lists)}: not gray values from 0 to 255: {error}"
            ) from error
    return rows


def _bytes(lists: Any) -> NDArray[np.uint8]:
    import pyarrow as pa

    values: NDArray[np.uint8] = lists.flatten().cast(pa.uint8()).to_numpy()
    return values
