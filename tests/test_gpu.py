"""On a CUDA device: a short trial in both precisions, and the same batches as on a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from trainables import batches, checkpoint
from trainables.batches import Batches
from trainables.datasets.source import Pixels
from trainables.datasets.stored_images import ImageFile, StoredImages
from trainables.loop import train
from trainables.losses import log_prior, training_loss
from trainables.precision import resolve
from trainables.storage import Storage
from trainables.trivial_augment import OPERATIONS, STRENGTHS, trivial_augment
from trainables.views import Resident, Streamed

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CUDA = torch.device("cuda")


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_trial_learns(precision: str, optimizer: str) -> None:
    made = tiny.config(
        precision=precision, memory_format="channels_last", optimizer=optimizer, lr=0.02, max_epochs=8, grad_clip=1.0
    )
    data, state = tiny.start(made, CUDA)
    *_, last = train(data, state)
    assert (last.val_accuracy or 0.0) > 0.8
    assert last.peak_memory_mb > 0
    assert {p.device.type for p in state.model.parameters()} == {"cuda"}
    assert all(parameter.isfinite().all() for parameter in state.model.parameters())


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_trial_goes_on_from_a_checkpoint(precision: str, tmp_path: Path) -> None:
    made = tiny.config(precision=precision, memory_format="channels_last", optimizer="adamw", lr=0.01)
    data, state = tiny.start(made, CUDA)
    steps = train(data, state)
    next(steps)
    storage = Storage(str(tmp_path))
    checkpoint.save(storage, 0, 0, 1, checkpoint.pack(*state.to_checkpoint()))
    data, other = tiny.start(made, CUDA)
    saved = checkpoint.load(storage, 0)
    assert saved is not None
    other.restore(*saved[:2])
    for mine, theirs in zip(steps, train(data, other), strict=True):
        assert theirs.train_loss == pytest.approx(mine.train_loss, rel=0.05)
    assert {t.device.type for t in other.kept.best_weights.values()} == {"cuda"}


BATCHES: list[dict[str, Any]] = [
    {"flip": True, "crop_padding": 1, "rotation": 10.0, "shift": 0.1, "brightness": 0.2, "contrast": 0.2},
    {"flip": True, "erasing": 0.5},
    {"mixup": 0.4},
    {"cutmix": 1.0},
    {"mixup": 0.4, "cutmix": 1.0, "erasing": 0.5, "scale": 0.2},
]


@pytest.mark.parametrize("fields", BATCHES)
def test_batches_are_those_of_a_cpu(fields: dict[str, Any]) -> None:
    made = tiny.config(**fields)

    def batches(device: torch.device) -> list[tuple[torch.Tensor, torch.Tensor]]:
        data, _ = tiny.start(made, device)
        order = torch.Generator().manual_seed(3)
        return list(data.batches.train(data.train_rows, data.epoch_rows, made, order))

    for (images, labels), (expected, expected_labels) in zip(batches(CUDA), batches(tiny.CPU), strict=True):
        assert torch.equal(labels.cpu(), expected_labels)
        torch.testing.assert_close(images.cpu(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_an_operation_of_trivial_augment_is_a_cpus(name: str, channels: int) -> None:
    """Compare at all strengths: a value may be rounded to the next level, and a pixel in a hundred be at an edge."""
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (STRENGTHS, channels, 24, 20), dtype=torch.uint8, generator=random)
    drawn = torch.full((3, STRENGTHS), (list(OPERATIONS).index(name) + 0.5) / len(OPERATIONS))
    drawn[1] = (torch.arange(STRENGTHS) + 0.5) / STRENGTHS
    expected, found = trivial_augment(images, drawn), trivial_augment(images.to(CUDA), drawn)
    assert found.device.type == "cuda"
    assert ((found.cpu().int() - expected.int()).abs() <= 1).float().mean() > 0.99


def test_a_batch_under_trivial_augment_is_a_cpus() -> None:
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (200, 3, 16, 16), dtype=torch.uint8, generator=random)
    drawn = torch.rand(3, 200, generator=random)
    expected, found = trivial_augment(images, drawn), trivial_augment(images.to(CUDA), drawn)
    assert ((found.cpu().int() - expected.int()).abs() <= 1).float().mean() > 0.99


def test_the_loss_is_a_cpus() -> None:
    logits = 3 * torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    labels, weights = torch.arange(40) % 5, torch.linspace(0.1, 0.3, 5)
    mixed = 0.3 * torch.eye(5)[labels] + 0.7 * torch.eye(5)[labels.roll(1)]
    for fields in ({"label_smoothing": 0.1}, {"focal_gamma": 0.5}, {"focal_gamma": 2.0, "label_smoothing": 0.1}):
        made = tiny.config(**fields, logit_adjustment=1.0)
        for targets in (labels, mixed):
            arguments = logits, targets, weights, log_prior(made, labels[:7], 5)
            there = [None if argument is None else argument.to(CUDA) for argument in arguments]
            found = training_loss(made, *there)  # type: ignore[arg-type]
            torch.testing.assert_close(found.cpu(), training_loss(made, *arguments), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fields", [{"mixup": 0.2, "cutmix": 0.5}, {"trivial_augment": True, "erasing": 0.25}])
def test_nothing_waits_for_the_device(fields: dict[str, Any]) -> None:
    """Draw an epoch's batches with torch's check of synchronization on."""
    made = tiny.config(flip=True, **fields)
    data, _ = tiny.start(made, CUDA)
    batches_of_epoch = data.batches.train(data.train_rows, data.epoch_rows, made, torch.Generator().manual_seed(0))
    next(batches_of_epoch)  # the first one waits: mean and deviation are sent
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert len(list(batches_of_epoch)) == 3
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_images_without_room_on_the_device_are_sent_batch_by_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, rows = tiny.search_data(), torch.arange(tiny.VALIDATION + tiny.POOL)
    assert isinstance(data.images, np.ndarray)
    np.save(tmp_path / "images.npy", data.images)
    files = StoredImages((ImageFile(tmp_path / "images.npy", data.images.shape),))

    def on_device(images: Pixels | StoredImages, share: float) -> list[tuple[torch.Tensor, torch.Tensor]]:
        monkeypatch.setattr(batches, "GPU_SHARE", share)
        made = Batches(images, data.labels, data.mean, data.std, CUDA)
        assert isinstance(made.images, Streamed if share == 0 else Resident)
        return list(made.train(rows, 200, tiny.config(flip=True, rotation=5.0), torch.Generator().manual_seed(0)))

    expected = on_device(data.images, 0.3)
    for images, share in ((data.images, 0), (files, 0), (files, 0.3)):
        for found, wanted in zip(on_device(images, share), expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def test_the_form_is_known_not_measured() -> None:
    found = resolve(made := tiny.config(precision="auto", memory_format="auto"), tiny.select(made, CUDA))
    assert found.precision in ("bfloat16", "float16")
    assert found.memory_format == "channels_last"
