"""Losses, penalties, class weights and sampling, compared with plain references."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tiny
import torch

from trainables import batches
from trainables.config import TrialConfig
from trainables.errors import ConfigError
from trainables.loop import TrialState, optimizer_step, train
from trainables.losses import inverse_frequencies, penalty, training_loss
from trainables.models import heads

LOGITS = torch.randn(12, 4, generator=torch.Generator().manual_seed(0)) * 3
LABELS = torch.tensor([0, 1, 2, 3, 0, 0, 0, 1, 1, 3, 0, 0])


def by_hand(smoothing: float, over: str, weights: list[float] | None, gamma: float) -> float:
    """Compute the loss row by row in plain Python; the mean is weighted, as torch's is.

    Of the target ε goes to all of C classes, ε/C each, or to the C - 1 wrong ones, ε/(C - 1) each.
    """
    total = counted = 0.0
    for logits, label in zip(LOGITS.double().tolist(), LABELS.tolist(), strict=True):
        most = max(logits)
        log_sum = most + math.log(sum(math.exp(value - most) for value in logits))
        surprise = [log_sum - value for value in logits]
        counts = weights or [1.0] * 4
        right, wrong = (1 - smoothing, smoothing / 3) if over == "others" else (1 - 3 / 4 * smoothing, smoothing / 4)
        row = sum((right if k == label else wrong) * counts[k] * surprise[k] for k in range(4))
        total += (1 - math.exp(-surprise[label])) ** gamma * row
        counted += counts[label]
    return total / counted


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.75])
@pytest.mark.parametrize("over", ["all", "others"])
@pytest.mark.parametrize("weights", [None, [0.1, 0.2, 0.3, 0.4]])
@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_the_loss_by_hand(smoothing: float, over: str, weights: list[float] | None, gamma: float) -> None:
    config = TrialConfig(label_smoothing=smoothing, smoothed_over=over, focal_gamma=gamma)
    found = training_loss(config, LOGITS, LABELS, None if weights is None else torch.tensor(weights))
    assert float(found) == pytest.approx(by_hand(smoothing, over, weights, gamma), rel=1e-5)


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
        {"sampling": "balanced", "head_l1": 1e-4, "head_l2": 1e-4},
        {"head_width": 16, "resized_crop": 0.5, "image_size": 10, "evaluation_crop": 0.8, "max_epochs": 12},
    ],
)
def test_a_trial_learns_with_them(fields: dict[str, float | str]) -> None:
    made = tiny.config(**fields)
    data, state = tiny.start(made)
    *_, last = train(data, state)
    assert last.val_accuracy > 0.6
    assert isinstance(state, TrialState)
