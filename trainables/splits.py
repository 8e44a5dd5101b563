"""The rows of a data set that a sweep uses: the validation set, and the pool that trials may train on.

All are slices of one random order per class (see `strata`): the subset is its beginning, the validation set the
beginning of the subset, the pool the rest. So a larger train fraction contains a smaller one, and subsets share as many
rows as they can. The order depends on the sweep's seed, never on a trial's.

Which of these rows one trial uses is decided in `trial_rows`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.datasets import TEST_SEED, Dataset, DatasetError, open_test
from trainables.datasets.decoded_folder import fingerprint
from trainables.datasets.reading import SHORT_SIDE
from trainables.datasets.source import WHITE, Pixels
from trainables.datasets.stored_images import StoredImages
from trainables.errors import ConfigError
from trainables.strata import Rows, apportion, class_counts, interleaved, shuffled_by_class, slices

VALIDATION_SHARE = 0.2
FOLDS = 5  # so that a fold has the share of a validation set
FEW_ROWS, FEW_ROWS_OF_A_CLASS = 200, 10  # in a validation set: with fewer, trials are scored by folds
VALIDATION_ROWS = 10_000  # at most: the standard error of an accuracy is then below half a percent


@dataclass(frozen=True)
class Scoring:
    """The rule that says which rows trials are scored on."""

    folds: int | None = 1  # 1: a fixed validation set; None: as many as `count_folds` finds right
    least: int = 1  # rows of each class in the validation set; 10 in sweeps of former versions


@dataclass(frozen=True, eq=False)
class Split:
    """The rows of a data set that a sweep uses: rows of its subset that show no image of the test set."""

    validation: Rows  # ascending
    pool: Rows  # in the order in which trials take their fraction; every prefix is about stratified
    folds: tuple[Rows, ...] = ()  # parts of `validation`, each scored by a model trained on the rest of the pool


@dataclass(frozen=True, eq=False)
class SearchData:
    """The data that a trial may use: arrays, which Ray shares between processes without copies, and images in files."""

    images: Pixels | StoredImages  # [N, H, W, C]
    labels: Rows  # [N]
    classes: tuple[str, ...]
    validation: Rows  # as in `Split`, but rows of `images`
    pool: Rows
    mean: NDArray[np.float32]  # [C], of the pool's pixels scaled to 0..1
    std: NDArray[np.float32]  # [C]; 1 for a channel that never varies, since it is divided by
    fingerprint: str  # hex; differs if any of the above does
    test: Rows = field(default_factory=lambda: np.arange(0))  # rows of `images`; none while the test set is sealed
    external_test: Rows = field(default_factory=lambda: np.arange(0))  # rows of `images`: the external test set
    official_test: bool = False  # `test` is the data set's official test part, not drawn from its rows
    background: tuple[int, int, int] = WHITE  # behind transparent pictures, and around padded ones
    stored_side: int = SHORT_SIDE  # pixels; a picture whose shorter side is longer is scaled down to that
    folds: tuple[Rows, ...] = ()  # as in `Split`: with folds, `validation` and `pool` are the same rows


@lru_cache(maxsize=1)  # `search_data` and `describe` need the same
def split(dataset: Dataset, subset: int | None = None, seed: int = 0, scoring: Scoring = Scoring()) -> Split:
    """Split `dataset`, or `subset` stratified rows of it, into validation set and pool.

    With folds, all rows are in both: they are dealt to the folds like cards, class by class, so that folds and the
    classes in them differ by one row at most. A model that is scored on a fold trains on the other folds.

    Raises:
        DatasetError: a class has too few rows to train and to validate on.
        ConfigError: `subset` is less than two rows a class, or there are more folds than rows. A `subset` of more rows
            than there are means all of them.
    """
    usable = np.setdiff1d(np.arange(len(dataset.labels)), dataset.duplicates)
    orders = shuffled_by_class(dataset.labels[usable], len(dataset.classes), seed)
    rows = [usable[order] for order in orders]
    counts = np.array([len(group) for group in rows], dtype=np.int64)
    _check_counts(dataset, counts)
    if subset is not None:
        _check_subset(subset, counts)
        total = min(subset, int(counts.sum()))
        counts = apportion(total, counts, least=np.full_like(counts, 2), most=counts)
    folds = count_folds(counts, subset) if scoring.folds is None else scoring.folds
    if folds > counts.sum():
        most = counts.sum()
        raise ConfigError(
            f"folds={folds} is not allowed (allowed: at most {most}, the rows there are); "
            f"give --folds {most} or fewer, or leave it out"
        )
    if folds > 1:
        dealt = slices(rows, np.zeros_like(counts), counts)
        pool = interleaved([group[:end] for group, end in zip(rows, counts, strict=True)])
        return Split(np.sort(dealt), pool, tuple(np.sort(dealt[fold::folds]) for fold in range(folds)))
    validation = validation_counts(counts, scoring.least)
    return Split(
        validation=np.sort(slices(rows, np.zeros_like(counts), validation)),
        pool=interleaved([group[n:end] for group, n, end in zip(rows, validation, counts, strict=True)]),
    )


def search_data(
    dataset: Dataset,
    subset: int | None = None,
    seed: int = 0,
    opened: bool = False,
    external_test: tuple[Pixels | StoredImages, Rows] | None = None,
    scoring: Scoring = Scoring(),
) -> SearchData:
    """Return the data that the trials of a sweep share: rows of `dataset`, whose images stay in the cache's files.

    Args:
        subset: so many rows, stratified; test rows in the same proportion, at least one a class.
        opened: with the test rows, for splits that score on them or pool them with the others.
        external_test: images [M, H, W, C] and labels [M], as `load_external` returns them.
        scoring: which of the rows trials are scored on.

    Raises:
        DatasetError, ConfigError: from `split` and `open_test`.
    """
    chosen = split(dataset, subset, seed, scoring)
    images, labels = StoredImages.of(dataset.images), dataset.labels
    validation, pool, folds = chosen.validation, chosen.pool, list(chosen.folds)
    if _is_part(dataset, subset):
        kept = np.union1d(validation, pool)
        images, labels = images.select(kept), labels[kept]
        validation, pool, *folds = (np.searchsorted(kept, part) for part in (validation, pool, *folds))
    mean, std = mean_and_std(images, pool)
    tests = [_opened(dataset, subset, seed)] if opened else []
    external = [(StoredImages.of(external_test[0]), external_test[1])] if external_test else []
    all_images, all_labels = zip((images, labels), *tests, *external, strict=True)
    ends = np.cumsum([len(labels), *(sum(len(labels) for _, labels in part) for part in (tests, external))])
    return SearchData(
        StoredImages.joined(*all_images),
        np.concatenate(all_labels),
        dataset.classes,
        validation,
        pool,
        mean,
        std,
        _fingerprint(dataset, chosen, *tests, *external),
        test=np.arange(ends[0], ends[1]),
        external_test=np.arange(ends[1], ends[2]),
        official_test=dataset.official_test,
        background=dataset.background,
        stored_side=dataset.stored_side,
        folds=tuple(folds),
    )


def describe(
    dataset: Dataset,
    subset: int | None = None,
    seed: int = 0,
    opened: bool = False,
    external_test: tuple[Pixels | StoredImages, Rows] | None = None,
    scoring: Scoring = Scoring(),
) -> dict[str, Any]:
    """Return a record of what `search_data` makes of the same arguments: equal records mean equal rows.

    Raises:
        DatasetError, ConfigError: from `search_data`.
    """
    chosen = split(dataset, subset, seed, scoring)
    record = {
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
        "validation_rows": len(chosen.validation),
        "pool_rows": len(chosen.pool),
        "folds": max(len(chosen.folds), 1),
        "commonest_share": commonest_share(dataset.labels[chosen.validation]),
        "data_fingerprint": dataset.fingerprint,
        "test_fingerprint": dataset.test_fingerprint,
        "validation_fingerprint": rows_fingerprint(chosen.validation),
        "pool_fingerprint": rows_fingerprint(chosen.pool),
    }
    if dataset.side is not None or len(set(dataset.images.shape[1:3])) > 1:  # earlier versions had other rules for them
        record["pictures"] = "whole"
    added: dict[str, tuple[Pixels | StoredImages, Rows] | None] = {
        "opened": _opened(dataset, subset, seed) if opened else None,
        "external": external_test,
    }
    for name, part in added.items():
        if part is not None:
            record |= {f"{name}_rows": len(part[1]), f"{name}_fingerprint": fingerprint(*part, dataset.classes)}
    return record


def commonest_share(labels: Rows) -> float:
    """Return the share of the commonest one of `labels`, int64 [N]: the accuracy of always naming that class."""
    return float(np.bincount(labels).max() / len(labels))


def rows_fingerprint(rows: Rows) -> str:
    """Return 64 hex digits of the SHA-256 over the row numbers, in their order, as little-endian int64."""
    return hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()


def mean_and_std(images: Pixels | StoredImages, rows: Rows) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return mean and standard deviation [C] of the pixels of `rows`, scaled to 0..1; a deviation of 0 becomes 1.

    They are exact but for the last rounding, whatever the number of rows: sums are of integers, and are stored.
    """
    mean, variance = StoredImages.of(images).mean_and_variance(rows)
    std = np.where(variance > 0, np.sqrt(variance), 255)
    return (mean / 255).astype(np.float32), (std / 255).astype(np.float32)


