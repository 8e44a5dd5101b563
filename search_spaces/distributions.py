"""Distributions: how one field is searched, as text, as JSON and as Optuna's objects."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    json_to_distribution,
)

from trainables.config import FIELD_TYPES, FIELDS, check_values
from trainables.errors import ConfigError

Distribution = FloatDistribution | IntDistribution | CategoricalDistribution

OPTIONS = {
    "metric": "--metric",
    "seed": "--seed",
    "threads": "--cpus-per-trial",
    "max_epochs": "--max-epochs",
}
"""Fields that belong to the sweep, not to a trial, and the option that sets each."""


def from_json(values: Mapping[str, Any]) -> Distribution:
    """Return the distribution that Optuna described; raise ConfigError if this version has no such one."""
    try:
        distribution = json_to_distribution(json.dumps(values))
    except (LookupError, TypeError, ValueError) as error:  # what Optuna raises if a name or an attribute is wrong
        raise ConfigError(f"distribution {values!r} cannot be read: {error}") from error
    if not isinstance(distribution, Distribution):
        raise ConfigError(f"distribution {values!r} is unknown to this version")
    return distribution


def log(low: float, high: float) -> FloatDistribution:
    """Return a distribution of real numbers, uniform in their logarithm."""
    return FloatDistribution(low, high, log=True)


def uniform(low: float, high: float, step: float | None = None) -> FloatDistribution:
    """Return a distribution of real numbers, uniform, on a grid if a step is given.

    Raises:
        ValueError: HIGH is not a whole number of steps above LOW.
    """
    if step is not None:
        _check_steps(low, high, step)
    return FloatDistribution(low, high, step=step)


def _check_steps(low: float, high: float, step: float) -> None:
    """Raise ValueError unless `high` is a whole number of steps above `low`."""
    if not math.isclose((high - low) / step, round((high - low) / step), abs_tol=1e-9):
        raise ValueError(f"{high:g} - {low:g} is not a whole number of steps of {step:g}")


def integer(low: int, high: int, step: int = 1) -> IntDistribution:
    """Return a distribution of whole numbers, uniform, both ends included.

    Raises:
        ValueError: an argument is no whole number, or HIGH is not a whole number of steps above LOW.
    """
    if not all(isinstance(value, int) for value in (low, high, step)):
        raise ValueError("whole numbers are needed")
    _check_steps(low, high, step)
    return IntDistribution(low, high, step=step)


def choice(*values: Any) -> CategoricalDistribution:
    """Return a distribution over the given values."""
    return CategoricalDistribution(values)


@dataclass(frozen=True)
class DistributionKind:
    """A kind of distribution that `--search` and space files know."""

    make: Callable[..., Distribution]
    template: str  # as a user types it
    help: str
    order: str = ""  # of its numbers, if it has some

    @property
    def usage(self) -> str:
        """The template, and the order that its numbers must have."""
        return f"{self.template}, with {self.order}" if self.order else self.template

    def check(self, numbers: Sequence[Any]) -> None:
        """Raise ValueError if there are too few or too many numbers, or if they are in the wrong order."""
        has_step = "STEP" in self.template
        if not 2 <= len(numbers) <= 2 + has_step:
            raise ValueError("two or three numbers are needed" if has_step else "two numbers are needed")
        low, high, *step = numbers
        if low > high or (self.make is log and low <= 0):
            raise ValueError(f"LOW is {low:g} and HIGH is {high:g}")
        if step and step[0] <= 0:
            raise ValueError(f"STEP is {step[0]:g}, and must be above 0")


RISING = "LOW below HIGH"
DISTRIBUTIONS = {
    "log": DistributionKind(
        log, "log(LOW,HIGH)", "real numbers, uniform in their logarithm", "LOW above 0 and below HIGH"
    ),
    "uniform": DistributionKind(uniform, "uniform(LOW,HIGH[,STEP])", "real numbers; with a step, on a grid", RISING),
    "int": DistributionKind(integer, "int(LOW,HIGH[,STEP])", "whole numbers, both ends included", RISING),
    "choice": DistributionKind(choice, "choice(A,B,…)", "one of these values"),
}
"""The kinds of distribution, by the word that a user types."""

ALLOWED_DISTRIBUTIONS = ", ".join([*(kind.template for kind in DISTRIBUTIONS.values()), "same(FIELD)"])
"""All that may stand behind `--search FIELD=`, for messages."""


def as_typed(value: Any) -> str:
    """Return a value as a user would type it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def describe_distribution(distribution: Distribution) -> str:
    """Return a distribution as a user would type it."""
    if isinstance(distribution, CategoricalDistribution):
        return f"choice({', '.join(map(as_typed, distribution.choices))})"
    kind = "log" if distribution.log else "int" if isinstance(distribution, IntDistribution) else "uniform"
    step = f", {distribution.step:g}" if distribution.step not in (None, 1) else ""
    return f"{kind}({distribution.low:g}, {distribution.high:g}{step})"


def choices_of(distributions: Iterable[Distribution]) -> list[Any] | None:
    """Return the choices of several distributions, each once; None if one of them is a range of numbers."""
    found = dict[Any, None]()
    for distribution in distributions:
        if not isinstance(distribution, CategoricalDistribution):
            return None
        found.update(dict.fromkeys(distribution.choices))
    return list(found)


def hull_of(distributions: Sequence[Distribution]) -> Distribution:
    """Return one distribution that has the values of all; all are choices, or none is."""
    if len(distributions) == 1:
        return distributions[0]
    if (choices := choices_of(distributions)) is not None:
        return choice(*choices)
    whole = [one for one in distributions if isinstance(one, IntDistribution)]
    if len(whole) == len(distributions):
        return IntDistribution(min(one.low for one in whole), max(one.high for one in whole))
    numbers = [one for one in distributions if isinstance(one, FloatDistribution | IntDistribution)]
    low, high = min(one.low for one in numbers), max(one.high for one in numbers)
    return FloatDistribution(low, high, log=all(one.log for one in numbers))


def when(condition: Mapping[str, tuple[Any, ...]]) -> str:
    """Return a condition as a user would type it behind a distribution; nothing if there is none."""
    tests = [f"{other}={'|'.join(map(as_typed, values))}" for other, values in condition.items()]
    return f" if {' and '.join(tests)}" if tests else ""


def fits(value: Any, distribution: Distribution) -> bool:
    """Return whether a value lies within a distribution."""
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    return is_number(value) and bool(distribution.low <= value <= distribution.high)


def is_number(value: Any) -> bool:
    """Return whether a value is a number; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def unit(value: Any, distribution: Distribution) -> float:
    """Return a value as a number that is 0 to 1 within a distribution's range; 0.5 where there is none.

    Choices are as far apart as can be.
    """
    if isinstance(distribution, CategoricalDistribution):
        choices = list(distribution.choices)
        return choices.index(value) / max(len(choices) - 1, 1) if value in choices else 0.5
    low, high, number = float(distribution.low), float(distribution.high), value
    if not is_number(number) or low == high:
        return 0.5
    if distribution.log:
        low, high, number = math.log(low), math.log(high), math.log(max(number, 1e-30))
    return float((number - low) / (high - low))


def check_distribution(name: str, distribution: Distribution) -> list[str]:
    """Return a message for each reason why field `name` cannot be searched by `distribution`."""
    if not isinstance(distribution, Distribution):
        return [f"{name}: {distribution!r} is no distribution (allowed: {ALLOWED_DISTRIBUTIONS})"]
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
    """Return a message for each wrong value of field `name`, as `check_values` does."""
    return list(dict.fromkeys(problem for value in values for problem in check_values({name: value})))
