"""Journals of sweeps that were never run: what reads sweeps needs no training.

`trial` makes the events of one trial with given scores, `write_sweep` a sweep of such trials; `sweep` makes a whole
search with learning curves and ASHA's stops, `confirm` goes on with it, and `write` writes its journal.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from optuna.distributions import CategoricalDistribution

from orchestrator.cluster import machine
from orchestrator.plan import plan
from orchestrator.plan.options import SweepOptions
from orchestrator.plan.request import Request
from orchestrator.record import journal_lines, provenance
from orchestrator.record.events import (
    Event,
    SweepEnded,
    SweepStarted,
    TestMeasured,
    TestOpened,
    TrialAttempt,
    TrialEnded,
    TrialEpoch,
    TrialProposed,
)
from orchestrator.record.facts import Measured, Spec, Worker
from orchestrator.record.journal import Journal
from orchestrator.record.journal_lines import CHECKED, SCHEMA
from orchestrator.record.ranking import best_trials
from orchestrator.record.state import SweepState, fold, replay
from orchestrator.search.trial_queue import NextTrial
from trainables import correct_predictions
from trainables.epoch_metrics import METRICS, EpochMetrics

SLOTS, EPOCHS, CLASSES, ROWS = 8, 27, 10, 2_000  # rows of the validation set, and of the test set
RUNGS = (1, 3, 9)
FAILED = 0.01  # of the trials
STARTED = 1.7e9  # seconds since 1970
EPOCH_S, TRAIN_S, EVAL_S = 2.0, 1.75, 0.2
WORKER = Worker(
    node="node", device="cpu", parameters=75_290, train_rows=4 * ROWS, image_size=8, threads=1,
    format={"precision": "float32", "memory_format": "contiguous"},
)  # fmt: skip
SPLIT = {
    "validation_rows": ROWS,
    "pool_rows": 4 * ROWS,
    "test_rows": ROWS,
    "search_rows": 5 * ROWS,
    "duplicate_rows": 0,
    "data_fingerprint": "d",
    "validation_fingerprint": "v",
}
PARAMS = {"lr": 0.1, "dropout": 0.1, "weight_decay": 1e-4, "label_smoothing": 0.1, "train_fraction": 0.9}


# One trial


def epoch_metrics(epoch: int, score: float, **changes: Any) -> dict[str, Any]:
    """Return the metrics of an epoch: every score is `score`, every loss 1 − `score`."""
    scores: dict[str, Any] = {name: score if better == "max" else 1 - score for name, better in METRICS.items()}
    made = EpochMetrics(
        epoch=epoch,
        step=64 * epoch,
        lr=0.1,
        train_loss=1 - score,
        train_accuracy=score,
        **scores,
        train_s=TRAIN_S,
        eval_s=EVAL_S,
        images_per_s=4 * ROWS / TRAIN_S,
        peak_memory_mb=900.0,
        peak_gpu_mb=None,
        val_confusion=None,
    )
    return made.to_dict() | changes


def trial(
    number: int,
    scores: Iterable[float] = (),
    status: str | None = "completed",
    reason: str = "budget",
    *,
    config: Mapping[str, Any] | None = None,
    due: NextTrial | None = None,
    measure: Callable[[int, float], dict[str, Any]] = epoch_metrics,
    worker: Worker = WORKER,
    final_metrics: dict[str, Any] | None = None,
    params: Mapping[str, Any] = PARAMS,
    **changes: Any,
) -> list[Event]:
    """Return the events of one trial with a score for each epoch, which still runs if `status` is None.

    Args:
        config: the whole configuration; without it, `write_sweep` adds that of its plan.
        due: its entry in the queue; without it, a searched trial of an ordinary sweep.
        measure: makes the metrics of an epoch from its number and score.
        final_metrics: of a final run, by part of the data.
        params: the searched values.
        changes: to some of `params`.
    """
    proposed = (due or NextTrial("", number)).proposal(number, {**params, **changes}, dict(config or {}))
    events: list[Event] = [proposed, TrialAttempt(number, 0)]
    epochs = [measure(epoch, score) for epoch, score in enumerate(scores, start=1)]
    if status == "completed" and epochs:
        epochs[-1]["stop_reason"] = reason
    events += [TrialEpoch(number, 0, epoch, worker if epoch is epochs[0] else None) for epoch in epochs]
    if status is not None:
        error = "Traceback …\nRuntimeError: broken" if status == "failed" else None
        events.append(
            TrialEnded(
                number, 0, status, reason, error, {part: Measured.of(m) for part, m in (final_metrics or {}).items()}
            )
        )
    return events


def measured(accuracy: float, rows: int = ROWS) -> dict[str, Any]:
    """Return what a final run measures on so many rows, of which it has the first ones right."""
    scores = {name.removeprefix("val_"): value for name, value in epoch_metrics(1, accuracy).items() if "val_" in name}
    del scores["confused"]
    right = np.arange(rows) < round(rows * accuracy)
    exact = {"rows": rows, "balanced_accuracy": accuracy, "correct": correct_predictions.pack(right)}
    bins = [[rows // 4, 0.5, accuracy / 2], [rows - rows // 4, 0.95, accuracy]]
    return {**scores, "confusion": _confusion(accuracy, rows), "reliability": bins, "seconds": 1.0, **exact}


def folded(*events: Event, state: SweepState | None = None, t: float = 0.0) -> SweepState:
    """Return `state`, or a new one, after `events`, which follow each other by a second."""
    state = SweepState() if state is None else state
    for second, event in enumerate(events):
        fold(state, replace(event, n=state.next_n, t=t + second))
    return state


def write_sweep(folder: Path, *trials: list[Event], split: Mapping[str, Any] = SPLIT, **options: Any) -> Path:
    """Write a sweep of digits into `folder`, by a real plan with these options."""
    asked = SweepOptions(**{"dataset": "digits", "name": folder.name, "confirm": 0, **options})
    planned = plan.make(Request(asked), [machine.Resources(2, 0)])
    folder.mkdir(parents=True)
    with closing(Journal(folder / "journal.jsonl")) as journal:
        journal.append(SweepStarted(Spec(plan=planned.to_dict(), slots=2, split=dict(split))))
        for event in (event for events in trials for event in events):
            if isinstance(event, TrialProposed) and not event.config:
                config = planned.space.config(event.params, threads=1, seed=event.trial)
                event = replace(event, config=config.to_dict())
            journal.append(event)
    return folder


# A whole search


def sweep(trials: int, **options: Any) -> list[Event]:
    """Return the events of a search of digits, by time; settings are drawn at random."""
    asked = {"dataset": "digits", "name": "simulated", "trials": trials, "max_epochs": EPOCHS, "grace": RUNGS[0]}
    request = Request(SweepOptions(**{**asked, "cpus_per_trial": 1, "confirm": 0, **options}))
    planned = plan.make(request, [machine.Resources(SLOTS, 0)])
    spec = Spec(plan=planned.to_dict(), split=SPLIT, **vars(provenance.describe(SLOTS)))
    events: list[Event] = [SweepStarted(spec)]
    free, generator = [0.0] * SLOTS, random.Random(0)
    for number in range(trials):
        slot = free.index(min(free))
        of_trial = _simulated(planned, number, free[slot], generator)
        free[slot] = of_trial[-1].t
        events += of_trial
    events.append(SweepEnded("finished", t=max(free)))
    return sorted(events, key=lambda event: event.t)


def confirm(events: list[Event]) -> list[Event]:
    """Return a search that has ended, made with the options `confirm` and `confirm_seeds`, with its confirmation.

    Runs of its best trial are the best ones, and are measured on a test set.
    """
    state = replay(replace(event, n=n) for n, event in enumerate(events))
    planned = state.spec.plan
    now, number, runs = events[-1].t, state.next_trial, list[Event]()
    won: list[tuple[int, float]] = []
    for place, best in enumerate(best_trials(state, "", planned["confirm"])):
        for seed in range(planned["confirm_seeds"]):
            accuracy = 0.95 - 0.02 * place - 0.005 * seed
            due = NextTrial("", seed, best.params, best.number)
            final = {"validation": measured(accuracy)}
            run = trial(
                number,
                [accuracy],
                due=due,
                measure=_metrics,
                final_metrics=final,
                params=best.params,
                config=best.config,
            )
            runs += [replace(event, t=now + second) for event, second in zip(run, (0, 0, 1, 2), strict=True)]
            won += [(number, accuracy)] if place == 0 else []
            now, number = now + 2, number + 1
    opened = TestOpened([run for run, _ in won], 1, t=now)
    tested = [TestMeasured(run, Measured.of(measured(accuracy - 0.01)), t=now) for run, accuracy in won]
    return [*events[:-1], *runs, replace(events[-1], t=now), opened, *tested]


def write(events: Iterable[Event], folder: Path) -> Path:
    """Write the journal of these timed events into `folder`, and return it."""
    stamps = ({"v": SCHEMA, "g": 1, "n": n, "t": STARTED + event.t} | event.content() for n, event in enumerate(events))
    write_lines(folder / "journal.jsonl", stamps)
    return folder


def write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Write lines, which may be of a journal as they were read, with the checksums that they should have."""
    with path.open("wb") as file:
        for line in lines:
            content = {name: value for name, value in line.items() if name != "crc"}
            checked = content["v"] >= CHECKED
            file.write(journal_lines.encode(content) if checked else f"{json.dumps(content)}\n".encode())


