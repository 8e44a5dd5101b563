"""Data sets by name or by path: decoded once, the test set sealed.

Importing this imports nothing heavy, so that names can be checked before torch is loaded.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from trainables.config import did_you_mean
from trainables.datasets import cache
from trainables.datasets.cache import Dataset, cache_dir, open_test
from trainables.datasets.cifar10 import Cifar10
from trainables.datasets.digits import Digits
from trainables.datasets.parquet import Parquet
from trainables.datasets.seal import TEST_SEED, seal
from trainables.datasets.source import DatasetError, Decoded, Progress, Source

__all__ = [
    "SOURCES",
    "TEST_SEED",
    "Dataset",
    "DatasetError",
    "Decoded",
    "Progress",
    "cache_dir",
    "check",
    "load",
    "open_test",
]

SOURCES: dict[str, Callable[[Path | None], Source]] = {"digits": Digits, "cifar10": Cifar10}
"""The data sets that have a name. Everything else is the path of Parquet files."""


def check(name_or_path: str, data_dir: Path | None = None) -> list[str]:
    """A sentence for each reason why `load` would fail, in milliseconds; an empty list if none is seen."""
    if name_or_path in SOURCES or _is_path(name_or_path):
        return _source(name_or_path, data_dir).problems()
    return [
        f"unknown data set {name_or_path!r}{did_you_mean(name_or_path, SOURCES)} "
        f"(data sets: {', '.join(SOURCES)}, or the path of a Parquet file or folder)"
    ]


def load(name_or_path: str, data_dir: Path | None = None, progress: Progress | None = None) -> Dataset:
    """The data set, decoded unless the cache has it. A name goes before a path of the same spelling.

    Args:
        data_dir: where the files of a named data set are, for those that have files.
        progress: called while decoding; see `Progress`.

    Raises:
        DatasetError: with the problems that `check` finds, or with what is wrong in the files.
    """
    problems = check(name_or_path, data_dir)
    if problems:
        raise DatasetError(*problems)
    source = _source(name_or_path, data_dir)
    report = progress or (lambda what, done, total: None)
    return cache.load(source.name, source.origin, source.key(), lambda: seal(source.decode(report)))


def _source(name_or_path: str, data_dir: Path | None) -> Source:
    if name_or_path in SOURCES:
        return SOURCES[name_or_path](data_dir)
    return Parquet(Path(name_or_path).expanduser(), data_dir)


def _is_path(text: str) -> bool:
    return os.sep in text or text.startswith("~") or Path(text).suffix == ".parquet" or Path(text).exists()
