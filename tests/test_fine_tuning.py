"""Fine-tuning by parts, micro-batches and the moving average: each by its definition, and all of them resumed."""

from __future__ import annotations

import copy
import json
from itertools import islice
from typing import Any, cast

import pytest
import safetensors.torch
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_folds import folded
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from trainables import features, unfreezing
from trainables.config import TrialConfig
from trainables.evaluation import predict
from trainables.learner import Learner
from trainables.loop import TrialData, TrialState, final_metrics, optimizer_step, train
from trainables.models import build, layers
from trainables.moving_average import MovingAverage
from trainables.optimizers import build_optimizer, load_moments, moments
from trainables.splits import SearchData

ROWS, SIZE = 13, 8


@pytest.fixture(autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEEP_ORCHESTRATOR_CACHE", str(tmp_path_factory.mktemp("cache")))


# Micro-batches


def gradients(mixed: bool = False, model: str = "simple_cnn", **fields: Any) -> tuple[Tensor, float, Tensor]:
    """Return the change that a step of plain SGD makes, which is the gradient, and the step's loss and logits."""
    plain = {"momentum": 0.0, "weight_decay": 0.0, "lr": 1.0, "schedule": "constant", "dropout": 0.0}
    made = tiny.config(model=model, **plain, **fields)
    _, state = tiny.start(made)
    state.model.train()
    state.kept.schedule.set_rate(0)
    images = torch.randn(ROWS, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(ROWS) % 3 // 2
    weights = torch.tensor([0.7, 0.1, 0.2]) if made.class_weights != "none" else None
    before = nn.utils.parameters_to_vector(state.model.parameters()).detach()
    targets = nn.functional.one_hot(labels, 3).roll(1, 0).mul(0.3).add(nn.functional.one_hot(labels, 3), alpha=0.7)
    shift = torch.tensor([-2.0, -1.0, -0.5]) if made.logit_adjustment else None
    loss, logits = optimizer_step(state.kept, images, targets if mixed else labels, weights, shift)
    return before - nn.utils.parameters_to_vector(state.model.parameters()).detach(), float(loss), logits


@pytest.mark.parametrize("micro_batch", [1, 2, 5, 12, 13])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"class_weights": "inverse", "label_smoothing": 0.2},
        {"class_weights": "inverse", "focal_gamma": 2.0, "head_l1": 0.01, "head_l2": 0.01},
        {"focal_gamma": 1.0, "label_smoothing": 0.1, "smoothed_over": "others", "grad_clip": 0.1},
        {"class_weights": "inverse", "label_smoothing": 0.2, "mixed": True, "logit_adjustment": 1.0},
        {"head_width": 5},
        {"freeze": True},
    ],
)
def test_micro_batches_have_the_gradient_of_the_mean_over_the_batch(fields: dict[str, Any], micro_batch: int) -> None:
    whole, loss, logits = gradients(**fields)
    found, found_loss, found_logits = gradients(micro_batch=micro_batch, **fields)
    torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found_logits, logits, rtol=1e-5, atol=1e-6)
    assert found_loss == pytest.approx(loss, rel=1e-5)


def test_a_whole_batch_is_computed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for micro_batch, sizes in ((0, [13]), (13, [13]), (99, [13]), (6, [5, 4, 4]), (1, [1] * 13)):
        seen: list[int] = []
        made = tiny.config(model="simple_cnn", micro_batch=micro_batch)
        _, state = tiny.start(made)
        state.model.register_forward_pre_hook(lambda module, inputs, seen=seen: seen.append(len(inputs[0])))
        optimizer_step(state.kept, torch.randn(ROWS, 3, SIZE, SIZE), torch.zeros(ROWS, dtype=torch.int64))
        assert seen == sizes


def test_no_micro_batch_of_two_is_left_with_a_single_row() -> None:
    """Train a net whose maps shrink to one pixel, where batch norm refuses one row."""
    made = tiny.config(model="resnet18", stem="imagenet", micro_batch=2)
    learner = Learner.start(made, 3, 8, ROWS, tiny.CPU)
    learner.begin_epoch(1)
    for rows in (1 + 2, 5, ROWS):
        loss, logits = optimizer_step(learner, torch.randn(rows, 3, SIZE, SIZE), torch.arange(rows) % 3)
        assert len(logits) == rows
        assert loss.isfinite()


