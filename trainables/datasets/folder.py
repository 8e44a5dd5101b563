"""Pictures in folders, one for each class: `cats/*.jpg`, `dogs/*.jpg`, with or without parts above them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainables.datasets import pictures
from trainables.datasets.source import DatasetError, Decoded, Progress, plain_name

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

BATCH = 64  # files that a thread reads at a time


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
            (file for part in self._parts() for folder in part[1] for file in images_in(folder)), self.path
        )

    def decode(self, progress: Progress) -> Decoded:
        parts = self._parts()
        classes = tuple(sorted({folder.name for _, folders in parts for folder in folders}))
        rows = [
            (file, classes.index(folder.name), test)
            for test, folders in parts
            for folder in folders
            for file in images_in(folder)
        ]
        counts = np.bincount([label for _, label, _ in rows], minlength=len(classes))
        empty = [name for name, count in zip(classes, counts, strict=True) if not count]
        if empty:
            raise DatasetError(
                f"{self.path}: no pictures for {', '.join(empty)} (looked for {', '.join(SUFFIXES)}); "
                "add some, or remove the folder"
            )
        files = [file for file, _, _ in rows]
        found = pictures.decode(lambda: batches(files), len(files), progress)
        labels = np.array([label for _, label, _ in rows], dtype=np.int64)
        test = np.array([test for _, _, test in rows], dtype=np.bool_)
        return pictures.finish(found, labels, classes, test if test.any() else None)

    def _parts(self) -> list[tuple[bool, list[Path]]]:
        """Whether it is the test part, and its class folders, for each part there is."""
        here = _folders(self.path)
        parts = [folder for folder in here if folder.name.lower() in PARTS]
        if not any(_folders(part) for part in parts):
            return [(False, here)]
        return [(PARTS[part.name.lower()], _folders(part)) for part in parts]


def is_class_folders(path: Path) -> bool:
    """Whether `path` is a folder with pictures in folders, one or two levels down."""
    return any(_has_picture(folder) or any(map(_has_picture, _folders(folder))) for folder in _folders(path))


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


def _differing(parts: list[tuple[bool, list[Path]]]) -> list[str]:
    """Classes that a part has and another has not."""
    names = [{folder.name for folder in folders} for _, folders in parts]
    problems = []
    for (_, folders), mine in zip(parts, names, strict=True):
        missing = sorted(set().union(*names) - mine)
        if missing:
            part = folders[0].parent if folders else "a part"
            problems.append(
                f"{part} has no folder for {', '.join(missing[:10])}{' …' if len(missing) > 10 else ''}, other parts "
                "do; all parts must have the same classes"
            )
    return problems


def _folders(path: Path) -> list[Path]:
    return sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith((".", "_")))


def _has_picture(folder: Path) -> bool:
    return any(file.suffix.lower() in SUFFIXES for file in folder.iterdir())


def _hidden(file: Path) -> bool:
    return file.name.startswith(".")
