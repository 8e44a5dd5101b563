"""Images in Parquet files, laid out as on the Hugging Face hub: encoded images in one column, labels in another."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.datasets import listing, pictures
from trainables.datasets.reading import AS_FOUND, Reading
from trainables.datasets.source import (
    Decoded,
    Progress,
    content_key,
    plain_name,
    unused_data_dir,
)
from trainables.errors import DatasetError

# Names of columns that are looked for, the likeliest first
IMAGE_COLUMNS = ("img", "image")
LABEL_COLUMNS = ("label", "labels", "fine_label", "coarse_label", "class", "target")

_READ_ROWS = 128  # rows that Arrow reads at a time: reading 32 thumbnails costs half as much as decoding them
_BATCH_ROWS = 32  # rows of these that a thread decodes at a time: enough to keep the cost of the pool small


@dataclass(frozen=True)
class Parquet:
    """The Parquet files at `path`. In a folder, files named `test…` are the official test part."""

    path: Path
    reading: Reading = AS_FOUND

    @property
    def name(self) -> str:
        return plain_name(self.path)

    @property
    def origin(self) -> str:
        return str(self.path.absolute())

    def problems(self) -> list[str]:
        return unused_data_dir(self.path, self.reading)

    def key(self) -> str:
        return content_key(find(self.path))

    def decode(self, progress: Progress, scratch: Path) -> Decoded:
        return decode(find(self.path), progress, scratch, self.reading)


def find(path: Path) -> list[Path]:
    """Return the Parquet files at `path`, sorted: itself, those in it, or those in its only folder that has some."""
    if not path.is_dir():
        return [path] if path.is_file() and path.suffix == ".parquet" else []
    below = [files for folder in path.iterdir() if folder.is_dir() and (files := _in_folder(folder))]
    return _in_folder(path) or (below[0] if len(below) == 1 else [])


def places(path: Path) -> list[str]:
    """Return where `find` looks, for a message."""
    if not path.is_dir():
        return ["a name that ends in .parquet"]
    return [f"{path}/*.parquet", f"{path}/*/*.parquet in one single folder"]


def _in_folder(folder: Path) -> list[Path]:
    return sorted(file for file in folder.glob("*.parquet") if not file.name.startswith((".", "_")))


def decode(files: Sequence[Path], progress: Progress, scratch: Path, reading: Reading = AS_FOUND) -> Decoded:
    """Decode every row of `files`, in their order; `scratch` as in `Source.decode`.

    Raises:
        DatasetError: naming the file, and the row if it is a row, that cannot be used.
    """
    tables = [_Table.of(file, reading) for file in files]
    labels, classes = _labels(tables)
    several = len(files) > 1
    part_of = ["test" if several and file.name.startswith("test") else "train" for file in files]
    parts = [part for part, table in zip(part_of, tables, strict=True) for _ in range(len(table.images))]
    images = listing.Joined([table.images for table in tables])
    rows = listing.Listing(images, [classes[label] for label in labels], parts if several else (), classes=classes)
    return listing.decode(rows, reading, progress, scratch)


@dataclass(frozen=True)
class ImageColumn:
    """The column of one file that holds its images: encoded, or structs that hold them under `bytes`."""

    file: Path
    rows: int
    name: str

    @classmethod
    def of(cls, file: Path, reading: Reading = AS_FOUND) -> ImageColumn:
        """Find the column of images in `file`, which needs no labels.

        Raises:
            DatasetError: the file cannot be read, or no column or more than one may hold its images.
        """
        schema, rows = _schema(file)
        kind = "image (binary or struct with bytes)"
        return cls(file, rows, _column(file, schema, _holds_images, reading.image_column, IMAGE_COLUMNS, kind))

    def __len__(self) -> int:
        return self.rows

    def places(self) -> Iterator[listing.Place]:
        """Yield the place of each image."""
        return zip(repeat(str(self.file)), range(1, self.rows + 1), strict=False)

    def batches(self, rows: listing.Mask | None = None) -> Iterator[pictures.Batch]:
        """Yield the encoded images in order, or those of `rows`; raise DatasetError where the file is damaged."""
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        row = 0
        with _reading(self.file), pq.ParquetFile(self.file) as opened:
            for read in opened.iter_batches(_READ_ROWS, columns=[self.name]):
                column = read.column(0)
                if pa.types.is_struct(column.type):
                    column = pc.struct_field(column, "bytes")
                numbers = np.arange(row, row + len(column))
                row += len(column)
                if rows is not None:
                    numbers = numbers[rows[numbers]]
                    column = column.take(numbers - (row - len(column)))
                for start in range(0, len(column), _BATCH_ROWS):
                    encoded = column.slice(start, _BATCH_ROWS).to_pylist()
                    yield pictures.Batch(str(self.file), (numbers[start : start + _BATCH_ROWS] + 1).tolist(), encoded)


@dataclass(frozen=True)
class _Table:
    """One file, its two columns and the classes that it names."""

    file: Path
    images: ImageColumn
    label: str
    classes: tuple[str, ...] | None

    @classmethod
    def of(cls, file: Path, reading: Reading) -> _Table:
        images, (schema, _) = ImageColumn.of(file, reading), _schema(file)
        label = _column(file, schema, _holds_labels, reading.label_column, LABEL_COLUMNS, "label (integers or strings)")
        return cls(file, images, label, _class_names(schema.metadata or {}, label))

    def labels(self) -> NDArray[Any]:
        """Return the label column: integers, or strings as objects."""
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        with _reading(self.file):
            column = pq.read_table(self.file, columns=[self.label]).column(0)
        if column.null_count:
            raise DatasetError(f"{self.file}, row {pc.index(pc.is_null(column), True).as_py() + 1}: no label")
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        values: NDArray[Any] = column.to_numpy()
        return values


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    """Raise errors within the context as DatasetError about `file`: it cannot be read, whatever disk pixels go to."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{file}: not a Parquet file that can be read: {error}") from error


