"""Images in Parquet, laid out as on the Hugging Face hub: encoded images in one column, labels in another."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.datasets import pictures
from trainables.datasets.source import COLUMNS, Columns, Decoded, Progress, content_key, plain_name
from trainables.errors import DatasetError

IMAGE_NAMES = ("img", "image")
LABEL_NAMES = ("label", "labels", "fine_label", "coarse_label", "class", "target")

_READ = 128  # rows at a time: to ask Arrow for 32 of thumbnails costs half as much as to decode them
_BATCH = 32  # of those, that a thread decodes at a time: enough to keep the pool's own cost small


@dataclass(frozen=True)
class Parquet:
    """The Parquet files at `path`. In a folder, those with names in `test…` are the official test part."""

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
        problems = []
        if self.data_dir is not None:
            problems.append(f"data_dir={self.data_dir}: {self.path} is a path already; leave --data-dir out")
        if not self.path.exists():
            problems.append(f"{self.path}: there is no such file or folder")
        elif not find(self.path):
            looked = ", ".join(places(self.path))
            single = "" if self.path.is_dir() else "; a data set is a folder, a CSV or a Parquet file"
            problems.append(f"{self.path}: no images there (looked for {looked}{single})")
        return problems

    def key(self) -> str:
        return content_key(find(self.path), self.columns)

    def decode(self, progress: Progress, stored_side: int, scratch: Path) -> Decoded:
        return decode(find(self.path), progress, stored_side, scratch, self.columns)


def find(path: Path) -> list[Path]:
    """The Parquet files at `path`, sorted: itself, those in it, or those in its only folder with any."""
    if not path.is_dir():
        return [path] if path.is_file() and path.suffix == ".parquet" else []
    here = _in_folder(path)
    below = [files for folder in path.iterdir() if folder.is_dir() and (files := _in_folder(folder))]
    return here or (below[0] if len(below) == 1 else [])


def places(path: Path) -> list[str]:
    """Where `find` looks, for messages."""
    if not path.is_dir():
        return ["a name that ends in .parquet"]
    return [f"{path}/*.parquet", f"{path}/*/*.parquet in one single folder", f"pictures in {path}/CLASS/"]


def _in_folder(folder: Path) -> list[Path]:
    return sorted(file for file in folder.glob("*.parquet") if not file.name.startswith((".", "_")))


def decode(
    files: Sequence[Path], progress: Progress, stored_side: int, scratch: Path, columns: Columns = COLUMNS
) -> Decoded:
    """Every row of `files`, in their order; `stored_side` and `scratch` as `Source.decode` has them.

    Raises:
        DatasetError: naming the file, and the row where there is one, that cannot be used.
    """
    tables = [_Table.of(file, columns) for file in files]
    labels, classes = _labels(tables)
    test = np.repeat([file.name.startswith("test") for file in files], [table.images.rows for table in tables])
    columns_of_images = [table.images for table in tables]
    found = pictures.decode(
        lambda: (batch for column in columns_of_images for batch in column.batches()),
        len(labels),
        progress,
        stored_side,
        scratch,
    )
    return pictures.finish(found, labels, classes, test if len(files) > 1 else None)


@dataclass(frozen=True)
class ImageColumn:
    """One file's images: encoded ones, or structs with them under `bytes`."""

    file: Path
    rows: int
    name: str

    @classmethod
    def of(cls, file: Path, columns: Columns = COLUMNS) -> ImageColumn:
        """The images of `file`, which needs no labels.

        Raises:
            DatasetError: it cannot be read, or no column, or none in particular, has images.
        """
        schema, rows = _schema(file)
        what = "image (binary or struct with bytes)"
        return cls(file, rows, _column(file, schema, _holds_images, columns.image, IMAGE_NAMES, what))

    def batches(self) -> Iterator[pictures.Batch]:
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        row = 0
        with _reading(self.file), pq.ParquetFile(self.file) as opened:
            for read in opened.iter_batches(_READ, columns=[self.name]):
                column = read.column(0)
                if pa.types.is_struct(column.type):
                    column = pc.struct_field(column, "bytes")
                for start in range(0, len(column), _BATCH):
                    encoded = column.slice(start, _BATCH).to_pylist()
                    yield pictures.Batch(str(self.file), row + start, encoded)
                row += len(column)


