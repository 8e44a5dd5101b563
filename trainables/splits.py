"""The rows that a sweep is scored on (the core), may train on (the pool), and that a trial trains on.

All are slices of one random order per class (see `strata`): the subset is its beginning, the core the
beginning of the subset, the pool the rest. So a larger train fraction contains a smaller one, and subsets
share all the rows they can. The order depends on the sweep's seed, never on a trial's.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.config import ConfigError, TrialConfig
from trainables.datasets import TEST_SEED, Dataset, DatasetError
from trainables.strata import Rows, apportion, class_counts, interleaved, shuffled_by_class

CORE_SHARE = 0.2
CORE_ROWS_A_CLASS = 10  # at least, where a class has twice that
CORE_ROWS = 10_000  # at most: the standard error of an accuracy is then below half a percent

_CHUNK_ROWS = 256  # summed at a time: small beside the images, and 255² of each fit into 32 bits


@dataclass(frozen=True, eq=False)
class Split:
    """The rows of a data set that a sweep uses: no duplicates of test rows, none outside the subset."""

    core: Rows  # ascending
    pool: Rows  # in the order in which trials take their fraction; every prefix is about stratified


@dataclass(frozen=True, eq=False)
class SearchData:
    """All that a trial may see. Plain arrays, which Ray shares between processes without copies."""

    images: NDArray[np.uint8]  # [N, H, W, C]
    labels: Rows  # [N]
    classes: tuple[str, ...]
    core: Rows  # as in `Split`, but rows of `images`
    pool: Rows
    mean: NDArray[np.float32]  # [C], of the pool's pixels scaled to 0..1
    std: NDArray[np.float32]  # [C]; 1 for a channel that never varies, since it is divided by
    fingerprint: str  # hex; differs when any of the above does


def split(dataset: Dataset, subset: int | None = None, seed: int = 0) -> Split:
    """Core and pool of `dataset`, or of `subset` stratified rows of it.

    Raises:
        DatasetError: when a class has too few rows to train and to validate on.
        ConfigError: when `subset` is more than the rows there are or less than two a class.
    """
    usable = np.setdiff1d(np.arange(len(dataset.labels)), dataset.duplicates)
    orders = shuffled_by_class(dataset.labels[usable], len(dataset.classes), seed)
    rows = [usable[order] for order in orders]
    counts = np.array([len(group) for group in rows], dtype=np.int64)
    _check_counts(dataset, counts)
    if subset is not None:
        _check_subset(subset, counts)
        counts = apportion(subset, counts, least=np.full_like(counts, 2), most=counts)
    core = _core_counts(counts)
    return Split(
        core=np.sort(np.concatenate([group[:n] for group, n in zip(rows, core, strict=True)])),
        pool=interleaved([group[n:end] for group, n, end in zip(rows, core, counts, strict=True)]),
    )


def search_data(dataset: Dataset, subset: int | None = None, seed: int = 0) -> SearchData:
    """What the trials of a sweep share: `dataset`'s arrays as they are, or copies of the rows of the subset.

    Raises:
        DatasetError, ConfigError: as `split`.
    """
    chosen = split(dataset, subset, seed)
    # A plain view: arrays of a subclass, as numpy's memmap is, are copied when they are pickled.
    images, labels, core, pool = np.asarray(dataset.images), dataset.labels, chosen.core, chosen.pool
    if subset is not None:
        kept = np.sort(np.concatenate([core, pool]))
        images, labels = images[kept], labels[kept]
        core, pool = np.searchsorted(kept, core), np.searchsorted(kept, pool)
    mean, std = _mean_and_std(images, pool)
    identity = f"{dataset.fingerprint} {rows_fingerprint(chosen.core)} {rows_fingerprint(chosen.pool)}"
    fingerprint = hashlib.sha256(identity.encode()).hexdigest()
    return SearchData(images, labels, dataset.classes, core, pool, mean, std, fingerprint)


def train_rows(data: SearchData, config: TrialConfig) -> Rows:
    """The rows that a trial trains on, in the pool's order: the first ceil(f·n_c) of each class's n_c rows.

    n_c is what the configuration's imbalance leaves of the class: `removed_share` taken off the `removed_classes`, and
    of class c of C a share of `long_tail`^(c / (C - 1)) (Cui et al. 2019, arXiv 1901.05555); one row at least.

    Raises:
        ConfigError: `removed_classes` names a class that there is not.
    """
    labels = data.labels[data.pool]
    counts = class_counts(labels, len(data.classes))
    kept = counts - np.rint(config.removed_share * counts * _named_classes(config, len(counts))).astype(np.int64)
    tail = config.long_tail ** (np.arange(len(counts)) / max(len(counts) - 1, 1))
    kept = np.maximum(np.rint(kept * tail).astype(np.int64), np.minimum(counts, 1))
    exact = Fraction(str(config.train_fraction))  # 0.55 of 100 rows is 55; in floating point its ceiling is 56
    quotas = np.array([math.ceil(exact * int(n)) for n in kept])
    by_class = np.argsort(labels, kind="stable")
    rank = np.empty_like(labels)
    rank[by_class] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return data.pool[rank < quotas[labels]]


def _named_classes(config: TrialConfig, classes: int) -> NDArray[np.bool_]:
    """Which classes `removed_classes` names, bool [classes]."""
    numbers = [int(number) for number in config.removed_classes.split(",") if number]
    if any(number >= classes for number in numbers):
        raise ConfigError([f"removed_classes={config.removed_classes}: there are {classes} classes, counted from 0"])
    return np.isin(np.arange(classes), numbers)


def describe(dataset: Dataset, subset: int | None = None, seed: int = 0) -> dict[str, Any]:
    """The split for a sweep's record: with the same data, equal records mean equal rows.

    Raises:
        DatasetError, ConfigError: as `split`.
    """
    chosen = split(dataset, subset, seed)
    return {
        "seed": seed,
        "test_seed": None if dataset.official_test else TEST_SEED,
        "official_test": dataset.official_test,
        "subset": subset,
        "test_rows": dataset.test_rows,
        "search_rows": len(dataset.labels),
        "duplicate_rows": len(dataset.duplicates),
        "unreadable_rows": len(dataset.unreadable),
        "unreadable": list(dataset.unreadable),
        "stored_side": dataset.side,
        "core_rows": len(chosen.core),
        "pool_rows": len(chosen.pool),
        "data_fingerprint": dataset.fingerprint,
        "test_fingerprint": dataset.test_fingerprint,
        "core_fingerprint": rows_fingerprint(chosen.core),
        "pool_fingerprint": rows_fingerprint(chosen.pool),
    }


def rows_fingerprint(rows: Rows) -> str:
    """64 hex digits of the SHA-256 over the row numbers, in their order, as little-endian int64."""
    return hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()


def _check_counts(dataset: Dataset, counts: Rows) -> None:
    few = [f"{name!r} has {n}" for name, n in zip(dataset.classes, counts, strict=True) if n < 2]
    if few:
        raise DatasetError(
            f"too few rows in {dataset.name}: {', '.join(few[:10])}{' …' if len(few) > 10 else ''}; "
            "every class needs at least 2 (to train and to validate on), images of the test set not counted: "
            "add images or leave these classes out"
        )


def _check_subset(subset: int, counts: Rows) -> None:
    least, most = 2 * len(counts), counts.sum()
    if not least <= subset <= most:
        allowed = f"from {least}, two rows a class, to {most}, all that are not test rows"
        raise ConfigError([f"subset={subset} is not allowed (allowed: {allowed})"])


def _core_counts(counts: Rows) -> Rows:
    """How many rows the core takes of each class, int64 [classes]; at least one, whatever the limits say."""
    least = np.minimum(max(1, min(CORE_ROWS_A_CLASS, CORE_ROWS // len(counts))), counts // 2)
    total = max(min(round(CORE_SHARE * counts.sum()), CORE_ROWS), least.sum())
    return apportion(int(total), counts, least, most=counts // 2)


def _mean_and_std(images: NDArray[np.uint8], rows: Rows) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Exact but for the last rounding, whatever the number of rows: sums are of integers."""
    sums = squares = np.zeros(images.shape[1:], dtype=np.uint64)
    rows = np.sort(rows)  # in the order of the disk
    for start in range(0, len(rows), _CHUNK_ROWS):
        chunk = images[rows[start : start + _CHUNK_ROWS]]
        sums = sums + chunk.sum(axis=0, dtype=np.uint32)
        squares = squares + np.square(chunk, dtype=np.uint16).sum(axis=0, dtype=np.uint32)
    sums, squares = sums.sum(axis=(0, 1)), squares.sum(axis=(0, 1))
    pixels = len(rows) * images[0, ..., 0].size
    mean = sums / pixels
    variance = np.maximum(squares / pixels - mean**2, 0)
    std = np.where(variance > 0, np.sqrt(variance), 255)
    return (mean / 255).astype(np.float32), (std / 255).astype(np.float32)
