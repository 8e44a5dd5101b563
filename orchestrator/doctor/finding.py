"""What one check found."""

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
"""The exit code of each check that fails; the lowest one counts."""


@dataclass(frozen=True)
class Finding:
    """What one check found; `fix` says what to do about it."""

    check: str
    status: str  # ok | warning | failed
    what: str
    fix: str | None = None


Findings = Iterator[Finding]


def failed(check: str, problem: str, fix: str) -> Finding:
    """`problem` may bring a mend of its own, after its last semicolon, as this project's errors do."""
    what, semicolon, own = problem.rpartition("; ")
    return Finding(check, "failed", what, own) if semicolon else Finding(check, "failed", problem, fix)


def all_failed(check: str, problems: Iterable[str], fix: str) -> Findings:
    return (failed(check, problem, fix) for problem in problems)
