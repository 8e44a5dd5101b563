"""Images that lie in files: read where rows are asked for, held by nobody.

Processes that map one file share its pages, in memory that the system takes back when it is needed for something else.
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

PORTION_ROWS, PORTION_BYTES = 256, 2**22  # at most, at a time, of whoever goes through many images


@dataclass(frozen=True)
class ImageFile:
    """Images [N, H, W, C] in a file that `numpy.save` could have written. Pickled, it is the file's place."""

    path: Path  # absolute: workers run in folders of their own
    shape: tuple[int, ...]
    find: Callable[[Path], Path] | None = None  # where the file is on a machine that may not see it there

    @classmethod
    def of(cls, images: Pixels) -> ImageFile | Pixels:
        """The file that `images` are mapped from; themselves where they are not, or where it has no name."""
        name = getattr(images, "filename", None)  # of a memmap
        return np.asarray(images) if name is None else cls(Path(name).absolute(), images.shape)

    def open(self) -> np.memmap[Any, Any]:
        """The file, mapped, read-only; raises what `find` raises."""
        mapped: np.memmap[Any, Any] = np.load(self.find(self.path) if self.find else self.path, mmap_mode="r")
        return mapped


@dataclass(frozen=True, eq=False)
class StoredImages:
    """Images [N, H, W, C]: those `rows` of all the `parts`' rows, one part after another; None: all of them.

    Indexed like an array by a row number, a slice or row numbers that are not negative. A part that is an array has
    its place in memory, as the few have that belong to no cache folder.
    """

    parts: tuple[ImageFile | Pixels, ...]
    rows: Rows | None = None

    @classmethod
    def joined(cls, *images: StoredImages) -> StoredImages:
        """One after another."""
        parts = tuple(part for each in images for part in each.parts)
        if all(each.rows is None for each in images):
            return cls(parts)
        starts = np.cumsum([0, *(each.stored_rows for each in images)])
        numbers = [np.arange(each.stored_rows) if each.rows is None else each.rows for each in images]
        return cls(parts, np.concatenate([start + own for start, own in zip(starts, numbers, strict=False)]))

    @property
    def stored_rows(self) -> int:
        """Of all parts, wanted or not."""
        return sum(part.shape[0] for part in self.parts)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self.parts[0].shape[1:])

    @property
    def nbytes(self) -> int:
        """What they would take in memory."""
        return math.prod(self.shape)

    def __len__(self) -> int:
        return self.stored_rows if self.rows is None else len(self.rows)

    def __getitem__(self, key: int | np.integer | slice | Rows) -> Pixels:
        """A copy of some of the images."""
        if isinstance(key, int | np.integer):
            image: Pixels = self[np.array([key])][0]
            return image
        rows = np.arange(*key.indices(len(self))) if isinstance(key, slice) else key
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"rows {rows.min()} to {rows.max()} of {len(self)}")
        rows = rows if self.rows is None else self.rows[rows]
        if len(self._arrays) == 1:
            return _taken(self._arrays[0], rows)
        found, start = np.empty((len(rows), *self.shape[1:]), dtype=np.uint8), 0
        for array in self._arrays:
            here = (rows >= start) & (rows < start + len(array))
            found[here] = _taken(array, rows[here] - start)
            start += len(array)
        return found

    def __iter__(self) -> Iterator[Pixels]:
        return (image for portion in portions(self.shape) for image in self[portion])

    def held(self) -> Pixels:
        """All of them as an array; one file's are mapped rather than copied."""
        return np.asarray(self._arrays[0]) if len(self.parts) == 1 and self.rows is None else self[:]

    @cached_property
    def _arrays(self) -> tuple[Pixels, ...]:
        return tuple(part.open() if isinstance(part, ImageFile) else part for part in self.parts)

    def __getstate__(self) -> dict[str, Any]:
        return {"parts": self.parts, "rows": self.rows}  # without what is mapped


def portions(shape: tuple[int, ...]) -> list[slice]:
    """All rows of images of this shape, [N, H, W, C], so many at a time as are little beside any memory."""
    rows = max(1, min(PORTION_ROWS, PORTION_BYTES // math.prod(shape[1:])))
    return [slice(start, start + rows) for start in range(0, shape[0], rows)]


def _taken(array: Pixels, rows: Rows) -> Pixels:
    """A copy of some rows. Of a mapped file the system is asked for all of them before the first is waited for.

    That is ten times as fast as one after another, on a disk that can do many things at a time.
    """
    if isinstance(array, np.memmap) and isinstance(array.base, mmap.mmap) and hasattr(mmap, "MADV_WILLNEED"):
        size = math.prod(array.shape[1:])
        for begin in (array.offset % mmap.ALLOCATIONGRANULARITY + rows * size).tolist():
            page = begin // mmap.PAGESIZE * mmap.PAGESIZE
            array.base.madvise(mmap.MADV_WILLNEED, page, begin - page + size)
    return np.asarray(array).take(rows, axis=0)
