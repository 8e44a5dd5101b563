"""A trial's state on storage: `<trial>/<attempt>-<epoch>.safetensors`, plain values as JSON in its header; no pickle.

It is one file, because a file can be replaced at once on disks and in buckets alike, but a folder cannot. Torch is
imported only by functions that handle tensors, so that the driver can look at checkpoints without it.
"""

from __future__ import annotations

import json
import re
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from safetensors import SafetensorError

from trainables import former_names
from trainables.storage import Storage, patiently

if TYPE_CHECKING:
    from torch import Tensor

VALUES = "values"  # the key in safetensors' metadata
SCORED = "scored.logits"  # the tensor of a final run's logits for the rows that it is scored on, float32 [N, C]
LONGEST_HEADER = 2**26  # bytes; a damaged file may claim any length
DAMAGED = (ValueError, KeyError, TypeError, SafetensorError)  # what reading the content of a damaged file raises

MOST_LOST_S = 15.0  # seconds of training that a lost worker may cost, if epochs are shorter
MOST_COST = 0.03  # share of a trial's time that checkpoints may take


def pack(tensors: dict[str, Tensor], values: dict[str, Any]) -> bytes:
    """Return a state as the bytes of a safetensors file: a copy, which later training does not change."""
    from safetensors.torch import save

    copies = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return save(copies, {VALUES: json.dumps(values)})


class Position(NamedTuple):
    """The place of a state among those of a trial: a later attempt's comes after all of an earlier one."""

    attempt: int
    epoch: int


def save(
    storage: Storage, trial: int, attempt: int, epoch: int, content: bytes, loaded: Position | None = None
) -> None:
    """Write a packed state, then remove those that it replaces: earlier ones of this attempt, and all up to `loaded`.

    A state of an earlier attempt that this one did not begin with stays: it may be better than this one. Unfinished
    files of earlier states are removed.

    Args:
        loaded: the state that the attempt began with; None if it began at the start.

    Raises:
        OSError: the storage failed; the state before is still intact.
    """
    here = Position(attempt, epoch)
    storage.write(f"{trial}/{attempt}-{epoch}.safetensors", content)
    for name in storage.names(str(trial)):
        match = _STATE.search(name)
        if match is None:
            continue
        there, complete = Position(int(match[1]), int(match[2])), _STATE.fullmatch(name)
        replaced = there.attempt == here.attempt or (loaded is not None and there <= loaded) or not complete
        if there < here and replaced:
            storage.remove(f"{trial}/{name}")


class Saved(NamedTuple):
    """A state that was loaded."""

    tensors: dict[str, Tensor]
    values: dict[str, Any]
    position: Position


def load(storage: Storage, trial: int) -> Saved | None:
    """Return the newest undamaged state of a trial; None if storage has none.

    Raises:
        StorageError: storage failed, and may have one.
    """
    return patiently(lambda: _load(storage, trial))


def _load(storage: Storage, trial: int) -> Saved | None:
    from safetensors.torch import load as unpack

    for name in newest_first(storage, trial):
        with suppress(*DAMAGED):
            values = read_values(storage, trial, name)
            return Saved(unpack(read(storage, trial, name)), values, position(name))
    return None


def read(storage: Storage, trial: int, name: str) -> bytes:
    """Return the packed state `name`."""
    with storage.open(f"{trial}/{name}") as file:
        content: bytes = file.read()
    return content


def read_values(storage: Storage, trial: int, name: str) -> dict[str, Any]:
    """Return the plain values of the state `name`; only the header of the file is read.

    Raises:
        OSError, ValueError, KeyError: the file cannot be read, or is damaged.
    """
    with storage.open(f"{trial}/{name}") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > LONGEST_HEADER:
            raise ValueError(f"{name}: damaged")
        header = json.loads(file.read(length))
    return former_names.checkpoint(json.loads(header["__metadata__"][VALUES]))


def newest_first(storage: Storage, trial: int) -> list[str]:
    """Return the names of a trial's states, the newest first."""
    states = (name for name in storage.names(str(trial)) if _STATE.fullmatch(name))
    return sorted(states, key=position, reverse=True)


_STATE = re.compile(r"(\d+)-(\d+)\.safetensors")


def position(name: str) -> Position:
    """Return the position of the state `name`."""
    return Position(*map(int, name.removesuffix(".safetensors").split("-")))


class Saver:
    """Saves the states of one attempt beside its training, one at a time, as often as their cost allows.

    `error` is the reason why the newest state could not be written, which does not stop the trial.
    """

    def __init__(self, storage: Storage, trial: int, attempt: int, loaded: Position | None = None) -> None:
        self.error: str | None = None
        self._loaded = loaded  # the state that the attempt began with
        self._storage = storage
        self._trial = trial
        self._attempt = attempt
        self._started_at = self._saved_at = time.monotonic()
        self._cost_s = 0.0  # time that training waited for states
        self._writing: threading.Thread | None = None
        self._abandoned = threading.Event()

    def due(self, epoch_s: float) -> bool:
        """Return whether to save before an epoch of `epoch_s` seconds, after which more than the limit could be lost.

        It is False while the last state is still being written, and while states have taken more than their share.
        """
        if self._writing is not None and self._writing.is_alive():
            return False
        now = time.monotonic()
        affordable = self._cost_s <= MOST_COST * (now - self._started_at)
        return affordable and now - self._saved_at + epoch_s > MOST_LOST_S

    def save(self, epoch: int, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Copy the state, and write it while training continues; the state before stays until it is written."""
        started = time.monotonic()
        content = pack(tensors, values)
        self._writing = threading.Thread(target=self._write, args=(epoch, content), daemon=True)
        self._writing.start()
        self._saved_at = time.monotonic()
        self._cost_s += self._saved_at - started

    def save_last(self, epoch: int, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Write the last state of an attempt before returning, in place of all other states of it."""
        self.wait()
        self._write(epoch, pack(tensors, values))

    def wait(self) -> None:
        """Wait until nothing is being written."""
        if self._writing is not None:
            self._writing.join()

    def abandon(self) -> None:
        """Remove the states of a trial that does not continue, also from storage that no other process can reach."""
        self._abandoned.set()
        self._discard()

    def _write(self, epoch: int, content: bytes) -> None:
        """Write a packed state, again if storage fails, and keep the reason if it fails all the time."""
        place = self._storage, self._trial, self._attempt, epoch
        try:
            patiently(lambda: save(*place, content, self._loaded), give_up=self._abandoned.is_set)
            self.error = None
        except OSError as error:
            self.error = str(error)
        if self._abandoned.is_set():  # the trial's folder may be gone by now, and must not come back
            self._discard()

    def _discard(self) -> None:
        """Remove this attempt's states."""
        with suppress(OSError):
            for name in self._storage.names(str(self._trial)):
                if _STATE.fullmatch(name) and position(name).attempt == self._attempt:
                    self._storage.remove(f"{self._trial}/{name}")
