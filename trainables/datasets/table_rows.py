"""The rows of one table in a text file: each one's picture, label and part, and what is no row."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from trainables.datasets.columns import BITS, Roles
from trainables.datasets.finder import Finder, is_picture
from trainables.datasets.gray_values import GrayValues
from trainables.datasets.inventory import EXAMPLES, LeftOut
from trainables.datasets.listing import Files, Images
from trainables.datasets.reading import Reading
from trainables.datasets.split_column import LEFT_OUT, SplitColumn
from trainables.datasets.text_table import TextTable
from trainables.errors import DatasetError, shown


@dataclass(frozen=True, eq=False)
class TableRows:
    """The rows of a table, in their order.

    Attributes:
        labels: as written; None for a row without one, and for all rows if the table was read without labels.
        parts: one of `PARTS` for each row; empty if no column names them.
        words: which columns hold what, for a message.
        splits: the values of the column of parts.
        dropped: the names, without folders, of the pictures of parts that are left out.
    """

    images: Images
    labels: Sequence[str | None]
    parts: Sequence[str]
    left_out: tuple[LeftOut, ...]
    words: str
    splits: frozenset[str]
    dropped: frozenset[str]


@dataclass
class _Kept:
    """The positions of the rows that are kept, from 0, and what is left out."""

    table: Path
    rows: Sequence[int]
    left_out: list[LeftOut] = field(default_factory=list)

    @property
    def numbers(self) -> list[int]:
        return [row + 1 for row in self.rows]

    def drop(self, reason: str, rows: set[int]) -> None:
        if rows:
            places = tuple(f"{shown(self.table)}, row {row + 1}" for row in sorted(rows)[:EXAMPLES])
            self.left_out.append(LeftOut(reason, len(rows), places))
            self.rows = [row for row in self.rows if row not in rows]


def columns(path: Path, reading: Reading, labelled: bool) -> tuple[TextTable, Roles]:
    """Return the table at `path` and what its columns hold; raise DatasetError as `read`."""
    names_picture = partial(is_picture, reading.data_dir or path.parent)
    table = TextTable.open(path, names_picture)
    return table, Roles.of(table, reading, labelled, names_picture)


def probe(path: Path, reading: Reading, part: str | None) -> None:
    """Raise DatasetError as `read` does, unless the first rows of the table have labels and pictures that are there."""
    table, roles = columns(path, reading, labelled=True)
    if roles.image is None or not table.first:
        return
    names = [row[roles.image] for row in table.first]
    if GrayValues.of(table, (), names[:1]) is None:
        Finder(path, reading.data_dir or path.parent, part).find(names, range(1, len(names) + 1))


def read(path: Path, reading: Reading, labelled: bool, part: str | None = None) -> TableRows:
    """Read the table at `path`: the pictures that it names and, if it is `labelled`, their labels and parts.

    Args:
        part: what the table's name stands for: its pictures are not those of another part.

    Raises:
        DatasetError: it is no table, its columns or its pictures are not found, or rows contradict each other.
    """
    table, roles = columns(path, reading, labelled)
    names = [] if roles.image is None else table.read([roles.image])[0]
    pixels = GrayValues.of(table, roles.pixels, names)
    count = len(names if pixels is None else pixels)
    labels = _labels(table, roles) if labelled else [None] * count
    splits = {table.names[column]: table.read([column])[0] for column in roles.splits} if labelled else {}
    split = SplitColumn.of(path, splits, reading.parts)
    kept = _Kept(path, range(count))
    elsewhere = {row for row, named in enumerate(split.parts) if named in LEFT_OUT}
    kept.drop("row of a part that is left out", elsewhere)
    if pixels is not None:
        images: Images = pixels.take(kept.rows)
    else:
        kept.drop("row without values", _without_name(path, names, labels, table.names[roles.image or 0]))
        files = dict(
            zip(
                kept.rows,
                Finder(path, reading.data_dir or path.parent, part).find(
                    [names[row] for row in kept.rows], kept.numbers
                ),
                strict=True,
            )
        )
        if labelled:
            kept.drop("row that repeats another one", _repeats(path, files, labels, split.parts))
        images = Files([files[row] for row in kept.rows], str(path), kept.numbers)
    return TableRows(
        images,
        [labels[row] for row in kept.rows],
        [split.parts[row] for row in kept.rows] if split.parts else (),
        tuple(kept.left_out),
        _words(table, roles, split, pixels),
        frozenset(split.part_of),
        frozenset(re.split(r"[\\/]", names[row])[-1] for row in elsewhere if names),
    )


def _labels(table: TextTable, roles: Roles) -> list[str | None]:
    """Return each row's label; None for a row without one."""
    if roles.label is not None:
        return [label or None for label in table.read([roles.label])[0]]
    columns = [_bits(table, column) for column in roles.one_hot]
    ones = np.sum(columns, axis=0)
    if (ones > 1).any():
        row = int(np.argmax(ones > 1))
        several = [table.names[column] for column, bits in zip(roles.one_hot, columns, strict=True) if bits[row]]
        raise DatasetError(
            f"{shown(table.path)}, row {row + 1}: several classes ({shown(', '.join(several[:3]))}); "
            f"{(ones > 1).sum():,} of {len(ones):,} rows have more than one, but a picture has one class "
            "here; if the classes are in one column, name it with --label-column"
        )
    names = [table.names[column] for column in roles.one_hot]
    return [names[place] if one else None for place, one in zip(np.argmax(columns, axis=0), ones, strict=True)]


