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
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from trainables import former_names
from trainables.storage import Storage

if TYPE_CHECKING:
    from torch import Tensor

VALUES = "values"  # the key in safetensors' metadata
SCORED = "scored.logits"  # the tensor of a final run's logits for the rows that it is scored on, float32 [N, C]
LONGEST_HEADER = 2**26  # bytes; a damaged file may claim any length
UNREADABLE = (OSError, ValueError, KeyError, SafetensorError)

MOST_LOST_S = 15.0  # seconds of training that a lost worker may cost, if epochs are shorter
MOST_COST = 0.03  # share of a trial's time that checkpoints may take


def pack(tensors: dict[str, Tensor], values: dict[str, Any]) -> bytes:
    """Return a state as the bytes of a safetensors file: a copy, which later training does not change."""
    from safetensors.torch import save

    copies = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return save(copies, {VALUES: json.dumps(values)})


def save(storage: Storage, trial: int, attempt: int, epoch: int, content: bytes) -> None:
    """Write a packed state, then remove older states, unfinished files too, of this attempt and of earlier attempts.

    Raises:
        OSError: the storage failed; the state before is still intact.
    """
    storage.write(f"{trial}/{_name(attempt, epoch)}", content)
    for name in storage.names(str(trial)):
        match = _STATE.search(name)
        if match and _order(match) < (attempt, epoch):
            storage.remove(f"{trial}/{name}")


def load(storage: Storage, trial: int) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return the newest state of a trial that can be read; None if there is none."""
    from safetensors.torch import load as unpack

    with suppress(OSError):
        for name in newest_first(storage, trial):
            with suppress(*UNREADABLE):
                values = read_values(storage, trial, name)
                return unpack(read(storage, trial, name)), values
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
    matches = (match for name in storage.names(str(trial)) if (match := _STATE.fullmatch(name)))
    return [match.string for match in sorted(matches, key=_order, reverse=True)]


_STATE = re.compile(r"(\d+)-(\d+)\.safetensors")


def _name(attempt: int, epoch: int) -> str:
    return f"{attempt}-{epoch}.safetensors"


def _order(match: re.Match[str]) -> tuple[int, int]:
    """Return attempt and epoch of a state's name."""
    return int(match[1]), int(match[2])


class Saver:
    """Saves the states of one attempt beside its training, one at a time, as often as their cost allows.

    `error` is the reason why the newest state could not be written, which does not stop the trial.
    """

    def __init__(self, storage: Storage, trial: int, attempt: int) -> None:
        self.error: str | None = None
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
        """Write the last state of a trial that has ended, in place of all its other states."""
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
        """Write a packed state, and keep the reason if that fails."""
        try:
            save(self._storage, self._trial, self._attempt, epoch, content)
            self.error = None
        except OSError as error:
            self.error = str(error)
        if self._abandoned.is_set():  # the trial's folder may be gone by now, and must not come back
            self._discard()

    def _discard(self) -> None:
        """Remove this attempt's states."""
        with suppress(OSError):
            for name in self._storage.names(str(self._trial)):
                match = _STATE.fullmatch(name)
                if match and int(match[1]) == self._attempt:
                    self._storage.remove(f"{self._trial}/{name}")
