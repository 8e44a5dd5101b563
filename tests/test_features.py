"""Features of a frozen base: training on them is training on images, and the cache never mistakes one for another."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from trainables import feature_store, features, precision
from trainables.batches import Batches
from trainables.config import AUGMENTING, TrialConfig, format_key
from trainables.datasets import cache
from trainables.evaluation import predict
from trainables.feature_store import FeatureStore
from trainables.loop import TrialState, preparing, train
from trainables.models import build, heads

HOLDER = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, 2); print(1, flush=True); sys.stdin.read()"
HERE = Path(__file__).parent
FROZEN: dict[str, Any] = {"freeze": True, "head_width": 12, "dropout": 0.2, "model": "resnet8"}


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SWEEP_ORCHESTRATOR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "features"


def folders(cache_folder: Path) -> list[Path]:
    """Return the folders of features; each has all rows in two pieces."""
    found = list(cache_folder.iterdir())
    assert all(len(list(folder.glob("*.npz"))) == 2 for folder in found)
    return found


def trained(made: TrialConfig) -> tuple[list[dict[str, Any]], TrialState]:
    data, state = tiny.start(made)
    return [tiny.lasting(epoch) for epoch in train(data, state)], state


@pytest.mark.parametrize("fields", [{}, {"sampling": "balanced", "class_weights": "inverse"}, {"model": "resnet18"}])
def test_a_trial_on_features_is_the_trial_on_images(fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    made = tiny.config(**{**FROZEN, **fields})
    found, state = trained(made)
    assert state.kept.on_features
    monkeypatch.setattr(features, "suffice", lambda config: False)
    expected, other = trained(made)
    assert not other.kept.on_features
    for ours, theirs in zip(found, expected, strict=True):
        numbers = {name for name, value in theirs.items() if isinstance(value, int | float)}
        assert {name: ours[name] for name in numbers} == pytest.approx(
            {name: theirs[name] for name in numbers}, rel=1e-3, abs=1e-4
        )
        assert {name: ours[name] for name in theirs.keys() - numbers} == {n: theirs[n] for n in theirs.keys() - numbers}
    torch.testing.assert_close(state.kept.best_weights, other.kept.best_weights, rtol=1e-3, atol=1e-4)


def test_features_are_computed_once(cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tiny.config(**FROZEN)
    first, _ = trained(made)
    monkeypatch.setattr(FeatureStore, "add", None)  # a second call would fail
    again, _ = trained(made.replace(lr=0.01))
    assert again != first
    assert len(folders(cache_folder)) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"image_size": 16},
        {"interpolation": "bicubic"},
        {"normalization": "half"},
        {"precision": "bfloat16"},
        {"stem": "small"},
    ],
)
def test_other_weights_or_images_have_other_features(change: dict[str, Any], cache_folder: Path) -> None:
    made = tiny.config(**FROZEN)
    for config in (made, made.replace(**change)):
        data, state = tiny.start(config)
        features.of(config, state.model, data.batches, predict)
    assert len(folders(cache_folder)) == 2


@pytest.mark.parametrize(("normalization", "files"), [("train", 2), ("half", 1)])
def test_another_training_part_has_other_features_where_it_normalizes(
    normalization: str, files: int, cache_folder: Path
) -> None:
    made = tiny.config(**FROZEN, normalization=normalization)
    data, state = tiny.start(made)
    for batches in (data.batches, data.batches.normalized_by([0.4], [0.1])):
        features.of(made, state.model, batches, predict)
    assert len(folders(cache_folder)) == files


def of(made: TrialConfig) -> torch.Tensor:
    data, state = tiny.start(made)
    return features.of(made, state.model, data.batches, predict).features


def changed(content: bytes) -> bytes:
    """Return the content with one bit of a feature turned, which its checksum shows."""
    place = len(content) // 2
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize("damage", [lambda content: content[:-7], lambda content: b"", changed])
def test_a_damaged_piece_is_computed_again(damage: Callable[[bytes], bytes], cache_folder: Path) -> None:
    made = tiny.config(**FROZEN)
    first = of(made)
    path = min(cache_folder.glob("*/*.npz"))
    intact = path.read_bytes()
    path.write_bytes(damage(intact))
    torch.testing.assert_close(of(made), first, rtol=0, atol=0)
    assert path.read_bytes() == intact


def test_a_cache_that_cannot_be_written_is_done_without(monkeypatch: pytest.MonkeyPatch, cache_folder: Path) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(feature_store, "replace_file", full)
    with pytest.warns(UserWarning, match="No space left on device"):
        found, _ = trained(tiny.config(**FROZEN))
    assert len(found) == 4
    assert cache.cache_dir() == cache_folder.parent


def test_interrupted_work_goes_on_with_the_next_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop after the first piece, as a kill would; the second is then all that is computed, to the same bits."""
    made = tiny.config(**FROZEN)
    data, state = tiny.start(made)
    first = next(features.computed(made, state.model, data.batches, predict))
    assert (first.rows, first.of, first.seconds > 0) == (64, 84, True)
    found = list(preparing(data, state))
    assert [(step.rows, step.of) for step in found] == [(84, 84)]
    resumed = of(made)
    monkeypatch.setenv("SWEEP_ORCHESTRATOR_CACHE", os.environ["SWEEP_ORCHESTRATOR_CACHE"] + "-other")
    assert torch.equal(of(made), resumed)


