"""Mixup and CutMix are torchvision's; how they are drawn; what a trial learns from mixed targets."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import v2

from trainables import augmentation, mixing
from trainables.batches import Batches, memory_format
from trainables.config import TrialConfig
from trainables.loop import optimizer_step, train
from trainables.mixing import Mix, draw_mix, mixed
from trainables.models import heads

CPU = torch.device("cpu")
CLASSES = 5


def batch(rows: int = 6) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    return torch.randn(rows, 3, 10, 14, generator=random), torch.arange(rows) % CLASSES


def draws(config: TrialConfig, count: int, size: tuple[int, int] = (32, 24)) -> list[Mix]:
    random = torch.Generator().manual_seed(0)
    found = [draw_mix(augmentation.draw(2, random), config, size) for _ in range(count)]
    return [mix for mix in found if mix is not None]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("own", [0.0, 0.3, 1.0])
def test_mixup_is_torchvisions(own: float, layout: torch.memory_format) -> None:
    images, labels = batch()
    images = images.contiguous(memory_format=layout)
    reference = v2.MixUp(num_classes=CLASSES)
    params = {"labels": labels, "batch_size": len(labels), "lam": own}
    found, targets = mixed(images, labels, CLASSES, Mix(own, None))
    torch.testing.assert_close(found, reference.transform(images, params))
    torch.testing.assert_close(targets, reference.transform(labels, params))
    assert found.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("box", [(2, 1, 9, 6), (0, 0, 14, 10), (3, 3, 3, 5)])
def test_cutmix_is_torchvisions(box: tuple[int, int, int, int], layout: torch.memory_format) -> None:
    images, labels = batch()
    images = images.contiguous(memory_format=layout)
    left, top, right, bottom = box
    own = 1 - (right - left) * (bottom - top) / 140
    reference = v2.CutMix(num_classes=CLASSES)
    params = {"labels": labels, "batch_size": len(labels), "box": box, "lam_adjusted": own}
    expected = reference.transform(images, params), reference.transform(labels, params)
    mix = Mix(own, (slice(top, bottom), slice(left, right)))
    found, targets = mixed(images.clone(memory_format=torch.preserve_format), labels, CLASSES, mix)
    torch.testing.assert_close(found, expected[0], rtol=0, atol=0)
    torch.testing.assert_close(targets, expected[1])
    assert found.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("own", [0.01, 0.3, 0.99])
@pytest.mark.parametrize("seed", range(5))
def test_boxes_are_torchvisions_given_its_draws(own: float, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give both the same share and the same middle, and compare box and target."""
    height, width = 32, 24
    reference = v2.CutMix(num_classes=CLASSES)
    monkeypatch.setattr(reference, "_dist", torch.distributions.Uniform(own, own + 1e-9, validate_args=False))
    torch.manual_seed(seed)
    params = reference.make_params([torch.empty(2, 3, height, width)])
    torch.manual_seed(seed)
    torch.rand(())
    across, down = int(torch.randint(width, (1,))), int(torch.randint(height, (1,)))

    class Given:
        """What numpy's generator would draw."""

        middles = iter((down, across))

        def random(self) -> float:
            return 0.0

        def beta(self, a: float, b: float) -> float:
            return own

        def integers(self, most: int) -> int:
            return next(self.middles)

    monkeypatch.setattr(mixing, "default_rng", lambda seed: Given())
    (mix,) = draws(TrialConfig(cutmix=1.0), 1, (height, width))
    left, top, right, bottom = params["box"]
    assert mix.box == (slice(top, bottom), slice(left, right))
    assert mix.own == pytest.approx(params["lam_adjusted"])


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_the_shares_of_mixup_are_beta(alpha: float) -> None:
    """Compare mean and deviation with those of Beta(α, α): 1/2 and 1 / (4 (2α + 1)) squared."""
    shares = np.array([mix.own for mix in draws(TrialConfig(mixup=alpha), 2000)])
    assert shares.mean() == pytest.approx(0.5, abs=0.04)
    assert shares.std() == pytest.approx(math.sqrt(1 / (4 * (2 * alpha + 1))), rel=0.05)


def test_with_both_a_batch_has_one_or_the_other() -> None:
    found = draws(TrialConfig(mixup=0.4, cutmix=1.0), 1000)
    boxes = [mix.box is not None for mix in found]
    assert 0.45 < np.mean(boxes) < 0.55
    alone = draws(TrialConfig(mixup=0.4), 1000)  # its draws do not depend on whether the other is on
    assert [mix for mix in found if mix.box is None] == [
        mix for mix, other in zip(alone, found, strict=True) if other.box is None
    ]
    assert draws(TrialConfig(), 3) == []


