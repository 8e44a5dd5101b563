"""Data sets by name or by path: decoded once, the test set sealed.

Importing this imports nothing heavy, so that names can be checked before torch is loaded.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from trainables.datasets import cache
from trainables.datasets.cache import Dataset, cache_dir, open_test
from trainables.datasets.cifar10 import Cifar10
from trainables.datasets.digits import Digits
from trainables.datasets.external import check_external, load_external
from trainables.datasets.fashion_mnist import FashionMnist
from trainables.datasets.folder import Folder, is_class_folders
from trainables.datasets.manual_download import ManualDownload
from trainables.datasets.parquet import Parquet, find
from trainables.datasets.pictures import SHORT_SIDE
from trainables.datasets.seal import TEST_SEED, Sealed, seal
from trainables.datasets.source import COLUMNS, Columns, Decoded, Progress, Source
from trainables.datasets.table import Table
from trainables.errors import DatasetError, did_you_mean

__all__ = [
    "COLUMNS",
    "ON_BAD_IMAGE",
    "SHORT_SIDE",
    "SOURCES",
    "TEST_SEED",
    "Columns",
    "Dataset",
    "DatasetError",
    "Decoded",
    "Progress",
    "cache_dir",
    "check",
    "check_external",
    "load",
    "load_external",
    "open_test",
]

SOURCES: dict[str, Callable[[Path | None, Columns], Source]] = {
    "digits": lambda data_dir, columns: Digits(data_dir),
    "cifar10": lambda data_dir, columns: Cifar10(data_dir),
    "fashion-mnist": lambda data_dir, columns: FashionMnist(data_dir),
    "cactus": partial(ManualDownload, "cactus", "https://www.kaggle.com/c/aerial-cactus-identification/data"),
    "ai-vs-human": partial(
        ManualDownload, "ai-vs-human", "https://www.kaggle.com/datasets/alessandrasala79/ai-vs-human-generated-dataset"
    ),
    "fruits-360": partial(ManualDownload, "fruits-360", "https://www.kaggle.com/datasets/moltean/fruits"),
}
"""The data sets that have a name. Everything else is the path of a CSV, of Parquet files or of class folders."""

ON_BAD_IMAGE = ("fail", "skip")


def check(name_or_path: str, data_dir: Path | None = None, columns: Columns = COLUMNS) -> list[str]:
    """A sentence for each reason why `load` would fail, in milliseconds; an empty list if none is seen."""
    if name_or_path in SOURCES or _is_path(name_or_path):
        return _source(name_or_path, data_dir, columns).problems()
    return [
        f"unknown data set {name_or_path!r}{did_you_mean(name_or_path, SOURCES)} "
        f"(data sets: {', '.join(SOURCES)}, or the path of a CSV, of a Parquet file or of a folder)"
    ]


def load(
    name_or_path: str,
    data_dir: Path | None = None,
    progress: Progress | None = None,
    columns: Columns = COLUMNS,
    on_bad_image: str = "fail",
    stored_side: int = SHORT_SIDE,
) -> Dataset:
    """The data set, decoded unless the cache has it. A name goes before a path of the same spelling.

    Args:
        data_dir: where the files of a named data set are, for those that have files, or the pictures of a CSV.
        progress: called while decoding; see `Progress`.
        columns: of a table, where their names and types do not tell.
        on_bad_image: `skip` leaves images that cannot be read out; `fail` refuses the data set.
        stored_side: pixels; pictures of different sizes are stored as squares no larger than that.

    Raises:
        DatasetError: with the problems that `check` finds, or with what is wrong in the files.
    """
    problems = check(name_or_path, data_dir, columns)
    if problems:
        raise DatasetError(*problems)
    source = _source(name_or_path, data_dir, columns)
    report = progress or (lambda what, done, total: None)
    key = source.key()
    if stored_side != SHORT_SIDE:
        key = hashlib.sha256(f"{key} {stored_side}".encode()).hexdigest()
    dataset = cache.load(
        source.name, source.origin, key, lambda scratch: _sealed(source.decode(report, stored_side, scratch))
    )
    if dataset.unreadable and on_bad_image == "fail":
        count = len(dataset.unreadable)
        more = f"{count} images cannot be read" if count > 1 else "1 image cannot be read"
        raise DatasetError(
            *dataset.unreadable[:10], f"{more}; mend or remove them, or leave them out by --on-bad-image skip"
        )
    return dataset


def _sealed(decoded: Decoded) -> Sealed:
    """As `seal`; where too few rows are left, those that could not be read are named, too."""
    try:
        return seal(decoded)
    except DatasetError as error:
        raise DatasetError(*decoded.unreadable[:10], *error.problems) from error


def _source(name_or_path: str, data_dir: Path | None, columns: Columns) -> Source:
    if name_or_path in SOURCES:
        return SOURCES[name_or_path](data_dir, columns)
    path = Path(name_or_path).expanduser()
    if path.suffix == ".csv":
        return Table(path, data_dir, columns)
    if path.is_dir() and not find(path) and is_class_folders(path):
        return Folder(path, data_dir)
    return Parquet(path, data_dir, columns)


def _is_path(text: str) -> bool:
    known = Path(text).suffix in (".parquet", ".csv")
    return os.sep in text or text.startswith("~") or known or Path(text).exists()
