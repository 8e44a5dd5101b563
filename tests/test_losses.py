"""Losses, penalties, class weights and sampling, compared with plain references."""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from torch.nn import functional

from trainables import batches, losses
from trainables.config import TrialConfig
from trainables.errors import ConfigError
from trainables.loop import TrialState, optimizer_step, train
from trainables.losses import CLASS_WEIGHTS, correct_count, inverse_frequencies, log_prior, penalty, training_loss
from trainables.models import heads

LOGITS = torch.randn(12, 4, generator=torch.Generator().manual_seed(0)) * 3
LABELS = torch.tensor([0, 1, 2, 3, 0, 0, 0, 1, 1, 3, 0, 0])


MIXED = 0.7 * functional.one_hot(LABELS, 4) + 0.3 * functional.one_hot(LABELS.roll(1), 4)


def by_hand(
    targets: list[list[float]],
    smoothing: float,
    over: str,
    weights: list[float] | None,
    gamma: float,
    shift: tuple[float, ...] = (0.0,) * 4,
) -> float:
    """Compute the loss row by row in plain Python; the mean is weighted, as torch's is.

    Of the target ε goes to all of C classes, ε/C each, or to the C - 1 wrong ones, ε/(C - 1) each. The loss of a mixed
    target is the sum over labels of their shares times the label's loss.
    """
    total = counted = 0.0
    counts = weights or [1.0] * 4
    right, wrong = (1 - smoothing, smoothing / 3) if over == "others" else (1 - 3 / 4 * smoothing, smoothing / 4)
    for plain, shares in zip(LOGITS.double().tolist(), targets, strict=True):
        logits = [value + by for value, by in zip(plain, shift, strict=True)]
        most = max(logits)
        log_sum = most + math.log(sum(math.exp(value - most) for value in logits))
        surprise = [log_sum - value for value in logits]
        for label, share in enumerate(shares):
            row = sum((right if k == label else wrong) * counts[k] * surprise[k] for k in range(4))
            total += share * (1 - math.exp(-surprise[label])) ** gamma * row
            counted += share * counts[label]
    return total / counted


