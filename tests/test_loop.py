"""The training loop: its mixed-precision step, its metrics, that it repeats itself, and how it ends."""

from __future__ import annotations

import ast
import dataclasses
import itertools
import json
import math
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import tiny
import torch
from sklearn import metrics as reference
from torch import Tensor, nn
from torch.nn import functional

from trainables import loop, metrics
from trainables.batches import Batches, steps_an_epoch
from trainables.epoch_metrics import EpochMetrics
from trainables.errors import Diverged
from trainables.evaluation import measured, predict
from trainables.learner import Learner
from trainables.loop import TrialData, TrialState, final_metrics, optimizer_step, train, train_epoch
from trainables.loss_scale import LONGEST_RUN
from trainables.metrics import scores
from trainables.trial_rows import trial_rows

PACKAGE = Path(loop.__file__).parent


def step_data(state: TrialState, rows: int = 16) -> tuple[Tensor, Tensor]:
    state.model.train()
    state.kept.schedule.set_rate(0)
    random = torch.Generator().manual_seed(1)
    return torch.randn(rows, 3, 8, 8, generator=random), torch.arange(rows) % 3


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def change(precision: str, **fields: Any) -> Tensor:
    """Return how one step changes the weights."""
    made = tiny.config(precision=precision, schedule="constant", **fields)
    _, state = tiny.start(made)
    before = weights(state.model)
    optimizer_step(state.kept, *step_data(state))
    return weights(state.model) - before


# The step


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("grad_clip", [0.0, 0.5])
def test_a_mixed_precision_step_is_close_to_the_float32_step(precision: str, grad_clip: float) -> None:
    exact, mixed = (change(p, grad_clip=grad_clip) for p in ("float32", precision))
    assert not torch.equal(exact, mixed)
    assert functional.cosine_similarity(exact, mixed, dim=0) > 0.99
    assert mixed.norm() == pytest.approx(float(exact.norm()), rel=0.05)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_clipping_acts_on_unscaled_gradients(precision: str) -> None:
    """Check the norm of a step of plain SGD without decay, which is lr × the clipped norm."""
    plain = {"momentum": 0.0, "weight_decay": 0.0, "lr": 1.0}
    assert change(precision, grad_clip=0.01, **plain).norm() == pytest.approx(0.01, rel=1e-3)
    assert change(precision, **plain).norm() > 0.1


