"""Pictures of different sizes, one after another in one file, and the facts about each picture that are computed once.

A picture's facts are where it lies, its size, a digest of its pixels and the sums from which the mean and deviation of
any rows follow. They stand in a table beside the pixels, so that no later process reads pixels to learn them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""Images, [N, H, W, C] with C 1 (grey) or 3 (RGB), 0 to 255."""

Facts = NDArray[np.void]
"""Facts about pictures, [N] of the type `FACTS`."""

DIGEST_BYTES = 16

QUALITY, SUBSAMPLING = 95, "420"  # of pictures that are kept as JPEG
FACTS = np.dtype(
    [
        ("start", "<i8"),  # of the picture's bytes in the file
        ("length", "<i8"),  # bytes; fewer than it has pixels' values if it is kept as JPEG
        ("height", "<i4"),  # pixels
        ("width", "<i4"),
        ("channels", "<i4"),  # 1 for a grey picture, 3 for a colored one
        ("digest", f"V{DIGEST_BYTES}"),  # equal if two pictures look the same
        ("sums", "<u8", (3,)),  # of the values of red, green and blue; of a grey picture all three are the same
        ("squares", "<u8", (3,)),  # of their squares
    ]
)


def facts_of(picture: Pixels) -> Facts:
    """Return the facts about one picture, [H, W, C], as an array without dimensions; it lies at the file's start."""
    height, width, channels = picture.shape
    facts = np.zeros((), FACTS)
    facts["length"], facts["height"], facts["width"], facts["channels"] = picture.size, height, width, channels
    facts["digest"] = np.void(digest(picture))
    for name, values in (("sums", picture), ("squares", np.square(picture, dtype=np.uint16))):
        kind = np.uint32 if height < 2**16 else np.uint64  # the sum of so many squares still fits
        columns = values.reshape(height, -1).sum(axis=0, dtype=kind)  # over whole rows of pixels: that is fast
        facts[name] = columns.reshape(width, channels).sum(axis=0, dtype=np.uint64)
    return facts


def digest(picture: Pixels) -> bytes:
    """Return 16 bytes that are equal for pictures [H, W, C] that look the same; grey may have one channel or three."""
    hashed = hashlib.sha256(b"%d %d " % picture.shape[:2])
    hashed.update(in_channels(picture, 3).data)
    return hashed.digest()[:DIGEST_BYTES]


