"""A table in a text file, read as text: values with any usual separator and encoding, or JSON lines; also gzipped."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import os
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from trainables.errors import DatasetError, shown
from trainables.files import UnreadableError, open_regular

SEPARATORS = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".txt": ","}
"""Suffixes of tables of separated values, and the separator if the content does not show another one."""

JSON_LINES = (".jsonl", ".ndjson")
SUFFIXES = (*SEPARATORS, *JSON_LINES)
SPREADSHEETS = (".xlsx", ".xls", ".ods")
"""Suffixes of tables that are not read."""

MOST_BYTES = 2 * 2**30
"""A larger table is refused before it is read: 50 million rows of names and labels are smaller."""

_SAMPLE = 2**20  # bytes at the beginning that show separator and columns
_SNIFFED = 2**14  # bytes of these that the sniffer sees: its patterns take long on long texts
_FIRST = 50  # rows that show what a column holds
_BOMS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}


@dataclass(frozen=True)
class TextTable:
    """A table whose values are text, and the columns that it has.

    Attributes:
        names: of the columns, stripped; without a header their numbers, from 1.
        first: the first rows' values, stripped, each as many as there are columns.
        header: whether the file has a line of names. JSON lines name the values in every line.
    """

    path: Path
    names: tuple[str, ...]
    first: tuple[tuple[str, ...], ...]
    header: bool
    separator: str  # empty for JSON lines
    content: bytes  # UTF-8

    @classmethod
    def open(cls, path: Path, is_value: Callable[[str], bool] = lambda text: False) -> TextTable:
        """Read the file, and find its columns.

        Args:
            is_value: return whether a text in the first line shows that it is no line of names.

        Raises:
            DatasetError: it is no regular file, too large, damaged, not in UTF-8 or UTF-16, or no table.
        """
        content = _utf8(path, _bytes(path))
        if suffix(path) in JSON_LINES:
            return cls._of_json(path, content)
        separator, content = _separator(path, content)
        rows = _sample(path, content, separator)
        if not rows:
            raise DatasetError(f"{shown(path)}: no rows")
        header = not (any(map(is_value, rows[0])) or all(re.fullmatch(r"\d+", text) for text in rows[0]))
        names = rows[0] if header else tuple(str(column) for column in range(1, len(rows[0]) + 1))
        first = tuple(row for row in rows[header:] if len(row) == len(names))
        return cls(path, names, first, header, separator, content)

    @classmethod
    def _of_json(cls, path: Path, content: bytes) -> TextTable:
        rows = list(islice(_json_rows(path, content), _FIRST))
        if not rows:
            raise DatasetError(f"{shown(path)}: no rows")
        names = tuple(dict.fromkeys(name for row in rows for name in row))
        first = tuple(tuple(row.get(name, "") for name in names) for row in rows)
        return cls(path, names, first, True, "", content)

    def read(self, columns: Sequence[int]) -> list[list[str]]:
        """Return every value of the columns with these positions, stripped; empty where there is none.

        Raises:
            DatasetError: a row has more or fewer values than there are columns, or there are no rows.
        """
        if not self.separator:
            names = [self.names[column] for column in columns]
            rows = list(_json_rows(self.path, self.content))
            return [[row.get(name, "") for row in rows] for name in names]
        import pyarrow as pa
        import pyarrow.compute as pc

        table = self._read(columns, pa.string())
        return [pc.utf8_trim_whitespace(table[str(column)]).to_pylist() for column in columns]

    def read_bytes(self, columns: Sequence[int]) -> Any:
        """Return the columns as uint8 [rows, columns]; raise DatasetError for a value that is none from 0 to 255."""
        import numpy as np
        import pyarrow as pa

        table = self._read(columns, pa.uint8())
        return np.column_stack([table[str(column)].to_numpy() for column in columns])

    def _read(self, columns: Sequence[int], kind: Any) -> Any:
        """Return an Arrow table of the columns, named by their positions."""
        import pyarrow as pa
        import pyarrow.csv

        ragged: list[Any] = []

        def note(row: Any) -> str:
            ragged.append(row)
            return "skip"

        names = list(map(str, range(len(self.names))))
        try:
            table = pyarrow.csv.read_csv(
                pa.BufferReader(self.content),
                read_options=pyarrow.csv.ReadOptions(  # rows have numbers only where one thread reads them
                    use_threads=False, column_names=names, skip_rows_after_names=int(self.header), block_size=2**24
                ),
                parse_options=pyarrow.csv.ParseOptions(
                    delimiter=self.separator,
                    newlines_in_values=True,
                    invalid_row_handler=note,
                ),
                convert_options=pyarrow.csv.ConvertOptions(
                    include_columns=list(map(str, columns)),
                    column_types=dict.fromkeys(names, kind),
                    strings_can_be_null=False,
                    null_values=[],
                ),
            )
        except pa.ArrowInvalid as error:
            raise DatasetError(f"{shown(self.path)}: {_reason(error, self.names, self.header)}") from error
        if not len(table) and not ragged:
            raise DatasetError(f"{shown(self.path)}: no rows")
        if ragged:
            raise DatasetError(f"{shown(self.path)}, row {ragged[0].number - self.header}: {self._ragged(ragged)}")
        return table

    def _ragged(self, rows: Sequence[Any]) -> str:
        found, more = rows[0].actual_columns, f" (so have {len(rows) - 1:,} more)" if len(rows) > 1 else ""
        return (
            f"{found} {'value' if found == 1 else 'values'} for {len(self.names)} columns{more}; write a value that "
            f"has the separator {self.separator!r} or a line break between double quotes"
        )


def suffix(path: Path) -> str:
    """Return the path's suffix in lower case, without that of gzip."""
    name = path.name.lower()
    return Path(name.removesuffix(".gz")).suffix


