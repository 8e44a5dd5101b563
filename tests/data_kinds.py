"""Makers of data sets as people have them, and the check that one is read rightly or refused with the way on.

Pictures are coloured by what they show, so that a label can be checked by the pixels of its rows.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trainables.datasets import Dataset, DatasetError, Reading, check, load, open_test

COLORS = {
    "cat": (220, 40, 40),
    "dog": (40, 220, 40),
    "fox": (40, 40, 220),
    "owl": (220, 220, 40),
    "bee": (40, 220, 220),
}

TWO = {"all": {"cat": 4, "dog": 4}}
"""Rows of the commonest example, by part and class."""

Maker = Callable[[Path], object]
"""Makes some files of a data set in a folder."""


def picture(path: Path, shows: str, size: tuple[int, int] = (8, 8), format: str | None = None) -> Path:  # noqa: A002
    """Write a picture of the color of what it shows, with a little noise, so that no two files are equal."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(list(os.fsencode(path)[-60:])).integers(-15, 16, (*size, 3))
    image = Image.fromarray((np.array(COLORS[shows]) + noise).astype(np.uint8))
    image.save(path, format or {".jpg": "jpeg", ".webp": "webp", ".bmp": "bmp", ".gif": "gif"}.get(path.suffix, "png"))
    return path


def folder(path: str, rows: int = 4, suffix: str = ".png", shows: str = "", format: str | None = None) -> Maker:  # noqa: A002
    """Write pictures into a folder, of what its last part names."""
    subject = shows or path.rpartition("/")[2]
    return lambda root: [picture(root / path / f"{row}{suffix}", subject, format=format) for row in range(rows)]


def one(path: str, shows: str, **options: Any) -> Maker:
    return lambda root: picture(root / path, shows, **options)


def file(path: str, content: bytes | str = b"some text") -> Maker:
    def make(root: Path) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content if isinstance(content, bytes) else content.encode())

    return make


def empty(path: str) -> Maker:
    return lambda root: (root / path).mkdir(parents=True)


def link(path: str, to: str) -> Maker:
    def make(root: Path) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).symlink_to(to)

    return make


@dataclass(frozen=True)
class Kind:
    """A data set, and what becomes of it."""

    makers: tuple[Maker, ...]
    parts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # part → label → rows; empty: it is refused
    left_out: Mapping[str, int] = field(default_factory=dict)  # reason → count
    shows: Mapping[str, str] = field(default_factory=dict)  # label → what its pictures show, if that is not its name
    refused: tuple[str, ...] = ()  # regular expressions that the message matches
    layout: str = ""
    columns: str = ""  # a part of the layout's words
    reading: Reading = field(default_factory=Reading)
    path: str = "."  # of the data set in the folder


def read(*makers: Maker, parts: Mapping[str, Mapping[str, int]], **more: Any) -> Kind:
    return Kind(makers, parts, **more)


def refuse(*makers: Maker, because: tuple[str, ...], **more: Any) -> Kind:
    return Kind(makers, refused=because, **more)


def given(*parts: tuple[str, str], **more: Any) -> Reading:
    return Reading(parts=parts, **more)


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEEP_ORCHESTRATOR_CACHE", str(tmp_path / "cache"))


def subjects(images: Any) -> list[str]:
    """Return what each image shows, by its color."""
    means = np.array([np.asarray(image).reshape(-1, 3).mean(0) for image in images])
    distances = ((means[:, None] - np.array(list(COLORS.values()))) ** 2).sum(2)
    return [list(COLORS)[number] for number in distances.argmin(1)]


def everything(dataset: Dataset) -> list[tuple[str, str]]:
    """Return the label of every row, and what it shows."""
    images, labels = open_test(dataset)
    names = [dataset.classes[label] for label in [*dataset.labels, *labels]]
    return list(zip(names, subjects([*dataset.images, *images]), strict=True))


def check_kind(kind: Kind, root: Path) -> None:
    """Make the data set in the folder `root`, and see that what becomes of it is what the kind says."""
    root.mkdir()
    for make in kind.makers:
        make(root)
    path, place = os.path.normpath(root / kind.path), kind.reading.data_dir
    reading = dataclasses.replace(kind.reading, data_dir=None if place is None else root / place)
    if not kind.parts:
        with pytest.raises(DatasetError) as refused:
            load(path, reading)
        assert all(re.search(text, str(refused.value)) for text in kind.refused), str(refused.value)
        assert max(map(len, str(refused.value).splitlines())) < 1000
        return
    assert check(path, reading) == []
    dataset = load(path, reading)
    wanted: Counter[tuple[str, str]] = Counter()
    for counts in kind.parts.values():
        wanted.update({(label, kind.shows.get(label, label)): count for label, count in counts.items() if count})
    assert Counter(everything(dataset)) == wanted
    found = dataset.inventory
    assert found.parts == {part: counts for part, counts in kind.parts.items() if counts}
    assert {left.reason: left.count for left in found.left_out} == kind.left_out
    assert dataset.official_test == ("test" in kind.parts)
    assert dataset.test_rows == sum(kind.parts["test"].values()) if "test" in kind.parts else dataset.test_rows > 0
    assert kind.layout in ("", found.layout)
    assert kind.columns in found.layout
