"""The rows of a data set before they are decoded: where each picture is, its label, its part, and what was left out."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from trainables.datasets import pictures
from trainables.datasets.choice import choose, refuse_small, refuse_unknown
from trainables.datasets.inventory import EXAMPLES, LeftOut, counts_of
from trainables.datasets.reading import Reading
from trainables.datasets.source import Decoded, Progress
from trainables.errors import DatasetError, counted, shown

BATCH = 16  # files that a thread reads at a time

Place = tuple[str, int | None]
"""The file that holds an image and, if it is a table or a table names the file, the row, counted from 1."""

Mask = NDArray[np.bool_]


class Images(Protocol):
    """Encoded images in their order."""

    def __len__(self) -> int: ...

    def places(self) -> Iterator[Place]:
        """Yield the place of each image."""

    def batches(self, rows: Mask | None = None) -> Iterator[pictures.Batch]:
        """Yield the encoded images, or only those of `rows`, bool [N]; raise DatasetError where a file is damaged."""


@dataclass(frozen=True)
class Files:
    """Picture files; if a table names them, with its path and the number that each row has there, from 1."""

    paths: Sequence[Path]
    table: str = ""
    numbers: Sequence[int] | None = None  # None: the table's rows in their order

    def __len__(self) -> int:
        return len(self.paths)

    def places(self) -> Iterator[Place]:
        numbers: Sequence[int | None] = self._numbers() if self.table else [None] * len(self)
        return zip(map(str, self.paths), numbers, strict=True)

    def batches(self, rows: Mask | None = None) -> Iterator[pictures.Batch]:
        paths, numbers = self.paths, self._numbers()
        if rows is not None:
            paths, numbers = list(compress(paths, rows)), list(compress(numbers, rows))
        for start in range(0, len(paths), BATCH):
            stop = start + BATCH
            yield pictures.Batch(self.table, numbers[start:stop], paths[start:stop])

    def _numbers(self) -> Sequence[int]:
        return range(1, len(self) + 1) if self.numbers is None else self.numbers


@dataclass(frozen=True)
class Joined:
    """The images of several files or folders, one after another."""

    members: Sequence[Images]

    def __len__(self) -> int:
        return sum(map(len, self.members))

    def places(self) -> Iterator[Place]:
        for member in self.members:
            yield from member.places()

    def batches(self, rows: Mask | None = None) -> Iterator[pictures.Batch]:
        start = 0
        for member in self.members:
            stop = start + len(member)
            yield from member.batches(None if rows is None else rows[start:stop])
            start = stop


@dataclass(frozen=True, eq=False)
class Listing:
    """The rows of a data set before they are decoded, as a layout of files shows them.

    Attributes:
        images: the encoded picture of each row; a row that has none (a missing file, a pipe) is found when it is read.
        labels: the text of each row's label, as written; None: it has none.
        parts: the part of each row: `train`, `val` or `test`; empty if the data set has no parts.
        layout: how the files were read, for a message: "class folders in the parts train/ and test/".
        left_out: what is no row, so far.
        classes: the order of the classes, which need not all have rows; None: that of their names.
    """

    images: Images
    labels: Sequence[str | None]
    parts: Sequence[str] = ()
    layout: str = ""
    left_out: tuple[LeftOut, ...] = ()
    classes: tuple[str, ...] | None = None

    @property
    def test(self) -> Mask | None:
        """The rows of the official test part: bool [N], or None where there is none."""
        test = np.array([part == "test" for part in self.parts], dtype=np.bool_)
        return test if test.any() else None

    def numbered(self) -> tuple[NDArray[np.int64], tuple[str, ...]]:
        """Return each row's class as a number, int64 [N], -1 without a label, and the classes."""
        classes = self.classes or tuple(sorted({label for label in self.labels if label is not None}))
        number: dict[str | None, int] = {name: n for n, name in enumerate(classes)}
        return np.array([number.get(label, -1) for label in self.labels], dtype=np.int64), classes


