"""Pictures in folders, one for each class: `cats/*.jpg`, `dogs/*.jpg`, with or without parts above them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainables.datasets import pictures
from trainables.datasets.source import Decoded, Progress, plain_name
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

A validation part is searched on like the rest: every sweep draws its own core, the same way for all data.
"""

BATCH = 16  # files that a thread reads at a time


@dataclass(frozen=True)
class Folder:
    """The class folders in `path`, or in its parts (`train/`, `Test/`, …); pictures may lie deeper in one."""

    path: Path
    data_dir: Path | None = None

    @property
    def name(self) -> str:
        return plain_name(self.path)

    @property
    def origin(self) -> str:
        return str(self.path.absolute())

    def problems(self) -> list[str]:
        if self.data_dir is not None:
            return [f"data_dir={self.data_dir}: {self.path} is a path already; leave --data-dir out"]
        return _differing(self._parts())

    def key(self) -> str:
        return files_key(
            (file for part in self._parts() for folder in part.folders for file in images_in(folder)), self.path
        )

    def decode(self, progress: Progress, stored_side: int, scratch: Path) -> Decoded:
        parts = self._parts()
        classes = tuple(sorted({folder.name for part in parts for folder in part.folders}))
        found = {folder: images_in(folder) for part in parts for folder in part.folders}
        if empty := [str(folder.relative_to(self.path)) for folder, files in found.items() if not files]:
            raise DatasetError(
                f"{self.path}: no pictures for {', '.join(empty[:10])}{' …' if len(empty) > 10 else ''} "
                f"(looked for {', '.join(SUFFIXES)}); add some, or remove the folder"
            )
        rows = [
            (file, classes.index(folder.name), part.test)
            for part in parts
            for folder in part.folders
            for file in found[folder]
        ]
        files = [file for file, _, _ in rows]
        decoded = pictures.decode(lambda: batches(files), len(files), progress, stored_side, scratch)
        labels = np.array([label for _, label, _ in rows], dtype=np.int64)
        test = np.array([test for _, _, test in rows], dtype=np.bool_)
        return pictures.finish(decoded, labels, classes, test if test.any() else None)

    def _parts(self) -> list[_Part]:
        here = class_folders(self.path)
        if not has_parts(self.path):
            return [_Part(self.path, False, here)]
        named = [(path, path.name.lower()) for path in here]
        return [_Part(path, PARTS[name], class_folders(path)) for path, name in named if name in PARTS]


@dataclass(frozen=True)
class _Part:
    """A folder of class folders, and whether it is the official test part."""

    path: Path
    test: bool
    folders: list[Path]


def has_parts(path: Path) -> bool:
    """Whether `path` has parts (`Training/`, `test/`, …) with folders in them."""
    return any(class_folders(part) for part in class_folders(path) if part.name.lower() in PARTS)


def is_class_folders(path: Path) -> bool:
    """Whether `path` is a folder with pictures in folders, one or two levels down."""
    return any(_has_picture(folder) or any(map(_has_picture, class_folders(folder))) for folder in class_folders(path))


def images_in(folder: Path) -> list[Path]:
    """All pictures below `folder`, sorted."""
    return sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES and not _hidden(file))


def files_key(files: Iterable[Path], root: Path) -> str:
    """64 hex digits over the files' names below `root`, sizes and times: they may be too many to read twice."""
    whole = hashlib.sha256()
    for file in files:
        found = file.stat()
        whole.update(f"{file.relative_to(root)}\n{found.st_size}\n{found.st_mtime_ns}\n".encode())
    return whole.hexdigest()


def batches(files: list[Path], table: str = "") -> Iterable[pictures.Batch]:
    """The files, some at a time; `table`: the file whose rows name them."""
    for start in range(0, len(files), BATCH):
        yield pictures.Batch(table, start, files[start : start + BATCH])


def _differing(parts: list[_Part]) -> list[str]:
    """Classes that a part has and another has not."""
    names = {folder.name for part in parts for folder in part.folders}
    problems = []
    for part in parts:
        missing = sorted(names - {folder.name for folder in part.folders})
        if missing:
            problems.append(
                f"{part.path} has no folder for {', '.join(missing[:10])}{' …' if len(missing) > 10 else ''}, other "
                "parts do; all parts must have the same classes"
            )
    return problems


def class_folders(path: Path) -> list[Path]:
    """The folders in `path`, sorted, but for those whose names begin with a dot or an underscore."""
    return sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith((".", "_")))


def _has_picture(folder: Path) -> bool:
    return any(file.suffix.lower() in SUFFIXES for file in folder.iterdir())


def _hidden(file: Path) -> bool:
    return file.name.startswith(".")
