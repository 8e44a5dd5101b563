"""The Ray Tune `Trainable` around the training loop: the only file of this package that imports Ray.

One actor runs many trials, one after the other. Whatever happens in a trial, its result is an ordinary one; so what
Tune calls an error is always a lost worker. Whose fault an exception was is for the driver to decide. Torch is imported
where it is used: the driver needs this class, but not torch.
"""

from __future__ import annotations

import json
import os
import socket
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ray import ObjectRef, get, get_runtime_context, is_initialized
from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put
from ray.tune import Trainable

from trainables import autos, checkpoint, hardware, memory
from trainables.checkpoint import Saved, Saver
from trainables.config import TrialConfig, format_key, format_of
from trainables.epoch_metrics import EpochMetrics
from trainables.errors import Diverged
from trainables.secrets import without_secrets
from trainables.storage import Storage, StorageError
from trainables.workload import Workload

if TYPE_CHECKING:
    from trainables.batches import Batches
    from trainables.features import Progress
    from trainables.loop import TrialData, TrialState
    from trainables.splits import SearchData

GROUP_S = 0.5  # in which epochs on features are put into one result
REPORT_S = 2.0  # between two results while features are computed, at least
HOLD_S = 1.0  # between two results of a worker that holds its device
PAUSED = {"paused": True, "done": True}  # the part of a result that ends an attempt at a rung


