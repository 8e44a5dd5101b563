"""The winner as files: weights, configuration, labels, preprocessing, metrics. Needs no Ray."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors.numpy import load, save

from orchestrator.ranking import is_ranked, rank_key, ranked
from orchestrator.state import Event, SweepState, TrialRecord
from trainables import checkpoint
from trainables.config import TrialConfig
from trainables.files import replace_file
from trainables.splits import SearchData, trial_rows
from trainables.storage import Storage

SCHEMA_VERSION = 1
DESCRIPTIONS = ("config.json", "labels.json", "preprocessing.json", "metrics.json")
KEPT = 5  # trials whose weights are kept while the sweep runs


Weights = dict[str, NDArray[Any]]
"""Of a model, by parameter name."""


def kept_weights(storage: Storage, trial: int, epoch: int | None) -> Weights | None:
    """The trial's weights at `epoch`, its best one, if a checkpoint on this machine's `storage` has them."""
    with contextlib.suppress(OSError):
        for name in checkpoint.newest_first(storage, trial):
            with contextlib.suppress(*checkpoint.UNREADABLE):
                if checkpoint.read_values(storage, trial, name)["best_epoch"] != epoch:
                    continue  # made before the epoch that turned out to be the best
                tensors = load(checkpoint.read(storage, trial, name))
                return {n.removeprefix("best."): t for n, t in tensors.items() if n.startswith("best.")}
    return None


class Pruner:
    """Follows the journal and removes the checkpoints that nothing can need any more.

    Kept are those of unfinished trials, and the best weights of the best few that ran to their end.
    """

    def __init__(self, state: SweepState, storage: Storage) -> None:
        self._state = state
        self._first = state.next_n
        self._storage = storage
        self._kept: list[TrialRecord] = []

    def observe(self, event: Event) -> None:
        """Follow one journal event; what those of earlier commands left is for `tidy`."""
        if event["event"] != "trial_ended" or event["trial"] not in self._state.trials:  # its proposal was damaged
            return
        trial = self._state.trials[event["trial"]]
        if trial.status == "completed":
            self._kept = sorted([*self._kept, trial], key=rank_key)
            dropped = self._kept[KEPT:]
            self._kept = self._kept[:KEPT]
        else:
            dropped = [trial]
        if event["n"] >= self._first:
            self._remove(str(old.number) for old in dropped)

    def tidy(self) -> None:
        """Remove all that is there and should not be: what an earlier command, or a worker that was too late, left."""
        unfinished = [trial for trial in self._state.trials.values() if trial.end is None]
        names = {str(trial.number) for trial in (*self._kept, *unfinished)}
        with contextlib.suppress(OSError):
            self._remove(name for name in self._storage.names() if name.isdigit() and name not in names)

    def _remove(self, folders: Iterable[str]) -> None:
        for folder in folders:
            with contextlib.suppress(OSError):
                self._storage.remove_folder(folder)


def write(
    state: SweepState, data: SearchData, find: Callable[[TrialRecord], Weights | None], folder: Path
) -> TrialRecord | None:
    """Make `folder` the bundle of the best trial whose weights `find` finds, and return that trial.

    None, and no bundle, if there is none: of trials that were stopped the weights are not kept.

    Raises:
        OSError: the disk did not take it.
    """
    candidates = ((trial, find(trial)) for trial in ranked(state) if is_ranked(trial))
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


def is_whole(folder: Path) -> bool:
    """Whether the bundle's files can be read, and the weights are those that were written."""
    try:
        contents = {name: json.loads((folder / name).read_bytes()) for name in DESCRIPTIONS}
        model = (folder / "model.safetensors").read_bytes()
    except (OSError, ValueError):
        return False
    return isinstance(contents["config.json"], dict) and (
        contents["config.json"].get("model_sha256") == hashlib.sha256(model).hexdigest()
    )


def _descriptions(trial: TrialRecord, data: SearchData, digest: str) -> dict[str, Any]:
    """The bundle's JSON files, by name."""
    height, width, channels = data.images.shape[1:]
    size = trial.worker.get("image_size", min(height, width))
    best = next(epoch for epoch in trial.epochs if epoch["epoch"] == trial.best_epoch)
    rows = trial_rows(data, TrialConfig.from_dict(trial.config))
    return {
        "config.json": {
            "schema_version": SCHEMA_VERSION,
            "trial": trial.number,
            "config": {**trial.config, **trial.worker["form"], "image_size": size},
            "classes": len(data.classes),
            "image_size": size,
            "model_sha256": digest,
        },
        "labels.json": list(data.classes),
        "preprocessing.json": {
            "height": height,
            "width": width,
            "channels": channels,
            "scale": 1 / 255,
            "normalization": trial.config["normalization"],
            "mean": [float(value) for value in rows.mean],
            "std": [float(value) for value in rows.std],
        },
        "metrics.json": {
            "confirmed": False,
            "metric": trial.config["metric"],
            "score": trial.score,
            "best_epoch": best,
        },
    }
