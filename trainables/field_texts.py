"""Fields of a configuration as text: `FIELD=VALUE`, as on the command line and in space files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from trainables.config import FIELD_TYPES, FIELDS, check_values
from trainables.errors import ConfigError


def parse_value(name: str, text: str) -> Any:
    """Return `text` as a value of field `name`. Text that is no number stays text, which the field's check refuses."""
    kind = FIELD_TYPES[name]
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    if kind is str:
        return text
    try:
        number = float(text)
    except ValueError:
        return text
    return int(number) if kind is int and number.is_integer() else number


def parse_fields(
    texts: Iterable[str],
    template: str,
    parse: Callable[[str, str], Any] = parse_value,
    elsewhere: Mapping[str, str] = MappingProxyType({}),
) -> tuple[dict[str, Any], list[str]]:
    """Parse `FIELD=…` texts; return field → value, and messages about texts that cannot be parsed or contradict others.

    Args:
        template: what a text should look like, for the messages.
        parse: (field, text after the =) to a value; may raise ConfigError.
        elsewhere: fields that must not be given here → the option that decides each.
    """
    parsed: dict[str, Any] = {}
    given: dict[str, str] = {}
    problems: list[str] = []
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            problems.append(f"{text!r} is not of the form {template} (the data set comes before the options)")
        elif name in elsewhere:
            problems.append(f"{name} belongs to the whole sweep: use {elsewhere[name]}")
        elif name not in FIELDS:
            problems += check_values({name: value})
        else:
            try:
                found = parse(name, value.strip())
            except ConfigError as error:
                problems += error.problems
                continue
            if parsed.setdefault(name, found) != found:
                problems.append(f"{name} is set twice, to {given[name]} and to {value.strip()}; leave one out")
            given.setdefault(name, value.strip())
    return parsed, problems
