"""What the best model takes for something else: matrices, the pairs confused most, and pictures of them.

All of it is in the journal but the pictures; these are put beside it when a sweep ends, while its data are at hand.
"""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.record.state import TrialRecord
from trainables.files import replace_file
from trainables.splits import SearchData

FOLDER = "confused"
SIDE = 128  # pixels at most, of a picture
LOSSLESS_SIDE = 64  # pixels, up to which a picture is kept as it is
SHOWN = 20  # classes at most in a matrix: those confused most
LEFT_OUT = ("train", "common")  # parts that say little of what is confused


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix of one part of the data, or what there is room for."""

    part: str
    classes: int  # in all
    labels: list[str]  # of the rows and columns
    counts: list[list[int]]  # row = label, column = prediction
    rows: int  # of the data, in all

    def share(self, label: int, prediction: int) -> float:
        """Of a label's rows here those that got the prediction."""
        return self.counts[label][prediction] / max(sum(self.counts[label]), 1)


@dataclass(frozen=True)
class Pair:
    """Two classes that are confused: so often `label` was taken for `prediction`."""

    label: str
    prediction: str
    count: int
    pictures: list[str]  # data URIs


def write(trial: TrialRecord, data: SearchData, folder: Path) -> None:
    """Put the pictures of `trial`'s most confused pairs into the sweep's `folder`, in the place of those there.

    They are of rows that it was scored on, never of a sealed test set.

    Raises:
        OSError: the disk did not take them.
    """
    from io import BytesIO

    from PIL import Image

    shutil.rmtree(folder / FOLDER, ignore_errors=True)
    for row in (row for pair in _confused(trial) for row in pair[3:]):
        pixels = data.images[row]
        image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        image.thumbnail((SIDE, SIDE))
        image.save(content := BytesIO(), "WEBP", lossless=max(image.size) <= LOSSLESS_SIDE, quality=80)
        (folder / FOLDER).mkdir(exist_ok=True)
        replace_file(folder / FOLDER / f"{trial.number}-{row}.webp", content.getvalue())


def pairs(trial: TrialRecord, labels: Sequence[str], folder: Path) -> list[Pair]:
    """The pairs that `trial` confuses most, at the epoch whose weights it keeps."""
    return [
        Pair(_name(labels, label), _name(labels, prediction), count, _pictures(trial, rows, folder))
        for label, prediction, count, *rows in _confused(trial)
    ]


def matrices(trial: TrialRecord, labels: Sequence[str]) -> list[Matrix]:
    """Of every part of the data that `trial` was measured on, or else of the rows that it was scored on."""
    parts = {part: figures["confusion"] for part, figures in trial.final_metrics.items() if part not in LEFT_OUT}
    if not parts:
        parts = {"validation" if trial.config["split"] == "core" else "rows scored on": trial.best.get("val_confusion")}
    return [_matrix(part, counts, labels) for part, counts in parts.items() if counts]


def read_labels(folder: Path) -> list[str]:
    """The classes' names, as the sweep's bundle has them; none where there is no bundle."""
    try:
        return [str(name) for name in json.loads((folder / "best" / "labels.json").read_bytes())]
    except (OSError, ValueError, TypeError):
        return []


def _matrix(part: str, counts: list[list[int]], labels: Sequence[str]) -> Matrix:
    """With at most `SHOWN` classes: those with the most mistakes, as label or as prediction."""
    classes = range(len(counts))
    mistakes = [sum(counts[i]) + sum(row[i] for row in counts) - 2 * counts[i][i] for i in classes]
    kept = sorted(sorted(classes, key=lambda i: -mistakes[i])[:SHOWN])
    return Matrix(
        part,
        len(counts),
        [_name(labels, i) for i in kept],
        [[counts[i][j] for j in kept] for i in kept],
        sum(map(sum, counts)),
    )


def _confused(trial: TrialRecord) -> list[list[int]]:
    return list(trial.best.get("val_confused", []))


def _pictures(trial: TrialRecord, rows: list[int], folder: Path) -> list[str]:
    """As data URIs, those that are there."""
    found = [folder / FOLDER / f"{trial.number}-{row}.webp" for row in rows]
    return [
        f"data:image/webp;base64,{base64.b64encode(path.read_bytes()).decode()}" for path in found if path.is_file()
    ]


def _name(labels: Sequence[str], number: int) -> str:
    return labels[number] if number < len(labels) else f"class {number}"
