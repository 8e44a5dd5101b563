"""Checkpoints: whole or absent, and a trial that goes on from one is the trial that was never interrupted."""

from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from trainables import checkpoint, loop
from trainables.config import TrialConfig
from trainables.loop import TrialState, train

EVERYTHING: dict[str, Any] = {
    "dropout": 0.2, "flip": True, "crop_padding": 1, "rotation": 10.0, "contrast": 0.2, "patience": 3,
    "warmup": 0.2, "grad_clip": 1.0, "label_smoothing": 0.1, "train_fraction": 0.7,
}  # fmt: skip


# Going on


def through_files(state: TrialState, folder: Path) -> None:
    checkpoint.save(folder, 0, state.epoch, *state.to_checkpoint())


def resumed(made: TrialConfig, folder: Path) -> tuple[Any, TrialState]:
    data, state = tiny.start(made)
    saved = checkpoint.load(folder)
    assert saved is not None
    state.restore(*saved)
    return train(made, data, state), state


def assert_goes_on(made: TrialConfig, folder: Path) -> None:
    """From every epoch: the same remaining metrics, and the same state at the end."""
    data, state = tiny.start(made)
    whole = []
    for epoch in train(made, data, state):
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
    """Fused steps go through memory in order, whatever the strides: the optimiser's state must have the weights'."""
    made = tiny.config(optimizer=optimizer, precision=precision, memory_format="channels_last", lr=0.01)
    assert_goes_on(made, tmp_path)


def test_going_on_without_momentum(tmp_path: Path) -> None:
    assert_goes_on(tiny.config(momentum=0.0), tmp_path)


def test_going_on_after_plateaus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = loop.evaluate
    monkeypatch.setattr(loop, "evaluate", lambda *args: measured(*args)._replace(loss=1.0))
    made = tiny.config(schedule="plateau", max_epochs=6)
    assert_goes_on(made, tmp_path)
    *_, last = tiny.epochs(made)
    assert last.lr == pytest.approx(made.lr / 10)


def test_going_on_with_patience_half_used_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = loop.evaluate
    monkeypatch.setattr(loop, "evaluate", lambda *args: measured(*args)._replace(accuracy=0.5))
    made = tiny.config(patience=3, max_epochs=9)
    assert_goes_on(made, tmp_path)
    assert len(list(tiny.epochs(made))) == 4


def test_the_weights_in_a_checkpoint_are_its_own() -> None:
    made = tiny.config()
    data, state = tiny.start(made)
    steps = train(made, data, state)
    next(steps)
    best = {name: tensor.clone() for name, tensor in state.best_weights.items()}
    loop.train_epoch(made, data, state)
    torch.testing.assert_close(state.best_weights, best, rtol=0, atol=0)


# On the disk


TENSORS = {"weight": torch.arange(6.0).reshape(2, 3)}


def saved_epochs(folder: Path) -> list[str]:
    return [state.name for state in checkpoint.newest_first(folder)]


def test_save_and_load(tmp_path: Path) -> None:
    assert checkpoint.load(tmp_path / "nothing") is None
    checkpoint.save(tmp_path, 0, 9, {"weight": TENSORS["weight"].T}, {"epoch": 9, "score": None})
    loaded = checkpoint.load(tmp_path)
    assert loaded is not None
    torch.testing.assert_close(loaded[0], {"weight": TENSORS["weight"].T})
    assert loaded[1] == {"epoch": 9, "score": None}
    checkpoint.save(tmp_path, 0, 10, TENSORS, {"epoch": 10})
    assert saved_epochs(tmp_path) == ["0-10"]
    assert [path.name for path in tmp_path.iterdir()] == ["0-10"]


def test_older_ones_are_kept_if_wanted(tmp_path: Path) -> None:
    for attempt, epoch in ((0, 1), (0, 2), (0, 10), (1, 3)):
        checkpoint.save(tmp_path, attempt, epoch, TENSORS, {}, keep=1)
    assert saved_epochs(tmp_path) == ["1-3", "0-10"]
    checkpoint.save(tmp_path, 0, 11, TENSORS, {})  # a worker that does not know that it was given up
    assert saved_epochs(tmp_path) == ["1-3", "0-11"]


@pytest.mark.parametrize("name", [checkpoint.TENSORS, checkpoint.VALUES])
def test_a_damaged_one_is_passed_over(name: str, tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 0, 1, TENSORS, {"epoch": 1})
    checkpoint.save(tmp_path, 0, 2, TENSORS, {"epoch": 2}, keep=1)
    file = tmp_path / "0-2" / name
    content = file.read_bytes()
    for length in range(len(content)):
        file.write_bytes(content[:length])
        loaded = checkpoint.load(tmp_path)
        assert loaded is not None
        assert loaded[1] == {"epoch": 1}
    file.unlink()
    loaded = checkpoint.load(tmp_path)
    assert loaded is not None
    assert loaded[1] == {"epoch": 1}


class Killed(BaseException):
    """The process is gone at once: nothing is cleaned up after it."""


@pytest.mark.parametrize(("syscall", "nth"), [("fsync", 1), ("fsync", 2), ("rename", 1)])
def test_killed_while_saving(syscall: str, nth: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(tmp_path, 0, 1, TENSORS, {"epoch": 1})
    calls = itertools.count(1)

    def killed(*args: Any) -> None:
        if next(calls) == nth:
            monkeypatch.setattr(shutil, "rmtree", lambda *args, **kwargs: None)  # no `finally` runs after a SIGKILL
            raise Killed

    monkeypatch.setattr(os, "fsync", killed if syscall == "fsync" else lambda file: None)
    if syscall == "rename":
        monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(Killed):
        checkpoint.save(tmp_path, 0, 2, TENSORS, {"epoch": 2})
    monkeypatch.undo()
    loaded = checkpoint.load(tmp_path)
    assert loaded is not None
    assert loaded[1] == {"epoch": 1}
    checkpoint.save(tmp_path, 0, 2, TENSORS, {"epoch": 2})  # the same process number may come again
    assert saved_epochs(tmp_path) == ["0-2"]


def test_a_disk_that_is_full_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(tmp_path, 0, 1, TENSORS, {"epoch": 1})

    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(tmp_path, 0, 2, TENSORS, {"epoch": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["0-1"]
