"""All trials: the leaderboard's columns and the learning curves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from orchestrator.plan.plan import Plan
from orchestrator.record.ranking import UNRANKED, is_ranked, ranked
from orchestrator.record.state import SweepState, TrialRecord
from orchestrator.report.figures import ARMS, GREY, STATUSES, Figure, chosen, plain
from trainables.config import FIELDS
from trainables.epoch_metrics import MEANINGS, METRICS

Column = dict[str, Any]
"""`name`, `kind` (text, integer, number or share), `about` (what it is), `more` (left out on paper) and `values`."""

ABOUT = {
    "rank": "place; none for trials that diverged, failed or have no score",
    "trial": "number, in the order of proposal",
    "arm": "of the recipe",
    "status": "what became of it",
    "stop_reason": "why it ended",
    "score": "best value of the metric",
    "epochs": "epochs run",
    "best_epoch": "epoch of the score",
    "parameters": "of the model",
    "train_s": "seconds in training steps",
    "error": "of a trial that diverged or failed",
}
ALWAYS = ("rank", "trial", "score", "status", "stop_reason")
KINDS = {"string": "text", "int64": "integer", "double": "number", "bool": "text"}


def columns(table: pa.Table, state: SweepState, planned: Plan) -> list[Column]:
    """What the page shows of the leaderboard `table`, by rank; columns without a value are left out."""
    metrics = [name for name in METRICS if name != planned.space.base.metric]
    searched = [f"config.{name}" for name in planned.space.distributions]
    names = [*ALWAYS, "arm", *searched, "epochs", "best_epoch", *metrics, "parameters", "train_s", "error"]
    found = []
    for name in names:
        values = table.column(name).to_pylist()
        if name not in ALWAYS and all(value is None for value in values):
            continue
        if name == "parameters" and len(set(values)) <= 2:  # the same for all, or not known yet
            continue
        if name == "error":
            values = [value and value.strip().splitlines()[-1][:200] for value in values]
        field = name.removeprefix("config.")
        if field in planned.space.conditions:  # where the condition did not hold, it was not drawn
            drawn = (field in state.trials[number].params for number in table.column("trial").to_pylist())
            values = [value if there else None for value, there in zip(values, drawn, strict=True)]
        meaning = (
            FIELDS[field].metadata["meaning"] if field in FIELDS else f"{MEANINGS.get(name, name)}, in the best epoch"
        )
        share = name == "score" or name in METRICS
        kind = "share" if share else KINDS[str(table.schema.field(name).type)]
        more = name in (*METRICS, "best_epoch", "parameters", "train_s", "error")
        about = ABOUT.get(name, meaning)
        found.append({"name": field, "kind": kind, "about": about, "more": more, "values": plain(values)})
    return found


def curves(state: SweepState, planned: Plan) -> tuple[Figure, int, int] | None:
    """The metric by epoch, a line a trial, over the number of trials stopped at each epoch; drawn trials, and all.

    None before the first epoch.
    """
    trials = [t for t in ranked(state) if t.epochs and t.confirms is None]
    if not trials:
        return None
    drawn, metric = chosen(trials), planned.space.base.metric
    best = drawn[0] if is_ranked(drawn[0]) else None
    traces = [_lines(group, metric) | look for group, look in _groups([t for t in drawn if t is not best], planned)]
    stopped = [t for t in drawn if t.status == "stopped"]
    traces.append(
        {
            **_points(stopped, metric),
            "name": "where it was stopped",
            "mode": "markers",
            "marker": {"symbol": "x-thin", "size": 6, "line": {"width": 1.5, "color": GREY}},
        }
    )
    if best is not None:
        traces.append({**_lines([best], metric), "name": f"best: trial {best.number}", "line": {"width": 3}})
    ends = Counter(t.last_epoch for t in trials if t.status == "stopped")
    if ends:
        traces.append(
            {
                "type": "bar",
                "x": sorted(ends),
                "y": [ends[epoch] for epoch in sorted(ends)],
                "yaxis": "y2",
                "width": 0.3,
                "marker": {"color": GREY},
                "name": "trials stopped",
                "showlegend": False,
                "hovertemplate": "%{y} trials stopped at epoch %{x}<extra></extra>",
            }
        )
    longest = max(trial.last_epoch for trial in trials)
    layout = {
        "xaxis": {"title": {"text": "epoch"}, "dtick": 1 + longest // 12, "anchor": "y2" if ends else "y"},
        "yaxis": {"title": {"text": metric}, "domain": [0.32 if ends else 0, 1]},
        "yaxis2": {"title": {"text": "stopped"}, "domain": [0, 0.2]},
        "hovermode": "closest",
        "height": 520,
    }
    return plain({"data": [trace for trace in traces if trace["x"]], "layout": layout}), len(drawn), len(trials)


def _groups(trials: list[TrialRecord], planned: Plan) -> Iterator[tuple[list[TrialRecord], Figure]]:
    """Trials that look alike, with what they look like: those of a recipe's arm, or of a status."""
    names = list(planned.arms) if planned.recipe else list(STATUSES)
    for place, name in enumerate(names):
        colour = ARMS[place % len(ARMS)] if planned.recipe else STATUSES[name]
        dotted = place >= len(ARMS) if planned.recipe else name in UNRANKED
        line = {"color": colour, "width": 1.2, "dash": "dot" if dotted else "solid"}
        yield (
            [trial for trial in trials if name == (trial.arm if planned.recipe else trial.status)],
            {"name": name, "line": line, "marker": {"color": colour, "size": 5}, "opacity": 0.8},
        )


def _lines(trials: list[TrialRecord], metric: str) -> Figure:
    """One trace for all `trials`, with a gap between two: thousands of traces would be slow."""
    x: list[int | None] = []
    y: list[float | None] = []
    numbers: list[int | None] = []
    for trial in trials:
        x += [*(epoch["epoch"] for epoch in trial.epochs), None]
        y += [*(epoch.get(metric) for epoch in trial.epochs), None]
        numbers += [trial.number] * (len(trial.epochs) + 1)
    return {
        "type": "scatter",
        "mode": "lines" if any(len(trial.epochs) > 1 for trial in trials) else "markers",
        "x": x,
        "y": y,
        "customdata": numbers,
        "hovertemplate": "trial %{customdata}, epoch %{x}: %{y}<extra></extra>",
    }


def _points(trials: list[TrialRecord], metric: str) -> Figure:
    """The last epoch of each trial."""
    return {
        "type": "scatter",
        "x": [trial.last_epoch for trial in trials],
        "y": [trial.epochs[-1].get(metric) for trial in trials],
        "customdata": [trial.number for trial in trials],
        "hovertemplate": "trial %{customdata} was stopped at epoch %{x}: %{y}<extra></extra>",
    }
