"""Images in Parquet files, laid out as on the Hugging Face hub: encoded images in one column, labels in another."""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path

import numpy as np

from trainables.datasets import listing
from trainables.datasets.column_file import ARROW, PARQUET, ColumnFile, Some, images_of
from trainables.datasets.folder import files_key
from trainables.datasets.folder_names import part_in
from trainables.datasets.inventory import EXAMPLES, LeftOut
from trainables.datasets.reading import AS_FOUND, Reading
from trainables.datasets.source import Decoded, Progress, plain_name, unused_data_dir
from trainables.datasets.split_column import LEFT_OUT, SplitColumn
from trainables.datasets.table import ordered
from trainables.errors import DatasetError, listed, shown, suggestion

DEEPEST = 3  # folders below the given one, such as `default/train/`


@dataclass(frozen=True)
class Parquet:
    """The Parquet files at `path`, in a folder with their parts: `train-…`, `test-…`, `default/test/0000.parquet`."""

    path: Path
    reading: Reading = AS_FOUND

    @property
    def name(self) -> str:
        return plain_name(self.path)

    @property
    def origin(self) -> str:
        return str(self.path.absolute())

    def problems(self) -> list[str]:
        return (
            [] if self.reading.data_dir and self.reading.data_dir.is_dir() else unused_data_dir(self.path, self.reading)
        )

    def key(self) -> str:
        return files_key(find(self.path), self.path if self.path.is_dir() else self.path.parent)

    def decode(self, progress: Progress, scratch: Path) -> Decoded:
        return decode(find(self.path), progress, scratch, self.reading)


def find(path: Path) -> list[Path]:
    """Return the Parquet files at `path`, sorted: itself, or those below it; or those that `save_to_disk` wrote."""
    if not path.is_dir():
        return [path] if path.suffix in (PARQUET, ARROW) and path.exists() else []
    files = sorted(_below(path, 0))
    return [file for file in files if file.suffix == PARQUET] or [file for file in files if file.suffix == ARROW]


def places(path: Path) -> list[str]:
    """Return where `find` looks, for a message."""
    return (
        [f"{shown(path)}/*.parquet, at most {DEEPEST} folders deep"]
        if path.is_dir()
        else ["a name that ends in .parquet"]
    )


def _below(folder: Path, depth: int) -> Iterator[Path]:
    with contextlib.suppress(OSError), os.scandir(folder) as entries:  # what cannot be opened has no files
        for entry in entries:
            if entry.name.startswith((".", "_")):
                continue
            if os.path.isdir(entry.path) and depth < DEEPEST:  # noqa: PTH112 - a link to itself is none
                yield from _below(Path(entry.path), depth + 1)
            elif entry.name.endswith(PARQUET) or (entry.name.startswith("data-") and entry.name.endswith(ARROW)):
                yield Path(entry.path)


def decode(files: Sequence[Path], progress: Progress, scratch: Path, reading: Reading = AS_FOUND) -> Decoded:
    """Decode the rows of `files`, in their order; `scratch` as in `Source.decode`.

    Raises:
        DatasetError: naming the file, and the row if it is a row, that cannot be used.
    """
    return listing.decode(list_rows(files, reading), reading, progress, scratch)


def list_rows(files: Sequence[Path], reading: Reading) -> listing.Listing:
    """Return the rows of `files`, in their order; raise DatasetError as `decode`."""
    root = Path(os.path.commonpath([file.parent for file in files]))
    parts = _parts(files, root, reading)
    used = [file for file in files if parts[file] not in LEFT_OUT]
    if not used:
        raise DatasetError(f"{shown(root)}: --parts leaves all files out")
    tables = [_Rows.of(file, reading, parts[file]) for file in used]
    classes = _classes(tables)
    if problems := _unknown_parts(files, root, tables, reading):
        raise DatasetError(*problems)
    by_row = [part for table in tables for part in table.parts]
    ignored = [shown(file.relative_to(root)) for file in files if file not in used]
    left_out = [LeftOut("file that --parts leaves out", len(ignored), tuple(ignored[:EXAMPLES]))] if ignored else []
    return listing.Listing(
        listing.Joined([table.images for table in tables]),
        [label for table in tables for label in table.labels],
        by_row if len(set(by_row)) > 1 or "test" in by_row else (),
        _words(tables, parts),
        (*left_out, *(left for table in tables for left in table.left_out)),
        classes,
    )


