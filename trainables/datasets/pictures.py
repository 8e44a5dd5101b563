"""Decode the pictures of a data set to whole pictures in one file, with what was found out about them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainables.datasets import colors, decoder
from trainables.datasets.decoder import Picture, Reserve
from trainables.datasets.inventory import Inventory, Tally
from trainables.datasets.packed import QUALITY, Facts, Packer, as_jpeg, facts_of, has_jpeg, one_shape
from trainables.datasets.pipeline import Batch, attempt, each
from trainables.datasets.reading import Reading
from trainables.datasets.source import Decoded, Pixels, Progress
from trainables.datasets.stored_images import StoredImages
from trainables.errors import DatasetError

__all__ = ["Batch", "Pictures", "attempt", "decode", "decode_like", "each", "finish", "fitted"]


PIXELS_LIMIT = 2**33
"""Bytes of a data set's pixels. If there are more, pictures are kept as JPEG: pixels are faster while they fit into
memory, but from a disk they come more slowly than CPUs decode. See docs/performance.md."""

SAMPLE = 256  # pictures, from whose mean size that of all is estimated
KEPT_AS_JPEG = f"pictures are kept as JPEG of quality {QUALITY}: their pixels would take over {PIXELS_LIMIT >> 30} GiB"


@dataclass(frozen=True, eq=False)
class Pictures:
    """Whole pictures, and the rows that they are."""

    images: StoredImages  # in a file without a name, which goes when they do
    kept: NDArray[np.bool_]  # [rows], False for an image that cannot be read
    unreadable: tuple[str, ...]  # place and reason, in the order of rows
    side: int | None  # pixels, the longest shorter side of pictures of different sizes; None: all have one shape
    file_digests: NDArray[np.void]  # 16 bytes for each image: equal for equal files
    inventory: Inventory  # formats, sizes and notes alone
    background: tuple[int, int, int]  # the color that transparent ones were put on


def decode(
    batches: Callable[[], Iterable[Batch]], total: int, progress: Progress, reading: Reading, scratch: Path
) -> Pictures:
    """Decode `batches` in order, each picture whole and for itself, leaving out those that cannot be read.

    A picture whose shorter side is longer than `reading.stored_side` is scaled down to that, whatever the others are.
    Grey ones have one channel, all others three.

    Raises:
        DatasetError: none of them can be read.
        OSError: the disk of the folder `scratch` is full.
    """
    return _decode(batches(), total, progress, reading, None, scratch)


def decode_like(
    batches: Iterable[Batch], total: int, progress: Progress, reading: Reading, channels: int, scratch: Path
) -> Pictures:
    """Decode the images of `batches` as `decode` does, but all as grey if `channels` is 1.

    Raises:
        DatasetError, OSError: as `decode`.
    """
    return _decode(batches, total, progress, reading, 1 if channels == 1 else None, scratch)


def finish(
    decoded: Pictures, labels: NDArray[np.int64], classes: tuple[str, ...], test: NDArray[np.bool_] | None
) -> Decoded:
    """Return the data set of the rows whose images were read; `labels` and `test` are those of all rows."""
    kept = decoded.kept
    return Decoded(
        decoded.images,
        labels[kept],
        classes,
        None if test is None else test[kept],
        decoded.unreadable,
        decoded.side,
        decoded.inventory,
        decoded.background,
        decoded.file_digests,
    )


def _decode(
    batches: Iterable[Batch], total: int, progress: Progress, reading: Reading, channels: int | None, scratch: Path
) -> Pictures:
    """Write the pictures into one file, with so many channels or those that each has; raise what `decode` raises."""

    def read(encoded: bytes, reserve: Reserve) -> tuple[Picture, Pixels | bytes, Facts]:
        picture = decoder.read(encoded, reading.background, reading.stored_side, reserve)
        stored = fitted(picture.pixels, None, channels)
        many = len(packer) >= SAMPLE and packer.pixel_bytes(total) > PIXELS_LIMIT
        return picture, as_jpeg(stored) if many else stored, facts_of(stored)

    kept = np.zeros(total, dtype=np.bool_)
    unreadable: list[str] = []
    tally, digests = Tally(), bytearray()
    with tempfile.TemporaryFile(dir=scratch, buffering=2**20) as file:  # its memory map outlives it
        packer = Packer(file)
        for row, (place, found) in enumerate(each(batches, read)):
            if isinstance(found, str):
                unreadable.append(f"{place}: {found}")
            else:
                picture, stored, facts = found
                packer.add(stored, facts)
                tally.add(picture.format, picture.size, picture.treatments)
                digests += picture.digest
                kept[row] = True
            if (row + 1) % 256 == 0 or row + 1 == total:
                progress("decoding images", row + 1, total)
        if not kept.any():
            raise DatasetError(*(unreadable[:5] or ["there are no images"]))
        packed = packer.packed()
    inventory = tally.complete(Inventory(), reading.background)
    if has_jpeg(packed.facts):
        inventory = replace(inventory, notes=(*inventory.notes, KEPT_AS_JPEG))
    return Pictures(
        StoredImages((packed,)),
        kept,
        tuple(unreadable),
        None if one_shape(packed.facts) else packed.shape[1],
        np.frombuffer(bytes(digests), f"V{decoder.DIGEST_BYTES}"),
        inventory,
        colors.parse(reading.background),
    )


def fitted(whole: Pixels, size: tuple[int, int] | None = None, channels: int | None = None) -> Pixels:
    """Return a picture, uint8 [h, w, 1 or 3], scaled and center-cropped to a height and width, grey or RGB."""
    from PIL import Image, ImageOps

    if (size is None or whole.shape[:2] == size) and channels in (None, whole.shape[2]):
        return whole
    image = Image.fromarray(whole[..., 0] if whole.shape[2] == 1 else whole)
    if channels is not None:
        image = image.convert("L" if channels == 1 else "RGB")
    if size is not None and image.size != size[::-1]:
        image = ImageOps.fit(image, size[::-1], Image.Resampling.BICUBIC)
    array = np.asarray(image)
    return array[..., np.newaxis] if array.ndim == 2 else array
