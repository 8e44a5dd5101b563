"""The external test set: pictures from elsewhere in class folders, used to test models and for nothing else."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainables.datasets import pictures
from trainables.datasets.cache import Dataset, writable_dir
from trainables.datasets.folder import SUFFIXES, class_folders, images_in, is_class_folders
from trainables.datasets.listing import Files
from trainables.datasets.reading import AS_FOUND, Reading
from trainables.datasets.source import Progress
from trainables.datasets.stored_images import StoredImages
from trainables.errors import DatasetError, did_you_mean


def check_external(folder: Path) -> list[str]:
    """Return a message for each reason why `load_external` would fail, as far as milliseconds show it."""
    if not folder.is_dir():
        return [f"--external-test {folder}: there is no such folder; give a folder of class folders"]
    if not is_class_folders(folder):
        return [f"--external-test {folder}: no pictures in class folders there (looked for {folder}/CLASS/*.jpg)"]
    return []


def load_external(
    folder: Path, like: Dataset, reading: Reading = AS_FOUND, progress: Progress | None = None
) -> tuple[StoredImages, NDArray[np.int64]]:
    """Load the pictures in the class folders of `folder`: whole pictures, grey if those of `like` are, and labels [M].

    The folders are named like classes of `like`, not necessarily all of them; case and the signs between words do not
    matter.

    Raises:
        DatasetError: with the problems that `check_external` finds, or naming the folders that are no class, the
            folders without a picture, or the pictures that cannot be read.
    """
    if problems := check_external(folder):
        raise DatasetError(*problems)
    numbers = _class_numbers(class_folders(folder), like.classes)
    pictures_of = {path: images_in(path) for path in numbers}
    if empty := [str(path) for path, files in pictures_of.items() if not files]:
        raise DatasetError(f"no pictures in {', '.join(empty)} (looked for {', '.join(SUFFIXES)}); remove the folder")
    files = [file for class_files in pictures_of.values() for file in class_files]
    labels = np.repeat(list(numbers.values()), [len(files) for files in pictures_of.values()]).astype(np.int64)
    report = progress or (lambda what, done, total: None)
    channels, scratch = like.images.shape[3], writable_dir("datasets")
    decoded = pictures.decode_like(Files(files).batches(), len(files), report, reading.stored_side, channels, scratch)
    if unreadable := decoded.unreadable:
        count, them = ("1 picture", "it") if len(unreadable) == 1 else (f"{len(unreadable):,} pictures", "them")
        raise DatasetError(*unreadable[:10], f"{count} in {folder} cannot be read; fix or remove {them}")
    return decoded.images, labels


def _class_numbers(folders: Sequence[Path], classes: Sequence[str]) -> dict[Path, int]:
    """Return the class that each folder is named after: exactly, or as the only class but for case and signs."""
    exact = {name: number for number, name in enumerate(classes)}
    counts = Counter(map(_plain, classes))
    plain = {_plain(name): number for name, number in exact.items() if counts[_plain(name)] == 1}
    numbers = {path: exact.get(path.name, plain.get(_plain(path.name))) for path in folders}
    unknown = [path for path, number in numbers.items() if number is None]
    if unknown:
        known = f"{', '.join(classes[:20])}{' …' if len(classes) > 20 else ''}"
        raise DatasetError(
            *(f"{path}: no class is called {path.name!r}{did_you_mean(path.name, classes)}" for path in unknown[:10]),
            f"class folders of the external test set are named like the data set's classes: {known}",
        )
    return {path: number for path, number in numbers.items() if number is not None}


def _plain(name: str) -> str:
    """Return a name without case and signs: `T-shirt/top` and `t_shirt_top` are the same."""
    return re.sub(r"[\W_]+", " ", name).strip().casefold()