def _simulated(planned: plan.Plan, number: int, start: float, generator: random.Random) -> list[Event]:
    """Return the events of one trial that starts at second `start`."""
    params: dict[str, Any] = {}
    for name in planned.space.order():
        if planned.space.active(name, params):
            params[name] = _drawn(planned.space.distributions[name], generator)
    config = planned.space.config(params, threads=1, seed=number).to_dict()
    goal = 0.98 - 0.1 * abs(math.log10(params["lr"] / 0.15)) - 0.2 * params["dropout"] + generator.gauss(0, 0.01)
    reached = next((rung for rung, least in zip(RUNGS, (0.88, 0.92, 0.955), strict=True) if goal < least), EPOCHS)
    scores = [min(max(goal - 0.6 / e + generator.gauss(0, 0.005), 0.1), 1.0) for e in range(1, reached + 1)]
    status, reason = ("completed", "budget") if reached == EPOCHS else ("stopped", "asha")
    if generator.random() < FAILED:
        status, reason = "failed", "error"
    events = trial(number, scores, status, reason, config=config, measure=_metrics, params=params)
    seconds = [0.0, 0.0, *(EPOCH_S * epoch for epoch in range(1, reached + 1)), EPOCH_S * reached]
    return [replace(event, t=start + second) for event, second in zip(events, seconds, strict=True)]


def _drawn(distribution: Any, generator: random.Random) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return generator.choice(distribution.choices)
    if distribution.log:
        return math.exp(generator.uniform(math.log(distribution.low), math.log(distribution.high)))
    return generator.uniform(distribution.low, distribution.high)


def _confusion(accuracy: float, all_rows: int = ROWS) -> list[list[int]]:
    """Return counts by label and prediction where each class is taken for the next one if it is not recognized."""
    rows, classes = all_rows // CLASSES, range(CLASSES)
    wrong = rows - round(rows * accuracy)
    return [[rows - wrong if i == j else wrong if j == (i + 1) % CLASSES else 0 for j in classes] for i in classes]


def _metrics(epoch: int, score: float) -> dict[str, Any]:
    """Return the metrics of an epoch with its mistakes."""
    confusion = _confusion(score)
    wrong = confusion[0][1]
    confused = [[i, (i + 1) % CLASSES, wrong, i, i + CLASSES] for i in range(6)] if wrong else []
    return epoch_metrics(epoch, score, val_confusion=confusion, val_confused=confused)
