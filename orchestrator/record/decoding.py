"""Plain JSON values as typed ones, checked once, when they are read.

What a record holds may be damaged, or anybody's: a value of another type than its field has raises `RecordError`, and
nothing behind this file meets one.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from trainables.errors import InputError

T = TypeVar("T")
Decode = Callable[[Any], Any]
SHOWN = 40  # characters of a wrong value in a message


class RecordError(InputError):
    """A record that cannot be read; each problem says what is wrong, where, and what to do."""

    def within(self, place: str) -> RecordError:
        """Return this error with `place`, such as a field or a file, before each problem."""
        return RecordError(*(f"{place}: {problem}" for problem in self.problems))


class By(NamedTuple):
    """Says, beside an `Annotated` type, that its values are decoded by a function of their own."""

    decode: Decode


def from_json(kind: type[T], value: Any) -> T:
    """Return `value`, as `json.loads` gives it, as a `kind`: most often a dataclass, whose types are checked.

    A field that `kind` does not have is left out; so an older version reads what a newer one adds. Numbers stay as they
    are: a float may be a Python int. A type may be `Annotated` with a function that checks more and raises.

    Raises:
        RecordError: naming each field whose value is missing or of another type.
    """
    decoded: T = _decoder(kind)(value)  # type: ignore[arg-type]
    return decoded


@cache
def _decoder(kind: Any) -> Decode:
    """Return the function that checks values of a type; built once, since journals have 10⁵ lines."""
    if kind is Any:
        return lambda value: value
    if kind in NAMES:
        return _of_types(PLAIN[kind], NAMES[kind])
    if dataclasses.is_dataclass(kind):
        return _of_dataclass(kind)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated and isinstance(arguments[1], By):
        return arguments[1].decode
    if origin is Annotated:
        return _checked(_decoder(arguments[0]), arguments[1])
    if origin in (Union, types.UnionType) and len(arguments) == 2 and arguments[1] is type(None):
        return _optional(_decoder(arguments[0]))
    if origin is list:
        return _list_of(arguments[0])
    if origin is tuple:  # of any length; JSON has lists
        decode_items = _list_of(arguments[0])
        return lambda value: tuple(decode_items(list(value) if type(value) is tuple else value))
    if origin is dict:
        return _dict_of(arguments[1])
    raise TypeError(f"{kind} has no decoder")


NAMES = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", type(None): "null"}
PLAIN: dict[Any, frozenset[type]] = {
    kind: frozenset((one, *([int] if one is float else []), *optional))
    for one in NAMES
    for kind, optional in ((one, ()), (one | None, (type(None),)))
}
"""Types of fields → the types that their values may have. Most values of a journal are such, and need no function."""


def _of_types(allowed: frozenset[type], name: str) -> Decode:
    def decode(value: Any) -> Any:
        if type(value) in allowed:
            return value
        raise RecordError(f"{_shown(value)} is not {name}")

    return decode


def _checked(decode: Decode, check: Callable[[Any], None]) -> Decode:
    def decode_and_check(value: Any) -> Any:
        value = decode(value)
        check(value)
        return value

    return decode_and_check


def _optional(decode: Decode) -> Decode:
    return lambda value: None if value is None else decode(value)


def _list_of(kind: Any) -> Decode:
    decode = None if kind is Any else _decoder(kind)

    def decode_list(value: Any) -> Any:
        if type(value) is not list:
            raise RecordError(f"{_shown(value)} is not a list")
        return value if decode is None else [decode(item) for item in value]

    return decode_list


def _dict_of(kind: Any) -> Decode:
    decode = None if kind is Any else _decoder(kind)

    def decode_dict(value: Any) -> Any:
        if type(value) is not dict:
            raise RecordError(f"{_shown(value)} is not an object")
        if decode is None:
            return value
        found = {}
        for name, item in value.items():
            try:
                found[name] = decode(item)
            except RecordError as error:
                raise error.within(name) from None
        return found

    return decode_dict


def _of_dataclass(kind: Any) -> Decode:
    hints = get_type_hints(kind, include_extras=True)
    fields = [
        (field.name, _decoder(hints[field.name]), field.default is field.default_factory is dataclasses.MISSING)
        for field in dataclasses.fields(kind)
    ]

    decoders = {name: decode_field for name, decode_field, _ in fields}
    plain = {name: types for name in decoders if (types := PLAIN.get(hints[name]))}
    needed = frozenset(name for name, _, required in fields if required)

    def decode(value: Any) -> Any:
        if type(value) is not dict:
            raise RecordError(f"{_shown(value)} is not an object")
        given = {}
        try:
            for name, item in value.items():
                if name in plain and type(item) in plain[name]:
                    given[name] = item
                elif name in decoders:
                    given[name] = decoders[name](item)
        except RecordError:
            return decode_and_explain(value)
        return kind(**given) if needed.issubset(given) else decode_and_explain(value)

    def decode_and_explain(value: dict[str, Any]) -> Any:
        given: dict[str, Any] = {}
        problems: list[str] = []
        for name, decode_field, required in fields:
            try:
                if name in value:
                    given[name] = decode_field(value[name])
                elif required:
                    raise RecordError("it is missing")
            except RecordError as error:
                problems += error.within(name).problems
        if problems:
            raise RecordError(*problems)
        return kind(**given)

    return decode


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