def test_two_processes_share_the_work(cache_folder: Path) -> None:
    """Hold the lock of a piece elsewhere: the other piece is computed, and then what the holder left or wrote."""
    made = tiny.config(**FROZEN)
    expected = of(made)
    first, second = cache_folder.glob("*/*.npz")
    written = first.read_bytes()
    first.unlink()
    second.unlink()
    code = (
        "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, 2); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, first.with_suffix(".lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdout.readline()
        data, state = tiny.start(made)
        work = features.computed(made, state.model, data.batches, predict)
        steps = [next(work) for _ in range(6)]
        assert sum(step.seconds > 0 for step in steps) == 1  # the free piece; for the rest it waits
        assert steps[-1].rows < steps[-1].of
        first.write_bytes(written)
        assert torch.equal(features.finished(work).features, expected)
        first.unlink()
        holder.stdin.close()  # its lock dies with it: what it had not written is computed here
    assert torch.equal(of(made), expected)


def test_a_grown_data_set_computes_the_new_pictures_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    made = tiny.config(**FROZEN, normalization="half")
    whole, state = tiny.start(made)
    images, labels = np.asarray(tiny.search_data().images), tiny.search_data().labels
    half = torch.device("cpu"), (0.5,), (0.5,)
    few = Batches(images[::2], labels[::2], half[1], half[2], half[0])
    features.of(made, state.model, few, predict)
    computed: list[int] = []

    def watched(config: TrialConfig, batches: Batches, rows: torch.Tensor, model: torch.nn.Module) -> Any:
        computed.extend(rows.tolist())
        return predict(config, batches, rows, model)

    found = features.of(made, state.model, whole.batches, watched).features
    assert computed == list(range(1, 84, 2))
    monkeypatch.setenv("SWEEP_ORCHESTRATOR_CACHE", os.environ["SWEEP_ORCHESTRATOR_CACHE"] + "-other")
    torch.testing.assert_close(features.of(made, state.model, whole.batches, predict).features, found)


def test_another_process_finds_them(cache_folder: Path) -> None:
    made = tiny.config(**FROZEN)
    code = (
        "import tiny, sys; from trainables import features; from trainables.evaluation import predict\n"
        f"made = tiny.config(**{FROZEN!r}); data, state = tiny.start(made)\n"
        "print(len(list(features.computed(made, state.model, data.batches, predict))))"
    )
    steps = []
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=HERE, check=True)
        steps.append(int(done.stdout))
    assert steps == [2, 0]
    assert len(folders(cache_folder)) == 1
    of(made)
    assert len(folders(cache_folder)) == 1


