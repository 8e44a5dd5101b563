"""Checks of a search space: what is wrong with its conditions, its further ranges and its ties."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from graphlib import CycleError

from optuna.distributions import CategoricalDistribution

from search_spaces import stage, starts
from search_spaces.distributions import OPTIONS, as_typed, check_distribution, choices_of, when
from search_spaces.space import Condition, Range, SearchSpace
from trainables.config import FIELD_TYPES, FIELDS, check_values
from trainables.errors import did_you_mean


def problems(space: SearchSpace) -> Iterator[tuple[str, str]]:
    """Yield every field of a space that is unsound, with a message for each reason."""
    found = list(_of_fields(space))
    yield from found or _contradictions(space)
    yield from stage.problems(space.stages, space.distributions, space.ranges)
    yield from starts.problems(space.starts, space.possible, space.deciding)
    for name, value in space.unstopped.items():
        yield from ((f"unstopped {name}", f"unstopped: {problem}") for problem in check_values({name: value}))


def _of_fields(space: SearchSpace) -> Iterator[tuple[str, str]]:
    """Yield every field that cannot be searched, or tied, as it should be, with a message for each reason."""
    for name, distribution in space.distributions.items():
        yield from ((name, problem) for problem in check_distribution(name, distribution))
    for name, condition in space.conditions.items():
        yield from ((name, problem) for problem in _check_condition(space, name, condition))
    for name, ways in space.ranges.items():
        yield from ((name, problem) for problem in _check_ranges(space, name, ways))
    for name, source in space.ties.items():
        yield from ((name, problem) for problem in _check_tie(space, name, source))
    try:
        space.order()
    except CycleError as error:
        circle = error.args[1][:-1]
        if len(circle) > 1:  # a field that depends on itself is reported above
            yield circle[0], f"the conditions of {', '.join(circle)} depend on each other: leave one of them out"


def _contradictions(space: SearchSpace) -> Iterator[tuple[str, str]]:
    """Yield every field of a sound space that has a condition which nothing meets, with a message."""
    for name in space.distributions:
        conditions = [way.condition for way in space.ways(name) if way.condition]
        branches = space.branches(space.conditioning([name])) if conditions else []
        for condition in conditions:
            if not any(space.holds(condition, branch) for branch in branches):
                never = when(condition).removeprefix(" if ")
                yield name, f"{name} is never searched: its condition {never} contradicts those of these fields"


def _check_ranges(space: SearchSpace, name: str, ways: Sequence[Range]) -> Iterator[str]:
    """Yield a message for each reason why field `name` cannot have these further ranges."""
    if name not in space.distributions:
        yield f"{name} has further ranges but is not searched"
        return
    for way in ways:
        yield from check_distribution(name, way.distribution)
        yield from _check_condition(space, name, way.condition)
        if not way.condition:
            yield f"{name}: a further range needs a condition, if OTHER=VALUE; the range without one holds elsewhere"
    kinds = {isinstance(way.distribution, CategoricalDistribution) for way in space.ways(name)}
    if len(kinds) > 1:
        yield f"{name}: its ranges are choices and numbers; give choices alone, or numbers alone"
    known = [way for way in space.ways(name) if way.condition]
    for one, other in itertools.combinations(known, 2):
        common = one.condition.keys() & other.condition.keys()
        if all(set(one.condition[field_name]) & set(other.condition[field_name]) for field_name in common):
            both = f"{when(one.condition).strip()} and {when(other.condition).strip()}"
            yield f"{name} has two ranges, {both}, which may hold at once; give each value to one of them"


def _check_condition(space: SearchSpace, name: str, condition: Condition) -> Iterator[str]:
    """Yield a message for each reason why field `name` cannot be searched under `condition`."""
    if name not in space.distributions:
        yield f"{name} has a condition but is not searched"
    for other, values in condition.items():
        ways = [way.distribution for way in space.ways(other)] if other in space.distributions else []
        if other not in FIELDS:
            yield f"{name}: its condition names no field: {check_values({other: None})[0]}"
        elif other == name or not ways:
            why = "is the field itself" if other == name else "is not searched"
            yield f"{name}: its condition depends on {other}, which {why}; allowed are fields searched by choice(…)"
        elif (choices := choices_of(ways)) is None:
            searched = space.describe(other)
            yield f"{name}: its condition depends on {other}, which is searched by {searched}; a choice(…) is needed"
        else:
            for value in (value for value in values if value not in choices):
                nearest, searched = did_you_mean(str(value), map(str, choices)), space.describe(other)
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
        yield from (problem for way in space.ways(source) for problem in check_distribution(name, way.distribution))
