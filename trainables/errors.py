"""Errors that name everything that is wrong."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Input that cannot be used: `problems` holds a sentence for each thing that is wrong."""

    def __init__(self, *problems: str) -> None:
        super().__init__(*problems)
        self.problems = list(problems)

    def __str__(self) -> str:
        return "\n".join(self.problems)


class ConfigError(InputError):
    """Options or settings with wrong values; each problem names the value and what is allowed."""


class DatasetError(InputError):
    """Data that is not there or cannot be used; each problem names the file, and the row where there is one."""


class WeightsError(InputError):
    """Initial weights that cannot be had or do not fit; the message says which, where, and what to do."""


class Diverged(RuntimeError):  # noqa: N818 - the leaderboard's status is called so
    """The loss is no longer finite, so training has ended."""


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return `; did you mean …?` with the nearest of `names`, or an empty string if none is near."""
    near = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {near[0]}?" if near else ""
