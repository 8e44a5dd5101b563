"""Estimates of the winner: best of the search, confirmed, on the test set; and a recipe's arms beside the paper's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.assessment.comparison import COUNTS, Comparison
from orchestrator.assessment.confirmation import in_doubt
from orchestrator.display.text import between, counted
from orchestrator.record.state import TrialRecord
from orchestrator.report.figures import BLUE, ORANGE, PURPLE, Figure, plain

COMPARED = 6  # metrics of a recipe that are plotted; its table has all of them


@dataclass(frozen=True)
class Estimate:
    """One of the numbers at the top of the report."""

    name: str
    value: str
    interval: str  # of the value, in brackets; empty if there is none
    about: str


def estimates(final: Mapping[str, Any], trials: int, first: TrialRecord | None) -> list[Estimate]:
    """Return the estimates from the search's best score to the test set's.

    Args:
        final: of `confirmation.final`.
        trials: how many the sweep has.
        first: the first trial on the leaderboard.
    """
    if first is None:
        return []
    if not final["confirmed"]:
        return [
            Estimate(
                "best of the search",
                _number(final["search_best"]),
                "",
                f"{_luckiest(first.number, trials)}. Not confirmed",
            )
        ]
    validation, test = final["validation"], final["test"]
    best = next(row for row in final["candidates"] if row["trial"] == final["shrinkage"]["leader"])
    seeds = counted(len(validation["scores"]), "new seed")
    found = [
        Estimate(
            "best of the search",
            _number(best["search"]),
            "",
            _luckiest(best["trial"], trials),
        ),
        Estimate(
            "confirmed",
            _number(validation["mean"]),
            between(validation["interval"]),
            f"trial {final['trial']}, the winner: mean of {seeds}, on the same rows",
        ),
    ]
    if test is not None:
        doubt = f". {sentence}" if (sentence := in_doubt(test)) else ""
        where = {True: "within", False: "outside"}.get(test["inside"])
        expected = f", {where} the {between(test['predicted'])} expected of one more model" if where else ""
        rows = counted(test["rows"], "row")
        found.append(
            Estimate(
                "on the test set",
                _number(test["score"]["mean"]),
                between(test["score"]["interval"]),
                f"mean of the same models on {rows} that no choice was based on. The kept model "
                f"has accuracy {_number(test['model_accuracy'])} {between(test['wilson'])}{expected}{doubt}",
            )
        )
    return found


def _luckiest(trial: int, trials: int) -> str:
    place = "the only one" if trials == 1 else f"the luckiest of {trials:,}"
    return f"trial {trial}, {place}: one seed, at its best epoch"


def confirmed(final: Mapping[str, Any]) -> Figure | None:
    """Plot every candidate's score in the search, its confirmed mean with interval, and the winner's test score.

    Return None where nothing was confirmed.
    """
    if not final["confirmed"]:
        return None
    rows = final["candidates"]
    names = [f"trial {row['trial']}" for row in rows]
    traces = [
        _dots([row["search"] for row in rows], names, "in the search", ORANGE, "circle-open"),
        {
            **_dots([row["mean"] for row in rows], names, "confirmed, with its interval", BLUE, "circle"),
            "error_x": _bars([row["mean"] for row in rows], [row["interval"] for row in rows]),
        },
    ]
    test = final["test"]
    if test is not None:
        score = test["score"]
        dots = _dots([score["mean"]], [f"trial {final['trial']}, test"], "on the test set", PURPLE, "diamond")
        traces.append({**dots, "error_x": _bars([score["mean"]], [score["interval"]])})
    layout = {
        "xaxis": {"title": {"text": final["metric"]}},
        "yaxis": {"type": "category", "autorange": "reversed"},
        "height": 190 + 36 * len(rows),
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
