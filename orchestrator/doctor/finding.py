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
    """The finding of one check; `fix` says what to do about it, unless `what` names what is allowed."""

    check: str
    status: str  # ok | warning | failed
    what: str
    fix: str | None = None


Findings = Iterator[Finding]


def failed(check: str, problem: str, fix: str | None) -> Finding:
    """Return a failed finding; what follows the last semicolon of `problem` takes the place of `fix`.

    The project's errors have their fix there. A semicolon in parentheses is a part of what is allowed.
    """
    what, given_fix = _split(problem)
    return Finding(check, "failed", what, given_fix or fix)


def _split(problem: str) -> tuple[str, str]:
    """Return what stands before and behind the last semicolon outside parentheses; nothing behind if there is none."""
    depth = 0
    for place in range(len(problem) - 1, 0, -1):
        depth += {")": 1, "(": -1}.get(problem[place], 0)
        if depth == 0 and problem.startswith("; ", place):
            return problem[:place], problem[place + 2 :]
    return problem, ""


def all_failed(check: str, problems: Iterable[str], fix: str | None) -> Findings:
    """Return a failed finding for each problem."""
    return (failed(check, problem, fix) for problem in problems)
