"""Optimizers and schedules equal torch's, step for step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD, lr_scheduler

from trainables.config import TrialConfig
from trainables.models.build import build
from trainables.optimizers import Schedule, build_optimizer, clip_gradients

LR, EPOCHS, STEPS = 0.3, 8, 5
TOTAL = EPOCHS * STEPS


def config(**fields: Any) -> TrialConfig:
    return TrialConfig(model="resnet8", lr=LR, max_epochs=EPOCHS, **fields)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_steps_are_those_of_torch(name: str) -> None:
    """Ours are made without torch's compiler; to the bit, they do the same."""
    torch.manual_seed(0)
    mine, theirs = nn.Linear(4, 3), nn.Linear(4, 3)
    theirs.load_state_dict(mine.state_dict())
    made = build_optimizer(config(optimizer=name, momentum=0.9, weight_decay=0.01), mine)
    groups = [
        {**group, "params": [p]} for group, p in zip(made.param_groups, (theirs.weight, theirs.bias), strict=True)
    ]
    reference = {"sgd": SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name](groups, LR, fused=True)
    assert type(made).__name__ == type(reference).__name__
    for step in range(4):
        for model, optimizer in ((mine, made), (theirs, reference)):
            optimizer.zero_grad()
            model(torch.arange(8.0).reshape(2, 4) / (step + 1)).square().sum().backward()
            optimizer.step()
        made.load_state_dict(made.state_dict())
    assert mine.state_dict().keys() == theirs.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(mine.parameters(), theirs.parameters(), strict=True))


def one_weight() -> SGD:
    return SGD([nn.Parameter(torch.ones(1))], LR)


def ours(steps: int = TOTAL, **fields: Any) -> list[float]:
    schedule = Schedule(config(**fields), one_weight(), STEPS)
    return [schedule.set_rate(step) for step in range(steps)]


def torchs(make: Callable[[SGD], lr_scheduler.LRScheduler]) -> list[float]:
    optimizer = one_weight()
    schedule = make(optimizer)
    rates = []
    for _ in range(TOTAL):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(rates) < TOTAL:
            schedule.step()
    return rates


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.25, 0.9])
def test_one_cycle(warmup: float) -> None:
    expected = torchs(lambda o: lr_scheduler.OneCycleLR(o, LR, TOTAL, pct_start=warmup, cycle_momentum=False))
    assert ours(schedule="one_cycle", warmup=warmup) == pytest.approx(expected, rel=1e-9)


def test_cosine() -> None:
    expected = torchs(lambda o: lr_scheduler.CosineAnnealingLR(o, TOTAL))
    assert ours(schedule="cosine") == pytest.approx(expected, rel=1e-9)


def test_cosine_by_hand() -> None:
    """Compare with equation 5 of Loshchilov and Hutter 2017 (arXiv 1608.03983), by iteration, to 0."""
    *rates, last = ours(TOTAL + 1, schedule="cosine")
    assert rates == pytest.approx([LR / 2 * (1 + np.cos(np.pi * step / TOTAL)) for step in range(TOTAL)])
    assert last == pytest.approx(0, abs=1e-12)


def test_cosine_after_a_warm_up() -> None:
    rise = TOTAL // 4

    def make(optimizer: SGD) -> lr_scheduler.LRScheduler:
        warm = lr_scheduler.LinearLR(optimizer, 1 / (rise + 1), total_iters=rise)
        fall = lr_scheduler.CosineAnnealingLR(optimizer, TOTAL - rise)
        return lr_scheduler.SequentialLR(optimizer, [warm, fall], [rise])

    expected = torchs(make)
    assert ours(schedule="cosine", warmup=0.25) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("schedule", ["constant", "plateau"])
def test_a_warm_up_is_linear(schedule: str) -> None:
    rise = TOTAL // 4
    expected = torchs(lambda o: lr_scheduler.LinearLR(o, 1 / (rise + 1), total_iters=rise))
    assert ours(schedule=schedule, warmup=0.25) == pytest.approx(expected, rel=1e-9)


def test_cyclic() -> None:
    half = 2 * STEPS
    expected = torchs(lambda o: lr_scheduler.CyclicLR(o, LR / 10, LR, step_size_up=half, cycle_momentum=False))
    assert ours(schedule="cyclic") == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("epochs", range(1, 14))
def test_cyclic_ends_low(epochs: int) -> None:
    schedule = Schedule(TrialConfig(lr=1, schedule="cyclic", max_epochs=epochs), one_weight(), STEPS)
    rates = [schedule.set_rate(step) for step in range(epochs * STEPS + 1)]
    assert rates[-1] == pytest.approx(min(rates))
    assert rates[-1] == pytest.approx(0.1)


