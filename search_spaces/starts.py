"""Start points: settings that are known to be good, from papers, libraries or the user, which a search tries first.

The first trials have them. After that, while it fades, half of the trials are drawn around the first one, as far as a
user's knowledge deserves: what is good elsewhere is often nearly good here, and a search that never looks further could
not find out (PriorBand, Mallik et al. 2023, arXiv 2306.12370).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from optuna.distributions import CategoricalDistribution

from search_spaces.distributions import OPTIONS, Distribution, describe_distribution, fits
from trainables.config import check_values, coerce
from trainables.errors import ConfigError
from trainables.field_texts import parse_fields

SHARE = 0.5  # of the trials after the start points, at first, that are drawn around one
FADE = 20  # trials after which none is
SPREAD = 0.15  # standard deviation of these draws, of a field's range (of its logarithm, where that is searched)
STAY = 0.8  # probability that a choice stays as it is
STARTS = {"space": "begins with the settings that the search space names as good", "none": "begins with none"}
"""Values of `--starts` → what the search does."""
TEMPLATE = '--try "FIELD=VALUE …", e.g. --try "lr=0.1 dropout=0.2"'

Start = Mapping[str, Any]
"""Searched fields and their values; fields that it leaves out are drawn."""
Possible = Callable[[str, Start], Sequence[Distribution]]
"""Returns the distributions that a field may have beside these values; nothing if it is not searched."""

SGD: Start = {"lr": 0.1, "weight_decay": 5e-4, "dropout": 0.0, "label_smoothing": 0.1, "train_fraction": 1.0}
"""A usual setting for small convolutional nets under SGD: the rate of He et al. (2016, arXiv 1512.03385), the weight
decay of Zagoruyko and Komodakis (2016, arXiv 1605.07146), the smoothing of Szegedy et al. (2016, arXiv 1512.00567).
"""
ADAMW: Start = {"lr": 1e-3, "weight_decay": 1e-2, "dropout": 0.0, "label_smoothing": 0.1, "train_fraction": 1.0}
"""The defaults of torch's AdamW, with the same label smoothing."""


def parse(texts: Iterable[str]) -> tuple[Start, ...]:
    """Return the start points of `--try`, each as `FIELD=VALUE` with spaces between.

    Raises:
        ConfigError: naming every wrong field and value at once.
    """
    found, problems = list[Start](), list[str]()
    for text in texts:
        values, wrong = parse_fields(text.split(), TEMPLATE, elsewhere=OPTIONS)
        problems += [f"--try {text}: {problem}" for problem in (*wrong, *check_values(values))]
        found.append(values)
    if problems:
        raise ConfigError(*dict.fromkeys(problems))
    return tuple({name: coerce(name, value) for name, value in start.items()} for start in found)


def problems(
    starts: Sequence[Start], possible: Possible, deciding: Callable[[str], Sequence[str]]
) -> Iterator[tuple[str, str]]:
    """Yield every start point that is unsound, as `start 1`, with a message for each reason.

    Args:
        deciding: returns the searched fields that decide whether, or in which range, a field is searched.
    """
    for number, start in enumerate(starts, start=1):
        here = f"start {number}"
        if not start:
            yield here, f"{here} has no values"
        for name, value in start.items():
            if (problem := _check(name, value, possible(name, start))) is not None:
                yield here, f"{here}: {problem}"
            elif missing := [other for other in deciding(name) if other not in start]:
                others = " and ".join(missing)
                yield here, f"{here}: {name}={value} depends on {others}, which would be drawn; give {others}, too"


def _check(name: str, value: Any, possible: Sequence[Distribution]) -> str | None:
    """Return why a trial cannot have a value, as a message; None if it can."""
    if not possible:
        return f"{name} is not searched, so no trial has {name}={value}"
    if not any(fits(value, distribution) for distribution in possible):
        return f"{name}={value} is not among what is searched: {' or '.join(map(describe_distribution, possible))}"
    return None


def fitted(starts: Iterable[Start], possible: Possible, deciding: Callable[[str], Sequence[str]]) -> tuple[Start, ...]:
    """Return start points without the values that cannot be drawn or depend on others that are not given, and without
    those that have no others.
    """
    found = []
    for start in starts:
        left = {name: value for name, value in start.items() if _check(name, value, possible(name, start)) is None}
        while lone := [name for name in left if not left.keys() >= set(deciding(name))]:
            left = {name: value for name, value in left.items() if name not in lone}
        found.append(left)
    return tuple(start for start in found if start)


def fits_beside(start: Start, decided: Mapping[str, Any]) -> bool:
    """Return whether a start point has no other value of a field that is decided."""
    return all(same(decided[name], value) for name, value in start.items() if name in decided)


def is_at(params: Mapping[str, Any], start: Start) -> bool:
    """Return whether searched values are those of a start point, in the fields that both have: one, at least."""
    both = [name for name in start if name in params]
    return bool(both) and all(same(params[name], start[name]) for name in both)


def same(one: Any, other: Any) -> bool:
    """Return whether two values of a field are equal, but for rounding errors."""
    both_real = isinstance(one, float) and isinstance(other, int | float)
    return math.isclose(one, other, rel_tol=1e-12, abs_tol=0.0) if both_real else bool(one == other)


def chance(trials: int) -> float:
    """Return the probability that a trial is drawn around a start point, after so many trials."""
    return SHARE * max(1 - trials / FADE, 0.0)


def around(start: Start, possible: Possible, generator: random.Random) -> dict[str, Any]:
    """Return values drawn around those of a start point, each within the range that it has there."""
    return {
        name: _near(value, next(one for one in possible(name, start) if fits(value, one)), generator)
        for name, value in start.items()
    }


def _near(value: Any, distribution: Distribution, generator: random.Random) -> Any:
    """Return a value drawn around `value`: from a normal distribution within the range, or mostly the same choice."""
    if isinstance(distribution, CategoricalDistribution):
        return value if generator.random() < STAY else generator.choice(distribution.choices)
    low, high = float(distribution.low), float(distribution.high)
    if low == high:
        return value
    center, ends = float(value), (low, high)
    if distribution.log:
        center, ends = math.log(center), (math.log(low), math.log(high))
    drawn = center + generator.gauss(0, SPREAD) * (ends[1] - ends[0])
    drawn = 2 * ends[0] - drawn if drawn < ends[0] else 2 * ends[1] - drawn if drawn > ends[1] else drawn  # reflected
    drawn = min(max(drawn, ends[0]), ends[1])
    drawn = min(max(math.exp(drawn) if distribution.log else drawn, low), high)
    step = distribution.step
    if step is None:
        return drawn
    rounded = low + round((drawn - low) / step) * step
    return type(distribution.low)(min(rounded, high))
