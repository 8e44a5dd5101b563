"""What all commands share: exit codes, and a way to say something. Results go to standard output, all else here."""

from __future__ import annotations

import sys
from collections.abc import Iterable

DONE, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130  # WRONG: the command was; 130: by Ctrl-C, as shells have it


def say(line: str) -> None:
    """A line for people, on standard error."""
    sys.stderr.write(f"{line}\n")


def complain(problems: Iterable[str], code: int = WRONG) -> int:
    """A line for each thing that is wrong; `code`, to end with."""
    for problem in problems:
        say(f"error: {problem}")
    return code
