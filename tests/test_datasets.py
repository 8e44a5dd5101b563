"""Data sets: found by name or path, decoded once, sealed, cached despite damage and races, or refused."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import pickle
import subprocess
import sys
import urllib.error
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainables import datasets, files
from trainables.datasets import DatasetError, Reading, cache, check, decoded_folder, load, open_test
from trainables.datasets.source import Pixels

CIFAR10 = os.environ.get("BENCHMARK_CIFAR10")
"""The folder of CIFAR-10's files, as for the benchmarks."""


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SWEEP_ORCHESTRATOR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_parts_are_the_source_row_by_row() -> None:
    dataset = load("digits")
    images, labels = open_test(dataset)
    assert dataset.images.shape == (1438, 8, 8, 1)
    assert images.shape == (359, 8, 8, 1)
    assert np.asarray(dataset.images).dtype == np.uint8
    assert dataset.labels.dtype == np.int64
    assert np.asarray(dataset.images).max() == 255
    assert dataset.classes == tuple("0123456789")
    together = np.bincount(dataset.labels) + np.bincount(labels)
    assert together.sum() == 1797
    assert (np.abs(np.bincount(labels) - 0.2 * together) < 1).all()


def test_the_search_rows_are_mapped_and_cannot_be_written() -> None:
    images = load("digits").images
    assert isinstance(images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        images[0] = 0


def test_loading_does_not_open_the_test_set(cache_folder: Path) -> None:
    folder = load("digits").folder
    size = (folder / "test_images.npy").stat().st_size
    (folder / "test_images.npy").write_bytes(bytes(size))  # would fail, or be seen, if it were read
    dataset = load("digits")
    with pytest.raises(DatasetError, match="test set of digits is missing or damaged; delete"):
        open_test(dataset)


@pytest.mark.parametrize("file", ["images.npy", "labels.npy", "test_images.npy", "test_labels.npy", "meta.json"])
@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_damaged_cache_is_made_again(file: str, damage: str) -> None:
    first = load("digits")
    path = first.folder / file
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-9])
    second = load("digits")
    assert (second.folder, second.fingerprint) == (first.folder, first.fingerprint)
    assert len(open_test(second)[1]) == 359
    assert [entry.name for entry in first.folder.parent.iterdir()] == [first.folder.name]


def test_a_flipped_bit_is_seen() -> None:
    path = load("digits").folder / "images.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    dataset = load("digits")
    assert decoded_folder.fingerprint(dataset.images, dataset.labels, dataset.classes) == dataset.fingerprint


def test_files_that_have_not_changed_are_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = load("digits").folder
    hashed: list[str] = []
    read = files.sha256

    def counted(path: Path) -> str:
        hashed.append(path.name)
        return read(path)

    monkeypatch.setattr(decoded_folder, "sha256", counted)
    dataset = load("digits")
    open_test(dataset)
    assert hashed == []
    os.utime(folder / "images.npy")  # another time, the same content
    assert load("digits").fingerprint == dataset.fingerprint
    load("digits")
    assert hashed == ["images.npy"]
    cache.verify_fully(dataset)
    assert len(hashed) == 1 + 6


def test_verifying_finds_damage_that_kept_size_and_time() -> None:
    dataset = load("digits")
    path = dataset.folder / "images.npy"
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    load("digits")
    with pytest.raises(DatasetError, match="does not hold what was written; delete"):
        cache.verify_fully(dataset)


def test_a_cache_of_another_version_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    first = load("digits")
    for module in (cache, decoded_folder):
        monkeypatch.setattr(module, "VERSION", decoded_folder.VERSION + 1)
    load("digits")
    assert json.loads((first.folder / "meta.json").read_text())["version"] == decoded_folder.VERSION


def test_racing_loads_leave_one_whole_folder(cache_folder: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: load("digits"), range(8)))
    assert len({(dataset.folder, dataset.fingerprint) for dataset in found}) == 1
    assert [entry.name for entry in (cache_folder / "datasets").iterdir()] == [found[0].folder.name]


