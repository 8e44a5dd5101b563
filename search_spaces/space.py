"""A search space: a base configuration, Optuna distributions over some of its fields, and what holds between them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from typing import Any

from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
    json_to_distribution,
)

from trainables.config import FIELD_TYPES, FIELDS, TrialConfig, check_values, coerce
from trainables.errors import ConfigError, did_you_mean

Distribution = FloatDistribution | IntDistribution | CategoricalDistribution

OPTIONS = {
    "metric": "--metric",
    "seed": "--seed",
    "threads": "--cpus-per-trial",
    "max_epochs": "--max-epochs",
}
"""Fields that belong to the sweep, not to a trial, and the option that decides each."""


Condition = Mapping[str, tuple[Any, ...]]
"""Fields, and those values of each under which another field is searched."""


@dataclass(frozen=True)
class SearchSpace:
    """What a sweep searches, and how far it goes unless told otherwise.

    `trials` is the default number of trials; `subset` the number of rows to use (None: all).

    A searched field that has one of the `conditions` is searched where the configuration meets it; elsewhere it has
    the base's value. `ties` name fields that take the value of a searched one. `problems` says what is wrong.
    """

    base: TrialConfig
    distributions: Mapping[str, Distribution] = field(default_factory=dict)
    trials: int = 16
    subset: int | None = None
    conditions: Mapping[str, Condition] = field(default_factory=dict)
    ties: Mapping[str, str] = field(default_factory=dict)

    @property
    def varied(self) -> tuple[str, ...]:
        """The fields in which trials differ: those that are searched, then those that are tied to them."""
        return (*self.distributions, *self.ties)

    def config(self, params: Mapping[str, Any], **fixed: Any) -> TrialConfig:
        """The base with the searched `params`, what is tied to them, and whatever else is `fixed` for this trial."""
        drawn = {name: coerce(name, value) for name, value in params.items()}
        tied = {name: drawn.get(source, getattr(self.base, source)) for name, source in self.ties.items()}
        return self.base.replace(**drawn, **tied, **fixed)

    def active(self, name: str, params: Mapping[str, Any]) -> bool:
        """Whether field `name` is searched, given the `params` that were drawn before it."""
        condition = self.conditions.get(name, {})
        return all(params.get(other, getattr(self.base, other)) in values for other, values in condition.items())

    def order(self) -> tuple[str, ...]:
        """The searched fields, each after those that its condition looks at."""
        graph = {name: tuple(self.conditions.get(name, ())) for name in self.distributions}
        return tuple(TopologicalSorter(graph).static_order())

    def branches(self, names: Iterable[str]) -> list[dict[str, Any]]:
        """Every combination of choices that the searched fields among `names`, and those they depend on, can take."""
        needed = set(names)
        for name in reversed(self.order()):
            needed |= self.conditions.get(name, {}).keys() if name in needed else set()
        found: list[dict[str, Any]] = [{}]
        for name in self.order():
            distribution = self.distributions[name]
            if name in needed and isinstance(distribution, CategoricalDistribution):
                drawn = [{name: value} for value in distribution.choices]
                found = [known | more for known in found for more in (drawn if self.active(name, known) else [{}])]
        return found

    def values(self, name: str) -> tuple[Any, ...]:
        """The values that field `name` is certain to take: its choices, or the base's one value."""
        made = (getattr(self.config(params), name) for params in self.branches({name, self.ties.get(name, name)}))
        return tuple(dict.fromkeys(made))

    def renamed(self, name: str, names: Mapping[Any, Any]) -> SearchSpace:
        """The space with the values of field `name` as `names` has them, wherever they stand."""

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
        )

    def told(self, name: str) -> str:
        """What the space says of field `name`, as one would type it: how it is searched, or its value."""
        if name in self.ties:
            return f"same({self.ties[name]})"
        if name not in self.distributions:
            return as_typed(getattr(self.base, name))
        tests = [
            f"{other}={'|'.join(map(as_typed, values))}" for other, values in self.conditions.get(name, {}).items()
        ]
        return describe_distribution(self.distributions[name]) + (f" if {' and '.join(tests)}" if tests else "")

    def problems(self) -> Iterator[tuple[str, str]]:
        """Every field with which something is wrong, and a sentence about it."""
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
            if len(circle) > 1:  # of one alone it is told above
                yield circle[0], f"the conditions of {', '.join(circle)} depend on each other: leave one of them out"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; `from_dict` gives the space back."""
        return {
            "base": self.base.to_dict(),
            "distributions": {n: json.loads(distribution_to_json(d)) for n, d in self.distributions.items()},
            "trials": self.trials,
            "subset": self.subset,
            "conditions": {name: {n: list(v) for n, v in c.items()} for name, c in self.conditions.items()},
            "ties": dict(self.ties),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SearchSpace:
        conditions = values.get("conditions", {})  # sweeps of earlier versions have neither these nor ties
        return cls(
            TrialConfig.from_dict(values["base"]),
            {n: _from_json(d) for n, d in values["distributions"].items()},
            values["trials"],
            values["subset"],
            {name: {n: tuple(v) for n, v in condition.items()} for name, condition in conditions.items()},
            values.get("ties", {}),
        )


def _check_condition(space: SearchSpace, name: str, condition: Condition) -> Iterator[str]:
    if name not in space.distributions:
        yield f"{name} has a condition and is not searched"
    for other, values in condition.items():
        distribution = space.distributions.get(other)
        if other not in FIELDS:
            yield f"{name}: its condition names no field: {check_values({other: None})[0]}"
        elif other == name or distribution is None:
            why = "is the field itself" if other == name else "is not searched"
            yield f"{name}: its condition looks at {other}, which {why}; allowed are fields searched by choice(…)"
        elif not isinstance(distribution, CategoricalDistribution):
            words = describe_distribution(distribution)
            yield f"{name}: its condition looks at {other}, which is searched by {words}; a choice(…) is needed"
        else:
            for value in (value for value in values if value not in distribution.choices):
                near = did_you_mean(str(value), map(str, distribution.choices))
                words = describe_distribution(distribution)
                yield f"{name}: its condition wants {other}={as_typed(value)}, which {words} never is{near}"


def _check_tie(space: SearchSpace, name: str, source: str) -> Iterator[str]:
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


def _from_json(values: Mapping[str, Any]) -> Distribution:
    distribution = json_to_distribution(json.dumps(values))
    if not isinstance(distribution, Distribution):
        raise ConfigError(f"distribution {values!r} is of a kind that this version does not know")
    return distribution


def log(low: float, high: float) -> FloatDistribution:
    """Real numbers, uniform in their logarithm."""
    return FloatDistribution(low, high, log=True)


def uniform(low: float, high: float, step: float | None = None) -> FloatDistribution:
    """Real numbers, uniform, on a grid if a step is given.

    Raises:
        ValueError: HIGH is not a whole number of steps above LOW.
    """
    if step is not None:
        _check_steps(low, high, step)
    return FloatDistribution(low, high, step=step)


def _check_steps(low: float, high: float, step: float) -> None:
    if not math.isclose((high - low) / step, round((high - low) / step), abs_tol=1e-9):
        raise ValueError(f"{high:g} - {low:g} is not a whole number of steps of {step:g}")


def integer(low: int, high: int, step: int = 1) -> IntDistribution:
    """Whole numbers, uniform, both ends included.

    Raises:
        ValueError: a bound is no whole number, or HIGH is not a whole number of steps above LOW.
    """
    if not all(isinstance(value, int) for value in (low, high, step)):
        raise ValueError("whole numbers are needed")
    _check_steps(low, high, step)
    return IntDistribution(low, high, step=step)


def choice(*values: Any) -> CategoricalDistribution:
    """One of the given values."""
    return CategoricalDistribution(values)


DISTRIBUTIONS: dict[str, tuple[Callable[..., Distribution], str]] = {
    "log": (log, "log(LOW,HIGH)"),
    "uniform": (uniform, "uniform(LOW,HIGH[,STEP])"),
    "int": (integer, "int(LOW,HIGH[,STEP])"),
    "choice": (choice, "choice(A,B,…)"),
}
ALLOWED_FORMS = ", ".join([*(form for _, form in DISTRIBUTIONS.values()), "same(FIELD)"])


def as_typed(value: Any) -> str:
    """A value as one would type it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def describe_distribution(distribution: Distribution) -> str:
    """A distribution as one would type it."""
    if isinstance(distribution, CategoricalDistribution):
        return f"choice({', '.join(map(as_typed, distribution.choices))})"
    kind = "log" if distribution.log else "int" if isinstance(distribution, IntDistribution) else "uniform"
    step = f", {distribution.step:g}" if distribution.step not in (None, 1) else ""
    return f"{kind}({distribution.low:g}, {distribution.high:g}{step})"


def check_distribution(name: str, distribution: Distribution) -> list[str]:
    """A sentence for each reason why field `name` cannot be searched by `distribution`."""
    if not isinstance(distribution, Distribution):
        return [f"{name}: {distribution!r} is no distribution (allowed: {ALLOWED_FORMS})"]
    if name in OPTIONS:
        return [f"{name} belongs to the whole sweep: use {OPTIONS[name]}"]
    if name not in FIELDS or not isinstance(distribution, FloatDistribution | IntDistribution):
        return check_values_of(name, getattr(distribution, "choices", (None,)))
    if FIELD_TYPES[name] not in (int, float):
        return [f"{name} takes names, not a range: use choice(…), allowed: {FIELDS[name].metadata['allowed']}"]
    if FIELD_TYPES[name] is int and isinstance(distribution, FloatDistribution):
        return [f"{name} takes whole numbers: use int(LOW,HIGH) or choice(…)"]
    return check_values_of(name, (distribution.low, distribution.high))


def check_values_of(name: str, values: Iterable[Any]) -> list[str]:
    """As `check_values`, for several values of one field."""
    return list(dict.fromkeys(problem for value in values for problem in check_values({name: value})))
