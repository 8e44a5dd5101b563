"""Tables of pictures as people have them, read rightly (labels, counts, pixels), or refused with the way on."""

from __future__ import annotations

import gzip
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_kinds import COLORS, TWO, Kind, Maker, cache_folder, check_kind, file, folder, picture, read, refuse
from PIL import Image

from trainables.datasets import Reading, load, make_source, open_test
from trainables.datasets.unlabelled import find_images

__all__ = ["cache_folder"]  # a fixture

Row = Sequence[str]
ROWS = [(f"{number:03}.png", ("cat", "dog")[number % 2]) for number in range(8)]


def pictures(rows: Sequence[Row] = ROWS, below: str = "") -> Maker:
    """Write the picture of each row, of what its second value names."""
    return lambda root: [picture(root / below / row[0], row[1]) for row in rows]


def table(
    path: str = "table.csv",
    rows: Sequence[Row] = ROWS,
    header: Row = ("file", "label"),
    separator: str = ",",
    encoding: str = "utf-8",
    end: str = "\n",
    before: str = "",
) -> Maker:
    """Write a table, gzipped if its name says so."""
    text = before + "".join(separator.join(row) + end for row in [header, *rows] if row)
    content = text.encode(encoding)
    return file(path, gzip.compress(content) if path.endswith(".gz") else content)


def dialect(path: str = "table.csv", **more: Any) -> Kind:
    """Return a table of all the pictures that is read."""
    return read(pictures(), table(path, **more), parts=TWO, path=path)


def lines(path: str, rows: Sequence[Mapping[str, Any]]) -> Maker:
    return file(path, "".join(json.dumps(row) + "\n" for row in rows))


def noted(note: str) -> list[Row]:
    return [(*row, f'"{note}"') for row in ROWS]


DIALECTS: dict[str, Kind] = {
    "comma": dialect(),
    "semicolon": dialect(separator=";"),
    "tab": dialect(separator="\t"),
    "pipe": dialect(separator="|"),
    "tab in .tsv": dialect("table.tsv", separator="\t"),
    "tab in .tab": dialect("table.tab", separator="\t"),
    "comma in .tsv": dialect("table.tsv"),
    "pipe in .txt": dialect("table.txt", separator="|"),
    "blank in .txt": dialect("list.txt", separator=" "),
    "upper-case suffix": dialect("TABLE.CSV"),
    "gzip": dialect("table.csv.gz"),
    "gzip, tabs": dialect("table.tsv.gz", separator="\t"),
    "UTF-8 with a mark": dialect(encoding="utf-8-sig"),
    "UTF-16": dialect(encoding="utf-16"),
    "UTF-16 without a mark": dialect(encoding="utf-16-le"),
    "UTF-16, big-endian, tabs": dialect(encoding="utf-16-be", separator="\t"),
    "CRLF": dialect(end="\r\n"),
    "a line that names the separator": dialect(separator=";", before="sep=;\r\n"),
    "blank lines": dialect(end="\n\n", before="\n\n"),
    "rows of separators at the end": read(
        pictures(),
        table(rows=[*ROWS, ("", ""), ("", "")]),
        parts=TWO,
        path="table.csv",
        left_out={"row without values": 2},
    ),
    "blanks around all": dialect(
        rows=[(f" {name} ", f"\t{label}  ") for name, label in ROWS], header=(" file", "label ")
    ),
    "semicolons, commas in names": read(
        pictures([(f"a,{name}", label) for name, label in ROWS]),
        table(rows=[(f"a,{name}", label) for name, label in ROWS], separator=";"),
        parts=TWO,
        path="table.csv",
    ),
    "quotes": dialect(rows=[(f'"{name}"', f'"{label}"') for name, label in ROWS], header=('"file"', '"label"')),
    "no header": read(
        pictures(), table(header=()), parts=TWO, path="table.csv", columns="without a line of column names"
    ),
    "no header, no suffixes": read(
        pictures(), table(rows=[(name[:-4], label) for name, label in ROWS], header=()), parts=TWO, path="table.csv"
    ),
    "no header, columns by number": read(
        pictures(),
        table(rows=[("x", label, name) for name, label in ROWS], header=()),
        parts=TWO,
        path="table.csv",
        reading=Reading(image_column="3", label_column="2"),
    ),
    "no header, and nobody knows": refuse(
        pictures(below="a"),
        table(rows=[(name[:-4], label) for name, label in ROWS], header=()),
        because=(r"which column has the images\? Name it with --image-column", "columns: 000, cat"),
        path="table.csv",
    ),
    "quoted line breaks": dialect(rows=noted("two\nlines"), header=("file", "label", "note")),
    "quoted line breaks, over 1 MB": dialect(rows=noted("two\nlines" * 20_000), header=("file", "label", "note")),
    "quoted separators": dialect(rows=noted("one, two, three"), header=("file", "label", "note")),
    "cp1252": refuse(
        pictures(),
        table(rows=[*ROWS, ("x.png", "caf\xe9")], encoding="cp1252"),
        because=("line 10: not text in UTF-8; save the file as UTF-8",),
        path="table.csv",
    ),
    "a row with too many values": refuse(
        pictures(),
        table(rows=[*ROWS[:2], ("x.png", "cat", "dog"), *ROWS[2:]]),
        because=("row 3: 3 values for 2 columns.*double quotes",),
        path="table.csv",
    ),
    "rows with too few values": refuse(
        pictures(),
        table(rows=[*ROWS[:2], ("x.png",), ("y.png",)]),
        because=(r"row 3: 1 value for 2 columns \(so have 1 more\)",),
        path="table.csv",
    ),
    "a quote that is not closed": refuse(
        pictures(),
        table(rows=[*ROWS, ('"x.png', "cat")]),
        because=("table.csv, row 9: .*double quotes",),
        path="table.csv",
    ),
    "nothing": refuse(file("table.csv", ""), because=("table.csv: no rows",), path="table.csv"),
    "a header alone": refuse(table(rows=()), because=("table.csv: no rows",), path="table.csv"),
    "bytes": refuse(file("table.csv", bytes(range(256)) * 40), because=("table.csv",), path="table.csv"),
    "zeros": refuse(file("table.csv", bytes(1000)), because=("table.csv: not a text file",), path="table.csv"),
    "a gzip file that ends early": refuse(
        file("table.csv.gz", gzip.compress(b"file,label\n" * 1000)[:-12]),
        because=("table.csv.gz: cannot be read: .*ended",),
        path="table.csv.gz",
    ),
    "a pipe": refuse(
        lambda root: os.mkfifo(root / "table.csv"), because=("table.csv: a named pipe, not a file",), path="table.csv"
    ),
    "a folder named like a table": refuse(folder("table.csv", shows="cat"), because=("table.csv",), path="table.csv"),
}

