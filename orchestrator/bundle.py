"""The winner as files: weights, configuration, labels, preprocessing, metrics. Needs no Ray."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from orchestrator.journal import Event, SweepState, TrialRecord, replace_file
from orchestrator.ranking import is_ranked, rank_key, ranked
from trainables import checkpoint
from trainables.splits import SearchData

SCHEMA_VERSION = 1
KEPT = 5  # trials whose weights are kept while the sweep runs


def kept_weights(trial: TrialRecord, checkpoints: Path) -> dict[str, NDArray[Any]] | None:
    """The weights at the trial's best epoch, if a checkpoint has them; numpy arrays by parameter name."""
    for state in checkpoint.newest_first(checkpoints / str(trial.number)):
        with contextlib.suppress(OSError, ValueError, SafetensorError):
            if json.loads((state / checkpoint.VALUES).read_bytes())["best_epoch"] != trial.best_epoch:
                continue  # made before the epoch that turned out to be the best
            tensors = load_file(state / checkpoint.TENSORS)
            return {n.removeprefix("best."): t for n, t in tensors.items() if n.startswith("best.")}
    return None


class Pruner:
    """Follows the journal and removes the checkpoints that nothing can need any more.

    Kept are those of unfinished trials, and the best weights of the best few that ran to their end.
    """

    def __init__(self, state: SweepState, checkpoints: Path) -> None:
        self._state = state
        self._checkpoints = checkpoints
        self._kept: list[TrialRecord] = []

    def observe(self, event: Event) -> None:
        if event["event"] != "trial_ended":
            return
        trial = self._state.trials[event["trial"]]
        if trial.status == "completed":
            self._kept = sorted([*self._kept, trial], key=rank_key)
            dropped = self._kept[KEPT:]
            self._kept = self._kept[:KEPT]
        else:
            dropped = [trial]
        for old in dropped:
            shutil.rmtree(self._checkpoints / str(old.number), ignore_errors=True)


def write(state: SweepState, data: SearchData, checkpoints: Path, folder: Path) -> TrialRecord | None:
    """Make `folder` the bundle of the best trial whose weights were kept, and return that trial.

    None, and no bundle, if there is none: of trials that were stopped the weights are not kept.

    Raises:
        OSError: the disk did not take it.
    """
    candidates = ((trial, kept_weights(trial, checkpoints)) for trial in ranked(state) if is_ranked(trial))
    trial, weights = next(((t, w) for t, w in candidates if w), (None, None))
    if trial is None or weights is None:
        return None
    fresh = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    model = save(weights)
    replace_file(fresh / "model.safetensors", model)
    for name, content in _descriptions(trial, data, hashlib.sha256(model).hexdigest()).items():
        replace_file(fresh / name, json.dumps(content, indent=2).encode())
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
    return trial


def _descriptions(trial: TrialRecord, data: SearchData, digest: str) -> dict[str, Any]:
    """The bundle's JSON files, by name."""
    height, width, channels = data.images.shape[1:]
    best = next(epoch for epoch in trial.epochs if epoch["epoch"] == trial.best_epoch)
    return {
        "config.json": {
            "schema_version": SCHEMA_VERSION,
            "trial": trial.number,
            "config": {**trial.config, **trial.worker["form"]},
            "classes": len(data.classes),
            "image_size": min(height, width),
            "model_sha256": digest,
        },
        "labels.json": list(data.classes),
        "preprocessing.json": {
            "height": height,
            "width": width,
            "channels": channels,
            "scale": 1 / 255,
            "normalization": trial.config["normalization"],
            "mean": [float(value) for value in data.mean],
            "std": [float(value) for value in data.std],
        },
        "metrics.json": {
            "confirmed": False,
            "metric": trial.config["metric"],
            "score": trial.score,
            "best_epoch": best,
        },
    }