def test_float16_scales_the_gradients_of_micro_batches_once() -> None:
    whole, loss, _ = gradients(precision="float16")
    found, found_loss, _ = gradients(precision="float16", micro_batch=4)
    torch.testing.assert_close(found, whole, rtol=0.05, atol=1e-3)
    assert found_loss == pytest.approx(loss, rel=1e-2)


# The moving average


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.999])
def test_the_average_is_torchs_after_its_warm_up(decay: float) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    ours = MovingAverage(model, list(model.state_dict(keep_vars=True).values()), decay)

    def lerp(averages: Any, currents: Any, count: Any) -> None:
        """Do what `get_ema_multi_avg_fn` does, with the decay that is due."""
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, currents, 1 - min(decay, (1 + int(count)) / (10 + int(count))))

    theirs = AveragedModel(model, multi_avg_fn=lerp, use_buffers=True)
    theirs.n_averaged += 1  # torch's first update only copies
    ours.updates = 1
    for _ in range(5):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        model(torch.randn(8, 3, 6, 6))
        theirs.update_parameters(model)
        ours.update()
    found, expected = ours.model.state_dict(), theirs.module.state_dict()
    assert found.pop("1.num_batches_tracked") == 5
    expected.pop("1.num_batches_tracked")
    torch.testing.assert_close(found, expected)
    assert not any(parameter.requires_grad for parameter in ours.model.parameters())


def test_the_average_by_hand() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = MovingAverage(model, [model.weight], 0.25)
    nn.init.ones_(model.weight)
    expected = 0.0
    for decay in (1 / 10, 2 / 11, 3 / 12, 0.25, 0.25):
        average.update()
        expected = decay * expected + 1 - decay
        assert average.model.get_parameter("weight").item() == pytest.approx(expected)


def test_a_frozen_base_is_not_copied() -> None:
    _, state = tiny.start(tiny.config(freeze=True, ema=0.9))
    assert state.kept.average is not None
    own = dict(state.model.named_parameters())
    shared = [name for name, p in state.kept.average.model.named_parameters() if p is own[name]]
    assert sorted(own.keys() - shared) == ["fc.bias", "fc.weight"]


@pytest.mark.parametrize("fields", [{}, {"freeze": True}, {"freeze": True, "flip": True}, {"selection": "last"}])
def test_the_average_is_scored_kept_and_measured(fields: dict[str, Any]) -> None:
    made = tiny.config(ema=0.8, **fields)
    data, state = tiny.start(made)
    data = data.of_run(made, final=True)
    found = []
    for epoch in train(data, state):
        found.append(epoch)
        logits, labels = predict(made, data.batches, data.scored_rows, state.kept.scored_model)
        assert epoch.val_accuracy == pytest.approx(float((logits.argmax(1) == labels).float().mean()))
        live, _ = predict(made, data.batches, data.scored_rows, state.model)
        assert not torch.equal(live, logits)
    assert final_metrics(data, state)["validation"]["accuracy"] == state.score
    kept = copy.deepcopy(state.model)
    kept.load_state_dict(state.kept_weights())
    logits, labels = predict(made, data.batches, data.scored_rows, kept)
    assert state.score == pytest.approx(float((logits.argmax(1) == labels).float().mean()))


def test_training_is_the_same_beside_an_average() -> None:
    plain, averaged = (list(tiny.epochs(tiny.config(ema=ema))) for ema in (0.0, 0.99))
    assert [epoch.train_loss for epoch in plain] == [epoch.train_loss for epoch in averaged]


def test_the_average_of_a_head_shares_the_frozen_base() -> None:
    _, state = tiny.start(tiny.config(freeze=True, ema=0.9))
    average = state.kept.average
    assert average is not None
    assert [tuple(pair[0].shape) for pair in average._floats] == [(3, 64), (3,)]
    assert not average._others


# Fine-tuning by parts


