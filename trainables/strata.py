"""Rows drawn class by class with a seed, for the test set, the validation set, the pool and `--subset`.

scikit-learn's splitters are not used: their import takes about a second, and neither their order nor that of numpy's
`Generator.permutation` is promised to stay. The raw words of a numpy bit generator are (NEP 19).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
"""Row numbers, or how many rows each class has."""


def shuffled_by_class(labels: Rows, classes: int, seed: int) -> list[Rows]:
    """Return the rows of each class, int64, in a random order that `seed` (not negative) fixes.

    The same share of the beginning of every class is a stratified draw, and a larger share contains a smaller one.
    """
    by_class = np.argsort(labels, kind="stable")
    ends = np.cumsum(class_counts(labels, classes))[:-1]
    return [_shuffled(rows, (seed, label)) for label, rows in enumerate(np.split(by_class, ends))]


def _shuffled(rows: Rows, seed: Sequence[int]) -> Rows:
    words: NDArray[np.uint64] = np.random.PCG64(seed).random_raw(len(rows))
    return rows[np.argsort(words, kind="stable")]


def class_counts(labels: Rows, classes: int) -> Rows:
    """Return how many rows each class has, int64 [classes]."""
    return np.bincount(labels, minlength=classes).astype(np.int64)


def apportion(total: int, counts: Rows, least: Rows, most: Rows) -> Rows:
    """Divide `total` in proportion to `counts`, by largest remainder: int64 of the shape of `counts`.

    The shares add up to `total`, and each stays within its `least` and `most`. That needs
    `least <= most <= counts` and `least.sum() <= total <= most.sum()`.
    """
    quotas = np.clip(_rate(total, counts, least, most) * counts, least, most)
    shares: Rows = np.floor(quotas + 1e-6).astype(np.int64)  # the rate is exact to some 1e-15 only
    remainders = np.round(quotas - shares, 6)
    shares[np.argsort(-remainders, kind="stable")[: total - shares.sum()]] += 1
    return shares


def _rate(total: int, counts: Rows, least: Rows, most: Rows) -> float:
    """Return the rate in [0, 1] at which the bounded quotas add up to `total`, by bisection: they grow with it."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        enough = np.clip(middle * counts, least, most).sum() >= total
        low, high = (low, middle) if enough else (middle, high)
    return high


def interleaved(groups: Sequence[Rows]) -> Rows:
    """Merge the groups, each in its own order, such that every prefix holds about the same share of each."""
    places = [(np.arange(len(group)) + 0.5) / max(len(group), 1) for group in groups]
    order: Rows = np.concatenate(groups)[np.argsort(np.concatenate(places), kind="stable")]
    return order


def slices(groups: Sequence[Rows], starts: Rows, ends: Rows) -> Rows:
    """Return the rows from `starts[c]` to before `ends[c]` of each class c's group, one class after another."""
    return np.concatenate([group[start:end] for group, start, end in zip(groups, starts, ends, strict=True)])
