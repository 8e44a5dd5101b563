"""Features of a frozen base: training on them is training on images, and the cache never mistakes one for another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from trainables import features
from trainables.config import AUGMENTING, TrialConfig
from trainables.datasets import cache
from trainables.evaluation import predict
from trainables.loop import TrialState, train
from trainables.models import build, heads

FROZEN: dict[str, Any] = {"freeze": True, "head_width": 12, "dropout": 0.2, "model": "resnet8"}


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SWEEP_ORCHESTRATOR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "features"


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
    monkeypatch.setattr(features, "_compute", None)  # a second call would fail
    again, _ = trained(made.replace(lr=0.01))
    assert again != first
    assert len(list(cache_folder.glob("*.npy"))) == 1


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"image_size": 16}, {"normalization": "half"}, {"precision": "bfloat16"}, {"stem": "small"}]
)
def test_other_weights_or_images_have_other_features(change: dict[str, Any], cache_folder: Path) -> None:
    made = tiny.config(**FROZEN)
    for config in (made, made.replace(**change)):
        data, state = tiny.start(config)
        features.of(config, state.model, data.batches, predict)
    assert len(list(cache_folder.glob("*.npy"))) == 2


@pytest.mark.parametrize(("normalization", "files"), [("train", 2), ("half", 1)])
def test_another_training_part_has_other_features_where_it_normalizes(
    normalization: str, files: int, cache_folder: Path
) -> None:
    made = tiny.config(**FROZEN, normalization=normalization)
    data, state = tiny.start(made)
    for batches in (data.batches, data.batches.normalized_by([0.4], [0.1])):
        features.of(made, state.model, batches, predict)
    assert len(list(cache_folder.glob("*.npy"))) == files


def test_a_damaged_file_is_computed_again(cache_folder: Path) -> None:
    made = tiny.config(**FROZEN)
    data, state = tiny.start(made)
    first = features.of(made, state.model, data.batches, predict).features
    (path,) = cache_folder.glob("*.npy")
    path.write_bytes(path.read_bytes()[:-7])
    torch.testing.assert_close(features.of(made, state.model, data.batches, predict).features, first, rtol=0, atol=0)


def test_a_cache_that_cannot_be_written_is_done_without(monkeypatch: pytest.MonkeyPatch, cache_folder: Path) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(features, "_store", full)
    found, _ = trained(tiny.config(**FROZEN))
    assert len(found) == 4
    assert cache.cache_dir() == cache_folder.parent


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