class PartlyFixed(nn.Module):
    """A net that fixes a parameter itself, and has statistics without parameters in a block of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4), requires_grad=False)
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4, affine=False)
        self.fc = nn.Linear(4, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.norm(self.conv(images)) * self.scale[:, None, None]
        return self.fc(maps.mean((2, 3)))  # type: ignore[no-any-return]


def test_what_a_model_fixes_stays_fixed_and_statistics_wait_for_all_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "build_filled", lambda *_: (PartlyFixed(), None))
    learner = Learner.start(tiny.config(head_epochs=1, grad_clip=1.0), 3, 8, ROWS, tiny.CPU)
    model = cast(PartlyFixed, learner.model)
    before = cast(Tensor, model.norm.running_mean).clone()
    images, labels = torch.randn(ROWS, 3, SIZE, SIZE), torch.arange(ROWS) % 3
    for epoch in (1, 2):
        learner.begin_epoch(epoch)
        for _ in range(3):
            optimizer_step(learner, images, labels)
        assert model.scale.grad is None
        assert torch.equal(cast(Tensor, model.norm.running_mean), before) == (epoch == 1)
    assert torch.equal(model.scale, torch.ones(4))


def learning(made: TrialConfig, model: nn.Module, epoch: int) -> set[int]:
    """Return the depths of the layers that learn in `epoch`; what learns is in training mode, all else is not."""
    unfreezing.set_training(made, model, epoch, list(model.parameters()))
    depths = layers.depths(model)
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        assert not own or module.training == any(p.requires_grad for p in own)
    return {depths[name] for name, p in model.named_parameters() if p.requires_grad}


def test_layers_are_unfrozen_from_the_last_to_the_first() -> None:
    made = tiny.config(head_epochs=2, unfreeze_epochs=3, max_epochs=9)
    _, state = tiny.start(made)  # a resnet8 has four layers below its head
    found = [learning(made, state.model, epoch) for epoch in range(1, 8)]
    assert found == [{0}, {0}, {0, 1, 2}, {0, 1, 2, 3}, {0, 1, 2, 3, 4}, {0, 1, 2, 3, 4}, {0, 1, 2, 3, 4}]
    assert [len(learning(tiny.config(unfreeze_epochs=9), state.model, epoch)) for epoch in range(1, 11)] == [
        2, 2, 3, 3, 4, 4, 5, 5, 5, 5
    ]  # fmt: skip


@pytest.mark.parametrize("unfreeze_epochs", [0, 4])
def test_what_does_not_learn_yet_stays_to_the_bit(unfreeze_epochs: int) -> None:
    made = tiny.config(head_epochs=1, unfreeze_epochs=unfreeze_epochs, max_epochs=5, flip=True, weight_decay=0.1)
    data, state = tiny.start(made)
    before = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
    depths = layers.depths(state.model) | {"bn1.running_mean": 4, "blocks.0.bn2.running_var": 3}
    for epoch in train(data, state):
        learned = epoch.epoch - 1 if unfreeze_epochs or epoch.epoch == 1 else max(depths.values())
        changed = {name for name in depths if not torch.equal(before[name], state.model.state_dict()[name])}
        assert changed == {name for name, depth in depths.items() if depth <= learned}


def test_epochs_of_the_head_are_those_of_a_frozen_trial() -> None:
    shared: dict[str, Any] = {"dropout": 0.3, "head_width": 6, "schedule": "constant"}
    parts = list(islice(tiny.epochs(tiny.config(head_epochs=3, max_epochs=5, **shared)), 3))
    frozen = list(islice(tiny.epochs(tiny.config(freeze=True, max_epochs=5, **shared)), 3))
    assert [tiny.lasting(epoch) for epoch in parts] == [tiny.lasting(epoch) for epoch in frozen]


@pytest.mark.parametrize(("fields", "kinds"), [({}, [True, True, False]), ({"flip": True}, [False] * 3)])
def test_the_head_learns_on_features_where_they_suffice(
    fields: dict[str, Any], kinds: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tiny.config(head_epochs=2, max_epochs=3, **fields)
    data, state = tiny.start(made)
    on_features = [state.kept.on_features for _ in train(data, state)]
    assert on_features == kinds
    found = [epoch.val_loss for epoch in tiny.epochs(made)]
    monkeypatch.setattr(features, "suffice", lambda config: False)
    assert [epoch.val_loss for epoch in tiny.epochs(made)] == pytest.approx(found, rel=1e-3)


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle", "plateau", "constant", "cyclic"])
def test_the_schedule_begins_when_the_base_does(schedule: str) -> None:
    fields: dict[str, Any] = {"schedule": schedule, "warmup": 0.25}
    after = [epoch.lr for epoch in tiny.epochs(tiny.config(head_epochs=2, max_epochs=6, **fields))]
    alone = [epoch.lr for epoch in tiny.epochs(tiny.config(max_epochs=4, **fields))]
    assert after[:2] == [0.05, 0.05]
    assert after[2:] == pytest.approx(alone)
    frozen = tiny.config(freeze=True, head_epochs=2, max_epochs=4, **fields)
    assert [epoch.lr for epoch in tiny.epochs(frozen)] == pytest.approx(alone)


@pytest.mark.parametrize("fields", [{"head_epochs": 9}, {"head_epochs": 4}, {"unfreeze_epochs": 9, "head_epochs": 1}])
def test_parts_that_are_longer_than_the_trial(fields: dict[str, Any]) -> None:
    made = tiny.config(**fields)
    data, state = tiny.start(made)
    data = data.of_run(made, final=True)
    assert len(list(train(data, state))) == 4
    assert final_metrics(data, state)["validation"]["accuracy"] == state.score


# All of them, resumed

FIELDS: dict[str, tuple[Any, ...]] = {
    "head_epochs": (0, 1, 2),
    "unfreeze_epochs": (0, 2),
    "base_lr": (1.0, 0.3),
    "lr_decay": (1.0, 0.7),
    "ema": (0.0, 0.9),
    "micro_batch": (0, 6),
    "freeze": (False, True),
    "optimizer": ("sgd", "adamw"),
    "schedule": ("cosine", "plateau"),
    "flip": (False, True),
    "dropout": (0.0, 0.3),
    "grad_clip": (0.0, 0.5),
    "stochastic_depth": (0.0, 0.3),
    "memory_format": ("contiguous", "channels_last"),
}


def begun(made: TrialConfig, data: SearchData) -> tuple[TrialData, TrialState]:
    selected = tiny.select_from(made, data)
    return selected, TrialState.start(made, selected, tiny.CPU)


@settings(max_examples=12)
@given(
    fields=st.fixed_dictionaries({name: st.sampled_from(values) for name, values in FIELDS.items()}),
    folds=st.sampled_from([1, 2]),
    stop=st.integers(1, 3),
)
def test_an_interrupted_trial_goes_on_to_the_bit(fields: dict[str, Any], folds: int, stop: int) -> None:
    made = tiny.config(**fields)
    data = folded(folds) if folds > 1 else tiny.search_data()
    selected, state = begun(made, data)
    straight = [tiny.lasting(epoch) for epoch in train(selected, state)]
    selected, first = begun(made, data)
    epochs = [tiny.lasting(epoch) for epoch in islice(train(selected, first), stop)]
    tensors, values = first.to_checkpoint()
    saved = safetensors.torch.load(safetensors.torch.save(tensors)), json.loads(json.dumps(values))
    selected, again = begun(made, data)
    again.restore(*saved[:2])
    epochs += [tiny.lasting(epoch) for epoch in train(selected, again)]
    assert epochs == straight
    for one, other in zip(state.learners, again.learners, strict=True):
        torch.testing.assert_close(other.kept_weights(), one.kept_weights(), rtol=0, atol=0)


def test_checkpoints_of_earlier_versions_number_the_parameters() -> None:
    """Renumber the parameters as vision transformers had them when their tokens decayed."""
    made, model = tiny.config(), nn.ModuleDict({"token": Token(), "fc": nn.Linear(3, 3)})
    optimizer = build_optimizer(made, model)
    for parameter in model.parameters():
        optimizer.state[parameter]["momentum_buffer"] = torch.randn_like(parameter)
    expected = moments(optimizer, model)
    former = sorted(model.named_parameters(), key=lambda pair: pair[1].ndim <= 1)
    assert [name for name, _ in former] == ["token.token", "fc.weight", "fc.bias"]
    numbered = {f"{i}.momentum_buffer": expected[f"{name}.momentum_buffer"] for i, (name, _) in enumerate(former)}
    again = build_optimizer(made, model)
    load_moments(again, model, numbered)
    torch.testing.assert_close(moments(again, model), expected, rtol=0, atol=0)
    order = [p for group in again.param_groups for p in group["params"]]
    assert order[0] is model["fc"].weight  # the token no longer decays, so it comes later


class Token(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, 3))
