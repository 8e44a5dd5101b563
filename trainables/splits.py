"""The rows that a sweep is scored on (the core), may train on (the pool), and that a trial trains on.

All are slices of one random order per class (see `strata`): the subset is its beginning, the core the
beginning of the subset, the pool the rest. So a larger train fraction contains a smaller one, and subsets
share all the rows they can. The order depends on the sweep's seed, never on a trial's.

A paper's own split takes core and pool's place where a trial asks for it (`split`): of all rows, the test rows among
them, the training part the beginning of each class' order, the test part its end.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.config import TrialConfig
from trainables.datasets import TEST_SEED, Dataset, DatasetError, open_test
from trainables.datasets.cache import fingerprint
from trainables.datasets.source import Pixels
from trainables.datasets.stored_images import ImageFile, StoredImages, portions
from trainables.errors import ConfigError
from trainables.strata import Rows, apportion, class_counts, interleaved, shuffled_by_class

VALIDATION_SHARE = 0.2
VALIDATION_ROWS_PER_CLASS = 10  # at least, where a class has twice that
VALIDATION_ROWS = 10_000  # at most: the standard error of an accuracy is then below half a percent
SPLIT_SEED = 0  # of splits of all rows: the same for every trial and every sweep
COMMON_SHARE = Fraction(1, 10)  # of all rows: the test part of 90:10
FINAL_TRAIN_ROWS = 10_000  # at most, of the training part, measured at a trial's end


@dataclass(frozen=True, eq=False)
class Split:
    """The rows of a data set that a sweep uses: no duplicates of test rows, none outside the subset."""

    validation: Rows  # ascending
    pool: Rows  # in the order in which trials take their fraction; every prefix is about stratified


@dataclass(frozen=True, eq=False)
class SearchData:
    """All that a trial may see: arrays, which Ray shares between processes without copies, and images in files."""

    images: Pixels | StoredImages  # [N, H, W, C]
    labels: Rows  # [N]
    classes: tuple[str, ...]
    validation: Rows  # as in `Split`, but rows of `images`
    pool: Rows
    mean: NDArray[np.float32]  # [C], of the pool's pixels scaled to 0..1
    std: NDArray[np.float32]  # [C]; 1 for a channel that never varies, since it is divided by
    fingerprint: str  # hex; differs when any of the above does
    test: Rows = field(default_factory=lambda: np.arange(0))  # rows of `images`; none while the test set is sealed
    external_test: Rows = field(default_factory=lambda: np.arange(0))  # likewise: pictures from elsewhere
    official_test: bool = False  # `test` is the data set's own test part, not drawn from the rows by us


@dataclass(frozen=True, eq=False)
class TrialRows:
    """The rows of one trial, int64 rows of `SearchData.images`; arrays of its own, that may be written to."""

    train: Rows  # trained on, in the pool's order
    scored: Rows  # every epoch is scored on these
    final: Mapping[str, Rows]  # part → rows, measured once at the trial's end in evaluation mode
    epoch_rows: int  # rows an epoch, as the field `epoch` has it
    mean: NDArray[np.float32]  # [C], of the training part, before rows of it are left out
    std: NDArray[np.float32]  # [C]; 1 for a channel that never varies
    scored_is_test: bool = False  # `scored` is a test part: nothing is chosen by it, and nothing may be fitted to it


@lru_cache(maxsize=1)  # `search_data` and `describe` ask for the same
def split(dataset: Dataset, subset: int | None = None, seed: int = 0) -> Split:
    """Core and pool of `dataset`, or of `subset` stratified rows of it.

    Raises:
        DatasetError: when a class has too few rows to train and to validate on.
        ConfigError: when `subset` is less than two rows a class. More than there are is all of them.
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
    validation = _validation_counts(counts)
    return Split(
        validation=np.sort(np.concatenate([group[:n] for group, n in zip(rows, validation, strict=True)])),
        pool=interleaved([group[n:end] for group, n, end in zip(rows, validation, counts, strict=True)]),
    )


