"""Journals of sweeps that were never run, in the form of real ones, with learning curves and ASHA's stops."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from optuna.distributions import CategoricalDistribution

from orchestrator.cluster import machine
from orchestrator.plan import plan
from orchestrator.plan.options import SweepOptions
from orchestrator.plan.request import Request
from orchestrator.record import provenance
from orchestrator.record.journal import SCHEMA
from orchestrator.record.ranking import best_trials
from orchestrator.record.state import Event, replay
from trainables import correct_predictions
from trainables.epoch_metrics import METRICS, EpochMetrics

SLOTS, EPOCHS, CLASSES, CORE = 8, 27, 10, 2_000
RUNGS = (1, 3, 9)
FAILED = 0.01  # of the trials
STARTED = 1.7e9  # seconds since 1970
EPOCH_S, TRAIN_S, EVAL_S = 2.0, 1.7, 0.2
FORM = {"precision": "float32", "memory_format": "contiguous"}
WORKER = {"node": "node", "device": "cpu", "parameters": 75_290, "train_rows": 4 * CORE, "format": FORM}
ENDED = {"status": "completed", "stop_reason": "budget", "error": None}
SPLIT = {
    "validation_rows": CORE,
    "pool_rows": 4 * CORE,
    "test_rows": CORE,
    "search_rows": 5 * CORE,
    "duplicate_rows": 0,
}


def sweep(trials: int, **options: Any) -> list[Event]:
    """The events of a search of digits, by time; settings are drawn at random."""
    given = {"dataset": "digits", "name": "simulated", "trials": trials, "max_epochs": EPOCHS, "grace": RUNGS[0]}
    asked = SweepOptions(**{**given, "cpus_per_trial": 1, "confirm": 0, **options})
    planned = plan.make(Request(asked), [machine.Resources(SLOTS, 0)])
    spec = {"plan": planned.to_dict(), "slots": SLOTS, "split": SPLIT, **provenance.describe()}
    events: list[Event] = [{"t": 0.0, "event": "sweep_started", "spec": spec}]
    free, fate = [0.0] * SLOTS, random.Random(0)
    for number in range(trials):
        slot = free.index(min(free))
        own = list(_trial(planned, number, free[slot], fate))
        free[slot] = own[-1]["t"]
        events += own
    events.append({"t": max(free), "event": "sweep_ended", "reason": "finished"})
    return sorted(events, key=lambda event: event["t"])


def confirm(events: list[Event]) -> list[Event]:
    """A search that has ended, made with the options `confirm` and `confirm_seeds`, with what confirming it adds.

    Runs of its best trial are the best ones, and are measured on a test set.
    """
    state = replay({"n": n, **event} for n, event in enumerate(events))
    planned, proposed = state.spec["plan"], {e["trial"]: e for e in events if e["event"] == "trial_proposed"}
    now, number, runs = events[-1]["t"], state.next_trial, list[Event]()
    won: list[tuple[int, float]] = []
    for place, confirmed in enumerate(trial.number for trial in best_trials(state, "", planned["confirm"])):
        for seed in range(planned["confirm_seeds"]):
            own = {"trial": number, "attempt": 0}
            accuracy = 0.95 - 0.02 * place - 0.005 * seed
            final = {"final": True, "confirms": confirmed, "index": seed}
            runs += [
                {**proposed[confirmed], **own, **final, "t": now},
                {**own, "t": now, "event": "trial_attempt"},
                {**own, "t": now + 1, "event": "trial_epoch", "metrics": _metrics(1, accuracy), "worker": WORKER},
                {
                    **own,
                    "t": now + 2,
                    "event": "trial_ended",
                    **ENDED,
                    "final_metrics": {"validation": _figures(accuracy)},
                },
            ]
            won += [(number, accuracy)] if place == 0 else []
            now, number = now + 2, number + 1
    opened = {"t": now, "event": "test_opened", "runs": [run for run, _ in won], "opening": 1}
    measured = [
        {"t": now, "event": "test_measured", "trial": run, "metrics": _figures(accuracy - 0.01)}
        for run, accuracy in won
    ]
    return [*events[:-1], *runs, {**events[-1], "t": now}, opened, *measured]


def write(events: Iterable[Event], folder: Path) -> Path:
    """The journal of these events in `folder`, which is returned."""
    with (folder / "journal.jsonl").open("w") as file:
        for n, event in enumerate(events):
            line = {"v": SCHEMA, "n": n, "trial": None, "attempt": None, **event, "t": STARTED + event["t"]}
            file.write(f"{json.dumps(line)}\n")
    return folder


def _trial(planned: plan.Plan, number: int, start: float, fate: random.Random) -> Iterator[Event]:
    """The events of one trial that starts at second `start`."""
    params: dict[str, Any] = {}
    for name in planned.space.order():
        if planned.space.active(name, params):
            params[name] = _drawn(planned.space.distributions[name], fate)
    config = planned.space.config(params, threads=1, seed=number).to_dict()
    own = {"trial": number, "attempt": 0}
    yield {**own, "t": start, "event": "trial_proposed", "params": params, "config": config}
    yield {**own, "t": start, "event": "trial_attempt"}
    goal = 0.98 - 0.1 * abs(math.log10(params["lr"] / 0.15)) - 0.2 * params["dropout"] + fate.gauss(0, 0.01)
    reached = next((rung for rung, least in zip(RUNGS, (0.88, 0.92, 0.955), strict=True) if goal < least), EPOCHS)
    for epoch in range(1, reached + 1):
        accuracy = min(max(goal - 0.6 / epoch + fate.gauss(0, 0.005), 0.1), 1.0)
        told = {"metrics": _metrics(epoch, accuracy), **({"worker": WORKER} if epoch == 1 else {})}
        yield {**own, "t": start + EPOCH_S * epoch, "event": "trial_epoch", **told}
    end: dict[str, Any] = ENDED if reached == EPOCHS else {**ENDED, "status": "stopped", "stop_reason": "asha"}
    if fate.random() < FAILED:
        end = {"status": "failed", "stop_reason": "error", "error": "Traceback …\nRuntimeError: made up"}
    yield {**own, "t": start + EPOCH_S * reached, "event": "trial_ended", **end}


def _drawn(distribution: Any, fate: random.Random) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return fate.choice(distribution.choices)
    if distribution.log:
        return math.exp(fate.uniform(math.log(distribution.low), math.log(distribution.high)))
    return fate.uniform(distribution.low, distribution.high)


def _metrics(epoch: int, accuracy: float) -> dict[str, Any]:
    """Of an epoch in which each class is taken for the next one, where it is not recognised."""
    rows = CORE // CLASSES
    wrong = rows - round(rows * accuracy)
    classes = range(CLASSES)
    scores: dict[str, Any] = {name: accuracy if better == "max" else 1 - accuracy for name, better in METRICS.items()}
    return EpochMetrics(
        epoch=epoch,
        step=64 * epoch,
        lr=0.1,
        train_loss=1 - accuracy,
        train_accuracy=accuracy,
        **scores,
        train_s=TRAIN_S,
        eval_s=EVAL_S,
        images_per_s=4 * CORE / TRAIN_S,
        peak_memory_mb=900.0,
        peak_gpu_mb=None,
        val_confusion=[
            [rows - wrong if i == j else wrong if j == (i + 1) % CLASSES else 0 for j in classes] for i in classes
        ],
        val_confused=[[i, (i + 1) % CLASSES, wrong, i, i + CLASSES] for i in range(6)] if wrong else [],
    ).to_dict()


def _figures(accuracy: float) -> dict[str, Any]:
    """Of a final run on as many rows as the core has."""
    measured = {name.removeprefix("val_"): value for name, value in _metrics(1, accuracy).items() if "val_" in name}
    hit = np.arange(CORE) < round(CORE * accuracy)
    return {
        **measured,
        "rows": CORE,
        "seconds": 1.0,
        "balanced_accuracy": accuracy,
        "correct": correct_predictions.pack(hit),
    }
