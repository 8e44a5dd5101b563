"""The one table of outcomes: from what happened to an attempt to whose fault it was, and all that follows.

Everything else asks it: who may try the trial again and where, what the sampler hears, whose record the fault is in,
and how a trial ends that is not tried again. `docs/outcomes.md` shows the rows and gives the reasons.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.record.events import AttemptLost
from orchestrator.record.facts import Place
from orchestrator.record.trial_record import End
from trainables.errors import last_line

MOST_LOSSES = 5  # attempts that a trial may lose since its last progress
LEAST_ROWS = 4  # at a time: parts of at most so many rows are never single rows, which batch norm cannot take
SAME_ERRORS = 5  # first trials of a command that end with one same error, after which the sweep ends


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of the table: the first four fields are the case, the others what follows. A condition of None is any."""

    happened: str
    alone: bool | None = None  # no other trial has a share of the device
    again: bool | None = None  # the same error ended an earlier attempt on another worker, without progress since
    divisible: bool | None = None  # fewer rows could be computed at a time
    fault: str  # settings | worker | storage | driver | nobody
    learns: str  # what the sampler learns of it: value | pruned | infeasible | nothing
    retried: str  # no | elsewhere (on another node or device, where there is one) | alone | smaller | anywhere | resume
    charged: str  # whose record it is in: trial | worker | storage | nobody
    status: str | None = None  # of the trial, where it ends
    stop_reason: str | None = None  # None: the rule's, or the trial's own


TABLE = (
    Row(happened="completed", fault="nobody", learns="value", retried="no", charged="trial", status="completed"),
    Row(happened="unscored", fault="nobody", learns="nothing", retried="no", charged="trial", status="completed"),
    Row(happened="stopped", fault="nobody", learns="pruned", retried="no", charged="trial", status="stopped"),
    Row(
        happened="duplicate", fault="nobody", learns="nothing", retried="no", charged="nobody",
        status="stopped", stop_reason="duplicate",
    ),
    Row(
        happened="not_finite", fault="settings", learns="infeasible", retried="no", charged="trial",
        status="diverged", stop_reason="not_finite",
    ),
    Row(
        happened="out_of_memory", alone=False, fault="nobody", learns="nothing", retried="alone", charged="nobody",
    ),
    Row(
        happened="out_of_memory", alone=True, divisible=True, fault="settings", learns="nothing", retried="smaller",
        charged="nobody",
    ),
    Row(
        happened="out_of_memory", alone=True, divisible=False, fault="settings", learns="infeasible", retried="no",
        charged="trial", status="failed", stop_reason="out_of_memory",
    ),
    Row(happened="error", again=False, fault="worker", learns="nothing", retried="elsewhere", charged="worker"),
    Row(
        happened="error", again=True, fault="settings", learns="infeasible", retried="no", charged="trial",
        status="failed", stop_reason="error",
    ),
    Row(happened="storage", fault="storage", learns="nothing", retried="anywhere", charged="storage"),
    Row(happened="died", fault="worker", learns="nothing", retried="anywhere", charged="worker"),
    Row(happened="set_aside", fault="nobody", learns="nothing", retried="elsewhere", charged="nobody"),
    Row(
        happened="lost", fault="worker", learns="nothing", retried="no", charged="trial",
        status="failed", stop_reason="lost",
    ),
    Row(happened="interrupted", fault="driver", learns="nothing", retried="resume", charged="nobody"),
)  # fmt: skip


def decide(happened: str, alone: bool = True, again: bool = False, divisible: bool = False) -> Row:
    """Return the row of what happened to an attempt."""
    case = {"alone": alone, "again": again, "divisible": divisible}
    return next(
        row
        for row in TABLE
        if row.happened == happened and all(getattr(row, name) in (None, value) for name, value in case.items())
    )


def halved(rows: int | None) -> int:
    """Return half of the `rows` that were computed at a time, LEAST_ROWS at least; 0 if there are no fewer."""
    return max(-(-rows // 2), LEAST_ROWS) if rows is not None and rows > LEAST_ROWS else 0


def learned(end: End, *, scored: bool, shared_slot: bool) -> str:
    """Return what the sampler learns of a trial's end: value, pruned, infeasible or nothing.

    Args:
        scored: the trial has a score.
        shared_slot: several trials of the sweep may run on one device.
    """
    happened = end.stop_reason
    if end.status == "completed":
        happened = "completed" if scored else "unscored"
    elif end.status == "stopped" and happened != "duplicate":
        happened = "stopped"
    # an older version did not record whose fault it was: an error may have been the worker's
    settings = end.fault == "settings"
    return decide(happened, alone=settings or not shared_slot, again=settings).learns


def signature(error: str) -> str:
    """Return what two texts of the same error share: their last line, without its numbers and addresses."""
    return re.sub(r"0x[0-9a-fA-F]+|\d+", "#", last_line(error))


def is_again(happened: str, error: str, place: Place, earlier: Iterable[AttemptLost], several: bool) -> bool:
    """Return whether the same error ended an earlier attempt on another worker.

    Args:
        several: there is more than one node or device to work on, and only another one of these is another worker.
    """
    same = happened, signature(error)
    return any(
        (event.happened, signature(event.error)) == same
        and (event.place.where != place.where if several else event.place != place)
        for event in earlier
        if event.place is not None
    )
