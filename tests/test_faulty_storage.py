"""Storage that fails now and then, or for a minute: what cannot be read is not taken for absent, nothing is lost."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from faulty_files import Faults, faulty_storage
from test_trainable import Alone, assignment, lasting, run

from orchestrator.record import kept_weights
from trainables import checkpoint
from trainables.checkpoint import Position
from trainables.storage import Storage, StorageError, patiently

TENSORS = {"best.weight": torch.arange(6.0)}


def save(storage: Storage, attempt: int, epoch: int, loaded: Position | None = None) -> None:
    content = checkpoint.pack(TENSORS, {"epoch": epoch, "best_epoch": epoch})
    checkpoint.save(storage, 7, attempt, epoch, content, loaded)


def test_a_read_that_fails_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage, faults = faulty_storage(tmp_path, monkeypatch)
    save(storage, 0, 20)
    faults.read = 0.1
    for _ in range(200):
        saved = checkpoint.load(storage, 7)
        assert saved is not None
        assert saved.position == (0, 20)
        assert kept_weights.find(storage, 7, 20) is not None
        assert kept_weights.find(storage, 7, 19) is None, "the listing worked"
        assert checkpoint.load(storage, 8) is None
    assert faults.failed > 50


def test_a_minute_without_reads_costs_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage, faults = faulty_storage(tmp_path, monkeypatch)
    save(storage, 0, 20)
    faults.down_until = 60.0
    assert checkpoint.load(storage, 7) is not None
    assert faults.clock.slept == [0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0]


def test_storage_that_fails_for_long_is_no_absence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage, faults = faulty_storage(tmp_path, monkeypatch)
    save(storage, 0, 20)
    looks: list[Callable[[Storage, int], Any]] = [
        checkpoint.load,
        lambda *place: kept_weights.find(place[0], place[1], 20),
    ]
    for look in looks:
        faults.down_until = faults.clock.now + 3600
        with pytest.raises(StorageError, match=r"storage failed for 7\d s: When reading"):
            look(storage, 7)
    assert faults.clock.now < 200
    assert (tmp_path / "7" / "0-20.safetensors").exists()


@pytest.mark.parametrize("trial", [7, 8])
def test_an_attempt_that_cannot_read_is_lost(trial: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not known whether the trial has a state, so it must not begin."""
    storage, faults = faulty_storage(tmp_path, monkeypatch)
    save(storage, 0, 20)
    faults.down_until = 3600.0
    actor = actor_of(storage, trial=trial, attempt=1)
    result = actor.step()
    assert result["incident"]["happened"] == "storage"
    assert result["epochs"] == []
    assert "end" not in result
    assert [path.name for path in tmp_path.rglob("*.safetensors")] == ["0-20.safetensors"]


def test_no_state_is_removed_that_the_attempt_did_not_begin_with(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    save(storage, 0, 20)
    save(storage, 1, 3)
    assert states(tmp_path) == ["0-20", "1-3"], "it began at the start, for whatever reason"
    save(storage, 1, 4)
    assert states(tmp_path) == ["0-20", "1-4"]
    save(storage, 2, 5, loaded=Position(1, 4))
    assert states(tmp_path) == ["2-5"], "all up to the state that it began with"
    save(storage, 3, 6, loaded=Position(2, 5))
    (tmp_path / "7" / "2-9.safetensors").write_text("of a worker that was too late")
    save(storage, 3, 7, loaded=Position(2, 5))
    assert states(tmp_path) == ["2-9", "3-7"]


def states(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.rglob("*.safetensors"))


def test_waiting_ends_when_nobody_needs_it() -> None:
    def broken() -> None:
        raise OSError("no answer")

    with pytest.raises(StorageError):
        patiently(broken, give_up=lambda: True)


def test_a_full_disk_is_not_waited_for(tmp_path: Path) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left") as raised:
        patiently(full)
    assert not isinstance(raised.value, StorageError)


# Attempts of trials


def actor_of(storage: Storage, **assigned: Any) -> Alone:
    actor = Alone(assignment(**assigned), Path("unused"))
    actor._checkpoints = storage
    return actor


def test_no_trial_begins_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads and writes fail one time in ten, and all reads for a minute while a trial begins its second attempt.

    Every attempt dies after an epoch, whose state was saved.
    """
    monkeypatch.setattr(checkpoint.Saver, "due", lambda *arguments: True)
    alone = [epoch for result in lasting(run(plain(tmp_path / "alone"))) for epoch in result["epochs"]]
    storage, faults = faulty_storage(tmp_path / "faulty", monkeypatch)
    for trial in range(2):
        faults.fate, faults.read, faults.write = random.Random(trial), 0.1, 0.1
        epochs, attempts = run_in_attempts(storage, faults, trial)
        assert epochs == alone
        assert attempts == len(alone)
        assert states(tmp_path / "faulty" / str(trial)) == [f"{attempts - 1}-{len(alone)}"], "the weights are there"
    assert faults.failed > 10


def plain(folder: Path) -> Alone:
    return Alone(assignment(), folder)


def run_in_attempts(storage: Storage, faults: Faults, trial: int) -> tuple[list[dict[str, Any]], int]:
    """Run a trial whose worker dies after every epoch; return the epochs of its record, and the number of attempts."""
    epochs: list[dict[str, Any]] = []
    for attempt in range(20):
        faults.down_until = faults.clock.now + 40 if attempt == 1 else -1.0
        actor = actor_of(storage, trial=trial, attempt=attempt)
        result = actor.step()
        known = [tiny.lasting(epoch) for epoch in result["epochs"]]
        assert known[: len(epochs)] == epochs, "it goes on where the record is"
        epochs = known
        if result.get("done"):
            return epochs, attempt + 1
    raise AssertionError("the trial does not end")
