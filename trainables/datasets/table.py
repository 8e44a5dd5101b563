"""A CSV that names pictures and their labels, as competitions hand them out: `train.csv` beside `train/*.jpg`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from trainables.datasets import folder, pictures
from trainables.datasets.source import COLUMNS, Columns, Decoded, Progress, plain_name
from trainables.errors import DatasetError

IMAGE_NAMES = ("file_name", "filename", "file", "image_path", "path", "image", "img", "image_id", "id")
LABEL_NAMES = ("label", "labels", "class", "target", "category")


@dataclass(frozen=True)
class Table:
    """The rows of the CSV at `path`. Pictures are named relative to `data_dir`, or to a place beside the CSV."""

    path: Path
    data_dir: Path | None = None
    columns: Columns = COLUMNS

    @property
    def name(self) -> str:
        return plain_name(self.path)

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
        there = folder.files_key((file for name in files if (file := place / name).is_file()), place)
        whole = hashlib.sha256(self.path.read_bytes() + repr(self.columns).encode() + there.encode())
        return whole.hexdigest()

    def decode(self, progress: Progress, stored_side: int, scratch: Path) -> Decoded:
        names, values = self._rows()
        place = self._place(names)
        distinct, labels = np.unique(values, return_inverse=True)
        files = [place / name for name in names]
        rows = partial(folder.batches, files, str(self.path))
        found = pictures.decode(rows, len(files), progress, stored_side, scratch)
        return pictures.finish(found, labels.astype(np.int64), tuple(map(str, distinct)), None)

    def files(self) -> list[Path]:
        """The picture that each row names; a table without labels has them, too.

        Raises:
            DatasetError: the table cannot be read, or its pictures are nowhere.
        """
        names = self._read(labelled=False)[0].to_pylist()
        place = self._place(names)
        return [place / name for name in names]

    def _rows(self) -> tuple[list[str], Any]:
        """Every row's picture and label."""
        names, labels = self._read(labelled=True)
        return names.to_pylist(), labels.to_numpy()

    def _read(self, labelled: bool) -> list[Any]:
        """The column of the pictures' names and, if `labelled`, that of the labels."""
        import pyarrow as pa
        import pyarrow.csv as csv

        try:
            with csv.open_csv(self.path) as reader:
                there = [name for name in reader.schema.names if name]  # a column without a name counts the rows
            image = self._column("image", there, self.columns.image, IMAGE_NAMES, ())
            names = [image]
            if labelled:
                names.append(self._column("label", there, self.columns.label, LABEL_NAMES, (image,)))
            text = csv.ConvertOptions(include_columns=names, column_types={image: pa.string()})
            table = csv.read_csv(self.path, convert_options=text)
        except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as error:
            raise DatasetError(f"{self.path}: not a CSV that can be read: {error}") from error
        for name in names:
            if pa.types.is_binary(table[name].type):
                raise DatasetError(f"{self.path}: column {name!r} is not text in UTF-8; save the file as UTF-8")
            row = next((row for row, value in enumerate(table[name].to_pylist()) if value in (None, "")), None)
            if row is not None:
                raise DatasetError(f"{self.path}, row {row}: nothing in column {name!r}")
        if not len(table):
            raise DatasetError(f"{self.path}: no rows")
        return [table[name] for name in names]

    def _column(
        self, what: str, there: Sequence[str], given: str | None, names: Sequence[str], taken: Sequence[str]
    ) -> str:
        """The one `given`, else the first of `names` that is there, else the only one that is not `taken`."""
        if given is not None and given not in there:
            raise DatasetError(f"{self.path}: no column {given!r} for --{what}-column (columns: {', '.join(there)})")
        free = [name for name in there if name not in taken]
        named = [name for name in ([given] if given else names) if name in free]
        if named or len(free) == 1:
            return (named or free)[0]
        raise DatasetError(
            f"{self.path}: which column has the {what}s? Say so by --{what}-column, or name it one of "
            f"{', '.join(names)} (columns: {', '.join(there)})"
        )

    def _place(self, names: list[str]) -> Path:
        """The folder that the names are relative to: where the first of them that is anywhere is."""
        beside = self.path.parent
        below = [*sorted(beside.glob("*/")), *sorted(beside.glob("*/*/"))]  # some archives have train/train/*.jpg
        places = [self.data_dir] if self.data_dir else [beside, beside / self.path.stem, *below]
        for name in names[:100]:
            for place in places:
                if (place / name).is_file():
                    return place
        looked = ", ".join(str(place / names[0]) for place in places[:3])
        raise DatasetError(
            f"{self.path}: the pictures that it names are not there (row 0: looked for {looked}); "
            "say where they are by --data-dir"
        )
