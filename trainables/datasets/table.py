"""A CSV that names pictures and their labels, as competitions publish them: `train.csv` beside `train/*.jpg`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainables.datasets import folder
from trainables.datasets.listing import Files, Listing, decode
from trainables.datasets.reading import AS_FOUND, Reading
from trainables.datasets.source import Decoded, Progress, plain_name
from trainables.errors import DatasetError

# Names of columns that are looked for, the likeliest first
IMAGE_COLUMNS = ("file_name", "filename", "file", "image_path", "path", "image", "img", "image_id", "id")
LABEL_COLUMNS = ("label", "labels", "class", "target", "category")


@dataclass(frozen=True)
class Table:
    """The rows of the CSV at `path`; its pictures are relative to `data_dir` or, without one, to a folder beside it."""

    path: Path
    reading: Reading = AS_FOUND

    @property
    def name(self) -> str:
        return plain_name(self.path)

    @property
    def data_dir(self) -> Path | None:
        return self.reading.data_dir

    @property
    def origin(self) -> str:
        return str(self.path.absolute())

    def problems(self) -> list[str]:
        problems = [] if self.path.is_file() else [f"{self.path}: there is no such file"]
        if self.data_dir is not None and not self.data_dir.is_dir():
            problems.append(f"data_dir={self.data_dir}: there is no such folder")
        return problems

    def key(self) -> str:
        files, _ = self._rows()
        place = self._place(files)
        pictures_key = folder.files_key((file for name in files if (file := place / name).is_file()), place)
        digest = hashlib.sha256(self.path.read_bytes() + pictures_key.encode())
        return digest.hexdigest()

    def decode(self, progress: Progress, scratch: Path) -> Decoded:
        names, values = self._rows()
        place = self._place(names)
        distinct, labels = np.unique(values, return_inverse=True)
        classes = tuple(map(str, distinct))
        files = Files([place / name for name in names], str(self.path))
        listing = Listing(files, [classes[label] for label in labels], classes=classes)
        return decode(listing, self.reading, progress, scratch)

    def files(self) -> list[Path]:
        """Return the picture that each row names; the table needs no labels.

        Raises:
            DatasetError: the table cannot be read, or its pictures are not found.
        """
        names = self._read(labelled=False)[0].to_pylist()
        place = self._place(names)
        return [place / name for name in names]

    def _rows(self) -> tuple[list[str], Any]:
        """Return every row's picture and label."""
        names, labels = self._read(labelled=True)
        return names.to_pylist(), labels.to_numpy()

    def _read(self, labelled: bool) -> list[Any]:
        """Return the column of the pictures' names and, if `labelled`, that of the labels."""
        import pyarrow as pa
        import pyarrow.csv as csv

        try:
            with csv.open_csv(self.path) as reader:
                columns = [name for name in reader.schema.names if name]  # one without a name holds row numbers
            image = self._column("image", columns, self.reading.image_column, IMAGE_COLUMNS, ())
            names = [image]
            if labelled:
                names.append(self._column("label", columns, self.reading.label_column, LABEL_COLUMNS, (image,)))
            text = csv.ConvertOptions(include_columns=names, column_types={image: pa.string()})
            table = csv.read_csv(self.path, convert_options=text)
        except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as error:
            raise DatasetError(f"{self.path}: not a CSV that can be read: {error}") from error
        for name in names:
            if pa.types.is_binary(table[name].type):
                raise DatasetError(f"{self.path}: column {name!r} is not text in UTF-8; save the file as UTF-8")
            row = next((row for row, value in enumerate(table[name].to_pylist()) if value in (None, "")), None)
            if row is not None:
                raise DatasetError(f"{self.path}, row {row + 1}: nothing in column {name!r}")
        if not len(table):
            raise DatasetError(f"{self.path}: no rows")
        return [table[name] for name in names]

    def _column(
        self, kind: str, columns: Sequence[str], given: str | None, usual: Sequence[str], taken: Sequence[str]
    ) -> str:
        """Return the `given` column, else the first of the `usual` ones, else the only one that is not `taken`."""
        if given is not None and given not in columns:
            raise DatasetError(f"{self.path}: no column {given!r} for --{kind}-column (columns: {', '.join(columns)})")
        free = [name for name in columns if name not in taken]
        named = [name for name in ([given] if given else usual) if name in free]
        if named or len(free) == 1:
            return (named or free)[0]
        raise DatasetError(
            f"{self.path}: which column has the {kind}s? Name it with --{kind}-column, or rename it to one of "
            f"{', '.join(usual)} (columns: {', '.join(columns)})"
        )

    def _place(self, names: list[str]) -> Path:
        """Return the folder that the names are relative to: that of the first picture that exists."""
        beside = self.path.parent
        below = [*sorted(beside.glob("*/")), *sorted(beside.glob("*/*/"))]  # some archives have train/train/*.jpg
        places = [self.data_dir] if self.data_dir else [beside, beside / self.path.stem, *below]
        for name in names[:100]:
            for place in places:
                if (place / name).is_file():
                    return place
        looked = ", ".join(str(place / names[0]) for place in places[:3])
        raise DatasetError(
            f"{self.path}: the pictures that it names are not there (row 1: looked for {looked}); "
            "give their folder as --data-dir"
        )


def is_table(path: Path) -> bool:
    """Return whether `path` is named like a CSV, which may not exist."""
    return path.suffix == ".csv"


def places(path: Path) -> list[str]:
    """Return where a CSV is looked for, for a message."""
    return [] if path.is_dir() else ["a name that ends in .csv"]
