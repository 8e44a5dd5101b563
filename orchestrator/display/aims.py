"""The aims of a sweep beside its metric as text: its Pareto front, and the constraints that nothing has met."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from orchestrator.display.text import counted, short
from orchestrator.plan.plan import Plan
from orchestrator.record.aims import Measure
from orchestrator.record.front import front
from orchestrator.record.ranking import best_trial, constraints, is_feasible
from orchestrator.record.state import SweepState, TrialRecord
from trainables.epoch_metrics import direction_of

LARGE = 100  # numbers from here on have no digits after the point
SHOWN = 10  # trials of the front, on the terminal


def heading(planned: Plan) -> list[str]:
    """Return the names of the columns of `cells`."""
    metric = planned.space.base.metric
    aims = [(metric, direction_of(metric)), *planned.aims]
    return ["trial", "status", *(f"{name} ({direction})" for name, direction in aims)]


def cells(trial: TrialRecord, planned: Plan) -> list[str]:
    """Return a trial's number, status, score and aims as text."""
    score = "" if trial.score is None else f"{trial.score:.4f}"
    return [str(trial.number), trial.status, score, *(_number(aim.measure, trial) for aim in planned.aims)]


def _number(measure: Measure, trial: TrialRecord) -> str:
    value = measure.value(trial)
    if value is None:
        return "–"
    return f"{value:.4f}" if measure.high <= 1 else f"{value:,.0f}" if value >= LARGE else short(value)


def show_front(state: SweepState, planned: Plan, target: Console) -> None:
    """Print the trials that no other beats in all aims; nothing if the metric is the only aim."""
    if not planned.aims:
        return
    found = front(state)
    target.print(summary(found, planned), soft_wrap=True)
    if not found:
        return
    table = Table(box=None, header_style="bold", padding=(0, 1))
    for name in heading(planned):
        table.add_column(name, justify="left" if name == "status" else "right")
    for trial in found[:SHOWN]:
        table.add_row(*cells(trial, planned))
    target.print(table)


def summary(found: Sequence[TrialRecord], planned: Plan, shown: int = SHOWN) -> str:
    """Return how many trials are on the front, of which the first `shown` follow, as a sentence without a full stop."""
    names = ", ".join((planned.space.base.metric, *(aim.name for aim in planned.aims)))
    if not found:
        return f"Pareto front over {names}: no trial meets all constraints and has a value of each of them"
    more = f"; the {shown} with the best scores are shown" if len(found) > shown else ""
    return f"Pareto front over {names}: {counted(len(found), 'trial')} that no other beats in all of them{more}"


def unmet(state: SweepState) -> str:
    """Return which constraints no trial has met, and what follows; nothing if one has met all, or none has a score."""
    bounds, best = constraints(state), best_trial(state)
    if not bounds or best is None or is_feasible(state, best):
        return ""
    texts = " and ".join(map(str, bounds))
    values = ", ".join(f"{bound.name} {_number(bound.measure, best)}" for bound in dict.fromkeys(bounds))
    return (
        f"no trial meets {texts}: ranking and confirmation go by the metric alone, and the best trial, {best.number}, "
        f"has {values}; give a wider bound, or search other settings"
    )
