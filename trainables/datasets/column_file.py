"""One file of typed columns: Parquet, or Arrow as `Dataset.save_to_disk` of Hugging Face's `datasets` writes it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import compress, repeat
from pathlib import Path
from typing import Any

import numpy as np

from trainables.datasets import listing, pictures
from trainables.datasets.columns import LABEL_COLUMNS, SPLIT_COLUMNS, Columns
from trainables.datasets.finder import Finder, is_picture_name
from trainables.datasets.reading import AS_FOUND, Reading
from trainables.errors import DatasetError, shown
from trainables.files import UnreadableError, open_regular

PARQUET, ARROW = ".parquet", ".arrow"
IMAGE_COLUMNS = ("img", "image", "picture", "photo", "file_name", "file_path", "image_path", "path")
"""Names of columns that are looked for, the likeliest first."""

_READ_ROWS = 128  # rows that Arrow reads at a time: reading 32 thumbnails costs half as much as decoding them
_READ_BYTES = 2**25  # of encoded images that it reads at a time, about
_BATCH_ROWS = 32  # rows of these that a thread decodes at a time: enough to keep the cost of the pool small


@dataclass(frozen=True)
class ColumnFile:
    """A file, the names and the types of its columns, and its number of rows."""

    path: Path
    schema: Any
    rows: int

    @classmethod
    def open(cls, path: Path) -> ColumnFile:
        """Read what the file says about itself.

        Raises:
            DatasetError: it is no regular file, not Parquet or Arrow, or claims more rows than it can have.
        """
        with _reading(path):
            open_regular(path).close()
            if path.suffix == ARROW:
                schema, rows = _arrow_facts(path)
            else:
                schema, rows = _parquet_facts(path)
        size = path.stat().st_size
        if rows > size:
            raise DatasetError(f"{shown(path)}: damaged: it claims {rows:,} rows in {size:,} bytes")
        return cls(path, schema, rows)

    def columns(self) -> Columns:
        return Columns(self.path, self.schema.names, [str(field.type) for field in self.schema])

    def image_column(self, given: str | None) -> str:
        """Return the column of encoded images or, without one, that of the names of picture files.

        Raises:
            DatasetError: none, or more than one, may be it.
        """
        encoded = [place for place, field in enumerate(self.schema) if _holds_images(field.type)]
        texts = [place for place, field in enumerate(self.schema) if _is_text(field.type)]
        columns = self.columns()
        named = [place for place in columns.named(IMAGE_COLUMNS) if place in texts]
        naming = (
            [] if encoded or given else [place for place in named if self._names_pictures(self.schema.names[place])]
        )
        candidates = encoded + texts if given else encoded or naming
        name: str = self.schema.names[columns.pick("image", given, IMAGE_COLUMNS, candidates)]
        return name

    def label_column(self, given: str | None, image: str) -> str:
        """Return the column of labels: integers, texts or booleans; raise DatasetError as `image_column`."""
        names = self.schema.names
        candidates = [
            place for place, field in enumerate(self.schema) if field.name != image and _holds_labels(field.type)
        ]
        columns = self.columns()
        splits = set() if given else set(columns.named(SPLIT_COLUMNS))
        free = [place for place in candidates if place not in splits]
        name: str = names[columns.pick("label", given, LABEL_COLUMNS, free or candidates)]
        return name

    def splits(self, taken: Sequence[str]) -> dict[str, list[str]]:
        """Return the values of the columns that may name parts, by their names."""
        found = [self.schema.names[place] for place in self.columns().named(SPLIT_COLUMNS)]
        fit = [name for name in found if name not in taken and _holds_labels(self.schema.field(name).type)]
        return {name: [value or "" for value in self.texts(name)] for name in fit}

    def _names_pictures(self, column: str) -> bool:
        """Return whether the first values are names of picture files."""
        first = next(self.batches(column, 5), ())
        return len(first) > 0 and all(is_picture_name(str(value)) for value in first)

    def is_text(self, column: str) -> bool:
        return _is_text(self.schema.field(column).type)

    def is_whole(self, column: str) -> bool:
        """Return whether the column holds integers."""
        import pyarrow as pa

        return bool(pa.types.is_integer(_value_type(self.schema.field(column).type)))

    def texts(self, column: str) -> list[str | None]:
        """Return the column's values as texts, stripped; None where there is none.

        Raises:
            DatasetError: the file is damaged.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        found: list[str | None] = []
        for values in self.batches(column, 2**16):
            plain = values.cast(_value_type(values.type)) if pa.types.is_dictionary(values.type) else values
            found += pc.utf8_trim_whitespace(plain.cast(pa.string())).to_pylist()
        self.check_rows(len(found))
        return [text or None for text in found]

    def check_rows(self, found: int) -> None:
        """Raise DatasetError if the file has more or fewer rows than it claims."""
        if found != self.rows:
            raise DatasetError(f"{shown(self.path)}: damaged: it claims {self.rows:,} rows and has {found:,}")

    def batches(self, column: str, rows: int) -> Iterator[Any]:
        """Yield the values of a column as Arrow arrays of so many rows."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        with _reading(self.path):
            if self.path.suffix == ARROW:
                for batch in _arrow_batches(self.path):
                    for start in range(0, len(batch), rows):
                        yield batch.column(column).slice(start, rows)
                return
            with pq.ParquetFile(self.path, buffer_size=2**20, pre_buffer=False) as opened:
                for read in opened.iter_batches(rows, columns=[column]):
                    array = read.column(0)
                    yield array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array

    def class_names(self, label: str) -> tuple[str, ...] | None:
        """Return the classes in the order of their numbers, if the metadata have them.

        They stand under `classes`, with commas, or in Hugging Face's `ClassLabel`. What is of another make is ignored.
        """
        metadata: Mapping[bytes, bytes] = self.schema.metadata or {}
        if b"classes" in metadata:
            return tuple(metadata[b"classes"].decode(errors="replace").split(","))
        try:
            found = json.loads(metadata.get(b"huggingface", b"{}"))
        except (ValueError, RecursionError):
            return None
        for key in ("info", "features", label, "names"):
            found = found.get(key) if isinstance(found, dict) else None
        names = found if isinstance(found, list) and all(isinstance(name, str) for name in found) else None
        return tuple(names) if names else None


@dataclass(frozen=True)
class ImageColumn:
    """The column of a file that holds its images: encoded, or structs that hold them under `bytes`."""

    file: ColumnFile
    name: str

    @classmethod
    def of(cls, path: Path, reading: Reading = AS_FOUND) -> listing.Images:
        """Return the images in the file at `path`, or those that it names; it needs no labels.

        Raises:
            DatasetError: the file cannot be read, or no column or more than one may hold its images.
        """
        file = ColumnFile.open(path)
        return images_of(file, file.image_column(reading.image_column), reading)

    def __len__(self) -> int:
        return self.file.rows

    def places(self) -> Iterator[listing.Place]:
        """Yield the place of each image."""
        return zip(repeat(str(self.file.path)), range(1, self.file.rows + 1), strict=False)

    def batches(self, rows: listing.Mask | None = None) -> Iterator[pictures.Batch]:
        """Yield the encoded images in order, or those of `rows`; raise DatasetError where the file is damaged."""
        import pyarrow as pa
        import pyarrow.compute as pc

        row, each = 0, max(1, self.file.path.stat().st_size // max(1, self.file.rows))
        for column in self.file.batches(self.name, max(1, min(_READ_ROWS, _READ_BYTES // each))):
            values = pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column
            numbers = np.arange(row, row + len(values))
            row += len(values)
            chosen = numbers if rows is None else numbers[rows[numbers]]
            encoded = [values[place].as_py() for place in chosen - numbers[0]] if len(values) else []
            for start in range(0, len(chosen), _BATCH_ROWS):
                some = slice(start, start + _BATCH_ROWS)
                yield pictures.Batch(str(self.file.path), (chosen[some] + 1).tolist(), encoded[some])
        self.file.check_rows(row)


@dataclass(frozen=True, eq=False)
class Some:
    """The images that are `kept`: bool [all of them]."""

    images: listing.Images
    kept: listing.Mask

    def __len__(self) -> int:
        return int(self.kept.sum())

    def places(self) -> Iterator[listing.Place]:
        """Yield the place of each image."""
        return compress(self.images.places(), self.kept)

    def batches(self, rows: listing.Mask | None = None) -> Iterator[pictures.Batch]:
        """Yield the encoded images, or those of `rows`, bool [kept images]."""
        chosen = self.kept.copy()
        if rows is not None:
            chosen[self.kept] = rows
        yield from self.images.batches(chosen)


def images_of(file: ColumnFile, column: str, reading: Reading) -> listing.Images:
    """Return the images in a column, or those that it names; raise DatasetError if most of these are not found."""
    if not file.is_text(column):
        return ImageColumn(file, column)
    names, numbers = [name or "" for name in file.texts(column)], range(1, file.rows + 1)
    if empty := [number for number, name in zip(numbers, names, strict=True) if not name]:
        raise DatasetError(f"{shown(file.path)}, row {empty[0]}: nothing in column {shown(column)!r}")
    root = reading.data_dir or file.path.parent
    return listing.Files(Finder(file.path, root).find(names, numbers), str(file.path), numbers)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Raise errors within the context as DatasetError about the file: it cannot be read, whatever pixels go to."""
    import pyarrow as pa

    try:
        yield
    except UnreadableError as error:
        raise DatasetError(f"{shown(path)}: {error}") from error
    except (pa.ArrowException, OSError, MemoryError) as error:
        kind = "an Arrow" if path.suffix == ARROW else "a Parquet"
        reason = shown(" ".join(str(error).split()))[:300]
        raise DatasetError(f"{shown(path)}: not {kind} file that can be read: {reason}") from error


def _parquet_facts(path: Path) -> tuple[Any, int]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as opened:
        return opened.schema_arrow, opened.metadata.num_rows


def _arrow_facts(path: Path) -> tuple[Any, int]:
    import pyarrow as pa

    with pa.memory_map(str(path)) as mapped:
        schema = pa.ipc.open_stream(mapped).schema
    return schema, sum(map(len, _arrow_batches(path)))


def _arrow_batches(path: Path) -> Iterator[Any]:
    import pyarrow as pa

    with pa.memory_map(str(path)) as mapped:
        yield from pa.ipc.open_stream(mapped)


def _holds_images(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _holds_images(kind.field("bytes").type)
    return any(check(kind) for check in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view))


def _value_type(kind: Any) -> Any:
    import pyarrow as pa

    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    checks = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(check(_value_type(kind)) for check in checks)


def _holds_labels(kind: Any) -> bool:
    import pyarrow as pa

    return _is_text(kind) or pa.types.is_integer(_value_type(kind)) or pa.types.is_boolean(kind)
