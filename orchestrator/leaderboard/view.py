"""The leaderboard command's standard output: as wide as the terminal, or complete in a file or a pipe."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.assessment.fraction_curve import HEADING, NOTE, Bin
from orchestrator.display.aims import LARGE
from orchestrator.display.progress import Lasting
from orchestrator.display.text import SHOWN, between, counted, short
from orchestrator.leaderboard import selection
from orchestrator.leaderboard.boards import Board
from orchestrator.leaderboard.sweep_diff import SweepDiff
from orchestrator.record.aims import MEASURES
from trainables.epoch_metrics import direction_of

UNBOUND = 10_000  # characters a line, where the output is no terminal
LONGEST = 40  # characters of a cell
NUMBERS = ("trial", "epochs", "score")  # flush right


def console() -> Console:
    """Return a console on standard output."""
    target = Lasting(highlight=False, markup=False, emoji=False)
    if not target.is_terminal and "COLUMNS" not in os.environ:
        target.width = UNBOUND
    return target


def show_trials(rows: Sequence[dict[str, Any]], others: Sequence[str], target: Console) -> None:
    """Print one row per trial: its number, status, score, confirmed mean, place among the aims, and `others`."""
    optional = ("arm", "confirmed", "front", "feasible")
    names = ["trial", "arm", "status", "epochs", "score", "confirmed", "front", "feasible", *others]
    names = [name for name in names if name not in optional or any(row[name] is not None for row in rows)]
    sweep = ["sweep"] if rows and "sweep" in rows[0] else []
    show_rows([{name: row[name] for name in (*sweep, *names, "winner")} for row in rows], target)


def show_rows(rows: Sequence[dict[str, Any]], target: Console, all_columns: bool = False) -> None:
    """Print a table of `rows`: as many of the columns as fit into the terminal or, if `all_columns`, all of them."""
    if not rows:
        return
    names = [name for name in rows[0] if all_columns or name != "winner"]
    cells = [[_cell(name, row) for name in names] for row in rows]
    headings = [name.removeprefix("config.") for name in names]
    widths = [max(map(len, column)) + 2 for column in zip(headings, *cells, strict=True)]
    fitting = sum(sum(widths[: i + 1]) <= target.width for i in range(len(widths)))
    table = Table(box=None, header_style="bold", padding=(0, 1))
    for name, heading in list(zip(names, headings, strict=True))[: None if all_columns else fitting]:
        table.add_column(
            heading, justify="right" if name in NUMBERS else "left", no_wrap=not all_columns, overflow="fold"
        )
    for texts in cells:
        styled = (
            Text(text, style=SHOWN.get(text, "") if name == "status" else "")
            for name, text in zip(names, texts, strict=True)
        )
        table.add_row(*list(styled)[: len(table.columns)])
    target.print(table)
    if not all_columns and fitting < len(names):
        target.print(
            f"the terminal is too narrow for {', '.join(headings[fitting:])}: widen it, or choose with --columns A,B",
            soft_wrap=True,
        )


def show_counts(boards: Sequence[Board], table: pa.Table, shown: int, target: Console) -> None:
    """Print how many trials were selected, their metric, and a warning where their scores cannot be compared."""
    counts = Counter(table["status"].to_pylist())
    statuses = ", ".join(f"{n:,} {status}" for status, n in counts.items()) or "no trials"
    some = f"; {shown:,} of {len(table):,} are shown, --top shows more" if shown < len(table) else ""
    metrics = " and ".join(f"{name} ({direction_of(name)})" for name in dict.fromkeys(board.metric for board in boards))
    target.print(f"{statuses}; scores are {metrics}{some}", soft_wrap=True)
    if not selection.comparable(boards):
        target.print(
            "these sweeps are scored on different rows or by different metrics, so their scores cannot be compared",
            soft_wrap=True,
        )


def show_curve(arm: str, bins: Sequence[Bin], target: Console) -> None:
    """Print the score against the train fraction, and what it costs."""
    target.print(f"what labels are worth{f', {arm}' if arm else ''}:")
    table = Table(box=None, header_style="bold", padding=(0, 1))
    for name in HEADING:
        table.add_column(name, justify="right", no_wrap=True)
    for one in bins:
        table.add_row(*one.cells())
    target.print(table)
    target.print(NOTE, soft_wrap=True)


def show_diff(found: SweepDiff, target: Console) -> None:
    """Print two sweeps side by side."""
    first, second = found.outcomes
    table = Table(box=None, header_style="bold", padding=(0, 1))
    for name in ("", first.sweep, second.sweep):
        table.add_column(name, overflow="fold")
    for change in found.changes:
        table.add_row(change.setting, change.first or "–", change.second or "–")
    table.add_row("trials run", *(f"{one.trials:,}" for one in found.outcomes))
    table.add_row("best score", *("–" if one.score is None else f"{one.score:.4f}" for one in found.outcomes))
    if any(one.confirmed is not None for one in found.outcomes):
        table.add_row("confirmed winner", *map(_confirmed, found.outcomes))
    target.print(table)
    if not found.changes:
        target.print("both sweeps have the same settings")
    for note in found.notes():
        target.print(note, soft_wrap=True)


def _confirmed(outcome: Any) -> str:
    if outcome.confirmed is None:
        return "–"
    runs = f", {counted(outcome.runs, 'run')}" if outcome.runs else ""
    return f"trial {outcome.winner}{runs}: {outcome.confirmed:.4f} {between(outcome.interval)}".rstrip()


def _cell(name: str, row: dict[str, Any]) -> str:
    value = row[name]
    if value is None:
        return ""
    if name == "config.weights":
        value = Path(value).name  # of a file; weights that have a name have no folder
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, float):
        share, large = name.startswith(("score", "confirmed", "val_")), name in MEASURES and value >= LARGE
        text = f"{value:.4f}" if share else f"{value:.0f}" if large else short(value)
    elif isinstance(value, bool) and not name.startswith("config."):
        text = "yes" if value else "no"
    else:
        text = " ".join(str(value).split())
    if name == "confirmed" and row.get("winner"):
        text += " winner"
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def show_winner(table: pa.Table, console: Console) -> None:
    """Show which confirmed trial has won, as the table of a long sweep has it."""
    rows = [row for row in table.to_pylist() if row["winner"]]
    for row in rows:
        bounds = row["confirmed_low"], row["confirmed_high"]
        score = f"{row['confirmed']:.4f} {between(None if None in bounds else bounds)}".rstrip()
        console.print(
            f"trial {row['trial']} has won the confirmation: {score}; report.html and final.json have all of it"
        )
    if not rows:
        console.print("not confirmed: not all runs of the best trials have ended")