LABELS_SHOWN = ("cat", "dog", "fox")


def labelled(*labels: str, classes: Sequence[str] = (), quote: str = "", **more: Any) -> Kind:
    """Return a table whose rows have these labels in turn, which are the `classes` stripped."""
    rows = [(f"{number}.png", number % len(labels)) for number in range(4 * len(labels))]
    names = classes or labels
    counts = Counter(names[number] for _, number in rows)
    return read(
        pictures([(name, LABELS_SHOWN[list(dict.fromkeys(names)).index(names[number])]) for name, number in rows]),
        table(rows=[(name, f"{quote}{labels[number]}{quote}") for name, number in rows], **more),
        parts={"all": dict(counts)},
        shows=dict(zip(dict.fromkeys(names), LABELS_SHOWN, strict=False)),
        path="table.csv",
    )


LABELS: dict[str, Kind] = {
    "leading zeros": labelled("01", "02", "10"),
    "007 and 7": labelled("007", "7"),
    "times of day": labelled("12:30", "09:15"),
    "dates": labelled("2024-01-02", "2024-01-03"),
    "ids of 20 digits": labelled("12345678901234567890", "12345678901234567891"),
    "floats": labelled("1.0", "1", "1e3"),
    "booleans": labelled("true", "false"),
    "nan and numbers": labelled("1", "nan", "2"),
    "NA and null": labelled("NA", "null", "None"),
    "blanks around labels": labelled("cat", " cat", "dog ", classes=("cat", "cat", "dog")),
    "emoji and markup": labelled("🐈", "[red]dog[/red]", "=1+1"),
    "quotes and commas": labelled("a, b", "c", quote='"'),
    "quoted line breaks": labelled("two\nlines", "c", quote='"'),
    "numbers in their order": labelled("2", "10"),
    "an empty label": refuse(
        pictures(),
        table(rows=[*ROWS[:3], (ROWS[3][0], " "), *ROWS[4:]]),
        because=("1 image has no label .*003.png, row 4.*--on-unlabelled skip",),
        path="table.csv",
    ),
    "an empty label, skipped": read(
        pictures(),
        table(rows=[*ROWS, ("008.png", "")]),
        pictures([("008.png", "fox")]),
        parts=TWO,
        left_out={"no label": 1},
        reading=Reading(on_unlabelled="skip"),
        path="table.csv",
    ),
    "a label without a picture": refuse(
        pictures(),
        table(rows=[*ROWS, ("", "cat")]),
        because=("row 9: a label, but nothing in column 'file'",),
        path="table.csv",
    ),
    "two labels for a picture": refuse(
        pictures(),
        table(rows=[*ROWS, ("000.png", "dog"), ("./001.png", "cat")]),
        because=("rows 1 and 9: .*000.png is both 'cat' and 'dog'", "2 rows contradict", "correct the table"),
        path="table.csv",
    ),
    "a row twice": read(
        pictures(),
        table(rows=[*ROWS, ROWS[0], ROWS[1]]),
        parts=TWO,
        left_out={"row that repeats another one": 2},
        path="table.csv",
    ),
    "classes chosen": read(
        pictures([*ROWS, ("x.png", "fox")]),
        table(rows=[*ROWS, ("x.png", "fox")]),
        parts=TWO,
        left_out={"class not named by --classes": 1},
        reading=Reading(classes=("cat", "dog")),
        path="table.csv",
    ),
}


def renamed(change: Callable[[str], str], rows: Sequence[Row] = ROWS) -> list[Row]:
    return [(change(name), *rest) for name, *rest in rows]


def named(*makers: Maker, rows: Sequence[Row] = ROWS, parts: Any = TWO, path: str = "table.csv", **more: Any) -> Kind:
    """Return a table of these rows that is read."""
    return read(*makers, table(path, rows), parts=parts, path=path, **more)


