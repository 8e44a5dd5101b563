"""Folders of Parquet files: the files, columns, classes and pixels that are found, and what is refused."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from trainables.datasets import DatasetError, check, load, open_test
from trainables.datasets.source import Pixels


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SWEEP_ORCHESTRATOR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def pictures(rows: int, size: tuple[int, int] = (4, 5), grey: bool = False, seed: int = 0) -> list[Pixels]:
    shape = size if grey else (*size, 3)
    return list(np.random.default_rng(seed).integers(0, 256, (rows, *shape), dtype=np.uint8))


def encoded(picture: Pixels, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, kind)
    return stream.getvalue()


def write(
    file: Path,
    images: Sequence[Any],
    labels: Sequence[Any],
    names: tuple[str, str] = ("img", "label"),
    metadata: dict[str, str] | None = None,
    **more: Sequence[Any],
) -> Path:
    """Write a Parquet file in the hub's layout; arrays among `images` are encoded, all else stays as it is."""
    cells = [{"bytes": encoded(i), "path": None} if isinstance(i, np.ndarray) else i for i in images]
    table = pa.table({names[0]: cells, names[1]: labels, **more}).replace_schema_metadata(metadata)
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file)
    return file


def refusal(path: Path) -> str:
    with pytest.raises(DatasetError) as refused:
        load(str(path))
    return str(refused.value)


def test_a_data_set_is_decoded_once(tmp_path: Path) -> None:
    file = write(tmp_path / "few.parquet", pictures(20), [0, 1] * 10)
    calls: list[tuple[str, int, int]] = []
    first = load(str(file), progress=lambda *call: calls.append(call))
    assert calls == [("decoding images", 20, 20)]
    second = load(str(file), progress=lambda *call: calls.append(call))
    assert len(calls) == 1
    assert (first.folder, first.fingerprint) == (second.folder, second.fingerprint)
    np.testing.assert_array_equal(first.images, second.images)


def test_changed_content_is_another_data_set(tmp_path: Path) -> None:
    file = write(tmp_path / "few.parquet", pictures(20), [0, 1] * 10)
    first = load(str(file))
    write(file, pictures(20, seed=1), [0, 1] * 10)
    assert load(str(file)).fingerprint != first.fingerprint


def test_names_that_can_be_loaded_have_no_problems(tmp_path: Path) -> None:
    file = write(tmp_path / "few.parquet", pictures(4), [0, 1, 0, 1])
    assert check("digits") == check("cifar10") == check(str(file)) == check(str(tmp_path)) == []


@pytest.mark.parametrize("place", ["", "data", "plain_text"])
def test_files_named_test_are_the_official_test_part(tmp_path: Path, place: str) -> None:
    images = pictures(12)
    folder = tmp_path / "hub"
    write(folder / place / "train-00000-of-00001.parquet", images[:6], [0, 1] * 3)
    write(folder / place / "validation-00000-of-00001.parquet", images[6:8], [0, 1])
    write(folder / place / "test-00000-of-00001.parquet", images[8:], [1, 1, 0, 0])
    dataset = load(str(folder))
    test_images, test_labels = open_test(dataset)
    assert dataset.official_test
    assert dataset.name == "hub"
    np.testing.assert_array_equal(test_images, images[8:])
    np.testing.assert_array_equal(dataset.images, images[:8])
    assert test_labels.tolist() == [1, 1, 0, 0]


def test_images_of_the_test_part_are_marked_in_the_others(tmp_path: Path) -> None:
    images = pictures(12)
    images[2] = images[9]
    write(tmp_path / "hub" / "train.parquet", images[:8], [0, 1] * 4)
    write(tmp_path / "hub" / "test.parquet", images[8:], [0, 1] * 2)
    assert load(str(tmp_path / "hub")).duplicates.tolist() == [2]


