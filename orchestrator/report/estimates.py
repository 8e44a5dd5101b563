"""What the winner is worth: best of the search, confirmed, on the test set; and a recipe's arms beside the paper's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.assessment.comparison import COUNTS, Comparison
from orchestrator.assessment.confirmation import in_doubt
from orchestrator.display.text import between
from orchestrator.record.state import TrialRecord
from orchestrator.report.figures import BLUE, ORANGE, PURPLE, Figure, plain

COMPARED = 6  # figures of a recipe that are drawn; all are in its table


@dataclass(frozen=True)
class Estimate:
    """One number that people look at first."""

    name: str
    value: str
    interval: str  # of it, in brackets; empty if there is none
    about: str


def estimates(final: Mapping[str, Any], trials: int, first: TrialRecord | None) -> list[Estimate]:
    """From the search's best score to the test set's, by `confirmation.final`; `first` leads the leaderboard."""
    if first is None:
        return []
    if not final["confirmed"]:
        return [
            Estimate(
                "best of the search",
                _number(final["search_best"]),
                "",
                f"trial {first.number}, the luckiest of {trials:,}: one seed, its best epoch. Not confirmed",
            )
        ]
    validation, test = final["validation"], final["test"]
    best = next(row for row in final["candidates"] if row["trial"] == final["shrinkage"]["leader"])
    found = [
        Estimate(
            "best of the search",
            _number(best["search"]),
            "",
            f"trial {best['trial']}, the luckiest of {trials:,}: one seed, its best epoch",
        ),
        Estimate(
            "confirmed",
            _number(validation["mean"]),
            between(validation["interval"]),
            f"trial {final['trial']}, the winner: mean of {len(validation['scores'])} new seeds, on the same rows",
        ),
    ]
    if test is not None:
        doubt = f". {sentence}" if (sentence := in_doubt(test)) else ""
        where = {True: "within", False: "outside"}.get(test["inside"])
        expected = f", {where} the {between(test['predicted'])} to be expected of one" if where else ""
        found.append(
            Estimate(
                "on the test set",
                _number(test["score"]["mean"]),
                between(test["score"]["interval"]),
                f"mean of the same models on {test['rows']:,} rows that chose nothing. The model that is kept has "
                f"accuracy {_number(test['model_accuracy'])} {between(test['wilson'])}{expected}{doubt}",
            )
        )
    return found


def confirmed(final: Mapping[str, Any]) -> Figure | None:
    """Every candidate's score in the search and confirmed mean with its interval, and the winner's on the test set.

    None where nothing was confirmed.
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
    """By figure, each arm's mean with the deviation between its seeds, and what the paper reports."""
    arms = found.arms()[::-1]
    made = {}
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
        made[name] = plain({"data": [trace for trace in traces if trace["x"]], "layout": layout})
    return made


def _dots(values: list[Any], names: list[str], name: str, colour: str, symbol: str) -> Figure:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": values,
        "y": names,
        "name": name,
        "marker": {"color": colour, "symbol": symbol, "size": 10},
        "hovertemplate": "%{y} %{fullData.name}: %{x:.4f}<extra></extra>",
    }


def _bars(values: list[float], intervals: list[Any]) -> Figure:
    """From each value to its interval's ends; none where there is no interval."""
    ends = [interval or (value, value) for value, interval in zip(values, intervals, strict=True)]
    return {
        "array": [high - value for value, (_, high) in zip(values, ends, strict=True)],
        "arrayminus": [value - low for value, (low, _) in zip(values, ends, strict=True)],
    }


def _number(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.4f}"
