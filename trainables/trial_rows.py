"""The rows of one trial: those that it trains on, is scored on, and is measured on at its end.

A trial of a search uses the sweep's validation set and pool (`split=core`). A recipe's trial has the split of its paper
in their place: a split of all rows, the test rows among them, in which the training part is the beginning of each
class's order, and the test part its end. A winner that is trained once more has pool and validation set together
(`split=all`), and no rows to be scored on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from trainables.config import TrialConfig
from trainables.errors import ConfigError, look_up
from trainables.splits import SearchData, mean_and_std
from trainables.strata import Rows, apportion, class_counts, interleaved, shuffled_by_class, slices

SPLIT_SEED = 0  # of splits of all rows: the same for every trial and every sweep
COMMON_SHARE = Fraction(1, 10)  # of all rows: the test part of 90:10
FINAL_TRAIN_ROWS = 10_000  # of the training part, measured at a trial's end, at most


SEALED = ("core", "all")
"""The splits without test rows."""


POSITIVE_CLASSES: dict[str, Callable[[Rows], int]] = {
    "0": lambda counts: 0,
    "1": lambda counts: 1,
    "rarest": lambda counts: int(counts.argmin()),
}
"""Values of `positive_class` → the positive one of two classes, given how many rows of each there are to train on."""


@dataclass(frozen=True, eq=False)
class Fold:
    """The rows of one model."""

    train: Rows  # trained on, in the pool's order
    scored: Rows  # every epoch is scored on these; ascending


@dataclass(frozen=True, eq=False)
class TrialRows:
    """The rows of one trial, int64 rows of `SearchData.images`; the arrays are copies and may be written to."""

    folds: tuple[Fold, ...]  # one for each model of the trial; the first one's model is kept
    final: Mapping[str, Rows]  # part → rows that are measured once, at the trial's end, in evaluation mode
    epoch_rows: int  # rows an epoch of each model, as the field `epoch` says
    mean: NDArray[np.float32]  # [C], of the training part, before rows of it are left out
    std: NDArray[np.float32]  # [C]; 1 for a channel that never varies
    positive: int  # of two classes the one that precision, recall and F1 are of: decided by the training part
    scored_is_test: bool = False  # `scored` is a test part: nothing is chosen by it, and nothing may be fitted to it

    @property
    def train(self) -> Rows:
        """The rows that the kept model trains on, in the pool's order."""
        return self.folds[0].train

    @property
    def scored(self) -> Rows:
        """The rows that the trial is scored on, fold after fold, ascending in each."""
        return np.concatenate([fold.scored for fold in self.folds])


def trial_rows(data: SearchData, config: TrialConfig) -> TrialRows:
    """Return the rows that a trial trains on, is scored on, and is measured on at its end.

    With folds, what follows holds in each of them, for the training part without the rows that the fold scores.

    It trains on the first ceil(f·n_c) rows of each class's n_c rows of the training part of its split. n_c is what
    the configuration's imbalance leaves of the class: `removed_share` taken off the `removed_classes`, and of class c
    of C a share of `long_tail`^(c / (C - 1)) (Cui et al. 2019, arXiv 1901.05555); one row at least.

    At its end it is measured on `train` (at most 10,000 of the rows trained on, stratified), on the test part of its
    split, called `test` or, if the trial looked at it while it trained, `validation`, on `common` (the test part of
    90:10, unless some of it was trained on), and on `external`, the external test set; under split=core on the last
    alone.

    Raises:
        ConfigError: with the problems that `check_split` finds.
    """
    if problems := check_split(data, config):
        raise ConfigError(*problems)
    parts = _parts(data, config.split)
    scored = [np.sort(parts.get("validation", parts.get("test", np.arange(0))))]
    scored = list(data.folds) if config.split == "core" and data.folds else scored
    pools = [parts["train"][~np.isin(parts["train"], rows)] for rows in scored]
    folds = tuple(Fold(_remaining(pool, data, config), rows) for pool, rows in zip(pools, scored, strict=True))
    train = folds[0].train
    final: dict[str, Rows] = {}
    scored_is_test = False
    if config.split not in SEALED:
        counts = class_counts(data.labels[train], len(data.classes))
        most = min(FINAL_TRAIN_ROWS, len(train))
        final["train"] = _first_of_classes(train, data.labels, apportion(most, counts, np.zeros_like(counts), counts))
        looking = config.selection == "best" or config.patience > 0 or config.schedule == "plateau"
        scored_is_test = not looking and "validation" not in parts
        final["validation" if looking and "validation" not in parts else "test"] = parts["test"]
        if "common" in parts:
            final["common"] = parts["common"]
    if len(data.external_test):
        final["external"] = data.external_test
    mean, std = _normalization(data, config.split)
    return TrialRows(
        folds=folds,
        final={part: np.sort(rows) for part, rows in final.items()},
        epoch_rows=max(
            map(len, look_up({"pool": pools, "rows": [fold.train for fold in folds]}, config.epoch, "epoch"))
        ),
        mean=mean,
        std=std,
        positive=look_up(POSITIVE_CLASSES, config.positive_class, "positive_class")(
            class_counts(data.labels[_deciding(data, config.split)], len(data.classes))
        ),
        scored_is_test=scored_is_test,
    )


