"""Where a command's seconds went, as a file of Chrome's trace format: https://ui.perfetto.dev shows it.

One process is the command, with its steps; the other one has a lane for each slot, with its attempts and the training,
evaluation and features in them. What lies between is start-up, saving, and waiting for the driver.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.record.events import (
    AttemptLost,
    Event,
    SweepEnded,
    TrialAttempt,
    TrialEnded,
    TrialEpoch,
    TrialEvent,
    TrialFeatures,
    TrialPaused,
)
from orchestrator.record.journal import read
from orchestrator.record.lanes import Span, lanes
from trainables.command_line import show
from trainables.files import replace_json

COMMAND, SLOTS = 1, 2  # processes of the trace
LONGEST_START_S = 30.0  # what a program did before is no part of a command


@dataclass(frozen=True, slots=True)
class Step:
    """A step of the command, in seconds since 1970."""

    name: str
    start: float
    end: float
    beside: bool = False  # the main path


class Trace:
    """The steps of a command so far: of its main path one after the other, of its threads beside it."""

    def __init__(self, first: str) -> None:
        now = time.time()
        self.began = max(_process_start() or now, now - LONGEST_START_S)
        self.steps = [Step("start of Python and imports", self.began, now)]
        self._open = first, now
        self.journal: Path | None = None  # of the sweep, once it is open

    def next(self, name: str) -> None:
        """End the present step of the main path, and begin another."""
        before, start = self._open
        self._open = name, time.time()
        self.steps.append(Step(before, start, self._open[1]))

    @contextmanager
    def beside(self, name: str) -> Iterator[None]:
        """Note a step that is taken beside the main path, in a thread."""
        start = time.time()
        try:
            yield
        finally:
            self.steps.append(Step(name, start, time.time(), beside=True))

    def write(self, path: Path) -> None:
        """Write the steps and, if there is a journal, what happened in the slots since the command began.

        Raises:
            OSError: the file cannot be written.
        """
        self.next("")
        now = self.steps[-1].end
        found = [_named("process_name", "command", COMMAND), _named("process_name", "slots", SLOTS)]
        found += [
            _named("thread_name", name, COMMAND, thread) for thread, name in enumerate(("main path", "beside it"))
        ]
        found += [self._span(step.name, step.start, step.end, COMMAND, int(step.beside)) for step in self.steps]
        events = [] if self.journal is None else read(self.journal)[0]
        found += self._slots([event for event in events if event.t >= self.began], now)
        replace_json(path, {"traceEvents": found, "displayTimeUnit": "ms"})

    def _slots(self, events: list[Event], now: float) -> Iterator[dict[str, Any]]:
        """Yield the spans of the attempts in `events`, each in a lane, with those of the work in them."""
        of_trials: dict[int, list[TrialEvent]] = {}
        for event in events:
            if isinstance(event, TrialEvent):
                of_trials.setdefault(event.trial, []).append(event)
        for lane, span in lanes(_attempts(events, now)):
            yield self._span(f"trial {span.trial}", span.start, span.end, SLOTS, lane, attempt=span.attempt)
            within = (event for event in of_trials[span.trial] if span.start <= event.t <= span.end)
            for name, start, end in (work for event in within for work in _work(event)):
                yield self._span(name, max(start, span.start), end, SLOTS, lane)

    def _span(self, name: str, start: float, end: float, process: int, thread: int = 0, **more: Any) -> dict[str, Any]:
        """Return a complete event of the format; times are microseconds since the command began."""
        at, took = round((start - self.began) * 1e6), round((end - start) * 1e6)
        return {"name": name, "ph": "X", "ts": at, "dur": took, "pid": process, "tid": thread, "args": more}


@contextmanager
def tracing(path: Path | None, first: str) -> Iterator[Trace]:
    """Yield the trace of a command, which begins with the step `first`; it is written at the end, however that comes.

    If it cannot be written then that is reported, no more: nothing of the sweep depends on it.
    """
    trace = Trace(first)
    try:
        yield trace
    finally:
        try:
            if path is not None:
                trace.write(path)
        except OSError as error:
            show(f"warning: the profile {path} could not be written: {error.strerror or error}")


def _attempts(events: Iterable[Event], now: float) -> list[Span]:
    """Return the attempts that began in `events`; one that does not end in them lasts until `now`."""
    running: dict[int, tuple[int, float]] = {}
    found = []
    for event in events:
        over = []
        match event:
            case TrialAttempt(trial=trial, attempt=attempt):
                running[trial] = attempt, event.t
            case TrialEnded(trial=trial) | TrialPaused(trial=trial) | AttemptLost(trial=trial):
                over = [trial]
            case SweepEnded():
                over = list(running)
        found += [Span(trial, *running.pop(trial), event.t) for trial in over if trial in running]
    return found + [Span(trial, attempt, start, now) for trial, (attempt, start) in running.items()]


def _work(event: TrialEvent) -> list[tuple[str, float, float]]:
    """Return the names, starts and ends of the work that a worker reports; it has just ended."""
    if isinstance(event, TrialFeatures):
        return [("features", event.t - event.seconds, event.t)]
    if not isinstance(event, TrialEpoch):
        return []
    evaluated = event.t - (event.metrics.get("eval_s") or 0.0)
    return [
        (f"epoch {event.epoch}: training", evaluated - (event.metrics.get("train_s") or 0.0), evaluated),
        (f"epoch {event.epoch}: evaluation", evaluated, event.t),
    ]


def _named(kind: str, name: str, process: int, thread: int = 0) -> dict[str, Any]:
    """Return the event of the format that names a process or thread."""
    return {"name": kind, "ph": "M", "pid": process, "tid": thread, "args": {"name": name}}


def _process_start() -> float | None:
    """Return when this process started, in seconds since 1970; None where only Linux would say it."""
    with suppress(OSError, ValueError, AttributeError, IndexError):
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
        return time.time() - age
    return None
