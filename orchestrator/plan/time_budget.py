"""Budgets before the first trial: how many trials they are planned for, and whether the runs after them fit."""

from __future__ import annotations

import dataclasses
import math
import re
from functools import partial
from typing import TYPE_CHECKING

from orchestrator.cluster.machine import Nodes
from orchestrator.plan import forecast, plan
from orchestrator.plan.forecast import Forecast
from orchestrator.plan.plan import Plan
from orchestrator.plan.request import Request
from orchestrator.search.promotion import ROUND
from orchestrator.search.time_reserve import END_S, MOST
from trainables.errors import ConfigError, counted

if TYPE_CHECKING:
    from trainables.splits import SearchData

LARGEST = 10_000  # trials that are planned for, at most


def parsed(text: str | None) -> float | None:
    """Return the seconds in `1h30m` or `45s`; None if `text` is no such time: a plain number could be any unit."""
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?", (text or "").strip())
    if match is None or not any(match.groups()):
        return None
    hours, minutes, rest = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + rest or None


def planned_for(planned: Plan, request: Request, nodes: Nodes, data: SearchData) -> tuple[Plan, str]:
    """Return the plan of a new sweep with a budget, and a warning if its confirmation may not fit, or nothing.

    Without `--trials` there will be as many as fit. Of a time budget their estimated number, a low one, decides how
    they are shared by stages, how many are confirmed and, if they are few, how many the first round has; the search
    goes on beyond it while there is time. Of a budget of epochs there are as many as are known to fit.

    Raises:
        ConfigError: no trial fits into a budget of epochs.
    """
    seconds, options = parsed(request.options.time_budget), request.options
    if options.epoch_budget is not None and seconds is None:
        return _within_epochs(planned, request, nodes, data, options.epoch_budget), ""
    if seconds is None:
        return planned, ""
    open_ended = options.trials is None and planned.queue().searched() > 0
    if not open_ended and not planned.confirm_seeds:
        return planned, ""
    expected = forecast.forecast(planned, data, planned.slots(nodes))
    if open_ended:
        trials = planned.trials if expected is None else _fitting(planned, expected, seconds)
        again = _with_trials(planned, request, nodes, data, trials)
        first = (trials,) if trials < ROUND else ()  # else the time may be over before any trial goes on
        planned = dataclasses.replace(again, open_ended=True, rounds=first)
    return planned, "" if expected is None else _warning(planned, expected.end_s, seconds, options.time_budget or "")


def _with_trials(planned: Plan, request: Request, nodes: Nodes, data: SearchData, trials: int) -> Plan:
    """Return the plan of the same sweep with so many trials."""
    return plan.suited(planned, Request(dataclasses.replace(request.options, trials=trials)), nodes, data)


def _within_epochs(planned: Plan, request: Request, nodes: Nodes, data: SearchData, budget: int) -> Plan:
    """Return the plan with as many trials as fit into the budget of epochs, if their number is not given.

    What is kept for the runs after the search, those of the trial at the start point among them, is none of the
    search's: it would be closed before any trial runs in full.
    """
    of = partial(_with_trials, planned, request, nodes, data)
    longest = max(space.base.max_epochs for space in planned.arms.values())
    given = request.options.trials if planned.queue().searched() else planned.trials
    low, high = (given, given + 1) if given is not None else (1, LARGEST + 1)

    def spare(fitting: Plan) -> int:
        return fitting.queue().perhaps() * longest

    least = math.ceil(forecast.expected_epochs(of(low))[0]) + spare(of(low))
    if least > budget:
        what = counted(low, "trial") if planned.queue().searched() else "the arms"
        raise ConfigError(
            f"--epoch-budget {budget}: {what} and the runs that confirm the best take {least} epochs; give that or "
            "more, or fewer: --max-epochs, --confirm-seeds or --confirm 0"
        )
    while high - low > 1:  # the epochs of more trials are more
        middle = (low + high) // 2
        fits = forecast.expected_epochs(of(middle))[1] + spare(of(middle)) <= budget
        low, high = (middle, high) if fits else (low, middle)
    return planned if given is not None else of(low)


def _fitting(planned: Plan, expected: Forecast, seconds: float) -> int:
    """Return how many trials fit into the budget, by the longest times that are expected."""
    features = sum(stage.features_s for stage in expected.stages)
    searching = sum(stage.high_s for stage in expected.stages) - features
    kept = min(expected.end_s + END_S, MOST * seconds) if planned.confirm_seeds else 0.0
    left = seconds - forecast.START_S - kept - features
    return min(max(math.floor(left * planned.trials / searching), 1), LARGEST) if searching > 0 else planned.trials


def _warning(planned: Plan, end_s: float, seconds: float, given: str) -> str:
    """Return a warning if the runs after the search take more time than is kept for them."""
    queue = planned.queue()
    runs, needed = queue.total() - queue.searched(), end_s + END_S
    if not runs or needed <= MOST * seconds:
        return ""
    fewer = "" if planned.recipe else "; or fewer: --confirm 1 --confirm-seeds 2, or none: --confirm 0"
    return (
        f"warning: --time-budget {given}: the {counted(runs, 'run')} after the search take about {needed:.0f} s here, "
        f"and at most a third of the time, {MOST * seconds:.0f} s, is kept for them: give {needed / MOST:.0f}s or "
        f"more{fewer}"
    )
