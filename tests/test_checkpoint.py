"""Checkpoints: complete or absent; a trial that continues from one is as if it had never been interrupted."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load as unpack

from orchestrator.record import kept_weights
from trainables import checkpoint, loop, metrics
from trainables.config import TrialConfig
from trainables.loop import TrialState, train
from trainables.storage import Storage

EVERYTHING: dict[str, Any] = {
    "dropout": 0.2, "flip": True, "crop_padding": 1, "rotation": 10.0, "contrast": 0.2, "patience": 3,
    "warmup": 0.2, "grad_clip": 1.0, "label_smoothing": 0.1, "train_fraction": 0.7, "trivial_augment": True,
    "erasing": 0.3, "mixup": 0.4, "cutmix": 1.0, "logit_adjustment": 0.5,
}  # fmt: skip


# Continuing


def through_files(state: TrialState, folder: Path) -> None:
    checkpoint.save(Storage(str(folder)), 0, 0, state.epoch, checkpoint.pack(*state.to_checkpoint()))


def resumed(made: TrialConfig, folder: Path) -> tuple[Any, TrialState]:
    data, state = tiny.start(made)
    saved = checkpoint.load(Storage(str(folder)), 0)
    assert saved is not None
    state.restore(*saved[:2])
    return train(data, state), state


def assert_goes_on(made: TrialConfig, folder: Path) -> None:
    """Continue from every epoch: the remaining metrics and the state at the end must be the same."""
    data, state = tiny.start(made)
    whole = []
    for epoch in train(data, state):
        whole.append(tiny.lasting(epoch))
        through_files(state, folder / str(epoch.epoch))
    for done in range(1, len(whole)):
        rest, other = resumed(made, folder / str(done))
        assert [tiny.lasting(epoch) for epoch in rest] == whole[done:]
        (tensors, values), (expected, expected_values) = other.to_checkpoint(), state.to_checkpoint()
        torch.testing.assert_close(tensors, expected, rtol=0, atol=0)
        assert values == expected_values


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("schedule", ["constant", "cosine", "one_cycle", "cyclic", "plateau"])
def test_a_trial_goes_on_as_if_never_interrupted(optimizer: str, schedule: str, tmp_path: Path) -> None:
    assert_goes_on(tiny.config(optimizer=optimizer, schedule=schedule, **EVERYTHING), tmp_path)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_going_on_in_channels_last(optimizer: str, precision: str, tmp_path: Path) -> None:
    """Check the strides: fused steps run through memory in order, so the optimizer's state needs the weights'."""
    made = tiny.config(optimizer=optimizer, precision=precision, memory_format="channels_last", lr=0.01)
    assert_goes_on(made, tmp_path)


def test_going_on_without_momentum(tmp_path: Path) -> None:
    assert_goes_on(tiny.config(momentum=0.0), tmp_path)


def test_going_on_after_plateaus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = metrics.scores
    monkeypatch.setattr(loop, "scores", lambda *args: measured(*args)._replace(loss=1.0))
    made = tiny.config(schedule="plateau", max_epochs=6)
    assert_goes_on(made, tmp_path)
    *_, last = tiny.epochs(made)
    assert last.lr == pytest.approx(made.lr / 10)


def test_going_on_with_patience_half_used_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = metrics.scores
    monkeypatch.setattr(loop, "scores", lambda *args: measured(*args)._replace(accuracy=0.5))
    made = tiny.config(patience=3, max_epochs=9)
    assert_goes_on(made, tmp_path)
    assert len(list(tiny.epochs(made))) == 4


def test_the_weights_in_a_checkpoint_are_its_own() -> None:
    made = tiny.config()
    data, state = tiny.start(made)
    steps = train(data, state)
    next(steps)
    best = {name: tensor.clone() for name, tensor in state.kept.best_weights.items()}
    loop.train_epoch(data, state)
    torch.testing.assert_close(state.kept.best_weights, best, rtol=0, atol=0)


@pytest.mark.parametrize("fields", [{}, {"ema": 0.9}])
def test_weights_that_are_the_newest_and_the_best_are_saved_once(fields: dict[str, Any]) -> None:
    made = tiny.config(max_epochs=3, **fields)
    data, state = tiny.start(made)
    next(train(data, state))
    assert state.best_epoch == state.epoch
    tensors, values = state.to_checkpoint()
    trained = {name.removeprefix("best.") for name in tensors if name.startswith("best.")}
    again = {name.removeprefix("model.") for name in tensors if name.startswith("model.")}
    assert trained
    assert (not trained & again) == (not fields), "a moving average is another model than the newest one"
    _, other = tiny.start(made)
    other.restore(tensors, values)
    for left, right in zip(
        (state.model.state_dict(), state.kept_weights()), (other.model.state_dict(), other.kept_weights()), strict=True
    ):
        torch.testing.assert_close(dict(left), dict(right), rtol=0, atol=0)


# On the disk


TENSORS = {"weight": torch.arange(6.0).reshape(2, 3)}


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "checkpoints"))


def save(storage: Storage, attempt: int, epoch: int, loaded: tuple[int, int] | None = None) -> None:
    content = checkpoint.pack(TENSORS, {"epoch": epoch})
    checkpoint.save(storage, 7, attempt, epoch, content, None if loaded is None else checkpoint.Position(*loaded))


def loaded_epoch(storage: Storage) -> int | None:
    found = checkpoint.load(storage, 7)
    return None if found is None else found[1]["epoch"]


def names(storage: Storage) -> list[str]:
    return sorted(storage.names("7"))


def test_save_and_load(storage: Storage) -> None:
    assert checkpoint.load(storage, 7) is None
    tensors = {"weight": TENSORS["weight"].T}
    checkpoint.save(storage, 7, 0, 9, checkpoint.pack(tensors, {"epoch": 9, "score": None}))
    loaded = checkpoint.load(storage, 7)
    assert loaded is not None
    torch.testing.assert_close(loaded[0], tensors)
    assert loaded[1] == {"epoch": 9, "score": None}
    assert checkpoint.read_values(storage, 7, "0-9.safetensors") == loaded[1]
    assert checkpoint.load(storage, 8) is None


def test_a_packed_state_does_not_change_with_the_trial() -> None:
    tensor = torch.zeros(3)
    content = checkpoint.pack({"weight": tensor}, {})
    tensor += 1
    torch.testing.assert_close(unpack(content)["weight"], torch.zeros(3))


def test_one_state_is_kept(storage: Storage) -> None:
    for attempt, epoch, loaded in ((0, 2, None), (0, 10, None), (1, 13, (0, 10))):
        save(storage, attempt, epoch, loaded)
        assert names(storage) == [f"{attempt}-{epoch}.safetensors"]


def test_a_worker_that_was_given_up_changes_nothing_of_the_new_attempt(storage: Storage) -> None:
    save(storage, 1, 3)
    Path(storage.uri, "7", ".1-4.safetensors.99.tmp").write_text("half of the new attempt's next")
    save(storage, 0, 11)
    assert loaded_epoch(storage) == 3
    assert ".1-4.safetensors.99.tmp" in names(storage)
    save(storage, 1, 5)
    assert names(storage) == ["0-11.safetensors", "1-5.safetensors"], "what this attempt did not begin with stays"
    assert loaded_epoch(storage) == 5


def test_a_damaged_one_is_passed_over(storage: Storage) -> None:
    save(storage, 0, 1)
    first = Path(storage.uri, "7", "0-1.safetensors")
    whole = first.read_bytes()
    save(storage, 0, 2)
    second = Path(storage.uri, "7", "0-2.safetensors")
    content = second.read_bytes()
    first.write_bytes(whole)
    for length in range(len(content)):
        second.write_bytes(content[:length])
        assert loaded_epoch(storage) == 1
    second.write_bytes(b"\xff" * len(content))
    assert loaded_epoch(storage) == 1


class Killed(BaseException):
    """A process that ends at once: nothing is cleaned up after it."""


@pytest.mark.parametrize("syscall", ["fsync", "replace"])
def test_killed_while_saving(syscall: str, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    save(storage, 0, 1)

    def killed(*args: Any) -> None:
        monkeypatch.setattr(Path, "unlink", lambda *args, **kwargs: None)  # no `finally` runs after a SIGKILL
        raise Killed

    monkeypatch.setattr(os if syscall == "fsync" else Path, syscall, killed)
    with pytest.raises(Killed):
        save(storage, 0, 2)
    monkeypatch.undo()
    assert loaded_epoch(storage) == 1
    assert len(names(storage)) == 2
    save(storage, 1, 2, loaded=(0, 1))
    assert names(storage) == ["1-2.safetensors"]


def test_a_disk_that_is_full_leaves_the_old_one(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    save(storage, 0, 1)

    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save(storage, 0, 2)
    assert names(storage) == ["0-1.safetensors"]


# How often


class Clock:
    """A clock that a test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


