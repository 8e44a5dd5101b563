"""What all commands share: exit codes, parsing with `--version`, and messages, which go to standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")

PROJECT = "sweep-orchestrator"

DONE, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130  # WRONG: the command was; 130: by Ctrl-C, as in shells


def say(line: str) -> None:
    """Write a line to standard error; standard output is for results."""
    sys.stderr.write(f"{line}\n")


def complain(problems: Iterable[str], code: int = WRONG) -> int:
    """Write a line for each thing that is wrong, and return the exit code."""
    for problem in problems:
        say(f"error: {problem}")
    return code


def parse(
    options: type[T],
    prog: str,
    arguments: Sequence[str] | None,
    description: str | None = None,
    config: Sequence[Any] = (),
) -> T:
    """Return the command line as an instance of `options`; end the process after `--help`, `--version` or a mistake.

    Args:
        arguments: default: those that the process was started with.
        description: head of the help. Default: the docstring of `options`.
        config: markers of tyro.
    """
    given = sys.argv[1:] if arguments is None else arguments
    if "--version" in given:
        show_version()
    import tyro

    return tyro.cli(options, prog=prog, args=given, description=description, config=config)


def show_version() -> NoReturn:
    """Print the project's name and version, and end the process."""
    try:
        number = version(PROJECT)
    except PackageNotFoundError:
        number = "(not installed, so its version is unknown)"
    sys.stdout.write(f"{PROJECT} {number}\n")
    raise SystemExit(DONE)
