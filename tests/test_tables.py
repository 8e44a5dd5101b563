"""Tables of pictures as people have them: dialects, labels, names and parts, with labels, counts and pixels checked."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trainables.datasets import DatasetError, Reading, load, open_test


@pytest.fixture(autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEEP_ORCHESTRATOR_CACHE", str(tmp_path_factory.mktemp("cache")))


def color(label: str, number: int) -> tuple[int, int, int]:
    """Return a color that names the class by red and green, and is each picture's own by blue."""
    code = sum(map(ord, label)) * 7919
    return code % 251, code // 251 % 241, number % 256


def paint(path: Path, label: str, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), color(label, number)).save(path, "PNG")


def cats_and_dogs(root: Path, name: Callable[[int], str] = "{:03}.png".format, each: int = 6) -> list[tuple[str, str]]:
    """Paint pictures in turn of a cat and a dog; return their names and labels."""
    rows = [(name(number), ("cat", "dog")[number % 2]) for number in range(2 * each)]
    for number, (file, label) in enumerate(rows):
        paint(root / file, label, number)
    return rows


def text(rows: Sequence[Sequence[str]], header: Sequence[str] = ("file", "label"), separator: str = ",") -> str:
    return "".join(separator.join(row) + "\n" for row in [header, *rows] if row)


@dataclass(frozen=True)
class Kind:
    """A kind of table: how to make it, and the rows of each class, of the test part, and left out; or the refusal."""

    name: str
    make: Callable[[Path], str | bytes | None]
    classes: Mapping[str, int] = field(default_factory=lambda: {"cat": 6, "dog": 6})
    file: str = "table.csv"
    reading: Mapping[str, Any] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    test: Mapping[str, int] | None = None
    layout: str = ""
    refused: tuple[str, ...] = ()


def plain(file: str = "{:03}.png", **more: Any) -> Callable[[Path], str]:
    return lambda root: text(cats_and_dogs(root, file.format), **more)


def encoded(encoding: str, **more: Any) -> Callable[[Path], bytes]:
    return lambda root: text(cats_and_dogs(root), **more).encode(encoding)


def labelled(*labels: str, quote: str = "") -> Callable[[Path], str]:
    """Return what makes a table of 6 pictures a label, which are stripped of blanks when they are painted."""

    def make(root: Path) -> str:
        rows = [(f"{number}.png", labels[number % len(labels)]) for number in range(6 * len(labels))]
        for number, (file, label) in enumerate(rows):
            paint(root / file, label.strip(), number)
        return text([(file, f"{quote}{label}{quote}") for file, label in rows])

    return make


DIALECTS = [
    Kind("comma", plain()),
    Kind("semicolon", plain(separator=";"), layout="table.csv: pictures in column 'file', labels in column 'label'"),
    Kind("tab in .tsv", plain(separator="\t"), file="table.tsv"),
    Kind("tab in .csv", plain(separator="\t")),
    Kind("tab in .tab", plain(separator="\t"), file="table.tab"),
    Kind("pipe in .txt", plain(separator="|"), file="table.txt"),
    Kind("blank in .txt", plain(separator=" "), file="list.txt"),
    Kind("upper-case suffix", plain(), file="TABLE.CSV"),
    Kind("gzip", lambda root: gzip.compress(text(cats_and_dogs(root)).encode()), file="table.csv.gz"),
    Kind("UTF-8 with a mark", encoded("utf-8-sig")),
    Kind("UTF-16", encoded("utf-16")),
    Kind("UTF-16 without a mark", encoded("utf-16-le")),
    Kind("UTF-16 big-endian, tabs", encoded("utf-16-be", separator="\t")),
    Kind("CRLF", lambda root: text(cats_and_dogs(root)).replace("\n", "\r\n")),
    Kind("a line that names the separator", lambda root: "sep=;\n" + text(cats_and_dogs(root), separator=";")),
    Kind("blank lines", lambda root: "\n\n" + text(cats_and_dogs(root)).replace("\n", "\n\n")),
    Kind(
        "rows of separators at the end",
        lambda root: text(cats_and_dogs(root)) + ",\n,\n",
        left_out={"row without values": 2},
    ),
    Kind("semicolons, commas in names", plain("a,{:03}.png", separator=";")),
    Kind("quotes", lambda root: text([(f'"{file}"', f'"{label}"') for file, label in cats_and_dogs(root)])),
    Kind("no header", lambda root: text(cats_and_dogs(root), header=()), layout="without a line of column names"),
    Kind(
        "no header, no suffix",
        lambda root: text([(file[:-4], label) for file, label in cats_and_dogs(root)], header=()),
    ),
    Kind("JSON lines", lambda root: json_lines(cats_and_dogs(root)), file="metadata.jsonl"),
    Kind("quoted line breaks", lambda root: noted(root, '"two\nlines"')),
    Kind("quoted line breaks, over 1 MB", lambda root: noted(root, '"' + "two\nlines" * 20_000 + '"')),
]  # fmt: skip


def noted(root: Path, note: str) -> str:
    return text([(*row, note) for row in cats_and_dogs(root)], ("file", "label", "note"))


def json_lines(rows: Sequence[tuple[str, str]]) -> str:
    return "".join(json.dumps({"file_name": file, "label": label}) + "\n" for file, label in rows)


KINDS = [*DIALECTS]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_kind_of_table(kind: Kind, tmp_path: Path) -> None:
    content, path = kind.make(tmp_path), tmp_path / kind.file
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    reading = Reading(**kind.reading)
    if kind.refused:
        with pytest.raises(DatasetError) as refused:
            load(str(path), reading)
        for part in kind.refused:
            assert part.format(tmp=tmp_path) in str(refused.value)
        assert len(str(refused.value)) < 1500
        return
    dataset = load(str(path), reading)
    test_images, test_labels = open_test(dataset)
    images, labels = np.concatenate([dataset.images, test_images]), np.concatenate([dataset.labels, test_labels])
    assert dict(Counter(dataset.classes[label] for label in labels)) == kind.classes
    for image, label in zip(images, labels, strict=True):
        assert tuple(image[0, 0])[:2] == color(dataset.classes[label], 0)[:2]
    assert {left.reason: left.count for left in dataset.inventory.left_out} == kind.left_out
    assert kind.layout in dataset.inventory.layout
    if kind.test is not None:
        assert dict(Counter(dataset.classes[label] for label in test_labels)) == kind.test
