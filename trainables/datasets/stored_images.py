"""Images that stay in files: a row is read when it is used, and no process holds them all.

Processes that map one file share its pages, in memory that the system takes back when it needs it for something else.
So there may be more images than memory.
"""

from __future__ import annotations

import hashlib
import math
import mmap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.datasets.packed import FACTS, Facts, Packed, PackedFile, Pixels, facts_beside, in_channels, table
from trainables.strata import Rows

PORTION_ROWS, PORTION_BYTES = 256, 2**22  # of images that are read at a time by code that goes through many, at most


@dataclass(frozen=True)
class ImageFile:
    """Images [N, H, W, C] in a file in the format of `numpy.save`. Pickled, it is the file's path, not its content."""

    path: Path  # absolute: workers run in folders of their own
    shape: tuple[int, ...]
    locate: Callable[[Path], Path] | None = None  # returns the file's path on a machine that may not share `path`

    def open(self) -> np.memmap[Any, Any]:
        """Map the file, read-only; raise what `locate` raises."""
        mapped: np.memmap[Any, Any] = np.load(self.locate(self.path) if self.locate else self.path, mmap_mode="r")
        return mapped


@dataclass(frozen=True, eq=False)
class Gathered:
    """Pictures of different sizes, one by one in memory."""

    pictures: tuple[Pixels, ...]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """N, the longest shorter side of all pictures, twice, and the largest number of channels."""
        side = max(min(picture.shape[:2]) for picture in self.pictures)
        return len(self), side, side, max(picture.shape[2] for picture in self.pictures)

    def __len__(self) -> int:
        return len(self.pictures)

    def picture(self, row: int) -> Pixels:
        """Return a picture, [height, width, channels]."""
        return self.pictures[row]

    def sizes(self, rows: Rows) -> NDArray[np.int64]:
        """Return height and width of the pictures of `rows`, int64 [2, B]."""
        return np.array([self.pictures[row].shape[:2] for row in rows.tolist()], dtype=np.int64).reshape(-1, 2).T


Part = ImageFile | PackedFile | Packed | Gathered | Pixels
"""Images of one shape or pictures of different sizes, in a file or in memory."""


