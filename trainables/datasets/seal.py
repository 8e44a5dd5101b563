"""Sets the test set apart, and finds the rows to search on that it would leak into."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainables.datasets.source import DatasetError, Decoded, Pixels
from trainables.strata import Rows, apportion, class_counts, shuffled_by_class

TEST_SHARE = 0.2
TEST_SEED = 0  # the same for every sweep: test figures of two sweeps are of the same rows


@dataclass(frozen=True, eq=False)
class Sealed:
    """A data set in two parts; shapes as in `Decoded`, the source's order of rows kept in both."""

    images: Pixels
    labels: Rows
    test_images: Pixels
    test_labels: Rows
    classes: tuple[str, ...]
    duplicates: Rows  # rows to search on whose image is also a test image, ascending
    official_test: bool
    unreadable: tuple[str, ...]
    side: int | None


def seal(decoded: Decoded) -> Sealed:
    """The official test part apart, or 20 % of the rows, stratified, where there is none.

    Raises:
        DatasetError: when there is but one class, a class has too few rows, or all rows are test rows.
    """
    if len(decoded.classes) < 2:
        raise DatasetError(f"only one class, {decoded.classes}; a classifier needs at least two")
    official = decoded.test is not None and bool(decoded.test.any())
    test = decoded.test if decoded.test is not None and official else _drawn_test(decoded)
    if test.all():
        raise DatasetError(f"all {len(test)} rows are test rows; there must be others to train on")
    images, test_images = decoded.images[~test], decoded.images[test]
    return Sealed(
        images=images,
        labels=decoded.labels[~test],
        test_images=test_images,
        test_labels=decoded.labels[test],
        classes=decoded.classes,
        duplicates=_rows_in(images, test_images),
        official_test=official,
        unreadable=decoded.unreadable,
        side=decoded.side,
    )


def _drawn_test(decoded: Decoded) -> NDArray[np.bool_]:
    counts = class_counts(decoded.labels, len(decoded.classes))
    few = [f"{name!r} has {n}" for name, n in zip(decoded.classes, counts, strict=True) if n < 3]
    if few:
        raise DatasetError(
            f"too few rows: {', '.join(few[:10])}{' …' if len(few) > 10 else ''}; every class needs "
            "at least 3 (to train, validate and test on): add images or leave these classes out"
        )
    total = max(round(TEST_SHARE * len(decoded.labels)), len(counts))
    shares = apportion(total, counts, least=np.ones_like(counts), most=counts - 2)
    orders = shuffled_by_class(decoded.labels, len(counts), TEST_SEED)
    test = np.zeros(len(decoded.labels), dtype=np.bool_)
    test[np.concatenate([rows[:n] for rows, n in zip(orders, shares, strict=True)])] = True
    return test


def _rows_in(images: Pixels, others: Pixels) -> Rows:
    """The rows of `images` whose content also stands in `others`."""
    known = {_content(image) for image in others}
    return np.array([row for row, image in enumerate(images) if _content(image) in known], dtype=np.int64)


def _content(image: Pixels) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()
