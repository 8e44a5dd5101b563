"""Sweeps as journals, written event by event: what reads sweeps needs no training."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from orchestrator.cluster import machine
from orchestrator.plan import plan
from orchestrator.plan.options import SweepOptions
from orchestrator.plan.request import Request
from orchestrator.record.journal import Journal
from orchestrator.record.state import Event
from trainables.epoch_metrics import METRICS

WORKER: dict[str, Any] = {
    "node": "here", "device": "cpu", "parameters": 1000, "train_rows": 900, "image_size": 8, "threads": 1,
    "format": {"precision": "float32", "memory_format": "contiguous"},
}  # fmt: skip
SPLIT = {"data_fingerprint": "d", "validation_fingerprint": "c"}


def epoch(number: int, score: float, last: bool) -> dict[str, Any]:
    """Return the metrics of an epoch; `val_loss` is 1 − the score."""
    measured = {name: score if better == "max" else 1 - score for name, better in METRICS.items()}
    return {
        "epoch": number, "step": number * 10, "lr": 0.1, "train_loss": 1.0, "train_accuracy": 0.5,
        **measured, "train_s": 1.0, "eval_s": 0.1, "images_per_s": 100.0,
        "peak_memory_mb": 100.0, "peak_gpu_mb": None, "val_confusion": None, "stop_reason": "budget" if last else None,
    }  # fmt: skip


def trial(
    number: int, scores: Iterable[float] = (), status: str | None = "completed", reason: str = "budget", **params: Any
) -> list[Event]:
    """Return the events of one trial, which still runs if `status` is None; `params` are searched values."""
    drawn = {"lr": 0.1, "dropout": 0.1, "weight_decay": 1e-4, "label_smoothing": 0.1, "train_fraction": 0.9, **params}
    base = {"trial": number, "attempt": 0}
    events: list[Event] = [
        {"event": "trial_proposed", **base, "params": drawn},
        {"event": "trial_attempt", **base},
    ]
    reached = list(scores)
    for i, score in enumerate(reached, start=1):
        ended = status == "completed" and i == len(reached)
        events.append({"event": "trial_epoch", **base, "metrics": epoch(i, score, ended), "worker": WORKER})
    if status is not None:
        error = "RuntimeError: broken" if status == "failed" else None
        events.append({"event": "trial_ended", **base, "status": status, "stop_reason": reason, "error": error})
    return events


def write(folder: Path, *trials: list[Event], split: dict[str, Any] = SPLIT, **options: Any) -> Path:
    """Write a sweep of digits into `folder`, by a real plan with these options."""
    asked = SweepOptions(**{"dataset": "digits", "name": folder.name, "confirm": 0, **options})
    planned = plan.make(Request(asked), [machine.Resources(2, 0)])
    folder.mkdir(parents=True)
    with closing(Journal(folder / "journal.jsonl")) as journal:
        spec = {"plan": planned.to_dict(), "slots": 2, "split": split}
        journal.append({"event": "sweep_started", "spec": spec})
        for event in (event for events in trials for event in events):
            if event["event"] == "trial_proposed":
                config = planned.space.config(event["params"], threads=1, seed=event["trial"])
                event = {**event, "config": config.to_dict()}
            journal.append(event)
    return folder