def test_a_cache_that_cannot_be_made_is_done_without(cache_folder: Path) -> None:
    cache_folder.write_text("a file where a folder should be")
    with pytest.warns(UserWarning, match=r"cannot be written .* set SWEEP_ORCHESTRATOR_CACHE"):
        dataset = load("digits")
    assert len(open_test(dataset)[1]) == 359


def test_a_full_disk_is_gone_around(cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = np.save

    def full(file: Path, array: np.ndarray[Any, Any]) -> None:
        if cache_folder in file.parents and file.name == "test_labels.npy":
            raise OSError(28, "No space left on device")
        save(file, array)

    monkeypatch.setattr(np, "save", full)
    with pytest.warns(UserWarning, match="No space left"):
        dataset = load("digits")
    assert len(open_test(dataset)[1]) == 359
    assert list((cache_folder / "datasets").iterdir()) == []


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SWEEP_ORCHESTRATOR_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert datasets.cache_dir() == Path("/somewhere/sweep-orchestrator")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert datasets.cache_dir() == Path.home() / ".cache" / "sweep-orchestrator"


def test_checking_names_imports_nothing_heavy() -> None:
    script = (
        "import sys; from trainables.datasets import check; check('digits'); check('nope'); check('./nope');"
        "heavy = ('torch', 'torchvision', 'sklearn', 'pandas', 'pyarrow', 'PIL');"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "data_dir", "messages"),
    [
        (
            "cifar1O",
            None,
            [
                "unknown data set 'cifar1O'; did you mean cifar10?",
                "the path of a table (CSV, JSON lines), of a Parquet",
            ],
        ),
        ("./nowhere", None, ["there is no such file or folder"]),
        (
            "ylecun/mnist",
            None,
            [
                "no such file or folder; if it is a data set on Hugging Face",
                "hf download ylecun/mnist --repo-type dataset",
            ],
        ),
        (
            "https://huggingface.co/datasets/ylecun/mnist/tree/main",
            None,
            [
                "not on this machine",
                "hf download ylecun/mnist --repo-type dataset --local-dir mnist, and give the folder",
            ],
        ),
        ("https://example.org/pets.zip", None, ["not on this machine", "download it, unpack it"]),
        ("s3://bucket/pets", None, ["not on this machine", "download it, unpack it"]),
        ("pets.zip", None, ["there is no such file or folder"]),
        ("{tmp}/pets.zip", None, ["unpack the archive, and give the folder"]),
        ("nowhere.parquet", None, ["there is no such file or folder"]),
        ("{tmp}", None, ["no images there", "{tmp}/*.parquet", "3 folders deep", "pictures in {tmp}/CLASS/"]),
        ("{tmp}/notes.md", None, ["no images there", "ends in .parquet", "a data set is a folder"]),
        ("{tmp}/rows.csv", None, ["rows.csv: there is no such file"]),
        ("{tmp}/empty.csv", None, ["empty.csv: no rows"]),
        ("cactus", None, ["has to be downloaded manually", "kaggle.com/c/aerial-cactus", "--data-dir"]),
        ("fruits-360", "{tmp}", ["no fruits-360 there", "looked for train.csv and for class folders"]),
        ("digits", "{tmp}", ["leave --data-dir out"]),
        ("{tmp}", "{tmp}", ["leave --data-dir out", "no images there"]),
        ("cifar10", "{tmp}/gone", ["there is no such folder", "--data-dir"]),
        (
            "cifar10",
            "{tmp}",
            ["{tmp}/cifar-10-batches-py/data_batch_1", "{tmp}/data_batch_1", "{tmp}/*.parquet", "--data-dir"],
        ),
    ],
)
def test_what_cannot_be_found_is_reported(tmp_path: Path, name: str, data_dir: str | None, messages: list[str]) -> None:
    (tmp_path / "notes.md").touch()
    (tmp_path / "empty.csv").touch()
    (tmp_path / "pets.zip").touch()
    name, folder = name.format(tmp=tmp_path), data_dir and Path(data_dir.format(tmp=tmp_path))
    problems = "\n".join(check(name, Reading(folder or None)))
    for part in messages:
        assert part.format(tmp=tmp_path) in problems
    with pytest.raises(DatasetError) as refused:
        load(name, Reading(folder or None))
    assert str(refused.value) == problems