def search_data(
    dataset: Dataset,
    subset: int | None = None,
    seed: int = 0,
    opened: bool = False,
    external_test: tuple[Pixels, Rows] | None = None,
) -> SearchData:
    """What the trials of a sweep share: rows of `dataset`, whose images stay in the cache's files.

    Args:
        subset: so many rows, stratified; test rows in the same proportion, at least one a class.
        opened: with the test rows, for splits that score on them or pool them with the others.
        external_test: images [M, H, W, C] from elsewhere, as `load_external` gives them, and their labels [M].

    Raises:
        DatasetError, ConfigError: as `split` and `open_test`.
    """
    chosen = split(dataset, subset, seed)
    stored, labels, validation, pool = ImageFile.of(dataset.images), dataset.labels, chosen.validation, chosen.pool
    images = StoredImages((stored,))
    if _is_part(dataset, subset):
        kept = np.sort(np.concatenate([validation, pool]))
        images, labels = StoredImages((stored,), kept), labels[kept]
        validation, pool = np.searchsorted(kept, validation), np.searchsorted(kept, pool)
    mean, std = _mean_and_std(images, pool)
    tests = [_opened(dataset, subset, seed)] if opened else []
    others = [(StoredImages((ImageFile.of(external_test[0]),)), external_test[1])] if external_test else []
    all_images, all_labels = zip((images, labels), *tests, *others, strict=True)
    ends = np.cumsum([len(labels), *(sum(len(own) for _, own in part) for part in (tests, others))])
    return SearchData(
        StoredImages.joined(*all_images),
        np.concatenate(all_labels),
        dataset.classes,
        validation,
        pool,
        mean,
        std,
        _fingerprint(dataset, chosen, *tests, *others),
        test=np.arange(ends[0], ends[1]),
        external_test=np.arange(ends[1], ends[2]),
        official_test=dataset.official_test,
    )


def trial_rows(data: SearchData, config: TrialConfig) -> TrialRows:
    """The rows that a trial trains on, is scored on, and is measured on at its end.

    It trains on the first ceil(f·n_c) rows of each class's n_c rows of the training part of its split. n_c is what
    the configuration's imbalance leaves of the class: `removed_share` taken off the `removed_classes`, and of class c
    of C a share of `long_tail`^(c / (C - 1)) (Cui et al. 2019, arXiv 1901.05555); one row at least.

    At its end it is measured on `train` (at most 10,000 of the rows trained on, stratified), on the test part of its
    split, called `test` or, where the trial looked at it while it trained, `validation`, on `common` (the test part of
    90:10, unless some of it was trained on), and on `external`, the external test set; under split=core on the last
    alone.

    Raises:
        ConfigError: as `check_split` says.
    """
    if problems := check_split(data, config):
        raise ConfigError(*problems)
    parts = _parts(data, config.split)
    train = _left(parts["train"], data, config)
    final: dict[str, Rows] = {}
    scored_is_test = False
    if config.split != "core":
        counts = class_counts(data.labels[train], len(data.classes))
        most = min(FINAL_TRAIN_ROWS, len(train))
        final["train"] = _first(train, data.labels, apportion(most, counts, np.zeros_like(counts), counts))
        looking = config.selection == "best" or config.patience > 0 or config.schedule == "plateau"
        scored_is_test = not looking and "validation" not in parts
        final["validation" if looking and "validation" not in parts else "test"] = parts["test"]
        if "common" in parts:
            final["common"] = parts["common"]
    if len(data.external_test):
        final["external"] = data.external_test
    mean, std = _normalization(data, config.split)
    return TrialRows(
        train=train,
        scored=np.sort(parts["validation" if "validation" in parts else "test"]),
        final={part: np.sort(rows) for part, rows in final.items()},
        epoch_rows=len(parts["train"] if config.epoch == "pool" else train),
        mean=mean,
        std=std,
        scored_is_test=scored_is_test,
    )


def check_split(data: SearchData, config: TrialConfig) -> list[str]:
    """A sentence for each reason why `data` has no rows for `config`; an empty list if there is none."""
    problems = []
    classes, split = len(data.classes), config.split
    if any(number >= classes for number in _class_numbers(config)):
        problems.append(f"removed_classes={config.removed_classes}: there are {classes} classes, counted from 0")
    if split == "core":
        return problems
    if not len(data.test):
        raise ValueError(f"split={split} needs the test rows; make the data with search_data(…, opened=True)")
    if split == "official" and not data.official_test:
        problems.append("split=official: the data set has no test part of its own; take core, or shares like 80:20")
        return problems
    parts = _parts(data, split)
    whole = class_counts(np.delete(data.labels, data.external_test), classes)
    for part in ("train", "validation", "test"):
        counts = class_counts(data.labels[parts[part]], classes) if part in parts else whole
        missing = [f"class {data.classes[n]!r} ({whole[n]} rows)" for n in np.flatnonzero(counts == 0)]
        if missing:
            problems.append(
                f"split={split} leaves {', '.join(missing[:10])}{' …' if len(missing) > 10 else ''} without {part} "
                "rows; take a larger share, add images, or leave these classes out"
            )
    return problems


