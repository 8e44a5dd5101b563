"""What `--set`, `--search` and a space file say, in the same words: values, distributions, conditions, ties."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from optuna.distributions import CategoricalDistribution

from search_spaces.space import (
    ALLOWED_FORMS,
    DISTRIBUTIONS,
    OPTIONS,
    Condition,
    Distribution,
    SearchSpace,
    check_distribution,
    choice,
)
from trainables.config import FIELDS, check_values, coerce, parse_fields, parse_value
from trainables.errors import ConfigError


@dataclass(frozen=True)
class Searched:
    """What is said of one field: how it is drawn, and under which condition; or which other it is the same as."""

    distribution: Distribution | None = None
    condition: Condition = field(default_factory=dict)
    same: str | None = None


def override(space: SearchSpace, fixed: Mapping[str, Any], searched: Mapping[str, Searched]) -> SearchSpace:
    """Return `space` with the values `fixed` and the fields `searched`, as `parse` reads them from the command line.

    A field that is set is no longer searched. Conditions on it, and ties to it, are decided by its value.

    Raises:
        ConfigError: naming everything that does not go together.
    """
    made = change(space, fixed, searched)
    problems = [problem for _, problem in made.problems()]
    if problems:
        raise ConfigError(*problems)
    return made


def parse(settings: Iterable[str], searches: Iterable[str]) -> tuple[dict[str, Any], dict[str, Searched]]:
    """What `--set` and `--search` say of each field, as far as it can be judged without a space.

    Raises:
        ConfigError: naming every wrong field, value and distribution at once.
    """
    fixed, problems = parse_fields(settings, "--set FIELD=VALUE, e.g. --set model=resnet50", elsewhere=OPTIONS)
    form = '--search FIELD=DIST, e.g. --search "lr=log(1e-4,1e-1)"'
    searched, unreadable = parse_fields(searches, form, parse_searched, OPTIONS)
    problems += unreadable
    problems += [f"{name} is both set and searched; leave one out" for name in fixed if name in searched]
    problems += check_values(fixed)
    for name, found in searched.items():
        problems += check_distribution(name, found.distribution) if found.distribution is not None else []
    if problems:
        raise ConfigError(*problems)
    return {name: coerce(name, value) for name, value in fixed.items()}, searched


def change(space: SearchSpace, fixed: Mapping[str, Any], searched: Mapping[str, Searched]) -> SearchSpace:
    """`space` with the values `fixed` and the fields `searched`; see its `problems` for what does not go together."""

    def others(entries: Mapping[str, Any]) -> dict[str, Any]:
        return {name: entry for name, entry in entries.items() if name not in searched}

    drawn = {name: found.distribution for name, found in searched.items() if found.distribution is not None}
    conditions = {name: found.condition for name, found in searched.items() if found.condition}
    ties = {name: found.same for name, found in searched.items() if found.same is not None}
    made = replace(
        space,
        base=space.base.replace(**fixed),
        distributions=others(space.distributions) | drawn,
        conditions=others(space.conditions) | conditions,
        ties=others(space.ties) | ties,
    )
    return _settled(made, fixed)


def _settled(space: SearchSpace, names: Iterable[str]) -> SearchSpace:
    """`space` in which the fields `names` have the base's value, and with them all that this decides."""
    base, distributions, conditions = space.base, dict(space.distributions), dict(space.conditions)
    settled = list(names)
    for name in settled:  # which grows: a field whose condition never holds has the base's value, too
        distributions.pop(name, None)
        conditions.pop(name, None)
        for other, condition in list(conditions.items()):
            if name not in condition:
                continue
            conditions[other] = {n: values for n, values in condition.items() if n != name}
            if getattr(base, name) not in condition[name]:
                settled.append(other)
    ties = {name: source for name, source in space.ties.items() if name not in settled}
    decided = {name: getattr(base, source) for name, source in ties.items() if source in settled}
    return replace(
        space,
        base=base.replace(**decided),
        distributions=distributions,
        conditions={name: condition for name, condition in conditions.items() if condition},
        ties={name: source for name, source in ties.items() if name not in decided},
    )


def parse_searched(name: str, text: str) -> Searched:
    """`DIST`, `DIST if OTHER=VALUE[|VALUE] [and …]` or `same(OTHER)` of field `name`.

    Raises:
        ConfigError: it is none of these.
    """
    tie = re.fullmatch(r"same\(\s*(\w+)\s*\)", text)
    if tie is not None:
        return Searched(same=tie[1])
    words, _, tests = text.partition(" if ")
    return Searched(_parse_distribution(name, words.strip()), _parse_condition(name, tests) if tests else {})


def _parse_condition(name: str, text: str) -> Condition:
    condition: dict[str, tuple[Any, ...]] = {}
    for test in re.split(r"\s+and\s+", text.strip()):
        other, equals, values = (part.strip() for part in test.partition("="))
        if not (equals and values):
            raise ConfigError(f"{name}: {test!r} is no condition of the form OTHER=VALUE or OTHER=VALUE|VALUE")
        if other not in FIELDS:
            raise ConfigError(f"{name}: its condition names no field: {check_values({other: None})[0]}")
        condition[other] = tuple(parse_value(other, value.strip()) for value in values.split("|"))
    return condition


def _parse_distribution(name: str, text: str) -> Distribution:
    match = re.fullmatch(r"(\w+)\((.*)\)", text)
    if match is None or match[1] not in DISTRIBUTIONS:
        raise ConfigError(f"{name}={text}: unknown distribution (allowed: {ALLOWED_FORMS})")
    make, form = DISTRIBUTIONS[match[1]]
    parts = [part.strip() for part in match[2].split(",")] if match[2].strip() else []
    try:
        if make is choice:
            return _choice(name, parts)
        return make(*(ast.literal_eval(part) for part in parts))
    except (ValueError, TypeError, SyntaxError, ArithmeticError) as error:
        why = error.msg if isinstance(error, SyntaxError) else error  # without a place in text that nobody sees
        raise ConfigError(f"{name}={text}: {why} (form: {form}, with LOW below HIGH)") from error


def _choice(name: str, parts: list[str]) -> CategoricalDistribution:
    values = [parse_value(name, part) for part in parts]
    if not values or len(set(values)) < len(values):
        raise ValueError("a choice needs values, each once")
    return choice(*values)
