"""The papers' data sets in small, in their original layouts: each of them is read correctly."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import lookalikes
import numpy as np
import pytest
from PIL import Image

from trainables.datasets import Dataset, Reading, check, load, open_test
from trainables.datasets.external import load_external
from trainables.datasets.reading import SHORT_SIDE
from trainables.splits import describe


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEEP_ORCHESTRATOR_CACHE", str(tmp_path / "cache"))


def everything(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return images and labels of all rows, those of the test part at the end."""
    images, labels = open_test(dataset)
    return np.concatenate([dataset.images, images]), np.concatenate([dataset.labels, labels])


def counts(dataset: Dataset) -> dict[str, int]:
    return {dataset.classes[label]: n for label, n in Counter(everything(dataset)[1].tolist()).items()}


def written(path: Path, size: tuple[int, int] | None = None) -> bytes:
    """Return a file's pixels."""
    with Image.open(path) as image:
        return np.asarray(image if size is None else image.resize(size)).tobytes()


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def test_cactus(tmp_path: Path) -> None:
    lookalikes.cactus(tmp_path / "cactus", rows=80)
    assert (tmp_path / "cactus" / "train.csv").read_text().startswith("id,has_cactus\n")
    assert check("cactus", Reading(tmp_path / "cactus")) == []
    dataset = load("cactus", Reading(tmp_path / "cactus"))
    assert counts(dataset) == {"0": 20, "1": 60}  # the unlabelled pictures of `test/` are no part of it
    assert dataset.images.shape[1:] == (32, 32, 3)
    assert not dataset.official_test
    assert len(dataset.duplicates) == 0
    with (tmp_path / "cactus" / "train.csv").open(newline="") as file:
        labelled = {(written(tmp_path / "cactus" / "train" / r["id"]), r["has_cactus"]) for r in csv.DictReader(file)}
    images, labels = everything(dataset)
    found = {(image.tobytes(), dataset.classes[label]) for image, label in zip(images, labels, strict=True)}
    assert found == labelled


def test_cactus_where_its_archive_repeats_a_folder(tmp_path: Path) -> None:
    lookalikes.cactus(tmp_path / "cactus", rows=20)
    (tmp_path / "cactus" / "train").rename(tmp_path / "pictures")
    (tmp_path / "cactus" / "train").mkdir()
    (tmp_path / "pictures").rename(tmp_path / "cactus" / "train" / "train")
    assert counts(load("cactus", Reading(tmp_path))) == {"0": 5, "1": 15}


def test_all_of_cactus_would_have_its_imbalance() -> None:
    assert [count for _, _, count in lookalikes.cactus_groups(17_500)] == [4_364, 13_136]


@pytest.mark.parametrize("around", ["cactus", "training_set/training_set"])
def test_cactus_in_class_folders(around: str, tmp_path: Path) -> None:
    lookalikes.cactus_folders(tmp_path / "given" / around, rows=40)
    assert counts(load("cactus", Reading(tmp_path / "given"))) == {"no_cactus": 10, "cactus": 30}


@pytest.mark.parametrize("given", [".", "dataset"])
def test_ai_vs_human(given: str, tmp_path: Path) -> None:
    lookalikes.ai_vs_human(tmp_path / "dataset", rows=16)
    table = (tmp_path / "dataset" / "train.csv").read_text()
    assert table.startswith(",file_name,label\n0,train_data/")
    dataset = load("ai-vs-human", Reading(tmp_path / given))
    assert counts(dataset) == {"0": 8, "1": 8}
    assert dataset.images.shape[1:] == (SHORT_SIDE, SHORT_SIDE, 3)
    assert describe(dataset)["stored_side"] == SHORT_SIDE
    sizes = {size_of(path) for path in (tmp_path / "dataset" / "train_data").iterdir()}
    assert len(sizes) > 10
    assert all(200 <= side <= 700 for size in sizes for side in size)


@pytest.mark.parametrize("given", ["fruits-360_dataset/fruits-360", "fruits-360_dataset", "."])
def test_fruits_360(given: str, tmp_path: Path) -> None:
    """Read the archive, which has two folders around the parts, and one beside them that looks like a class."""
    unpacked = tmp_path / "fruits-360_dataset" / "fruits-360"
    lookalikes.fruits_360(unpacked, rows=88)
    (unpacked.parent / "papers").mkdir()
    dataset = load("fruits-360", Reading(tmp_path / given))
    assert dataset.classes == tuple(lookalikes.FRUITS)
    assert dataset.images.shape == (66, 100, 100, 3)
    assert dataset.official_test
    assert np.bincount(dataset.labels).tolist() == [12, 12, 18, 24]
    assert np.bincount(open_test(dataset)[1]).tolist() == [4, 4, 6, 8]
    in_files = {written(path) for path in (unpacked / "Test").rglob("*.jpg")}
    assert {image.tobytes() for image in open_test(dataset)[0]} == in_files


def test_pictures_of_the_external_test_set_are_other_pictures(tmp_path: Path) -> None:
    lookalikes.fruits_360(tmp_path / "fruits-360", rows=88)
    lookalikes.external_test(tmp_path / "elsewhere", rows=12)
    images, labels = load_external(tmp_path / "elsewhere", load("fruits-360", Reading(tmp_path / "fruits-360")))
    assert len(images) == 12
    assert np.bincount(labels).tolist() == [4, 4, 4]
    ours = {written(path, (8, 8)) for path in (tmp_path / "fruits-360").rglob("*_100.jpg")}
    theirs = {written(path, (8, 8)) for path in (tmp_path / "elsewhere").rglob("*.jpg")}
    assert len(theirs) == 12
    assert not ours & theirs


def test_fashion_mnist(tmp_path: Path) -> None:
    lookalikes.fashion_mnist(tmp_path / "fashion", rows=70)
    dataset = load("fashion-mnist", Reading(tmp_path / "fashion"))
    assert dataset.images.shape == (60, 28, 28, 1)
    assert dataset.official_test
    assert np.bincount(dataset.labels).tolist() == [6] * 10
    assert np.bincount(open_test(dataset)[1]).tolist() == [1] * 10
    assert dataset.classes[0] == "T-shirt/top"


@pytest.mark.parametrize(
    "make",
    [
        lookalikes.cactus,
        lookalikes.ai_vs_human,
        lookalikes.fruits_360,
        lookalikes.external_test,
        lookalikes.fashion_mnist,
    ],
)
def test_the_same_seed_makes_the_same_files(make: Callable[[Path, int, int], None], tmp_path: Path) -> None:
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        make(tmp_path / folder, 22, seed)
    a, b, c = (
        {
            file.relative_to(tmp_path / name): file.read_bytes()
            for file in (tmp_path / name).rglob("*")
            if file.is_file()
        }
        for name in "abc"
    )
    assert a == b
    assert a != c


def test_more_than_there_are_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ask for fewer rows"):
        lookalikes.fashion_mnist(tmp_path, rows=100_000)
