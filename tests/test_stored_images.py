"""Images in files: trials are the same as with images in memory, which is not needed for them."""

from __future__ import annotations

import dataclasses
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import tiny
import torch

from orchestrator.cluster import shared_images
from trainables.batches import Batches
from trainables.datasets import Dataset, cache, load, open_test
from trainables.datasets.source import Pixels
from trainables.datasets.stored_images import ImageFile, StoredImages, portions
from trainables.feature_store import FeatureStore
from trainables.loop import TrialData, TrialState, train
from trainables.splits import SearchData, search_data
from trainables.trial_rows import trial_rows
from trainables.views import Streamed

EVERYTHING: dict[str, Any] = {
    "flip": True, "resized_crop": 0.3, "crop_padding": 1, "rotation": 15.0, "shift": 0.1, "scale": 0.1,
    "brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "dropout": 0.2,
    "trivial_augment": True, "erasing": 0.3, "mixup": 0.4, "cutmix": 1.0,
}  # fmt: skip


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SWEEP_ORCHESTRATOR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def saved(path: Path, images: Pixels) -> ImageFile:
    np.save(path, images)
    return ImageFile(path, images.shape)


def noise(rows: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (rows, 4, 5, 3), dtype=np.uint8)


# Like an array


@pytest.mark.parametrize("chosen", [False, True])
def test_they_are_indexed_like_the_array_of_all_parts(chosen: bool, tmp_path: Path) -> None:
    first, second, third = noise(300), noise(7, 1), noise(3, 2)
    expected = np.concatenate([first, second, third])
    rows = np.random.default_rng(3).permutation(310)[:290] if chosen else None
    images = StoredImages((saved(tmp_path / "1.npy", first), saved(tmp_path / "2.npy", second), third), rows)
    expected = expected if rows is None else expected[rows]
    assert (images.shape, len(images), images.nbytes) == (expected.shape, len(expected), expected.nbytes)
    order = np.random.default_rng(4).integers(0, len(expected), 500)
    for key in (order, order[:0], slice(None), slice(3, 280, 7), 5, np.int64(288)):
        np.testing.assert_array_equal(images[key], expected[key])
    np.testing.assert_array_equal(np.stack(list(images)), expected)
    np.testing.assert_array_equal(images.as_array(), expected)
    for row in (len(expected), -1):
        with pytest.raises(IndexError):
            images[np.array([0, row])]


@pytest.mark.parametrize("shape", [(1000, 8, 8, 1), (1000, 320, 320, 3), (3, 5000, 5000, 3), (0, 8, 8, 1)])
def test_portions_are_all_rows_and_small(shape: tuple[int, ...]) -> None:
    found = portions(shape)
    assert [row for portion in found for row in range(*portion.indices(shape[0]))] == list(range(shape[0]))
    for portion in found:
        assert portion.stop - portion.start == 1 or (portion.stop - portion.start) * np.prod(shape[1:]) <= 2**22


def test_joined_they_stand_one_after_another(tmp_path: Path) -> None:
    one, other = noise(20), noise(10, 1)
    whole = StoredImages((saved(tmp_path / "1.npy", one),))
    some = StoredImages((saved(tmp_path / "2.npy", other),), np.array([7, 0, 7]))
    np.testing.assert_array_equal(StoredImages.joined(whole, whole)[:], np.concatenate([one, one]))
    np.testing.assert_array_equal(StoredImages.joined(some, whole)[:], np.concatenate([other[[7, 0, 7]], one]))


def test_what_is_pickled_is_their_place(tmp_path: Path) -> None:
    images = StoredImages((saved(tmp_path / "1.npy", noise(1000)),))
    expected = images[5]
    content = pickle.dumps(images)
    assert len(content) < 1000
    np.testing.assert_array_equal(pickle.loads(content)[5], expected)  # noqa: S301


def test_one_file_is_held_without_a_copy(tmp_path: Path) -> None:
    dataset = load("digits")
    data = search_data(dataset)
    assert isinstance(data.images, StoredImages)
    buffers: list[pickle.PickleBuffer] = []
    held = dataclasses.replace(data, images=data.images.held())
    pickle.dumps(held, protocol=5, buffer_callback=buffers.append)  # out of band: Ray copies these once, into its store
    assert any(buffer.raw().nbytes == dataset.images.nbytes for buffer in buffers)


# The same trials


def stored(data: SearchData, folder: Path) -> SearchData:
    """Return the same data, with images in two files and an array."""
    assert isinstance(data.images, np.ndarray)
    one, two, three = np.split(data.images, [tiny.VALIDATION + tiny.POOL, len(data.labels) - 2])
    parts = saved(folder / "1.npy", one), saved(folder / "2.npy", two), three
    return dataclasses.replace(data, images=StoredImages(parts))