def run_epochs(clock: Clock, saver: checkpoint.Saver, epochs: int, epoch_s: float, pack_s: float) -> list[int]:
    """Return the epochs at whose end the state was saved; an epoch takes `epoch_s`, a copy of the state `pack_s`."""
    saved = []
    for epoch in range(1, epochs + 1):
        clock.now += epoch_s
        if saver.due(epoch_s):
            saver.save(epoch, Slow(clock, pack_s), {})
            saver.wait()
            saved.append(epoch)
    return saved


class Slow(dict[str, torch.Tensor]):
    """An empty state that takes time to be copied."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        super().__init__()
        self._clock, self._seconds = clock, seconds

    def items(self) -> Any:
        self._clock.now += self._seconds
        return super().items()


@pytest.mark.parametrize(("epoch_s", "expected"), [(20.0, [1, 2, 3, 4, 5, 6]), (6.0, [2, 4, 6]), (1.0, [])])
def test_saved_each_epoch_or_each_15_seconds(
    epoch_s: float, expected: list[int], storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    saver = checkpoint.Saver(storage, 7, 0)
    assert run_epochs(clock, saver, 6, epoch_s, 0.0) == expected


def test_saved_as_often_as_its_share_of_the_time_allows(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    saver = checkpoint.Saver(storage, 7, 0)
    saved = run_epochs(clock, saver, 100, epoch_s=20.0, pack_s=2.0)
    assert 0.02 < 2.0 * len(saved) / clock.now < 0.035


def test_one_state_is_written_at_a_time(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "MOST_COST", 1.0)
    go_on, write = threading.Event(), Storage.write
    monkeypatch.setattr(Storage, "write", lambda self, *args: (go_on.wait(), write(self, *args)))
    saver = checkpoint.Saver(storage, 7, 0)
    saver.save(1, {}, {"epoch": 1})
    assert not saver.due(100.0)
    go_on.set()
    saver.wait()
    assert saver.due(100.0)
    assert loaded_epoch(storage) == 1


# The model that an interrupted trial leaves


@pytest.mark.parametrize(
    "fields", [{}, {"freeze": True}, {"selection": "last"}, {"ema": 0.9}, {"ema": 0.9, "selection": "last"}]
)
def test_the_best_weights_of_a_trial_that_goes_on_are_a_complete_model(fields: dict[str, Any], tmp_path: Path) -> None:
    made = tiny.config(max_epochs=4, **fields)
    data, state = tiny.start(made)
    training = train(data, state)
    for _ in range(3):
        next(training)
    through_files(state, tmp_path)
    found = kept_weights.find(Storage(str(tmp_path)), 0, state.best_epoch)
    assert found is not None
    expected = {name: tensor.numpy() for name, tensor in state.kept_weights().items()}
    assert found.tensors.keys() == expected.keys()
    assert all(np.array_equal(found.tensors[name], array) for name, array in expected.items())
