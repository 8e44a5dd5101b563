"""A search space: a base configuration, Optuna distributions over some of its fields, conditions on them, and ties."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from typing import Any

from optuna.distributions import CategoricalDistribution, distribution_to_json

from search_spaces import stage as staging
from search_spaces import starts as starting
from search_spaces.distributions import (
    OPTIONS,
    Distribution,
    as_typed,
    check_distribution,
    choice,
    describe_distribution,
    from_json,
    integer,
    log,
    uniform,
)
from search_spaces.stage import Stage
from trainables.config import FIELD_TYPES, FIELDS, TrialConfig, check_values, coerce
from trainables.errors import did_you_mean

__all__ = ["Condition", "SearchSpace", "choice", "integer", "log", "uniform"]

Condition = Mapping[str, tuple[Any, ...]]
"""Fields, and the values of each with which another field is searched."""


@dataclass(frozen=True)
class SearchSpace:
    """The fields that a sweep searches, the values of all others, and the default size of the sweep.

    A searched field with a condition is searched where the configuration meets the condition; elsewhere it has the
    base's value. A space may be unsound: see `problems`.
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
        condition = self.conditions.get(name, {})
        return all(params.get(other, getattr(self.base, other)) in values for other, values in condition.items())

    def order(self) -> tuple[str, ...]:
        """Return the searched fields, each after those that its condition depends on.

        Raises:
            CycleError: conditions depend on each other in a circle.
        """
        graph = {name: tuple(self.conditions.get(name, ())) for name in self.distributions}
        return tuple(TopologicalSorter(graph).static_order())

    def branches(self, names: Iterable[str]) -> list[dict[str, Any]]:
        """Return every combination of choices of the searched fields among `names` and of those they depend on."""
        needed = set(names)
        for name in reversed(self.order()):
            needed |= self.conditions.get(name, {}).keys() if name in needed else set()
        branches: list[dict[str, Any]] = [{}]
        for name in self.order():
            distribution = self.distributions[name]
            if name in needed and isinstance(distribution, CategoricalDistribution):
                choices = [{name: value} for value in distribution.choices]
                branches = [
                    branch | more for branch in branches for more in (choices if self.active(name, branch) else [{}])
                ]
        return branches

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

        searched = self.distributions.get(name)
        changed = (
            {name: choice(*mapped(name, searched.choices))} if isinstance(searched, CategoricalDistribution) else {}
        )
        return replace(
            self,
            base=self.base.replace(**{name: mapped(name, [getattr(self.base, name)])[0]}),
            distributions={**self.distributions, **changed},
            conditions={
                field_name: {other: mapped(other, values) for other, values in condition.items()}
                for field_name, condition in self.conditions.items()
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
        tests = [
            f"{other}={'|'.join(map(as_typed, values))}" for other, values in self.conditions.get(name, {}).items()
        ]
        return describe_distribution(self.distributions[name]) + (f" if {' and '.join(tests)}" if tests else "")

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield every field that is unsound, with a message for each reason."""
        for name, distribution in self.distributions.items():
            yield from ((name, problem) for problem in check_distribution(name, distribution))
        for name, condition in self.conditions.items():
            yield from ((name, problem) for problem in _check_condition(self, name, condition))
        for name, source in self.ties.items():
            yield from ((name, problem) for problem in _check_tie(self, name, source))
        try:
            self.order()
        except CycleError as error:
            circle = error.args[1][:-1]
            if len(circle) > 1:  # a field that depends on itself is reported above
                yield circle[0], f"the conditions of {', '.join(circle)} depend on each other: leave one of them out"
        yield from staging.problems(self.stages, self.distributions)
        yield from starting.problems(self.starts, self.distributions)
        for name, value in self.unstopped.items():
            yield from ((f"unstopped {name}", f"unstopped: {problem}") for problem in check_values({name: value}))

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
        )


def _check_condition(space: SearchSpace, name: str, condition: Condition) -> Iterator[str]:
    """Yield a message for each reason why field `name` cannot be searched under `condition`."""
    if name not in space.distributions:
        yield f"{name} has a condition but is not searched"
    for other, values in condition.items():
        distribution = space.distributions.get(other)
        if other not in FIELDS:
            yield f"{name}: its condition names no field: {check_values({other: None})[0]}"
        elif other == name or distribution is None:
            why = "is the field itself" if other == name else "is not searched"
            yield f"{name}: its condition depends on {other}, which {why}; allowed are fields searched by choice(…)"
        elif not isinstance(distribution, CategoricalDistribution):
            searched = describe_distribution(distribution)
            yield f"{name}: its condition depends on {other}, which is searched by {searched}; a choice(…) is needed"
        else:
            for value in (value for value in values if value not in distribution.choices):
                nearest = did_you_mean(str(value), map(str, distribution.choices))
                searched = describe_distribution(distribution)
                yield f"{name}: its condition needs {other}={as_typed(value)}, which {searched} never is{nearest}"


def _check_tie(space: SearchSpace, name: str, source: str) -> Iterator[str]:
    """Yield a message for each reason why field `name` cannot take the value of field `source`."""
    unknown = [other for other in (name, source) if other not in FIELDS]
    if unknown:
        yield check_values({unknown[0]: None})[0]
    elif name in OPTIONS:
        yield f"{name} belongs to the whole sweep: use {OPTIONS[name]}"
    elif name in space.distributions:
        yield f"{name} is both searched and the same as {source}; leave one out"
    elif source not in space.distributions:
        yield f"{name}=same({source}): {source} is not searched, so give {name} a value, or search {source}"
    elif FIELD_TYPES[name] is not FIELD_TYPES[source]:
        kinds = {int: "a whole number", float: "a real number", bool: "true or false", str: "a name"}
        yield f"{name}=same({source}): {name} is {kinds[FIELD_TYPES[name]]}, {source} {kinds[FIELD_TYPES[source]]}"
    else:
        yield from check_distribution(name, space.distributions[source])