@dataclass(frozen=True, eq=False)
class _Rows:
    """The rows of one file."""

    file: ColumnFile
    images: listing.Images
    labels: Sequence[str | None]
    parts: Sequence[str]
    names: tuple[str, ...] | None  # of the classes, in the order of their numbers
    is_whole: bool  # whether the labels are integers
    words: str
    splits: frozenset[str]
    left_out: tuple[LeftOut, ...]

    @classmethod
    def of(cls, path: Path, reading: Reading, part: str | None) -> _Rows:
        file = ColumnFile.open(path)
        image = file.image_column(reading.image_column)
        label = file.label_column(reading.label_column, image)
        names, split = file.class_names(label), SplitColumn.of(path, file.splits((image, label)), reading.parts)
        labels, parts = _labels(file, label, names), split.parts or [part or "train"] * file.rows
        kept = np.array([part not in LEFT_OUT for part in parts], dtype=np.bool_)
        gone = [f"{shown(path)}, row {row + 1}" for row in np.flatnonzero(~kept)]
        return cls(
            file,
            listing.Joined([images_of(file, image, reading)])
            if kept.all()
            else Some(images_of(file, image, reading), kept),
            list(compress(labels, kept)),
            list(compress(parts, kept)),
            names,
            file.is_whole(label),
            ", ".join(
                [
                    f"images in column {shown(image)!r}",
                    f"labels in column {shown(label)!r}",
                    *filter(None, [str(split)]),
                ]
            ),
            frozenset(split.part_of),
            (LeftOut("row of a part that is left out", len(gone), tuple(gone[:EXAMPLES])),) if gone else (),
        )


def _labels(file: ColumnFile, column: str, names: Sequence[str] | None) -> list[str | None]:
    """Return each row's label; None where there is none, or -1, which stands for a label that is withheld.

    Raises:
        DatasetError: a label is none of the classes that the metadata name.
    """
    labels = file.texts(column)
    if names is None:
        return labels
    known = {str(number): name for number, name in enumerate(names)} if file.is_whole(column) else {n: n for n in names}
    foreign = [row for row, label in enumerate(labels) if label not in (None, "-1") and label not in known]
    if foreign:
        have = f"{len(foreign):,} rows have" if len(foreign) > 1 else "1 row has"
        raise DatasetError(
            f"{shown(file.path)}, row {foreign[0] + 1}: label {shown(labels[foreign[0]])} is none of the {len(names)} "
            f"classes that the metadata name ({listed(names)}); {have} such labels"
        )
    return [None if label is None else known.get(label) for label in labels]


def _classes(tables: Sequence[_Rows]) -> tuple[str, ...]:
    """Return the classes of all files in their order; raise DatasetError if the files do not agree."""
    files = listed([str(table.file.path) for table in tables])
    if len({table.names for table in tables}) > 1:
        raise DatasetError(f"{files}: their metadata name different classes; all files must name the same")
    if len({table.is_whole for table in tables}) > 1:
        raise DatasetError(f"{files}: the labels of some are strings, of others integers; use one type in all files")
    return tables[0].names or ordered([label for table in tables for label in table.labels])


def _parts(files: Sequence[Path], root: Path, reading: Reading) -> dict[Path, str | None]:
    """Return the part that each file's name stands for, or the name of a folder that it is in.

    Raises:
        DatasetError: the folder holds several configurations of a data set.
    """
    if len(files) == 1:
        return {files[0]: None}
    found: dict[Path, str | None] = {}
    sets: dict[tuple[str, ...], list[Path]] = defaultdict(list)
    for file in files:
        path = file.relative_to(root)
        folders = [*path.parts[:-1]]
        given = [part for part, name in reading.parts if name in _names(path)]
        found[file] = given[0] if given else next(filter(None, map(part_in, (path.stem, *reversed(folders)))), None)
        if not given:
            sets[tuple(folder for folder in folders if not part_in(folder))].append(file)
    if len(sets) > 1:
        names = [os.path.join(*folders) if folders else "." for folders in sets]  # noqa: PTH118
        raise DatasetError(
            f"{shown(root)}: Parquet files in {listed(names)}: are these different data sets? Give the path of one, or "
            f"name what the files of each are, for example --parts ignore={shown(names[-1])}"
        )
    return found


def _names(path: Path) -> set[str]:
    """Return the names that `--parts` may give a file."""
    return {str(path), path.name, path.stem, *(str(folder) for folder in path.parents if folder.name)}


def _unknown_parts(files: Sequence[Path], root: Path, tables: Sequence[_Rows], reading: Reading) -> list[str]:
    """Return a message for each name of `--parts` that is no file, no folder and no value of a column of parts."""
    known = {name for file in files for name in _names(file.relative_to(root))}
    known |= {value for table in tables for value in table.splits}
    return [
        f"--parts {part}={shown(name)}: no such file or folder in {shown(root)}, no such value in a column of parts"
        f"{suggestion(name, sorted(known))}"
        for part, name in reading.parts
        if name not in known
    ]


def _words(tables: Sequence[_Rows], parts: dict[Path, str | None]) -> str:
    """Return how the files were read, in words."""
    files: dict[str, list[str]] = defaultdict(list)
    for table in tables:
        files[parts[table.file.path] or "train"].append(shown(table.file.path.name))
    named = [f"{_some(names)} as {part}" for part, names in files.items()] if len(tables) > 1 else []
    return "; ".join([f"Parquet: {tables[0].words}", *named])


def _some(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= EXAMPLES else f"{names[0]} and {len(names) - 1} more files"