IN_CLASSES = [(f"{label}/{number:03}.png", label) for label in ("cat", "dog") for number in range(4)]
SPREAD = [pictures(ROWS[:4], "images_1"), pictures(ROWS[4:], "images_2")]
COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"

NAMES: dict[str, Kind] = {
    "paths": named(pictures(IN_CLASSES), rows=IN_CLASSES),
    "paths that begin with a dot": named(pictures(), rows=renamed("./{}".format)),
    "a folder beside": named(pictures(below="images")),
    "a folder of the table's name": named(pictures(below="train"), path="train.csv"),
    "a folder of the table's name, twice": named(pictures(below="train/train"), path="train.csv"),
    "folders like the table's name, equal names": named(
        pictures(below="train_images"),
        pictures([(name, "fox") for name, _ in ROWS], below="test_images"),
        path="train.csv",
    ),
    "a data folder": named(pictures(below="elsewhere/pictures"), reading=Reading(Path("elsewhere"))),
    "a table in another folder": named(
        pictures(below="pictures"), path="tables/table.csv", reading=Reading(Path("pictures"))
    ),
    "above the table's folder": named(pictures(), path="tables/table.csv", rows=renamed("../{}".format)),
    "ids without suffix": named(pictures(), rows=renamed(lambda name: name[:-4])),
    "ids without suffix, deep": named(pictures(below="a/b"), rows=renamed(lambda name: name[:-4])),
    "ids with dots": named(pictures(renamed("1.2.840.{}".format)), rows=renamed(lambda name: f"1.2.840.{name[:-4]}")),
    "backslashes": named(pictures(IN_CLASSES), rows=renamed(lambda name: name.replace("/", "\\"), IN_CLASSES)),
    "a drive": named(
        pictures(IN_CLASSES),
        rows=renamed(lambda name: "C:\\Users\\me\\pets\\" + name.replace("/", "\\"), IN_CLASSES),
    ),
    "absolute paths of another machine": named(pictures(IN_CLASSES), rows=renamed("/home/me/{}".format, IN_CLASSES)),
    "addresses": named(pictures(), rows=renamed("https://example.com/a%20b/{}?size=3".format)),
    "upper case": named(pictures(), rows=renamed(str.upper)),
    "composed there, decomposed here": named(
        pictures(renamed((DECOMPOSED + "{}").format)), rows=renamed((COMPOSED + "{}").format)
    ),
    "decomposed there, composed here": named(
        pictures(renamed((COMPOSED + "/{}").format)), rows=renamed((DECOMPOSED + "/{}").format)
    ),
    "several folders": named(*SPREAD),
    "several folders, without suffix": named(*SPREAD, rows=renamed(lambda name: name[:-4])),
    "some above, some below": named(pictures(ROWS[:4]), pictures(ROWS[4:], "more")),
    "hidden copies": named(pictures(below="images"), pictures(below=".cache"), pictures(below="__MACOSX")),
    "the table's copy of a picture": named(pictures(), pictures([(name, "fox") for name, _ in ROWS], "old")),
    "two folders with the same names": refuse(
        pictures(below="a"),
        pictures([(name, "fox") for name, _ in ROWS], "b"),
        table(),
        because=("row 1: '000.png' may be a/000.png, b/000.png", "8 rows fit several .*--data-dir"),
        path="table.csv",
    ),
    "two folders with the same names, one given": named(
        pictures(below="a"), pictures([(name, "fox") for name, _ in ROWS], "b"), reading=Reading(Path("a"))
    ),
    "of another class's folder": refuse(
        pictures([("dog/000.png", "dog"), *IN_CLASSES[1:]]),
        table(rows=IN_CLASSES),
        because=("table.csv, row 1: .*cat/000.png: there is no such file", "--on-bad-image skip"),
        path="table.csv",
    ),
    "of the test part's folder": refuse(
        pictures(below="test"), table("train.csv"), because=("8 of the 8 pictures",), path="train.csv"
    ),
    "train/ is missing, test/ has the same names": refuse(
        pictures(below="test"),
        table(rows=renamed("train/{}".format)),
        because=("8 of the 8 pictures that it names are not there",),
        path="table.csv",
    ),
    "one is missing": refuse(
        pictures(ROWS[1:]), table(), because=("row 1: .*000.png: there is no such file",), path="table.csv"
    ),
    "one is missing, skipped": named(
        pictures(ROWS[1:]),
        parts={"all": {"cat": 3, "dog": 4}},
        left_out={"cannot be read": 1},
        reading=Reading(on_bad_image="skip"),
    ),
    "most are missing": refuse(
        pictures(ROWS[:2]),
        table(),
        because=("6 of the 8 pictures that it names are not there .row 3: 002.png; looked for .*--data-dir",),
        path="table.csv",
        reading=Reading(on_bad_image="skip"),
    ),
    "addresses of pictures that are elsewhere": refuse(
        table(rows=renamed("https://example.com/{}".format)), because=("download them.*--data-dir",), path="table.csv"
    ),
    "a name with a NUL": refuse(
        pictures(),
        lines("table.jsonl", [{"file": name, "label": label} for name, label in [*ROWS, ("a\0.png", "cat")]]),
        because=("row 9: .*",),
        path="table.jsonl",
    ),
    "a pipe": refuse(
        pictures(ROWS[1:]),
        lambda root: os.mkfifo(root / "000.png"),
        table(),
        because=("row 1: .*000.png: .*pipe",),
        path="table.csv",
    ),
    "a name that is too long": refuse(
        pictures(), table(rows=[*ROWS, ("x" * 5000, "cat")]), because=("row 9: .*too long|no such",), path="table.csv"
    ),
    "a folder": refuse(
        pictures(ROWS[1:]),
        folder("000.png", shows="cat"),
        table(),
        because=("row 1: .*000.png: .*folder",),
        path="table.csv",
    ),
    "a link that leads nowhere": refuse(
        pictures(ROWS[1:]),
        lambda root: (root / "000.png").symlink_to("gone.png"),
        table(),
        because=("row 1: .*000.png: .*",),
        path="table.csv",
    ),
    "escape sequences": refuse(
        pictures(ROWS),
        table(rows=[*ROWS, ("\x1b[31mred", "cat")]),
        because=(r"row 9: .*\\x1b\[31mred",),
        path="table.csv",
    ),
}


