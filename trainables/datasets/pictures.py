"""Decode images (JPEG, PNG and all that Pillow reads) to one array of pixels, on all cores."""

from __future__ import annotations

import io
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trainables import hardware
from trainables.datasets.packed import Facts, Packer, facts_of, one_shape
from trainables.datasets.source import Decoded, Pixels, Progress
from trainables.datasets.stored_images import StoredImages
from trainables.errors import DatasetError, shown
from trainables.files import UnreadableError, open_regular

if TYPE_CHECKING:
    from PIL import Image

_THUMBNAIL = 4096
"""Bytes. Smaller encoded images are decoded in microseconds, most of them spent in Python: threads would only wait for
its lock, and make others wait."""

_GREY = ("1", "L", "LA")
_THREADS = min(32, hardware.usable_cpus())
_AHEAD = 2 * _THREADS  # batches at a time: no thread waits for the next one, and few images are in memory


@dataclass(frozen=True)
class Batch:
    """Some encoded images, or the files that hold them, and their place, for messages."""

    file: str  # the table that holds or names them; empty without one
    rows: Sequence[int]  # the number of each image's row in that table, from 1
    encoded: Sequence[bytes | Path | None]

    @property
    def thumbnails(self) -> bool:
        """Return whether the images are so small that a thread costs more than it saves."""
        return all(image is None or (isinstance(image, bytes) and len(image) < _THUMBNAIL) for image in self.encoded)

    def place(self, row: int) -> str:
        """Return the place of the image at index `row` of this batch: its table's row, its file, or both."""
        image = self.encoded[row]
        place = f"{shown(self.file)}, row {self.rows[row]}" if self.file else ""
        return place if not isinstance(image, Path) else f"{place}: {shown(image)}" if place else shown(image)


@dataclass(frozen=True, eq=False)
class Pictures:
    """Whole pictures, and the rows that they are."""

    images: StoredImages  # in a file without a name, which goes when they do
    kept: NDArray[np.bool_]  # [rows], False for an image that cannot be read
    unreadable: tuple[str, ...]  # place and reason, in the order of rows
    side: int | None  # pixels, the longest shorter side of pictures of different sizes; None: all have one shape


def decode(
    batches: Callable[[], Iterable[Batch]], total: int, progress: Progress, stored_side: int, scratch: Path
) -> Pictures:
    """Decode `batches` in order, each picture whole and for itself, leaving out those that cannot be read.

    A picture whose shorter side is longer than `stored_side` pixels is scaled down to that, whatever the others are.
    Grey ones have one channel, all others three.

    Raises:
        DatasetError: none of them can be read.
        OSError: the disk of the folder `scratch` is full.
    """
    return _decode(batches(), total, progress, lambda encoded: whole(encoded, stored_side), scratch)


def decode_like(
    batches: Iterable[Batch], total: int, progress: Progress, stored_side: int, channels: int, scratch: Path
) -> Pictures:
    """Decode the images of `batches` as `decode` does, but all as grey if `channels` is 1.

    Raises:
        DatasetError, OSError: as `decode`.
    """
    wanted = 1 if channels == 1 else None
    return _decode(batches, total, progress, lambda encoded: whole(encoded, stored_side, wanted), scratch)


def finish(
    decoded: Pictures, labels: NDArray[np.int64], classes: tuple[str, ...], test: NDArray[np.bool_] | None
) -> Decoded:
    """Return the data set of the rows whose images were read; `labels` and `test` are those of all rows."""
    kept = decoded.kept
    return Decoded(
        decoded.images, labels[kept], classes, None if test is None else test[kept], decoded.unreadable, decoded.side
    )


def _decode(
    batches: Iterable[Batch], total: int, progress: Progress, read: Callable[[bytes], Pixels], scratch: Path
) -> Pictures:
    """Write the pictures that `read` returns into one file; raise what `decode` raises."""

    def read_with_facts(encoded: bytes) -> tuple[Pixels, Facts]:
        picture = read(encoded)
        return picture, facts_of(picture)

    kept = np.zeros(total, dtype=np.bool_)
    unreadable: list[str] = []
    with tempfile.TemporaryFile(dir=scratch, buffering=2**20) as file:  # its memory map outlives it
        packer = Packer(file)
        for row, (place, found) in enumerate(each(batches, read_with_facts)):
            if isinstance(found, str):
                unreadable.append(f"{place}: {found}")
            else:
                packer.add(*found)
                kept[row] = True
            if (row + 1) % 256 == 0 or row + 1 == total:
                progress("decoding images", row + 1, total)
        if not kept.any():
            raise DatasetError(*(unreadable[:5] or ["there are no images"]))
        packed = packer.packed()
    side = None if one_shape(packed.facts) else packed.shape[1]
    return Pictures(StoredImages((packed,)), kept, tuple(unreadable), side)