def in_channels(picture: Pixels, channels: int) -> Pixels:
    """Return a picture [H, W, C] with so many channels, contiguous: a grey one may be asked for with three."""
    return np.ascontiguousarray(np.repeat(picture, channels // picture.shape[2], axis=2))


@dataclass(frozen=True, eq=False)
class Packed:
    """Pictures of different sizes in memory, or mapped from files. Each is whole, and has the channels that it had."""

    content: NDArray[np.uint8]  # [bytes]
    facts: Facts  # [N]

    def __len__(self) -> int:
        return len(self.facts)

    @cached_property
    def shape(self) -> tuple[int, int, int, int]:
        """N, the longest shorter side of all pictures, twice, and the largest number of channels."""
        shorter = np.minimum(self.facts["height"], self.facts["width"])
        side, channels = int(shorter.max(initial=1)), int(self.facts["channels"].max(initial=1))
        return len(self), side, side, channels

    def picture(self, row: int) -> Pixels:
        """Return a picture, [height, width, channels], without copying it; one that is kept as JPEG is decoded."""
        facts, content = self.facts[row], self.bytes_of(row)
        shape = int(facts["height"]), int(facts["width"]), int(facts["channels"])
        return content.reshape(shape) if len(content) == math.prod(shape) else _from_jpeg(content, shape[2])

    def sizes(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return height and width of the pictures of `rows`, int64 [2, B]."""
        return np.stack([self.facts["height"][rows], self.facts["width"][rows]]).astype(np.int64)

    def bytes_of(self, row: int) -> NDArray[np.uint8]:
        """Return a picture's bytes as they are stored, without copying them."""
        start, length = int(self.facts["start"][row]), int(self.facts["length"][row])
        stored: NDArray[np.uint8] = np.asarray(self.content[start : start + length])
        return stored


@dataclass(frozen=True)
class PackedFile:
    """Pictures of different sizes in a file, with the table of their facts beside it. Pickled, it is their paths."""

    path: Path  # absolute; in the format of `numpy.save`, [bytes]
    shape: tuple[int, ...]  # as that of `Packed`, but of the whole data set, of which this may be a part
    locate: Callable[[Path], Path] | None = None  # returns the file's path on a machine that may not share `path`

    def open(self) -> Packed:
        """Map the files, read-only; raise what `locate` raises."""
        path = self.locate(self.path) if self.locate else self.path
        return Packed(np.load(path, mmap_mode="r"), np.load(facts_beside(path), mmap_mode="r"))


def facts_beside(path: Path) -> Path:
    """Return the path of the table of facts about the pictures in the cache's file `path`, which may not exist."""
    return path.with_name(path.name.replace("images", "facts"))


class Packer:
    """Writes pictures into an open file, one after another, in the order in which they come."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._facts: list[Facts] = []
        self._end = self._values = 0

    def add(self, picture: Pixels | bytes, facts: Facts) -> None:
        """Write a picture, [H, W, C] or as JPEG; `facts` are those of `facts_of`. Raise OSError if the disk is full."""
        content = picture if isinstance(picture, bytes) else np.ascontiguousarray(picture).data
        facts["start"] = self._end
        facts["length"] = len(picture) if isinstance(picture, bytes) else picture.size
        self._file.write(content)
        self._facts.append(facts)
        self._end += int(facts["length"])
        self._values += int(facts["height"]) * int(facts["width"]) * int(facts["channels"])

    def pixel_bytes(self, total: int) -> float:
        """Return the bytes that the pixels of `total` pictures may take, by the mean of those written so far."""
        return self._values / max(1, len(self._facts)) * total

    def __len__(self) -> int:
        return len(self._facts)

    def packed(self) -> Packed:
        """Return the pictures that were written, mapped from the file, which may have lost its name."""
        self._file.flush()
        content: Any = np.memmap(self._file, np.uint8, "r") if self._end else np.empty(0, np.uint8)
        return Packed(content, np.stack(self._facts) if self._facts else np.empty(0, FACTS))


def one_shape(facts: Facts) -> tuple[int, int] | None:
    """Return the height and width of all pictures; None if they differ, some are JPEG, or there are none."""
    if has_jpeg(facts):
        return None
    sizes = np.unique(np.stack([facts["height"], facts["width"]], axis=1), axis=0)
    return (int(sizes[0, 0]), int(sizes[0, 1])) if len(sizes) == 1 else None


def has_jpeg(facts: Facts) -> bool:
    """Return whether some of the pictures are kept as JPEG."""
    values = facts["height"].astype(np.int64) * facts["width"] * facts["channels"]
    return bool((facts["length"] < values).any())


def as_jpeg(picture: Pixels) -> bytes | Pixels:
    """Return a picture [H, W, C] as JPEG; the picture itself if that takes no fewer bytes."""
    import simplejpeg

    color = {"colorspace": "GRAY" if picture.shape[2] == 1 else "RGB", "colorsubsampling": SUBSAMPLING}
    encoded: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(picture), QUALITY, **color)
    return encoded if len(encoded) < picture.size else picture


def _from_jpeg(content: NDArray[np.uint8], channels: int) -> Pixels:
    import simplejpeg

    decoded: Pixels = simplejpeg.decode_jpeg(content, "GRAY" if channels == 1 else "RGB")
    return decoded


def table(pictures: Sequence[Pixels] | Iterator[Pixels]) -> Facts:
    """Return the facts about pictures that lie one after another."""
    rows = [facts_of(picture) for picture in pictures]
    facts = np.stack(rows) if rows else np.empty(0, FACTS)
    facts["start"] = np.cumsum(facts["length"]) - facts["length"]
    return facts
