"""A folder of files as it was found: its pictures, its tables, its folders, and what is neither."""

from __future__ import annotations

import mimetypes
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from trainables.datasets import formats
from trainables.datasets.inventory import EXAMPLES, LeftOut
from trainables.errors import DatasetError, shown

SUFFIXES = frozenset(
    ".apng .avif .bmp .dib .gif .heic .heif .jfif .jpe .jpeg .jpg .mpo .pbm .pgm .png .pnm .ppm .tif .tiff "  # noqa: SIM905
    ".webp".split()
)
"""Files of these names are pictures, whatever they hold. Other files are, if their first bytes are a picture's."""

NOT_READ = frozenset(
    ".ai .arw .cr2 .cr3 .dcm .djvu .dng .emf .eps .exr .hdr .icns .ico .j2k .jp2 .jpf .jpx .jxl .nef .orf "  # noqa: SIM905
    ".pcx .pdf .pef .ps .psd .raf .raw .rw2 .svg .svgz .tga .wmf .xcf".split()
)
"""Pictures in formats that are not read."""

TABLES = frozenset((".csv", ".jsonl", ".parquet", ".tsv"))
THUMBNAILS = frozenset(("@eadir", "$recycle.bin", "#recycle", "#snapshot", "lost+found", "system volume information"))
"""Folders, in lower case, that file servers and systems make in those of their users."""

DEEPEST = 200  # folders in folders; more are a mistake, and too many for a path
LISTED_SUFFIXES = 8  # of files that are no pictures; the rest is counted together

UNOPENED = "folder that cannot be opened"
NO_PICTURE, HIDDEN_FILE, HIDDEN_FOLDER = "not a picture", "hidden file", "in the hidden folder"
Reason = str
Identity = tuple[int, int]  # a folder's device and number