def trained(data: SearchData, **fields: Any) -> tuple[list[dict[str, Any]], TrialState]:
    config = tiny.config(**fields)
    batches = Batches.of(data, tiny.CPU)
    trial = TrialData.select(config, data, batches)
    state = TrialState.start(config, trial, tiny.CPU)
    return [tiny.lasting(epoch) for epoch in train(trial, state)], state


@pytest.mark.parametrize(
    "fields",
    [{}, EVERYTHING, {"split": "60:20:20", "sampling": "balanced"}, {"image_size": 12, "class_weights": "inverse"}],
)
def test_a_trial_is_the_same_bit_for_bit(fields: dict[str, Any], tmp_path: Path) -> None:
    data = tiny.search_data(opened=True)
    expected, state = trained(data, **fields)
    found, other = trained(stored(data, tmp_path), **fields)
    assert found == expected
    torch.testing.assert_close(other.model.state_dict(), state.model.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(other.kept.best_weights, state.kept.best_weights, rtol=0, atol=0)


def test_their_features_are_those_of_images_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frozen = {"freeze": True, "head_width": 12}
    data = tiny.search_data(opened=True)
    expected, _ = trained(data, **frozen)
    monkeypatch.setattr(FeatureStore, "add", None)  # they are found by their digest, or not at all
    assert trained(stored(data, tmp_path), **frozen)[0] == expected


@pytest.mark.parametrize("arguments", [{}, {"subset": 300}, {"opened": True}, {"subset": 300, "opened": True}])
def test_rows_mean_and_deviation_do_not_depend_on_where_images_are(arguments: dict[str, Any]) -> None:
    dataset = load("digits")
    in_memory = dataclasses.replace(dataset, images=np.array(dataset.images))
    expected, found = search_data(in_memory, **arguments), search_data(dataset, **arguments)
    np.testing.assert_array_equal(found.images[:], expected.images[:])
    for name in ("labels", "validation", "pool", "test", "mean", "std", "fingerprint"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    if "opened" in arguments:
        config = tiny.config(split="80:20")
        np.testing.assert_array_equal(trial_rows(found, config).mean, trial_rows(expected, config).mean)


# On a machine without access to the files


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """Return digits in the cache of another machine."""
    monkeypatch.setenv("SWEEP_ORCHESTRATOR_CACHE", str(tmp_path / "another"))
    dataset = load("digits")
    monkeypatch.setenv("SWEEP_ORCHESTRATOR_CACHE", str(tmp_path / "cache"))
    return dataset


def taken_away(folder: Path, files: list[str]) -> Callable[[Path], Iterator[bytes]]:
    """Hide a folder; return a function that yields its files' blocks, as another machine sends them."""
    hidden = folder.rename(folder.with_name("hidden"))

    def blocks(path: Path) -> Iterator[bytes]:
        assert path.parent == folder
        files.append(path.name)
        with (hidden / path.name).open("rb") as file:
            while block := file.read(1000):
                yield block

    return blocks


def test_files_that_are_seen_are_used_where_they_are(elsewhere: Dataset) -> None:
    def blocks(path: Path) -> Iterator[bytes]:
        raise AssertionError(path)

    path = elsewhere.folder / "images.npy"
    assert cache.local_copy(path, cache.identity(elsewhere.folder), blocks) == path


def test_files_that_are_not_seen_are_copied_once(elsewhere: Dataset, cache_folder: Path) -> None:
    known, files = cache.identity(elsewhere.folder), list[str]()
    expected = np.array(elsewhere.images), np.array(open_test(elsewhere)[0])
    blocks = taken_away(elsewhere.folder, files)
    with ThreadPoolExecutor(4) as workers:  # all at once, as those of a node
        found = list(workers.map(lambda _: cache.local_copy(elsewhere.folder / "images.npy", known, blocks), range(4)))
    assert len(set(found)) == 1
    np.testing.assert_array_equal(np.load(found[0]), expected[0])
    tests = cache.local_copy(elsewhere.folder / "test_images.npy", known, blocks)
    np.testing.assert_array_equal(np.load(tests), expected[1])
    assert sorted([*files, "meta.json", "verified.json"]) == sorted(path.name for path in tests.parent.iterdir())
    assert cache_folder in tests.parents
    assert len(list((cache_folder / "datasets").iterdir())) == 2  # it and its lock
    tests.write_bytes(b"")
    assert np.load(cache.local_copy(elsewhere.folder / tests.name, known, blocks)).shape == expected[1].shape


def test_a_copy_that_is_not_what_was_sent_is_refused(elsewhere: Dataset, cache_folder: Path) -> None:
    known = cache.identity(elsewhere.folder)
    honest = taken_away(elsewhere.folder, [])

    def blocks(path: Path, damaged: str) -> Iterator[bytes]:
        for block in honest(path):
            yield bytes(len(block)) if path.name == damaged else block

    for damaged in ("images.npy", "labels.npy", "test_images.npy", "test_labels.npy"):
        with pytest.raises(OSError, match=r"cannot be copied .* set SWEEP_ORCHESTRATOR_CACHE"):
            cache.local_copy(elsewhere.folder / "images.npy", known, partial(blocks, damaged=damaged))
        assert [path.suffix for path in (cache_folder / "datasets").iterdir()] == [".lock"]
    assert cache.local_copy(elsewhere.folder / "images.npy", known, honest).is_file()


@pytest.fixture
def local_ray() -> Iterator[None]:
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.usefixtures("local_ray")
def test_large_images_are_shared_as_their_files(monkeypatch: pytest.MonkeyPatch) -> None:
    data = search_data(load("digits"), opened=True)
    assert isinstance(data.images, StoredImages)
    expected = data.images[:]
    shared = ray.get(shared_images.share(data)).images
    (held,) = shared.parts
    np.testing.assert_array_equal(shared.facts, data.images.facts)
    assert isinstance(held, np.ndarray)
    assert not held.flags.writeable  # the store's own memory
    np.testing.assert_array_equal(held, expected)
    monkeypatch.setattr(shared_images, "STORE_SHARE", 0)
    monkeypatch.setattr(shared_images, "BLOCK", 10_000)
    found = ray.get(shared_images.share(data))
    assert isinstance(found.images, StoredImages)
    np.testing.assert_array_equal(found.images[:], expected)
    part = data.images.parts[0]
    assert isinstance(part, ImageFile)
    node = ray.get_runtime_context().get_node_id()
    blocks = [bytes(block) for block in shared_images.file_blocks(node, part.path)]
    assert b"".join(blocks) == part.path.read_bytes()


# More than memory

PROGRAM = """
import sys, threading
from pathlib import Path
import numpy as np, torch
from trainables import datasets
from trainables.batches import Batches
from trainables.config import TrialConfig
from trainables.datasets import pictures
from trainables.loop import TrialData, TrialState, final_metrics, train
from trainables.splits import search_data

def held():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) * 1024

class Peak(threading.Thread):
    ended, bytes = False, 0
    def run(self):
        while not self.ended:
            self.bytes = max(self.bytes, held())
            threading.Event().wait(0.002)

def trial(path):
    data = search_data(datasets.load(path, datasets.Reading(on_bad_image="skip")), opened=True)
    config = TrialConfig(model="resnet8", image_size=16, max_epochs=1, batch_size=8, precision="float32",
                         memory_format="contiguous", threads=1, split="80:20")
    trial = TrialData.select(config, data, Batches.of(data, torch.device("cpu")))
    state = TrialState.start(config, trial, torch.device("cpu"))
    list(train(trial, state))
    final_metrics(trial, state)
    return data.images.nbytes

torch.set_num_threads(1)
pictures._THREADS, pictures._AHEAD = 2, 2  # on any machine
small, large = sys.argv[1:]
trial(small)
before, peak = held(), Peak()
peak.start()
images = trial(large)
peak.ended = True
peak.join()
print(images, peak.bytes - before)
"""


def bitmaps(folder: Path, rows: int, side: int) -> Path:
    """Write so many pictures of noise in two classes, and two files that are no pictures; return their folder."""
    from PIL import Image

    for row in range(rows):
        path = folder / "ab"[row % 2] / f"{row}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(row).integers(0, 256, (side, side, 3), dtype=np.uint8)).save(path)
    (folder / "a" / "bad.bmp").write_bytes(b"")
    (folder / "b" / "bad.bmp").write_bytes(b"")
    return folder


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux shows the memory of a process")
def test_neither_decoding_nor_training_holds_the_images(tmp_path: Path) -> None:
    """Run from pictures to a trial's final metrics, with 281 MB of images."""
    folders = bitmaps(tmp_path / "small", 60, 16), bitmaps(tmp_path / "large", 1500, 256)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, folders)], capture_output=True, text=True, check=False, timeout=110
    )
    assert done.returncode == 0, done.stderr
    images, held = map(int, done.stdout.split())
    assert images == 1500 * 256 * 256 * 3
    assert held < images / 3, f"{held / 2**20:.0f} MB"


def test_images_in_memory_can_be_sent_batch_by_batch() -> None:
    """Send them as to a GPU with too little memory for all; here to a CPU."""
    images = noise(20)
    stream = Streamed(images, tiny.CPU, (0, 0, 0))
    rows = torch.tensor([3, 3, 19])
    assert (stream.shape, stream.device) == (images.shape, tiny.CPU)
    whole = torch.tensor([0, 0, 4, 5])[:, None].expand(-1, 3)
    assert stream.view(rows, whole, (4, 5)).tolist() == images[rows].tolist()