@dataclass(frozen=True, eq=False)
class StoredImages:
    """Images, indexed like an array [N, H, W, C]: by a slice, or by row numbers that are not negative.

    If all have one shape, that is the array's. Otherwise every picture is stored whole, and indexing gives its center
    crop, for a data set a square with the longest shorter side of all; `pictures` and `sizes` lead to what is stored.
    """

    parts: tuple[Part, ...]  # one after another; those in memory are few images, which are in no cache folder
    rows: Rows | None = None  # those of all the parts' rows that these images are; None: all of them
    known: Facts | None = None  # the facts about them, if nothing beside the parts has them

    @classmethod
    def of(cls, images: Pixels | StoredImages) -> StoredImages:
        """Return stored images; those of an array that is mapped from a file with a name stay in that file."""
        if isinstance(images, StoredImages):
            return images
        name = getattr(images, "filename", None)  # a memmap has one
        return cls((np.asarray(images) if name is None else ImageFile(Path(name).absolute(), images.shape),))

    @classmethod
    def joined(cls, *images: StoredImages) -> StoredImages:
        """Return all of these images, one after another."""
        parts = tuple(part for stored in images for part in stored.parts)
        if all(stored.rows is None for stored in images):
            return cls(parts)
        starts = np.cumsum([0, *(stored.stored_rows for stored in images)])
        numbers = [np.arange(stored.stored_rows) if stored.rows is None else stored.rows for stored in images]
        return cls(parts, np.concatenate([start + rows for start, rows in zip(starts, numbers, strict=False)]))

    def select(self, rows: Rows) -> StoredImages:
        """Return some of these images, in this order."""
        known = None if self.known is None else self.known[rows]
        return StoredImages(self.parts, rows if self.rows is None else self.rows[rows], known)

    @property
    def stored_rows(self) -> int:
        """The number of rows of all parts, whether they are among `rows` or not."""
        return sum(part.shape[0] for part in self.parts)

    @property
    def uniform(self) -> bool:
        """True if all parts hold images of one shape, and so are arrays."""
        packed = any(isinstance(part, Packed | PackedFile | Gathered) for part in self.parts)
        return not packed and len({part.shape[1:] for part in self.parts}) == 1

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the array that they are indexed like, but for N that of the first part."""
        return (len(self), *self.parts[0].shape[1:])

    @property
    def nbytes(self) -> int:
        """The bytes that they would take in memory."""
        return math.prod(self.shape) if self.uniform else int(self.facts["length"].sum())

    def __len__(self) -> int:
        return self.stored_rows if self.rows is None else len(self.rows)

    def __getitem__(self, key: int | np.integer | slice | Rows) -> Pixels:
        """Return a copy of some of the images."""
        if isinstance(key, int | np.integer):
            image: Pixels = self[np.array([key])][0]
            return image
        rows = np.arange(*key.indices(len(self))) if isinstance(key, slice) else key
        if not self.uniform:
            centers = [_center_crop(picture, self.shape) for picture in self.pictures(rows)]
            return np.stack(centers) if centers else np.empty((0, *self.shape[1:]), np.uint8)
        rows = self._stored(rows)
        if len(self._opened) == 1 and not isinstance(only := self._opened[0], Packed | Gathered):
            return _copy_rows(only, rows)
        images = np.empty((len(rows), *self.shape[1:]), dtype=np.uint8)
        for array, inside, numbers in self._by_part(rows):
            images[inside] = _copy_rows(array, numbers)
        return images

    def __iter__(self) -> Iterator[Pixels]:
        return (image for portion in portions(self.shape) for image in self[portion])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self.as_array(), dtype)

    def picture(self, row: int) -> Pixels:
        """Return a picture as it is stored, whole: uint8 [height, width, channels], not copied."""
        return next(self.pictures(np.array([row])))

    def pictures(self, rows: Rows) -> Iterator[Pixels]:
        """Yield the pictures of `rows` as `picture` returns them; the disk is asked for all of them at once."""
        for array, number in self._located(rows):
            yield array.picture(number) if isinstance(array, Packed | Gathered) else array[number]

    def contents(self, rows: Rows) -> Iterator[NDArray[np.uint8]]:
        """Yield the bytes of the pictures of `rows` as they are stored."""
        for array, number in self._located(rows):
            yield array.bytes_of(number) if isinstance(array, Packed) else array[number].reshape(-1)

    def sizes(self, rows: Rows) -> NDArray[np.int64]:
        """Return height and width of the stored pictures of `rows`, int64 [2, B]."""
        if self.uniform:
            return np.repeat(np.array([self.shape[1:3]]).T, len(rows), axis=1)
        sizes = np.empty((2, len(rows)), dtype=np.int64)
        for array, inside, numbers in self._by_part(self._stored(rows)):
            many = isinstance(array, Packed | Gathered)
            sizes[:, inside] = array.sizes(numbers) if many else np.array(array.shape[1:3])[:, None]
        return sizes

    def as_array(self) -> Pixels:
        """Return all of them as an array; those of a single file are mapped rather than copied."""
        return np.asarray(self._opened[0]) if self.uniform and len(self.parts) == 1 and self.rows is None else self[:]

    def held(self) -> StoredImages:
        """Return the same images, which are of one shape, as an array with the facts about them."""
        return StoredImages((self.as_array(),), known=np.array(self.facts))

    def mean_and_variance(self, rows: Rows) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return mean and variance [C] of all pixels of the pictures of `rows`, exact but for the last rounding."""
        facts, channels = self.facts[rows], self.shape[3]
        pixels = int((facts["height"].astype(np.int64) * facts["width"]).sum())
        sums, squares = (facts[name][:, :channels].sum(axis=0) for name in ("sums", "squares"))
        mean = sums / pixels
        return mean, np.maximum(squares / pixels - mean**2, 0)

    def digests(self) -> NDArray[np.void]:
        """Return 16 bytes for each picture, V16 [N], which are equal for pictures that look the same."""
        digests: NDArray[np.void] = np.ascontiguousarray(self.facts["digest"])
        return digests

    def digest(self) -> str:
        """Return 64 hex digits that are equal for equal pictures in equal order."""
        return hashlib.sha256(self.digests().tobytes()).hexdigest()

    @cached_property
    def facts(self) -> Facts:
        """The facts about the pictures, [N] of the type `FACTS`: read if they are stored, else computed."""
        if self.known is not None:
            return self.known
        found = [_facts(part, opened) for part, opened in zip(self.parts, self._opened, strict=True)]
        facts = found[0] if len(found) == 1 else np.concatenate(found) if found else np.empty(0, FACTS)
        return facts if self.rows is None else facts[self.rows]

    def _stored(self, rows: Rows) -> Rows:
        """Return `rows` as rows of all parts; raise IndexError if there is no such row."""
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"rows {rows.min()} to {rows.max()} of {len(self)}")
        return rows if self.rows is None else self.rows[rows]

    def _by_part(self, rows: Rows) -> Iterator[tuple[Any, NDArray[np.bool_], Rows]]:
        """Yield each opened part, which of `rows` (of all parts) are in it, and their numbers there."""
        start = 0
        for array in self._opened:
            inside = (rows >= start) & (rows < start + len(array))
            yield array, inside, rows[inside] - start
            start += len(array)

    def _located(self, rows: Rows) -> Iterator[tuple[Any, int]]:
        """Yield, for each of `rows`, its opened part and its number there, after the disk was asked for all of them."""
        rows = self._stored(rows)
        place: list[tuple[Any, int]] = [(None, 0)] * len(rows)
        for array, inside, numbers in self._by_part(rows):
            _announce(array, numbers)
            for index, number in zip(np.flatnonzero(inside).tolist(), numbers.tolist(), strict=True):
                place[index] = array, number
        return iter(place)

    @cached_property
    def _opened(self) -> tuple[Pixels | Packed | Gathered, ...]:
        return tuple(part.open() if isinstance(part, ImageFile | PackedFile) else part for part in self.parts)

    def __getstate__(self) -> dict[str, Any]:
        return {"parts": self.parts, "rows": self.rows, "known": self.known}  # without the mapped arrays


