"""The slots' time: spans of attempts, and how much of the time was training and evaluation.

Seconds count from the first proposal; the time between two commands is left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from orchestrator.record.events import (
    AttemptLost,
    Event,
    SweepEnded,
    SweepResumed,
    TrialAttempt,
    TrialEnded,
    TrialEpoch,
    TrialEvent,
    TrialFeatures,
    TrialPaused,
    TrialProposed,
)
from orchestrator.record.lanes import Span, lanes
from orchestrator.record.state import SweepState
from orchestrator.report.figures import GREEN, STATUSES, Figure, plain

BINS = 80  # of the time, for the share that was used


@dataclass
class Timeline:
    """The slots' work. `work` is training and evaluation of each epoch, and features, as (start, end)."""

    spans: list[Span] = field(default_factory=list)
    work: list[tuple[float, float]] = field(default_factory=list)
    resumed: list[float] = field(default_factory=list)  # where a further command went on
    end: float = 0.0


def timeline(events: Iterable[Event]) -> Timeline:
    """Read the timeline off the journal; events of trials whose proposal was damaged are left out."""
    found, proposed = Timeline(), set[int]()
    running: dict[int, tuple[int, float]] = {}  # trial → attempt, start
    first: float | None = None
    idle = last = 0.0
    for event in events:
        if isinstance(event, TrialProposed):
            proposed.add(event.trial)
            first = event.t if first is None else first
        if isinstance(event, TrialEvent) and event.trial not in proposed:
            continue
        if first is None:
            continue
        if isinstance(event, SweepResumed):
            idle += max(event.t - last, 0.0)
            found.resumed.append(event.t - first - idle)
        last, now = event.t, event.t - first - idle
        over: list[int] = []  # trials whose attempt ends here
        match event:
            case TrialEpoch(metrics=metrics):
                seconds = sum(metrics.get(name) or 0.0 for name in ("train_s", "eval_s"))
                found.work.append((max(now - seconds, 0.0), now))
            case TrialFeatures(seconds=seconds):
                found.work.append((max(now - seconds, 0.0), now))
            case TrialAttempt(trial=trial, attempt=attempt):
                running[trial] = (attempt, now)
            case TrialEnded(trial=trial) | TrialPaused(trial=trial) | AttemptLost(trial=trial):
                over = [trial]
            case SweepEnded() | SweepResumed():
                over = list(running)
        found.spans += [Span(number, *running.pop(number), now) for number in over if number in running]
        if isinstance(event, TrialEvent) and not isinstance(event, TrialProposed):
            found.end = max(found.end, now)
    found.spans += [Span(number, attempt, start, max(found.end, start)) for number, (attempt, start) in running.items()]
    return found


def used(found: Timeline, slots: int) -> list[float]:
    """Return the share of the slots' time that was work, at most 1, in each of `BINS` equal parts of the time."""
    width = found.end / BINS
    seconds = [0.0] * BINS
    for start, end in found.work:
        for part in range(min(int(start / width), BINS - 1), min(int(end / width), BINS - 1) + 1):
            seconds[part] += max(min(end, (part + 1) * width) - max(start, part * width), 0.0)
    return [min(second / (width * slots), 1.0) for second in seconds]


def figure(events: Iterable[Event], state: SweepState) -> Figure | None:
    """Draw a lane for each slot with its attempts, over the share of the slots' time that was work; None before any."""
    found = timeline(events)
    placed = lanes([span for span in found.spans if span.trial in state.trials])  # the others' proposals are damaged
    if not placed or not found.end:
        return None
    unit, name = (3600.0, "hours") if found.end > 7200 else (60.0, "minutes") if found.end > 180 else (1.0, "seconds")
    traces: list[Figure] = []
    count = 1 + max(lane for lane, _ in placed)
    for status, colour in STATUSES.items():
        own = [(lane, span) for lane, span in placed if state.trials[span.trial].status == status]
        if own:
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "x": [x for _, span in own for x in (span.start / unit, span.end / unit, None)],
                    "y": [y for lane, _ in own for y in (lane + 1, lane + 1, None)],
                    "customdata": [c for _, span in own for c in ([span.trial, span.attempt],) * 3],
                    "line": {"color": colour, "width": 14 if count <= 16 else 5},
                    "name": status,
                    "hovertemplate": "trial %{customdata[0]}, attempt %{customdata[1]}: %{x}<extra></extra>",
                }
            )
    width = found.end / BINS / unit
    share = used(found, state.spec.slots or count)
    traces.append(
        {
            "type": "bar",
            "x": [(part + 0.5) * width for part in range(BINS)],
            "y": share,
            "width": width,
            "yaxis": "y2",
            "marker": {"color": GREEN},
            "showlegend": False,
            "name": "slot use",
            "hovertemplate": "%{y:.0%} of the slots' time<extra></extra>",
        }
    )
    layout: Figure = {
        "xaxis": {"title": {"text": f"{name} since the first proposal"}, "anchor": "y2", "rangemode": "tozero"},
        "yaxis": {
            "title": {"text": "slot"},
            "domain": [0.4, 1],
            "range": [0.4, count + 0.6],
            "dtick": max(1, count // 8),
            "zeroline": False,
        },
        "yaxis2": {"title": {"text": "slot use"}, "domain": [0, 0.3], "range": [0, 1], "tickformat": ".0%"},
        "shapes": [_mark(at / unit) for at in found.resumed],
        "height": 330 + 24 * min(count, 16),
        "bargap": 0,
    }
    return plain({"data": traces, "layout": layout})  # type: ignore[no-any-return]


def _mark(at: float) -> Figure:
    """Return a dotted line across the whole plot."""
    return {"type": "line", "x0": at, "x1": at, "yref": "paper", "y0": 0, "y1": 1, "line": {"dash": "dot"}}
