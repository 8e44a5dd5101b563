"""Find the pictures that a table names: as written, else below its folder, whatever separators and suffixes it uses."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote, urlsplit

from trainables.datasets.folder_names import part_in
from trainables.datasets.tree import SUFFIXES, walk
from trainables.errors import DatasetError, shown

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_SHOWN = 3  # rows that a message names


SEALED = frozenset(("test", "unlabelled"))
"""Parts whose pictures are never those of another part."""


def is_picture_name(name: str) -> bool:
    """Return whether a name ends like that of a picture file."""
    return os.path.splitext(name)[1].lower() in SUFFIXES  # noqa: PTH122


def is_picture(root: Path, name: str) -> bool:
    """Return whether a name ends like that of a picture file, or is that of one in `root` without its suffix."""
    return is_picture_name(name) or any(os.path.isfile(os.path.join(root, name + suffix)) for suffix in SUFFIXES)  # noqa: PTH113, PTH118


class Finder:
    """The pictures below the folder `root`, found by the names that a table gives them."""

    def __init__(self, table: Path, root: Path, part: str | None = None) -> None:
        """Take the table's path, for messages, and the part whose folders are preferred where names are in several."""
        self.table, self.root, self.part = table, root, part

    def find(self, names: Sequence[str], numbers: Sequence[int]) -> list[Path]:
        """Return the file of each name, which the row with this number has; a file need not be there if most are.

        Raises:
            DatasetError: names fit several files, most files are missing, or names are addresses and no files.
        """
        files = [self._as_written(name) for name in names]
        if all(files):
            return [file for file in files if file]
        parts = [_parts(name) for name in names]
        shared = _shared([folders for *folders, _ in parts if folders])
        several: dict[int, list[Path]] = {}
        for row, name in enumerate(names):
            if files[row] is None:
                found = self._below(parts[row], name, shared)
                files[row] = found[0] if found else None
                if len(found) > 1:
                    several[row] = found
        missing = [row for row, file in enumerate(files) if file is None]
        if several:
            raise DatasetError(*self._ambiguous(names, numbers, several))
        if len(missing) > len(names) / 2:
            raise DatasetError(self._not_there(names, numbers, missing))
        return [file or self.root / name for file, name in zip(files, names, strict=True)]

    def _as_written(self, name: str) -> Path | None:
        """Return the file that the name is the path of, from `root` on."""
        path = os.path.join(self.root, name)  # noqa: PTH118 - a million times
        return Path(path) if os.path.isfile(path) else None  # noqa: PTH113

    def _below(self, parts: Sequence[str], name: str, shared: int) -> list[Path]:
        """Return the files whose paths end as the name does, perhaps without folders that all names begin with."""
        dropped = range(len(parts)) if _ADDRESS.match(name) else range(min(shared, len(parts) - 1) + 1)
        for first in dropped:
            tail, parted = tuple(map(_plain, parts[first:])), _parts_in(parts[:first]) or _parts_in([self.part or ""])
            for index in (self._by_name, self._by_stem):
                found = [path for path in index.get(tail[-1], ()) if _ends(path, tail)]
                if found := [path for path in found if not _contradict(parted, _parts_in(path[:-1]))]:
                    return self._preferred(found, parts[-1])
        return []

    def _preferred(self, found: list[tuple[str, ...]], name: str) -> list[Path]:
        """Return those of the files that are spelled like `name` and lie in the table's part, if any are and do."""
        for better in (
            [path for path in found if name in (path[-1], os.path.splitext(path[-1])[0])],  # noqa: PTH122
            [path for path in found if self.part and any(part_in(folder) == self.part for folder in path[:-1])],
        ):
            found = better or found
        return [self.root.joinpath(*path) for path in found]

    @cached_property
    def _files(self) -> list[tuple[str, ...]]:
        """The parts of the path of each picture below the root, sorted."""
        return sorted(path.relative_to(self.root).parts for path in walk(self.root).pictures())

    @cached_property
    def _by_name(self) -> dict[str, list[tuple[str, ...]]]:
        index = defaultdict(list)
        for path in self._files:
            index[_plain(path[-1])].append(path)
        return index

    @cached_property
    def _by_stem(self) -> dict[str, list[tuple[str, ...]]]:
        index = defaultdict(list)
        for path in self._files:
            index[_plain(os.path.splitext(path[-1])[0])].append(path)  # noqa: PTH122
        return index

    def _ambiguous(self, names: Sequence[str], numbers: Sequence[int], several: dict[int, list[Path]]) -> Iterator[str]:
        for row, files in list(several.items())[:_SHOWN]:
            places = ", ".join(shown(file.relative_to(self.root)) for file in files[:_SHOWN])
            yield f"{shown(self.table)}, row {numbers[row]}: {shown(names[row])!r} may be {places}"
        yield (
            f"{shown(self.table)}: {_rows(len(several))} fit several pictures below {shown(self.root)}; give the "
            "folder of the right ones as --data-dir, or write the folders into the table"
        )

    def _not_there(self, names: Sequence[str], numbers: Sequence[int], missing: Sequence[int]) -> str:
        row = missing[0]
        lacks = f"{shown(self.table)}: {len(missing):,} of the {len(names):,} pictures that it names are not there"
        first, root = f"row {numbers[row]}: {shown(names[row])}", shown(self.root)
        if _ADDRESS.match(names[row]):
            return (
                f"{lacks} ({first}); pictures are not downloaded: download them, and give their folder as --data-dir; "
                "they are found by the last part of their addresses"
            )
        return (
            f"{lacks} ({first}; looked for {shown(self.root / names[row])} and, at any depth in {root}, for pictures "
            "whose paths end like the names); give their folder as --data-dir"
        )


def _parts(name: str) -> list[str]:
    """Return the folders and the file of a name, with any separators and without drive, `.` and `..`."""
    if _ADDRESS.match(name):
        name = unquote(urlsplit(name).path)
    parts = [part for part in re.split(r"[\\/]+", name) if part not in ("", ".", "..")]
    return (parts[1:] if parts and re.fullmatch(r"[A-Za-z]:", parts[0]) else parts) or [name]


def _shared(folders: Sequence[Sequence[str]]) -> int:
    """Return how many folders all the names begin with: only these may be others here than where the table was made.

    A name whose own folder were dropped would be that of another class's picture.
    """
    if not folders:
        return 0
    first, last = min(map(tuple, folders)), max(map(tuple, folders))
    return next(
        (depth for depth, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last))
    )


def _plain(text: str) -> str:
    """Return a name as file systems that do not tell case and Unicode forms apart compare it."""
    return text.casefold() if text.isascii() else unicodedata.normalize("NFC", text).casefold()


def _ends(path: tuple[str, ...], tail: tuple[str, ...]) -> bool:
    """Return whether the folders at the end of `path` are those of `tail`."""
    folders = tail[:-1]
    return not folders or tuple(map(_plain, path[:-1][-len(folders) :])) == folders


def _parts_in(folders: Sequence[str]) -> set[str]:
    return {part for folder in folders if (part := part_in(folder))}


def _contradict(named: set[str], found: set[str]) -> bool:
    """Return whether rows of the training part would be pictures of the test part, or the other way round."""
    return bool(named and found) and named & SEALED != found & SEALED


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"
