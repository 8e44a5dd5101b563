"""The language of `--set`, `--search` and space files: values, distributions, conditions and ties."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from optuna.distributions import CategoricalDistribution

from search_spaces import soundness, stage, starts
from search_spaces.distributions import (
    ALLOWED_DISTRIBUTIONS,
    DISTRIBUTIONS,
    OPTIONS,
    Distribution,
    check_distribution,
)
from search_spaces.space import Condition, Range, SearchSpace, choice
from trainables.config import FIELDS, check_values, coerce
from trainables.errors import ConfigError, suggestion
from trainables.field_texts import parse_fields, parse_value

BETWEEN = "; "
"""Between the ranges of a field."""


@dataclass(frozen=True)
class Searched:
    """The search of one field: its distribution and condition and further ranges, or the field whose value it takes."""

    distribution: Distribution | None = None
    condition: Condition = field(default_factory=dict)
    same: str | None = None
    ranges: tuple[Range, ...] = ()

    @property
    def depends_on(self) -> set[str]:
        """The fields that its conditions depend on."""
        return {other for condition in (self.condition, *(way.condition for way in self.ranges)) for other in condition}

    def problems(self, name: str) -> list[str]:
        """Return a message for each reason why field `name` cannot be searched by these distributions."""
        found = [] if self.distribution is None else [self.distribution]
        found += [way.distribution for way in self.ranges]
        return [problem for distribution in found for problem in check_distribution(name, distribution)]


def override(space: SearchSpace, fixed: Mapping[str, Any], searched: Mapping[str, Searched]) -> SearchSpace:
    """Return `space` with the values `fixed` and the fields `searched`, as `parse` reads them from the command line.

    A field that is set is no longer searched. Conditions on it, and ties to it, are decided by its value.

    Raises:
        ConfigError: naming everything that does not go together.
    """
    changed = change(space, fixed, searched)
    problems = [problem for _, problem in soundness.problems(changed)]
    if problems:
        raise ConfigError(*problems)
    return changed


def parse(settings: Iterable[str], searches: Iterable[str]) -> tuple[dict[str, Any], dict[str, Searched]]:
    """Return the values of `--set` and the searched fields of `--search`, checked as far as no space is needed.

    Raises:
        ConfigError: naming every wrong field, value and distribution at once.
    """
    fixed, problems = parse_fields(settings, "--set FIELD=VALUE, e.g. --set model=resnet50", elsewhere=OPTIONS)
    template = '--search FIELD=DIST, e.g. --search "lr=log(1e-4,1e-1)"'
    searched, unreadable = parse_fields(_joined(searches), template, parse_searched, OPTIONS)
    problems += unreadable
    problems += [f"{name} is both set and searched; leave one out" for name in fixed if name in searched]
    problems += check_values(fixed)
    for name, how in searched.items():
        problems += how.problems(name)
    if problems:
        raise ConfigError(*problems)
    return {name: coerce(name, value) for name, value in fixed.items()}, searched


def _joined(searches: Iterable[str]) -> list[str]:
    """Return the texts of `--search`, of a field that has several as one."""
    texts: dict[str, list[str]] = {}
    for search in searches:
        name, equals, text = search.partition("=")
        texts.setdefault(name + equals, []).append(text)
    return [name + BETWEEN.join(parts) for name, parts in texts.items()]


def change(space: SearchSpace, fixed: Mapping[str, Any], searched: Mapping[str, Searched]) -> SearchSpace:
    """Return `space` with the values `fixed` and the fields `searched`, sound or not: see `soundness.problems`."""

    def others(entries: Mapping[str, Any]) -> dict[str, Any]:
        return {name: entry for name, entry in entries.items() if name not in searched}

    drawn = {name: how.distribution for name, how in searched.items() if how.distribution is not None}
    conditions = {name: how.condition for name, how in searched.items() if how.condition}
    ties = {name: how.same for name, how in searched.items() if how.same is not None}
    changed = replace(
        space,
        base=space.base.replace(**fixed),
        distributions=others(space.distributions) | drawn,
        conditions=others(space.conditions) | conditions,
        ties=others(space.ties) | ties,
        ranges=others(space.ranges) | {name: how.ranges for name, how in searched.items() if how.ranges},
    )
    return _settled(changed, fixed, searched)


def _settled(space: SearchSpace, names: Iterable[str], searched: Iterable[str]) -> SearchSpace:
    """Return `space` with the fields `names` no longer searched, and with all that their values decide.

    `searched` are the fields that are searched in another way than before.
    """
    base, ways = space.base, {name: space.ways(name) for name in space.distributions}
    settled = list(names)
    for name in settled:  # it grows in the loop: a field whose condition never holds has the base's value, too
        ways.pop(name, None)
        for other, found in list(ways.items()):
            ways[other] = _left(found, name, getattr(base, name))
            if not ways[other]:
                settled.append(other)
    conditions = {name: found[-1].condition for name, found in ways.items() if found}
    distributions = {name: found[-1].distribution for name, found in ways.items() if found}
    ties = {name: source for name, source in space.ties.items() if name not in settled}
    decided = {name: getattr(base, source) for name, source in ties.items() if source in settled}
    changed = replace(
        space,
        base=base.replace(**decided),
        distributions=distributions,
        conditions={name: condition for name, condition in conditions.items() if condition},
        ties={name: source for name, source in ties.items() if name not in decided},
        ranges={name: found[:-1] for name, found in ways.items() if len(found) > 1},
        stages=stage.settled(space.stages, {n: getattr(base, n) for n in names}, set(searched), distributions),
    )
    return replace(changed, starts=starts.fitted(space.starts, changed.possible, changed.deciding))


def _left(ways: tuple[Range, ...], name: str, value: Any) -> tuple[Range, ...]:
    """Return the ranges of a field that are left once field `name` has a value, without conditions on it."""
    left = list[Range]()
    for condition, distribution in ways:
        if name not in condition or value in condition[name]:
            left.append(Range({n: values for n, values in condition.items() if n != name}, distribution))
            if not left[-1].condition:  # it holds in any case, before those that follow
                break
    return tuple(left)


def parse_searched(name: str, text: str) -> Searched:
    """Parse how field `name` is searched: `DIST`, `DIST if OTHER=VALUE[|VALUE] [and …]` or `same(OTHER)`.

    Several of the second kind, and one of the first, may stand behind each other, with `;` between.

    Raises:
        ConfigError: the text is none of these.
    """
    tie = re.fullmatch(r"same\(\s*(\w+)\s*\)", text)
    if tie is not None:
        return Searched(same=tie[1])
    parts = text.split(BETWEEN.strip())
    if len(parts) > 1 and (values := _values(name, parts)):
        raise ConfigError(f"{name}={text}: several values are a choice; write choice({','.join(values)})")
    ways = list[Range]()
    for part in parts:
        words, _, tests = part.strip().partition(" if ")
        ways.append(Range(_parse_condition(name, tests) if tests else {}, _parse_distribution(name, words.strip())))
    if sum(not way.condition for way in ways) > 1:
        raise ConfigError(f"{name} is searched in two ways at once, {text}; leave one out, or give each a condition")
    *further, last = sorted(ways, key=lambda way: not way.condition)  # the one without a condition holds elsewhere
    return Searched(last.distribution, last.condition, ranges=tuple(further))


def _parse_condition(name: str, text: str) -> Condition:
    """Parse `OTHER=VALUE[|VALUE] [and …]`."""
    condition: dict[str, tuple[Any, ...]] = {}
    for test in re.split(r"\s+and\s+", text.strip()):
        other, equals, values = (part.strip() for part in test.partition("="))
        if not (equals and values):
            raise ConfigError(f"{name}: {test!r} is no condition; write OTHER=VALUE or OTHER=VALUE|VALUE")
        if other not in FIELDS:
            raise ConfigError(f"{name}: its condition names no field: {check_values({other: None})[0]}")
        if other in condition:
            raise ConfigError(f"{name}: its condition names {other} twice; write {other}=VALUE|VALUE for either value")
        condition[other] = tuple(parse_value(other, value.strip()) for value in values.split("|"))
    return condition


def _parse_distribution(name: str, text: str) -> Distribution:
    """Make the distribution that is typed as `KIND(ARGUMENT, …)`."""
    match = re.fullmatch(r"(\w+)\((.*)\)", text)
    if match is None or match[1] not in DISTRIBUTIONS:
        raise ConfigError(f"{name}={text}: {_no_distribution(name, text)}")
    kind = DISTRIBUTIONS[match[1]]
    parts = [part.strip() for part in match[2].split(",")] if match[2].strip() else []
    try:
        if kind.make is choice:
            return _choice(name, parts)
        numbers = [_number(part) for part in parts]
        kind.check(numbers)
        return kind.make(*numbers)
    except (ValueError, TypeError, SyntaxError, ArithmeticError) as error:
        # without the line number of a syntax error, which means nothing here, and an overflow's error number
        why = error.msg if isinstance(error, SyntaxError) else error.args[-1]
        raise ConfigError(f"{name}={text}: {why}; write {kind.usage}") from error


def _no_distribution(name: str, text: str) -> str:
    """Return why a text is no distribution, and what to write in its place."""
    word = text.partition("(")[0].strip()
    if word in DISTRIBUTIONS:
        return f"this is not complete; write {DISTRIBUTIONS[word].usage}"
    values = _values(name, text.removeprefix("[").removesuffix("]").split(",")) if text.startswith("[") else []
    if values:
        return f"several values are a choice; write choice({','.join(values)})"
    if _values(name, [text]):
        return f"one value is set, not searched; write --set {name}={text}, or in a space file {name} under set"
    return f"unknown distribution{suggestion(word, DISTRIBUTIONS, ALLOWED_DISTRIBUTIONS)}"


def _values(name: str, texts: Iterable[str]) -> list[str]:
    """Return the texts, without blanks and quotes around them, if each is a value of field `name`; else nothing."""
    found = [text.strip().strip("'\"") for text in texts]
    return [] if any(check_values({name: parse_value(name, text)}) for text in found) else found


_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: lambda base, power: base**power if 0 <= power < MOST_POWER else float(base) ** power,
}
MOST_POWER = 64  # a whole number's power above it is a float: its digits could fill the memory


def _number(text: str) -> Any:
    """Return the number that `text` is, or that its simple arithmetic comes to, such as 10**-4.

    Raises:
        ValueError: it is neither.
        SyntaxError, ArithmeticError: as Python raises them.
    """

    def value(node: ast.expr) -> Any:
        if isinstance(node, ast.Constant) and type(node.value) in (int, float):
            return node.value
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            return value(node.operand) if isinstance(node.op, ast.UAdd) else -value(node.operand)
        if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
            return _ARITHMETIC[type(node.op)](value(node.left), value(node.right))
        raise ValueError(f"{ast.unparse(node)} is not a number")

    return value(ast.parse(text, mode="eval").body)


def _choice(name: str, parts: list[str]) -> CategoricalDistribution:
    """Make a choice among values of field `name`."""
    values = [parse_value(name, part) for part in parts]
    if not values or len(set(values)) < len(values):
        raise ValueError("a choice needs values, each once")
    return choice(*values)
