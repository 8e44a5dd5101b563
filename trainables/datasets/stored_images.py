"""Images that stay in files: a row is read when it is used, and no process holds them all.

Processes that map one file share its pages, in memory that the system takes back when it needs it for something else.
So there may be more images than memory.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from trainables.datasets.source import Pixels
from trainables.strata import Rows

PORTION_ROWS, PORTION_BYTES = 256, 2**22  # of images that are read at a time by code that goes through many, at most


@dataclass(frozen=True)
class ImageFile:
    """Images [N, H, W, C] in a file in the format of `numpy.save`. Pickled, it is the file's path, not its content."""

    path: Path  # absolute: workers run in folders of their own
    shape: tuple[int, ...]
    locate: Callable[[Path], Path] | None = None  # returns the file's path on a machine that may not share `path`

    @classmethod
    def of(cls, images: Pixels) -> ImageFile | Pixels:
        """Return the file that `images` are mapped from; the images if they are not mapped, or the file has no name."""
        name = getattr(images, "filename", None)  # a memmap has one
        return np.asarray(images) if name is None else cls(Path(name).absolute(), images.shape)

    def open(self) -> np.memmap[Any, Any]:
        """Map the file, read-only; raise what `locate` raises."""
        mapped: np.memmap[Any, Any] = np.load(self.locate(self.path) if self.locate else self.path, mmap_mode="r")
        return mapped


@dataclass(frozen=True, eq=False)
class StoredImages:
    """Images [N, H, W, C] in files, indexed like an array: by a slice, or by row numbers that are not negative."""

    parts: tuple[ImageFile | Pixels, ...]  # one after another; arrays are few images, which are in no cache folder
    rows: Rows | None = None  # those of all the parts' rows that these images are; None: all of them

    @classmethod
    def joined(cls, *images: StoredImages) -> StoredImages:
        """Return all of these images, one after another."""
        parts = tuple(part for stored in images for part in stored.parts)
        if all(stored.rows is None for stored in images):
            return cls(parts)
        starts = np.cumsum([0, *(stored.stored_rows for stored in images)])
        numbers = [np.arange(stored.stored_rows) if stored.rows is None else stored.rows for stored in images]
        return cls(parts, np.concatenate([start + rows for start, rows in zip(starts, numbers, strict=False)]))

    @property
    def stored_rows(self) -> int:
        """The number of rows of all parts, whether they are among `rows` or not."""
        return sum(part.shape[0] for part in self.parts)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the array that they are indexed like."""
        return (len(self), *self.parts[0].shape[1:])

    @property
    def nbytes(self) -> int:
        """The bytes that they would take in memory."""
        return math.prod(self.shape)

    def __len__(self) -> int:
        return self.stored_rows if self.rows is None else len(self.rows)

    def __getitem__(self, key: int | np.integer | slice | Rows) -> Pixels:
        """Return a copy of some of the images."""
        if isinstance(key, int | np.integer):
            image: Pixels = self[np.array([key])][0]
            return image
        rows = np.arange(*key.indices(len(self))) if isinstance(key, slice) else key
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"rows {rows.min()} to {rows.max()} of {len(self)}")
        rows = rows if self.rows is None else self.rows[rows]
        if len(self._arrays) == 1:
            return _copy_rows(self._arrays[0], rows)
        images, start = np.empty((len(rows), *self.shape[1:]), dtype=np.uint8), 0
        for array in self._arrays:
            inside = (rows >= start) & (rows < start + len(array))
            images[inside] = _copy_rows(array, rows[inside] - start)
            start += len(array)
        return images

    def __iter__(self) -> Iterator[Pixels]:
        return (image for portion in portions(self.shape) for image in self[portion])

    def as_array(self) -> Pixels:
        """Return all of them as an array; those of a single file are mapped rather than copied."""
        return np.asarray(self._arrays[0]) if len(self.parts) == 1 and self.rows is None else self[:]

    @cached_property
    def _arrays(self) -> tuple[Pixels, ...]:
        return tuple(part.open() if isinstance(part, ImageFile) else part for part in self.parts)

    def __getstate__(self) -> dict[str, Any]:
        return {"parts": self.parts, "rows": self.rows}  # without the mapped arrays


def portions(shape: tuple[int, ...]) -> list[slice]:
    """Return slices that cover all rows of images of this shape, [N, H, W, C], each of them small beside any memory."""
    rows = max(1, min(PORTION_ROWS, PORTION_BYTES // math.prod(shape[1:])))
    return [slice(start, start + rows) for start in range(0, shape[0], rows)]


def _copy_rows(array: Pixels, rows: Rows) -> Pixels:
    """Return a copy of some rows; of a mapped file, ask the system for all of them before waiting for the first.

    That is ten times as fast as reading one after another, on a disk that can serve many reads at a time.
    """
    if isinstance(array, np.memmap) and isinstance(array.base, mmap.mmap) and hasattr(mmap, "MADV_WILLNEED"):
        size = math.prod(array.shape[1:])
        for begin in (array.offset % mmap.ALLOCATIONGRANULARITY + rows * size).tolist():
            page = begin // mmap.PAGESIZE * mmap.PAGESIZE
            array.base.madvise(mmap.MADV_WILLNEED, page, begin - page + size)
    return np.asarray(array).take(rows, axis=0)