def _schema(file: Path) -> tuple[Any, int]:
    """Return the file's schema and its number of rows."""
    import pyarrow.parquet as pq

    with _reading(file), pq.ParquetFile(file) as opened:
        return opened.schema_arrow, opened.metadata.num_rows


def _column(
    file: Path, schema: Any, fits: Callable[[Any], bool], given: str | None, usual: Sequence[str], kind: str
) -> str:
    """Return the `given` column, else the first of the `usual` ones that fits, else the only one that fits."""
    candidates: list[str] = [field.name for field in schema if fits(field.type)]
    columns = f"columns: {', '.join(f'{field.name}: {field.type}' for field in schema)}"
    if given is not None and given not in candidates:
        raise DatasetError(f"{file}: {given!r} is no {kind} column ({columns})")
    named = [name for name in ([given] if given else usual) if name in candidates]
    if named or len(candidates) == 1:
        return (named or candidates)[0]
    option = kind.partition(" ")[0]
    raise DatasetError(
        f"{file}: {'more than one' if candidates else 'no'} possible {kind} column; name it with --{option}-column, or "
        f"rename it to one of {', '.join(usual)} ({columns})"
    )


def _holds_images(arrow_type: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(arrow_type):
        return arrow_type.get_field_index("bytes") >= 0 and _holds_images(arrow_type.field("bytes").type)
    return bool(pa.types.is_binary(arrow_type) or pa.types.is_large_binary(arrow_type))


def _holds_labels(arrow_type: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(arrow_type):
        return _holds_labels(arrow_type.value_type)
    return any(check(arrow_type) for check in (pa.types.is_integer, pa.types.is_string, pa.types.is_large_string))


def _class_names(metadata: Mapping[bytes, bytes], label: str) -> tuple[str, ...] | None:
    """Return the classes in label order from the schema's metadata: `classes`, or Hugging Face's `ClassLabel`."""
    if b"classes" in metadata:
        return tuple(metadata[b"classes"].decode().split(","))
    features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    names = features.get(label, {}).get("names")
    return tuple(names) if names else None


def _labels(tables: Sequence[_Table]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return the rows' class numbers, int64 [N], and the classes' names."""
    files = ", ".join(str(table.file) for table in tables)
    if len({table.classes for table in tables}) > 1:
        raise DatasetError(f"{files}: their metadata name different classes; all files must name the same")
    columns = [table.labels() for table in tables]
    if len({column.dtype == object for column in columns}) > 1:
        raise DatasetError(f"{files}: the labels of some are strings, of others integers; use one type in all files")
    values, classes = np.concatenate(columns), tables[0].classes
    if classes is None:
        distinct, numbers = np.unique(values, return_inverse=True)
        return numbers.astype(np.int64), tuple(map(str, distinct))
    numbers = values if values.dtype != object else _positions(values, classes)
    foreign = np.flatnonzero((numbers < 0) | (numbers >= len(classes)))
    if foreign.size:
        raise DatasetError(
            f"{files}: label {values[foreign[0]]} ({foreign.size} row{'' if foreign.size == 1 else 's'}) is none of "
            f"the {len(classes)} classes that the metadata name; move files whose labels are withheld to another folder"
        )
    return numbers.astype(np.int64), classes


def _positions(values: NDArray[Any], classes: tuple[str, ...]) -> NDArray[np.int64]:
    """Return each string's position in `classes`; -1 if it is none of them."""
    position = {name: number for number, name in enumerate(classes)}
    return np.array([position.get(value, -1) for value in values], dtype=np.int64)
