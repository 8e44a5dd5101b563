"""What every source of images offers, and what it decodes to."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""Images, [N, H, W, C] with C 1 (grey) or 3 (RGB), 0 to 255."""


@dataclass(frozen=True)
class Columns:
    """Which columns of a table hold the images and the labels; None: found by their names and types."""

    image: str | None = None
    label: str | None = None


COLUMNS = Columns()

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many rows are done, and how many there are."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """A data set as its source has it, in the source's order of rows."""

    images: Pixels  # those of pictures are mapped from a file, as they may be more than memory
    labels: NDArray[np.int64]  # [N], indices into `classes`
    classes: tuple[str, ...]
    test: NDArray[np.bool_] | None  # [N], True for the official test part; None where there is none
    unreadable: tuple[str, ...] = ()  # rows left out: where each stands, and why it cannot be read
    side: int | None = None  # pixels, of the squares that images of different sizes were made


class Source(Protocol):
    """Where a data set comes from. Making one and asking for its `problems` imports nothing heavy."""

    @property
    def name(self) -> str:
        """What the data set is called in the names of sweeps and of cache folders."""

    @property
    def origin(self) -> str:
        """Where the rows come from, for people."""

    def problems(self) -> list[str]:
        """A sentence for each reason why `decode` would fail that can be seen in milliseconds."""

    def key(self) -> str:
        """Hex digits that change when the source's content does.

        Raises:
            DatasetError: when the content has to be downloaded first and that fails.
        """

    def decode(self, progress: Progress, stored_side: int, scratch: Path) -> Decoded:
        """Reads everything; for sources whose `problems` is empty and whose `key` was asked for.

        Args:
            stored_side: pixels, of the squares that pictures of different sizes are made, at most.
            scratch: a folder with room for the pixels of pictures, which are kept there while they are wanted.

        Raises:
            DatasetError: naming the file, and the row where there is one, that cannot be used.
            OSError: there is no room in `scratch`.
        """


def plain_name(path: Path) -> str:
    """A path's last part, without its suffix, as a name for folders."""
    whole = path.resolve()
    return re.sub(r"[^\w.-]+", "_", whole.name if whole.is_dir() else whole.stem)


def content_key(files: Iterable[Path], columns: Columns = COLUMNS) -> str:
    """64 hex digits of the SHA-256 over the files' names, which may tell test data, their contents and the columns."""
    whole = hashlib.sha256(repr(columns).encode() if columns != COLUMNS else b"")
    for file in files:
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256")
        whole.update(f"{file.name}\n{content.hexdigest()}\n".encode())
    return whole.hexdigest()