def gathered(pictures: Sequence[Pixels]) -> StoredImages:
    """Return pictures in memory, [h, w, C] each, as stored images; those of one shape are copied to an array."""
    if len({picture.shape for picture in pictures}) == 1:
        return StoredImages((np.stack(pictures),))
    return StoredImages((Gathered(tuple(pictures)),))


def _facts(part: Part, opened: Pixels | Packed | Gathered) -> Facts:
    """Return the facts about a part's pictures."""
    if isinstance(opened, Packed):
        return opened.facts
    if isinstance(opened, Gathered):
        return table(iter(opened.pictures))
    if isinstance(part, ImageFile):
        located = part.locate(part.path) if part.locate else part.path
        if (beside := facts_beside(located)) != located and beside.exists():
            stored: Facts = np.load(beside, mmap_mode="r")
            return stored
    return table(image for portion in portions(opened.shape) for image in opened[portion])


def _center_crop(picture: Pixels, shape: tuple[int, ...]) -> Pixels:
    """Return the center crop of a picture, scaled to the height, width and channels in `shape`, [N, H, W, C]."""
    from PIL import Image, ImageOps

    height, width, channels = shape[1:]
    if picture.shape[:2] != (height, width):
        image = Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture)
        picture = np.asarray(ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR))
        picture = picture[..., np.newaxis] if picture.ndim == 2 else picture
    return in_channels(picture, channels)


def portions(shape: tuple[int, ...]) -> list[slice]:
    """Return slices that cover all rows of images of this shape, [N, H, W, C], each of them small beside any memory."""
    rows = max(1, min(PORTION_ROWS, PORTION_BYTES // math.prod(shape[1:])))
    return [slice(start, start + rows) for start in range(0, shape[0], rows)]


def _copy_rows(array: Pixels, rows: Rows) -> Pixels:
    """Return a copy of some rows."""
    _announce(array, rows)
    return np.asarray(array).take(rows, axis=0)


def _announce(array: Pixels | Packed | Gathered, rows: Rows) -> None:
    """Start to read all of some rows of a mapped file, before anybody waits for the first of them.

    That is ten times as fast as reading one after another, on a disk that can serve many reads at a time.
    """
    content: Any = array.content if isinstance(array, Packed) else array
    if not (isinstance(content, np.memmap) and isinstance(content.base, mmap.mmap) and hasattr(mmap, "MADV_WILLNEED")):
        return
    first = content.offset % mmap.ALLOCATIONGRANULARITY
    if isinstance(array, Packed):
        starts, lengths = array.facts["start"][rows], array.facts["length"][rows]
    else:
        size = math.prod(array.shape[1:])
        starts, lengths = rows * size, np.full(len(rows), size)
    for begin, length in zip((first + starts).tolist(), lengths.tolist(), strict=True):
        page = begin // mmap.PAGESIZE * mmap.PAGESIZE
        content.base.madvise(mmap.MADV_WILLNEED, page, begin - page + length)
