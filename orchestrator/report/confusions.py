"""The confusions of the best model: matrices, the pairs of classes confused most, and pictures of them.

The journal holds all of it but the pictures, which are saved beside it when a sweep ends, while its data are loaded.
"""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.bundle.documents import per_class
from orchestrator.record.facts import cells_of
from orchestrator.record.paths import SweepFolder
from orchestrator.record.state import TrialRecord
from trainables.datasets.stored_images import StoredImages
from trainables.files import replace_file
from trainables.splits import SearchData

SIDE = 128  # pixels of a picture's longer side, at most
LOSSLESS_SIDE = 64  # pixels of the longer side, up to which a picture is saved without loss
SHOWN = 20  # classes of a matrix, at most: those confused most
LEFT_OUT = ("train", "common")  # parts whose confusions say little


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix of one part of the data, limited to the `SHOWN` classes confused most."""

    part: str
    classes: int  # in all
    labels: list[str]  # of the rows and columns
    counts: list[list[int]]  # row = label, column = prediction
    rows: int  # of the data part, in all

    def share(self, label: int, prediction: int) -> float:
        """Return the share of the label's rows in this matrix that got the prediction."""
        return self.counts[label][prediction] / max(sum(self.counts[label]), 1)


@dataclass(frozen=True)
class ClassRow:
    """The recognition of one class on a part of the data."""

    label: str
    rows: int
    precision: float | None  # None where undefined: the class was never predicted
    recall: float | None  # None where it has no rows
    confused_with: str  # the class that its rows are taken for most; empty if none is wrong
    confused: int  # so many of them


@dataclass(frozen=True)
class Pair:
    """Two classes that are confused: `label` was predicted as `prediction`, `count` times."""

    label: str
    prediction: str
    count: int
    pictures: list[str]  # data URIs


def write(trial: TrialRecord, data: SearchData, folder: SweepFolder) -> None:
    """Save the pictures of `trial`'s most confused pairs in the sweep's `folder`, replacing earlier ones.

    They are of rows that the trial was scored on, never of a sealed test set.

    Raises:
        OSError: they could not be written.
    """
    from io import BytesIO

    from PIL import Image

    shutil.rmtree(folder.confused, ignore_errors=True)
    for row in (row for pair in _confused(trial) for row in pair[3:]):
        pixels = StoredImages.of(data.images).picture(row)
        image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        image.thumbnail((SIDE, SIDE))
        image.save(content := BytesIO(), "WEBP", lossless=max(image.size) <= LOSSLESS_SIDE, quality=80)
        (folder.confused).mkdir(exist_ok=True)
        replace_file(folder.confused / f"{trial.number}-{row}.webp", content.getvalue())


def pairs(trial: TrialRecord, labels: Sequence[str], folder: SweepFolder) -> list[Pair]:
    """Return the pairs of classes that `trial` confuses most, at the epoch whose weights are kept."""
    return [
        Pair(_name(labels, label), _name(labels, prediction), count, _pictures(trial, rows, folder))
        for label, prediction, count, *rows in _confused(trial)
    ]


def matrices(trial: TrialRecord, labels: Sequence[str]) -> list[Matrix]:
    """Return the matrix of every part of the data that `trial` was measured on, or of the rows it was scored on."""
    return [_matrix(part, cells, labels) for part, cells in _measured(trial).items()]


def _measured(trial: TrialRecord) -> dict[str, NDArray[np.int64]]:
    """Return the cells of the confusion matrix, [K, 3], of every part that `trial` was measured on, where known."""
    measured = {part: found for part, found in trial.final_metrics.items() if part not in LEFT_OUT}
    parts = {part: found.cells() for part, found in measured.items()}
    if not parts:
        matrix = trial.best.get("val_confusion")
        scored = "validation" if trial.config["split"] == "core" else "rows scored on"
        parts = {scored: cells_of(matrix) if matrix else None}
    return {part: cells for part, cells in parts.items() if cells is not None}


def by_class(trial: TrialRecord, labels: Sequence[str]) -> tuple[str, list[ClassRow]] | None:
    """Return a part of the data and how well each class is recognized there, worst recall first.

    The part is the test set, if the trial was measured on it. None without a confusion matrix.
    """
    parts = _measured(trial)
    part = "test" if "test" in parts else next(iter(parts), None)
    if part is None:
        return None
    cells = parts[part]
    names = [_name(labels, number) for number in range(_classes(cells, labels))]
    wrong = dict.fromkeys(range(len(names)), (0, ""))  # mistakes most often made, and what for
    for label, prediction, count in cells.tolist():
        if label != prediction and count > wrong[label][0]:
            wrong[label] = count, names[prediction]
    found = [
        ClassRow(one.label, one.rows, one.precision, one.recall, wrong[number][1], wrong[number][0])
        for number, one in enumerate(per_class(names, cells))
    ]
    return part, sorted(found, key=lambda one: 2 if one.recall is None else one.recall)


def read_labels(folder: SweepFolder) -> list[str]:
    """Return the names of the classes from the sweep's bundle; an empty list where there is no bundle."""
    try:
        return [str(name) for name in json.loads((folder.bundle / "labels.json").read_bytes())]
    except (OSError, ValueError, TypeError):
        return []


def _classes(cells: NDArray[np.int64], labels: Sequence[str]) -> int:
    """Return the number of classes, if it is not known the highest one that occurs."""
    return max(len(labels), int(cells[:, :2].max(initial=-1)) + 1)


def _matrix(part: str, cells: NDArray[np.int64], labels: Sequence[str]) -> Matrix:
    """Return the matrix of the `SHOWN` classes with the most mistakes, as label or as prediction."""
    classes, wrong = _classes(cells, labels), cells[cells[:, 0] != cells[:, 1]]
    mistakes = sum(np.bincount(wrong[:, side], wrong[:, 2], minlength=classes) for side in (0, 1))
    shown = sorted(np.argsort(-mistakes, kind="stable")[:SHOWN].tolist())
    places = {number: place for place, number in enumerate(shown)}
    counts = [[0] * len(shown) for _ in shown]
    for label, prediction, count in cells.tolist():
        if label in places and prediction in places:
            counts[places[label]][places[prediction]] = count
    return Matrix(part, classes, [_name(labels, i) for i in shown], counts, int(cells[:, 2].sum()))


def _confused(trial: TrialRecord) -> list[list[int]]:
    return list(trial.best.get("val_confused", []))


def _pictures(trial: TrialRecord, rows: list[int], folder: SweepFolder) -> list[str]:
    """Return the pictures that exist, as data URIs."""
    paths = [folder.confused / f"{trial.number}-{row}.webp" for row in rows]
    return [
        f"data:image/webp;base64,{base64.b64encode(path.read_bytes()).decode()}" for path in paths if path.is_file()
    ]


def _name(labels: Sequence[str], number: int) -> str:
    return labels[number] if number < len(labels) else f"class {number}"