def decode(listing: Listing, reading: Reading, progress: Progress, scratch: Path) -> Decoded:
    """Decode the rows of a listing that the reading chooses, and complete the inventory.

    Args:
        scratch: as in `Source.decode`.

    Raises:
        DatasetError: rows have no label, the reading names classes that there are not, or classes have too few rows.
        OSError: the disk of `scratch` is full.
    """
    if not len(listing.images):
        raise DatasetError("there are no images")
    labels, classes = listing.numbered()
    refuse_unknown(classes, reading)
    left_out = [*listing.left_out, *_without_label(listing, labels, reading)]
    labels, classes, unchosen, notes = choose(labels, classes, listing.test, reading)
    refuse_small(labels, classes, listing.test)
    rows = labels >= 0
    test = None if listing.test is None else listing.test[rows]
    read = pictures.decode(lambda: listing.images.batches(rows), int(rows.sum()), progress, reading, scratch)
    decoded = pictures.finish(read, labels[rows], classes, test)
    parts = np.array(listing.parts, dtype=object)[rows][read.kept] if len(listing.parts) else None
    inventory = dataclasses.replace(
        decoded.inventory,
        layout=listing.layout,
        parts=counts_of(decoded.labels, classes, parts),
        left_out=(*left_out, *unchosen, *unreadable(decoded.unreadable)),
        notes=(*decoded.inventory.notes, *notes, *_copies(listing, decoded, np.flatnonzero(rows)[read.kept])),
    )
    return dataclasses.replace(decoded, inventory=inventory)


def unreadable(rows: Sequence[str]) -> tuple[LeftOut, ...]:
    """Return what is left out because it cannot be read: `rows` have the place of each and why."""
    return (LeftOut("cannot be read", len(rows), tuple(rows[:EXAMPLES])),) if rows else ()


def _copies(listing: Listing, decoded: Decoded, rows: NDArray[np.int64]) -> list[str]:
    """Return a note if files are there more than once; `rows` are the listing's rows that were decoded."""
    if decoded.file_digests is None:
        return []
    _, first, group = np.unique(decoded.file_digests, return_index=True, return_inverse=True)
    original = first[group]
    again = np.flatnonzero(original != np.arange(len(rows)))
    if not again.size:
        return []
    note = f"{counted(again.size, 'picture is', 'pictures are')} there a second time, as the same file"
    other = again[decoded.labels[again] != decoded.labels[original[again]]]
    if not other.size:
        return [note]
    pair = rows[[original[other[0]], other[0]]].tolist()
    files = [place[0] for row, place in enumerate(listing.images.places()) if row in pair]
    above = os.path.commonpath([Path(file).parent for file in files])
    names = ", ".join(shown(os.path.relpath(file, above)) for file in files)
    return [f"{note}; {other.size:,} of them with another label ({names}{', …' if other.size > 1 else ''})"]


def _without_label(listing: Listing, labels: NDArray[np.int64], reading: Reading) -> list[LeftOut]:
    """Return what is left out for want of a label; raise DatasetError if that is not what the reading asks for."""
    missing = np.flatnonzero(labels < 0)
    if not missing.size:
        return []
    wanted = set(missing[:EXAMPLES].tolist())
    places = [_in_words(place) for row, place in enumerate(listing.images.places()) if row in wanted]
    if reading.on_unlabelled == "fail":
        images = counted(missing.size, "image has", "images have")
        raise DatasetError(
            f"{images} no label ({', '.join(places)}{' …' if missing.size > EXAMPLES else ''}); give "
            f"{'it' if missing.size == 1 else 'each'} one, or leave {'it' if missing.size == 1 else 'them'} out with "
            "--on-unlabelled skip"
        )
    return [LeftOut("no label", missing.size, tuple(places))]


def _in_words(place: Place) -> str:
    file, row = place
    return shown(file) if row is None else f"{shown(file)}, row {row}"