@pytest.mark.parametrize("targets", [LABELS, MIXED], ids=["labels", "mixed"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.75])
@pytest.mark.parametrize("over", ["all", "others"])
@pytest.mark.parametrize("weights", [None, [0.1, 0.2, 0.3, 0.4]])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_the_loss_by_hand(
    targets: torch.Tensor, smoothing: float, over: str, weights: list[float] | None, gamma: float
) -> None:
    config = TrialConfig(label_smoothing=smoothing, smoothed_over=over, focal_gamma=gamma)
    shares = targets if targets.is_floating_point() else functional.one_hot(targets, 4)
    factors, shift = None if weights is None else torch.tensor(weights), (0.5, -2.0, 0.0, 1.0)
    found = training_loss(config, LOGITS, targets, factors)
    assert float(found) == pytest.approx(by_hand(shares.tolist(), smoothing, over, weights, gamma), rel=1e-5)
    shifted = training_loss(config, LOGITS, targets, factors, torch.tensor(shift))
    assert float(shifted) == pytest.approx(by_hand(shares.tolist(), smoothing, over, weights, gamma, shift), rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_mixed_targets_is_torchs(smoothing: float) -> None:
    found = training_loss(TrialConfig(label_smoothing=smoothing), LOGITS, MIXED, None)
    expected = functional.cross_entropy(LOGITS, MIXED, label_smoothing=smoothing)
    torch.testing.assert_close(found, expected)


GRIDS: dict[str, tuple[Any, ...]] = {
    "label_smoothing": (0.0, 0.1, 0.6),
    "smoothed_over": ("all", "others"),
    "focal_gamma": (0.0, 1e-3, 0.1, 0.5, 1.0, 2.0, 5.0),
    "logit_adjustment": (0.0, 1.0, 3.0),
    "class_weights": ("none", "inverse"),
}
EXTREME = [
    [20.0, 0.0, 0.0], [-20.0, 0.0, 0.0], [17.0, 0.5, 0.0], [1e4, 0.0, -1e4], [-1e4, 1e4, 1e4], [0.0, 0.0, 0.0],
    [1e4, 1e4, 1e4], [90.0, 0.0, 0.0], [104.0, 0.0, 0.0], [5e-8, 0.0, 0.0],
]  # fmt: skip


@pytest.mark.parametrize("gamma", GRIDS["focal_gamma"])
def test_loss_and_gradients_are_finite(gamma: float) -> None:
    """Try all fields of the loss with extreme logits, every label of each, and targets that are mixed of labels."""
    logits = torch.tensor(EXTREME).repeat_interleave(3, 0)
    labels = torch.arange(len(logits)) % 3
    hard = functional.one_hot(labels, 3).float()
    seen = torch.tensor([0] * 1000 + [1])  # nothing of the last class
    others = [values for name, values in GRIDS.items() if name != "focal_gamma"]
    for values in itertools.product(*others):
        fields = dict(zip([name for name in GRIDS if name != "focal_gamma"], values, strict=True))
        config = TrialConfig(focal_gamma=gamma, **fields)
        weights = CLASS_WEIGHTS[config.class_weights](seen, 3)
        if weights is not None:
            weights = weights.clamp(min=1e-6)
        for targets in (labels, hard, torch.lerp(hard, hard.roll(1, 0), 0.3), torch.full_like(hard, 1 / 3)):
            inputs = logits.clone().requires_grad_()
            loss = training_loss(config, inputs, targets, weights, log_prior(config, seen, 3))
            loss.backward()  # type: ignore[no-untyped-call]
            assert loss.isfinite(), fields
            assert inputs.grad is not None
            assert inputs.grad.isfinite().all(), fields


def test_the_grid_has_every_field_of_the_loss() -> None:
    """Read which fields `losses` looks at; penalties are of weights, not of logits."""
    source = Path(losses.__file__).read_text()
    assert set(re.findall(r"config\.(\w+)", source)) - {"head_l1", "head_l2"} <= set(GRIDS)


def test_correct_predictions_of_mixed_targets_count_by_their_shares() -> None:
    logits = torch.tensor([[0.0, 1.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert correct_count(logits, torch.tensor([1, 0, 0])) == 2
    shares = torch.tensor([[0.3, 0.7, 0.0], [0.4, 0.6, 0.0], [0.5, 0.5, 0.0]])
    assert float(correct_count(logits, shares)) == pytest.approx(0.7 + 0.4)
    assert correct_count(logits, functional.one_hot(torch.tensor([1, 0, 0]), 3).float()) == 2


def test_the_log_prior_is_of_the_rows_trained_on() -> None:
    config = TrialConfig(logit_adjustment=2.0)
    found = log_prior(config, torch.tensor([0, 0, 0, 1, 1, 0, 0, 0]), 2)
    assert found is not None
    assert found.tolist() == pytest.approx([2 * math.log(0.75), 2 * math.log(0.25)])
    empty = log_prior(config, torch.tensor([0, 0, 2]), 3)
    assert empty is not None
    assert empty.tolist() == pytest.approx([2 * math.log(count / 4) for count in (2, 1, 1)])
    assert log_prior(TrialConfig(), torch.tensor([0, 1]), 2) is None


def test_a_fold_has_the_prior_of_its_rows() -> None:
    data = tiny.search_data()
    trial = tiny.select_from(tiny.config(logit_adjustment=1.0, removed_share=0.5, removed_classes="2"), data)
    counts = torch.from_numpy(data.labels)[trial.train_rows].bincount()
    assert counts.tolist() == [20, 20, 10]
    assert trial.folds[0].log_prior is not None
    assert trial.folds[0].log_prior.tolist() == pytest.approx((counts / 50).log().tolist())
    assert tiny.select(tiny.config()).folds[0].log_prior is None


def test_logit_adjustment_moves_predictions_to_the_rare_class() -> None:
    """Train a linear layer on features that say nothing: alone, it predicts the prior; adjusted, all classes alike."""
    labels = torch.tensor([0] * 90 + [1] * 10)
    for tau, expected in ((0.0, [0.9, 0.1]), (1.0, [0.5, 0.5])):
        config, logits = TrialConfig(logit_adjustment=tau), torch.zeros(2, requires_grad=True)
        for _ in range(2000):
            loss = training_loss(config, logits.expand(100, 2), labels, None, log_prior(config, labels, 2))
            (gradient,) = torch.autograd.grad(loss, logits)
            logits = (logits - gradient).detach().requires_grad_()
        assert logits.softmax(0).tolist() == pytest.approx(expected, abs=1e-3)


def test_a_label_is_not_smoothed_below_the_others() -> None:
    config = TrialConfig(label_smoothing=0.6, smoothed_over="others")
    with pytest.raises(ConfigError, match=r"label_smoothing=0.6 .* of 2 classes; at most 0.5"):
        training_loss(config, LOGITS[:, :2], LABELS % 2, None)


def test_class_weights_are_inverse_frequencies_that_sum_to_one() -> None:
    labels = torch.tensor([1] * 13136 + [0] * 4364)
    found = inverse_frequencies(labels, 2)
    assert found.tolist() == pytest.approx([0.7506, 0.2494], abs=1e-4)
    assert inverse_frequencies(torch.tensor([0, 0, 2]), 3).tolist() == pytest.approx([1 / 3, 0, 2 / 3])


@pytest.mark.parametrize("head_width", [0, 5])
def test_penalties_pull_at_the_heads_weights_alone(head_width: int) -> None:
    """Compare with a step without them: weights differ by the penalties' derivatives times the learning rate."""
    l1, l2, lr = 0.02, 0.05, 0.1
    plain = {"momentum": 0.0, "weight_decay": 0.0, "lr": lr, "schedule": "constant", "head_width": head_width}
    images, labels = torch.randn(8, 3, 8, 8), torch.arange(8) % 3
    after: list[dict[str, torch.Tensor]] = []
    for penalties in ({}, {"head_l1": l1, "head_l2": l2}):
        made = tiny.config(**plain, **penalties)
        _, state = tiny.start(made)
        before = {name: p.detach().clone() for name, p in state.model.named_parameters()}
        state.kept.schedule.set_rate(0)
        optimizer_step(state.kept, images, labels)
        after.append({name: p.detach().clone() for name, p in state.model.named_parameters()})
    for name, weight in before.items():
        pulled = name.startswith("fc.") and weight.ndim > 1
        expected = after[0][name] - (lr * (l1 * weight.sign() + 2 * l2 * weight) if pulled else 0)
        torch.testing.assert_close(after[1][name], expected, rtol=1e-5, atol=1e-6)


def test_penalties() -> None:
    weights = [torch.tensor([[1.0, -2.0]]), torch.tensor([[3.0]])]
    assert float(penalty(TrialConfig(head_l1=0.1), weights)) == pytest.approx(0.6)
    assert float(penalty(TrialConfig(head_l2=0.1), weights)) == pytest.approx(1.4)
    assert float(penalty(TrialConfig(head_l1=1.0, head_l2=1.0), weights)) == pytest.approx(20)
    assert penalty(TrialConfig(), weights) == 0.0


@pytest.mark.parametrize("epoch_rows", [30, 31, 100])
def test_balanced_sampling_sees_classes_and_their_rows_equally_often(epoch_rows: int) -> None:
    labels = torch.tensor(np.repeat([0, 1, 2], [50, 5, 20]))
    rows = torch.randperm(75)
    order = batches.balanced_order(rows, epoch_rows, torch.Generator().manual_seed(0), labels)
    assert len(order) == epoch_rows
    counts = labels[order].bincount(minlength=3)
    assert counts.max() - counts.min() <= 1
    seen = order.bincount(minlength=75)
    for label in range(3):
        assert seen[labels == label].max() - seen[labels == label].min() <= 1


# Heads and frozen bases


@pytest.mark.parametrize("model", ["resnet8", "resnet18", "efficientnet_b0", "vgg11"])
def test_a_frozen_base_stays_as_it_is_and_the_head_learns(model: str) -> None:
    made = tiny.config(model=model, freeze=True, head_width=6, max_epochs=1, image_size=32)
    data, state = tiny.start(made)
    before = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
    list(train(data, state))
    head = {id(tensor) for tensor in heads.head_of(state.model).state_dict(keep_vars=True).values()}
    names = {name for name, tensor in state.model.state_dict(keep_vars=True).items() if id(tensor) in head}
    changed = {name for name, tensor in state.model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == names
    assert len(names) == 4  # two layers' weights and biases
    trained = sum(p.numel() for p in state.model.parameters() if p.requires_grad)
    assert trained == sum(p.numel() for p in heads.head_of(state.model).parameters())


def test_a_frozen_base_evaluates_as_it_trains() -> None:
    made = tiny.config(freeze=True, max_epochs=1)
    _, state = tiny.start(made)
    images = torch.randn(4, 3, 8, 8)
    heads.set_training(made, state.model)
    training = state.model(images)
    torch.testing.assert_close(state.model.eval()(images), training)


def test_a_dense_head_by_hand() -> None:
    head = heads.DenseHead(5, 3, 2, dropout=0.5).eval()
    features = torch.randn(4, 5)
    hidden = (features @ head.hidden.weight.T + head.hidden.bias).clamp(min=0)
    torch.testing.assert_close(head(features), hidden @ head.output.weight.T + head.output.bias)


@pytest.mark.parametrize(
    "fields",
    [
        {"focal_gamma": 2.0, "class_weights": "inverse"},
        {"focal_gamma": 0.1, "logit_adjustment": 1.0, "long_tail": 0.5},
        {"sampling": "balanced", "head_l1": 1e-4, "head_l2": 1e-4},
        {"head_width": 16, "resized_crop": 0.5, "image_size": 10, "evaluation_crop": 0.8, "max_epochs": 12},
    ],
)
def test_a_trial_learns_with_them(fields: dict[str, float | str]) -> None:
    made = tiny.config(**fields)
    data, state = tiny.start(made)
    *_, last = train(data, state)
    assert (last.val_accuracy or 0.0) > 0.6
    assert isinstance(state, TrialState)