def _bits(table: TextTable, column: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    values = table.read([column])[0]
    wrong = next((row for row, value in enumerate(values) if value.casefold() not in BITS), None)
    if wrong is not None:
        raise DatasetError(
            f"{shown(table.path)}, row {wrong + 1}: column {shown(table.names[column])!r} has "
            f"{shown(values[wrong])!r}, but 0 and 1 in the rows above, as if it were a class; name the column of "
            "the labels with --label-column"
        )
    return np.array([BITS[value.casefold()] for value in values])


def _without_name(path: Path, names: Sequence[str], labels: Sequence[str | None], column: str) -> set[int]:
    """Return the rows that name nothing; raise DatasetError if one has a label."""
    empty = {row for row, name in enumerate(names) if not name}
    wrong = sorted(row for row in empty if labels[row] is not None)
    if wrong:
        more = f" (and in {len(wrong) - 1:,} more)" if len(wrong) > 1 else ""
        raise DatasetError(f"{shown(path)}, row {wrong[0] + 1}{more}: a label, but nothing in column {shown(column)!r}")
    return empty


def _repeats(path: Path, files: Mapping[int, Path], labels: Sequence[str | None], parts: Sequence[str]) -> set[int]:
    """Return the rows that name a picture again, with the same label and part.

    Raises:
        DatasetError: a picture has different labels.
    """
    first: dict[Path, int] = {}
    seen: set[tuple[Path, str | None, str]] = set()
    repeats, conflicts = set(), []
    for row, file in files.items():
        whole = (file, labels[row], parts[row] if parts else "")
        if whole in seen:
            repeats.add(row)
        seen.add(whole)
        if labels[row] is not None and labels[first.setdefault(file, row)] != labels[row]:
            conflicts.append((first[file], row))
    if conflicts:
        shown_rows = (
            f"rows {a + 1} and {b + 1}: {shown(files[a])} is both {shown(labels[a])!r} and {shown(labels[b])!r}"
            for a, b in conflicts[:EXAMPLES]
        )
        many = f"; {len(conflicts):,} rows contradict an earlier one" if len(conflicts) > 1 else ""
        raise DatasetError(f"{shown(path)}, {'; '.join(shown_rows)}{many}; a picture has one label: correct the table")
    return repeats


def _words(table: TextTable, roles: Roles, split: SplitColumn, pixels: GrayValues | None) -> str:
    """Return how the table was read, in words."""
    columns = (
        f"in {len(roles.pixels):,} columns" if roles.image is None else f"in column {shown(table.names[roles.image])!r}"
    )
    words = [table.path.name if table.header else f"{shown(table.path.name)} without a line of column names"]
    words.append(f"pictures {columns}" if pixels is None else f"{pixels} {columns}")
    if roles.label is not None:
        words.append(f"labels in column {shown(table.names[roles.label])!r}")
    if roles.one_hot:
        words.append(f"a column of 0 and 1 for each of {len(roles.one_hot)} classes")
    return ", ".join([*words, *([str(split)] if str(split) else [])]).replace(", ", ": ", 1)
