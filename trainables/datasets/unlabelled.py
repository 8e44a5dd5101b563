"""Images to be labelled: picture files, folders of them, CSVs that name them, or Parquet files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path

from trainables.datasets.folder import SUFFIXES, batches, images_in
from trainables.datasets.parquet import ImageColumn, find
from trainables.datasets.pictures import Batch
from trainables.datasets.reading import AS_FOUND, Reading
from trainables.datasets.table import Table
from trainables.errors import DatasetError

Place = tuple[str, int | None]
"""The file that holds an image and, if it is a table or a CSV names the file, the row, counted from 0."""


@dataclass(frozen=True)
class Unlabelled:
    """Images in their order."""

    files: Sequence[Path] = ()  # of pictures
    csv: Path | None = None  # names the files
    columns: Sequence[ImageColumn] = ()  # of Parquet files

    def __len__(self) -> int:
        return len(self.files) + sum(column.rows for column in self.columns)

    def places(self) -> Iterator[Place]:
        """Yield the place of each image; if a CSV names the picture, with the CSV's row."""
        rows = range(len(self.files)) if self.csv is not None else repeat(None)
        named = zip(map(str, self.files), rows, strict=False)
        return chain(named, ((str(column.file), row) for column in self.columns for row in range(column.rows)))

    def batches(self) -> Iterator[Batch]:
        """Yield the encoded images; raise DatasetError where a Parquet file is damaged."""
        return chain(batches(list(self.files)), *(column.batches() for column in self.columns))


def find_images(path: Path, reading: Reading = AS_FOUND) -> Unlabelled:
    """Find the images at `path`: in a folder, all pictures below it or, if there are none, its Parquet files.

    Args:
        reading: how it is read; labels do not matter.

    Raises:
        DatasetError: the path does not exist or holds no images.
    """
    if path.is_dir():
        files = images_in(path)
        if not files and not find(path):
            raise DatasetError(
                f"{path}: no images there (looked for {', '.join(SUFFIXES)}, at any depth, and .parquet)"
            )
        return Unlabelled(files, columns=[] if files else _columns(find(path), reading))
    if not path.is_file():
        raise DatasetError(f"{path}: there is no such file or folder")
    if path.suffix == ".csv":
        return Unlabelled(Table(path, reading).files(), csv=path)
    if path.suffix == ".parquet":
        return Unlabelled(columns=_columns([path], reading))
    return Unlabelled([path])


def _columns(files: Sequence[Path], reading: Reading) -> list[ImageColumn]:
    return [ImageColumn.of(file, reading) for file in files]