def _check_counts(dataset: Dataset, counts: Rows) -> None:
    """Raise DatasetError naming the classes that have too few rows."""
    few = [f"{name!r} has {n}" for name, n in zip(dataset.classes, counts, strict=True) if n < 2]
    if few:
        raise DatasetError(
            f"too few rows in {dataset.name}: {', '.join(few[:10])}{' …' if len(few) > 10 else ''}; "
            "every class needs at least 2 (to train and to validate on), images of the test set not counted: "
            "add images or leave these classes out"
        )


def count_folds(counts: Rows, subset: int | None) -> int:
    """Return how many folds suit a data set with so many usable rows of each class, int64 [classes].

    It is `FOLDS`, or as many as there are rows, where the validation set would have too few rows, or some class of it
    while the whole has not many. A `subset` is for a quick look, and its score is made better by a larger one: it has a
    validation set.
    """
    rows = validation_counts(counts, least_of_each=1)
    few = rows.sum() < FEW_ROWS or (rows.min() < FEW_ROWS_OF_A_CLASS and rows.sum() < 2 * FEW_ROWS)
    return min(FOLDS, int(counts.sum())) if few and subset is None else 1


def _check_subset(subset: int, counts: Rows) -> None:
    """Raise ConfigError if the subset has less than two rows a class."""
    least = 2 * len(counts)
    if subset < least:
        raise ConfigError(f"subset={subset} is not allowed (allowed: at least {least}, two rows a class)")


