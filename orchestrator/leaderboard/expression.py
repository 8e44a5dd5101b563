"""The expressions of `--where`: comparisons, `and`, `or`, `not`, `in` and arithmetic over columns, in Python's syntax.

An expression is parsed by `ast` and never run, and every kind of node that is not named here is refused. Null equals
only None, is neither larger nor smaller than anything, and arithmetic with it gives null.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from trainables.errors import ConfigError

ALLOWED = "== != < <= > >=, in, is None, and, or, not, + - * / // %, numbers, 'text', (lists) and columns"
LONGEST = 2_000  # characters
WRITTEN = {"&": "and", "&&": "and", "|": "or", "||": "or", "=": "==", "!": "not", "<>": "!="}
"""Operators of other languages → what is written here."""

_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_ORDER: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_EQUALITY: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Is: operator.eq,
    ast.IsNot: operator.ne,
}

Row = Mapping[str, Any]
Value = Callable[[Row], Any]


class Expression:
    """A condition on rows."""

    def __init__(self, text: str, resolve: Callable[[str], str]) -> None:
        """Parse `text`.

        Args:
            resolve: turns a name as written (`score`, `config.lr`) into that of a column; may raise ConfigError.

        Raises:
            ConfigError: `text` cannot be parsed, or contains something that is not allowed.
        """
        self.text = text
        self.columns: set[str] = set()
        self._resolve = resolve
        try:
            if len(text) > LONGEST:
                raise ValueError(f"longer than {LONGEST:,} characters")
            self._value = self._compile(ast.parse(text.strip(), mode="eval").body)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            if isinstance(error, ConfigError):
                raise
            reason = _foreign(text) or (error.msg if isinstance(error, SyntaxError) else error)
            raise ConfigError(f"--where {_cut(text)}: {reason} (allowed: {ALLOWED})") from error

    def __call__(self, row: Row) -> bool:
        """Return whether the condition holds for `row`, which has all of `columns`.

        Raises:
            ConfigError: values cannot be compared or calculated with.
        """
        try:
            return bool(self._value(row))
        except (TypeError, ArithmeticError, RecursionError) as error:
            raise ConfigError(f"--where {_cut(self.text)}: {error}") from error

    def _compile(self, node: ast.expr) -> Value:
        match node:
            case ast.Constant(value=constant) if constant is None or isinstance(constant, bool | int | float | str):
                return lambda row: constant
            case ast.Name() | ast.Attribute():
                name = self._resolve(ast.unparse(node))
                self.columns.add(name)
                return lambda row: row[name]
            case ast.Tuple(elts=items) | ast.List(elts=items):
                values = [self._compile(item) for item in items]
                return lambda row: [value(row) for value in values]
            case ast.BoolOp(op=ast.And(), values=items):
                values = [self._compile(item) for item in items]
                return lambda row: all(value(row) for value in values)
            case ast.BoolOp(op=ast.Or(), values=items):
                values = [self._compile(item) for item in items]
                return lambda row: any(value(row) for value in values)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                truth = self._compile(operand)
                return lambda row: not truth(row)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                number = self._compile(operand)
                return lambda row: _calculate(operator.mul, -1, number(row))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
                first, second, combine = self._compile(left), self._compile(right), _ARITHMETIC[type(op)]
                return lambda row: _calculate(combine, first(row), second(row))
            case ast.Compare(left=left, ops=ops, comparators=rights):
                compared = [self._compile(left), *map(self._right, rights)]
                kinds = [type(op) for op in ops]
                return lambda row: _holds([value(row) for value in compared], kinds)
            case _:
                raise ValueError(f"{_cut(ast.unparse(node))!r} is not allowed")

    def _right(self, node: ast.expr) -> Value:
        """Parse what stands behind a comparison, where a name that is no column may be a text without its quotes."""
        for name in getattr(node, "elts", [node]):
            try:
                if isinstance(name, ast.Name):
                    self._resolve(name.id)
            except ConfigError as error:
                raise ConfigError(f"{error}; a text is put in quotes: {name.id!r}") from error
        return self._compile(node)


def _foreign(text: str) -> str:
    """Return what to write in the place of other languages' operators in an expression; nothing if it has none."""
    outside = re.sub(r"'[^']*'|\"[^\"]*\"", "", text)
    found = dict.fromkeys(re.findall(r"&&?|\|\|?|<>|(?<![=!<>])=(?!=)|!(?!=)", outside))
    return ", ".join(f"{sign} is written {WRITTEN[sign]}" for sign in found)


def _holds(values: list[Any], kinds: list[type[ast.cmpop]]) -> bool:
    return all(_compare(kind, *pair) for kind, *pair in zip(kinds, values, values[1:], strict=False))


def _compare(kind: type[ast.cmpop], left: Any, right: Any) -> bool:
    if kind in _EQUALITY:
        return _EQUALITY[kind](left, right)
    if kind in _ORDER:
        return left is not None and right is not None and _ORDER[kind](left, right)
    within = right is not None and not (left is None and isinstance(right, str)) and left in right
    return within if kind is ast.In else not within


def _calculate(combine: Callable[[Any, Any], Any], left: Any, right: Any) -> Any:
    """Combine two numbers, and refuse anything else: text times a number could fill the memory."""
    if left is None or right is None or (combine in (operator.truediv, operator.floordiv, operator.mod) and right == 0):
        return None
    for value in (left, right):
        if not isinstance(value, int | float):
            raise TypeError(f"{value!r} is not a number, and only numbers can be calculated with")
    return combine(left, right)


def _cut(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:80]}…"