class ImageTrial(Trainable):
    """Runs `train` for the assignment `{"trial", "attempt", "config", "format", "formats", "final", "until", "avoid"}`.

    `config` is a `TrialConfig` as JSON; `format` is the numeric format of a trial that has begun, which it keeps on
    every device; `formats` are those that the sweep has for its net, by kind of device (see `precision`). `final` says
    whether `final_metrics` are wanted: no metrics on test rows are computed for a trial of the search. `until` is the
    epoch after which the attempt ends with its state saved, for another one to go on from: `paused`; null if it does
    not. `avoid` has `devices` (node id, device) on which this attempt should not run: a worker there holds its device,
    and says `held`, until it gets another trial.

    A result holds `trial`, `attempt` and `epochs` (those since the last result, as dicts of `EpochMetrics`; in an
    attempt's first result all epochs of its checkpoint). While features of a frozen base are computed, it has
    `features` in place of epochs: `rows` that are known, `of` how many, and the `seconds` of work since the last
    result. An attempt's first result says that it has begun, and only that: it has `place`. The next one also has
    `worker`, the last one `paused` or `end` (status, stop_reason, error and, for a final training run that ended by
    itself, final_metrics) or, after an exception, `incident`. `unsaved` is the reason why the newest checkpoint could
    not be written.

    A worker that is asked to go on after an incident ends its process instead.
    """

    def setup(
        self,
        config: dict[str, Any],
        data: SearchData,
        storage: Storage,
        device: str,
        run: str,
        weights: dict[tuple[str, str], ObjectRef] | None = None,
        workload: Workload | None = None,
    ) -> None:
        """Take what all trials of the sweep share.

        Args:
            data: lies in the object store, shared by the actors of a node.
            storage: for checkpoints.
            device: cpu or cuda.
            run: names this run of the sweep among all that use the same Ray cluster.
            weights: initial weights in the object store, by model and value of `weights`; others are read from files.
            workload: what each slot is planned to run; by default one trial.
        """
        self._assignment, self._data = config, data
        self._device, self._run = device, run
        self._weights = weights or {}
        self._workload = workload
        self._checkpoints = storage  # Tune has an attribute `_storage`
        self._batches: Batches | None = None
        self._running: _Running | None = None
        self._begun: dict[str, Any] = {}  # what the next result has besides
        self._over = False  # the attempt ended by an exception
        sharing = device == "cuda" and is_initialized()
        self._share = get_runtime_context().get_assigned_resources().get("GPU", 1.0) if sharing else 1.0
        memory.prepare()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next assignment, no more: what can fail happens in `step`, where it belongs to the right trial."""
        self._assignment = new_config
        self._begun, self._over = {}, False
        if self._running is not None:
            self._running.saver.abandon()
        self._running = None
        return True

    def step(self) -> dict[str, Any]:
        """Begin the assigned trial, train an epoch of it, or several brief ones; return the result in any case."""
        if self._over:
            os._exit(1)
        result: dict[str, Any] = {"trial": self._assignment["trial"], "attempt": self._assignment["attempt"]}
        result["epochs"] = []
        place = self._place()
        if [place["node_id"], place["device"]] in self._assignment["avoid"]["devices"]:
            time.sleep(HOLD_S)
            return {**result, "place": place, "held": True}
        try:
            if self._running is None:
                result |= {"place": place}
                self._begun = self._begin()
                return result if "end" not in self._begun else result | self._begun
            result |= self._begun
            self._begun = {}
            if self._running.prepare(result):
                until = time.monotonic() + GROUP_S
                self._running.advance(result)
                while self._running.brief and "done" not in result and time.monotonic() < until:
                    self._running.advance(result)
        except Exception as error:
            result["incident"] = self._describe(error)
            self._over = True
        if "done" in result:
            self._running = None
            memory.give_back(self._device)
        return result

    def _place(self) -> dict[str, Any]:
        """Return this process and where it is, as `Place` of the record has it."""
        context = get_runtime_context() if is_initialized() else None
        gpus = [] if context is None else context.get_accelerator_ids()["GPU"]
        return {
            "node": socket.gethostname(),
            "node_id": None if context is None else context.get_node_id(),
            "device": f"GPU {', '.join(gpus)}" if gpus else None,
            "pid": os.getpid(),
        }

    def _describe(self, error: Exception) -> dict[str, Any]:
        """Return what the driver must know of an exception to decide whose fault it was."""
        import torch

        device = torch.device(self._device)
        kind = "storage" if isinstance(error, StorageError) else "error"
        kind = "out_of_memory" if memory.out_of_memory(error, device) else kind
        text = str(error) if isinstance(error, Diverged) else without_secrets(traceback.format_exc(limit=-8))
        traceback.clear_frames(error.__traceback__)  # they hold tensors
        if self._running is not None:
            self._running.saver.wait()  # the trial may be tried again from there
        self._running = None
        return {
            "happened": "not_finite" if isinstance(error, Diverged) else kind,
            "error": text,
            "alone": self._share >= 1.0,
            "clean": memory.works(device),
            "micro_batch": (config := json.loads(self._assignment["config"]))["micro_batch"] or config["batch_size"],
        }

    def _begin(self) -> dict[str, Any]:
        """Start the assigned trial, or continue from its newest checkpoint; return what the next result has of it."""
        import torch

        trial = self._assignment["trial"]
        saved = checkpoint.load(self._checkpoints, trial)
        epochs: list[dict[str, Any]] = []
        if saved is not None:  # the journal may not have these epochs yet
            epochs += saved.values["epochs"]
            if "ended" in saved.values:
                end = _ended("completed", saved.values["ended"], final_metrics=saved.values["final_metrics"])
                return {"epochs": epochs, "worker": saved.values["worker"], **end}
        config = TrialConfig.from_dict(json.loads(self._assignment["config"]))
        self._take_weights(config)
        torch.set_num_threads(config.threads)
        data = self._select(config)
        config = config.replace(**self._resolve_format(config, data))
        loaded = None if saved is None else saved.position
        saver = Saver(self._checkpoints, trial, self._assignment["attempt"], loaded)
        self._running = _Running.begin(config, data, saved, saver, self._assignment["until"])
        return {"epochs": epochs, "worker": self._running.worker}

    def _select(self, config: TrialConfig) -> TrialData:
        """Select the trial's rows; the actor's first trial puts the images on the device."""
        import torch

        from trainables import precision
        from trainables.batches import Batches
        from trainables.loop import TrialData

        if self._batches is None:
            data, device = self._data, torch.device(self._device)
            memory.fence(device, self._share)
            self._batches = Batches.of(data, device)
            precision.prepare(device)
        return TrialData.select(config, self._data, self._batches).of_run(config, self._assignment["final"])

    def _take_weights(self, config: TrialConfig) -> None:
        """Take the trial's initial weights from the object store, if they are there, without a copy."""
        from trainables.models import weights

        net = config.model, config.weights
        if net in self._weights and not weights.is_held(*net):
            weights.hold(*net, get(self._weights[net]))

    def _resolve_format(self, config: TrialConfig, data: TrialData) -> dict[str, str]:
        """Return the trial's numeric format: its own if it has begun, else the sweep's for this kind of device.

        Workers without one measure at the same time, so that each has the neighbors that it will have in training.
        """
        from trainables import precision

        assigned, kind = self._assignment, precision.device_kind(data.batches.labels.device)
        known = assigned["format"] or assigned["formats"].get(kind)
        if known is not None or "auto" not in format_of(config).values():
            return known or format_of(config)
        key = f"{self._run}/{format_key(config.to_dict(), kind)}"
        if _internal_kv_get(key) is None:
            chosen = format_of(precision.resolve(config, data, self._workload))
            _internal_kv_put(key, json.dumps(chosen), overwrite=False)
        return dict(json.loads(_internal_kv_get(key)))


