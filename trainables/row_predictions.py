"""What a model predicted for each row, as text: enough to compute its metrics of other draws of the rows.

The text is base64 of bytes compressed by zlib: the bytes of a class number, one byte; then for all rows the labels, the
predictions less the labels, the losses as float16, each with the first bytes of all numbers before the second ones; and
eight rows a byte, whether the label is among the `TOP` likeliest classes. 10,000 rows of 10 classes take some 35 kB.
"""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

HIGHEST = float(np.finfo(np.float16).max)
WIDTHS: dict[int, np.dtype[Any]] = {width: np.dtype(f"<u{width}") for width in (1, 2, 4)}
"""Bytes of a class number → its type."""
LOSS = np.dtype("<f2")


@dataclass(frozen=True, eq=False)
class RowPredictions:
    """The predictions of N rows."""

    labels: NDArray[np.int64]  # [N]
    predictions: NDArray[np.int64]  # [N]
    losses: NDArray[np.float32]  # [N], cross-entropy: minus the logarithm of the label's probability
    in_top: NDArray[np.bool_]  # [N], of at most 5 classes all True

    def pack(self) -> str:
        """Return the predictions as text."""
        highest = int(max(self.labels.max(initial=0), self.predictions.max(initial=0)))
        width = next(width for width, kind in WIDTHS.items() if highest <= np.iinfo(kind).max)
        labels = self.labels.astype(WIDTHS[width])
        others = self.predictions.astype(WIDTHS[width]) - labels  # modulo the type's range
        losses = np.minimum(np.where(np.isnan(self.losses), HIGHEST, self.losses), HIGHEST).astype(LOSS)
        planes = b"".join(_planes(numbers) for numbers in (labels, others, losses))
        content = bytes([width]) + planes + np.packbits(self.in_top).tobytes()
        return base64.b64encode(zlib.compress(content)).decode()

    @classmethod
    def unpack(cls, text: str, rows: int) -> RowPredictions:
        """Return the predictions of so many rows that were packed; losses to three digits.

        Raises:
            ValueError: the text holds something else.
        """
        try:
            content = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), 11 * rows + 2)
        except zlib.error as error:
            raise ValueError(str(error)) from error
        width = content[0] if content else 0
        if width not in WIDTHS or len(content) != 1 + (2 * width + 2) * rows + -(-rows // 8):
            raise ValueError(f"{len(content)} bytes do not hold the predictions of {rows} rows")
        kind, place = WIDTHS[width], 1 + 2 * width * rows
        labels = _from_planes(content[1 : 1 + width * rows], kind)
        others = _from_planes(content[1 + width * rows : place], kind)
        losses = _from_planes(content[place : place + 2 * rows], LOSS)
        in_top = np.unpackbits(np.frombuffer(content[place + 2 * rows :], dtype=np.uint8), count=rows)
        return cls(
            labels.astype(np.int64),
            (labels + others).astype(np.int64),
            losses.astype(np.float32),
            in_top.astype(np.bool_),
        )

    def cells(self) -> NDArray[np.int64]:
        """Return the cells of the confusion matrix that are not 0, [K, 3], in order: label, prediction, count."""
        classes = int(max(self.labels.max(initial=0), self.predictions.max(initial=0))) + 1
        cells, counts = np.unique(self.labels * classes + self.predictions, return_counts=True)
        return np.stack([cells // classes, cells % classes, counts], axis=1)


def _planes(numbers: NDArray[Any]) -> bytes:
    """Return numbers as bytes, all first (lowest) bytes before all second ones: they compress better."""
    return numbers.view(np.uint8).reshape(len(numbers), numbers.itemsize).T.tobytes()


def _from_planes(content: bytes, kind: np.dtype[Any]) -> NDArray[Any]:
    planes = np.frombuffer(content, dtype=np.uint8).reshape(kind.itemsize, -1)
    return np.ascontiguousarray(planes.T).view(kind)[:, 0]