HUB = json.dumps({"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}})


@pytest.mark.parametrize(
    ("labels", "metadata", "classes", "numbers"),
    [
        ([0, 1], {"classes": "cat,dog"}, ("cat", "dog"), [0, 1]),
        ([1, 0], {"huggingface": HUB}, ("cat", "dog"), [1, 0]),
        (["pug", "cat"], None, ("cat", "pug"), [1, 0]),
        (["dog", "cat"], {"huggingface": HUB}, ("cat", "dog"), [1, 0]),
        ([7, 3], None, ("3", "7"), [1, 0]),
        (pa.array(["pug", "cat"] * 6).dictionary_encode(), None, ("cat", "pug"), [1, 0]),
    ],
)
def test_classes_are_named(
    tmp_path: Path, labels: Any, metadata: dict[str, str] | None, classes: tuple[str, ...], numbers: list[int]
) -> None:
    column = labels if isinstance(labels, pa.Array) else labels * 6
    images = pictures(12)
    dataset = load(str(write(tmp_path / "few.parquet", images, column, metadata=metadata)))
    assert dataset.classes == classes
    rows = [[np.array_equal(image, other) for other in images].index(True) for image in dataset.images]
    assert dataset.labels.tolist() == [numbers[row % 2] for row in rows]


def test_columns_are_found_by_name_or_because_they_are_the_only_ones(tmp_path: Path) -> None:
    images = [encoded(picture) for picture in pictures(12)]
    named = write(tmp_path / "a.parquet", images, [0, 1] * 6, names=("image", "fine_label"), coarse=[0] * 12)
    only = write(tmp_path / "b.parquet", images, ["x", "y"] * 6, names=("photo", "animal"), width=[1.5] * 12)
    assert load(str(named)).classes == ("0", "1")
    assert load(str(only)).classes == ("x", "y")


@pytest.mark.parametrize(("grey", "channels"), [(12, 1), (11, 3), (0, 3)])
def test_grey_stays_grey_when_all_is(tmp_path: Path, grey: int, channels: int) -> None:
    images = pictures(grey, grey=True) + pictures(12 - grey)
    dataset = load(str(write(tmp_path / "few.parquet", images, [0, 1] * 6)))
    assert dataset.images.shape[1:] == (4, 5, channels)


def test_row_order_survives_many_batches(tmp_path: Path) -> None:
    images = pictures(2000, size=(3, 3))
    write(tmp_path / "hub" / "train.parquet", images[:1500], [0, 1] * 750)
    write(tmp_path / "hub" / "test.parquet", images[1500:], [0, 1] * 250)
    np.testing.assert_array_equal(load(str(tmp_path / "hub")).images, images[:1500])


def test_what_a_file_lacks_is_reported(tmp_path: Path) -> None:
    images, labels = pictures(6), [0, 1] * 3
    file = tmp_path / "few.parquet"
    assert "columns: img: string, label: int64" in refusal(write(file, ["text"] * 6, labels))
    assert "which column has the labels? Name it with --label-column" in refusal(write(file, images, [0.5] * 6))
    assert "which column has the labels? Name it with --label-column" in refusal(
        write(file, images, labels, ("img", "a"), b=labels)
    )
    assert "1 image has no label" in refusal(write(file, images, [0, 1, 0, 1, None, 1]))
    assert "row 6: no image bytes" in refusal(write(file, [*images[:5], None], labels))
    withheld = write(file, images, [-1] * 6, metadata={"classes": "cat,dog"})
    assert "6 images have no label" in refusal(withheld)
    foreign = write(file, images, [0, 1, 2] * 2, metadata={"classes": "cat,dog"})
    assert "row 3: label 2 is none of the 2 classes that the metadata name (cat, dog); 2 rows" in refusal(foreign)
    file.write_bytes(b"not Parquet")
    assert "not a Parquet file that can be read" in refusal(file)


def test_a_file_that_is_damaged_within_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "few.parquet", pictures(400), [0, 1] * 200)
    content = bytearray(file.read_bytes())
    content[1000:1400] = bytes(400)
    file.write_bytes(content)
    assert f"{file}: not a Parquet file that can be read" in refusal(file)


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    images: list[Any] = [{"bytes": encoded(picture), "path": "x"} for picture in pictures(300)]
    images[270] = {"bytes": images[270]["bytes"][:40], "path": "x"}
    assert "few.parquet, row 271: the image cannot be read" in refusal(
        write(tmp_path / "few.parquet", images, [0, 1] * 150)
    )


def test_deep_pixels_are_scaled_to_8_bits(tmp_path: Path) -> None:
    deep = [{"bytes": encoded(np.full((4, 4), 1000 * row, dtype=np.uint16)), "path": "x"} for row in range(40)]
    dataset = load(str(write(tmp_path / "few.parquet", deep, [0, 1] * 20)))
    assert dataset.images.shape[1:] == (4, 4, 1)
    assert set(np.unique(dataset.images)) <= {round(1000 * row / 257) for row in range(40)}


def test_images_of_two_sizes_become_squares(tmp_path: Path) -> None:
    images = pictures(400) + pictures(3, size=(7, 6))
    dataset = load(str(write(tmp_path / "few.parquet", images, [0] * 200 + [1] * 203)))
    assert dataset.images.shape[1:] == (6, 6, 3)
    assert len(dataset.labels) + dataset.test_rows == 403


def test_classes_must_suffice(tmp_path: Path) -> None:
    file = tmp_path / "few.parquet"
    assert "only one class" in refusal(write(file, pictures(6), ["cat"] * 6))
    assert "'dog' has 2; every class needs at least 3" in refusal(write(file, pictures(6), ["cat"] * 4 + ["dog"] * 2))


def test_files_must_agree(tmp_path: Path) -> None:
    hub = tmp_path / "hub"
    write(hub / "a.parquet", pictures(6), [0, 1] * 3, metadata={"classes": "cat,dog"})
    write(hub / "b.parquet", pictures(6), [0, 1] * 3, metadata={"classes": "dog,cat"})
    assert "name different classes" in refusal(hub)
    write(hub / "a.parquet", pictures(6), [0, 1] * 3)
    write(hub / "b.parquet", pictures(6), ["cat", "dog"] * 3)
    assert "some are strings, of others integers" in refusal(hub)


def test_a_folder_of_nothing_but_test_files_is_refused(tmp_path: Path) -> None:
    for part in "ab":
        write(tmp_path / "hub" / f"test-{part}.parquet", pictures(6), [0, 1] * 3)
    assert "all 12 rows are test rows" in refusal(tmp_path / "hub")
