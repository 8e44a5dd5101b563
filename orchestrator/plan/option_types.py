"""The types of a sweep's options: from Python anything can be given, and each wrong one is named in a sentence."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from orchestrator.loggers.trackers import TRACKERS
from orchestrator.record.aims import MEASURES
from trainables import command_line
from trainables.command_line import begins_with, is_setting

WORDS: dict[Any, str] = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    Path: "a path",
    tuple: "texts",
    types.NoneType: "None",
}
LEAST = {
    "trials": 1,
    "epoch_budget": 1,
    "patience_trials": 1,
    "max_epochs": 1,
    "grace": 1,
    "cpus_per_trial": 1,
    "confirm": 0,
    "confirm_seeds": 1,
    "folds": 1,
    "stored_side": 8,
    "min_rows": 1,
    "subset": 2,
    "seed": 0,
}
"""Options whose value is a whole number, and the least that is allowed."""
SEVERAL: dict[str, Callable[[str], bool]] = {
    "set": is_setting,
    "search": is_setting,
    "try_": is_setting,
    "also": begins_with(MEASURES, ":|$"),
    "constraint": begins_with(MEASURES, "[<>]"),
    "log": begins_with(TRACKERS, "=|$"),
    "warm_start": lambda text: bool(text) and Path(text).expanduser().exists(),
}
"""Options of several texts with blanks between, and whether something is one of these texts. A name of `--arms` and of
`--classes` may have commas: they are checked where the names are known."""


def check_blanks(options: Any) -> list[str]:
    """Return a message for each text that has commas where blanks belong, with what to write."""
    problems = []
    for name, known in SEVERAL.items():
        groups = getattr(options, name)
        texts = [text for group in groups for text in ([group] if isinstance(group, str) else group)]
        problems += command_line.check_blanks(name, texts, known)
    return problems


def check_types(options: Any) -> list[str]:
    """Return a message for each field of the dataclass `options` that has a value of another type than it allows."""
    problems = []
    for name, hint in get_type_hints(type(options), include_extras=False).items():
        value, kinds = getattr(options, name), list(_kinds(hint))
        if not any(_fits(value, kind) for kind in kinds):
            words = dict.fromkeys(
                repr(kind) if isinstance(kind, str) else WORDS[get_origin(kind) or kind] for kind in kinds
            )
            problems.append(f"{name}={value!r}: of the wrong type (allowed: {' or '.join(words)})")
    return problems


def _kinds(hint: Any) -> Iterator[Any]:
    """Yield the types that a hint allows, and texts that a Literal names."""
    if get_origin(hint) in (Union, types.UnionType):
        for part in get_args(hint):
            yield from _kinds(part)
    elif get_origin(hint) is Annotated:
        yield from _kinds(get_args(hint)[0])
    elif get_origin(hint) is Literal:
        yield from get_args(hint)
    else:
        yield hint


def _fits(value: Any, kind: Any) -> bool:
    if isinstance(kind, str):
        return bool(value == kind)
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(
            any(_fits(one, inner) for inner in _kinds(get_args(kind)[0])) for one in value
        )
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)
