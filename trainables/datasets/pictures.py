"""Encoded images (JPEG, PNG, whatever Pillow reads) to one array of pixels, by all cores."""

from __future__ import annotations

import io
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from trainables.datasets.source import DatasetError, Pixels, Progress

_GREY = ("1", "L", "LA")
_AHEAD = 64  # batches in flight: enough for any number of cores, little beside the decoded images


@dataclass(frozen=True)
class Batch:
    """Some encoded images, and where they stand, for messages."""

    file: str
    first_row: int
    encoded: Sequence[bytes | None]


def decode(batches: Iterable[Batch], total: int, progress: Progress) -> Pixels:
    """uint8 [total, H, W, C] in the order of the batches: C is 1 when all images are grey, else 3.

    Raises:
        DatasetError: naming file and row of an image that cannot be read, or the sizes where they differ.
    """
    decoded: list[Pixels] = []
    sizes: Counter[str] = Counter()
    with ThreadPoolExecutor() as pool:
        for images in _in_order(pool, batches):
            sizes.update(f"{image.shape[1]}×{image.shape[0]}" for image in images)
            if len(sizes) == 1:  # else nothing is kept, but the sizes are counted to the end, for the message
                decoded.append(_stacked(images))
            progress("decoding images", sizes.total(), total)
    if len(sizes) > 1:
        found = ", ".join(f"{size} ({rows} rows)" for size, rows in sizes.most_common(5))
        raise DatasetError(
            f"images of {len(sizes)} sizes: {found}{' …' if len(sizes) > 5 else ''}; "
            "all must have one size for now: resize them first"
        )
    return _stacked(decoded, join=True)


def pixels(encoded: bytes) -> Pixels:
    """One image as uint8 [H, W, C], C 1 if it is grey and 3 if not; transparency is dropped.

    Raises:
        Exception: what Pillow raises for bytes it cannot read; ValueError for more than 8 bits a channel.
    """
    from PIL import Image

    with Image.open(io.BytesIO(encoded)) as image:
        if image.mode in ("I", "F") or image.mode.startswith("I;"):
            raise ValueError(f"more than 8 bits a channel (Pillow's mode {image.mode}); convert it to 8 bits")
        if image.mode in _GREY:
            return np.asarray(image.convert("L"))[..., np.newaxis]
        return np.asarray(image.convert("RGB"))


def _decode_batch(batch: Batch) -> list[Pixels]:
    return [_decode_row(batch, row) for row in range(len(batch.encoded))]


def _decode_row(batch: Batch, row: int) -> Pixels:
    where = f"{batch.file}, row {batch.first_row + row}"
    encoded = batch.encoded[row]
    if encoded is None:
        raise DatasetError(f"{where}: no image bytes; images must be embedded, not only named")
    try:
        return pixels(encoded)
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error and more
        raise DatasetError(f"{where}: the image cannot be read: {error}") from error


def _in_order(pool: ThreadPoolExecutor, batches: Iterable[Batch]) -> Iterator[list[Pixels]]:
    """`pool.map` that does not read all of `batches` at once."""
    running: deque[Future[list[Pixels]]] = deque()
    try:
        for batch in batches:
            running.append(pool.submit(_decode_batch, batch))
            if len(running) > _AHEAD:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        for future in running:  # after an error nobody wants the rest
            future.cancel()


def _stacked(images: Sequence[Pixels], join: bool = False) -> Pixels:
    """Images [H, W, C] as one [N, H, W, C], or with `join` such arrays end to end; grey turns RGB by RGB."""
    channels = max(image.shape[-1] for image in images)
    alike = [np.repeat(image, channels // image.shape[-1], axis=-1) for image in images]
    return np.concatenate(alike) if join else np.stack(alike)
