"""A search space: a base configuration and Optuna distributions over some of its fields."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
    json_to_distribution,
)

from trainables.config import (
    FIELD_TYPES,
    FIELDS,
    ConfigError,
    TrialConfig,
    check_values,
    coerce,
    parse_fields,
    parse_value,
)

Distribution = FloatDistribution | IntDistribution | CategoricalDistribution

OPTIONS = {
    "metric": "--metric",
    "seed": "--seed",
    "threads": "--cpus-per-trial",
    "max_epochs": "--max-epochs",
}
"""Fields that belong to the sweep, not to a trial, and the option that decides each."""


@dataclass(frozen=True)
class SearchSpace:
    """What a sweep searches, and how far it goes unless told otherwise.

    `trials` is the default number of trials; `subset` the number of rows to use (None: all).
    """

    base: TrialConfig
    distributions: Mapping[str, Distribution] = field(default_factory=dict)
    trials: int = 16
    subset: int | None = None

    def config(self, params: Mapping[str, Any], **fixed: Any) -> TrialConfig:
        """The base with the searched `params` and whatever else is `fixed` for this trial."""
        typed = {name: coerce(name, value) for name, value in params.items()}
        return self.base.replace(**typed, **fixed)

    def values(self, name: str) -> tuple[Any, ...]:
        """The values that field `name` is certain to take: its choices, or the base's one value."""
        distribution = self.distributions.get(name)
        if isinstance(distribution, CategoricalDistribution):
            return tuple(distribution.choices)
        return (getattr(self.base, name),)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; `from_dict` gives the space back."""
        return {
            "base": self.base.to_dict(),
            "distributions": {n: json.loads(distribution_to_json(d)) for n, d in self.distributions.items()},
            "trials": self.trials,
            "subset": self.subset,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SearchSpace:
        return cls(
            TrialConfig.from_dict(values["base"]),
            {n: _from_json(d) for n, d in values["distributions"].items()},
            values["trials"],
            values["subset"],
        )


def _from_json(values: Mapping[str, Any]) -> Distribution:
    distribution = json_to_distribution(json.dumps(values))
    if not isinstance(distribution, Distribution):
        raise ConfigError([f"distribution {values!r} is of a kind that this version does not know"])
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
ALLOWED_FORMS = ", ".join(form for _, form in DISTRIBUTIONS.values())


def override(space: SearchSpace, settings: Iterable[str], searches: Iterable[str]) -> SearchSpace:
    """`space` with every `--set FIELD=VALUE` fixed and every `--search FIELD=DIST` searched.

    A field that is set is no longer searched.

    Raises:
        ConfigError: naming every wrong field, value and distribution at once.
    """
    fixed, problems = parse_fields(settings, "--set FIELD=VALUE, e.g. --set model=resnet50", elsewhere=OPTIONS)
    form = '--search FIELD=DIST, e.g. --search "lr=log(1e-4,1e-1)"'
    searched, unreadable = parse_fields(searches, form, _parse_distribution, OPTIONS)
    problems += unreadable
    problems += [f"{name} is both set and searched; leave one out" for name in fixed if name in searched]
    problems += check_values(fixed)
    for name, distribution in searched.items():
        problems += check_distribution(name, distribution)
    if problems:
        raise ConfigError(problems)
    distributions = {n: d for n, d in space.distributions.items() if n not in fixed} | searched
    base = space.base.replace(**{name: coerce(name, value) for name, value in fixed.items()})
    return SearchSpace(base, distributions, space.trials, space.subset)


def in_words(distribution: Distribution) -> str:
    """A distribution as one would type it."""
    if isinstance(distribution, CategoricalDistribution):
        return f"choice({', '.join(str(value) for value in distribution.choices)})"
    kind = "log" if distribution.log else "int" if isinstance(distribution, IntDistribution) else "uniform"
    return f"{kind}({distribution.low:g}, {distribution.high:g})"


def check_distribution(name: str, distribution: Distribution) -> list[str]:
    """A sentence for each value of `distribution` that field `name` does not allow."""
    if not isinstance(distribution, FloatDistribution | IntDistribution):
        return check_values_of(name, distribution.choices)
    if FIELD_TYPES[name] not in (int, float):
        return [f"{name} takes names, not a range: use choice(…), allowed: {FIELDS[name].metadata['allowed']}"]
    if FIELD_TYPES[name] is int and isinstance(distribution, FloatDistribution):
        return [f"{name} takes whole numbers: use int(LOW,HIGH) or choice(…)"]
    return check_values_of(name, (distribution.low, distribution.high))


def check_values_of(name: str, values: Iterable[Any]) -> list[str]:
    """As `check_values`, for several values of one field."""
    return [problem for value in values for problem in check_values({name: value})]


def _parse_distribution(name: str, text: str) -> Distribution:
    match = re.fullmatch(r"(\w+)\((.*)\)", text)
    if match is None or match[1] not in DISTRIBUTIONS:
        raise ConfigError([f"{name}={text}: unknown distribution (allowed: {ALLOWED_FORMS})"])
    make, form = DISTRIBUTIONS[match[1]]
    parts = [part.strip() for part in match[2].split(",")] if match[2].strip() else []
    try:
        if make is choice:
            return _choice(name, parts)
        return make(*(ast.literal_eval(part) for part in parts))
    except (ValueError, TypeError, SyntaxError, ArithmeticError) as error:
        raise ConfigError([f"{name}={text}: {error} (form: {form}, with LOW below HIGH)"]) from error


def _choice(name: str, parts: list[str]) -> CategoricalDistribution:
    values = [parse_value(name, part) for part in parts]
    if not values or len(set(values)) < len(values):
        raise ValueError("a choice needs values, each once")
    return choice(*values)
