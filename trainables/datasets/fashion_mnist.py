"""Fashion-MNIST: 60,000 + 10,000 pictures of clothes, ten classes, 28×28 and grey, as IDX files or as Parquet."""

from __future__ import annotations

import contextlib
import gzip
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainables.datasets import parquet
from trainables.datasets.cache import writable_dir
from trainables.datasets.reading import AS_FOUND, Reading
from trainables.datasets.source import Decoded, Progress, content_key
from trainables.errors import DatasetError

CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
"""The official files, unpacked or gzipped (`.gz`)."""

RAW = Path("FashionMNIST") / "raw"
"""The folder that torchvision downloads them to."""


@dataclass(frozen=True)
class FashionMnist:
    """Fashion-MNIST in `data_dir`; downloaded to the cache if that is None. It has an official test part."""

    reading: Reading = AS_FOUND
    name = "fashion-mnist"

    @property
    def data_dir(self) -> Path | None:
        return self.reading.data_dir

    @property
    def origin(self) -> str:
        return "the official files, downloaded" if self.data_dir is None else str(self.data_dir.absolute())

    def problems(self) -> list[str]:
        if self.data_dir is None or self._idx_files() or parquet.find(self.data_dir):
            return []
        if not self.data_dir.is_dir():
            return [f"data_dir={self.data_dir}: there is no such folder; {_REMEDY}"]
        looked = [f"{self.data_dir / FILES[0]}[.gz] …", f"{self.data_dir / RAW / FILES[0]}[.gz] …"]
        looked += parquet.places(self.data_dir)
        return [f"data_dir={self.data_dir}: no Fashion-MNIST there (looked for {', '.join(looked)}); {_REMEDY}"]

    def key(self) -> str:
        return content_key(self._files())

    def decode(self, progress: Progress, scratch: Path) -> Decoded:
        files = self._files()
        if files[0].suffix == ".parquet":
            return parquet.decode(files, progress, scratch, self.reading)
        train, train_labels, test, test_labels = (_read_idx(file) for file in files)
        for images, labels, file in ((train, train_labels, files[0]), (test, test_labels, files[2])):
            if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels) or labels.max() >= len(CLASSES):
                raise DatasetError(f"{file}: images {images.shape} and labels {labels.shape} do not go together")
        progress("decoding fashion-mnist", len(train) + len(test), len(train) + len(test))
        return Decoded(
            np.concatenate([train, test])[..., np.newaxis],
            np.concatenate([train_labels, test_labels]).astype(np.int64),
            CLASSES,
            test=np.arange(len(train) + len(test)) >= len(train),
        )

    def _files(self) -> list[Path]:
        files = self._idx_files()
        if not files and self.data_dir is not None:
            return parquet.find(self.data_dir)
        return files or _download()

    def _idx_files(self) -> list[Path]:
        """Return the four IDX files; an empty list if one is missing."""
        root = self.data_dir or writable_dir("downloads")
        return _in_folder(root) or _in_folder(root / RAW)


_REMEDY = (
    "put the four official IDX files (from https://github.com/zalandoresearch/fashion-mnist) or the Parquet files of "
    "huggingface.co/datasets/zalando-datasets/fashion_mnist into a folder and give it as --data-dir"
)


def _in_folder(folder: Path) -> list[Path]:
    """Return the four IDX files in `folder`; an empty list if one is missing."""
    files = []
    for name in FILES:
        either = [path for path in (folder / name, folder / f"{name}.gz") if path.is_file()]
        files += either[:1]
    return files if len(files) == len(FILES) else []


def _download() -> list[Path]:
    """Download the IDX files with torchvision, which checks their MD5, and rename: the folder is complete or absent."""
    from torchvision.datasets import FashionMNIST

    root = writable_dir("downloads")
    with tempfile.TemporaryDirectory(dir=root) as scratch:
        try:
            FashionMNIST(scratch, download=True)
        except (OSError, RuntimeError) as error:
            problem = f"Fashion-MNIST could not be downloaded from {FashionMNIST.mirrors[0]} ({error}); {_REMEDY}"
            raise DatasetError(problem) from error
        with contextlib.suppress(OSError):  # another process was first
            (Path(scratch) / RAW.parent).rename(root / RAW.parent)
    return _in_folder(root / RAW)


def _read_idx(path: Path) -> NDArray[np.uint8]:
    """Return a file's unsigned bytes as an array.

    The file holds two zeros, 8, the number of dimensions, their sizes (big-endian, 4 bytes each), then the values.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, gzip.BadGzipFile) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    dimensions = content[3] if content[:3] == b"\0\0\x08" and len(content) > 3 else 0
    shape = np.frombuffer(content[4 : 4 + 4 * dimensions], dtype=">u4").astype(int)
    if not dimensions or len(content) != 4 + 4 * dimensions + math.prod(shape.tolist()):
        raise DatasetError(f"{path}: not a complete IDX file of bytes; {_REMEDY}")
    return np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * dimensions).reshape(shape)
