"""Encoded images (JPEG, PNG, whatever Pillow reads) to one array of pixels, by all cores."""

from __future__ import annotations

import io
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trainables import hardware
from trainables.datasets.source import Decoded, Pixels, Progress
from trainables.errors import DatasetError

if TYPE_CHECKING:
    from PIL import Image

SHORT_SIDE = 320
"""Pixels. Images of many sizes are stored no larger, unless told otherwise: enough for random crops resized to 224."""

_THUMBNAIL = 4096
"""Bytes. Images that take less when encoded are decoded in microseconds, most of them Python's: threads would only wait
for its lock, and make others wait."""

_GREY = ("1", "L", "LA")
_THREADS = min(32, hardware.usable_cpus())
_AHEAD = 2 * _THREADS  # batches in flight: no thread waits for the next, and few images are in memory


@dataclass(frozen=True)
class Batch:
    """Some encoded images, or the files that hold them, and where they stand, for messages."""

    file: str
    first_row: int
    encoded: Sequence[bytes | Path | None]

    @property
    def thumbnails(self) -> bool:
        """Whether no thread is worth its while."""
        return all(image is None or (isinstance(image, bytes) and len(image) < _THUMBNAIL) for image in self.encoded)

    def where(self, row: int) -> str:
        found = self.encoded[row]
        place = f"{self.file}, row {self.first_row + row}" if self.file else ""
        return place if not isinstance(found, Path) else f"{place}: {found}" if place else str(found)


@dataclass(frozen=True, eq=False)
class Pictures:
    """Images of one size, and which of all rows they are."""

    images: Pixels  # mapped from a file without a name, which is gone when they are
    kept: NDArray[np.bool_]  # [rows], False for an image that cannot be read
    unreadable: tuple[str, ...]  # where, and why; in the order of rows
    side: int | None = None  # pixels, of the squares that images of different sizes were made


def decode(
    batches: Callable[[], Iterable[Batch]], total: int, progress: Progress, stored_side: int, scratch: Path
) -> Pictures:
    """The images of `batches`, in their order; C is 1 when all are grey, else 3. What cannot be read is left out.

    Images of different sizes are scaled to one short side, the largest there is but at most `stored_side` pixels, and
    cut to a square about their middle.

    Raises:
        DatasetError: none of them can be read.
        OSError: there is no room for them in the folder `scratch`.
    """
    read, side = pixels, None
    while True:
        try:
            return replace(_decode(batches(), total, progress, read, scratch), side=side)
        except _SizesDiffer:
            side = min(stored_side, max(min(size) for _, size in each(batches(), _size) if isinstance(size, tuple)))
            read = partial(read, size=(side, side))
        except _ColorsDiffer:
            read = partial(read, channels=3)


def decode_like(
    batches: Iterable[Batch], total: int, progress: Progress, shape: tuple[int, int, int], scratch: Path
) -> Pictures:
    """The images of `batches`, scaled and cut about their middle to the `shape` [H, W, C], grey or RGB as C says.

    Raises:
        DatasetError, OSError: as `decode`.
    """
    return _decode(batches, total, progress, lambda encoded: pixels(encoded, shape[:2], shape[2]), scratch)


def finish(
    found: Pictures, labels: NDArray[np.int64], classes: tuple[str, ...], test: NDArray[np.bool_] | None
) -> Decoded:
    """The data set of the rows whose images were read; `labels` and `test` are of all rows."""
    kept = found.kept
    return Decoded(
        found.images, labels[kept], classes, None if test is None else test[kept], found.unreadable, found.side
    )


class _SizesDiffer(Exception):  # noqa: N818 - not an error: another way is taken
    pass


class _ColorsDiffer(Exception):  # noqa: N818 - likewise
    pass


