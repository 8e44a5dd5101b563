"""The external test set: labelled by its folders' names, made like the data set's images, or refused by name."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainables.datasets import Dataset, DatasetError, Reading, check_external, load, load_external
from trainables.datasets.source import Pixels


@pytest.fixture
def digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    monkeypatch.setenv("SWEEP_ORCHESTRATOR_CACHE", str(tmp_path / "cache"))
    return load("digits")


def fruit(digits: Dataset, classes: tuple[str, ...], shape: tuple[int, int, int]) -> Dataset:
    """Return a data set with these classes and images of this shape."""
    return dataclasses.replace(digits, classes=classes, images=np.zeros((9, *shape), dtype=np.uint8))


def picture(path: Path, shape: tuple[int, ...], seed: int = 0) -> Pixels:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def test_pictures_of_some_classes_are_labelled_by_their_folders(digits: Dataset, tmp_path: Path) -> None:
    like = fruit(digits, ("apple", "banana", "cherry"), (6, 8, 3))
    cherry = picture(tmp_path / "out" / "cherry" / "deeper" / "1.png", (6, 8, 3))
    picture(tmp_path / "out" / "apple" / "1.jpg", (30, 20, 3))
    calls: list[tuple[str, int, int]] = []
    images, labels = load_external(tmp_path / "out", like, progress=lambda *call: calls.append(call))
    assert (len(images), labels.tolist()) == (2, [0, 2])
    assert labels.dtype == np.int64
    assert images.picture(0).shape == (30, 20, 3)  # whole
    np.testing.assert_array_equal(images.picture(1), cherry)
    assert calls == [("decoding images", 2, 2)]


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_and_coloured_become_what_the_data_set_is(digits: Dataset, tmp_path: Path, channels: int) -> None:
    like = fruit(digits, ("apple", "pear"), (5, 5, channels))
    grey = picture(tmp_path / "out" / "apple" / "1.png", (5, 5))
    coloured = picture(tmp_path / "out" / "apple" / "2.png", (5, 5, 3))
    images, _ = load_external(tmp_path / "out", like)
    np.testing.assert_array_equal(images.picture(0), grey[..., np.newaxis])
    luma = np.asarray(Image.fromarray(coloured).convert("L"))[..., np.newaxis]
    np.testing.assert_array_equal(images.picture(1), coloured if channels == 3 else luma)


def test_pictures_stay_whole_and_are_scaled_down_to_the_stored_side(digits: Dataset, tmp_path: Path) -> None:
    wide = picture(tmp_path / "out" / "apple" / "1.png", (10, 40, 3))
    picture(tmp_path / "out" / "apple" / "2.png", (100, 50, 3))
    images, _ = load_external(tmp_path / "out", fruit(digits, ("apple", "pear"), (5, 10, 3)), Reading(stored_side=20))
    np.testing.assert_array_equal(images.picture(0), wide)
    assert images.picture(1).shape == (40, 20, 3)


def test_case_and_signs_in_names_do_not_matter_unless_they_tell_classes_apart(digits: Dataset, tmp_path: Path) -> None:
    like = fruit(digits, ("T-shirt/top", "Ankle boot", "a b", "A_B"), (4, 4, 3))
    for name in ("t_shirt_top", "Ankle-Boot", "A_B"):
        picture(tmp_path / "out" / name / "1.png", (4, 4, 3))
    assert sorted(load_external(tmp_path / "out", like)[1].tolist()) == [0, 1, 3]
    picture(tmp_path / "out" / "A-B" / "1.png", (4, 4, 3))
    with pytest.raises(DatasetError, match="no class is called 'A-B'"):
        load_external(tmp_path / "out", like)


def test_folders_that_are_no_class_are_named_with_the_classes(digits: Dataset, tmp_path: Path) -> None:
    for name in ("apple", "banan", "plum"):
        picture(tmp_path / "out" / name / "1.png", (4, 4, 3))
    with pytest.raises(DatasetError) as refused:
        load_external(tmp_path / "out", fruit(digits, ("apple", "banana"), (4, 4, 3)))
    first, second, known = refused.value.problems
    assert "no class is called 'banan'; did you mean banana?" in first
    assert "no class is called 'plum'" in second
    assert "apple, banana" in known


def test_pictures_that_cannot_be_read_and_empty_folders_are_named(digits: Dataset, tmp_path: Path) -> None:
    like = fruit(digits, ("apple", "banana"), (4, 4, 3))
    picture(tmp_path / "out" / "apple" / "1.png", (4, 4, 3))
    (tmp_path / "out" / "apple" / "2.png").write_bytes(b"no picture")
    with pytest.raises(DatasetError, match=r"apple/2\.png: the image cannot be read"):
        load_external(tmp_path / "out", like)
    (tmp_path / "out" / "banana").mkdir()
    with pytest.raises(DatasetError, match=r"no pictures in .*banana"):
        load_external(tmp_path / "out", like)


def test_a_folder_without_pictures_is_refused_at_once(digits: Dataset, tmp_path: Path) -> None:
    assert "there is no such folder" in check_external(tmp_path / "gone")[0]
    picture(tmp_path / "out" / "1.png", (4, 4, 3))
    assert "no pictures in class folders" in check_external(tmp_path / "out")[0]
    with pytest.raises(DatasetError, match="no pictures in class folders"):
        load_external(tmp_path / "out", digits)
    picture(tmp_path / "out" / "7" / "1.png", (4, 4, 3))
    assert check_external(tmp_path / "out") == []


def test_looking_imports_nothing_heavy(tmp_path: Path) -> None:
    script = (
        f"import sys; from pathlib import Path; from trainables.datasets import check_external;"
        f"check_external(Path({str(tmp_path)!r}));"
        "print([name for name in ('torch', 'torchvision', 'sklearn', 'pyarrow', 'PIL') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