@lru_cache(maxsize=8)  # an actor runs trials of few splits, of one data set
def _parts(data: SearchData, split: str) -> dict[str, Rows]:
    """All rows that the parts of a split have, by name: train (in the pool's order), test, and some of the others."""
    if split == "core":
        return {"train": data.pool, "validation": data.validation}
    if split == "official":
        search = np.setdiff1d(np.arange(len(data.labels)), np.concatenate([data.test, data.external_test]))
        return {"train": interleaved(_in_order(data, search)), "test": data.test}
    shares = [int(share) for share in split.split(":")]
    groups = _in_order(data, np.setdiff1d(np.arange(len(data.labels)), data.external_test))
    counts = np.array([len(group) for group in groups], dtype=np.int64)
    tests = _share(Fraction(shares[-1], sum(shares)), counts, counts)
    parts = {"test": _slices(groups, counts - tests, counts)}
    rest = counts - tests
    if len(shares) == 3:
        validations = _share(Fraction(shares[1], sum(shares)), counts, rest)
        rest = rest - validations
        parts["validation"] = _slices(groups, rest, rest + validations)
    else:
        common = _share(COMMON_SHARE, counts, counts)
        if (common <= tests).all() and common.any():
            parts["common"] = _slices(groups, counts - common, counts)
    return {"train": interleaved([group[:end] for group, end in zip(groups, rest, strict=True)]), **parts}


def _in_order(data: SearchData, rows: Rows) -> list[Rows]:
    """`rows` class by class, each in the random order of which splits take slices."""
    return [rows[order] for order in shuffled_by_class(data.labels[rows], len(data.classes), SPLIT_SEED)]


def _share(share: Fraction, of: Rows, among: Rows) -> Rows:
    """round(`share` · all of `of`) rows, in proportion to the classes' rows `among` which they are, int64 [classes]."""
    return apportion(round(share * int(of.sum())), among, np.zeros_like(among), among)


def _slices(groups: list[Rows], starts: Rows, ends: Rows) -> Rows:
    return np.concatenate([group[start:end] for group, start, end in zip(groups, starts, ends, strict=True)])


def _left(rows: Rows, data: SearchData, config: TrialConfig) -> Rows:
    """Those of the training part's `rows` that imbalance and train fraction leave, in their order."""
    counts = class_counts(data.labels[rows], len(data.classes))
    named = np.isin(np.arange(len(counts)), _class_numbers(config))
    kept = counts - np.rint(config.removed_share * counts * named).astype(np.int64)
    tail = config.long_tail ** (np.arange(len(counts)) / max(len(counts) - 1, 1))
    kept = np.maximum(np.rint(kept * tail).astype(np.int64), np.minimum(counts, 1))
    exact = Fraction(str(config.train_fraction))  # 0.55 of 100 rows is 55; in floating point its ceiling is 56
    return _first(rows, data.labels, np.array([math.ceil(exact * int(n)) for n in kept]))


def _first(rows: Rows, labels: Rows, quotas: Rows) -> Rows:
    """Of `rows` the first `quotas[c]` of each class c, in their order."""
    own = labels[rows]
    counts = class_counts(own, len(quotas))
    by_class = np.argsort(own, kind="stable")
    rank = np.empty_like(own)
    rank[by_class] = np.arange(len(own)) - np.repeat(np.cumsum(counts) - counts, counts)
    return rows[rank < quotas[own]]


def _class_numbers(config: TrialConfig) -> list[int]:
    return [int(number) for number in config.removed_classes.split(",") if number]