@dataclass(eq=False)
class Tree:
    """A folder and all that is below it. Links to folders are followed, but into no folder twice.

    Attributes:
        entries: pictures and folders, in the order of their names. What has a picture's name but cannot be read as a
            file is a picture, too: it is found when it is read, and named.
        tables: CSV and Parquet files directly in it.
        others: what is directly in it and neither, with the reason; all files below a folder that is not looked at.
    """

    path: Path
    entries: list[Path | Tree] = field(default_factory=list)
    tables: list[Path] = field(default_factory=list)
    others: list[tuple[Reason, Path]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.path.name

    @cached_property
    def loose(self) -> list[Path]:
        """The pictures directly in it."""
        return [entry for entry in self.entries if isinstance(entry, Path)]

    @cached_property
    def folders(self) -> list[Tree]:
        """The folders directly in it, also those without pictures."""
        return [entry for entry in self.entries if isinstance(entry, Tree)]

    @cached_property
    def filled(self) -> list[Tree]:
        """The folders directly in it that hold pictures at some depth."""
        return [folder for folder in self.folders if folder.count]

    @cached_property
    def count(self) -> int:
        """The number of pictures at all depths."""
        return len(self.loose) + sum(folder.count for folder in self.folders)

    @property
    def is_empty(self) -> bool:
        """True if no file at any depth is seen in a file manager."""
        return not self.count and all(_is_hidden(reason) for reason, _ in self.left_out())

    def pictures(self) -> Iterator[Path]:
        """Yield the pictures at all depths, sorted by the parts of their paths."""
        for entry in self.entries:
            if isinstance(entry, Path):
                yield entry
            else:
                yield from entry.pictures()

    def find(self, below: str) -> Tree | None:
        """Return the folder with this path below it, such as `.`, `train` or `archive/train`; None if there is none."""
        here: Tree | None = self
        for part in Path(below).parts:
            here = next((folder for folder in here.folders if folder.name == part), None) if here else None
        return here

    def left_out(self) -> list[tuple[Reason, Path]]:
        """Return the reason and path of all files at all depths that are no pictures."""
        tables = [("table", table) for table in self.tables]
        return [*tables, *self.others, *(found for folder in self.folders for found in folder.left_out())]


def walk(path: Path) -> Tree:
    """Return the folder `path` as it is now. Bytes are read only of files whose name does not say what they are.

    Raises:
        DatasetError: it cannot be looked into.
    """
    try:
        os.scandir(path).close()
    except OSError as error:
        raise DatasetError(f"{shown(path)}: the folder cannot be opened: {error.strerror}") from error
    return _walk(path, 0, {_identity(path)})


def summed(found: Iterable[tuple[Reason, Path]], root: Path) -> tuple[LeftOut, ...]:
    """Return how many there are for each reason, with the paths of the first ones relative to `root`."""
    counts: Counter[Reason] = Counter()
    examples: dict[Reason, list[str]] = defaultdict(list)
    for reason, path in found:
        counts[reason] += 1
        if counts[reason] <= EXAMPLES:
            examples[reason].append(shown(path.relative_to(root)))
    common = sorted(counts, key=lambda reason: -counts[reason])
    plain = [reason for reason in common if reason.startswith(NO_PICTURE)]
    rest = plain[LISTED_SUFFIXES:]
    left_out = [LeftOut(reason, counts[reason], tuple(examples[reason])) for reason in common if reason not in rest]
    if rest:
        first = tuple(path for reason in rest for path in examples[reason])[:EXAMPLES]
        left_out.append(LeftOut(f"{NO_PICTURE}, of other types", sum(counts[reason] for reason in rest), first))
    return tuple(left_out)


def _walk(path: Path, depth: int, seen: set[Identity]) -> Tree:
    """Return the folder, which lies so deep; `seen` are the folders that were looked into."""
    tree = Tree(path)
    with os.scandir(path) as found:
        entries = sorted(found, key=lambda entry: (entry.is_symlink(), entry.name))  # links last: see `_add_folder`
    for entry in entries:
        if _is_folder(entry):
            _add_folder(tree, entry, depth, seen)
        else:
            _add_file(tree, entry)
    tree.entries.sort(key=lambda entry: entry.name)
    return tree


def _add_folder(tree: Tree, entry: os.DirEntry[str], depth: int, seen: set[Identity]) -> None:
    """Add a folder in `tree`, unless it is a link to one that was seen, perhaps one above it."""
    place = tree.path / entry.name
    if reason := _unwanted(entry.name):
        files = [Path(folder) / name for folder, _, names in os.walk(place) for name in names]
        tree.others += [(reason, file) for file in files]
        return
    try:
        identity = _identity(place)
        if entry.is_symlink() and identity in seen:
            tree.others.append(("link to a folder that is read already", place))
            return
        seen.add(identity)
        if depth > DEEPEST:
            raise OSError(0, f"more than {DEEPEST} folders deep")
        folder = _walk(place, depth + 1, seen)
    except OSError:
        tree.others.append((UNOPENED, place))
        return
    if not folder.count and _suffix(entry.name) in SUFFIXES:
        tree.others.append(("folder named like a picture", place))
    tree.entries.append(folder)


def _add_file(tree: Tree, entry: os.DirEntry[str]) -> None:
    place, suffix = tree.path / entry.name, _suffix(entry.name)
    if entry.name.startswith("."):
        tree.others.append((HIDDEN_FILE, place))
    elif suffix in SUFFIXES:
        tree.entries.append(place)
    elif suffix in NOT_READ:
        tree.others.append((f"picture in a format that is not read: {suffix}", place))
    elif suffix in TABLES:
        tree.tables.append(place)
    elif not _is_file(entry):
        tree.others.append(("link that leads nowhere" if entry.is_symlink() else "not a file", place))
    elif _may_be_picture(suffix) and _begins_like_picture(place):
        tree.entries.append(place)
    else:
        tree.others.append((f"{NO_PICTURE}: {shown(suffix) or 'a name without a suffix'}", place))


def _is_hidden(reason: Reason) -> bool:
    return reason.startswith((HIDDEN_FILE, HIDDEN_FOLDER))


def _unwanted(name: str) -> Reason:
    """Return why a folder of this name is not looked at; an empty text if it is."""
    if name.startswith("."):
        return f"{HIDDEN_FOLDER} {shown(name)}"
    system = name.startswith("_") or name.lower() in THUMBNAILS
    return f"in the folder {shown(name)}, which systems and tools make" if system else ""


def _suffix(name: str) -> str:
    _, dot, end = name.rpartition(".")
    return f".{end.lower()}" if dot else ""


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False


def _identity(path: Path) -> Identity:
    status = path.stat()
    return status.st_dev, status.st_ino


_TYPES = mimetypes.MimeTypes()  # without the tables of this machine, which other machines may not have


def _may_be_picture(suffix: str) -> bool:
    """Return whether a file of this suffix may hold a picture: its type is not known, or any bytes."""
    kind, packed = _TYPES.guess_type(f"file{suffix}")
    return packed is None and (kind is None or kind.startswith("image/") or kind == "application/octet-stream")


def _begins_like_picture(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return formats.sniff(file.read(formats.SNIFFED)) is not None
    except OSError:
        return False
