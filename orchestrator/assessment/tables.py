"""The tables of a sweep as Parquet: `leaderboard.parquet`, one row per trial, and `history.parquet`, one row per epoch.

Each file says where it came from: the sweep's whole record is in its metadata.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.assessment.confirmation import Confirmation, confirmation_of
from orchestrator.plan.plan import Plan
from orchestrator.record.aims import MEASURES, broken
from orchestrator.record.events import Event, TrialEnded
from orchestrator.record.front import aims_beside, front
from orchestrator.record.parquet import described, make, write
from orchestrator.record.paths import SweepFolder
from orchestrator.record.ranking import constraints, is_ranked, ranked
from orchestrator.record.state import SweepState, TrialRecord
from trainables.config import FIELD_TYPES
from trainables.epoch_metrics import METRICS, OF_THE_RUN, ON_LEADERBOARD, REAL_NUMBERS, column, is_user_metric

OF_THE_WHOLE = tuple(name for name in MEASURES if name not in METRICS)
"""The columns that `MEASURES` computes, but for the metrics of the best epoch."""
WRITE_EVERY_S = 10.0  # at most, while a sweep runs

_TIME = pa.timestamp("us", tz="UTC")
_ARROW = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}


def _fields(kind: pa.DataType, names: str) -> list[pa.Field]:
    return [pa.field(name, kind) for name in names.split()]


LEADERBOARD = pa.schema(
    [
        *_fields(pa.int64(), "rank trial"),
        *_fields(pa.string(), "arm"),
        *_fields(pa.int64(), "confirms"),
        *_fields(pa.bool_(), "refit"),
        *_fields(pa.string(), "status stop_reason"),
        *_fields(pa.float64(), "score"),
        *_fields(pa.bool_(), "winner front feasible"),
        *_fields(pa.float64(), "confirmed confirmed_low confirmed_high"),
        *_fields(pa.int64(), "best_epoch epochs attempts"),
        *_fields(pa.float64(), " ".join(ON_LEADERBOARD)),
        *_fields(pa.string(), "val_confusion final_metrics"),
        *(pa.field(f"config.{name}", _ARROW[kind]) for name, kind in FIELD_TYPES.items()),
        *_fields(pa.int64(), "train_rows"),
        *_fields(pa.float64(), "train_s eval_s wall_s images_per_s peak_memory_mb peak_gpu_mb"),
        *_fields(pa.int64(), "parameters drawn_tensors"),
        *_fields(pa.string(), "weights_sha256"),
        *_fields(pa.string(), "device precision"),
        *_fields(pa.int64(), "threads"),
        *_fields(pa.string(), "node"),
        *_fields(pa.int64(), "seed"),
        *_fields(_TIME, "started_at ended_at"),
        *_fields(pa.string(), "error split_protocol"),
    ]
)

HISTORY = pa.schema(
    [
        *_fields(pa.int64(), "trial attempt epoch step"),
        *_fields(pa.float64(), " ".join(name for name in REAL_NUMBERS if name not in OF_THE_RUN)),
        *_fields(pa.float64(), "score"),
        *_fields(pa.float64(), " ".join(OF_THE_RUN)),
        *_fields(pa.string(), "val_confusion"),
        *_fields(_TIME, "ended_at"),
    ]
)


def leaderboard(state: SweepState, confirmed: Confirmation | None) -> pa.Table:
    """Return one row per trial, sorted by rank, without confirmation runs."""
    trials, again = [trial for trial in ranked(state) if trial.confirms is None], _confirmed(confirmed)
    rows = (
        {**_trial_row(state, trial, place), **again.get(trial.number, {})}
        for place, trial in enumerate(trials, start=1)
    )
    return _table(_judged(state, rows), state)


def _judged(state: SweepState, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the rows; those of ranked trials say if they are on the front, and if they meet all constraints."""
    on_front = {trial.number for trial in front(state)} if aims_beside(state) else None
    bounds = constraints(state)
    for row in rows:
        if row["rank"] is not None and on_front is not None:
            row["front"] = row["trial"] in on_front
        if row["rank"] is not None and bounds:
            row["feasible"] = not broken(state.trials[row["trial"]], bounds)
        yield row


def confirming(state: SweepState) -> pa.Table:
    """Return one row per confirmation run and refit, by trial and seed; the columns are those of the leaderboard."""
    runs = [trial for trial in state.trials.values() if trial.confirms is not None]
    runs.sort(key=lambda run: (run.confirms, run.refit, run.index))
    return _table((_trial_row(state, run, None) for run in runs), state)


def history(state: SweepState) -> pa.Table:
    """Return one row per epoch, by trial and epoch."""
    schema = _history_schema(state)
    return pa.concat_tables([schema.empty_table(), *_histories(state, schema)])


