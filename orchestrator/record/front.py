"""The Pareto front: the trials that no other one beats in all aims, computed from the folded journal."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.record.aims import Aim, known_aims
from orchestrator.record.ranking import direction, is_feasible, is_ranked
from orchestrator.record.state import SweepState, TrialRecord

Values = tuple[float, ...]
"""A trial's aims, of each of which more is better."""


def aims_beside(state: SweepState) -> tuple[Aim, ...]:
    """Return the aims of a sweep beside its metric, as its plan has them."""
    return known_aims(tuple(state.spec.plan.get("also") or ()))


def front(state: SweepState) -> list[TrialRecord]:
    """Return the trials on the front, the best score first; none where the metric is the only aim.

    Compared are the trials of the search with a rank that meet all constraints and whose aims are all known, with their
    values so far: those that were stopped as well. Of trials with equal aims all are on the front.
    """
    beside = aims_beside(state)
    if not beside:
        return []
    ranked = (trial for trial in state.trials.values() if is_ranked(trial) and not trial.final)
    known = [
        (values, trial)
        for trial in ranked
        if (values := _values(trial, beside)) is not None and is_feasible(state, trial)
    ]
    known.sort(key=lambda pair: (*(-value for value in pair[0]), pair[1].number))
    found = list[tuple[Values, TrialRecord]]()
    for values, trial in known:  # only earlier ones can beat it
        if not any(_beats(other, values) for other, _ in found):
            found.append((values, trial))
    return [trial for _, trial in found]


def _values(trial: TrialRecord, beside: Sequence[Aim]) -> Values | None:
    """Return the score and the aims of a trial; None if one of them is not known."""
    values = [aim.measure.value(trial) for aim in beside]
    known = [aim.sign * value for aim, value in zip(beside, values, strict=True) if value is not None]
    if trial.score is None or len(known) < len(values):
        return None
    return direction(trial.metric) * trial.score, *known


def _beats(one: Values, other: Values) -> bool:
    """Return whether one is better in some aim, and worse in none."""
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))
