"""Data sets that users download themselves, such as those of competitions: found in a folder by their layout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from trainables.datasets.folder import Folder, open_folder
from trainables.datasets.reading import AS_FOUND, Reading
from trainables.datasets.source import Decoded, Progress, Source
from trainables.datasets.table import Table

CSV = "train.csv"


@dataclass(frozen=True)
class ManualDownload:
    """The data set `name` in `data_dir`, or one or two folders down: a CSV with pictures, or class folders."""

    name: str
    address: str
    reading: Reading = AS_FOUND

    @property
    def data_dir(self) -> Path | None:
        return self.reading.data_dir

    @property
    def origin(self) -> str:
        return str(self.data_dir and self.data_dir.absolute())

    def problems(self) -> list[str]:
        remedy = f"download it from {self.address}, unpack it and give its folder as --data-dir"
        if self.data_dir is None:
            return [f"{self.name} has to be downloaded manually: {remedy}"]
        if not self.data_dir.is_dir():
            return [f"data_dir={self.data_dir}: there is no such folder; {remedy}"]
        source = next(self._sources(), None)
        if source is None:
            return [
                f"data_dir={self.data_dir}: no {self.name} there (looked for {CSV} and for class folders); {remedy}"
            ]
        return source.problems()

    def key(self) -> str:
        return next(self._sources()).key()

    def decode(self, progress: Progress, scratch: Path) -> Decoded:
        source = next(self._sources())
        decoded = source.decode(progress, scratch)
        if isinstance(source, Folder):
            decoded = replace(decoded, inventory=source.with_others(decoded.inventory))
        return decoded

    def _sources(self) -> Iterator[Source]:
        """Yield what the folder can be read as, the likeliest layout first."""
        assert self.data_dir is not None  # noqa: S101 - `problems` is called first
        inside = replace(self.reading, data_dir=None)
        below = [folder for depth in ("*/", "*/*/") for folder in sorted(self.data_dir.glob(depth))]
        for folder in (self.data_dir, *below):
            if (folder / CSV).is_file():
                yield Table(folder / CSV, inside)
        for parted in (True, False):  # with parts first: a folder above parts may look like one of classes
            for folder in (self.data_dir, *below):
                source = open_folder(folder, inside)
                if source and not source.problems() and bool(source.listing.parts) is parted:
                    yield source