def _histories(state: SweepState, schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield the history of one trial after the other: that of all may be larger than the memory."""
    for trial in list(state.trials.values()):
        epochs = trial.epochs
        known: dict[str, Iterable[float]] = {
            "trial": [float(trial.number)] * len(epochs),
            "ended_at": np.array(epochs.raw("ended_at")) * 1e6,
        }
        texts = [epochs.confusion_text(place, trial.number) for place in range(len(epochs))]
        yield pa.table(
            [
                pa.array(texts, pa.string())
                if field.name == "val_confusion"
                else _numbers(known.get(field.name, epochs.raw(field.name)), field.type)
                for field in schema
            ],
            schema,
        )


def _numbers(numbers: Iterable[float], kind: pa.DataType) -> pa.Array:
    """Return numbers as a column of `kind`; NaN is null."""
    found = pa.array(np.array(numbers, np.float64), from_pandas=True)
    return found if kind == pa.float64() else pc.round(found).cast(pa.int64()).cast(kind)


def _history_schema(state: SweepState) -> pa.Schema:
    return described(_of_sweep(HISTORY, state, ON_LEADERBOARD[-1]), state)


def write_all(state: SweepState, folder: SweepFolder, confirmed: Confirmation | None) -> None:
    """Write all tables into the sweep's folder, each completely or not at all.

    Raises:
        OSError: the disk did not take them; older ones are still there, whole.
    """
    write(leaderboard(state, confirmed), folder.leaderboard)
    schema = _history_schema(state)
    write(_histories(state, schema), folder.history, schema)
    if any(trial.confirms is not None for trial in state.trials.values()):
        write(confirming(state), folder.confirmation)


class Writer:
    """Follows the journal and writes the tables again, often enough to be looked at, seldom enough to cost nothing."""

    def __init__(self, state: SweepState, planned: Plan, folder: SweepFolder) -> None:
        self._state = state
        self._planned = planned
        self._folder = folder
        self._due = time.monotonic() + WRITE_EVERY_S

    def observe(self, event: Event) -> None:
        started = time.monotonic()
        if not isinstance(event, TrialEnded) or started < self._due:
            return
        with contextlib.suppress(OSError):  # tables can be made again; the journal will say if the disk is full
            write_all(self._state, self._folder, confirmation_of(self._state, self._planned))
        done = time.monotonic()
        self._due = done + max(WRITE_EVERY_S, 100 * (done - started))


def user_metrics(state: SweepState) -> list[str]:
    """Return the columns of the metrics of the user's that a sweep was scored by: at most one."""
    return sorted({column(trial.metric) for trial in state.trials.values() if is_user_metric(trial.metric)})


def _of_sweep(schema: pa.Schema, state: SweepState, after: str) -> pa.Schema:
    """Return the schema with a column for the user's metric, if there is one, behind the column `after`."""
    for name in user_metrics(state):
        schema = schema.insert(schema.get_field_index(after) + 1, pa.field(name, pa.float64()))
    return schema


def _confirmed(confirmed: Confirmation | None) -> dict[int, dict[str, Any]]:
    """Return the columns of each confirmed trial, by number."""
    if confirmed is None:
        return {}
    return {
        candidate.confirmed.trial.number: {
            "winner": candidate.confirmed is confirmed.winner,
            "confirmed": candidate.confirmed.mean,
            "confirmed_low": candidate.interval and candidate.interval.low,
            "confirmed_high": candidate.interval and candidate.interval.high,
        }
        for candidate in confirmed.candidates
    }


def _trial_row(state: SweepState, trial: TrialRecord, place: int | None) -> dict[str, Any]:
    best = trial.best
    reason = trial.end.stop_reason if trial.end else state.ended if trial.status == "interrupted" else None
    return {
        "rank": place if is_ranked(trial) else None,
        "trial": trial.number,
        "arm": trial.arm or None,
        "confirms": trial.confirms,
        "refit": trial.refit,
        "status": trial.status,
        "stop_reason": reason if reason != "failed" else None,
        "score": trial.score,
        "best_epoch": trial.best_epoch,
        "epochs": len(trial.epochs),
        "attempts": trial.attempt + 1,
        **{name: best.get(name) for name in (*ON_LEADERBOARD, column(trial.metric))},
        "val_confusion": _json(best.get("val_confusion")),
        "final_metrics": _json({part: measured.to_dict() for part, measured in trial.final_metrics.items()} or None),
        **{f"config.{name}": value for name, value in trial.config.items()},
        **{name: MEASURES[name].value(trial) for name in OF_THE_WHOLE},
        "wall_s": trial.ended_at - trial.started_at if trial.ended_at and trial.started_at else None,
        **{name: getattr(trial.worker, name) for name in ("device", "node")},
        "precision": (trial.worker.format or {}).get("precision"),
        "drawn_tensors": (trial.worker.weights or {}).get("drawn"),
        "weights_sha256": (trial.worker.weights or {}).get("sha256"),
        **{name: trial.config[name] for name in ("threads", "seed")},
        "started_at": _microseconds(trial.started_at),
        "ended_at": _microseconds(trial.ended_at),
        "error": trial.error,
        "split_protocol": "core" if trial.config["split"] in ("core", "all") else "paper",
    }


def _json(value: Any) -> str | None:
    """Return what a column of plain values cannot hold as JSON text."""
    return None if value is None else json.dumps(value)


def _microseconds(seconds: float | None) -> int | None:
    """Return a time as the tables have it."""
    return None if seconds is None else round(seconds * 1e6)


def _table(rows: Iterable[dict[str, Any]], state: SweepState) -> pa.Table:
    """Return rows as a leaderboard."""
    return make(rows, _of_sweep(LEADERBOARD, state, ON_LEADERBOARD[-1]), state)