def _is_part(dataset: Dataset, subset: int | None) -> bool:
    """Return whether `subset` is less than all usable rows."""
    return subset is not None and subset < len(dataset.labels) - len(dataset.duplicates)


@lru_cache(maxsize=1)
def _opened(dataset: Dataset, subset: int | None, seed: int) -> tuple[StoredImages, Rows]:
    """Return the test images [M, H, W, C] and labels [M]; with a subset, in its proportion and at least one a class."""
    images, labels = open_test(dataset)
    stored = StoredImages.of(images)
    if subset is None or not _is_part(dataset, subset):
        return stored, labels
    counts = class_counts(labels, len(dataset.classes))
    least = np.minimum(counts, 1)
    total = max(round(subset * len(labels) / len(dataset.labels)), int(least.sum()))
    orders = shuffled_by_class(labels, len(counts), seed)
    drawn = np.sort(slices(orders, np.zeros_like(counts), apportion(total, counts, least, counts)))
    return stored.select(drawn), labels[drawn]


def _fingerprint(dataset: Dataset, chosen: Split, *added: tuple[StoredImages, Rows]) -> str:
    """Return 64 hex digits that identify all of `SearchData`."""
    parts = (chosen.validation, chosen.pool, *chosen.folds)
    identity = " ".join([dataset.fingerprint, *map(rows_fingerprint, parts)])
    more = [fingerprint(images, labels, dataset.classes) for images, labels in added if len(labels)]
    return hashlib.sha256(" ".join([identity, *more]).encode()).hexdigest()


def validation_counts(counts: Rows, least_of_each: int) -> Rows:
    """Return how many rows the validation set has of each class, int64 [classes]: in proportion, at least one of each.

    The test set is drawn in the same way, so a score on the one says what to expect on the other. With a larger
    `least_of_each` a class has that many, if it has twice that.
    """
    least = np.minimum(max(1, min(least_of_each, VALIDATION_ROWS // len(counts))), counts // 2)
    total = max(min(round(VALIDATION_SHARE * counts.sum()), VALIDATION_ROWS), least.sum())
    return apportion(int(total), counts, least, most=counts // 2)
