"""Estimates of the winner: best of the search, confirmed, on the test set; and a recipe's arms beside the paper's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from orchestrator.assessment import baseline
from orchestrator.assessment.comparison import COUNTS, Comparison
from orchestrator.assessment.confirmation import Confirmation
from orchestrator.display.text import between, counted
from orchestrator.record.ranking import count_statuses
from orchestrator.record.state import SweepState, TrialRecord
from orchestrator.report.figures import BLUE, ORANGE, PURPLE, Figure, plain
from orchestrator.report.kept_model import KeptModel

COMPARED = 6  # metrics of a recipe that are plotted; its table has all of them


@dataclass(frozen=True)
class Estimate:
    """One of the numbers at the top of the report."""

    name: str
    value: str
    interval: str  # of the value, in brackets; empty if there is none
    about: str


def estimates(
    confirmed: Confirmation | None, state: SweepState, first: TrialRecord | None, kept: KeptModel | None
) -> list[Estimate]:
    """Return the estimates from the search's best score to the test set's.

    Args:
        confirmed: of the sweep, if its best trials were confirmed.
        state: of the sweep.
        first: the first trial on the leaderboard.
        kept: the model in `best/`.
    """
    if first is None:
        return []
    trials, beside = sum(count_statuses(state).values()), baseline.text(state.spec.split, first.metric)
    if confirmed is None:
        about = f"{_luckiest(first.number, trials)}. Not confirmed{beside and f'; {beside}'}"
        return [Estimate("best of the search", _number(first.score), "", about)]
    leader, winner, test = confirmed.leader.trial, confirmed.winner, confirmed.test
    seeds = counted(len(winner.scores), "new seed")
    found = [
        Estimate(
            "best of the search",
            _number(leader.score),
            "",
            f"{_luckiest(leader.number, trials)}{beside and f'; {beside}'}",
        ),
        Estimate(
            "confirmed",
            _number(winner.mean),
            between(winner.interval()),
            f"trial {winner.trial.number}, the winner: mean of {seeds}, on the same rows",
        ),
    ]
    if test is not None:
        doubt = f". {sentence}" if (sentence := test.doubt()) else ""
        expected = f", {how} ({between(test.predicted)})" if (how := test.as_expected()) else ""
        own = winner.trial.metric != "val_accuracy" and test.model_score is not None
        score = f"{winner.trial.metric} {_number(test.model_score)} {between(test.model_interval)}, and " if own else ""
        name, other = f"run {confirmed.model.number}", ""
        if kept is not None and kept.tested:
            other = f". The model in best/, {kept.title}, has {kept.tested}"
        elif kept is not None:
            name = "the model in best/"
        about = (
            f"mean of the same models on {counted(test.rows, 'row')} that no choice was based on. Of these, {name} has "
            f"{score}accuracy {_number(test.model_accuracy)} {between(test.wilson)}{expected}{other}{doubt}"
        )
        found.append(Estimate("on the test set", _number(test.score.mean), between(test.score.interval), about))
    return found


def _luckiest(trial: int, trials: int) -> str:
    place = "the only one" if trials == 1 else f"the luckiest of {trials:,}"
    return f"trial {trial}, {place}: one seed, at its best epoch"


def confirmed(confirmation: Confirmation | None) -> Figure | None:
    """Plot every candidate's score in the search, its confirmed mean with interval, and the winner's test score.

    Return None where nothing was confirmed.
    """
    if confirmation is None:
        return None
    candidates, winner, test = confirmation.candidates, confirmation.winner.trial, confirmation.test
    names = [f"trial {candidate.confirmed.trial.number}" for candidate in candidates]
    means = [candidate.confirmed.mean for candidate in candidates]
    searched = [candidate.confirmed.trial.score for candidate in candidates]
    traces = [
        _dots(searched, names, "in the search", ORANGE, "circle-open"),
        {
            **_dots(means, names, "confirmed, with its interval", BLUE, "circle"),
            "error_x": _bars(means, [candidate.interval for candidate in candidates]),
        },
    ]
    if test is not None and test.score.mean is not None:
        dots = _dots([test.score.mean], [f"trial {winner.number}, test"], "on the test set", PURPLE, "diamond")
        traces.append({**dots, "error_x": _bars([test.score.mean], [test.score.interval])})
    layout = {
        "xaxis": {"title": {"text": winner.metric}},
        "yaxis": {"type": "category", "autorange": "reversed"},
        "height": 190 + 36 * len(candidates),
    }
    return plain({"data": traces, "layout": layout})  # type: ignore[no-any-return]


def compared(found: Comparison) -> dict[str, Figure]:
    """Plot for each metric the arms' means with the standard deviation between seeds, and the paper's values."""
    arms = found.arms()[::-1]
    figures = {}
    for name in [column for column in found.columns() if column not in COUNTS][:COMPARED]:
        cells = [(arm, cell) for arm in arms if (cell := found.cell(arm, name)) is not None]
        ours = [(arm, cell) for arm, cell in cells if cell.mean is not None]
        papers = [(arm, cell.paper) for arm, cell in cells if cell.paper is not None]
        traces = [
            {
                **_dots([cell.mean for _, cell in ours], [arm for arm, _ in ours], "here", BLUE, "circle"),
                "error_x": {"array": [cell.std or 0 for _, cell in ours], "color": BLUE},
            },
            _dots([value for _, value in papers], [arm for arm, _ in papers], "paper", ORANGE, "diamond"),
        ]
        layout = {
            "xaxis": {"title": {"text": name}},
            "yaxis": {"type": "category", "categoryarray": arms},
            "height": 150 + 30 * len(arms),
        }
        figures[name] = plain({"data": [trace for trace in traces if trace["x"]], "layout": layout})
    return figures


def _dots(values: list[Any], names: list[str], name: str, color: str, symbol: str) -> Figure:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": values,
        "y": names,
        "name": name,
        "marker": {"color": color, "symbol": symbol, "size": 10},
        "hovertemplate": "%{y} %{fullData.name}: %{x:.4f}<extra></extra>",
    }


def _bars(values: list[float], intervals: list[Any]) -> Figure:
    """Return error bars from each value to the ends of its interval; of length 0 where there is no interval."""
    ends = [interval or (value, value) for value, interval in zip(values, intervals, strict=True)]
    return {
        "array": [high - value for value, (_, high) in zip(values, ends, strict=True)],
        "arrayminus": [value - low for value, (low, _) in zip(values, ends, strict=True)],
    }


def _number(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.4f}"
