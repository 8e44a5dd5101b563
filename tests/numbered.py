"""Data sets whose images show their row number and class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from trainables.datasets import Dataset
from trainables.datasets.inventory import Inventory
from trainables.splits import SearchData
from trainables.strata import Rows, class_counts

SEEDS = st.integers(0, 2**63 - 1)


def dataset(counts: list[int], duplicates: list[int] | None = None) -> Dataset:
    """Return a data set with so many rows a class, in a mixed order, and images that show their row number."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    images = np.zeros((len(labels), 2, 2, 3), dtype=np.uint8)
    images[..., 0], images[..., 1] = (np.arange(len(labels)) % 256)[:, None, None], labels[:, None, None]
    return Dataset(
        name="made",
        classes=tuple(f"class {number}" for number in range(len(counts))),
        images=images,
        labels=labels.astype(np.int64),
        duplicates=np.array(duplicates or [], dtype=np.int64),
        fingerprint="0" * 64,
        test_rows=5,
        test_fingerprint="1" * 64,
        official_test=True,
        origin="a test",
        folder=Path("nowhere"),
        unreadable=(),
        side=None,
        inventory=Inventory(),
    )


DATASETS = st.lists(st.integers(2, 120), min_size=1, max_size=8).map(dataset)


def counts_of(data: SearchData | Dataset, rows: Rows) -> Rows:
    """Return how many of `rows` each class has, int64 [classes]."""
    return class_counts(data.labels[rows], len(data.classes))