@dataclass(frozen=True)
class _Table:
    """One file and what in it is what."""

    file: Path
    images: ImageColumn
    label: str
    classes: tuple[str, ...] | None

    @classmethod
    def of(cls, file: Path, columns: Columns) -> _Table:
        images, (schema, _) = ImageColumn.of(file, columns), _schema(file)
        label = _column(file, schema, _holds_labels, columns.label, LABEL_NAMES, "label (integers or strings)")
        return cls(file, images, label, _class_names(schema.metadata or {}, label))

    def labels(self) -> NDArray[Any]:
        """The label column: integers, or strings as objects."""
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        with _reading(self.file):
            column = pq.read_table(self.file, columns=[self.label]).column(0)
        if column.null_count:
            raise DatasetError(f"{self.file}, row {pc.index(pc.is_null(column), True).as_py()}: no label")
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        values: NDArray[Any] = column.to_numpy()
        return values


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    """What cannot be read in the context is the file's fault, not the disk's that the pixels are written to."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{file}: not a Parquet file that can be read: {error}") from error


def _schema(file: Path) -> tuple[Any, int]:
    """The file's columns, and how many rows it has."""
    import pyarrow.parquet as pq

    with _reading(file), pq.ParquetFile(file) as opened:
        return opened.schema_arrow, opened.metadata.num_rows


def _column(
    file: Path, schema: Any, fits: Callable[[Any], bool], given: str | None, names: Sequence[str], what: str
) -> str:
    """The one `given`, else the first of `names` that fits, else the only column that does."""
    candidates: list[str] = [field.name for field in schema if fits(field.type)]
    there = f"columns: {', '.join(f'{field.name}: {field.type}' for field in schema)}"
    if given is not None and given not in candidates:
        raise DatasetError(f"{file}: {given!r} is no {what} column ({there})")
    named = [name for name in ([given] if given else names) if name in candidates]
    if named or len(candidates) == 1:
        return (named or candidates)[0]
    option = what.partition(" ")[0]
    raise DatasetError(
        f"{file}: {'more than one' if candidates else 'no'} possible {what} column; say which by --{option}-column, or "
        f"name it one of {', '.join(names)} ({there})"
    )


def _holds_images(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _holds_images(kind.field("bytes").type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _holds_labels(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return _holds_labels(kind.value_type)
    return bool(pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _class_names(metadata: Mapping[bytes, bytes], label: str) -> tuple[str, ...] | None:
    """The names in label order that the schema's metadata gives, ours or Hugging Face's `ClassLabel`."""
    if b"classes" in metadata:
        return tuple(metadata[b"classes"].decode().split(","))
    features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    names = features.get(label, {}).get("names")
    return tuple(names) if names else None


def _labels(tables: Sequence[_Table]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """The rows' class numbers, int64, and the classes' names."""
    files = ", ".join(str(table.file) for table in tables)
    if len({table.classes for table in tables}) > 1:
        raise DatasetError(f"{files}: their metadata name different classes; all must name the same")
    columns = [table.labels() for table in tables]
    if len({column.dtype == object for column in columns}) > 1:
        raise DatasetError(f"{files}: the labels of some are strings, of others integers; make them alike")
    values, classes = np.concatenate(columns), tables[0].classes
    if classes is None:
        distinct, numbers = np.unique(values, return_inverse=True)
        return numbers.astype(np.int64), tuple(map(str, distinct))
    numbers = values if values.dtype != object else _positions(values, classes)
    external_test = np.flatnonzero((numbers < 0) | (numbers >= len(classes)))
    if external_test.size:
        raise DatasetError(
            f"{files}: label {values[external_test[0]]} ({external_test.size} rows) is none of the {len(classes)} "
            "classes that the metadata name; move files whose labels are withheld away"
        )
    return numbers.astype(np.int64), classes


def _positions(values: NDArray[Any], classes: tuple[str, ...]) -> NDArray[np.int64]:
    """Of each string in `classes`, -1 where it is not there."""
    position = {name: number for number, name in enumerate(classes)}
    return np.array([position.get(value, -1) for value in values], dtype=np.int64)
