"""On a CUDA device: a short trial in both precisions, and the same batches as on a CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from trainables import batches, checkpoint
from trainables.batches import Batches
from trainables.datasets.source import Pixels
from trainables.datasets.stored_images import ImageFile, StoredImages
from trainables.loop import train
from trainables.precision import resolve
from trainables.storage import Storage
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
    assert last.val_accuracy > 0.8
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
    other.restore(*saved)
    for mine, theirs in zip(steps, train(data, other), strict=True):
        assert theirs.train_loss == pytest.approx(mine.train_loss, rel=0.05)
    assert {t.device.type for t in other.kept.best_weights.values()} == {"cuda"}


def test_batches_are_those_of_a_cpu() -> None:
    made = tiny.config(flip=True, crop_padding=1, rotation=10.0, shift=0.1, brightness=0.2, contrast=0.2)

    def batches(device: torch.device) -> list[tuple[torch.Tensor, torch.Tensor]]:
        data, _ = tiny.start(made, device)
        order = torch.Generator().manual_seed(3)
        return list(data.batches.train(data.train_rows, data.epoch_rows, made, order))

    for (images, labels), (expected, expected_labels) in zip(batches(CUDA), batches(tiny.CPU), strict=True):
        assert torch.equal(labels.cpu(), expected_labels)
        torch.testing.assert_close(images.cpu(), expected, rtol=1e-3, atol=1e-3)


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
