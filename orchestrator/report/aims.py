"""The report's view of several aims: the trials over the metric and the first aim beside it, and the Pareto front."""

from __future__ import annotations

from typing import Any

from orchestrator.display import aims
from orchestrator.plan.plan import Plan
from orchestrator.record.front import front
from orchestrator.record.ranking import is_feasible, ranked
from orchestrator.record.state import SweepState, TrialRecord
from orchestrator.report.figures import BLUE, GREY, VERMILLION, Figure, chosen, plain, sample_note, scored

MOST = 50  # trials of the front in the table


def section(state: SweepState, planned: Plan) -> dict[str, Any] | None:
    """Return the picture of all trials, the front's table and a sentence about it; None without aims."""
    if not planned.aims:
        return None
    found = front(state)
    there = [trial for trial in scored(ranked(state)) if planned.aims[0].measure.value(trial) is not None]
    shown = chosen(there)
    return {
        "figure": _figure(shown, found, state, planned) if shown else None,
        "heading": aims.heading(planned),
        "rows": [aims.cells(trial, planned) for trial in found[:MOST]],
        "summary": aims.summary(found, planned, MOST),
        "first": planned.aims[0].name,
        "sample_note": sample_note(len(shown), len(there)),
    }


def _figure(shown: list[TrialRecord], found: list[TrialRecord], state: SweepState, planned: Plan) -> Figure:
    """Return the plot of the score over the first aim beside it."""
    on_front = {trial.number for trial in found}
    others = [trial for trial in shown if trial.number not in on_front]
    infeasible = [trial for trial in others if not is_feasible(state, trial)]
    beaten = [trial for trial in others if is_feasible(state, trial)]
    along = sorted(found, key=lambda trial: planned.aims[0].measure.value(trial) or 0.0)
    line = {"line": {"color": BLUE, "width": 1.5, "shape": "hv"}} if len(planned.aims) == 1 else {}
    traces = [
        _dots(beaten, planned, "beaten by others", GREY, "circle"),
        _dots(infeasible, planned, "breaks a constraint", VERMILLION, "x"),
        {
            **_dots(along, planned, "on the front", BLUE, "diamond"),
            **line,
            "mode": "lines+markers" if line else "markers",
        },
    ]
    aim, values = planned.aims[0], [planned.aims[0].measure.value(trial) or 0.0 for trial in shown]
    wide = min(values) > 0 and max(values) > 10 * min(values)
    ticks = {"tickformat": "~s"} if max(values) >= 1000 else {}  # 100k
    layout = {
        "xaxis": {"title": {"text": f"{aim.name} ({aim.direction})"}, "type": "log" if wide else "linear", **ticks},
        "yaxis": {"title": {"text": planned.space.base.metric}},
        "hovermode": "closest",
        "showlegend": True,
        "height": 420,
    }
    return plain({"data": [trace for trace in traces if trace["x"]], "layout": layout})  # type: ignore[no-any-return]


def _dots(trials: list[TrialRecord], planned: Plan, name: str, color: str, symbol: str) -> Figure:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [planned.aims[0].measure.value(trial) for trial in trials],
        "y": [trial.score for trial in trials],
        "customdata": [trial.number for trial in trials],
        "name": name,
        "marker": {"color": color, "symbol": symbol, "size": 8},
        "hovertemplate": "trial %{customdata}, %{fullData.name}: %{y} at %{x}<extra></extra>",
    }
