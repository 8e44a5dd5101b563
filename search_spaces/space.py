"""A search space: a base configuration, Optuna distributions over some of its fields, conditions on them, and ties."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from graphlib import TopologicalSorter
from typing import Any, NamedTuple

from optuna.distributions import distribution_to_json

from search_spaces.distributions import (
    Distribution,
    as_typed,
    choice,
    choices_of,
    describe_distribution,
    from_json,
    hull_of,
    integer,
    log,
    uniform,
    when,
)
from search_spaces.stage import Stage
from trainables.config import TrialConfig, coerce

__all__ = ["Condition", "Range", "SearchSpace", "choice", "integer", "log", "uniform"]

Condition = Mapping[str, tuple[Any, ...]]
"""Fields, and the values of each with which another field is searched."""


class Range(NamedTuple):
    """A way to search a field, and the condition under which it is searched so."""

    condition: Condition
    distribution: Distribution


@dataclass(frozen=True)
class SearchSpace:
    """The fields that a sweep searches, the values of all others, and the default size of the sweep.

    A searched field with a condition is searched where the configuration meets the condition; elsewhere it has the
    base's value. Where the condition of one of its `ranges` is met, it is searched by that one instead. A space may be
    unsound: see `soundness.problems`.
    """

    base: TrialConfig
    distributions: Mapping[str, Distribution] = field(default_factory=dict)
    trials: int = 16  # by default
    subset: int | None = None  # rows to use by default; None: all
    conditions: Mapping[str, Condition] = field(default_factory=dict)  # searched field → its condition
    ties: Mapping[str, str] = field(default_factory=dict)  # field → the searched field whose value it takes
    stages: tuple[Stage, ...] = ()  # of the search, in order; none: all trials are alike
    unstopped: Mapping[str, Any] = field(default_factory=dict)  # trials with all these values, if any, run in full
    starts: tuple[Mapping[str, Any], ...] = ()  # searched values that are known to be good: they are tried first
    ranges: Mapping[str, tuple[Range, ...]] = field(default_factory=dict)  # searched field → its further ranges

    @property
    def kinds(self) -> tuple[str, ...]:
        """The fields that stages fix: trials of different values in them are of different kinds."""
        return tuple(dict.fromkeys(name for stage in self.stages for name in stage.fixed))

    @property
    def varied(self) -> tuple[str, ...]:
        """The fields in which trials differ: those that are searched, then those that are tied to them."""
        return (*self.distributions, *self.ties)

    def stops(self, config: Mapping[str, Any]) -> bool:
        """Return whether a trial of the configuration `config` may be stopped early."""
        return not self.unstopped or any(config.get(name) != value for name, value in self.unstopped.items())

    def config(self, params: Mapping[str, Any], **fixed: Any) -> TrialConfig:
        """Return the base with the searched `params`, the fields tied to them, and what is `fixed` for this trial."""
        drawn = {name: coerce(name, value) for name, value in params.items()}
        tied = {name: drawn.get(source, getattr(self.base, source)) for name, source in self.ties.items()}
        return self.base.replace(**drawn, **tied, **fixed)

    def settings(self, params: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return the values of all searched fields: those of two trials are equal if their configurations are.

        A number on a grid has rounding errors, which depend on how it was computed: 12 digits count.
        """
        values = (params.get(name, getattr(self.base, name)) for name in self.distributions)
        return tuple(float(f"{value:.12g}") if isinstance(value, float) else value for value in values)

    def active(self, name: str, params: Mapping[str, Any]) -> bool:
        """Return whether field `name` is searched, given the `params` that were drawn before it."""
        conditions = [*(found.condition for found in self.ranges.get(name, ())), self.conditions.get(name, {})]
        return any(self.holds(condition, params) for condition in conditions)

    def holds(self, condition: Condition, params: Mapping[str, Any]) -> bool:
        """Return whether a configuration with these searched `params` meets a condition."""
        return all(params.get(other, getattr(self.base, other)) in values for other, values in condition.items())

    def ways(self, name: str) -> tuple[Range, ...]:
        """Return the ranges of a searched field: of those whose condition is met the first one counts."""
        return (*self.ranges.get(name, ()), Range(self.conditions.get(name, {}), self.distributions[name]))

    def parameter(self, name: str, params: Mapping[str, Any]) -> tuple[str, Distribution] | None:
        """Return how field `name` is searched, given the `params` that were drawn before it; None if it is not.

        That is its name as a parameter of its own to a sampler, such as `lr if optimizer=adamw`, and its distribution.
        """
        further = self.ranges.get(name, ())
        for way in self.ways(name):
            if self.holds(way.condition, params):
                return name + (when(way.condition) if way in further else ""), way.distribution
        return None

    def possible(self, name: str, params: Mapping[str, Any]) -> list[Distribution]:
        """Return the distributions that field `name` may have beside these searched values; nothing if not searched.

        All of them, if it is not searched beside these.
        """
        found, ways = list[Distribution](), self.ways(name) if name in self.distributions else ()
        for condition, distribution in ways:
            if all(params[other] in values for other, values in condition.items() if other in params):
                found.append(distribution)
                if condition.keys() <= params.keys():
                    break
        return found or [way.distribution for way in ways]

    def hull(self, name: str) -> Distribution:
        """Return one distribution that has all values of a searched field, for pictures and for other programs."""
        return hull_of([way.distribution for way in self.ways(name)])

    def order(self) -> tuple[str, ...]:
        """Return the searched fields, each after those that its condition depends on.

        Raises:
            CycleError: conditions depend on each other in a circle.
        """
        graph = {name: self.conditioning([name]) for name in self.distributions}
        return tuple(TopologicalSorter(graph).static_order())

    def conditioning(self, names: Iterable[str] | None = None) -> tuple[str, ...]:
        """Return the fields that the conditions of the searched fields `names`, by default of all, depend on."""
        conditions = [way.condition for name in names or self.distributions for way in self.ways(name)]
        return tuple(dict.fromkeys(other for condition in conditions for other in condition))

    def deciding(self, name: str) -> list[str]:
        """Return the searched fields that decide whether, or in which range, field `name` is searched."""
        found = self.conditioning([name]) if name in self.distributions else ()
        return [other for other in found if other in self.distributions]

    def branches(self, names: Iterable[str]) -> list[dict[str, Any]]:
        """Return every combination of choices of the searched fields among `names` and of those they depend on."""
        needed = set(names)
        for name in reversed(self.order()):
            needed |= set(self.conditioning([name])) if name in needed else set()
        branches: list[dict[str, Any]] = [{}]
        for name in self.order():
            if name in needed:
                branches = [branch | more for branch in branches for more in self._choices(name, branch)]
        return branches

    def _choices(self, name: str, branch: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the choices of a field in a branch; one without a value if it has none there."""
        found = self.parameter(name, branch)
        choices = None if found is None else choices_of([found[1]])
        return [{}] if choices is None else [{name: value} for value in choices]

    def values(self, name: str) -> tuple[Any, ...]:
        """Return the values that field `name` takes: its choices, or the base's one value."""
        values = (getattr(self.config(params), name) for params in self.branches({name, self.ties.get(name, name)}))
        return tuple(dict.fromkeys(values))

    def nets(self) -> list[tuple[str, str]]:
        """Return each model that is trained, with each of its initial weights."""
        configs = map(self.config, self.branches(("model", "weights")))
        return list(dict.fromkeys((config.model, config.weights) for config in configs))

    def renamed(self, name: str, names: Mapping[Any, Any]) -> SearchSpace:
        """Return the space with each value of field `name` that `names` has replaced, wherever the space has it."""

        def mapped(field_name: str, values: Iterable[Any]) -> tuple[Any, ...]:
            return tuple(names.get(value, value) if field_name == name else value for value in values)

        def drawn(field_name: str, way: Distribution) -> Distribution:
            choices = choices_of([way]) if field_name == name else None
            return way if choices is None else choice(*mapped(name, choices))

        def met(condition: Condition) -> Condition:
            return {other: mapped(other, values) for other, values in condition.items()}

        return replace(
            self,
            base=self.base.replace(**{name: mapped(name, [getattr(self.base, name)])[0]}),
            distributions={field_name: drawn(field_name, way) for field_name, way in self.distributions.items()},
            conditions={field_name: met(condition) for field_name, condition in self.conditions.items()},
            ranges={
                field_name: tuple(Range(met(way.condition), drawn(field_name, way.distribution)) for way in ways)
                for field_name, ways in self.ranges.items()
            },
            stages=tuple(stage.renamed(name, names) for stage in self.stages),
            starts=tuple({n: mapped(n, [value])[0] for n, value in start.items()} for start in self.starts),
        )

    def describe(self, name: str) -> str:
        """Return how field `name` is searched, or its value, as a user would type it."""
        if name in self.ties:
            return f"same({self.ties[name]})"
        if name not in self.distributions:
            return as_typed(getattr(self.base, name))
        return "; ".join(describe_distribution(way.distribution) + when(way.condition) for way in self.ways(name))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; `from_dict` gives the space back."""
        return {
            "base": self.base.to_dict(),
            "distributions": {n: json.loads(distribution_to_json(d)) for n, d in self.distributions.items()},
            "trials": self.trials,
            "subset": self.subset,
            "conditions": {name: {n: list(v) for n, v in c.items()} for name, c in self.conditions.items()},
            "ties": dict(self.ties),
            "stages": [stage.to_dict() for stage in self.stages],
            "unstopped": dict(self.unstopped),
            "starts": [dict(start) for start in self.starts],
            "ranges": {
                name: [
                    {
                        "condition": {n: list(v) for n, v in way.condition.items()},
                        "distribution": json.loads(distribution_to_json(way.distribution)),
                    }
                    for way in ways
                ]
                for name, ways in self.ranges.items()
            },
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SearchSpace:
        """Return the space that `to_dict` described.

        Raises:
            ConfigError: a field, a value or a distribution is unknown.
        """
        conditions = values.get("conditions", {})  # earlier versions have none of these, nor what follows
        return cls(
            TrialConfig.from_dict(values["base"]),
            {n: from_json(d) for n, d in values["distributions"].items()},
            values["trials"],
            values["subset"],
            {name: {n: tuple(v) for n, v in condition.items()} for name, condition in conditions.items()},
            values.get("ties", {}),
            tuple(Stage.from_dict(stage) for stage in values.get("stages", ())),
            values.get("unstopped", {}),
            tuple(values.get("starts", ())),
            {
                name: tuple(
                    Range({n: tuple(v) for n, v in way["condition"].items()}, from_json(way["distribution"]))
                    for way in ways
                )
                for name, ways in values.get("ranges", {}).items()
            },
        )
