"""A table in a text file that names pictures and labels, as competitions publish them: `train.csv` beside `train/`."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from trainables.datasets import listing, table_rows
from trainables.datasets.folder import files_key
from trainables.datasets.folder_names import part_in
from trainables.datasets.inventory import LeftOut
from trainables.datasets.listing import Images
from trainables.datasets.reading import AS_FOUND, Reading
from trainables.datasets.source import Decoded, Progress, plain_name
from trainables.datasets.table_rows import TableRows
from trainables.datasets.text_table import JSON_LINES, SEPARATORS, SUFFIXES, suffix
from trainables.datasets.tree import SUFFIXES as PICTURES
from trainables.datasets.tree import summed, walk
from trainables.errors import DatasetError, listed, shown, suggestion

FOUND = (*(kind for kind in SEPARATORS if kind != ".txt"), *JSON_LINES)
"""Suffixes of files in a folder that may be tables."""

NOT_NAMED = "picture that no row names"

HUGGING_FACE = "metadata"
"""The name of the table in the folder of each part, as Hugging Face's image folders have it."""


@dataclass(frozen=True)
class Member:
    """One of the tables of a data set, and the part that its name or its folder stands for."""

    path: Path
    part: str | None = None

    def names(self, folder: Path) -> set[str]:
        """Return the names that `--parts` may give it, if it is a table of the data set in `folder`."""
        if folder == self.path:
            return set()
        path = self.path.relative_to(folder)
        return {str(path), path.stem, *(str(above) for above in path.parents if above.name)}


@dataclass(frozen=True)
class Table:
    """The table at `path`, or all tables of a folder; pictures are in `data_dir` or, without one, beside a table."""

    path: Path
    reading: Reading = AS_FOUND
    members: tuple[Member, ...] = ()  # of a folder
    unused: tuple[tuple[Path, str], ...] = ()  # tables of the folder that are not read, and why

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
            files = dict.fromkeys(Path(file) for file, _ in rows.images.places())
            digest.update(files_key(files, self.reading.data_dir or member.path.parent).encode())
        return digest.hexdigest()

    def decode(self, progress: Progress, scratch: Path) -> Decoded:
        return listing.decode(self.listing(), self.reading, progress, scratch)

    def listing(self) -> listing.Listing:
        """Return the rows of all tables.

        Raises:
            DatasetError: a table cannot be read, or most of its pictures are not found.
        """
        if problems := self._unknown_parts():
            raise DatasetError(*problems)
        labels = [label for rows in self._read for label in rows.labels]
        parts = [
            part
            for member, rows in zip(self._members, self._read, strict=True)
            for part in (rows.parts or [member.part or "train"] * len(rows.labels))
        ]
        return listing.Listing(
            listing.Joined([rows.images for rows in self._read]),
            labels,
            parts if len(set(parts)) > 1 or "test" in parts else (),
            "; ".join(
                [*(rows.words for rows in self._read), *(f"{shown(path.name)} {why}" for path, why in self.unused)]
            ),
            (*(left for rows in self._read for left in rows.left_out), *self._not_named()),
            ordered(labels),
        )

    def images(self) -> Images:
        """Return the picture that each row names; the table needs no labels.

        Raises:
            DatasetError: the table cannot be read, or most of its pictures are not found.
        """
        return listing.Joined([table_rows.read(member.path, self.reading, False).images for member in self._members])

    def _unknown_parts(self) -> list[str]:
        """Return a message for each name of `--parts` that is neither a table's nor a value of a column of parts."""
        members = [*self._members, *(Member(path) for path, _ in self.unused)]
        names = {name for member in members for name in member.names(self.path)}
        names |= {value for rows in self._read for value in rows.splits}
        return [
            f"--parts {part}={shown(name)}: {shown(self.path)} has no such table and no such value in a column of parts"
            f"{suggestion(name, sorted(names), 'nothing: no column names parts' if not names else '')}"
            for part, name in self.reading.parts
            if name not in names
        ]

    def _not_named(self) -> tuple[LeftOut, ...]:
        """Return what lies in the data set's folder, or else beside the pictures of the table, and is no row."""
        files = {Path(file) for rows in self._read for file, _ in rows.images.places()}
        if self.members:
            tables = {member.path for member in self.members}
            there = walk(self.path)
            others = [(reason, path) for reason, path in there.left_out() if path not in tables]
            pictures = there.pictures()
        else:
            others = []
            pictures = (path for folder in sorted({file.parent for file in files}) for path in _pictures_in(folder))
        dropped = {name for rows in self._read for name in rows.dropped}
        unnamed = [path for path in pictures if path not in files and dropped.isdisjoint((path.name, path.stem))]
        root = self.path if self.members else self.reading.data_dir or self.path.parent
        return summed([*others, *((NOT_NAMED, root / os.path.relpath(path, root)) for path in unnamed)], root)

    @property
    def _members(self) -> tuple[Member, ...]:
        return self.members or (Member(self.path),)

    @cached_property
    def _read(self) -> list[TableRows]:
        parts = [member.part or part_in(member.path.name) for member in self._members]
        return [
            table_rows.read(member.path, self.reading, True, part)
            for member, part in zip(self._members, parts, strict=True)
        ]


