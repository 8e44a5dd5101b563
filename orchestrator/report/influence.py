"""The settings that mattered: Optuna's plots of the searched settings."""

from __future__ import annotations

import itertools
import random
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.visualization import plot_contour, plot_parallel_coordinate, plot_slice

from orchestrator.cluster.process_state import optuna_quiet
from orchestrator.plan.plan import Plan
from orchestrator.record.ranking import direction, ranked
from orchestrator.record.state import SweepState, TrialRecord
from orchestrator.report.figures import BLUE, ORANGE, STATUSES, Figure, chosen, plain, scored
from orchestrator.search.study import direction_of
from search_spaces.space import SearchSpace

LEAST = 10  # trials, below which importances are noise
PAIRED = 4  # settings whose pairs have a contour
LINES = 150  # best trials in parallel coordinates, and as many others: more cover each other
CONTOUR = 50  # best trials of a contour, and as many others: it has a cell for each pair of their values
WEIGHED = 2_000  # trials at most that importances are computed from, drawn at random
SHADES = 12  # of lines in parallel coordinates


@dataclass(frozen=True)
class Influence:
    """The influence of the settings of one arm's search on the score."""

    arm: str
    trials: int  # with a score
    shown: int  # of those, in the slices
    importances: Figure | None  # None where trials are too few
    slices: dict[str, Figure]  # by setting
    parallel: Figure
    contours: dict[str, Figure]  # by pair of settings


@optuna_quiet()
def influences(state: SweepState, planned: Plan) -> list[Influence]:
    """Yield an influence for each arm in which anything is searched and at least two trials have a score."""
    found = []
    places = scored(ranked(state))
    for arm, space in planned.arms.items():
        trials = [trial for trial in places if trial.arm == arm and not trial.final and _fits(space, trial)]
        if len(trials) > 1 and _varied(space, trials):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of plots that would be empty
                found.append(_influence(arm, space, trials, planned.grace))
    return found


def _influence(arm: str, space: SearchSpace, trials: list[TrialRecord], grace: int) -> Influence:
    metric, drawn = space.base.metric, chosen(trials)[::-1]  # the best are drawn last, over the others
    study = _study(space, [(trial, trial.score) for trial in drawn])
    importances, order = _importances(space, trials, grace)
    settings = [name for name in order or space.distributions if name in _varied(space, drawn)]
    lines = chosen(trials, LINES, LINES)[::-1]
    crossed = _study(space, [(trial, trial.score) for trial in lines])
    few = chosen(trials, CONTOUR, CONTOUR)[::-1]
    paired = _study(space, [(trial, trial.score) for trial in few])
    return Influence(
        arm,
        len(trials),
        len(drawn),
        importances,
        {name: _by_status(plot_slice(study, [name], target_name=metric), drawn) for name in settings},
        _joined(plot_parallel_coordinate(crossed, settings, target_name=metric), direction(metric) > 0),
        {
            f"{x} × {y}": _bare(plot_contour(paired, [x, y], target_name=metric))
            for x, y in itertools.combinations(settings[:PAIRED], 2)
            if {x, y} <= set(_varied(space, [trial for trial in few if {x, y} <= trial.params.keys()]))
        },
    )


def _fits(space: SearchSpace, trial: TrialRecord) -> bool:
    """Return whether the space has all searched values of `trial`; a damaged record may have others."""
    try:
        _frozen(space, trial, 0.0)
    except (KeyError, ValueError):  # an unknown setting, a value that its distribution does not have
        return False
    return True


def _frozen(space: SearchSpace, trial: TrialRecord, value: float | None) -> optuna.trial.FrozenTrial:
    drawn: dict[str, BaseDistribution] = {name: space.hull(name) for name in trial.params}
    return optuna.trial.create_trial(params=trial.params, distributions=drawn, value=value)


def _study(space: SearchSpace, values: Sequence[tuple[TrialRecord, float | None]]) -> optuna.Study:
    """Return a finished study of these trials, each with its value."""
    study = optuna.create_study(direction=direction_of(space))
    for trial, value in values:
        study.add_trial(_frozen(space, trial, value))
    return study


def _varied(space: SearchSpace, trials: Sequence[TrialRecord]) -> list[str]:
    """Return the searched settings of which `trials` have more than one value."""
    found = {name: {t.params[name] for t in trials if name in t.params} for name in space.distributions}
    return [name for name, values in found.items() if len(values) > 1]


