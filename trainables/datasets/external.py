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
from trainables.datasets.folder_names import label_of
from trainables.datasets.listing import Files
from trainables.datasets.reading import AS_FOUND, Reading
from trainables.datasets.source import Progress
from trainables.datasets.stored_images import StoredImages
from trainables.datasets.tree import walk
from trainables.errors import DatasetError, counted, did_you_mean, listed, shown


def check_external(folder: Path) -> list[str]:
    """Return a message for each reason why `load_external` would fail, as far as milliseconds show it."""
    if not folder.is_dir():
        return [f"--external-test {folder}: there is no such folder; give a folder of class folders"]
    if not any(below.filled or below.loose for below in walk(folder).filled):
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
    folders = [below for below in walk(folder).folders if below.count or below.is_empty]
    if empty := [shown(below.path) for below in folders if not below.count]:
        raise DatasetError(f"no pictures in {', '.join(empty)}; add some, or remove the folder")
    numbers = _class_numbers([label_of(below.name) for below in folders], folder, like.classes)
    files = [file for below in folders for file in below.pictures()]
    labels = np.repeat(numbers, [below.count for below in folders]).astype(np.int64)
    report = progress or (lambda what, done, total: None)
    channels, scratch = like.images.shape[3], writable_dir("datasets")
    decoded = pictures.decode_like(Files(files).batches(), len(files), report, reading, channels, scratch)
    if (unreadable := decoded.unreadable) and reading.on_bad_image == "fail":
        count, them = counted(len(unreadable), "picture"), "it" if len(unreadable) == 1 else "them"
        raise DatasetError(
            *unreadable[:10],
            f"{count} in {shown(folder)} cannot be read; fix or remove {them}, or leave {them} out with "
            "--on-bad-image skip",
        )
    return decoded.images, labels[decoded.kept]


def _class_numbers(names: Sequence[str], folder: Path, classes: Sequence[str]) -> list[int]:
    """Return the class that each name means: exactly, or as the only class but for case and signs."""
    exact = {name: number for number, name in enumerate(classes)}
    counts = Counter(map(_plain, classes))
    plain = {_plain(name): number for name, number in exact.items() if counts[_plain(name)] == 1}
    numbers = [exact.get(name, plain.get(_plain(name), -1)) for name in names]
    unknown = [name for name, number in zip(names, numbers, strict=True) if number < 0]
    if unknown:
        raise DatasetError(
            *(
                f"{shown(folder / name)}: no class is called {shown(name)!r}{did_you_mean(name, classes)}"
                for name in unknown[:10]
            ),
            f"class folders of the external test set are named like the data set's classes: {listed(classes)}",
        )
    return numbers


def _plain(name: str) -> str:
    """Return a name without case and signs: `T-shirt/top` and `t_shirt_top` are the same."""
    return re.sub(r"[\W_]+", " ", name).strip().casefold()
