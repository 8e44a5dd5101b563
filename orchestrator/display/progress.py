"""What people are told of a sweep: its plan, its trials, its end. All of it goes to standard error."""

from __future__ import annotations

import itertools
import json
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from orchestrator.assessment.comparison import Comparison, compare
from orchestrator.assessment.confirmation import final, in_doubt
from orchestrator.plan.plan import Plan
from orchestrator.record.ranking import count_statuses, ranked, slot_use
from orchestrator.record.state import SweepState, TrialRecord
from trainables.config import FIELDS, METRICS
from trainables.model_names import is_own

FILES = {
    "leaderboard.parquet": "a row a trial",
    "history.parquet": "a row an epoch",
    "comparison.md": "arms and figures",
    "confirmation.parquet": "a row a run that confirms a trial",
    "best": "the best trial's model",
    "report.html": "all of it to look at, in a browser",
}
FIXED_WIDTH = 36  # columns of trial, status, epoch and score
PLAIN_WIDTH = 160  # columns, where the output is a file or a pipe
SHOWN = {"completed": "green", "stopped": "yellow", "running": "cyan", "diverged": "red", "failed": "red"}


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


def trials_table(trials: list[TrialRecord], searched: list[str], width: int) -> Table:
    """A row a trial with as many of its searched settings as `width` columns have room for."""
    needed = (2 + max(len(name), *(len(short(t.config[name])) for t in trials), 0) for name in searched)
    ends = itertools.accumulate(needed, initial=FIXED_WIDTH)
    next(ends)
    searched = [name for name, end in zip(searched, ends, strict=True) if end <= width]
    table = Table(box=None, header_style="bold", padding=(0, 1))
    arms = any(trial.arm for trial in trials)
    for name, width in (("trial", 5), *([("arm", 0)] if arms else []), ("status", 11), ("epoch", 5), ("score", 6)):
        table.add_column(name, justify="left" if name in ("arm", "status") else "right", min_width=width)
    for name in searched:
        table.add_column(name, no_wrap=True)
    for trial in trials:
        score = "" if trial.score is None else f"{trial.score:.4f}"
        again = "" if trial.confirms is None else f", {trial.confirms} again"
        status = Text(f"{trial.status}{again}", style=SHOWN.get(trial.status, ""))
        epoch = f"{trial.last_epoch}/{trial.config['max_epochs']}"
        arm = [trial.arm] if arms else []
        table.add_row(str(trial.number), *arm, status, epoch, score, *(_setting(trial, name) for name in searched))
    return table


def _setting(trial: TrialRecord, name: str) -> str:
    """A searched setting; a dash where the trial's others left nothing to search."""
    return "–" if trial.params and name not in trial.params else short(trial.config[name])


def leaderboard_table(state: SweepState, top: int, width: int) -> Table:
    """The best trials of a sweep, of any state."""
    searched = list(Plan.from_dict(state.spec["plan"]).space.distributions)
    return trials_table([t for t in ranked(state) if t.confirms is None][:top], searched, width)


def ended_line(trial: TrialRecord) -> str:
    """One plain line about a trial that has ended."""
    assert trial.end is not None  # noqa: S101 - the caller has seen its end
    score = "no score" if trial.score is None else f"score {trial.score:.4f}"
    name = f"trial {trial.number} ({trial.arm})" if trial.arm else f"trial {trial.number}"
    name = name if trial.confirms is None else f"{name}, trial {trial.confirms} again,"
    line = f"{name} {trial.status} ({trial.end['stop_reason']}) after epoch {trial.last_epoch}: {score}"
    error = (trial.end["error"] or "").strip().splitlines()
    return f"{line}: {error[-1]}" if error else line


