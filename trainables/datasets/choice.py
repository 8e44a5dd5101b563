"""The classes that a reading chooses, and those that have enough rows to be used."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from trainables.datasets.inventory import EXAMPLES, LeftOut, counts_of
from trainables.datasets.reading import TOO_FEW, Reading
from trainables.datasets.source import Decoded
from trainables.errors import DatasetError, listed, shown, suggestion
from trainables.strata import class_counts

SEARCH_ROWS, TEST_ROWS = 2, 1
"""Rows that every class needs at least: to train and to validate on, and, without an official test part, to test on."""

Labels = NDArray[np.int64]
Mask = NDArray[np.bool_]
Chosen = tuple[Labels, tuple[str, ...], tuple[LeftOut, ...], tuple[str, ...]]


def choose(labels: Labels, classes: tuple[str, ...], test: Mask | None, reading: Reading) -> Chosen:
    """Return the labels of the chosen classes, these classes, what is left out, and notes for the inventory.

    Args:
        labels: int64 [N], indices into `classes`; -1 for rows that are left out already, as in what is returned.
        test: bool [N], True for the official test part; None where there is none.

    Raises:
        DatasetError: fewer than two classes have as many rows as the reading asks for.
    """
    named = np.array([not reading.classes or name in reading.classes for name in classes], dtype=np.bool_)
    counts = _counts(labels, len(classes))
    used, small, few = counts > 0, np.zeros_like(named), "too few rows"
    if reading.min_rows == TOO_FEW:
        small = _too_small(labels, len(classes), test)
    elif reading.min_rows is not None:
        small, few = counts < reading.min_rows, f"fewer than {reading.min_rows:,} rows"
        _refuse_high(reading.min_rows, counts[named & used])
    left_out = (
        *_left_out("class not named by --classes", classes, counts, used & ~named),
        *_left_out(f"class with {few}", classes, counts, used & named & small),
    )
    unused = [name for name, has_rows in zip(classes, used, strict=True) if not has_rows]
    notes = (f"classes without a row: {listed(unused)}",) if unused else ()
    kept = used & named & ~small
    numbers = np.append(np.where(kept, np.cumsum(kept) - 1, -1), -1)  # the last one is the number of label -1
    chosen = tuple(name for name, keep in zip(classes, kept, strict=True) if keep)
    return numbers[labels].astype(np.int64), chosen, left_out, notes


def _refuse_high(least: int, counts: NDArray[np.int64]) -> None:
    """Raise DatasetError if `least` rows leave less than two of several classes with these numbers of rows."""
    most = np.sort(counts)[::-1]
    if len(most) > 1 and most[1] < least:
        what = "no class has so many" if most[0] < least else "only one class has so many"
        raise DatasetError(f"--min-rows {least}: {what} (largest: {most[0]:,} and {most[1]:,})")


def refuse_unknown(classes: tuple[str, ...], reading: Reading) -> None:
    """Raise DatasetError if the reading names a class that there is not."""
    unknown = [name for name in reading.classes if name not in classes]
    if unknown:
        raise DatasetError(
            *(f"--classes: there is no class {shown(name)!r}{suggestion(name, classes)}" for name in unknown)
        )


def choose_rows(decoded: Decoded, reading: Reading) -> Decoded:
    """Return `decoded` with label -1 for the rows that the reading leaves out, and that said in its inventory.

    For sources that decode all they have, and for classes that have too few rows since some could not be read.

    Raises:
        DatasetError: as `refuse_unknown`.
    """
    if not decoded.inventory.parts:
        refuse_unknown(decoded.classes, reading)
    labels, classes, left_out, notes = choose(decoded.labels, decoded.classes, decoded.test, reading)
    found, test = decoded.inventory, decoded.test
    parts = found.parts
    if not parts or left_out:
        part_of = None if test is None else np.where(test, "test", "train").astype(object)
        kept = labels >= 0
        parts = counts_of(labels[kept], classes, None if part_of is None else part_of[kept])
    notes = (*found.notes, *notes, *class_notes(labels, classes, test))
    found = replace(found, parts=parts, left_out=(*found.left_out, *left_out), notes=notes)
    return replace(decoded, labels=labels, classes=classes, inventory=found)


def refuse_small(labels: Labels, classes: tuple[str, ...], test: Mask | None) -> None:
    """Raise DatasetError if classes have too few rows; `labels` and `test` as in `choose`."""
    used = labels >= 0
    if test is not None and used.any() and test[used].all():
        raise DatasetError(f"all {used.sum():,} rows are test rows; add others to train on")
    small = np.flatnonzero(_too_small(labels, len(classes), test))
    if not small.size:
        return
    counts = _trained(labels, len(classes), test)
    found = [f"{shown(classes[number])!r} has {counts[number]}" for number in small]
    official = test is not None and test.any()
    need = f"{SEARCH_ROWS} outside the test part" if official else f"{SEARCH_ROWS + TEST_ROWS}"
    purpose = "train and validate on" if official else "train, validate and test on"
    raise DatasetError(
        f"too few rows: {', '.join(found[:10])}{' …' if len(found) > 10 else ''}; every class needs at least {need} "
        f"(to {purpose}): add images, leave these classes out with --min-rows drop, or name those to use with --classes"
    )


def class_notes(labels: Labels, classes: tuple[str, ...], test: Mask | None) -> tuple[str, ...]:
    """Return a note if the official test part has no row of some classes."""
    if test is None or not test.any():
        return ()
    untested = np.flatnonzero(_counts(labels[test], len(classes)) == 0)
    return (f"the test part has no row of {listed([classes[n] for n in untested])}",) if untested.size else ()


def _too_small(labels: Labels, classes: int, test: Mask | None) -> Mask:
    """Return which classes have too few rows: bool [classes]."""
    needed = SEARCH_ROWS if test is not None and test.any() else SEARCH_ROWS + TEST_ROWS
    small: Mask = _trained(labels, classes, test) < needed
    return small


def _trained(labels: Labels, classes: int, test: Mask | None) -> NDArray[np.int64]:
    """Return the number of rows of each class that are not of the official test part."""
    return _counts(labels if test is None else labels[~test], classes)


def _counts(labels: Labels, classes: int) -> NDArray[np.int64]:
    return class_counts(labels[labels >= 0], classes)


def _left_out(reason: str, classes: tuple[str, ...], counts: NDArray[np.int64], which: Mask) -> list[LeftOut]:
    """Return the rows of some classes as left out, with the names of the largest of these as examples."""
    rows = int(counts[which].sum())
    largest = sorted(np.flatnonzero(which), key=lambda number: -counts[number])[:EXAMPLES]
    return [LeftOut(reason, rows, tuple(shown(classes[number]) for number in largest))] if rows else []
