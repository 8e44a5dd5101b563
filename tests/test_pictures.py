"""Pictures in class folders and named by CSVs, of one size and of many, intact and damaged."""

from __future__ import annotations

import csv
import io
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from trainables.batches import Batches
from trainables.config import TrialConfig
from trainables.datasets import Dataset, DatasetError, Reading, check, decoder, load, open_test, pictures
from trainables.datasets.packed import in_channels
from trainables.datasets.reading import SHORT_SIDE
from trainables.datasets.source import Pixels
from trainables.datasets.stored_images import StoredImages
from trainables.splits import describe, search_data

CLASSES = ("cat", "dog")


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEEP_ORCHESTRATOR_CACHE", str(tmp_path / "cache"))


def picture(path: Path, seed: int, size: tuple[int, int] = (12, 10), grey: bool = False) -> Pixels:
    """Write a PNG of noise; return its pixels, [H, W, C]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = size if grey else (*size, 3)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels if not grey else pixels[..., np.newaxis]


def class_folders(root: Path, rows: int = 8, first: int = 0) -> dict[str, Pixels]:
    """Write `rows` pictures of each class; return their pixels by class and file."""
    return {
        f"{name}/{row}.png": picture(root / name / f"{row}.png", first + row + 1000 * number)
        for number, name in enumerate(CLASSES)
        for row in range(rows)
    }


def rows_of(dataset: Dataset) -> list[tuple[bytes, int]]:
    return [(image.tobytes(), int(label)) for image, label in zip(dataset.images, dataset.labels, strict=True)]


def test_class_folders_are_read(tmp_path: Path) -> None:
    written = class_folders(tmp_path / "pets")
    assert check(str(tmp_path / "pets")) == []
    dataset = load(str(tmp_path / "pets"))
    assert (dataset.name, dataset.classes, dataset.official_test) == ("pets", CLASSES, False)
    images, labels = open_test(dataset)
    found = rows_of(dataset) + [(image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)]
    assert sorted(found) == sorted((pixels.tobytes(), CLASSES.index(name[:3])) for name, pixels in written.items())


@pytest.mark.parametrize(("train", "test"), [("train", "test"), ("Training", "Test")])
def test_a_test_folder_is_the_test_part(train: str, test: str, tmp_path: Path) -> None:
    class_folders(tmp_path / "fruit" / train)
    class_folders(tmp_path / "fruit" / "validation", rows=2, first=50)
    class_folders(tmp_path / "fruit" / test, rows=3, first=100)
    dataset = load(str(tmp_path / "fruit"))
    assert (len(dataset.labels), dataset.test_rows, dataset.official_test) == (20, 6, True)


def test_parts_with_other_classes_are_refused(tmp_path: Path) -> None:
    class_folders(tmp_path / "train")
    class_folders(tmp_path / "test")
    picture(tmp_path / "test" / "fox" / "1.png", 0)
    (problem,) = check(str(tmp_path))
    assert "train has no folder for fox" in problem


def test_an_empty_class_is_refused(tmp_path: Path) -> None:
    class_folders(tmp_path / "pets")
    (tmp_path / "pets" / "fox").mkdir()
    with pytest.raises(DatasetError, match="no pictures for fox"):
        load(str(tmp_path / "pets"))


def test_a_class_that_is_empty_in_one_part_is_refused(tmp_path: Path) -> None:
    class_folders(tmp_path / "pets" / "train")
    class_folders(tmp_path / "pets" / "test")
    for file in (tmp_path / "pets" / "test" / "dog").iterdir():
        file.unlink()
    with pytest.raises(DatasetError, match="no pictures for test/dog"):
        load(str(tmp_path / "pets"))


def test_a_part_without_class_folders_is_named(tmp_path: Path) -> None:
    class_folders(tmp_path / "pets" / "train")
    (tmp_path / "pets" / "test").mkdir()
    (problem,) = check(str(tmp_path / "pets"))
    assert "pets: no pictures for test/; add some, or remove the folder" in problem


def test_changed_pictures_are_read_again(tmp_path: Path) -> None:
    class_folders(tmp_path / "pets")
    before = load(str(tmp_path / "pets")).fingerprint
    picture(tmp_path / "pets" / "cat" / "0.png", seed=99)
    assert load(str(tmp_path / "pets")).fingerprint != before


def stored_pictures(dataset: Dataset) -> list[Pixels]:
    """Return all pictures as they are stored, those of the test set last."""
    parts = StoredImages.of(dataset.images), StoredImages.of(open_test(dataset)[0])
    return [picture for images in parts for picture in images.pictures(np.arange(len(images)))]


def test_pictures_of_many_sizes_stay_whole(tmp_path: Path) -> None:
    written = class_folders(tmp_path / "pets")
    written["tall"] = picture(tmp_path / "pets" / "cat" / "tall.png", 7, size=(40, 20))
    dataset = load(str(tmp_path / "pets"))
    assert dataset.images.shape[1:] == (20, 20, 3)  # indexed, each is a square
    assert describe(dataset)["stored_side"] == 20
    stored = {image.tobytes() for image in stored_pictures(dataset)}
    assert stored == {pixels.tobytes() for pixels in written.values()}
    squares = [*dataset.images, *open_test(dataset)[0]]
    assert any((image == written["tall"][10:30]).all() for image in squares)  # its center crop, not scaled


@pytest.mark.parametrize("odd", [False, True])
def test_what_is_stored_of_a_picture_does_not_depend_on_the_others(odd: bool, tmp_path: Path) -> None:
    for number, name in enumerate(CLASSES):
        for row in range(6):
            picture(tmp_path / "pets" / name / f"{row}.png", row + 100 * number, size=(40, 60))
    if odd:
        picture(tmp_path / "pets" / "cat" / "odd.png", 7, size=(41, 60))
    dataset = load(str(tmp_path / "pets"), Reading(stored_side=20))
    assert (dataset.side is None) is not odd
    assert {picture.shape for picture in stored_pictures(dataset)} == {(20, 30, 3)} | ({(20, 29, 3)} if odd else set())


@pytest.mark.parametrize("odd", [False, True])
def test_mean_and_deviation_are_those_of_all_pixels(odd: bool, tmp_path: Path) -> None:
    class_folders(tmp_path / "pets")
    picture(tmp_path / "pets" / "cat" / "grey.png", 7, size=(13, 29) if odd else (12, 10), grey=True)
    dataset = load(str(tmp_path / "pets"))
    data = search_data(dataset)
    colored = [in_channels(picture, 3) for picture in StoredImages.of(data.images).pictures(data.pool)]
    pixels = np.concatenate([picture.reshape(-1, 3) for picture in colored]) / 255
    np.testing.assert_allclose(data.mean, pixels.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(data.std, pixels.std(axis=0), rtol=1e-6)


def test_a_grey_copy_of_a_test_picture_is_a_duplicate_of_it_in_color(tmp_path: Path) -> None:
    for name, number in (("cat", 0), ("dog", 1)):
        for row in range(4):
            picture(tmp_path / "train" / name / f"{row}.png", row + 10 * number, size=(12, 10 + row))
    grey = picture(tmp_path / "train" / "cat" / "grey.png", 50, size=(12, 12), grey=True)
    (tmp_path / "test" / "cat").mkdir(parents=True)
    Image.fromarray(np.repeat(grey, 3, axis=2)).save(tmp_path / "test" / "cat" / "1.png")
    picture(tmp_path / "test" / "dog" / "1.png", 51, size=(12, 12))
    assert len(load(str(tmp_path)).duplicates) == 1


def test_large_pictures_of_many_sizes_are_stored_smaller(tmp_path: Path) -> None:
    class_folders(tmp_path / "pets")
    picture(tmp_path / "pets" / "cat" / "large.png", 7, size=(SHORT_SIDE + 100, SHORT_SIDE + 80))
    dataset = load(str(tmp_path / "pets"))
    assert dataset.images.shape[1:3] == (SHORT_SIDE, SHORT_SIDE)
    assert (round((SHORT_SIDE + 100) * SHORT_SIDE / (SHORT_SIDE + 80)), SHORT_SIDE, 3) in {
        image.shape for image in stored_pictures(dataset)
    }


def test_the_stored_side_can_be_chosen(tmp_path: Path) -> None:
    class_folders(tmp_path / "pets")
    large = picture(tmp_path / "pets" / "cat" / "large.png", 7, size=(500, 400))
    path = str(tmp_path / "pets")
    for side, stored in ((32, 32), (SHORT_SIDE, SHORT_SIDE), (450, 400), (32, 32)):
        dataset = load(path, Reading(stored_side=side))
        assert (dataset.side, dataset.images.shape[1:3]) == (stored, (stored, stored))
    found = [*(whole := load(path, Reading(stored_side=450))).images, *open_test(whole)[0]]
    assert any((image == large[50:450]).all() for image in found)
    assert load(path).folder != load(path, Reading(stored_side=32)).folder


def test_images_of_one_size_are_stored_scaled_down_in_their_shape(tmp_path: Path) -> None:
    class_folders(tmp_path / "pets")
    assert load(str(tmp_path / "pets")).images.shape[1:3] == (12, 10)
    assert load(str(tmp_path / "pets"), Reading(stored_side=5)).images.shape[1:3] == (6, 5)


@pytest.mark.parametrize("place", ["cat/-.png", "dog/grey.png"])  # before all others, and after
def test_grey_among_coloured_ones_is_coloured(place: str, tmp_path: Path) -> None:
    class_folders(tmp_path / "pets")
    grey = picture(tmp_path / "pets" / place, 7, grey=True)
    dataset = load(str(tmp_path / "pets"))
    everything = [*dataset.images, *open_test(dataset)[0]]
    assert any((image == grey).all() for image in everything)


def test_a_disk_without_room_for_pixels_is_gone_around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create = tempfile.TemporaryFile

    def full(dir: Path, **options: Any) -> Any:  # noqa: A002
        if options and tmp_path / "cache" in dir.parents:
            raise OSError(28, "No space left on device")
        return create(dir=dir, **options)

    written = class_folders(tmp_path / "pets")
    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.warns(UserWarning, match="No space left"):
        dataset = load(str(tmp_path / "pets"))
    assert len(dataset.labels) + dataset.test_rows == len(written)


def test_pictures_that_cannot_be_read_are_all_named(tmp_path: Path) -> None:
    class_folders(tmp_path / "pets")
    for name in ("a.png", "b.jpg"):
        (tmp_path / "pets" / "dog" / name).write_bytes(b"no picture")
    for _ in range(2):  # also from the cache
        with pytest.raises(DatasetError) as refused:
            load(str(tmp_path / "pets"))
        assert len(refused.value.problems) == 3
        assert "dog/a.png: the image cannot be read: it is in no format" in refused.value.problems[0]
        assert "--on-bad-image skip" in refused.value.problems[-1]
    dataset = load(str(tmp_path / "pets"), Reading(on_bad_image="skip"))
    assert len(dataset.labels) + dataset.test_rows == 16
    assert describe(dataset)["unreadable_rows"] == 2


# Behind a CSV


def table(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def cacti(root: Path) -> None:
    """Write the layout of the competition: numbers for names, `train.csv` beside `train/`."""
    rows = [{"id": f"00{row}.jpg", "has_cactus": int(row % 3 > 0)} for row in range(30)]
    for row, named in enumerate(rows):
        picture(root / "train" / str(named["id"]), row)
    table(root / "train.csv", list(rows))


def test_a_csv_beside_a_folder_of_its_name(tmp_path: Path) -> None:
    cacti(tmp_path / "cactus")
    by_name, by_path = load("cactus", Reading(tmp_path / "cactus")), load(str(tmp_path / "cactus" / "train.csv"))
    assert by_name.classes == by_path.classes == ("0", "1")
    assert by_name.fingerprint == by_path.fingerprint
    assert np.bincount(by_name.labels).sum() + by_name.test_rows == 30


def test_a_csv_of_paths_with_a_column_of_row_numbers(tmp_path: Path) -> None:
    rows = [{"": row, "file_name": f"train_data/{row}.png", "label": row % 2} for row in range(20)]
    for row in rows:
        picture(tmp_path / "all" / str(row["file_name"]), int(str(row[""])), size=(10 + int(str(row[""])) % 3, 12))
    table(tmp_path / "all" / "train.csv", list(rows))
    dataset = load("ai-vs-human", Reading(tmp_path))  # one folder down
    assert dataset.images.shape[1:3] == (12, 12)
    assert len(dataset.labels) + dataset.test_rows == 20


def test_columns_can_be_named(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"picture": f"{row}.png", "kind": "ab"[row % 2], "note": "x"} for row in range(12)]
    for row, named in enumerate(rows):
        picture(tmp_path / "pictures" / str(named["picture"]), row)
    table(tmp_path / "rows.csv", rows)
    path, there = str(tmp_path / "rows.csv"), tmp_path / "pictures"
    with pytest.raises(DatasetError, match=r"--label-column.*columns: picture, kind, note"):
        load(path, Reading(there))
    with pytest.raises(DatasetError, match=r"--label-column sort: no such column.*columns: picture, kind, note"):
        load(path, Reading(there, "picture", "sort"))
    assert load(path, Reading(there, "picture", "kind")).classes == ("a", "b")


def test_a_row_whose_picture_is_missing_is_named(tmp_path: Path) -> None:
    cacti(tmp_path / "cactus")
    (tmp_path / "cactus" / "train" / "003.jpg").unlink()
    with pytest.raises(DatasetError, match=r"train\.csv, row 4: .*003\.jpg: there is no such file"):
        load("cactus", Reading(tmp_path / "cactus"))
    assert len(load("cactus", Reading(tmp_path / "cactus", on_bad_image="skip")).unreadable) == 1


def test_a_csv_without_its_pictures_is_reported_with_where_they_were_looked_for(tmp_path: Path) -> None:
    table(tmp_path / "rows.csv", [{"file": "1.png", "label": 0}])
    with pytest.raises(DatasetError, match=r"looked for .*/1\.png.*--data-dir"):
        load(str(tmp_path / "rows.csv"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no rows"),
        ("file,label\n", "no rows"),
        ("file,label\na.png,\n", r"1 image has no label \(.*rows.csv, row 1|1 image has no label"),
        ("file,label\na.png,cat\nb.png,\n", "1 image has no label"),
        ("file,label\na.png,cat\n,dog\n", "row 2: a label, but nothing in column 'file'"),
        ("file,label\na.png,caf\xe9\n", "line 2: not text in UTF-8; save the file as UTF-8"),
        ("file\na.png\n", r"which column has the labels.*columns: file"),
    ],
)
def test_a_csv_that_cannot_be_used_is_refused(content: str, message: str, tmp_path: Path) -> None:
    for name in "ab":
        picture(tmp_path / f"{name}.png", 0)
    (tmp_path / "rows.csv").write_text(content, encoding="latin-1")
    with pytest.raises(DatasetError, match=message):
        load(str(tmp_path / "rows.csv"))


def test_a_jpeg_that_is_cut_short_is_not_read() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(buffer, "jpeg")
    whole = buffer.getvalue()

    def read(encoded: bytes, reserve: decoder.Reserve) -> str:
        return f"read as {decoder.read(encoded, reserve=reserve).format}"

    assert "runcated" in pictures.attempt(whole[:-100], read)
    assert "cannot be read" in pictures.attempt(whole[:30], read)


@pytest.mark.parametrize("grey", [False, True])
def test_too_many_pixels_are_kept_as_jpeg(grey: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, columns = np.mgrid[:40, :40]
    for number in range(300):
        smooth = (100 + 60 * np.sin(rows / 9 + number) + 40 * np.cos(columns / 7)).astype(np.uint8)
        path = tmp_path / "pets" / CLASSES[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(smooth if grey else np.stack([smooth, smooth // 2, 255 - smooth], axis=2)).save(path)
    plain = load(str(tmp_path / "pets"))
    monkeypatch.setattr(pictures, "PIXELS_LIMIT", 10_000)
    monkeypatch.setattr(pictures, "SAMPLE", 4)
    monkeypatch.setenv("SWEEP_ORCHESTRATOR_CACHE", str(tmp_path / "other"))
    dataset = load(str(tmp_path / "pets"))
    assert any("kept as JPEG" in note for note in dataset.inventory.notes)
    assert not any("kept as JPEG" in note for note in plain.inventory.notes)
    assert dataset.images.nbytes < plain.images.nbytes  # the first ones are kept as they are
    assert dataset.images.shape == plain.images.shape
    for data in (dataset, load(str(tmp_path / "pets"))):  # decoded, and from the cache
        for found, expected in zip(stored_pictures(data), stored_pictures(plain), strict=True):
            assert found.shape == expected.shape
            assert np.abs(found.astype(int) - expected).mean() < 4
    first, second = search_data(plain), search_data(dataset)
    np.testing.assert_array_equal(first.mean, second.mean)
    batches = Batches.of(second, torch.device("cpu"))
    images, _ = next(batches.evaluate(torch.from_numpy(second.validation), TrialConfig(image_size=16)))
    assert images.shape[1:] == (3, 16, 16)


def test_files_that_are_there_twice_are_told(tmp_path: Path) -> None:
    class_folders(tmp_path / "pets")
    shutil.copy(tmp_path / "pets" / "cat" / "0.png", tmp_path / "pets" / "cat" / "copy.png")
    shutil.copy(tmp_path / "pets" / "cat" / "0.png", tmp_path / "pets" / "dog" / "other.png")
    notes = load(str(tmp_path / "pets")).inventory.notes
    assert (
        "2 pictures are there a second time, as the same file; 1 of them with another label (cat/0.png, dog/other.png)"
        in notes
    )
