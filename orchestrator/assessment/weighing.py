"""The results of a sweep's aims beside its metric and of its constraints, as plain values."""

from __future__ import annotations

from typing import Any

from orchestrator.plan.plan import Plan
from orchestrator.record.aims import broken
from orchestrator.record.front import front
from orchestrator.record.ranking import is_ranked
from orchestrator.record.state import SweepState


def front_values(state: SweepState, planned: Plan) -> list[dict[str, Any]]:
    """Return the trials on the front, the best score first, each as `trial`, `score` and its aims by name."""
    return [
        {"trial": trial.number, "score": trial.score, **{aim.name: aim.measure.value(trial) for aim in planned.aims}}
        for trial in front(state)
    ]


def weighed(state: SweepState, planned: Plan) -> dict[str, Any]:
    """Return the front, and how many ranked trials meet the constraints; nothing where there are neither."""
    found: dict[str, Any] = {}
    if planned.aims:
        found["aims"] = {aim.name: aim.direction for aim in planned.aims}
        found["front"] = front_values(state, planned)
    if planned.constraints:
        ranked = [trial for trial in state.trials.values() if is_ranked(trial)]
        found["constraints"] = [str(one) for one in planned.constraints]
        found["feasible"] = sum(not broken(trial, planned.constraints) for trial in ranked)
    return found