@pytest.mark.parametrize(
    ("size", "views", "expected"), [(224, "one", 8), (224, "flip", 4), (32, "one", 256), (900, "one", 1)]
)
def test_small_batches_are_computed_on_a_cpu(size: int, views: str, expected: int) -> None:
    made = tiny.config(**FROZEN, image_size=size, evaluation_views=views)
    assert features.as_computed(made, tiny.select(made).batches).batch_size == expected


def test_the_numeric_format_of_a_frozen_net_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    made = tiny.config(**FROZEN, precision="auto", memory_format="auto")
    monkeypatch.setattr(precision, "_measure", None)
    found = precision.resolve(made, tiny.select(made))
    assert (found.precision, found.memory_format) == ("float32", "channels_last")
    assert format_key(made.to_dict(), "a CPU") != format_key(made.replace(freeze=False).to_dict(), "a CPU")


def test_seconds_a_picture() -> None:
    made = tiny.config(**FROZEN)
    data, state = tiny.start(made)
    assert 0 < features.seconds_a_picture(made, state.model, data.batches, predict) < 1


@pytest.mark.parametrize("field", [*AUGMENTING])
def test_augmented_images_have_no_features(field: str) -> None:
    value: Any = 1 if field == "crop_padding" else type(getattr(TrialConfig(), field))(0.1)
    assert features.suffice(TrialConfig(freeze=True))
    assert not features.suffice(TrialConfig(freeze=True, **{field: value}))
    assert not features.suffice(TrialConfig())


def test_every_augmentation_is_counted() -> None:
    """Check every field: one that is not marked would be ignored by frozen trials, which train on features."""
    data, _ = tiny.start(tiny.config())
    plain = next(data.batches.train(data.train_rows, 60, tiny.config(), torch.Generator().manual_seed(0)))[0]
    values = {"flip": True, "crop_padding": 2, "rotation": 20.0}
    for field in TrialConfig.__dataclass_fields__:
        current = getattr(tiny.config(), field)
        if isinstance(current, bool | float) and field not in ("train_fraction", "evaluation_crop", "long_tail"):
            try:
                changed = tiny.config(**{field: values.get(field, True if isinstance(current, bool) else 0.5)})
            except ValueError:
                continue
            images = next(data.batches.train(data.train_rows, 60, changed, torch.Generator().manual_seed(0)))[0]
            assert torch.equal(images, plain) == (field not in AUGMENTING), field


def test_a_frozen_efficientnet_has_its_dropout_in_the_head() -> None:
    made = tiny.config(model="efficientnet_b0", freeze=True, dropout=0.5, image_size=32)
    model = build.build(made, 3, 32)
    heads.set_training(made, model)
    head, images = heads.head_of(model), torch.randn(2, 1280)
    assert not torch.equal(head(images), head(images))


def test_copies_of_one_picture_fill_several_pieces(cache_folder: Path) -> None:
    """Features of the first of two pieces that are alike were never computed: they were whatever memory held."""
    digests = np.zeros((3 * feature_store.LEAST_ROWS, 16), np.uint8)
    digests[2 * feature_store.LEAST_ROWS :, 0] = 1
    folder = cache_folder / "copies"
    folder.mkdir(parents=True)
    for _ in range(2):
        store = FeatureStore(folder, digests.view("V16").ravel())
        for name in store.missing():
            rows = store.rows(name)
            store.add(name, rows, digests[rows, :1].astype(np.float32))
        assert store.known.all()
        np.testing.assert_array_equal(store.features, digests[:, :1])
    grown = FeatureStore(folder, np.vstack((digests[5:], digests)).view("V16").ravel())
    assert not grown.missing()
    np.testing.assert_array_equal(grown.features, np.vstack((digests[5:], digests))[:, :1])