def whole(encoded: bytes, stored_side: int, channels: int | None = None) -> Pixels:
    """Decode one picture to uint8 [H, W, C], scaled down so that its shorter side has at most `stored_side` pixels."""
    from PIL import Image

    with Image.open(io.BytesIO(encoded)) as image:
        shorter = min(image.size)
        if shorter <= stored_side:
            return pixels(encoded, None, channels)
        width, height = (max(1, round(length * stored_side / shorter)) for length in image.size)
        return image_pixels(image, (height, width), channels)


def pixels(encoded: bytes, size: tuple[int, int] | None = None, channels: int | None = None) -> Pixels:
    """Decode one image to uint8 [H, W, C]; transparency is dropped.

    Args:
        size: height and width in pixels that it is scaled and center-cropped to.
        channels: C. By default 1 if the image is grey and 3 if not.

    Raises:
        Exception: whatever Pillow raises for bytes that it cannot read; ValueError for more than 8 bits a channel.
    """
    from PIL import Image

    decoded = _plain_jpeg(encoded, size, channels)
    if decoded is not None:
        return decoded
    with Image.open(io.BytesIO(encoded)) as image:
        return image_pixels(image, size, channels)


def _plain_jpeg(encoded: bytes, size: tuple[int, int] | None, channels: int | None) -> Pixels | None:
    """Decode a JPEG that has this size and these channels, with libjpeg-turbo, which Pillow uses, too.

    Return None for all other images, and for a damaged one. For a thumbnail Pillow takes five times as long, most of it
    in Python, so that a model that runs at the same time has to wait.
    """
    import simplejpeg

    if not encoded.startswith(b"\xff\xd8"):
        return None
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(encoded)
        stored = {"Gray": 1, "YCbCr": 3, "RGB": 3}.get(space)
        if stored is None or size not in (None, (height, width)) or channels not in (None, stored):
            return None
        decoded: Pixels = simplejpeg.decode_jpeg(encoded, "Gray" if stored == 1 else "RGB")
    except ValueError:
        return None
    return decoded


def image_pixels(image: Image.Image, size: tuple[int, int] | None = None, channels: int | None = None) -> Pixels:
    """Return the pixels of an image that Pillow has opened or made; see `pixels`."""
    from PIL import Image, ImageOps

    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        raise ValueError(f"more than 8 bits a channel (Pillow's mode {image.mode}); convert it to 8 bits")
    grey = image.mode in _GREY if channels is None else channels == 1
    if size is not None:
        image.draft(None, size[::-1])  # a JPEG need not be decoded larger than that
    mode = "L" if grey else "RGB"
    plain = image if image.mode == mode else image.convert(mode)  # each step is skipped if it would only copy
    if size is not None and plain.size != size[::-1]:
        plain = ImageOps.fit(plain, size[::-1], Image.Resampling.BICUBIC)
    array = np.asarray(plain)
    return array[..., np.newaxis] if array.ndim == 2 else array


def each(batches: Iterable[Batch], read: Callable[[bytes], Any]) -> Iterator[tuple[str, Any]]:
    """Yield the place of every row and what `read` returns for it, or a message if that fails."""

    def read_batch(batch: Batch) -> list[tuple[str, Any]]:
        return [(batch.place(row), attempt(batch.encoded[row], read)) for row in range(len(batch.encoded))]

    with ThreadPoolExecutor(_THREADS) as pool:
        for results in _in_order(pool, batches, read_batch):
            yield from results


def attempt(encoded: bytes | Path | None, read: Callable[[bytes], Any]) -> Any:
    """Return what `read` returns for an image, or for the file that holds it; a message if that fails."""
    if encoded is None:
        return "no image bytes; images must be embedded, not only named"
    try:
        if isinstance(encoded, Path):
            with open_regular(encoded) as file:
                encoded = file.read()
        return read(encoded)
    except UnreadableError as error:
        return str(error)
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error and more
        from PIL import UnidentifiedImageError

        if isinstance(error, UnidentifiedImageError):  # its own text names the bytes by their address, which changes
            return "the image cannot be read: it is in no format that Pillow knows"
        return f"the image cannot be read: {error}"


def _in_order(
    pool: ThreadPoolExecutor, batches: Iterable[Batch], work: Callable[[Batch], list[Any]]
) -> Iterator[list[Any]]:
    """Yield the result of `work` for each batch, in order; unlike `pool.map`, do not read all of `batches` at once."""
    running: deque[Future[list[Any]]] = deque()
    try:
        for batch in batches:
            if not running and batch.thumbnails:
                yield work(batch)
                continue
            running.append(pool.submit(work, batch))
            if len(running) > _AHEAD:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        for future in running:  # after an error the rest is not needed
            future.cancel()