@dataclass
class _Running:
    """The trial that an actor runs, and all that its next checkpoint must hold."""

    data: TrialData
    state: TrialState
    saver: Saver
    worker: dict[str, Any]
    reported: list[dict[str, Any]]  # every epoch so far: a checkpoint has them, whatever the journal has lost
    until: int | None = None  # the epoch at which the attempt pauses

    def __post_init__(self) -> None:
        self.preparing = self._prepare()
        self.epochs: Iterator[EpochMetrics] = iter(())

    @classmethod
    def begin(
        cls,
        config: TrialConfig,
        data: TrialData,
        saved: Saved | None,
        saver: Saver,
        until: int | None = None,
    ) -> _Running:
        """Begin at the start, or where the checkpoint `saved` was made."""
        from trainables.loop import TrialState

        device = data.batches.labels.device
        memory.reset_peak(device)
        state = TrialState.start(config, data, device)
        if saved is not None:
            state.restore(saved.tensors, saved.values)
        reported = list(saved.values["epochs"]) if saved is not None else []
        return cls(data, state, saver, describe_worker(state, data), reported, until)

    def _prepare(self) -> Iterator[Progress]:
        """Compute features, if the trial needs any, and yield how far they are; then the epochs can begin."""
        from trainables.loop import preparing, train

        self.data = yield from preparing(self.data, self.state)
        self.epochs = train(self.data, self.state)

    @property
    def brief(self) -> bool:
        """True if an epoch takes less time than it takes to report it: a head learns, on features."""
        return self.state.kept.on_features

    def prepare(self, result: dict[str, Any]) -> bool:
        """Compute features for a while, and add to `result` how far they are; return whether all were there before."""
        until, seconds = time.monotonic() + REPORT_S, 0.0
        for progress in self.preparing:
            seconds += progress.seconds
            result["features"] = {"rows": progress.rows, "of": progress.of, "seconds": seconds}
            if time.monotonic() >= until:
                break
        return "features" not in result

    def advance(self, result: dict[str, Any]) -> None:
        """Train an epoch, add it to `result`, and save what must not be lost; or pause, if it is time for that."""
        from trainables.loop import final_metrics

        if self.until is not None and self.state.epoch >= self.until:  # the state was saved, and nobody heard of it
            result |= PAUSED
            return
        metrics = next(self.epochs)
        result["epochs"].append(metrics.to_dict())
        self.reported.append(metrics.to_dict())
        if metrics.stop_reason is not None:
            measured = final_metrics(self.data, self.state)
            self._save_best(metrics.stop_reason, measured)
            result |= _ended("completed", metrics.stop_reason, final_metrics=measured)
        elif self.state.epoch == self.until:
            tensors, values = self.state.to_checkpoint()
            self.saver.save_last(self.state.epoch, tensors, {**values, "epochs": self.reported})
            result |= PAUSED
        elif self.saver.due(metrics.train_s + metrics.eval_s):
            tensors, values = self.state.to_checkpoint()
            self.saver.save(self.state.epoch, tensors, {**values, "epochs": self.reported})
        if self.saver.error is not None:  # a full disk costs the checkpoint, not the trial
            result["unsaved"] = self.saver.error

    def _save_best(self, stop_reason: str, final_metrics: dict[str, dict[str, Any]]) -> None:
        """Save all that is still needed of a trial that has ended."""
        best = {f"best.{name}": tensor for name, tensor in self.state.kept_weights().items()}
        if self.state.scored_logits is not None:  # of which ensembles are judged
            best[checkpoint.SCORED] = self.state.scored_logits
        kept = {"best_epoch": self.state.best_epoch, "calibration": self.state.calibration}
        values = {"ended": stop_reason, "worker": self.worker, "final_metrics": final_metrics, **kept}
        self.saver.save_last(self.state.epoch, best, {**values, "epochs": self.reported})


def describe_worker(state: TrialState, data: TrialData) -> dict[str, Any]:
    """Return where and how a trial runs, for the leaderboard."""
    import torch

    device = state.device
    return {
        "node": socket.gethostname(),
        "node_id": get_runtime_context().get_node_id() if is_initialized() else None,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cpu": hardware.cpu_model(),
        "parameters": sum(p.numel() for p in state.model.parameters()),
        "train_rows": len(data.train_rows),
        "image_size": data.image_size,
        "positive_class": data.positive if data.classes == 2 else None,
        "threads": torch.get_num_threads(),
        "micro_batch": state.config.micro_batch or None,
        "format": format_of(state.config),
        "weights": None if state.kept.filled is None else state.kept.filled.to_dict(),
        "inputs": {name: getattr(state.config, name) for name in autos.OF_WEIGHTS},
    }


def _ended(
    status: str, stop_reason: str, error: str | None = None, final_metrics: dict[str, dict[str, Any]] | None = None
) -> dict[str, Any]:
    """Return the part of a result that ends a trial."""
    end = {"status": status, "stop_reason": stop_reason, "error": error}
    return {"end": end | ({"final_metrics": final_metrics} if final_metrics else {}), "done": True}
