"""The Ray Tune `Trainable` around the loop: the one file here that imports Ray.

One actor runs many trials, one after the other. Whatever a trial does, its result is an ordinary one; so what Tune
calls an error is always a lost worker, never the trial's own fault. Torch is imported where it is used: the driver,
which needs this class, needs no torch.
"""

from __future__ import annotations

import os
import socket
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray.tune import Trainable

from trainables import checkpoint
from trainables.config import Diverged, EpochMetrics, TrialConfig

if TYPE_CHECKING:
    import torch

    from trainables.batches import Batches
    from trainables.loop import TrialState
    from trainables.splits import SearchData

MOST_LOST_S = 15.0  # seconds of training that a lost worker may cost, where epochs are shorter


class ImageTrial(Trainable):
    """Runs `train` for the assignment `{"trial": number, "attempt": number, "config": {…}}`.

    Results hold `trial`, `attempt`, `epochs` (those since the last result, as dicts of `EpochMetrics`), `worker`
    (with an attempt's first result) and, with the last one, `end` (status, stop_reason, error).
    """

    def setup(self, config: dict[str, Any], data: SearchData, folder: str) -> None:
        """`data` lies in the object store, shared by the actors of a node; checkpoints go under `folder`."""
        self._assignment = config
        self._data = data
        self._folder = Path(folder)
        self._batches: Batches | None = None
        self._broken = False  # a CUDA error leaves the whole process unusable
        self._epochs: Iterator[EpochMetrics] | None = None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Only take the next assignment: what can fail happens in `step`, where it belongs to the right trial."""
        if self._broken:
            os._exit(1)  # the next trial's attempt is lost at once and goes to a new actor
        self._assignment = new_config
        self._epochs = None
        return True

    def step(self) -> dict[str, Any]:
        identity = {"trial": self._assignment["trial"], "attempt": self._assignment["attempt"]}
        try:
            return identity | self._advance()
        except Diverged as error:
            end = {"status": "diverged", "stop_reason": "not_finite", "error": str(error)}
        except Exception as error:  # whatever it is, it is this trial's result
            reason = "out_of_memory" if out_of_memory(error) else "error"
            self._broken = reason == "error" and type(error).__name__ == "AcceleratorError"
            end = {"status": "failed", "stop_reason": reason, "error": traceback.format_exc(limit=-8)}
        self._epochs = None
        return identity | {"epochs": [], "end": end, "done": True}

    def _advance(self) -> dict[str, Any]:
        """The next epoch's result, and with the first those that a checkpoint has and the record may not."""
        if self._epochs is None:
            result = self._begin()
            if "end" in result:
                return result
        else:
            result = {"epochs": []}
        assert self._epochs is not None  # noqa: S101 - `_begin` sets it
        metrics = next(self._epochs)
        result["epochs"].append(metrics.to_dict())
        self._unsaved.append(metrics.to_dict())
        if metrics.stop_reason is not None:
            self._save({f"best.{n}": t for n, t in self._state.best_weights.items()}, {"ended": metrics.stop_reason})
            return {**result, **_completed(metrics.stop_reason)}
        if time.monotonic() - self._saved_at + metrics.train_s + metrics.eval_s > MOST_LOST_S:
            self._save(*self._state.to_checkpoint())
        return result

    def _begin(self) -> dict[str, Any]:
        """Start the assigned trial, or go on from its newest checkpoint."""
        import torch

        from trainables.batches import Batches
        from trainables.loop import TrialData, TrialState, train

        config = TrialConfig.from_dict(self._assignment["config"])
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.set_num_threads(config.threads)
        self._trial_folder = self._folder / str(self._assignment["trial"])
        self._saved_at = time.monotonic()
        self._unsaved: list[dict[str, Any]] = []
        saved = checkpoint.load(self._trial_folder)
        if saved is not None and "ended" in saved[1]:
            return {"epochs": saved[1]["epochs"], **_completed(saved[1]["ended"])}
        if self._batches is None:
            found = self._data
            self._batches = Batches(found.images, found.labels, found.mean, found.std, device)
        data = TrialData.select(config, self._data, self._batches)
        self._state = TrialState.start(config, data, device)
        if saved is not None:
            self._state.restore(*saved)
        self._epochs = train(config, data, self._state)
        worker = describe_worker(self._state, len(data.train_rows))
        return {"epochs": list(saved[1]["epochs"]) if saved else [], "worker": worker}

    def _save(self, tensors: dict[str, torch.Tensor], values: dict[str, Any]) -> None:
        values = {**values, "epochs": self._unsaved}
        checkpoint.save(self._trial_folder, self._assignment["attempt"], self._state.epoch, tensors, values)
        self._unsaved = []
        self._saved_at = time.monotonic()


def out_of_memory(error: Exception) -> bool:
    """Whether the trial asked for more memory than there is; torch's CPU allocator says so only in words."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in str(error) or "can't allocate memory" in str(error))
    )


def describe_worker(state: TrialState, train_rows: int) -> dict[str, Any]:
    """Where and how a trial runs, for the leaderboard."""
    import torch

    device = state.device
    return {
        "node": socket.gethostname(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "parameters": sum(p.numel() for p in state.model.parameters()),
        "train_rows": train_rows,
        "threads": torch.get_num_threads(),
    }


def _completed(stop_reason: str) -> dict[str, Any]:
    return {"end": {"status": "completed", "stop_reason": stop_reason, "error": None}, "done": True}
