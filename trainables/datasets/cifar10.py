"""CIFAR-10: 50,000 + 10,000 photographs of ten classes, 32×32 RGB, as official pickles or as Parquet."""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainables.datasets import parquet
from trainables.datasets.cache import writable_dir
from trainables.datasets.reading import AS_FOUND, Reading
from trainables.datasets.source import Decoded, Progress, content_key
from trainables.errors import DatasetError

BATCHES = "cifar-10-batches-py"
"""The folder in the official archive."""

FILES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta")


@dataclass(frozen=True)
class Cifar10:
    """CIFAR-10 in `data_dir`; downloaded to the cache if that is None. It has an official test part."""

    reading: Reading = AS_FOUND
    name = "cifar10"

    @property
    def data_dir(self) -> Path | None:
        return self.reading.data_dir

    @property
    def origin(self) -> str:
        return "the official archive, downloaded" if self.data_dir is None else str(self.data_dir.absolute())

    def problems(self) -> list[str]:
        if self.data_dir is None or self._batches() or parquet.find(self.data_dir):
            return []
        if not self.data_dir.is_dir():
            return [f"data_dir={self.data_dir}: there is no such folder; {_REMEDY}"]
        looked = [f"{self.data_dir / BATCHES}/{FILES[0]} …", f"{self.data_dir}/{FILES[0]} …"]
        looked += parquet.places(self.data_dir)
        return [f"data_dir={self.data_dir}: no CIFAR-10 there (looked for {', '.join(looked)}); {_REMEDY}"]

    def key(self) -> str:
        return content_key(self._files())

    def decode(self, progress: Progress, scratch: Path) -> Decoded:
        batches = self._batches()
        if batches is None:
            return parquet.decode(self._files(), progress, scratch, self.reading)
        return _decode_batches(batches, progress)

    def _files(self) -> list[Path]:
        batches = self._batches()
        if batches is None and self.data_dir is not None:
            return parquet.find(self.data_dir)
        folder = batches or _download()
        missing = [name for name in FILES if not (folder / name).is_file()]
        if missing:
            raise DatasetError(f"{folder} lacks {', '.join(missing)}; {_REMEDY}")
        return [folder / name for name in FILES]

    def _batches(self) -> Path | None:
        """Return the folder of the official pickles; None if it does not exist."""
        root = self.data_dir or writable_dir("downloads")
        return next((folder for folder in (root / BATCHES, root) if (folder / FILES[0]).is_file()), None)


_REMEDY = (
    f"put the official {BATCHES} folder (from https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz) or "
    "the Parquet files of huggingface.co/datasets/uoft-cs/cifar10 into a folder and give it as --data-dir"
)


def _download() -> Path:
    """Download the official pickles, unpack them beside their place and rename: the folder is complete or absent."""
    from torchvision.datasets import CIFAR10

    root = writable_dir("downloads")
    with tempfile.TemporaryDirectory(dir=root) as scratch:
        try:
            CIFAR10(scratch, download=True)
        except (OSError, RuntimeError) as error:
            problem = f"CIFAR-10 could not be downloaded from {CIFAR10.url} ({error}); {_REMEDY}"
            raise DatasetError(problem) from error
        with contextlib.suppress(OSError):  # another process was first
            (Path(scratch) / BATCHES).rename(root / BATCHES)
    return root / BATCHES


def _decode_batches(folder: Path, progress: Progress) -> Decoded:
    """Decode the official pickles with torchvision, which compares every file's MD5 before it unpickles the file."""
    from torchvision.datasets import CIFAR10

    in_folder = type("CIFAR10", (CIFAR10,), {"base_folder": folder.name})
    try:
        with warnings.catch_warnings():
            # The official pickles were made by numpy 1; numpy 2.4 warns about how they spell a dtype.
            warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)
            train, test = (in_folder(folder.parent, train=part) for part in (True, False))
    except RuntimeError as error:
        raise DatasetError(f"{folder}: not the official files (their MD5 differs); {_REMEDY}") from error
    images = np.concatenate([train.data, test.data])
    labels = np.array(train.targets + test.targets, dtype=np.int64)
    progress("decoding cifar10", len(images), len(images))
    return Decoded(images, labels, tuple(train.classes), test=np.arange(len(images)) >= len(train.data))