def _too_large(path: Path) -> DatasetError:
    return DatasetError(
        f"{shown(path)}: larger than {MOST_BYTES / 2**30:g} GiB, the most that is read; put the pictures into files"
    )


def _bytes(path: Path) -> bytes:
    """Return the file's content, unpacked if it is gzipped."""
    try:
        with open_regular(path) as file:
            if os.fstat(file.fileno()).st_size > MOST_BYTES:
                raise _too_large(path)
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            with gzip.open(file) if packed else file as stream:
                content: bytes = stream.read(MOST_BYTES + 1)
    except UnreadableError as error:
        raise DatasetError(f"{shown(path)}: {error}") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(f"{shown(path)}: cannot be read: {error}") from error
    if len(content) > MOST_BYTES:
        raise _too_large(path)
    return content


def _utf8(path: Path, content: bytes) -> bytes:
    """Return the content as UTF-8 without a byte-order mark."""
    mark = next((mark for mark in _BOMS if content.startswith(mark)), b"")
    encoding, content = _BOMS.get(mark, "utf-8"), content[len(mark) :]
    if not mark and b"\0" in content[:4096]:
        encoding = "utf-16-le" if content[1:2] == b"\0" else "utf-16-be"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DatasetError(
            f"{shown(path)}, line {line}: not text in {encoding.upper()}; save the file as UTF-8"
        ) from error
    if "\0" in text[:4096]:
        raise DatasetError(f"{shown(path)}: not a text file")
    return content if encoding == "utf-8" else text.encode()


def _separator(path: Path, content: bytes) -> tuple[str, bytes]:
    """Return the separator of the values, and the content from the first line with values on."""
    content = content.lstrip(b"\r\n")
    named = re.match(rb"sep=(.)\r?\n", content)  # a line that spreadsheets write
    if named:
        return named[1].decode(errors="replace"), content[named.end() :]
    head = content[: content.rfind(b"\n", 0, _SNIFFED) + 1 or _SNIFFED].decode(errors="ignore")
    usual = SEPARATORS.get(suffix(path), ",")
    allowed = ",;\t|" + (" " if suffix(path) == ".txt" else "")
    line = head.partition("\n")[0]
    if usual == "\t" and "\t" in line:
        return usual, content
    try:
        sniffed = csv.Sniffer().sniff(head, allowed).delimiter
    except csv.Error:  # one column, or too few rows to see what they have in common
        sniffed = usual
    present = [separator for separator in (sniffed, usual, *allowed) if separator in line]
    return (present or [usual])[0], content


def _sample(path: Path, content: bytes, separator: str) -> list[tuple[str, ...]]:
    """Return the first rows' values; the line of names is one of them."""
    whole = len(content) <= _SAMPLE
    text = content[: len(content) if whole else content.rfind(b"\n", 0, _SAMPLE) + 1 or _SAMPLE].decode(errors="ignore")
    rows: list[tuple[str, ...]] = []
    try:
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator):
            if row:
                rows.append(tuple(value.strip() for value in row))
            if len(rows) == _FIRST:
                return rows
    except csv.Error as error:  # such as a value of more than 128 kB
        if not rows:
            raise DatasetError(f"{shown(path)}: not a table that can be read: {error}") from error
    return rows if whole else rows[: max(1, len(rows) - 1)]  # the last one may be cut


def _json_rows(path: Path, content: bytes) -> Iterator[dict[str, str]]:
    """Yield the values of each line as they are written there."""
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, parse_int=str, parse_float=str, parse_constant=str)
        except (ValueError, RecursionError) as error:
            raise DatasetError(f"{shown(path)}, line {number}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise DatasetError(
                f'{shown(path)}, line {number}: not a JSON object, such as {{"file_name": …, "label": …}}'
            )
        yield {name.strip(): _text(value) for name, value in row.items()}


def _text(value: Any) -> str:
    """Return a JSON value as text; empty for null."""
    if isinstance(value, str):
        return value.strip()
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def _reason(error: Exception, names: Sequence[str], header: bool) -> str:
    """Return what Arrow says of a table, with the name of the column and the row counted as everywhere."""
    text = " ".join(str(error).split())[:300]
    place = re.match(r"In CSV column #(\d+): Row #(\d+): (?:CSV conversion error to )?(.*)", text)
    if place is None:
        return f"not a table that can be read: {text}"
    return f"row {int(place[2]) - header}, column {shown(names[int(place[1])])!r}: not a value of type {place[3]}"
