"""Find the columns of a table by their names: which has the pictures, which the labels, which the parts."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from math import isqrt
from pathlib import Path

from trainables.datasets.gray_values import FEWEST
from trainables.datasets.reading import Reading
from trainables.datasets.text_table import TextTable
from trainables.errors import DatasetError, did_you_mean, listed, shown

# Names of columns, the likeliest first; case and the signs between words do not matter
IMAGE_COLUMNS = (
    *("file_name", "file", "file_path", "image_path", "path", "img_path", "image_name", "img_name", "image_file"),
    *("image", "img", "picture", "photo", "pixels", "image_id", "img_id", "id_code", "id"),
)
LABEL_COLUMNS = (
    *("label", "labels", "fine_label", "coarse_label", "class", "class_name", "target", "category", "label_name"),
    *("category_name", "class_label", "class_id", "label_id", "category_id", "species", "breed", "emotion"),
)
SPLIT_COLUMNS = ("split", "set", "subset", "partition", "usage", "part", "data_set", "fold")
BITS = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}
"""The values of one-hot columns, in lower case."""

_PIXEL_NAME = re.compile(r"(pixel|px|p)?[ _-]?\d+(x\d+)?", re.IGNORECASE)  # pixel0 of Kaggle's MNIST, 1x1 of others
_TRIED = 5  # rows in which a column is seen to name pictures
_GRAYS = frozenset(map(str, range(256)))


@dataclass(frozen=True)
class Columns:
    """The columns of the table `place`, which are numbered from 0 here; `types` only where a table has types."""

    place: Path
    names: Sequence[str]
    types: Sequence[str] = ()

    def pick(self, kind: str, given: str | None, usual: Sequence[str], candidates: Collection[int]) -> int:
        """Return the column that holds images or labels.

        Args:
            kind: `image` or `label`, as in the option's name.
            given: the name that the user gives.
            usual: names to look for, the likeliest first.
            candidates: the columns that may be it.

        Raises:
            DatasetError: none, or more than one, may be it.
        """
        if given is not None:
            return self._given(kind, given, candidates)
        found = [column for column in self.named(usual) if column in candidates]
        twins = [column for column in found if plain(self.names[column]) == plain(self.names[found[0]])]
        if len(twins) == 1 or len(candidates) == 1:
            return (found or list(candidates))[0]
        raise DatasetError(
            f"{shown(self.place)}: which column has the {kind}s? Name it with --{kind}-column, or rename it to one of "
            f"{', '.join(usual[:8])}, … ({self})"
        )

    def named(self, usual: Collection[str]) -> list[int]:
        """Return the columns with one of the `usual` names, the likeliest first."""
        order = {plain(name): place for place, name in enumerate(usual)}
        found = [column for column, name in enumerate(self.names) if plain(name) in order]
        return sorted(found, key=lambda column: order[plain(self.names[column])])

    def _given(self, kind: str, given: str, candidates: Collection[int]) -> int:
        exact = [column for column, name in enumerate(self.names) if name == given]
        found = exact or [column for column, name in enumerate(self.names) if plain(name) == plain(given)]
        fit = [column for column in found if column in candidates]
        if len(fit) == 1:
            return fit[0]
        option = f"--{kind}-column {given}"
        if len(fit) > 1:
            raise DatasetError(
                f"{shown(self.place)}: {shown(option)}: {len(fit)} columns have that name; rename them ({self})"
            )
        if found:
            raise DatasetError(f"{shown(self.place)}: {shown(option)}: that column cannot have the {kind}s ({self})")
        raise DatasetError(
            f"{shown(self.place)}: {shown(option)}: no such column{did_you_mean(given, self.names)} ({self})"
        )

    def __str__(self) -> str:
        typed = [f"{name}: {kind}" for name, kind in zip(self.names, self.types, strict=False)]
        return f"columns: {listed(typed or [name or repr(name) for name in self.names])}"


def plain(name: str) -> str:
    """Return a column's name as names are compared: `Image_Name`, `image name` and `imageName` are the same."""
    return re.sub(r"[\W_]+", "", name).casefold()