def test_plateau() -> None:
    losses = [5.0, 4.0, 4.0, 4.0, 4.0, 3.0, 3.1, 3.2, 3.3, 3.4, 3.5, 3.6, 2.0]
    optimizer = one_weight()
    reference = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=2)
    schedule = Schedule(config(schedule="plateau"), one_weight(), STEPS)
    for epoch, loss in enumerate(losses):
        assert schedule.set_rate(epoch * STEPS) == pytest.approx(optimizer.param_groups[0]["lr"])
        reference.step(loss)
        schedule.epoch_ended(loss)
    assert optimizer.param_groups[0]["lr"] < LR / 50  # it did fall, twice


def test_plateau_by_hand() -> None:
    """Expect a tenth of the rate after 3 epochs in a row whose loss is not the lowest, and again after 3 more."""
    schedule = Schedule(config(schedule="plateau"), one_weight(), STEPS)
    rates = []
    for epoch, loss in enumerate([5.0, 4.0, 4.1, 4.2, 3.0, 3.0, 3.1, 3.2, 3.3, 3.4, 3.5, 2.0, 2.1]):
        rates.append(schedule.set_rate(epoch * STEPS))
        schedule.epoch_ended(loss)
    assert rates == pytest.approx([LR] * 8 + [LR / 10] * 3 + [LR / 100] * 2)


def test_plateaus_are_forgotten_by_other_schedules() -> None:
    schedule = Schedule(config(schedule="constant"), one_weight(), STEPS)
    for _ in range(9):
        schedule.epoch_ended(1.0)
    assert schedule.set_rate(0) == LR


@pytest.mark.parametrize("warmup", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("schedule", ["constant", "cosine", "one_cycle", "cyclic", "plateau"])
@pytest.mark.parametrize("epochs", [1, 3])
def test_a_rate_is_never_above_the_peak(schedule: str, warmup: float, epochs: int) -> None:
    made = TrialConfig(lr=LR, schedule=schedule, warmup=warmup, max_epochs=epochs)
    schedules = Schedule(made, one_weight(), 1)  # one step an epoch: the shortest trial there is
    assert all(0 <= schedules.set_rate(step) <= LR for step in range(epochs))


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_biases_and_norms_do_not_decay(name: str) -> None:
    model = build(config(), 3, 8)
    optimizer = build_optimizer(config(optimizer=name, weight_decay=0.1), model)
    decaying = {id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    weights = {key for key, p in model.named_parameters() if id(p) in decaying}
    assert weights == {key for key, p in model.named_parameters() if p.ndim > 1}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = {key: p.detach().clone() for key, p in model.named_parameters()}
    optimizer.step()
    assert {key for key, p in model.named_parameters() if not torch.equal(p, before[key])} <= weights


def test_frozen_parameters_are_left_out() -> None:
    model = build(config(), 3, 8)
    for parameter in model.blocks.parameters():  # type: ignore[union-attr]
        parameter.requires_grad = False
    optimizer = build_optimizer(config(), model)
    found = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert found == {id(p) for p in model.parameters() if p.requires_grad}


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("sgd", lambda p: torch.optim.SGD(p, LR, momentum=0.8, nesterov=True, weight_decay=0.01)),
        ("adam", lambda p: torch.optim.Adam(p, LR, betas=(0.8, 0.999), weight_decay=0.01)),
        ("adamw", lambda p: torch.optim.AdamW(p, LR, betas=(0.8, 0.999), weight_decay=0.01)),
    ],
)
def test_optimizers_are_torchs(name: str, reference: Callable[[Any], torch.optim.Optimizer]) -> None:
    mine, other = nn.Linear(4, 3, bias=False), nn.Linear(4, 3, bias=False)
    other.load_state_dict(mine.state_dict())
    optimizers = (
        build_optimizer(config(optimizer=name, momentum=0.8, weight_decay=0.01), mine),
        reference(other.parameters()),
    )
    for _ in range(5):
        gradient = torch.randn(3, 4)
        for model, optimizer in zip((mine, other), optimizers, strict=True):
            model.weight.grad = gradient.clone()
            optimizer.step()
    torch.testing.assert_close(mine.weight, other.weight)


def test_clipping_is_to_the_exact_norm() -> None:
    parameters = [nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(2, 2))]

    def norm_after(scale: float, largest: float) -> float:
        for i, parameter in enumerate(parameters):
            parameter.grad = torch.full_like(parameter, scale * (i + 1))
        clip_gradients(parameters, largest)
        return float(torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]).norm())

    assert norm_after(100, 0.7) == pytest.approx(0.7, rel=1e-5)
    small = float(torch.tensor([0.1] * 3 + [0.2] * 4).norm())
    assert norm_after(0.1, 0.7) == pytest.approx(small)
    assert norm_after(100, 0) > 100
