"""The report's view of all trials: the leaderboard's columns and the learning curves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from orchestrator.plan.plan import Plan
from orchestrator.record.aims import MEASURES
from orchestrator.record.ranking import UNRANKED, is_ranked, ranked
from orchestrator.record.state import SweepState, TrialRecord
from orchestrator.report.figures import ARMS, GREY, STATUSES, Figure, chosen, plain
from trainables.config import FIELDS
from trainables.epoch_metrics import MEANINGS, METRICS, column
from trainables.errors import last_line

Column = dict[str, Any]
"""`name`, `kind` (text, integer, number, share), `about` (its meaning), `more` (not printed on paper), `values`."""

ABOUT = {
    "rank": "place on the leaderboard; none for trials that diverged, failed or have no score",
    "trial": "number of the trial, in the order of proposal",
    "front": "whether no other trial beats it in all aims",
    "feasible": "whether it meets all constraints",
    "arm": "arm of the recipe",
    "status": "how the trial stands",
    "stop_reason": "why the trial ended",
    "score": "best value of the metric so far",
    "epochs": "number of epochs run",
    "best_epoch": "epoch of the score",
    "parameters": "number of parameters of the model",
    "train_s": "seconds in training steps",
    "error": "last line of the error of a trial that diverged or failed",
}
ALWAYS = ("rank", "trial", "score", "status", "stop_reason")
KINDS = {"string": "text", "int64": "integer", "double": "number", "bool": "text"}


def columns(table: pa.Table, state: SweepState, planned: Plan) -> list[Column]:
    """Return the columns of the leaderboard `table` that the page shows, by rank, without those that have no value."""
    metrics = [name for name in METRICS if name != planned.space.base.metric]
    searched = [f"config.{name}" for name in planned.space.distributions]
    weighed = [*(aim.name for aim in planned.aims), *(bound.name for bound in planned.constraints)]
    others = ["epochs", "best_epoch", *metrics, "parameters", "train_s", "error"]
    names = list(dict.fromkeys([*ALWAYS, "front", "feasible", "arm", *weighed, *searched, *others]))
    shown: list[Column] = []
    for name in names:
        values = table.column(name).to_pylist()
        if name not in ALWAYS and all(value is None for value in values):
            continue
        if name == "parameters" and len(set(values)) <= 2:  # the same for all, or not known yet
            continue
        if name == "error":
            values = [value and last_line(value)[:200] for value in values]
        if name in ("front", "feasible"):
            values = [None if value is None else "yes" if value else "no" for value in values]
        field = name.removeprefix("config.")
        if (
            field in planned.space.conditions or field in planned.space.ranges
        ):  # where the condition did not hold, it was not drawn
            drawn = (field in state.trials[number].params for number in table.column("trial").to_pylist())
            values = [value if was_drawn else None for value, was_drawn in zip(values, drawn, strict=True)]
        meaning = (
            FIELDS[field].metadata["meaning"] if field in FIELDS else f"{MEANINGS.get(name, name)}, in the best epoch"
        )
        share = name == "score" or name in METRICS
        kind = "share" if share else KINDS[str(table.schema.field(name).type)]
        more = name in (*METRICS, "best_epoch", "parameters", "train_s", "error")
        about = ABOUT.get(name) or (MEASURES[name].meaning if name in MEASURES else meaning)
        shown.append({"name": field, "kind": kind, "about": about, "more": more, "values": plain(values)})
    return shown


def curves(state: SweepState, planned: Plan) -> tuple[Figure, int, int] | None:
    """Plot the metric by epoch, one line per trial, above the number of trials stopped at each epoch.

    Return the figure, the number of trials in it and the number of all; None before the first epoch.
    """
    trials = [t for t in ranked(state) if t.epochs and t.confirms is None]
    if not trials:
        return None
    drawn, metric = chosen(trials), column(planned.space.base.metric)
    best = drawn[0] if is_ranked(drawn[0]) else None
    traces = [_lines(group, metric) | look for group, look in _groups([t for t in drawn if t is not best], planned)]
    stopped = [t for t in drawn if t.status == "stopped"]
    traces.append(
        {
            **_points(stopped, metric),
            "name": "epoch at which it was stopped",
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
                "hovertemplate": "trials stopped at epoch %{x}: %{y}<extra></extra>",
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
    """Yield the trials that are drawn alike, of one arm of a recipe or of one status, with their style."""
    names = list(planned.arms) if planned.recipe else list(STATUSES)
    for place, name in enumerate(names):
        color = ARMS[place % len(ARMS)] if planned.recipe else STATUSES[name]
        dotted = place >= len(ARMS) if planned.recipe else name in UNRANKED
        line = {"color": color, "width": 1.2, "dash": "dot" if dotted else "solid"}
        yield (
            [trial for trial in trials if name == (trial.arm if planned.recipe else trial.status)],
            {"name": name, "line": line, "marker": {"color": color, "size": 5}, "opacity": 0.8},
        )


def _lines(trials: list[TrialRecord], metric: str) -> Figure:
    """Return one trace for all `trials`, with a gap between two of them: thousands of traces would be slow."""
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
    """Return a trace with the last epoch of each trial."""
    return {
        "type": "scatter",
        "x": [trial.last_epoch for trial in trials],
        "y": [trial.epochs[-1].get(metric) for trial in trials],
        "customdata": [trial.number for trial in trials],
        "hovertemplate": "trial %{customdata} was stopped at epoch %{x}: %{y}<extra></extra>",
    }
