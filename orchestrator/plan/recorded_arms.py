"""The search spaces of a plan's arms, as the record of a sweep has them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from orchestrator.record.decoding import RecordError, from_json
from search_spaces.space import SearchSpace
from trainables.config import FIELDS
from trainables.errors import ConfigError


@dataclass(frozen=True)
class _Stage:
    """A stage of a search as `Stage.to_dict` describes it."""

    share: float
    fixed: dict[str, Any] = field(default_factory=dict)
    best: dict[str, int] = field(default_factory=dict)
    each: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Range:
    """A further range of a field."""

    condition: dict[str, list[Any]]
    distribution: dict[str, Any]


@dataclass(frozen=True)
class _Space:
    """A search space as `SearchSpace.to_dict` describes it."""

    base: dict[str, Any]
    distributions: dict[str, dict[str, Any]]
    trials: int
    subset: int | None
    conditions: dict[str, dict[str, list[Any]]] = field(default_factory=dict)  # older sweeps have none of these
    ties: dict[str, str] = field(default_factory=dict)
    stages: list[_Stage] = field(default_factory=list)
    unstopped: dict[str, Any] = field(default_factory=dict)
    starts: list[dict[str, Any]] = field(default_factory=list)
    ranges: dict[str, list[_Range]] = field(default_factory=dict)


def from_record(values: Any) -> dict[str, SearchSpace]:
    """Return the search space of every arm from their description; raise RecordError if one is none."""
    spaces = from_json(dict[str, _Space], values)
    if not spaces:
        raise RecordError("there is none")
    try:
        arms = {name: SearchSpace.from_dict(dataclasses.asdict(space)) for name, space in spaces.items()}
    except ConfigError as error:
        raise RecordError(*error.problems) from error
    unknown = [name for space in arms.values() for name in space.varied if name not in FIELDS]
    if unknown:
        raise RecordError(*(f"{name} is searched, and is no field" for name in unknown))
    return arms
