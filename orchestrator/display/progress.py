"""What people are told of a sweep: its plan, its trials, its end. All of it goes to standard error."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from orchestrator.display.text import short
from orchestrator.plan.plan import Plan
from trainables.config import FIELDS
from trainables.epoch_metrics import METRICS

PLAIN_WIDTH = 160  # columns, where the output is a file or a pipe


def console(quiet: bool = False) -> Console:
    """The console for people: standard error, or nothing."""
    target = Console(stderr=True, quiet=quiet, highlight=False, markup=False, emoji=False)
    if not target.is_terminal:
        target.width = PLAIN_WIDTH
    return target


@contextmanager
def decoding(target: Console) -> Iterator[Any]:
    """A `progress(what, done, total)` that draws a bar while a data set is decoded."""
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
    """Says that the test set is opened; a function to call after each model that was measured there, for a bar."""
    again = "" if opening == 1 else f", for the {opening}. time"
    target.print(f"the test set is opened{again}: {rows:,} rows, {models} models of the winner")
    with decoding(target) as report:
        done = itertools.count(1)
        yield lambda: report("testing", next(done), models)


def show_plan(planned: Plan, slots: int, split: dict[str, Any], target: Console) -> None:
    """What the sweep is about to do."""
    base, longest = planned.space.base, max(space.base.max_epochs for space in planned.arms.values())
    seal = "official" if split["official_test"] else "20 %, drawn once"
    table = Table(box=None, show_header=False, padding=(0, 1))
    table.add_row("sweep", planned.name)
    rows = f"{split['pool_rows']:,} rows to train on, {split['validation_rows']:,} to score on"
    sealed = f"{split['test_rows']:,} rows, sealed ({seal}); {split['duplicate_rows']} duplicates left out"
    skipped = f"; {split['unreadable_rows']:,} that cannot be read left out" if split["unreadable_rows"] else ""
    if planned.opened:
        rows = f"{split['pool_rows'] + split['validation_rows']:,} rows and {split['opened_rows']:,} test rows"
        twice = f"; {split['duplicate_rows']} stand in both" if split["duplicate_rows"] else ""
        sealed = f"not sealed: arms are trained and tested as in their paper{twice}"
    table.add_row("data", f"{planned.dataset}: {rows}{skipped}")
    table.add_row("test set", sealed)
    if planned.external_test is not None:
        table.add_row("external test set", f"{split['external_rows']:,} rows from {planned.external_test}")
    each = " in every arm" if planned.recipe else ""
    together = f"{slots} at a time, {planned.slot()}"
    if planned.space.distributions or planned.recipe is None:
        table.add_row("trials", f"{planned.trials}{each} × at most {longest} epochs, {together}")
        table.add_row("proposals", f"{planned.sampler}, seed {planned.seed}; stopped by {planned.stopping()}")
    if planned.recipe is not None:
        table.add_row("runs", f"{planned.confirm_seeds} of every arm × at most {longest} epochs, {together}")
    elif planned.confirm:
        best = "trial" if planned.confirm == 1 else f"{planned.confirm} trials"
        runs = f"the best {best} again, in full, with {planned.confirm_seeds} new seeds; then the test set is opened"
        table.add_row("confirmed", f"{runs} for the winner")
    else:
        table.add_row("confirmed", "nothing: the best score will be the luckiest, and the test set stays sealed")
    table.add_row("metric", f"{base.metric} ({METRICS[base.metric]})")
    for name in planned.space.varied:
        table.add_row(f"  {name}", planned.space.describe(name))
    arms = {name: space.base.to_dict() for name, space in planned.arms.items()}
    alike = {n for n in FIELDS if len({arm[n] for arm in arms.values()}) == 1}

    def told(arm: dict[str, Any], names: Iterable[str]) -> str:
        return ", ".join(f"{n}={short(arm[n])}" for n in names if n not in planned.space.varied)

    table.add_row(
        "fixed", told(base.to_dict(), (n for n in FIELDS if n in alike and getattr(base, n) != FIELDS[n].default))
    )
    if planned.recipe is not None:
        for name, arm in arms.items():
            table.add_row(f"  {name}", told(arm, (n for n in FIELDS if n not in alike)))
    target.print(table)


def show_samples(planned: Plan, samples: Sequence[dict[str, Any]], target: Console) -> None:
    """A row a searched field, a column a sample; a dash where the others leave nothing to search."""
    table = Table(box=None, header_style="bold", padding=(0, 1))
    table.add_column("samples")
    for number in range(len(samples)):
        table.add_column(str(number))
    for name in planned.space.distributions:
        table.add_row(f"  {name}", *(short(params[name]) if name in params else "–" for params in samples))
    target.print(table)
