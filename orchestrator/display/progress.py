"""The console, on standard error, and the progress of what is done before and after the trials."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from orchestrator.display.notebook import NotebookBlock
from orchestrator.display.text import counted
from trainables.command_line import let_go

PLAIN_WIDTH = 160  # columns, where the output is a file or a pipe


class Lasting(Console):
    """A console that goes quiet once nobody reads it: the command goes on."""

    def on_broken_pipe(self) -> None:
        """Write to nowhere from now on, where `Console` would end the process."""
        self.quiet = True
        let_go(self.file)


def console(quiet: bool = False) -> Console:
    """Return a console on standard error, or on a block of a notebook; it prints nothing if `quiet`."""
    plain: dict[str, Any] = {"quiet": quiet, "highlight": False, "markup": False, "emoji": False}
    target: Console = Lasting(stderr=True, **plain)
    if target.is_jupyter:
        target = Console(file=NotebookBlock(), force_jupyter=False, force_terminal=False, **plain)
    if not target.is_terminal:
        target.width = PLAIN_WIDTH
    return target


@contextmanager
def decoding(target: Console) -> Iterator[Any]:
    """Yield a `progress(what, done, total)` that draws a bar, as while a data set is decoded."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=target, transient=True, disable=not target.is_terminal) as bars:
        tasks: dict[str, Any] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield report


@contextmanager
def testing(target: Console, opening: int, rows: int, models: int) -> Iterator[Callable[[], None]]:
    """Print that the test set is opened, and which time it is; yield a function to call after each model's test."""
    again = "" if opening == 1 else f", for the {_ordinal(opening)} time"
    target.print(f"the test set is opened{again}: {counted(rows, 'row')}, {counted(models, 'model')} of the winner")
    with decoding(target) as report:
        done = itertools.count(1)
        yield lambda: report("testing", next(done), models)


def _ordinal(number: int) -> str:
    """Return the number with its ending: `1st`, `2nd`, `11th`."""
    ending = {1: "st", 2: "nd", 3: "rd"}.get(0 if number % 100 in (11, 12, 13) else number % 10, "th")
    return f"{number}{ending}"