def check_split(data: SearchData, config: TrialConfig) -> list[str]:
    """Return a message for each reason why `data` has no rows for `config`.

    Raises:
        ValueError: the split needs test rows, and `data` were made without them.
    """
    problems = []
    classes, split = len(data.classes), config.split
    if any(number >= classes for number in _removed_classes(config)):
        problems.append(f"removed_classes={config.removed_classes}: there are {classes} classes, counted from 0")
    if split in SEALED:
        return problems
    if not len(data.test):
        raise ValueError(f"split={split} needs the test rows; make the data with search_data(…, opened=True)")
    if split == "official" and not data.official_test:
        problems.append("split=official: the data set has no official test part; use core, or shares like 80:20")
        return problems
    parts = _parts(data, split)
    available = class_counts(np.delete(data.labels, data.external_test), classes)
    for part in ("train", "validation", "test"):
        counts = class_counts(data.labels[parts[part]], classes) if part in parts else available
        missing = [f"class {data.classes[n]!r} ({available[n]} rows)" for n in np.flatnonzero(counts == 0)]
        if missing:
            problems.append(
                f"split={split} leaves {', '.join(missing[:10])}{' …' if len(missing) > 10 else ''} without {part} "
                "rows; take a larger share, add images, or leave these classes out"
            )
    return problems


@lru_cache(maxsize=8)  # a worker runs trials of few splits, of one data set
def _parts(data: SearchData, split: str) -> dict[str, Rows]:
    """Return all rows of each part of a split: train (in the pool's order), test, and some of the others."""
    if split == "core":
        return {"train": data.pool, "validation": data.validation}
    if split == "all":
        return {"train": interleaved(_in_order(data, np.union1d(data.pool, data.validation)))}
    if split == "official":
        search = np.setdiff1d(np.arange(len(data.labels)), np.concatenate([data.test, data.external_test]))
        return {"train": interleaved(_in_order(data, search)), "test": data.test}
    shares = [int(share) for share in split.split(":")]
    groups = _in_order(data, np.setdiff1d(np.arange(len(data.labels)), data.external_test))
    counts = np.array([len(group) for group in groups], dtype=np.int64)
    tests = _share(Fraction(shares[-1], sum(shares)), counts, counts)
    parts = {"test": slices(groups, counts - tests, counts)}
    rest = counts - tests
    if len(shares) == 3:
        validations = _share(Fraction(shares[1], sum(shares)), counts, rest)
        rest = rest - validations
        parts["validation"] = slices(groups, rest, rest + validations)
    else:
        common = _share(COMMON_SHARE, counts, counts)
        if (common <= tests).all() and common.any():
            parts["common"] = slices(groups, counts - common, counts)
    return {"train": interleaved([group[:end] for group, end in zip(groups, rest, strict=True)]), **parts}


def _in_order(data: SearchData, rows: Rows) -> list[Rows]:
    """Return `rows` class by class, each class in the random order that splits take slices of."""
    return [rows[order] for order in shuffled_by_class(data.labels[rows], len(data.classes), SPLIT_SEED)]


def _share(share: Fraction, of: Rows, among: Rows) -> Rows:
    """Return round(`share` · sum of `of`), apportioned to the classes by their rows `among`: int64 [classes]."""
    return apportion(round(share * int(of.sum())), among, np.zeros_like(among), among)


def _remaining(rows: Rows, data: SearchData, config: TrialConfig) -> Rows:
    """Return those of the training part's `rows` that imbalance and train fraction leave, in their order."""
    counts = class_counts(data.labels[rows], len(data.classes))
    named = np.isin(np.arange(len(counts)), _removed_classes(config))
    kept = counts - np.rint(config.removed_share * counts * named).astype(np.int64)
    tail = config.long_tail ** (np.arange(len(counts)) / max(len(counts) - 1, 1))
    kept = np.maximum(np.rint(kept * tail).astype(np.int64), np.minimum(counts, 1))
    exact = Fraction(str(config.train_fraction))  # 0.55 of 100 rows is 55; in floating point its ceiling is 56
    return _first_of_classes(rows, data.labels, np.array([math.ceil(exact * int(n)) for n in kept]))


def _first_of_classes(rows: Rows, labels: Rows, quotas: Rows) -> Rows:
    """Return the first `quotas[c]` of `rows` of each class c, in their order."""
    row_labels = labels[rows]
    counts = class_counts(row_labels, len(quotas))
    by_class = np.argsort(row_labels, kind="stable")
    rank = np.empty_like(row_labels)
    rank[by_class] = np.arange(len(row_labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return rows[rank < quotas[row_labels]]


def _removed_classes(config: TrialConfig) -> list[int]:
    return [int(number) for number in config.removed_classes.split(",") if number]


@lru_cache(maxsize=8)
def _normalization(data: SearchData, split: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return mean and standard deviation of the training part of a split."""
    return (data.mean, data.std) if split in SEALED else mean_and_std(data.images, _deciding(data, split))


def _deciding(data: SearchData, split: str) -> Rows:
    """Return the rows that decide normalization and positive class: the training part's or, without test rows, the
    pool.

    A model that is trained once more on pool and validation set so computes with the numbers of those before it.
    """
    return data.pool if split in SEALED else _parts(data, split)["train"]