def _importances(space: SearchSpace, trials: list[TrialRecord], grace: int) -> tuple[Figure | None, list[str]]:
    """Return importances (PED-ANOVA) among comparable trials, one set for each group of them.

    Those that ran to their end were let through by the stop rule; at its first look all are there. Where nothing was
    stopped the two are the same.
    """
    looks = {f"at epoch {grace}, before any was stopped": [(t, _score_at(t, grace)) for t in trials]}
    whole = [(t, t.score) for t in trials if t.status == "completed"]
    looks = {"of those that ran to their end": whole} | (looks if len(whole) < len(trials) else {})
    found: list[tuple[str, dict[str, float], str]] = []
    for (name, values), colour in zip(looks.items(), (BLUE, ORANGE), strict=False):
        there = [(trial, value) for trial, value in values if value is not None]
        settings = _varied(space, [trial for trial, _ in there])
        if len(there) >= LEAST and settings:
            from optuna.importance import get_param_importances  # loads scikit-learn

            study = _study(space, random.Random(0).sample(there, min(len(there), WEIGHED)))
            weights = get_param_importances(study, params=settings)
            found.append((f"{name} (n = {len(study.trials):,})", weights, colour))
    if not found:
        return None, []
    weights = found[-1][1]  # of the look with the most trials
    layout = {
        "xaxis": {"title": {"text": "importance"}, "range": [0, 1.2 * max(max(w.values()) for _, w, _ in found)]},
        "yaxis": {"autorange": "reversed"},
        "barmode": "group",
        "showlegend": True,
        "height": 130 + 36 * len(weights),
    }
    figure = plain({"data": [_bars(*each) for each in found], "layout": layout})
    return figure, sorted(weights, key=lambda name: -weights[name])


def _bars(name: str, weights: dict[str, float], colour: str) -> dict[str, Any]:
    """Return the bars of importances, setting → weight."""
    return {
        "type": "bar",
        "orientation": "h",
        "x": list(weights.values()),
        "y": list(weights),
        "text": [f"{weight:.2f}" for weight in weights.values()],
        "textposition": "outside",
        "cliponaxis": False,
        "name": name,
        "marker": {"color": colour},
    }


def _score_at(trial: TrialRecord, epoch: int) -> float | None:
    return trial.scores.get(epoch)


def _bare(figure: Any) -> Figure:
    """Return a figure of Optuna's without title, template, width and text colors: the page has its own."""
    layout = figure.layout
    layout.title = layout.template = layout.width = layout.plot_bgcolor = None
    figure.update_annotations(font_color=None)
    return plain(figure.to_plotly_json())  # type: ignore[no-any-return]


def _by_status(figure: Any, trials: Sequence[TrialRecord]) -> Figure:
    """Return a slice plot of Optuna's with the trials' numbers, and their statuses as colors and symbols."""
    (points,) = figure.data
    there = [trials[number] for number in points.marker.color]
    points.customdata = [trial.number for trial in there]
    points.hovertemplate = "trial %{customdata}: %{y} at %{x}<extra></extra>"
    points.marker = {
        "color": [STATUSES[trial.status] for trial in there],
        "symbol": ["x-thin-open" if trial.status == "stopped" else "circle" for trial in there],
        "size": 6,
    }
    figure.update_layout(height=280, xaxis_nticks=5)
    return _bare(figure)


def _joined(figure: Any, maximize: bool) -> Figure:
    """Return Optuna's parallel coordinates with one trace for all lines of about one color.

    `meta` is the colour's place on the page's scale, 1 for the best. The first coordinate is the score, from 0 to 1.
    """
    shades: dict[int, list[Any]] = {}
    for line in figure.select_traces({"mode": "lines"}):
        shades.setdefault(min(int(line.y[0] * SHADES), SHADES - 1), []).append(line)
    rest = [trace for trace in figure.data if trace.mode != "lines"]
    joined = []
    for shade in sorted(shades, reverse=not maximize):
        lines = shades[shade]
        same = {name: [v for line in lines for v in [*line[name], None]] for name in ("x", "y", "customdata")}
        place = shade / (SHADES - 1)
        joined.append(lines[-1].update(**same, opacity=0.8, meta=place if maximize else 1 - place))
    figure.data = [*joined, *rest]
    return _bare(figure)
