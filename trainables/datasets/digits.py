"""The 1,797 handwritten digits, 8×8 pixels and grey, that are part of scikit-learn: nothing to download."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from trainables.datasets.reading import AS_FOUND, Reading
from trainables.datasets.source import Decoded, Progress


@dataclass(frozen=True)
class Digits:
    """scikit-learn's digits. They have no official test part."""

    reading: Reading = AS_FOUND
    name = "digits"

    @property
    def origin(self) -> str:
        return f"scikit-learn {version('scikit-learn')}"

    def problems(self) -> list[str]:
        if self.reading.data_dir is None:
            return []
        return [
            f"data_dir={self.reading.data_dir}: digits comes with scikit-learn and has no files; leave --data-dir out"
        ]

    def key(self) -> str:
        return hashlib.sha256(f"{self.name} {self.origin}".encode()).hexdigest()

    def decode(self, progress: Progress, scratch: Path) -> Decoded:
        from sklearn.datasets import load_digits

        table = load_digits()
        images = np.rint(table.images * (255 / 16)).astype(np.uint8)[..., np.newaxis]
        progress("decoding digits", len(images), len(images))
        return Decoded(images, table.target.astype(np.int64), tuple(map(str, table.target_names)), test=None)
