"""Terminal output before and after the trials: the plan, samples, progress bars. All of it goes to standard error."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from orchestrator.display.text import counted, short
from orchestrator.plan.plan import Plan
from trainables.config import FIELDS
from trainables.epoch_metrics import METRICS

PLAIN_WIDTH = 160  # columns, where the output is a file or a pipe


def console(quiet: bool = False) -> Console:
    """Return a console on standard error; it prints nothing if `quiet`."""
    target = Console(stderr=True, quiet=quiet, highlight=False, markup=False, emoji=False)
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


def show_plan(planned: Plan, slots: int, split: dict[str, Any], target: Console) -> None:
    """Print what the sweep is about to do."""
    base, longest = planned.space.base, counted(max(s.base.max_epochs for s in planned.arms.values()), "epoch")
    seal = "official" if split["official_test"] else "20 %, drawn once"
    table = Table(box=None, show_header=False, padding=(0, 1))
    table.add_row("sweep", planned.name)
    rows = f"{counted(split['pool_rows'], 'row')} to train on, {split['validation_rows']:,} in the validation set"
    left_out = counted(split["duplicate_rows"], "duplicate")
    sealed = f"{counted(split['test_rows'], 'row')}, sealed ({seal}); {left_out} left out of the other rows"
    unreadable = split["unreadable_rows"]
    skipped = f"; {counted(unreadable, 'unreadable image')} left out" if unreadable else ""
    if planned.opened:
        training = split["pool_rows"] + split["validation_rows"]
        rows = f"{counted(training, 'row')} and {counted(split['opened_rows'], 'test row')}"
        twice = f"; {counted(split['duplicate_rows'], 'row is', 'rows are')} in both" if split["duplicate_rows"] else ""
        sealed = f"not sealed: the arms are trained and tested as in the paper{twice}"
    table.add_row("data", f"{planned.dataset}: {rows}{skipped}")
    table.add_row("test set", sealed)
    if planned.external_test is not None:
        table.add_row("external test set", f"{counted(split['external_rows'], 'row')} from {planned.external_test}")
    each = " in every arm" if planned.recipe else ""
    together = f"{slots} at a time, {planned.slot()}"
    if planned.space.distributions or planned.recipe is None:
        table.add_row("trials", f"{planned.trials}{each} × at most {longest}, {together}")
        table.add_row("proposals", f"{planned.sampler}, seed {planned.seed}; stopped by {planned.stopping()}")
    if planned.recipe is not None:
        table.add_row("runs", f"{planned.confirm_seeds} of every arm × at most {longest}, {together}")
    elif planned.confirm:
        best = "trial" if planned.confirm == 1 else f"{planned.confirm} trials"
        runs = f"the best {best} again, in full, with {counted(planned.confirm_seeds, 'new seed')}"
        table.add_row("confirmation", f"{runs}; then the test set is opened for the winner")
    else:
        table.add_row("confirmation", "none: the best score will be the luckiest one, and the test set stays sealed")
    table.add_row("metric", f"{base.metric} ({METRICS[base.metric]})")
    for name in planned.space.varied:
        table.add_row(f"  {name}", planned.space.describe(name))
    arms = {name: space.base.to_dict() for name, space in planned.arms.items()}
    alike = {n for n in FIELDS if len({arm[n] for arm in arms.values()}) == 1}

    def listed(arm: dict[str, Any], names: Iterable[str]) -> str:
        return ", ".join(f"{n}={short(arm[n])}" for n in names if n not in planned.space.varied)

    table.add_row(
        "fixed", listed(base.to_dict(), (n for n in FIELDS if n in alike and getattr(base, n) != FIELDS[n].default))
    )
    if planned.recipe is not None:
        for name, arm in arms.items():
            table.add_row(f"  {name}", listed(arm, (n for n in FIELDS if n not in alike)))
    target.print(table)


def _ordinal(number: int) -> str:
    """Return the number with its ending: `1st`, `2nd`, `11th`."""
    ending = {1: "st", 2: "nd", 3: "rd"}.get(0 if number % 100 in (11, 12, 13) else number % 10, "th")
    return f"{number}{ending}"


def show_samples(planned: Plan, samples: Sequence[dict[str, Any]], target: Console) -> None:
    """Print one row per searched field, one column per sample; a dash where a condition excludes the field."""
    table = Table(box=None, header_style="bold", padding=(0, 1))
    table.add_column("samples")
    for number in range(len(samples)):
        table.add_column(str(number))
    for name in planned.space.distributions:
        table.add_row(f"  {name}", *(short(params[name]) if name in params else "–" for params in samples))
    target.print(table)
