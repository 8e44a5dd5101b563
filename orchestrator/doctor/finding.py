"""The findings of the checks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

CODES = {
    "command": 2,
    "environment": 10,
    "ray": 11,
    "gpu": 12,
    "storage": 13,
    "disk": 14,
    "memory": 14,
    "data": 15,
    "model": 16,
}
"""The exit code of each check if it fails; the lowest one counts."""


@dataclass(frozen=True)
class Finding:
    """The finding of one check; `fix` says what to do about it."""

    check: str
    status: str  # ok | warning | failed
    what: str
    fix: str | None = None


Findings = Iterator[Finding]


def failed(check: str, problem: str, fix: str) -> Finding:
    """Return a failed finding; what follows the last semicolon of `problem` takes the place of `fix`.

    The project's errors have their fix there.
    """
    what, semicolon, given_fix = problem.rpartition("; ")
    return Finding(check, "failed", what, given_fix) if semicolon else Finding(check, "failed", problem, fix)


def all_failed(check: str, problems: Iterable[str], fix: str) -> Findings:
    """Return a failed finding for each problem."""
    return (failed(check, problem, fix) for problem in problems)