@lru_cache(maxsize=8)
def _normalization(data: SearchData, split: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and deviation of the training part of a split."""
    return (data.mean, data.std) if split == "core" else _mean_and_std(data.images, _parts(data, split)["train"])


def describe(
    dataset: Dataset,
    subset: int | None = None,
    seed: int = 0,
    opened: bool = False,
    external_test: tuple[Pixels, Rows] | None = None,
) -> dict[str, Any]:
    """What `search_data` makes of the same arguments, for a sweep's record: equal records mean equal rows.

    Raises:
        DatasetError, ConfigError: as `search_data`.
    """
    chosen = split(dataset, subset, seed)
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
        "data_fingerprint": dataset.fingerprint,
        "test_fingerprint": dataset.test_fingerprint,
        "validation_fingerprint": rows_fingerprint(chosen.validation),
        "pool_fingerprint": rows_fingerprint(chosen.pool),
    }
    added: dict[str, tuple[Pixels | StoredImages, Rows] | None] = {
        "opened": _opened(dataset, subset, seed) if opened else None,
        "external": external_test,
    }
    for name, part in added.items():
        if part is not None:
            record |= {f"{name}_rows": len(part[1]), f"{name}_fingerprint": fingerprint(*part, dataset.classes)}
    return record


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
    least = 2 * len(counts)
    if subset < least:
        raise ConfigError(f"subset={subset} is not allowed (allowed: at least {least}, two rows a class)")


def _is_part(dataset: Dataset, subset: int | None) -> bool:
    """Whether `subset` is less than all rows there are."""
    return subset is not None and subset < len(dataset.labels) - len(dataset.duplicates)


@lru_cache(maxsize=1)
def _opened(dataset: Dataset, subset: int | None, seed: int) -> tuple[StoredImages, Rows]:
    """The test images [M, H, W, C] and labels [M]; of a subset, in its proportion and at least one a class."""
    images, labels = open_test(dataset)
    stored = ImageFile.of(images)
    if subset is None or not _is_part(dataset, subset):
        return StoredImages((stored,)), labels
    counts = class_counts(labels, len(dataset.classes))
    least = np.minimum(counts, 1)
    total = max(round(subset * len(labels) / len(dataset.labels)), int(least.sum()))
    orders = shuffled_by_class(labels, len(counts), seed)
    taken = np.sort(_slices(orders, np.zeros_like(counts), apportion(total, counts, least, counts)))
    return StoredImages((stored,), taken), labels[taken]


def _fingerprint(dataset: Dataset, chosen: Split, *added: tuple[StoredImages, Rows]) -> str:
    """64 hex digits that stand for all of `SearchData`."""
    identity = f"{dataset.fingerprint} {rows_fingerprint(chosen.validation)} {rows_fingerprint(chosen.pool)}"
    more = [fingerprint(images, labels, dataset.classes) for images, labels in added if len(labels)]
    return hashlib.sha256(" ".join([identity, *more]).encode()).hexdigest()


def _validation_counts(counts: Rows) -> Rows:
    """How many rows the core takes of each class, int64 [classes]; at least one, whatever the limits say."""
    least = np.minimum(max(1, min(VALIDATION_ROWS_PER_CLASS, VALIDATION_ROWS // len(counts))), counts // 2)
    total = max(min(round(VALIDATION_SHARE * counts.sum()), VALIDATION_ROWS), least.sum())
    return apportion(int(total), counts, least, most=counts // 2)


def _mean_and_std(images: Pixels | StoredImages, rows: Rows) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Exact but for the last rounding, whatever the number of rows: sums are of integers."""
    sums = squares = np.zeros(images.shape[1:], dtype=np.uint64)
    rows = np.sort(rows)  # in the order of the disk
    for portion in portions((len(rows), *images.shape[1:])):  # few enough rows for sums of 32 bits
        chunk = images[rows[portion]]
        sums = sums + chunk.sum(axis=0, dtype=np.uint32)
        squares = squares + np.square(chunk, dtype=np.uint16).sum(axis=0, dtype=np.uint32)
    sums, squares = sums.sum(axis=(0, 1)), squares.sum(axis=(0, 1))
    pixels = len(rows) * math.prod(images.shape[1:3])
    mean = sums / pixels
    variance = np.maximum(squares / pixels - mean**2, 0)
    std = np.where(variance > 0, np.sqrt(variance), 255)
    return (mean / 255).astype(np.float32), (std / 255).astype(np.float32)
