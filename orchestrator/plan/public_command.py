"""The command of a sweep as its record has it: composed from the options, without what may be a secret."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from orchestrator.plan.options import SweepOptions
from trainables.command_line import flag_of
from trainables.secrets import without_secrets

COMMAND = ("python", "-m", "orchestrator.sweep")

UNPUBLISHED = ("on_end", "profile", "json", "quiet")
"""Options that say nothing of the results. A command of `--on-end` often holds the address of a webhook."""


def public_command(options: SweepOptions) -> str:
    """Return the command that has these options, as a user would type it, without secrets."""
    return shlex.join([*COMMAND, *(word for field in fields(options) for word in _words(options, field.name))])


def _words(options: SweepOptions, name: str) -> Iterator[str]:
    """Yield the words that give one option: none if it has its default."""
    value, flag = getattr(options, name), flag_of(name)
    if name in UNPUBLISHED or value == getattr(SweepOptions, name) or (name == "preset" and options.quick):
        return
    if name == "dataset":
        yield str(value)
    elif value is True:
        yield flag
    elif isinstance(value, tuple):
        for group in value:
            yield flag
            yield from map(_public, (group,) if isinstance(group, str) else group)
    else:
        yield from (flag, _public(value))


def _public(value: Any) -> str:
    return without_secrets(str(value))