def epoch(**fields: Any) -> list[tuple[Tensor, Tensor]]:
    data = tiny.search_data()
    made = Batches.of(data, CPU)
    return list(made.train(torch.arange(48), 48, tiny.config(**fields), torch.Generator().manual_seed(0)))


def test_mixing_leaves_all_other_draws_as_they_were() -> None:
    fields: dict[str, Any] = {"flip": True, "rotation": 10.0, "erasing": 0.5, "trivial_augment": True}
    for (images, labels), (found, targets) in zip(epoch(**fields), epoch(mixup=1.0, **fields), strict=True):
        own = functional.one_hot(labels, 3).float()
        (share,) = torch.unique((targets - own)[labels != labels.roll(1)].abs().amax(1).round(decimals=5))
        torch.testing.assert_close(found, torch.lerp(images, images.roll(1, 0), float(share)), rtol=0, atol=1e-4)


def test_a_new_augmentation_leaves_the_draws_of_mixing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = epoch(mixup=0.5, cutmix=0.5)
    entry = augmentation.Augmentation(("flip",), 4, lambda images, numbers, config: images)
    monkeypatch.setattr(augmentation, "AUGMENTATIONS", {**augmentation.AUGMENTATIONS, "new": entry})
    torch.testing.assert_close(epoch(mixup=0.5, cutmix=0.5), before, rtol=0, atol=0)


@pytest.mark.parametrize("fields", [{"mixup": 0.5}, {"cutmix": 1.0}, {"mixup": 0.5, "cutmix": 1.0}])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_batches_of_mixed_images(fields: dict[str, float], layout: str) -> None:
    plain = epoch(memory_format=layout)
    found = epoch(memory_format=layout, **fields)
    assert all(not torch.equal(images, others) for (images, _), (others, _) in zip(plain, found, strict=True))
    for (_, labels), (images, targets) in zip(plain, found, strict=True):
        assert (targets.shape, targets.dtype) == ((len(labels), 3), torch.float32)
        assert images.is_contiguous(memory_format=memory_format(tiny.config(memory_format=layout)))
        torch.testing.assert_close(targets.sum(1), torch.ones(len(labels)))
        assert ((targets > 0).sum(1) <= 2).all()
    torch.testing.assert_close(epoch(memory_format=layout, **fields), found, rtol=0, atol=0)


def test_a_step_on_mixed_targets_is_plain_cross_entropys() -> None:
    made = tiny.config(mixup=0.5, label_smoothing=0.1)
    _, state = tiny.start(made)
    images, targets = epoch(mixup=0.5)[0]
    state.kept.schedule.set_rate(0)
    loss, logits = optimizer_step(state.kept, images, targets)
    assert float(loss) == pytest.approx(float(functional.cross_entropy(logits, targets, label_smoothing=0.1)), rel=1e-6)


@pytest.mark.parametrize(
    "fields",
    [
        {"mixup": 0.2, "class_weights": "inverse", "focal_gamma": 0.5},
        {"cutmix": 0.5, "sampling": "balanced", "label_smoothing": 0.1, "smoothed_over": "others"},
        {"mixup": 0.2, "cutmix": 0.5, "logit_adjustment": 0.5},
    ],
)
def test_a_trial_learns_from_mixed_images(fields: dict[str, Any]) -> None:
    data, state = tiny.start(tiny.config(max_epochs=12, **fields))
    *_, last = train(data, state)
    assert (last.val_accuracy or 0.0) > 0.6
    assert 0 < last.train_accuracy < 1
    assert last.train_loss < float("inf")


def test_a_frozen_base_sees_mixed_images() -> None:
    data, state = tiny.start(tiny.config(freeze=True, mixup=0.5, max_epochs=1))
    (epoch,) = train(data, state)
    assert not state.kept.on_features
    assert 0 < epoch.train_accuracy < 1


@pytest.mark.parametrize("fields", [{}, {"class_weights": "inverse", "focal_gamma": 0.5, "logit_adjustment": 1.0}])
def test_micro_batches_of_mixed_targets_give_the_gradients_of_the_whole(fields: dict[str, Any]) -> None:
    """Compare the weights after a step of a head on a frozen base, in which no batch norm sees the batch."""
    images, targets = epoch(mixup=0.5)[0]
    after = []
    for most in (0, 5):
        data, state = tiny.start(tiny.config(freeze=True, micro_batch=most, mixup=0.5, label_smoothing=0.1, **fields))
        state.kept.schedule.set_rate(0)
        heads.set_training(state.config, state.model)
        fold = data.folds[0]
        loss, logits = optimizer_step(state.kept, images, targets, fold.class_weights, fold.log_prior)
        weights = [p.detach().flatten() for p in state.model.parameters()]
        after.append((loss, logits, torch.cat(weights)))
    torch.testing.assert_close(after[0], after[1], rtol=1e-4, atol=1e-5)