def _decode(
    batches: Iterable[Batch], total: int, progress: Progress, read: Callable[[bytes], Pixels], scratch: Path
) -> Pictures:
    """Images as `read` makes them, one after another in a file; raises as `decode`, or how they differ."""
    kept = np.zeros(total, dtype=np.bool_)
    unreadable: list[str] = []
    shape: tuple[int, ...] = ()
    with tempfile.TemporaryFile(dir=scratch, buffering=2**20) as file:  # what is mapped of it stays
        for row, (where, image) in enumerate(each(batches, read)):
            if isinstance(image, str):
                unreadable.append(f"{where}: {image}")
            else:
                shape = shape or image.shape
                if image.shape[:2] != shape[:2]:
                    raise _SizesDiffer
                if image.shape[2] > shape[2]:
                    raise _ColorsDiffer
                file.write(np.repeat(image, shape[2] // image.shape[2], axis=2).data)
                kept[row] = True
            if (row + 1) % 256 == 0 or row + 1 == total:
                progress("decoding images", row + 1, total)
        if not shape:
            raise DatasetError(*(unreadable[:5] or ["there are no images"]))
        file.flush()
        return Pictures(np.memmap(file, np.uint8, "r", shape=(kept.sum(), *shape)), kept, tuple(unreadable))


def pixels(encoded: bytes, size: tuple[int, int] | None = None, channels: int | None = None) -> Pixels:
    """One image as uint8 [H, W, C]; transparency is dropped.

    Args:
        size: height and width in pixels that it is scaled and cut to, about its middle.
        channels: C. By default 1 if the image is grey and 3 if not.

    Raises:
        Exception: what Pillow raises for bytes it cannot read; ValueError for more than 8 bits a channel.
    """
    from PIL import Image

    found = _plain_jpeg(encoded, size, channels)
    if found is not None:
        return found
    with Image.open(io.BytesIO(encoded)) as image:
        return image_pixels(image, size, channels)


def _plain_jpeg(encoded: bytes, size: tuple[int, int] | None, channels: int | None) -> Pixels | None:
    """A JPEG that has the size and the channels wanted, by libjpeg-turbo, which is also what Pillow decodes with.

    None for all else, and for a damaged one. Of a thumbnail Pillow takes five times as long, most of it in Python, so
    that a model that is at work beside it has to wait.
    """
    import simplejpeg

    if not encoded.startswith(b"\xff\xd8"):
        return None
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(encoded)
        own = {"Gray": 1, "YCbCr": 3, "RGB": 3}.get(space)
        if own is None or size not in (None, (height, width)) or channels not in (None, own):
            return None
        found: Pixels = simplejpeg.decode_jpeg(encoded, "Gray" if own == 1 else "RGB")
    except ValueError:
        return None
    return found


def image_pixels(image: Image.Image, size: tuple[int, int] | None = None, channels: int | None = None) -> Pixels:
    """As `pixels`, of an image that Pillow has opened or made."""
    from PIL import Image, ImageOps

    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        raise ValueError(f"more than 8 bits a channel (Pillow's mode {image.mode}); convert it to 8 bits")
    grey = image.mode in _GREY if channels is None else channels == 1
    if size is not None:
        image.draft(None, size[::-1])  # a JPEG need not be decoded larger than that
    mode = "L" if grey else "RGB"
    plain = image if image.mode == mode else image.convert(mode)  # both would copy what fits already
    if size is not None and plain.size != size[::-1]:
        plain = ImageOps.fit(plain, size[::-1], Image.Resampling.BICUBIC)
    found = np.asarray(plain)
    return found[..., np.newaxis] if found.ndim == 2 else found


def _size(encoded: bytes) -> tuple[int, int]:
    from PIL import Image

    with Image.open(io.BytesIO(encoded)) as image:
        return image.size


def each(batches: Iterable[Batch], read: Callable[[bytes], Any]) -> Iterator[tuple[str, Any]]:
    """Of every row where it stands, and what `read` makes of it; a sentence instead where that fails."""

    def of(batch: Batch) -> list[tuple[str, Any]]:
        return [(batch.where(row), attempt(batch.encoded[row], read)) for row in range(len(batch.encoded))]

    with ThreadPoolExecutor(_THREADS) as pool:
        for found in _in_order(pool, batches, of):
            yield from found


def attempt(encoded: bytes | Path | None, read: Callable[[bytes], Any]) -> Any:
    """What `read` makes of an image, or of the file that holds it; a sentence instead where that fails."""
    if encoded is None:
        return "no image bytes; images must be embedded, not only named"
    try:
        return read(encoded.read_bytes() if isinstance(encoded, Path) else encoded)
    except FileNotFoundError:
        return "there is no such file"
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error and more
        from PIL import UnidentifiedImageError

        if isinstance(error, UnidentifiedImageError):  # its own words name the bytes by their address, which changes
            return "the image cannot be read: it is in no format that Pillow knows"
        return f"the image cannot be read: {error}"


def _in_order(
    pool: ThreadPoolExecutor, batches: Iterable[Batch], work: Callable[[Batch], list[Any]]
) -> Iterator[list[Any]]:
    """`pool.map` that does not read all of `batches` at once."""
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
        for future in running:  # after an error nobody wants the rest
            future.cancel()
