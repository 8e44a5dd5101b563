"""Small data sets in exactly the layout of the papers' data, made of images that are available.

File names, CSV headers, folder names, sizes, formats and imbalance are those of the originals; the images are not. The
pictures show CIFAR-10 if BENCHMARK_CIFAR10 names its folder, else scikit-learn's digits, scaled up; evidence made with
them names which (`subject`). Their classes can be learned: animals against things, or one kind against another.

All makers take the folder to fill, how many labelled pictures to write, and a seed. No picture is used twice.
"""

from __future__ import annotations

import csv
import functools
import gzip
import itertools
import os
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainables import datasets
from trainables.datasets import Dataset

CIFAR10_VARIABLE = "BENCHMARK_CIFAR10"

ANIMALS, THINGS = (2, 3, 4, 5, 6, 7), (0, 1, 8, 9)
"""CIFAR-10's classes in two groups; among digits these are just two groups."""

CACTI = (4_364, 13_136)
"""Rows without and with a cactus in the original."""

FRUITS = {"Apple Braeburn 1": 2, "Banana 1": 2, "Cherry 2": 3, "Grape Blue 1": 4}
"""Some classes of Fruits-360, and their approximate relative sizes."""


def cactus(folder: Path, rows: int = 80, seed: int = 0) -> None:
    """Write Kaggle's Aerial Cactus Identification, unpacked: `train.csv`, `train/`, and `test/`, without labels."""
    pictures, names = Pictures(seed), hashes(seed)
    lines = [
        (pictures.write(folder / "train" / next(names), group, (32, 32)), label)
        for label, group, count in cactus_groups(rows)
        for _ in range(count)
    ]
    table(folder / "train.csv", ("id", "has_cactus"), sorted((file.name, label) for file, label in lines))
    unlabelled = [
        pictures.write(folder / "test" / next(names), THINGS, (32, 32)).name for _ in range(max(1, rows // 10))
    ]
    table(folder / "sample_submission.csv", ("id", "has_cactus"), [(name, 0.5) for name in sorted(unlabelled)])


def cactus_folders(folder: Path, rows: int = 80, seed: int = 0) -> None:
    """Write the same pictures in class folders, as the paper lays them out."""
    pictures, names = Pictures(seed), hashes(seed)
    for label, group, count in cactus_groups(rows):
        for _ in range(count):
            pictures.write(folder / ("no_cactus", "cactus")[label] / next(names), group, (32, 32))


def ai_vs_human(folder: Path, rows: int = 40, seed: int = 0) -> None:
    """Write Kaggle's AI vs Human Generated Dataset: paths in `train.csv`, pictures of many sizes."""
    pictures, names, sides = Pictures(seed), hashes(seed), random.Random(seed)

    def picture(part: str, group: Sequence[int]) -> str:
        file = pictures.write(folder / part / next(names), group, (sides.randint(200, 700), sides.randint(200, 700)))
        return file.relative_to(folder).as_posix()

    lines = [(row, picture("train_data", (ANIMALS, THINGS)[row % 2]), row % 2) for row in range(rows)]
    table(folder / "train.csv", ("", "file_name", "label"), lines)
    table(folder / "test.csv", ("id",), [(picture("test_data_v2", ANIMALS),) for _ in range(max(1, rows // 10))])


def fruits_360(folder: Path, rows: int = 88, seed: int = 0) -> None:
    """Write Fruits-360 at 100×100: every fourth picture of a class is in `Test/`; other pictures lie beside."""
    pictures = Pictures(seed)
    for kind, (name, share) in enumerate(FRUITS.items()):
        for number in range(rows * share // sum(FRUITS.values())):
            file = f"{('', 'r_', 'r2_')[number % 3]}{number}_100.jpg"
            pictures.write(folder / ("Test" if number % 4 == 3 else "Training") / name / file, (kind,), (100, 100))
    pictures.write(folder / "test-multiple_fruits" / "apples1.jpg", (9,), (300, 200))
    (folder / "readme.md").write_text("# Fruits-360 dataset\n")


def external_test(folder: Path, rows: int = 12, seed: int = 0) -> None:
    """Write pictures of all classes of `fruits_360` but the last, of many sizes; none of them is in that data set."""
    pictures, sides = Pictures(seed, last_first=True), random.Random(seed)
    names = list(FRUITS)[:-1]
    for number in range(rows):
        kind = number % len(names)
        size = sides.randint(60, 400), sides.randint(60, 400)
        pictures.write(folder / names[kind] / f"IMG_{number:04}.jpg", (kind,), size)


def fashion_mnist(folder: Path, rows: int = 70, seed: int = 0) -> None:
    """Write Fashion-MNIST's four IDX files, gzipped; a seventh of the rows is the test part."""
    pictures = Pictures(seed)
    labels = np.arange(rows, dtype=np.uint8) % 10
    images = np.stack([np.asarray(pictures.draw((int(label),), (28, 28)).convert("L")) for label in labels])
    train = rows - rows // 7
    folder.mkdir(parents=True, exist_ok=True)
    for part, of in (("train", slice(train)), ("t10k", slice(train, None))):
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images[of])))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels[of])))


def subject() -> str:
    """Return the name of the data set that the pictures show."""
    return source().name


def cactus_groups(rows: int) -> list[tuple[int, Sequence[int], int]]:
    """Return each label, the classes that its pictures show, and how many of `rows` it has."""
    without = round(rows * CACTI[0] / sum(CACTI))
    return [(0, THINGS, without), (1, ANIMALS, rows - without)]


class Pictures:
    """Images of some classes, each used at most once; the same seed gives the same ones in the same order."""

    def __init__(self, seed: int, last_first: bool = False) -> None:
        labels = source().labels
        order = np.random.default_rng(seed).permutation(len(labels))[:: -1 if last_first else 1]
        self.unused = {label: iter(order[labels[order] == label]) for label in range(10)}
        self.turns: dict[Sequence[int], Iterator[int]] = {}

    def draw(self, classes: Sequence[int], size: tuple[int, int]) -> Image.Image:
        """Return an image of one of `classes`, which take turns, in RGB; `size` is width and height in pixels."""
        turn = self.turns.setdefault(classes, itertools.cycle(classes))
        row = next(self.unused[next(turn)], None)
        if row is None:
            raise ValueError(f"{subject()} does not have so many pictures: ask for fewer rows")
        image = source().images[row]
        plain = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).convert("RGB")
        return plain.resize(size, Image.Resampling.BICUBIC)

    def write(self, path: Path, classes: Sequence[int], size: tuple[int, int]) -> Path:
        """Write the image that `draw` returns as a JPEG file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.draw(classes, size).save(path, quality=90)
        return path


@functools.cache
def source() -> Dataset:
    """Return the available images; the test rows of CIFAR-10 are not used."""
    folder = os.environ.get(CIFAR10_VARIABLE)
    return datasets.load("cifar10", datasets.Reading(Path(folder))) if folder else datasets.load("digits")


def hashes(seed: int) -> Iterator[str]:
    """Yield file names like those of both competitions."""
    digits = random.Random(seed)
    while True:
        yield f"{digits.getrandbits(128):032x}.jpg"


def table(path: Path, header: Sequence[str], lines: Iterable[Sequence[Any]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *lines])


def idx(array: NDArray[np.uint8]) -> bytes:
    """Return an array in the files' format: http://yann.lecun.com/exdb/mnist."""
    return bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()