def test_the_step_is_computed_in_its_precision() -> None:
    seen: list[torch.dtype] = []
    for precision in ("float32", "bfloat16", "float16"):
        made = tiny.config(precision=precision)
        _, state = tiny.start(made)
        state.model.conv1.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))  # type: ignore[union-attr]
        loss, logits = optimizer_step(state.kept, *step_data(state))
        assert (loss.dtype, logits.dtype) == (torch.float32, torch.float32)
        assert {p.dtype for p in state.model.parameters()} == {torch.float32}
        assert (loss.requires_grad, logits.requires_grad) == (False, False)
    assert seen == [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("grad_clip", [0.0, 1.0])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_float16_skips_a_step_that_overflows_and_recovers(optimizer: str, grad_clip: float) -> None:
    made = tiny.config(precision="float16", optimizer=optimizer, grad_clip=grad_clip)
    _, state = tiny.start(made)
    images, labels = step_data(state)
    overflow = state.model.conv1.weight.register_hook(lambda grad: grad * torch.inf)  # type: ignore[union-attr, operator]
    before, scale = weights(state.model), state.kept.scaler.get_scale()
    optimizer_step(state.kept, images, labels)
    assert torch.equal(weights(state.model), before)
    assert state.kept.scaler.get_scale() == scale / 2
    overflow.remove()
    moments = [t for entry in state.kept.optimizer.state.values() for name, t in entry.items() if name != "step"]
    assert moments
    assert all(not moment.any() for moment in moments)
    optimizer_step(state.kept, images, labels)
    assert weights(state.model).isfinite().all()
    assert not torch.equal(weights(state.model), before)
    assert state.kept.scaler.get_scale() == scale / 2


def overflowing(state: TrialState, *steps: int) -> None:
    """Have the first layer overflow in these steps of the training, counted from 0, and no gradient by its scale."""
    numbers, scaler = itertools.count(), state.kept.scaler
    scaler.load_state_dict({**scaler.state_dict(), "scale": 2.0**8})

    def spoil(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        return output * torch.inf if module.training and next(numbers) in steps else None

    state.model.conv1.register_forward_hook(spoil)  # type: ignore[union-attr]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_batch_that_overflows_float16_is_left_out_and_counted(optimizer: str, ema: float) -> None:
    """Nothing of it stays: weights, moments, batch norm's statistics, and the means over the epoch are finite."""
    made = tiny.config(precision="float16", optimizer=optimizer, lr=0.02, max_epochs=6, ema=ema)
    data, state = tiny.start(made)
    overflowing(state, 2, 5, 6)
    found = list(train(data, state))
    assert [epoch.skipped_steps for epoch in found] == [1, 2, 0, 0, 0, 0]
    assert all(math.isfinite(epoch.train_loss) and 0 <= epoch.train_accuracy <= 1 for epoch in found)
    for model in (state.model, state.kept.scored_model):
        assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
    assert state.kept.scaler.get_scale() == 2**5
    assert (found[-1].val_accuracy or 0.0) > 0.7


def test_the_means_of_an_epoch_are_those_of_the_steps_that_were_taken() -> None:
    made = tiny.config(precision="float16", lr=1e-12, epoch="rows", schedule="constant", weight_decay=0.0, momentum=0.0)
    data, state = tiny.start(made)
    plain = train_epoch(data, state)
    data, state = tiny.start(made)
    overflowing(state, 0)
    assert train_epoch(data, state).loss == pytest.approx(plain.loss, rel=0.15)


def test_statistics_of_batch_norm_are_as_before_a_step_that_is_left_out() -> None:
    _, state = tiny.start(tiny.config(precision="float16"))
    optimizer_step(state.kept, *step_data(state))
    before = {name: tensor.clone() for name, tensor in state.model.state_dict().items() if "running" in name}
    overflowing(state, 0)
    optimizer_step(state.kept, *step_data(state))
    assert before
    for name, tensor in before.items():
        assert torch.equal(state.model.state_dict()[name], tensor), name
    optimizer_step(state.kept, *step_data(state))
    assert not torch.equal(state.model.state_dict()["bn1.running_mean"], before["bn1.running_mean"])


def test_a_run_that_ends_in_time_is_none() -> None:
    made = tiny.config(precision="float16", batch_size=2, max_epochs=1)
    for length in (LONGEST_RUN - 1, LONGEST_RUN):
        data, state = tiny.start(made)
        overflowing(state, *range(3, 3 + length))
        if length < LONGEST_RUN:
            assert [epoch.skipped_steps for epoch in train(data, state)] == [length]
        else:
            with pytest.raises(Diverged, match=f"float16 overflowed in {LONGEST_RUN} steps in a row in epoch 1"):
                list(train(data, state))


def test_a_row_of_overflows_goes_on_from_a_checkpoint() -> None:
    made = tiny.config(precision="float16", batch_size=2, max_epochs=2)
    data, state = tiny.start(made)
    steps = steps_an_epoch(data.epoch_rows, 2)
    overflowing(state, *range(steps - 12, steps))
    assert next(train(data, state)).skipped_steps == 12
    tensors, values = state.to_checkpoint()
    for kept in (True, False):
        data, again = tiny.start(made)
        scaler = values["scaler"] if kept else {n: v for n, v in values["scaler"].items() if n != "in_a_row"}  # earlier
        again.restore(tensors, {**values, "scaler": scaler})
        overflowing(again, *range(12))
        if kept:
            with pytest.raises(Diverged, match="in a row in epoch 2"):
                list(train(data, again))
        else:
            assert [epoch.skipped_steps for epoch in train(data, again)] == [12]


def test_label_smoothing_is_in_the_training_loss_only() -> None:
    made = tiny.config(label_smoothing=0.3, dropout=0.0)
    data, state = tiny.start(made)
    images, labels = step_data(state)
    loss, logits = optimizer_step(state.kept, images, labels)
    target = 0.7 * functional.one_hot(labels, 3) + 0.1
    assert loss == pytest.approx(float(-(target * logits.log_softmax(1)).sum(1).mean()), rel=1e-5)
    validation_logits, validation_labels = predict(made, data.batches, data.scored_rows, state.model)
    plain = functional.cross_entropy(validation_logits, validation_labels).item()
    assert scores(validation_logits, validation_labels).loss == pytest.approx(plain, rel=1e-6)


def test_dropout_acts_in_training_only() -> None:
    made = tiny.config(dropout=0.5)
    data, state = tiny.start(made)
    images, _ = step_data(state)
    assert not torch.equal(state.model(images), state.model(images))
    first, again = (predict(made, data.batches, data.scored_rows, state.model)[0] for _ in range(2))
    assert torch.equal(first, again)


def test_predictions_keep_the_order_of_rows() -> None:
    made = tiny.config(flip=True, rotation=30.0, crop_padding=2)
    data, state = tiny.start(made)
    rows = torch.tensor([5, 3, 11, 4])
    logits, labels = predict(made, data.batches, rows, state.model)
    assert labels.tolist() == [row % 3 for row in rows.tolist()]
    one_by_one = torch.cat([predict(made, data.batches, row[None], state.model)[0] for row in rows])
    torch.testing.assert_close(logits, one_by_one)


# A trial


def test_what_an_epoch_measures() -> None:
    made = tiny.config()
    found = list(tiny.epochs(made))
    assert [epoch.epoch for epoch in found] == [1, 2, 3, 4]
    assert [epoch.step for epoch in found] == [4, 8, 12, 16]
    assert [epoch.stop_reason for epoch in found] == [None, None, None, "budget"]
    assert all(epoch.train_s > 0 and epoch.eval_s > 0 and epoch.peak_memory_mb > 1 for epoch in found)
    assert [e.images_per_s * e.train_s for e in found] == pytest.approx([tiny.POOL] * 4)
    assert (found[-1].val_accuracy or 0.0) > 0.9  # it does learn
    assert all(epoch.peak_gpu_mb is None for epoch in found)
    for epoch in found:
        assert epoch.val_confusion is not None
        matrix = np.array(epoch.val_confusion)
        assert matrix.sum(1).tolist() == [tiny.VALIDATION / 3] * 3
        assert epoch.val_accuracy == pytest.approx(matrix.trace() / tiny.VALIDATION)


def test_many_classes_have_no_confusion_matrix_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MANY_CLASSES", 2)
    (epoch,) = tiny.epochs(tiny.config(max_epochs=1))
    assert epoch.val_confusion is None


def test_the_training_metrics_are_means_over_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[tuple[float, float, int]] = []
    step = loop.optimizer_step

    def watched(learner: Learner, images: Tensor, labels: Tensor, *rest: None) -> tuple[Tensor, Tensor]:
        loss, logits = step(learner, images, labels, *rest)
        batches.append((loss.item(), float((logits.argmax(1) == labels).sum()), len(labels)))
        return loss, logits

    monkeypatch.setattr(loop, "optimizer_step", watched)
    (epoch,) = tiny.epochs(tiny.config(max_epochs=1))
    assert [rows for *_, rows in batches] == [16, 16, 16, 12]
    assert epoch.train_loss == pytest.approx(sum(loss * rows for loss, _, rows in batches) / tiny.POOL)
    assert epoch.train_accuracy == pytest.approx(sum(correct for _, correct, _ in batches) / tiny.POOL)


def test_a_seed_repeats_a_trial_bit_for_bit() -> None:
    everything = {"dropout": 0.3, "flip": True, "rotation": 10.0, "brightness": 0.2, "label_smoothing": 0.1}
    first, again, other = (
        [tiny.lasting(epoch) for epoch in tiny.epochs(tiny.config(seed=seed, **everything))] for seed in (1, 1, 2)
    )
    assert first == again
    assert all(a["train_loss"] != b["train_loss"] for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("fraction", [0.05, 0.5, 1.0])
def test_a_train_fraction_keeps_the_length_of_an_epoch(fraction: float, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tiny.config(train_fraction=fraction, max_epochs=2)
    seen: list[int] = []
    train_batches = Batches.train

    def watched(self: Batches, rows: Tensor, *rest: Any) -> Any:
        seen.extend(rows.tolist())
        return train_batches(self, rows, *rest)

    monkeypatch.setattr(Batches, "train", watched)
    found = list(tiny.epochs(made))
    assert [epoch.step for epoch in found] == [4, 8]
    assert [e.images_per_s * e.train_s for e in found] == pytest.approx([tiny.POOL] * 2)
    assert set(seen) == set(trial_rows(tiny.search_data(), made).train.tolist())


def test_schedules_span_the_steps_there_are() -> None:
    """Train on 60 rows, 59 to a batch: the single row that is left is no batch, so an epoch is one step."""
    made = tiny.config(schedule="one_cycle", warmup=0.25, batch_size=59, max_epochs=8)
    *_, last = tiny.epochs(made)
    assert last.step == 8
    assert last.lr == pytest.approx(made.lr / 25 / 1e4)


def scripted(monkeypatch: pytest.MonkeyPatch, values: list[float | None], metric: str) -> None:
    """Have evaluations measure `values`, one after the other."""
    remaining = iter(values)
    measured = scores

    def found(*args: Any) -> Any:
        changes: dict[str, Any] = {metric.removeprefix("val_"): next(remaining)}
        return measured(*args)._replace(**changes)

    monkeypatch.setattr(loop, "scores", found)


@pytest.mark.parametrize(
    ("metric", "values", "epochs", "best", "score"),
    [
        ("val_accuracy", [0.1, 0.3, 0.2, 0.3, 0.9], 4, 2, 0.3),  # as good is not better
        ("val_loss", [3.0, 1.0, 2.0, 1.0, 0.1], 4, 2, 1.0),
        ("val_accuracy", [0.1, 0.2, 0.3, 0.4, 0.5], 5, 5, 0.5),
        ("val_f1", [None, None, None, 0.1, 0.2], 3, 1, None),
        ("val_f1", [None, 0.1, None, 0.2, None], 5, 4, 0.2),
    ],
)
def test_patience_and_the_best_epoch(
    metric: str,
    values: list[float | None],
    epochs: int,
    best: int,
    score: float | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = tiny.config(metric=metric, patience=2, max_epochs=5)
    scripted(monkeypatch, values, metric)
    data, state = tiny.start(made)
    after: dict[int, dict[str, Tensor]] = {}
    found: list[EpochMetrics] = []
    for epoch in train(data, state):
        found.append(epoch)
        after[epoch.epoch] = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
    assert (len(found), state.best_epoch, state.score) == (epochs, best, score)
    assert found[-1].stop_reason == ("budget" if epochs == 5 else "patience")
    assert all(epoch.stop_reason is None for epoch in found[:-1])
    torch.testing.assert_close(state.kept.best_weights, after[best], rtol=0, atol=0)
    assert list(train(data, state)) == []  # it has ended


@pytest.mark.parametrize(
    ("values", "epochs", "score"),
    [([0.1, 0.3, 0.2, 0.3, 0.9], 4, 0.3), ([0.4, 0.3, 0.2], 3, 0.2), ([0.5, 0.6, 0.7, 0.8, None], 5, None)],
)
def test_the_last_epochs_weights_and_score(
    values: list[float | None], epochs: int, score: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Patience depends on the running best all the same."""
    made = tiny.config(selection="last", patience=2, max_epochs=5)
    scripted(monkeypatch, values, made.metric)
    data, state = tiny.start(made)
    for epoch in train(data, state):
        assert (state.score, state.best_epoch) == (values[epoch.epoch - 1], epoch.epoch)
    assert (state.epoch, state.best_epoch, state.score) == (epochs, epochs, score)
    torch.testing.assert_close(state.kept_weights(), dict(state.model.state_dict()), rtol=0, atol=0)
    assert state.kept.best_weights == {}  # no copies on the way


@pytest.mark.parametrize("fields", [{}, {"selection": "last", "patience": 2}, {"freeze": True}])
def test_a_restored_state_goes_on_as_if_nothing_had_been(
    fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tiny.config(max_epochs=6, **fields)

    def run(broken_after: int) -> tuple[list[dict[str, Any]], TrialState]:
        data, state = tiny.start(made)
        with monkeypatch.context() as patch:
            scripted(patch, [0.4, 0.6, 0.5, 0.5, 0.7, 0.8], made.metric)
            found = list(islice(train(data, state), broken_after))
            if broken_after:
                tensors, values = state.to_checkpoint()
                packed = safetensors.torch.save(tensors)  # it refuses tensors that share memory
                _, state = tiny.start(made)
                state.restore(safetensors.torch.load(packed), json.loads(json.dumps(values)))
            found += train(data, state)
        return [tiny.lasting(epoch) for epoch in found], state

    (expected, whole), (found, again) = run(0), run(3)
    assert found == expected
    for name in ("epoch", "score", "best_epoch", "peak", "peak_epoch"):
        assert getattr(again, name) == getattr(whole, name)
    torch.testing.assert_close(again.kept_weights(), whole.kept_weights(), rtol=0, atol=0)


# What is measured at the end


def with_parts(data: TrialData) -> TrialData:
    """Return the data with parts of many rows, of a few in another order, and of two of the three classes."""
    parts = {"train": data.train_rows, "test": data.scored_rows[[5, 3, 11]], "external": data.scored_rows[[0, 1, 3, 4]]}
    return dataclasses.replace(data, final_rows=parts)


@pytest.mark.parametrize("fields", [{}, {"freeze": True}, {"freeze": True, "head_width": 4, "flip": True}])
@pytest.mark.parametrize("selection", ["best", "last"])
def test_final_metrics_are_those_of_the_kept_weights(
    selection: str, fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tiny.config(selection=selection, dropout=0.5, **fields)
    scripted(monkeypatch, [0.1, 0.9, 0.8, 0.7], made.metric)
    data, state = tiny.start(made)
    data, after = with_parts(data), {}
    for epoch in train(data, state):
        after[epoch.epoch] = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
    monkeypatch.undo()
    found = final_metrics(data, state)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    _, fresh = tiny.start(made)
    fresh.model.load_state_dict(after[2 if selection == "best" else 4])
    assert list(found) == ["train", "test", "external"]
    for part, rows in data.final_rows.items():
        logits, labels = predict(made, data.batches, rows, fresh.model)  # whole images, though it has had features
        truth, hard = labels.numpy(), logits.argmax(1).numpy()
        figures = found[part]
        assert figures["rows"] == len(rows)
        assert figures["seconds"] > 0
        assert figures["loss"] == pytest.approx(functional.cross_entropy(logits, labels).item(), rel=1e-4)
        assert figures["accuracy"] == pytest.approx(reference.accuracy_score(truth, hard))
        assert figures["confusion"] == reference.confusion_matrix(truth, hard, labels=range(3)).tolist()
        recalls = reference.recall_score(truth, hard, labels=sorted(set(truth)), average=None)
        assert figures["balanced_accuracy"] == pytest.approx(recalls.mean())
        assert state.calibration is not None
        assert figures["temperature"] == state.calibration["temperature"]
        assert 0 <= figures["tempered_error"] <= 1
    assert (found["external"]["recall"], found["external"]["roc_auc"]) == (None, None)  # a class without rows


def test_a_trial_is_normalized_by_its_own_training_part() -> None:
    made, found = tiny.config(split="50:50"), tiny.search_data(opened=True)
    batches = Batches.of(found, tiny.CPU)
    data = TrialData.select(made, found, batches)
    assert len(data.train_rows) == data.epoch_rows == len(found.labels) // 2
    pixels = found.images[data.train_rows.numpy()] / 255
    assert (*data.batches.mean, *data.batches.std) == pytest.approx((pixels.mean(), pixels.std()))
    assert data.batches.images is batches.images
    assert batches.mean == pytest.approx(found.mean)


def test_no_parts_no_metrics() -> None:
    made = tiny.config(max_epochs=1)
    data, state = tiny.start(made)
    list(train(data, state))
    assert final_metrics(data, state) == {}


def test_a_loss_that_is_not_finite_is_no_figure() -> None:
    made = tiny.config(max_epochs=1)
    data, state = tiny.start(made)
    list(train(data, state))
    with torch.no_grad():
        state.kept.best_weights["fc.bias"].copy_(torch.tensor([torch.inf, 0, 0]))
    assert final_metrics(with_parts(data), state)["train"]["loss"] is None


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_a_trial_that_diverges_says_so_within_the_epoch(optimizer: str, precision: str) -> None:
    made = tiny.config(optimizer=optimizer, precision=precision, lr=1e30)
    found: list[EpochMetrics] = []
    with pytest.raises(Diverged, match="in epoch 1"):
        found.extend(tiny.epochs(made))
    assert found == []


def test_a_loss_that_is_not_finite_ends_a_long_epoch_early(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = 0

    def broken(learner: Learner, images: Tensor, labels: Tensor, *rest: None) -> tuple[Tensor, Tensor]:
        nonlocal steps
        steps += 1
        return torch.tensor(torch.nan), torch.zeros(len(labels), 3)

    monkeypatch.setattr(loop, "optimizer_step", broken)
    monkeypatch.setattr(loop, "CHECK_EVERY", 3)
    with pytest.raises(Diverged, match="training loss"):
        list(tiny.epochs(tiny.config(batch_size=2)))
    assert steps == 3


def test_a_validation_loss_that_is_not_finite_diverges(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [float("inf")], "val_loss")
    with pytest.raises(Diverged, match="validation loss is inf in epoch 1"):
        list(tiny.epochs(tiny.config()))


# What it does without


def test_only_the_trainable_imports_ray() -> None:
    def imports_ray(file: Path) -> bool:
        nodes = list(ast.walk(ast.parse(file.read_text())))
        names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
        names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
        return any(name.partition(".")[0] == "ray" for name in names)

    assert [str(f.relative_to(PACKAGE)) for f in PACKAGE.rglob("*.py") if imports_ray(f)] == ["trainable.py"]


def test_the_loop_runs_without_ray() -> None:
    script = "import sys; sys.modules['ray'] = None; import tiny; print(len(list(tiny.epochs(tiny.config()))))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=Path(__file__).parent, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "4"


@pytest.mark.parametrize("positive", [0, 1])
def test_measured_precision_is_that_of_the_given_class_whatever_its_share(positive: int) -> None:
    labels = torch.tensor([0] * 9 + [1] * 3 if positive else [0] * 3 + [1] * 9)
    logits = torch.randn(12, 2, generator=torch.Generator().manual_seed(0))
    found = measured(logits, labels, positive, temperature=None, seconds=0.0)
    assert found["recall"] == pytest.approx(reference.recall_score(labels, logits.argmax(1), pos_label=positive))