@dataclass(frozen=True)
class Roles:
    """The columns of a table, by what they hold.

    Attributes:
        image: the pictures' names, or all gray values of a picture with blanks between them; None: see `pixels`.
        pixels: a gray value each, row after row of the picture.
        label: the labels; None: see `one_hot`.
        one_hot: 1 in the column of the row's class, 0 in the others.
        splits: the columns that may name the row's part.
    """

    image: int | None
    pixels: tuple[int, ...] = ()
    label: int | None = None
    one_hot: tuple[int, ...] = ()
    splits: tuple[int, ...] = ()

    @classmethod
    def of(cls, table: TextTable, reading: Reading, labelled: bool, is_picture: Callable[[str], bool]) -> Roles:
        """Find out what the columns of `table` hold, which needs labels only if it is `labelled`.

        Args:
            is_picture: return whether a text names a picture.

        Raises:
            DatasetError: the columns of pictures or labels cannot be found.
        """
        columns = Columns(table.path, table.names)
        splits = columns.named(SPLIT_COLUMNS)
        usable = [column for column, name in enumerate(table.names) if name and not name.startswith("Unnamed: ")]
        label = None
        if labelled and reading.label_column is not None:
            label = columns.pick("label", reading.label_column, (), usable)
        pixels = () if reading.image_column else _pixels(table, columns, [c for c in usable if c != label])
        free = [column for column in usable if column != label]
        image = None if pixels else _image(table, columns, free, reading.image_column, is_picture)
        taken = {image, *pixels, *splits}
        rest = [column for column in usable if column not in taken]
        one_hot: tuple[int, ...] = ()
        if labelled and label is None:
            if len(rest) > 1 and not columns.named(LABEL_COLUMNS) and _all_in(table, rest, BITS):
                one_hot = tuple(rest)
            else:
                label = columns.pick("label", None, LABEL_COLUMNS, rest or splits)
        return cls(image, pixels, label, one_hot, tuple(column for column in splits if column not in (image, label)))


def _image(
    table: TextTable, columns: Columns, usable: Sequence[int], given: str | None, is_picture: Callable[[str], bool]
) -> int:
    """Return the column of pictures: the one given, else one that names pictures, else one with a usual name."""
    if given is not None:
        return columns.pick("image", given, (), usable)
    naming = [column for column in usable if _names_pictures(table, column, is_picture)]
    return columns.pick("image", None, IMAGE_COLUMNS, naming or usable)


def _names_pictures(table: TextTable, column: int, is_picture: Callable[[str], bool]) -> bool:
    values = [row[column] for row in table.first if row[column]][:_TRIED]
    return bool(values) and all(map(is_picture, values))


def _pixels(table: TextTable, columns: Columns, usable: Sequence[int]) -> tuple[int, ...]:
    """Return the columns that hold a gray value each; none if these are few.

    Raises:
        DatasetError: there are many, but not as many as a square picture has.
    """
    found = tuple(column for column in usable if _PIXEL_NAME.fullmatch(table.names[column]))
    if len(found) < FEWEST or not _all_in(table, found, _GRAYS):
        return ()
    if _all_in(table, found, BITS) and columns.named(IMAGE_COLUMNS):
        return ()  # one-hot columns of classes that are numbers
    if isqrt(len(found)) ** 2 != len(found):
        raise DatasetError(
            f"{shown(table.path)}: {len(found):,} columns of gray values, {shown(table.names[found[0]])} to "
            f"{shown(table.names[found[-1]])}, make no square picture; if a label is among them, name it with "
            "--label-column; pictures of other shapes have to be files"
        )
    return found


def _all_in(table: TextTable, columns: Sequence[int], allowed: Collection[str]) -> bool:
    return bool(table.first) and all(row[column].casefold() in allowed for row in table.first for column in columns)