def headed(header: Row, rows: Sequence[Row] = ROWS, **more: Any) -> Kind:
    return read(pictures(), table(rows=rows, header=header), parts=more.pop("parts", TWO), path="table.csv", **more)


def wider(*columns: Callable[[int], str]) -> list[Row]:
    return [(*row, *(column(number) for column in columns)) for number, row in enumerate(ROWS)]


COLUMNS: dict[str, Kind] = {
    **{
        f"{image} and {label}": headed((image, label))
        for image, label in (
            ("Image", "Id"),
            ("Filename", "Label"),
            ("image_name", "class_name"),
            ("img_path", "target"),
            ("ImageId", "CLASS"),
            ("File Name", "class name"),
            ("image_id", "breed"),
            ("x", "y"),
            ("picture", "has_cactus"),
        )
    },
    "found by what it names": headed(
        ("a", "b", "note"), [(label, name, "x") for name, label in ROWS], reading=Reading(label_column="a")
    ),
    "ids beside paths": headed(("id", "path", "label"), [(str(n), *row) for n, row in enumerate(ROWS)]),
    "row numbers without a name": headed(("", "file", "label"), [(str(n), *row) for n, row in enumerate(ROWS)]),
    "row numbers as pandas reads them": headed(
        ("Unnamed: 0", "file", "label"), [(str(n), *row) for n, row in enumerate(ROWS)]
    ),
    "named, whatever case": headed(
        ("file", "kind", "label"), wider(lambda n: "x"), reading=Reading(label_column="KIND")
    ),
    "which is the label": refuse(
        pictures(),
        table(rows=wider(lambda n: "x"), header=("file", "a", "b")),
        because=(r"which column has the labels\? Name it with --label-column.*columns: file, a, b",),
        path="table.csv",
    ),
    "no such column": refuse(
        pictures(),
        table(),
        reading=Reading(label_column="labell"),
        because=(r"--label-column labell: no such column; did you mean label\?.*columns: file, label",),
        path="table.csv",
    ),
    "two columns of one name": refuse(
        pictures(),
        table(rows=wider(lambda n: "x"), header=("file", "label", "Label")),
        because=("which column has the labels",),
        path="table.csv",
    ),
    "one-hot": headed(
        ("image", "cat", "dog"),
        [(name[:-4], *("10", "01")[n % 2]) for n, (name, _) in enumerate(ROWS)],
        columns="a column of 0 and 1 for each of 2 classes",
    ),
    "one-hot, 0.0 and 1.0": headed(
        ("image", "cat", "dog", "fox"),
        [(name, f"{1 - n % 2}.0", f"{n % 2}.0", "0.0") for n, (name, _) in enumerate(ROWS)],
    ),
    "one-hot, a row without": refuse(
        pictures(),
        table(rows=[(name, *("10", "00")[n % 2]) for n, (name, _) in enumerate(ROWS)], header=("image", "a", "b")),
        because=("4 images have no label .*row 2",),
        path="table.csv",
    ),
    "several ones in a row": refuse(
        pictures(),
        table(rows=[(name, *("10", "11")[n % 2]) for n, (name, _) in enumerate(ROWS)], header=("image", "a", "b")),
        because=(r"row 2: several classes \(a, b\); 4 of 8 rows have more than one",),
        path="table.csv",
    ),
}

SPLIT_ROWS = [
    (f"{number:03}.png", ("cat", "dog")[number % 2], "train" if number < 8 else "test") for number in range(12)
]
PARTED = {"train": {"cat": 4, "dog": 4}, "test": {"cat": 2, "dog": 2}}


def split(column: str, train: str, test: str, **more: Any) -> Kind:
    rows = [(name, label, {"train": train, "test": test}[part]) for name, label, part in SPLIT_ROWS]
    return read(
        pictures(SPLIT_ROWS),
        table(rows=rows, header=("file", "label", column)),
        parts=more.pop("parts", PARTED),
        path="table.csv",
        **more,
    )


