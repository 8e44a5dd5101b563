"""Pictures in class folders: `cats/*.jpg`, `dogs/*.jpg`, perhaps below folders for parts such as `train/`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from trainables.datasets.listing import Files, Listing, decode
from trainables.datasets.reading import AS_FOUND, Reading
from trainables.datasets.source import Decoded, Progress, plain_name, unused_data_dir
from trainables.errors import DatasetError

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
PARTS = {
    "train": False,
    "training": False,
    "val": False,
    "valid": False,
    "validation": False,
    "test": True,
    "testing": True,
}
"""Names of folders above the class folders, in lower case, and whether they hold the official test part.

A validation part is used like the training part: every sweep draws its own validation set, the same way for all data.
"""


@dataclass(frozen=True)
class Folder:
    """The class folders in `path`, or in its parts (`train/`, `Test/`, …); pictures may lie deeper in one."""

    path: Path
    reading: Reading = AS_FOUND

    @property
    def name(self) -> str:
        return plain_name(self.path)

    @property
    def origin(self) -> str:
        return str(self.path.absolute())

    def problems(self) -> list[str]:
        return unused_data_dir(self.path, self.reading) or _missing_classes(self._parts())

    def key(self) -> str:
        return files_key(
            (file for part in self._parts() for folder in part.folders for file in images_in(folder)), self.path
        )

    def decode(self, progress: Progress, scratch: Path) -> Decoded:
        parts = self._parts()
        classes = tuple(sorted({folder.name for part in parts for folder in part.folders}))
        pictures_of = {folder: images_in(folder) for part in parts for folder in part.folders}
        if empty := [str(folder.relative_to(self.path)) for folder, files in pictures_of.items() if not files]:
            raise DatasetError(
                f"{self.path}: no pictures for {', '.join(empty[:10])}{' …' if len(empty) > 10 else ''} "
                f"(looked for {', '.join(SUFFIXES)}); add some, or remove the folder"
            )
        rows = [
            (file, folder.name, "test" if part.test else "train")
            for part in parts
            for folder in part.folders
            for file in pictures_of[folder]
        ]
        files, labels, names = (list(column) for column in zip(*rows, strict=True))
        return decode(Listing(Files(files), labels, names, classes=classes), self.reading, progress, scratch)

    def _parts(self) -> list[_Part]:
        folders = class_folders(self.path)
        if not has_parts(self.path):
            return [_Part(self.path, False, folders)]
        named = [(path, path.name.lower()) for path in folders]
        return [_Part(path, PARTS[name], class_folders(path)) for path, name in named if name in PARTS]


@dataclass(frozen=True)
class _Part:
    """A folder of class folders."""

    path: Path
    test: bool  # it is the official test part
    folders: list[Path]


def has_parts(path: Path) -> bool:
    """Return whether `path` has parts (`Training/`, `test/`, …) with folders in them."""
    return any(class_folders(part) for part in class_folders(path) if part.name.lower() in PARTS)


def is_class_folders(path: Path) -> bool:
    """Return whether `path` is a folder with pictures in folders, one or two levels down."""
    folders = class_folders(path) if path.is_dir() else []
    return any(_has_picture(folder) or any(map(_has_picture, class_folders(folder))) for folder in folders)


def places(path: Path) -> list[str]:
    """Return where class folders are looked for, for a message."""
    return [f"pictures in {path}/CLASS/"] if path.is_dir() else []


def images_in(folder: Path) -> list[Path]:
    """Return all pictures below `folder`, at any depth, sorted."""
    return sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES and not _hidden(file))


def files_key(files: Iterable[Path], root: Path) -> str:
    """Return 64 hex digits over the files' names below `root`, sizes and times: they may be too many to read twice."""
    digest = hashlib.sha256()
    for file in files:
        status = file.stat()
        digest.update(f"{file.relative_to(root)}\n{status.st_size}\n{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _missing_classes(parts: list[_Part]) -> list[str]:
    """Return a message for each part that lacks a class of another part."""
    names = {folder.name for part in parts for folder in part.folders}
    problems = []
    for part in parts:
        missing = sorted(names - {folder.name for folder in part.folders})
        if missing:
            more = " …" if len(missing) > 10 else ""
            problems.append(
                f"{part.path} has no folder for {', '.join(missing[:10])}{more}, but another part has; "
                "all parts must have the same classes"
            )
    return problems


def class_folders(path: Path) -> list[Path]:
    """Return the folders in `path`, sorted, without those whose names begin with a dot or an underscore."""
    return sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith((".", "_")))


def _has_picture(folder: Path) -> bool:
    return any(file.suffix.lower() in SUFFIXES for file in folder.iterdir())


def _hidden(file: Path) -> bool:
    return file.name.startswith(".")
