"""A table in a text file that names pictures and labels, as competitions publish them: `train.csv` beside `train/`."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from trainables.datasets import listing, table_rows
from trainables.datasets.finder import part_of
from trainables.datasets.listing import Images
from trainables.datasets.reading import AS_FOUND, Reading
from trainables.datasets.source import Decoded, Progress, plain_name
from trainables.datasets.table_rows import TableRows
from trainables.datasets.text_table import JSON_LINES, SEPARATORS, SUFFIXES, suffix
from trainables.errors import DatasetError, listed, shown

FOUND = (*(kind for kind in SEPARATORS if kind != ".txt"), *JSON_LINES)
"""Suffixes of files in a folder that may be tables."""

HUGGING_FACE = "metadata"
"""The name of the table in the folder of each part, as Hugging Face's image folders have it."""


@dataclass(frozen=True)
class Member:
    """One of the tables of a data set, and the part that its name or its folder stands for."""

    path: Path
    part: str | None = None


@dataclass(frozen=True)
class Table:
    """The table at `path`, or all tables of a folder; pictures are in `data_dir` or, without one, beside a table."""

    path: Path
    reading: Reading = AS_FOUND
    members: tuple[Member, ...] = ()  # of a folder
    unused: tuple[str, ...] = ()  # tables of the folder that are not read, and why

    @property
    def name(self) -> str:
        return plain_name(self.path.with_suffix("") if suffix(self.path) != self.path.suffix else self.path)

    @property
    def origin(self) -> str:
        return str(self.path.absolute())

    def problems(self) -> list[str]:
        problems = [] if self.path.exists() else [f"{shown(self.path)}: there is no such file"]
        data_dir = self.reading.data_dir
        if data_dir is not None and not data_dir.is_dir():
            problems.append(f"data_dir={shown(data_dir)}: there is no such folder")
        if problems:
            return problems
        try:
            for member in self._members:
                table_rows.columns(member.path, self.reading, labelled=True)
        except DatasetError as error:
            return error.problems
        return []

    def key(self) -> str:
        digest = hashlib.sha256()
        for member, rows in zip(self._members, self._read, strict=True):
            digest.update(f"{member.part}\n".encode() + member.path.read_bytes())
            digest.update(_files_key(rows, self.reading.data_dir or member.path.parent))
        return digest.hexdigest()

    def decode(self, progress: Progress, scratch: Path) -> Decoded:
        return listing.decode(self.listing(), self.reading, progress, scratch)

    def listing(self) -> listing.Listing:
        """Return the rows of all tables.

        Raises:
            DatasetError: a table cannot be read, or most of its pictures are not found.
        """
        labels = [label for rows in self._read for label in rows.labels]
        parts = [
            part
            for member, rows in zip(self._members, self._read, strict=True)
            for part in (rows.parts or [member.part or "train"] * len(rows.labels))
        ]
        return listing.Listing(
            listing.Joined([rows.images for rows in self._read]),
            labels,
            parts if len(set(parts)) > 1 else (),
            "; ".join([*(rows.words for rows in self._read), *self.unused]),
            tuple(left for rows in self._read for left in rows.left_out),
            ordered(labels),
        )

    def images(self) -> Images:
        """Return the picture that each row names; the table needs no labels.

        Raises:
            DatasetError: the table cannot be read, or most of its pictures are not found.
        """
        return listing.Joined([table_rows.read(member.path, self.reading, False).images for member in self._members])

    @property
    def _members(self) -> tuple[Member, ...]:
        return self.members or (Member(self.path),)

    @cached_property
    def _read(self) -> list[TableRows]:
        parts = [member.part or part_of(member.path.name) for member in self._members]
        return [
            table_rows.read(member.path, self.reading, True, part)
            for member, part in zip(self._members, parts, strict=True)
        ]


def is_table(path: Path) -> bool:
    """Return whether `path` is named like a table in a text file, which may not exist."""
    return suffix(path) in SUFFIXES and not path.is_dir()


def places(path: Path) -> list[str]:
    """Return where a table is looked for, for a message."""
    return [] if path.is_dir() else [f"a name that ends in {listed(SUFFIXES)}"]


def ordered(labels: Sequence[str | None]) -> tuple[str, ...]:
    """Return the classes in the order of their numbers if all are numbers, else of their names."""
    classes = sorted({label for label in labels if label is not None})
    if all(name.isascii() and name.isdigit() for name in classes):
        classes.sort(key=int)
    return tuple(classes)


def _files_key(rows: TableRows, root: Path) -> bytes:
    """Return a digest of the files' paths from `root` on, their sizes and times."""
    digest = hashlib.sha256()
    for file in dict.fromkeys(file for file, _ in rows.images.places()):
        try:
            status = os.stat(file)  # noqa: PTH116 - a million times
        except (OSError, ValueError):  # it is named when it is read
            continue
        digest.update(os.fsencode(os.path.relpath(file, root)))
        digest.update(f"\n{status.st_size}\n{status.st_mtime_ns}\n".encode())
    return digest.digest()