SPLITS: dict[str, Kind] = {
    "split": split("split", "train", "test", columns="parts in column 'split' ('test' as test, 'train' as train)"),
    "Set": split("Set", "Training", "TESTING"),
    "subset": split("subset", "train_set", "test_set"),
    "usage": split("Usage", "Training", "PrivateTest"),
    "fold, named": split("fold", "0", "4", reading=Reading(parts=(("test", "4"),))),
    "fold, not named": split(
        "fold", "0", "4", parts={"all": {"cat": 6, "dog": 6}}, columns="column 'fold' is not used as parts"
    ),
    "validation is pooled": read(
        pictures(SPLIT_ROWS),
        table(
            rows=[(n, label, "valid" if part == "test" else part) for n, label, part in SPLIT_ROWS],
            header=("file", "label", "split"),
        ),
        parts={"train": PARTED["train"], "val": PARTED["test"]},
        path="table.csv",
    ),
    "ignored": split(
        "split",
        "train",
        "later",
        reading=Reading(parts=(("ignore", "later"),)),
        parts={"all": PARTED["train"]},
        left_out={"row of a part that is left out": 4},
    ),
    "some are no parts": refuse(
        pictures(SPLIT_ROWS),
        table(
            rows=[*SPLIT_ROWS[:8], *((n, label, "extra") for n, label, _ in SPLIT_ROWS[8:])],
            header=("file", "label", "split"),
        ),
        because=("column 'split' has extra beside 'train' for train; .*--parts ignore=extra",),
        path="table.csv",
    ),
    "all are of the test part": refuse(
        pictures(SPLIT_ROWS),
        table(rows=[(n, label, "test") for n, label, _ in SPLIT_ROWS], header=("file", "label", "split")),
        because=("all 12 rows are test rows",),
        path="table.csv",
    ),
    "no such value": refuse(
        pictures(SPLIT_ROWS),
        table(rows=SPLIT_ROWS, header=("file", "label", "split")),
        because=(r"--parts test=tset: .*did you mean test\?",),
        path="table.csv",
        reading=Reading(parts=(("test", "tset"),)),
    ),
}


def grays(label: str, number: int, side: int) -> list[str]:
    """Return the gray values of a picture that is dark for a cat, with one light value in its second row."""
    values = [{"cat": 40, "dog": 220}[label] + number] * side**2
    values[side] = number * 10
    return list(map(str, values))


def pixel_table(header: Row, row: Callable[[str, list[str]], Row], side: int = 6, path: str = "table.csv") -> Maker:
    rows = [row(("cat", "dog")[n % 2], grays(("cat", "dog")[n % 2], n, side)) for n in range(8)]
    return table(path, rows, header)


PIXELS: dict[str, Maker] = {
    "pixel0 …": pixel_table(("label", *(f"pixel{n}" for n in range(36))), lambda label, grays: (label, *grays)),
    "1x1 …": pixel_table(
        ("label", *(f"{y}x{x}" for y in range(6) for x in range(6))), lambda label, grays: (label, *grays)
    ),
    "0 …, label last": pixel_table((*map(str, range(36)), "label"), lambda label, grays: (*grays, label)),
    "a column of all values": pixel_table(("emotion", "pixels"), lambda label, grays: (label, " ".join(grays))),
}


@pytest.mark.parametrize("name", PIXELS)
def test_gray_values(name: str, tmp_path: Path) -> None:
    PIXELS[name](tmp_path)
    dataset = load(str(tmp_path / "table.csv"))
    test_images, test_labels = open_test(dataset)
    found = [*zip(dataset.labels, dataset.images, strict=True), *zip(test_labels, test_images, strict=True)]
    wanted = [(n % 2, np.array(grays(("cat", "dog")[n % 2], n, 6), dtype=np.uint8).reshape(6, 6, 1)) for n in range(8)]
    assert dataset.classes == ("cat", "dog")
    assert sorted((label, image.tobytes()) for label, image in found) == sorted(
        (label, image.tobytes()) for label, image in wanted
    )
    assert dataset.images.shape[1:] == (6, 6, 1)
    assert "gray pictures of 6×6" in dataset.inventory.layout


REFUSED_PIXELS: dict[str, Kind] = {
    "no square": refuse(
        pixel_table(("label", *(f"pixel{n}" for n in range(35))), lambda label, grays: (label, *grays[1:])),
        because=("35 columns of gray values, pixel0 to pixel34, make no square picture",),
        path="table.csv",
    ),
    "no header": refuse(
        pixel_table((), lambda label, grays: (str(len(label)), *grays)),
        because=("37 columns of gray values, 1 to 37, .*--label-column",),
        path="table.csv",
    ),
    "too light": refuse(
        table(
            rows=[(label, *["0"] * 35, "255" if n < 60 else "256") for n in range(61) for label in ("cat", "dog")],
            header=("label", *(f"pixel{n}" for n in range(36))),
        ),
        because=("row 121, column 'pixel35': not a value",),
        path="table.csv",
    ),
    "different numbers": refuse(
        table(rows=[("cat", "0 " * 36), ("dog", "0 " * 25)], header=("emotion", "pixels")),
        because=("row 2: 25 gray values, not 36",),
        path="table.csv",
    ),
}