def find(folder: Path, reading: Reading = AS_FOUND) -> Table | None:
    """Return the tables of the pictures in `folder` and, in folders for parts, those called `metadata`, as one source.

    Of several tables those are read whose names stand for different parts, or else the one called `metadata` or
    `train`. A table that names no labels or no pictures that are there is none.

    Raises:
        DatasetError: several tables may be meant.
    """
    if not folder.is_dir():
        return None
    places = [folder, *(below for below in sorted(folder.iterdir()) if part_in(below.name) and below.is_dir())]
    candidates = [file for place in places for file in _tables_in(place) if place is folder or _is_metadata(file)]
    members, unused = [], []
    for path in candidates:
        part = _named_part(path, folder, reading) or part_in(path.parent.name if _is_metadata(path) else path.name)
        try:
            table_rows.probe(path, reading, part)
        except DatasetError:
            unused.append((path, "names no pictures with labels, and is not read"))
        else:
            members.append(Member(path, part))
    if not members:
        return None
    used = _chosen(folder, [member for member in members if member.part != "ignore"])
    unused += [(member.path, "is not read") for member in members if member.path not in {one.path for one in used}]
    return Table(folder, reading, tuple(used), tuple(unused))


def _chosen(folder: Path, members: Sequence[Member]) -> Sequence[Member]:
    """Return the tables that are read; raise DatasetError if that cannot be decided."""
    parted = [member for member in members if member.part]
    if len({member.part for member in parted}) == len(parted) > 1:
        return parted
    metadata = [member for member in members if _is_metadata(member.path)]
    for usual in (metadata, [member for member in members if member.part == "train"], members):
        if len(usual) == 1:
            return [Member(usual[0].path)]  # all rows are of one part, whatever its name
    names = ", ".join(shown(member.path) for member in members)
    raise DatasetError(
        f"{shown(folder)}: several tables name pictures and labels ({names}); give the path of one as the data set, or "
        f"name the part of each, for example --parts train={members[0].path.stem},ignore={members[-1].path.stem}"
    )


def _pictures_in(folder: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return [path for path in sorted(folder.iterdir()) if path.suffix.lower() in PICTURES]
    return []


def _tables_in(folder: Path) -> list[Path]:
    named = sorted(path for path in folder.iterdir() if suffix(path) in FOUND and not path.name.startswith("."))
    return [path for path in named if "submission" not in path.name.lower() and path.is_file()]


def _is_metadata(path: Path) -> bool:
    return path.name.lower().startswith(f"{HUGGING_FACE}.")


def _named_part(path: Path, folder: Path, reading: Reading) -> str | None:
    names = Member(path).names(folder)
    return next((part for part, name in reading.parts if name in names), None)


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
