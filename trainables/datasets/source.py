"""The interface of all sources of images, and the data set that a source decodes to."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from trainables.datasets.inventory import Inventory
from trainables.datasets.packed import Pixels as Pixels
from trainables.datasets.reading import SHORT_SIDE, Reading
from trainables.datasets.stored_images import StoredImages

WHITE = (255, 255, 255)
"""The default for the color around pictures that are padded to squares, and behind transparent ones."""


Progress = Callable[[str, int, int], None]
"""Called with the step that is running, how many rows are done, and how many there are."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """A data set in its source's order of rows."""

    images: Pixels | StoredImages  # decoded pictures are mapped from a file, as they may be more than memory
    labels: NDArray[np.int64]  # [N], indices into `classes`
    classes: tuple[str, ...]
    test: NDArray[np.bool_] | None  # [N], True for the official test part; None where there is none
    unreadable: tuple[str, ...] = ()  # rows left out: the place of each, and why it cannot be read
    side: int | None = None  # pixels, the longest shorter side of pictures of different sizes; None: all have one shape
    inventory: Inventory = field(default_factory=Inventory)
    background: tuple[int, int, int] = WHITE  # behind transparent pictures, and around padded ones
    file_digests: NDArray[np.void] | None = None  # [N], equal for rows with equal files; None: they have no files
    stored_side: int = SHORT_SIDE  # pixels; pictures whose shorter side is longer were scaled down to that


class Source(Protocol):
    """The files or the library that a data set comes from. Making one and calling `problems` imports nothing heavy."""

    @property
    def name(self) -> str:
        """The data set's name in the names of sweeps and of cache folders."""

    @property
    def origin(self) -> str:
        """The place that the rows come from, for the record."""

    def problems(self) -> list[str]:
        """Return a message for each reason why `decode` would fail, as far as milliseconds show it."""

    def key(self) -> str:
        """Return hex digits that change when the source's content does.

        Raises:
            DatasetError: when the content has to be downloaded first and that fails.
        """

    def decode(self, progress: Progress, scratch: Path) -> Decoded:
        """Read everything; called only after `problems` returned nothing and `key` was called.

        Args:
            scratch: a folder on a disk with space for the pixels, which lie there while the result is in use.

        Raises:
            DatasetError: naming the file, and the row where there is one, that cannot be used.
            OSError: the disk of `scratch` is full.
        """


def plain_name(path: Path) -> str:
    """Return a path's last part, without its suffix, as a name for folders."""
    resolved = path.resolve()
    return re.sub(r"[^\w.-]+", "_", resolved.name if resolved.is_dir() else resolved.stem)


def unused_data_dir(path: Path, reading: Reading) -> list[str]:
    """Return a message if a folder of files is given for a `path` that holds its images itself."""
    given = reading.data_dir
    return [] if given is None else [f"data_dir={given}: {path} is a path already; leave --data-dir out"]


def content_key(files: Iterable[Path]) -> str:
    """Return 64 hex digits of the SHA-256 over the files' names (which may mark test data) and contents."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256")
        digest.update(f"{file.name}\n{content.hexdigest()}\n".encode())
    return digest.hexdigest()