def encoded(shows: str, number: int) -> bytes:
    """Return a picture of the color of what it shows; no two numbers give the same."""
    stream = io.BytesIO()
    noise = np.random.default_rng(number).integers(-15, 16, (8, 8, 3))
    Image.fromarray((np.array(COLORS[shows]) + noise).astype(np.uint8)).save(stream, "png")
    return stream.getvalue()


SHOWN = ["cat", "dog"] * 4
HUB = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}


def column_file(
    path: str,
    labels: Any = None,
    shown: Sequence[str] = SHOWN,
    first: int = 0,
    image: str = "image",
    label: str = "label",
    kind: Any = None,
    metadata: Mapping[str, str | bytes] | None = None,
    **more: Any,
) -> Maker:
    """Write a Parquet or Arrow file with a picture of each of `shown`, which the labels are by default."""
    images = [encoded(subject, first + number) for number, subject in enumerate(shown)]
    cells = pa.array(images, kind) if kind else pa.array([{"bytes": image, "path": None} for image in images])
    labels = list(shown) if labels is None else labels
    made = pa.table({image: cells, label: labels, **more}).replace_schema_metadata(metadata)

    def make(root: Path) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        if path.endswith(".arrow"):
            with pa.OSFile(str(root / path), "wb") as opened, pa.ipc.new_stream(opened, made.schema) as stream:
                stream.write_table(made, max_chunksize=3)
        else:
            pq.write_table(made, root / path)

    return make


def packed(labels: Any = None, **more: Any) -> Kind:
    kind = {name: more.pop(name) for name in ("parts", "shows", "left_out", "reading", "columns") if name in more}
    return read(column_file("a.parquet", labels, **more), parts=kind.pop("parts", TWO), path="a.parquet", **kind)


def in_files(train: str, test: str, **more: Any) -> Kind:
    return read(
        column_file(train), column_file(test, shown=SHOWN[:4], first=100), parts=more.pop("parts", PARTED), **more
    )


def damaged(path: str, change: Callable[[bytes], bytes]) -> Maker:
    def make(root: Path) -> None:
        (root / path).write_bytes(change((root / path).read_bytes()))

    return make


def claiming(content: bytes, rows: int) -> bytes:
    """Return a Parquet file of 8 rows whose footer, in Thrift's compact protocol, claims another number of them."""
    length = int.from_bytes(content[-8:-4], "little")
    head, footer = content[: -8 - length], content[-8 - length : -8]
    number = bytes(rows * 2 >> shift & 127 | (128 if rows * 2 >> shift + 7 else 0) for shift in range(0, 64, 7))
    number = number[: next(place for place, byte in enumerate(number) if byte < 128) + 1]
    before, after = footer.split(b"\x16\x10\x19", 1)  # the third field, 8 in zigzag, and the list of row groups
    footer = before + b"\x16" + number + b"\x19" + after
    return head + footer + len(footer).to_bytes(4, "little") + b"PAR1"


NUMBERS = [0, 1] * 4
BY_NUMBER: Mapping[str, Any] = {"parts": {"all": {"0": 4, "1": 4}}, "shows": {"0": "cat", "1": "dog"}}
POOLED = {"all": {"cat": 6, "dog": 6}}