def short(value: Any) -> str:
    """A setting in few characters."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def duration(seconds: float) -> str:
    """`45 s`, `12 min` or `3 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def show_plan(planned: Plan, slots: int, split: dict[str, Any], target: Console) -> None:
    """What the sweep is about to do."""
    base, longest = planned.space.base, max(space.base.max_epochs for space in planned.arms.values())
    seal = "official" if split["official_test"] else "20 %, drawn once"
    table = Table(box=None, show_header=False, padding=(0, 1))
    table.add_row("sweep", planned.name)
    rows = f"{split['pool_rows']:,} rows to train on, {split['core_rows']:,} to score on"
    sealed = f"{split['test_rows']:,} rows, sealed ({seal}); {split['duplicate_rows']} duplicates left out"
    skipped = f"; {split['unreadable_rows']:,} that cannot be read left out" if split["unreadable_rows"] else ""
    if planned.opened:
        rows = f"{split['pool_rows'] + split['core_rows']:,} rows and {split['opened_rows']:,} test rows"
        twice = f"; {split['duplicate_rows']} stand in both" if split["duplicate_rows"] else ""
        sealed = f"not sealed: arms are trained and tested as in their paper{twice}"
    table.add_row("data", f"{planned.dataset}: {rows}{skipped}")
    table.add_row("test set", sealed)
    if planned.outside is not None:
        table.add_row("outside", f"{split['outside_rows']:,} rows from {planned.outside}")
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
        table.add_row(f"  {name}", planned.space.told(name))
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


def show_end(state: SweepState, folder: Path, target: Console) -> None:
    """The top ten, or a recipe's comparison, where the files are, and the command that comes next."""
    if state.spec["plan"]["recipe"] is not None:
        show_comparison(compare(state), target)
    else:
        target.print(leaderboard_table(state, 10, target.width))
    if state.spec["plan"]["confirm"]:
        target.print()
        show_confirmation(state, target)
    target.print()
    use = slot_use(state)
    told = ", ".join(f"{n} {status}" for status, n in count_statuses(state).items())
    target.print(f"{told}; slots spent {use or 0:.0%} of their time in training and evaluation")
    for line in failures(state):
        target.print(line, soft_wrap=True)
    for name, what in FILES.items():
        if (folder / name).exists():
            target.print(f"  {folder / name}  {what}", soft_wrap=True)
    if state.ended in ("signal", "sweep_budget"):
        arguments = ["orchestrator.sweep", "--results", str(folder.parent), "--resume", folder.name]
    else:
        arguments = ["orchestrator.leaderboard", str(folder)]
    target.print(f"next: {shlex.join([python(), '-m', *arguments])}", soft_wrap=True)
    if (folder / "best").exists():
        labelling = shlex.join([python(), "-m", "orchestrator.predict", str(folder / "best")])
        model = json.loads((folder / "best" / "config.json").read_bytes())["config"]["model"]
        trust = f" --trust {model}" if is_own(model) else ""
        target.print(f"      {labelling} IMAGE …{trust}", soft_wrap=True)


def show_confirmation(state: SweepState, target: Console) -> None:
    """The confirmed trials, how sure their means are, and what the winner reaches on the test set."""
    found = final(state)
    if not found["confirmed"]:
        target.print("not confirmed: not all runs of the best trials have ended")
        return
    table = Table(box=None, header_style="bold", padding=(0, 1), title_justify="left")
    for name in ("trial", "runs", "search", "confirmed", f"{found['level']:.0%} interval", ""):
        table.add_column(name, justify="right" if name in ("trial", "runs") else "left")
    for row in found["candidates"]:
        won = "the winner" if row["trial"] == found["trial"] else "cannot be told from the best" if row["tied"] else ""
        cells = (str(row["trial"]), str(row["runs"]), f"{row['search']:.4f}", f"{row['mean']:.4f}")
        table.add_row(*cells, between(row["interval"]), won)
    target.print(table)
    if found["smaller_than"] is not None:
        better = f"trial {found['smaller_than']}, which is better by less than its standard error"
        target.print(f"trial {found['trial']} wins, a smaller model than that of {better}")
    shrinkage = found["shrinkage"]
    told = f"trial {shrinkage['leader']}, which led the search: {shrinkage['search_to_confirmed']:+.4f} when confirmed"
    if shrinkage["confirmed_to_test"] is not None:
        told += f"; the winner: {shrinkage['confirmed_to_test']:+.4f} from the core to the test set"
    target.print(told)
    test = found["test"]
    if test is not None:
        expected = "" if test["inside"] is None else f", {'as' if test['inside'] else 'not as'} expected"
        target.print(
            f"test set, {test['rows']:,} rows: accuracy {test['accuracy']['mean']:.4f} in mean; of the model in best/ "
            f"{test['model_accuracy']:.4f} {between(test['wilson'])}{expected} ({between(test['predicted'])})"
        )
        if doubt := in_doubt(test):
            target.print(doubt, style="yellow", soft_wrap=True)


def between(interval: Sequence[float] | None) -> str:
    """An interval, in brackets."""
    return "" if interval is None else f"[{interval[0]:.4f}, {interval[1]:.4f}]"


def show_comparison(found: Comparison, target: Console) -> None:
    """A row an arm, with as many figures as there is room for, and what stands in brackets."""
    table = Table(box=None, header_style="bold", padding=(0, 1))
    room, shown = target.width, []
    for column in zip(found.heading(), *found.rows(), strict=True):
        room -= max(map(len, column)) + 2
        if room >= 0:
            shown.append(column)
    for heading, *_ in shown:
        table.add_column(heading, no_wrap=True)
    for row in zip(*(cells for _, *cells in shown), strict=True):
        table.add_row(*row)
    target.print(table)
    more = len(found.heading()) - len(shown)
    if more:
        target.print(f"{more} more columns are in comparison.md")
    target.print(found.note(), soft_wrap=True)


def python() -> str:
    """This Python, as one would type it here."""
    here = Path(sys.executable)
    return str(here.relative_to(Path.cwd())) if here.is_relative_to(Path.cwd()) else str(here)


def failures(state: SweepState) -> list[str]:
    """A line for each different error, about the first trial that had it."""
    first: dict[str, TrialRecord] = {}
    for trial in state.trials.values():
        if trial.end is not None and trial.end["error"]:
            first.setdefault(trial.end["error"].strip().splitlines()[-1], trial)
    return [ended_line(trial) for trial in first.values()]
