"""The classes that a reading chooses: of pictures and of arrays, by name and by number of rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainables.datasets import Dataset, DatasetError, Reading, load, open_test
from trainables.datasets.inventory import LeftOut
from trainables.datasets.reading import TOO_FEW


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEEP_ORCHESTRATOR_CACHE", str(tmp_path / "cache"))


def folder(root: Path, rows: dict[str, int]) -> str:
    """Write some noisy pictures of each class."""
    for seed, (name, count) in enumerate(rows.items()):
        (root / name).mkdir(parents=True)
        for row in range(count):
            noise = np.random.default_rng((seed, row)).integers(0, 256, (4, 4, 3), dtype=np.uint8)
            Image.fromarray(noise).save(root / name / f"{row}.png")
    return str(root)


def rows_of(dataset: Dataset) -> dict[str, int]:
    """Return the rows of each class in both parts together."""
    counts = np.bincount(dataset.labels) + np.bincount(open_test(dataset)[1])
    return dict(zip(dataset.classes, counts.tolist(), strict=True))


def test_classes_of_an_array_are_chosen() -> None:
    dataset = load("digits", Reading(classes=("8", "3")))
    assert rows_of(dataset) == {"3": 183, "8": 174}
    assert dataset.inventory.parts == {"all": {"3": 183, "8": 174}}
    assert dataset.inventory.left_out == (LeftOut("class not named by --classes", 1440, ("1", "5", "4")),)
    everything = load("digits")
    threes = everything.images[everything.labels == 3].tobytes()
    assert sum(image.tobytes() in threes for image in dataset.images[dataset.labels == 0]) > 100


def test_small_classes_are_left_out_if_asked(tmp_path: Path) -> None:
    path = folder(tmp_path / "pets", {"ant": 2, "bee": 5, "cat": 8, "dog": 6})
    with pytest.raises(DatasetError, match=r"'ant' has 2; .*at least 3 .*--min-rows drop.*--classes"):
        load(path)
    dropped = load(path, Reading(min_rows=TOO_FEW))
    assert rows_of(dropped) == {"bee": 5, "cat": 8, "dog": 6}
    assert dropped.inventory.left_out == (LeftOut("class with too few rows", 2, ("ant",)),)
    fewer = load(path, Reading(min_rows=6))
    assert rows_of(fewer) == {"cat": 8, "dog": 6}
    assert fewer.inventory.left_out == (LeftOut("class with fewer than 6 rows", 7, ("bee", "ant")),)
    with pytest.raises(DatasetError, match=r"--min-rows 100: no class has so many \(largest: 8 and 6\)"):
        load(path, Reading(min_rows=100))
    with pytest.raises(DatasetError, match=r"--min-rows 7: only one class has so many \(largest: 8 and 6\)"):
        load(path, Reading(min_rows=7))


def test_a_class_that_becomes_small_since_pictures_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    path = folder(tmp_path / "pets", {"ant": 3, "bee": 5, "cat": 8})
    (tmp_path / "pets" / "ant" / "0.png").write_bytes(b"no picture")
    dataset = load(path, Reading(min_rows=TOO_FEW, on_bad_image="skip"))
    assert rows_of(dataset) == {"bee": 5, "cat": 8}
    assert {left.reason: left.count for left in dataset.inventory.left_out} == {
        "cannot be read": 1,
        "class with too few rows": 2,
    }


def test_unknown_classes_are_refused_with_the_nearest(tmp_path: Path) -> None:
    path = folder(tmp_path / "pets", {"ant": 3, "bee": 5})
    with pytest.raises(DatasetError, match=r"no class 'bea'; did you mean bee\? \(allowed: ant, bee\)"):
        load(path, Reading(classes=("bea", "ant")))
    with pytest.raises(DatasetError, match=r"no class '10'"):
        load("digits", Reading(classes=("10", "3")))
    with pytest.raises(DatasetError, match="only one class, ant"):
        load(path, Reading(classes=("ant",)))


def test_parts_classes_and_what_cannot_be_read_are_counted(tmp_path: Path) -> None:
    folder(tmp_path / "pets" / "train", {"ant": 4, "bee": 5})
    path = folder(tmp_path / "pets" / "test", {"ant": 1, "bee": 2})
    (tmp_path / "pets" / "train" / "bee" / "0.png").write_bytes(b"no picture")
    found = load(str(Path(path).parent), Reading(on_bad_image="skip")).inventory
    assert found.parts == {"test": {"ant": 1, "bee": 2}, "train": {"ant": 4, "bee": 4}}
    (left,) = found.left_out
    assert (left.reason, left.count) == ("cannot be read", 1)
    assert left.examples[0].startswith(f"{tmp_path}/pets/train/bee/0.png: the image cannot be read")


def test_copies_of_a_file_are_told_from_pictures_that_look_the_same(tmp_path: Path) -> None:
    folder(tmp_path / "pets" / "train", {"ant": 4, "bee": 5})
    path = folder(tmp_path / "pets" / "test", {"cat": 2, "fox": 2})
    for given, name in (("cat", "ant"), ("fox", "bee")):
        (Path(path) / given).rename(Path(path) / name)
        for row in range(2):
            noise = np.random.default_rng((9, row, len(name), ord(name[0]))).integers(0, 256, (4, 4, 3), dtype=np.uint8)
            Image.fromarray(noise).save(Path(path) / name / f"{row}.png")
    train = tmp_path / "pets" / "train"
    (train / "ant" / "copy.png").write_bytes((Path(path) / "ant" / "0.png").read_bytes())
    with Image.open(Path(path) / "bee" / "1.png") as image:
        image.save(train / "bee" / "again.png", compress_level=0)
        image.save(train / "bee" / "again.bmp")
    dataset = load(str(tmp_path / "pets"))
    assert len(dataset.duplicates) == 3
    note = "3 pictures outside the test set look like one in it, as stored; 1 of them is the same file"
    assert note in dataset.inventory.notes


def test_files_that_are_left_out_are_counted_as_they_are_now(tmp_path: Path) -> None:
    path = folder(tmp_path / "pets", {"ant": 4, "bee": 5})
    (tmp_path / "pets" / "ant" / "notes.txt").write_text("text")
    before = load(path)
    assert before.inventory.left_out == (LeftOut("not a picture: .txt", 1, ("ant/notes.txt",)),)
    (tmp_path / "pets" / "ant" / "notes.txt").unlink()
    after = load(path)
    assert (after.inventory.left_out, after.folder) == ((), before.folder)