PARQUET: dict[str, Kind] = {
    "texts": packed(),
    "numbers": packed(NUMBERS, **BY_NUMBER),
    "small numbers": packed(pa.array(NUMBERS, pa.uint8()), **BY_NUMBER),
    "booleans": packed(
        [False, True] * 4, parts={"all": {"false": 4, "true": 4}}, shows={"false": "cat", "true": "dog"}
    ),
    "booleans, named": packed(
        [False, True] * 4,
        label="flag",
        parts={"all": {"false": 4, "true": 4}},
        shows={"false": "cat", "true": "dog"},
        reading=Reading(label_column="flag"),
    ),
    "texts with blanks": packed([f" {name}\n" for name in SHOWN]),
    "texts of numbers": packed(["01", "1"] * 4, parts={"all": {"01": 4, "1": 4}}, shows={"01": "cat", "1": "dog"}),
    "string_view": packed(pa.array(SHOWN, pa.string_view())),
    "large_string": packed(pa.array(SHOWN, pa.large_string())),
    "a dictionary": packed(pa.array(SHOWN).dictionary_encode()),
    "a dictionary of large strings": packed(pa.array(SHOWN, pa.large_string()).dictionary_encode()),
    "binary": packed(kind=pa.binary()),
    "large_binary": packed(kind=pa.large_binary()),
    "binary_view": packed(kind=pa.binary_view()),
    "class names of Hugging Face": packed(NUMBERS, metadata={"huggingface": json.dumps(HUB)}),
    "class names that no row has": packed(
        [2, 7] * 4, metadata={"classes": ",".join(["a", "b", "cat", "d", "e", "f", "g", "dog", "i", "j"])}
    ),
    **{
        f"metadata of another make: {metadata!r:.20}": packed(NUMBERS, metadata={"huggingface": metadata}, **BY_NUMBER)
        for metadata in (
            b"null",
            b"not JSON",
            b"[]",
            b"\xff",
            b"{",
            b"7",
            b"[" * 10_000,
            b'{"info": null}',
            b'{"info": []}',
            b'{"info": {"features": []}}',
            b'{"info": {"features": {"label": null}}}',
            b'{"info": {"features": {"label": {"names": {"0": "cat"}}}}}',
            b'{"info": {"features": {"label": {"names": [1]}}}}',
        )
    },
    "labels that are withheld": packed(
        [*NUMBERS, -1],
        shown=[*SHOWN, "fox"],
        metadata={"huggingface": json.dumps(HUB)},
        left_out={"no label": 1},
        reading=Reading(on_unlabelled="skip"),
    ),
    "no labels in some rows": refuse(
        column_file("a.parquet", [*NUMBERS[:7], None]),
        because=("1 image has no label .*row 8.*--on-unlabelled skip",),
        path="a.parquet",
    ),
    "a column of parts": packed(
        [*SHOWN, *SHOWN[:4]],
        shown=[*SHOWN, *SHOWN[:4]],
        split=["train"] * 8 + ["test"] * 4,
        parts=PARTED,
        columns="parts in column 'split'",
    ),
    "a column of parts, one left out": packed(
        [*SHOWN, *SHOWN[:4]],
        shown=[*SHOWN, *SHOWN[:4]],
        split=["train"] * 8 + ["later"] * 4,
        parts={"all": PARTED["train"]},
        left_out={"row of a part that is left out": 4},
        reading=Reading(parts=(("ignore", "later"),)),
    ),
    "names of picture files": read(
        pictures(),
        lambda root: pq.write_table(pa.table({"file_name": [r[0] for r in ROWS], "label": SHOWN}), root / "a.parquet"),
        parts=TWO,
        path="a.parquet",
    ),
    "train and test": in_files("train.parquet", "test.parquet", columns="test.parquet as test; train.parquet as train"),
    "shards": in_files("data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"),
    "default/train/0000.parquet": in_files("default/train/0000.parquet", "default/test/0000.parquet"),
    "train/ and test/": in_files("train/a.parquet", "test/a.parquet"),
    "my-test.parquet": in_files("my-train.parquet", "my-test.parquet"),
    "testers_…": in_files("testers_a.parquet", "testers_b.parquet", parts=POOLED),
    "validation is pooled": in_files(
        "train.parquet", "validation.parquet", parts={"train": PARTED["train"], "val": PARTED["test"]}
    ),
    "parts named": in_files("a.parquet", "b.parquet", reading=Reading(parts=(("test", "b"),))),
    "a file left out": in_files(
        "train.parquet",
        "extra.parquet",
        parts={"all": PARTED["train"]},
        left_out={"file that --parts leaves out": 1},
        reading=Reading(parts=(("ignore", "extra.parquet"),)),
    ),
    "a part that is not there": refuse(
        column_file("train.parquet"),
        column_file("b.parquet", first=9),
        reading=Reading(parts=(("test", "tset"),)),
        because=("--parts test=tset: no such file",),
    ),
    "two configurations": refuse(
        column_file("one/train/0.parquet"),
        column_file("two/train/0.parquet"),
        because=("Parquet files in one, two: are these different data sets\\? Give the path of one",),
    ),
    "save_to_disk": read(
        column_file("data-00000-of-00001.arrow", NUMBERS, metadata={"huggingface": json.dumps(HUB)}),
        file("dataset_info.json", "{}"),
        file("state.json", "{}"),
        parts=TWO,
    ),
    "save_to_disk of parts": in_files("train/data-00000-of-00001.arrow", "test/data-00000-of-00001.arrow"),
    "images twice": refuse(
        column_file("a.parquet", image="a", b=pa.array([b"x"] * 8)),
        because=("which column has the images\\?.*b: binary",),
        path="a.parquet",
    ),
    "a column of no labels": refuse(
        column_file("a.parquet", extra=[0.5] * 8),
        reading=Reading(label_column="extra"),
        because=("--label-column extra: that column cannot have the labels .*extra: double",),
        path="a.parquet",
    ),
    "cut off": refuse(
        column_file("a.parquet"),
        damaged("a.parquet", lambda content: content[: len(content) // 2]),
        because=("a.parquet: not a Parquet file that can be read",),
        path="a.parquet",
    ),
    "cut off within Arrow": refuse(
        column_file("data-0.arrow"),
        damaged("data-0.arrow", lambda content: content[: len(content) // 2]),
        because=("data-0.arrow: not an Arrow file that can be read",),
    ),
    "a footer that claims a billion rows": refuse(
        column_file("a.parquet"),
        damaged("a.parquet", lambda content: claiming(content, 10**9)),
        because=("a.parquet: damaged: it claims 1,000,000,000 rows in [0-9,]+ bytes",),
        path="a.parquet",
    ),
    "a footer that claims some rows more": refuse(
        column_file("a.parquet"),
        damaged("a.parquet", lambda content: claiming(content, 9)),
        because=("a.parquet: damaged: it claims 9 rows and has 8",),
        path="a.parquet",
    ),
    "empty": refuse(file("a.parquet", b""), because=("a.parquet: not a Parquet file",), path="a.parquet"),
    "a pipe": refuse(
        lambda root: os.mkfifo(root / "a.parquet"), because=("a.parquet: a named pipe, not a file",), path="a.parquet"
    ),
    "rows of nothing": refuse(
        column_file("a.parquet", pa.array([], pa.string()), shown=[], kind=pa.binary()),
        because=("there are no images",),
        path="a.parquet",
    ),
}

TRAIN, TEST = SPLIT_ROWS[:8], [(f"t{name}", label) for name, label, _ in SPLIT_ROWS[8:]]

FOLDERS: dict[str, Kind] = {
    "a competition, unpacked": read(
        pictures(ROWS, "train_images"),
        pictures([(name, "fox") for name, _ in ROWS], "test_images"),
        table("train.csv", renamed(lambda name: name[:-4])),
        table("test.csv", [(name[:-4],) for name, _ in ROWS], ("id",)),
        table("sample_submission.csv", [(name[:-4], "cat") for name, _ in ROWS], ("id", "label")),
        parts=TWO,
        left_out={"picture that no row names": 8, "table": 2},
        columns="labels in column 'label'; test.csv names no pictures with labels, and is not read",
    ),
    "metadata.csv in parts": read(
        pictures(TRAIN, "train"),
        table("train/metadata.csv", TRAIN, ("file_name", "label", "note")),
        pictures(TEST, "test"),
        table("test/metadata.csv", TEST, ("file_name", "label")),
        parts=PARTED,
    ),
    "metadata.jsonl": read(
        pictures(), lines("metadata.jsonl", [{"file_name": name, "label": label} for name, label in ROWS]), parts=TWO
    ),
    "metadata.csv above parts": read(
        pictures(ROWS, "train"), table("metadata.csv", renamed("train/{}".format), ("file_name", "label")), parts=TWO
    ),
    "train.csv and test.csv": read(
        pictures(TRAIN, "images"),
        pictures(TEST, "images"),
        table("train.csv", TRAIN, ("file", "label", "x")),
        table("test.csv", TEST),
        parts=PARTED,
    ),
    "labels.csv": read(
        pictures(below="images"),
        table("labels.csv"),
        file("classes.csv", "n,class\n1,cat\n"),
        parts=TWO,
        left_out={"table": 1},
        columns="classes.csv names no pictures with labels, and is not read",
    ),
    "test.csv alone": read(pictures(), table("test.csv"), parts=TWO),
    "two tables": refuse(
        pictures(),
        table("a.csv"),
        table("b.csv"),
        because=("several tables name pictures and labels .*--parts train=a,ignore=b",),
    ),
    "two tables, one named": read(
        pictures(),
        table("a.csv"),
        table("b.csv"),
        parts=TWO,
        left_out={"table": 1},
        reading=Reading(parts=(("ignore", "b"),)),
    ),
    "two tables, parts named": read(
        pictures(TRAIN),
        pictures(TEST),
        table("a.csv", TRAIN, ("file", "label", "x")),
        table("b.csv", TEST),
        parts=PARTED,
        reading=Reading(parts=(("train", "a"), ("test", "b"))),
    ),
    "class folders and a table": read(
        folder("cat"), folder("dog"), table("notes.csv", [("x", "y")], ("a", "b")), parts=TWO, left_out={"table": 1}
    ),
    "a spreadsheet": refuse(
        pictures(), file("table.xlsx", b"PK"), because=("table.xlsx: .*save .* as CSV",), path="table.xlsx"
    ),
    "pictures that no row names": read(
        pictures(),
        pictures([("x.png", "fox"), ("y.png", "fox")]),
        table(),
        parts=TWO,
        left_out={"picture that no row names": 2},
        path="table.csv",
    ),
}

KINDS = {
    f"{group}: {name}": kind
    for group, kinds in {
        "dialects": DIALECTS,
        "labels": LABELS,
        "names": NAMES,
        "columns": COLUMNS,
        "splits": SPLITS,
        "pixels": REFUSED_PIXELS,
        "Parquet": PARQUET,
        "folders": FOLDERS,
    }.items()
    for name, kind in kinds.items()
}


@pytest.mark.parametrize("name", KINDS)
def test_kind(name: str, tmp_path: Path) -> None:
    check_kind(KINDS[name], tmp_path / "data")


def test_tables_without_labels(tmp_path: Path) -> None:
    pictures(below="images")(tmp_path)
    table("new.csv", [(name[:-4], str(number)) for number, (name, _) in enumerate(ROWS)], ("id", "x"), ";")(tmp_path)
    names = pa.table({"file_name": [f"images/{name}" for name, _ in ROWS], "x": [0.5] * 8})
    pq.write_table(names, tmp_path / "new.parquet")
    files = [str(tmp_path / "images" / name) for name, _ in ROWS]
    for name in ("new.csv", "new.parquet"):
        found = find_images(tmp_path / name).images
        assert list(found.places()) == list(zip(files, range(1, 9), strict=True))
        encoded = [item for batch in found.batches() for item in batch.encoded]
        assert encoded == list(map(Path, files))


def test_a_parquet_data_set_is_known_without_reading_it(tmp_path: Path) -> None:
    column_file("a.parquet")(tmp_path)
    first = make_source(str(tmp_path / "a.parquet")).key()
    status = (tmp_path / "a.parquet").stat()
    (tmp_path / "a.parquet").write_bytes(bytes(status.st_size))
    os.utime(tmp_path / "a.parquet", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert make_source(str(tmp_path / "a.parquet")).key() == first
    os.utime(tmp_path / "a.parquet", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert make_source(str(tmp_path / "a.parquet")).key() != first
