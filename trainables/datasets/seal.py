"""The test set, set apart, and the other rows that show one of its images."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from trainables.datasets.choice import SEARCH_ROWS, TEST_ROWS, refuse_small
from trainables.datasets.source import Decoded
from trainables.datasets.stored_images import StoredImages
from trainables.errors import DatasetError, counted
from trainables.strata import Rows, apportion, class_counts, shuffled_by_class

TEST_SHARE = 0.2
TEST_SEED = 0  # the same for every sweep, so that two sweeps are tested on the same rows


@dataclass(frozen=True, eq=False)
class Sealed:
    """A data set in two parts: the rows of `decoded` to search on and those to test on, both ascending.

    Rows of classes that were not chosen, whose label is -1, are in neither.
    """

    decoded: Decoded
    search: Rows
    test: Rows
    duplicates: Rows  # positions in `search` of images that are also test images, ascending
    official_test: bool


def seal(decoded: Decoded) -> Sealed:
    """Set the official test part apart or, where there is none, 20 % of the rows, stratified.

    Raises:
        DatasetError: there is only one class, a class has too few rows, or all rows are test rows.
    """
    if len(decoded.classes) < 2:
        raise DatasetError(f"only one class, {', '.join(decoded.classes)}; a classifier needs at least two")
    used = decoded.labels >= 0
    refuse_small(decoded.labels, decoded.classes, decoded.test)
    official = decoded.test is not None and bool(decoded.test[used].any())
    test = decoded.test if decoded.test is not None and official else _drawn_test(decoded, np.flatnonzero(used))
    search, tests = np.flatnonzero(used & ~test), np.flatnonzero(used & test)
    duplicates = _duplicates(StoredImages.of(decoded.images).digests(), search, tests)
    if duplicates.size:
        found = decoded.inventory
        found = replace(found, notes=(*found.notes, _described(duplicates, decoded.file_digests, search, tests)))
        decoded = replace(decoded, inventory=found)
    return Sealed(decoded, search, tests, duplicates, official)


def _drawn_test(decoded: Decoded, used: Rows) -> NDArray[np.bool_]:
    """Draw the test rows among those `used`: bool [N], `TEST_SHARE` of them, stratified, at least one of each class."""
    labels = decoded.labels[used]
    counts = class_counts(labels, len(decoded.classes))
    total = max(round(TEST_SHARE * len(labels)), len(counts))
    shares = apportion(total, counts, least=np.full_like(counts, TEST_ROWS), most=counts - SEARCH_ROWS)
    orders = shuffled_by_class(labels, len(counts), TEST_SEED)
    test = np.zeros(len(decoded.labels), dtype=np.bool_)
    test[used[np.concatenate([rows[:n] for rows, n in zip(orders, shares, strict=True)])]] = True
    return test


def _duplicates(digests: NDArray[np.void], search: Rows, test: Rows) -> Rows:
    """Return the positions in `search` of rows whose image is also that of a row in `test`."""
    tested = {digest.tobytes() for digest in digests[test]}
    return np.array([place for place, row in enumerate(search) if digests[row].tobytes() in tested], dtype=np.int64)


def _described(duplicates: Rows, files: NDArray[np.void] | None, search: Rows, test: Rows) -> str:
    """Return a note about the duplicates, which says how many are copies of a file; `files` has a digest a row."""
    look = "looks" if len(duplicates) == 1 else "look"
    note = f"{counted(len(duplicates), 'picture')} outside the test set {look} like one in it, as stored"
    if files is None:
        return note
    same = len(_duplicates(files, search[duplicates], test))
    return f"{note}; {'none' if not same else f'{same:,}'} of them {'is' if same < 2 else 'are'} the same file"