def test_columns_of_a_named_data_set_are_known() -> None:
    reading = Reading(image_column="picture", label_column="kind")
    with pytest.raises(DatasetError) as refused:
        load("digits", reading)
    assert refused.value.problems == [
        "--image-column picture: digits is no table of yours; leave --image-column out",
        "--label-column kind: digits is no table of yours; leave --label-column out",
    ]


class OldDtype:
    """An object that is pickled in the way in which the official files spell a dtype; numpy 2.4 warns of it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return np.dtype, ("u1", 0, 1)


class OldArray:
    def __init__(self, array: Pixels) -> None:
        self.array = array

    def __reduce__(self) -> tuple[Any, ...]:
        return np.ndarray, (self.array.shape, OldDtype(), self.array.tobytes())


@pytest.fixture
def official(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write CIFAR-10's official layout with a few rows; of torchvision only the expected MD5 sums are changed."""
    from torchvision.datasets import CIFAR10

    folder = tmp_path / "official" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    names = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    content: dict[str, Any] = {"batches.meta": {"label_names": list("abcdefghij")}}
    for seed, name in enumerate(names):
        rows = np.random.default_rng(seed).integers(0, 256, (20, 3072), dtype=np.uint8)
        content[name] = {"data": OldArray(rows), "labels": [row % 10 for row in range(20)]}
    for name, value in content.items():
        (folder / name).write_bytes(pickle.dumps(value, protocol=2))
    md5 = {name: hashlib.md5((folder / name).read_bytes(), usedforsecurity=False).hexdigest() for name in content}
    monkeypatch.setattr(CIFAR10, "train_list", [[name, md5[name]] for name in names[:5]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": md5["batches.meta"]})
    return folder


@pytest.mark.parametrize("inside", [False, True])
def test_the_official_pickles_are_read(official: Path, inside: bool) -> None:
    given = official if inside else official.parent
    assert check("cifar10", Reading(given)) == []
    dataset = load("cifar10", Reading(given))
    assert dataset.images.shape == (100, 32, 32, 3)
    assert dataset.test_rows == 20
    first = np.random.default_rng(0).integers(0, 256, (20, 3072), dtype=np.uint8)[0]
    np.testing.assert_array_equal(dataset.images[0], first.reshape(3, 32, 32).transpose(1, 2, 0))


def test_pickles_that_are_not_the_official_ones_are_never_loaded(official: Path) -> None:
    (official / "data_batch_3").write_bytes(pickle.dumps(OldDtype()))
    with pytest.raises(DatasetError, match=r"not the official files .* give it as --data-dir"):
        load("cifar10", Reading(official))
    (official / "data_batch_3").unlink()
    with pytest.raises(DatasetError, match="lacks data_batch_3"):
        load("cifar10", Reading(official))


def test_without_files_cifar10_is_downloaded_once(
    official: Path, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import CIFAR10

    calls = []

    def download(self: Any) -> None:
        calls.append(self.root)
        Path(self.root, "cifar-10-batches-py").mkdir()
        for file in official.iterdir():
            Path(self.root, "cifar-10-batches-py", file.name).write_bytes(file.read_bytes())

    monkeypatch.setattr(CIFAR10, "download", download)
    assert load("cifar10").fingerprint == load("cifar10").fingerprint
    assert len(calls) == 1
    assert [entry.name for entry in (cache_folder / "downloads").iterdir()] == ["cifar-10-batches-py"]


def test_a_failed_download_is_reported_with_what_to_do(cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import CIFAR10

    def download(self: Any) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(CIFAR10, "download", download)
    with pytest.raises(DatasetError, match=r"could not be downloaded from https.*no network.*--data-dir"):
        load("cifar10")
    assert list((cache_folder / "downloads").iterdir()) == []


# Fashion-MNIST


def idx(array: Pixels) -> bytes:
    """Return an array in the official files' format: http://yann.lecun.com/exdb/mnist."""
    return bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


def clothes(folder: Path, gzipped: bool = False) -> dict[str, Pixels]:
    """Write Fashion-MNIST's official layout with a few rows; return its arrays by file name."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    arrays = {}
    for part, rows in (("train", 60), ("t10k", 20)):
        arrays[f"{part}-images-idx3-ubyte"] = random.integers(0, 256, (rows, 28, 28), dtype=np.uint8)
        arrays[f"{part}-labels-idx1-ubyte"] = np.arange(rows, dtype=np.uint8) % 10
    for name, array in arrays.items():
        path = folder / (f"{name}.gz" if gzipped else name)
        path.write_bytes(gzip.compress(idx(array)) if gzipped else idx(array))
    return arrays


@pytest.mark.parametrize("place", [".", "FashionMNIST/raw"])
@pytest.mark.parametrize("gzipped", [False, True])
def test_idx_files_are_read(place: str, gzipped: bool, tmp_path: Path) -> None:
    arrays = clothes(tmp_path / "data" / place, gzipped)
    assert check("fashion-mnist", Reading(tmp_path / "data")) == []
    dataset = load("fashion-mnist", Reading(tmp_path / "data"))
    np.testing.assert_array_equal(np.asarray(dataset.images)[..., 0], arrays["train-images-idx3-ubyte"])
    np.testing.assert_array_equal(dataset.labels, arrays["train-labels-idx1-ubyte"])
    np.testing.assert_array_equal(np.asarray(open_test(dataset)[0])[..., 0], arrays["t10k-images-idx3-ubyte"])
    assert dataset.classes[8] == "Bag"


@pytest.mark.parametrize("gzipped", [False, True])
def test_a_damaged_idx_file_is_named(gzipped: bool, tmp_path: Path) -> None:
    clothes(tmp_path / "data", gzipped)
    file = next((tmp_path / "data").glob("train-labels*"))
    whole = file.read_bytes()
    for damaged in (b"", whole[:3], whole[:-1], b"\1" + whole[1:]):
        file.write_bytes(damaged)
        with pytest.raises(DatasetError, match="train-labels-idx1-ubyte"):
            load("fashion-mnist", Reading(tmp_path / "data"))
    file.unlink()
    assert "no Fashion-MNIST there" in check("fashion-mnist", Reading(tmp_path / "data"))[0]


def test_idx_files_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    clothes(tmp_path / "data")
    (tmp_path / "data" / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(59, np.uint8)))
    with pytest.raises(DatasetError, match="do not go together"):
        load("fashion-mnist", Reading(tmp_path / "data"))


def test_without_files_fashion_mnist_is_downloaded_once(cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import FashionMNIST

    calls = []

    def download(self: Any) -> None:
        calls.append(self.root)
        clothes(Path(self.root, "FashionMNIST", "raw"))

    monkeypatch.setattr(FashionMNIST, "download", download)
    assert load("fashion-mnist").fingerprint == load("fashion-mnist").fingerprint
    assert len(calls) == 1
    assert [entry.name for entry in (cache_folder / "downloads").iterdir()] == ["FashionMNIST"]


@pytest.mark.slow
@pytest.mark.skipif(CIFAR10 is None, reason="BENCHMARK_CIFAR10 names no folder with CIFAR-10")
def test_all_of_cifar10() -> None:
    dataset = load("cifar10", Reading(Path(str(CIFAR10))))
    images, labels = open_test(dataset)
    assert (dataset.images.shape, images.shape) == ((50_000, 32, 32, 3), (10_000, 32, 32, 3))
    assert np.bincount(dataset.labels).tolist() == [5000] * 10
    assert np.bincount(labels).tolist() == [1000] * 10
    assert dataset.classes[:2] == ("airplane", "automobile")
