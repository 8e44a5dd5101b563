"""Short texts of values and trials."""

from __future__ import annotations

import errno
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.record.events import AttemptLost, PlaceReopened, PlaceSetAside
from orchestrator.record.paths import SweepFolder
from orchestrator.record.state import SweepState, TrialRecord
from trainables.errors import counted as counted
from trainables.errors import last_line

SHOWN = {
    "completed": "green",
    "stopped": "yellow",
    "running": "cyan",
    "paused": "cyan",
    "diverged": "red",
    "failed": "red",
}


def ended_line(trial: TrialRecord) -> str:
    """Return one plain line about a trial that has ended."""
    assert trial.end is not None  # noqa: S101 - the caller has seen its end
    score = "no score" if trial.score is None else f"score {trial.score:.4f}"
    name = f"trial {trial.number} ({trial.arm})" if trial.arm else f"trial {trial.number}"
    again = "on all rows" if trial.refit else "again"
    name = name if trial.confirms is None else f"{name}, trial {trial.confirms} {again},"
    why = "" if trial.end.stop_reason == "budget" else f" ({trial.end.stop_reason})"  # it has run all its epochs
    line = f"{name} {trial.status}{why} after epoch {trial.last_epoch}: {score}"
    error = last_line(trial.error or "")
    return f"{line}: {error}" if error else line


def incident_line(event: AttemptLost | PlaceSetAside | PlaceReopened) -> str:
    """Return one plain line about an attempt that was lost, or a node or device that is set aside or tried again."""
    where = f" on {event.place}" if event.place is not None else ""
    match event:
        case PlaceReopened(place=place):
            return f"{place} is tried again"
        case PlaceSetAside(place=place, failures=failures, seconds=seconds, error=error):
            return (
                f"{place} is set aside for {duration(seconds)}: {failures} attempts in a row failed there while others "
                f"worked ({last_line(error)})"
            )
        case AttemptLost(happened="died"):
            return f"trial {event.trial} lost its worker{where}; it goes on as a new attempt"
        case AttemptLost(happened="set_aside"):
            return f"trial {event.trial} waits for another worker: {event.error}"
        case AttemptLost(alone=True):
            return f"trial {event.trial} was out of memory beside others{where}; it goes on alone on a GPU"
        case AttemptLost(micro_batch=rows) if rows:
            return (
                f"trial {event.trial} was out of memory{where}; it goes on with at most {rows} rows at a "
                "time, which leaves the gradients those of the whole batch"
            )
    return (
        f"trial {event.trial} failed on {event.place}, and is tried again on another worker: {last_line(event.error)}"
    )


def short(value: Any) -> str:
    """Return a setting in few characters."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def duration(seconds: float) -> str:
    """Return seconds as `45 s`, `12 min` or `3 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def span(low: float, high: float) -> str:
    """Return a range of seconds: `12 to 25 min`, `50 s to 3 min`."""
    first, last = duration(low), duration(high)
    if first == last:
        return first
    number, _, unit = first.partition(" ")
    return f"{number if last.partition(' ')[2] == unit else first} to {last}"


def between(interval: Sequence[float] | None) -> str:
    """Return an interval in brackets."""
    return "" if interval is None else f"[{interval[0]:.4f}, {interval[1]:.4f}]"


def python() -> str:
    """Return this Python as one would type it here."""
    here = Path(sys.executable)
    return str(here.relative_to(Path.cwd())) if here.is_relative_to(Path.cwd()) else str(here)


def resume_command(files: SweepFolder) -> str:
    """Return the command that goes on with a sweep."""
    results = [] if files.path.parent == Path("results") else ["--results", str(files.path.parent)]
    return shlex.join([python(), "-m", "orchestrator.sweep", *results, "--resume", files.name])


def owed_line(owed: Mapping[str, str], files: SweepFolder) -> str:
    """Return what a sweep still owes, why, and what to do."""
    what = ", ".join(f"{name} ({error})" for name, error in owed.items())
    full = any(os.strerror(number) in what for number in (errno.ENOSPC, errno.EDQUOT))
    return f"still owed: {what}; {'free disk space, then ' if full else ''}go on with --resume: {resume_command(files)}"


def failures(state: SweepState) -> list[str]:
    """Return a line for each different error, about the first trial that had it."""
    first: dict[str, TrialRecord] = {}
    for trial in state.trials.values():
        if trial.error:
            first.setdefault(last_line(trial.error), trial)
    return [ended_line(trial) for trial in first.values()]
