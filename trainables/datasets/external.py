"""Pictures from elsewhere, in class folders, that trained models are tried on: never trained on, never chosen by."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainables.datasets import pictures
from trainables.datasets.cache import Dataset, writable_dir
from trainables.datasets.folder import SUFFIXES, batches, class_folders, images_in, is_class_folders
from trainables.datasets.source import Pixels, Progress
from trainables.errors import DatasetError, did_you_mean


def check_external(folder: Path) -> list[str]:
    """A sentence for each reason why `load_external` would fail that shows in milliseconds, without the data set."""
    if not folder.is_dir():
        return [f"--external-test {folder}: there is no such folder; give one with class folders in it"]
    if not is_class_folders(folder):
        return [f"--external-test {folder}: no pictures in class folders there (looked for {folder}/CLASS/*.jpg)"]
    return []


def load_external(folder: Path, like: Dataset, progress: Progress | None = None) -> tuple[Pixels, NDArray[np.int64]]:
    """The pictures in the class folders of `folder`, of the size and channels of `like`'s: [M, H, W, C] and labels [M].

    The folders are named like classes of `like`, not necessarily all of them; case, and which signs are between words,
    do not matter. Pictures are scaled and cut about their middle.

    Raises:
        DatasetError: with the problems that `check_external` finds, or naming the folders that are no class, the
            classes without a picture, or the pictures that cannot be read.
    """
    if problems := check_external(folder):
        raise DatasetError(*problems)
    numbers = _class_numbers(class_folders(folder), like.classes)
    found = {path: images_in(path) for path in numbers}
    if empty := [str(path) for path, files in found.items() if not files]:
        raise DatasetError(f"no pictures in {', '.join(empty)} (looked for {', '.join(SUFFIXES)}); remove the folder")
    files = [file for own in found.values() for file in own]
    labels = np.repeat(list(numbers.values()), [len(own) for own in found.values()]).astype(np.int64)
    height, width, channels = like.images.shape[1:]
    report = progress or (lambda what, done, total: None)
    shape, scratch = (height, width, channels), writable_dir("datasets")
    made = pictures.decode_like(batches(files), len(files), report, shape, scratch)
    if made.unreadable:
        raise DatasetError(*made.unreadable[:10], f"{len(made.unreadable)} of the pictures in {folder} cannot be read")
    return made.images, labels


def _class_numbers(folders: Sequence[Path], classes: Sequence[str]) -> dict[Path, int]:
    """The class that each folder is named like: exactly, or as the only one."""
    exact = {name: number for number, name in enumerate(classes)}
    times = Counter(map(_plain, classes))
    plain = {_plain(name): number for name, number in exact.items() if times[_plain(name)] == 1}
    found = {path: exact.get(path.name, plain.get(_plain(path.name))) for path in folders}
    unknown = [path for path, number in found.items() if number is None]
    if unknown:
        known = f"{', '.join(classes[:20])}{' …' if len(classes) > 20 else ''}"
        raise DatasetError(
            *(f"{path}: no class is called {path.name!r}{did_you_mean(path.name, classes)}" for path in unknown[:10]),
            f"class folders of the external test set are named like the data set's classes: {known}",
        )
    return {path: number for path, number in found.items() if number is not None}


def _plain(name: str) -> str:
    """What is left of a name without case and signs: `T-shirt/top` and `t_shirt_top` are the same."""
    return re.sub(r"[\W_]+", " ", name).strip().casefold()
