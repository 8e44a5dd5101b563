"""Images to be labelled, wherever they are: picture files, folders of them, CSVs that name them, Parquet files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path

from trainables.datasets.folder import SUFFIXES, batches, images_in
from trainables.datasets.parquet import ImageColumn, find
from trainables.datasets.pictures import Batch
from trainables.datasets.source import COLUMNS, Columns
from trainables.datasets.table import Table
from trainables.errors import DatasetError

Place = tuple[str, int | None]
"""The file an image is in, and, of an image that a table has, its row there, counted from 0."""


@dataclass(frozen=True)
class Unlabelled:
    """Images in their order: picture files, those of `rows` where a CSV names them, or what is in Parquet files."""

    files: Sequence[Path] = ()
    csv: Path | None = None
    columns: Sequence[ImageColumn] = ()

    def __len__(self) -> int:
        return len(self.files) + sum(column.rows for column in self.columns)

    def places(self) -> Iterator[Place]:
        """Where each image is; of a CSV's the picture, and the CSV's row."""
        rows = range(len(self.files)) if self.csv is not None else repeat(None)
        named = zip(map(str, self.files), rows, strict=False)
        return chain(named, ((str(column.file), row) for column in self.columns for row in range(column.rows)))

    def batches(self) -> Iterator[Batch]:
        """The encoded images; raises DatasetError where a Parquet file turns out to be damaged."""
        return chain(batches(list(self.files)), *(column.batches() for column in self.columns))


def find_images(path: Path, data_dir: Path | None = None, columns: Columns = COLUMNS) -> Unlabelled:
    """The images at `path`: of a folder all pictures below it or, if there are none, its Parquet files.

    Args:
        data_dir: where the pictures that a CSV names are. Default: beside it.
        columns: which column has the images of a table.

    Raises:
        DatasetError: there are none, or nothing is there.
    """
    if path.is_dir():
        files = images_in(path)
        if not files and not find(path):
            raise DatasetError(
                f"{path}: no images there (looked for {', '.join(SUFFIXES)}, at any depth, and .parquet)"
            )
        return Unlabelled(files, columns=[] if files else _columns(find(path), columns))
    if not path.is_file():
        raise DatasetError(f"{path}: there is no such file or folder")
    if path.suffix == ".csv":
        return Unlabelled(Table(path, data_dir, columns).files(), csv=path)
    if path.suffix == ".parquet":
        return Unlabelled(columns=_columns([path], columns))
    return Unlabelled([path])


def _columns(files: Sequence[Path], columns: Columns) -> list[ImageColumn]:
    return [ImageColumn.of(file, columns) for file in files]
