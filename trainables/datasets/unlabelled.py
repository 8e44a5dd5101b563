"""Images to be labelled: picture files, folders of them, CSVs that name them, or Parquet files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from trainables.datasets.column_file import ImageColumn
from trainables.datasets.inventory import LeftOut
from trainables.datasets.listing import Files, Images, Joined
from trainables.datasets.parquet import find
from trainables.datasets.reading import AS_FOUND, Reading
from trainables.datasets.table import Table, is_table
from trainables.datasets.tree import summed, walk
from trainables.errors import DatasetError, shown


class Found(NamedTuple):
    """The images at a path, and the other files there."""

    images: Images
    left_out: tuple[LeftOut, ...] = ()


def find_images(path: Path, reading: Reading = AS_FOUND) -> Found:
    """Find the images at `path`: in a folder, all pictures below it or, if there are none, its Parquet files.

    Args:
        reading: how it is read; labels do not matter.

    Raises:
        DatasetError: the path does not exist or holds no images.
    """
    if path.is_dir():
        tree = walk(path)
        if tree.count:
            return Found(Files(list(tree.pictures())), summed(tree.left_out(), path))
        if not find(path):
            raise DatasetError(f"{shown(path)}: no images there (looked for pictures, at any depth, and for .parquet)")
        return Found(_columns(find(path), reading))
    if not path.is_file():
        missing = "it is no regular file" if path.exists() else "there is no such file or folder"
        raise DatasetError(f"{shown(path)}: {missing}")
    if is_table(path):
        return Found(Table(path, reading).images())
    if find(path):
        return Found(_columns(find(path), reading))
    return Found(Files([path]))


def _columns(files: Sequence[Path], reading: Reading) -> Images:
    return Joined([ImageColumn.of(file, reading) for file in files])
