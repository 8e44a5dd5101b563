"""What the leaderboard command shows, on standard output: as wide as the terminal; whole in a file or a pipe."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.assessment.fraction_curve import HEADING, NOTE, Bin
from orchestrator.display.text import SHOWN, between, short
from orchestrator.leaderboard import selection
from orchestrator.leaderboard.boards import Board
from orchestrator.leaderboard.sweep_diff import SweepDiff
from trainables.epoch_metrics import METRICS

UNBOUND = 10_000  # columns, where nobody has to fit on a screen
LONGEST = 40  # characters of a cell
NUMBERS = ("trial", "epochs", "score")  # flush right


def console() -> Console:
    """Standard output, for people."""
    target = Console(highlight=False, markup=False, emoji=False)
    if not target.is_terminal and "COLUMNS" not in os.environ:
        target.width = UNBOUND
    return target


def show_trials(rows: Sequence[dict[str, Any]], searched: Sequence[str], target: Console) -> None:
    """A row a trial: which, how it ended, its score, how it was confirmed, and what of its settings is searched."""
    optional = [name for name in ("arm", "confirmed") if any(row[name] is not None for row in rows)]
    names = ["trial", "arm", "status", "epochs", "score", "confirmed", *searched]
    kept = [name for name in names if name in optional or name not in ("arm", "confirmed")]
    sweep = ["sweep"] if rows and "sweep" in rows[0] else []
    show_rows([{name: row[name] for name in (*sweep, *kept, "winner")} for row in rows], target)


def show_rows(rows: Sequence[dict[str, Any]], target: Console, whole: bool = False) -> None:
    """A table of `rows`: as many of its columns as there is room for or, if `whole` is asked for, all of them."""
    if not rows:
        return
    names = [name for name in rows[0] if whole or name != "winner"]
    cells = [[_cell(name, row) for name in names] for row in rows]
    headings = [name.removeprefix("config.") for name in names]
    widths = [max(map(len, column)) + 2 for column in zip(headings, *cells, strict=True)]
    fitting = sum(sum(widths[: i + 1]) <= target.width for i in range(len(widths)))
    table = Table(box=None, header_style="bold", padding=(0, 1))
    for name, heading in list(zip(names, headings, strict=True))[: None if whole else fitting]:
        table.add_column(heading, justify="right" if name in NUMBERS else "left", no_wrap=not whole, overflow="fold")
    for texts in cells:
        styled = (
            Text(text, style=SHOWN.get(text, "") if name == "status" else "")
            for name, text in zip(names, texts, strict=True)
        )
        table.add_row(*list(styled)[: len(table.columns)])
    target.print(table)
    if not whole and fitting < len(names):
        target.print(
            f"no room for {', '.join(headings[fitting:])}: a wider terminal, or --columns A,B shows them",
            soft_wrap=True,
        )


def show_counts(boards: Sequence[Board], table: pa.Table, shown: int, target: Console) -> None:
    """What was selected, and how far its scores may be compared."""
    counts = Counter(table["status"].to_pylist())
    told = ", ".join(f"{n:,} {status}" for status, n in counts.items()) or "no trial"
    some = f"; {shown:,} of {len(table):,} are shown, see --top" if shown < len(table) else ""
    metrics = " and ".join(f"{name} ({METRICS[name]})" for name in dict.fromkeys(board.metric for board in boards))
    target.print(f"{told}; scores are {metrics}{some}", soft_wrap=True)
    if not selection.comparable(boards):
        target.print(
            "these sweeps are scored on different rows, or by different metrics: their scores cannot be compared",
            soft_wrap=True,
        )


def show_curve(arm: str, bins: Sequence[Bin], target: Console) -> None:
    """Score against train fraction, and its cost."""
    target.print(f"what labels are worth{f', {arm}' if arm else ''}:")
    table = Table(box=None, header_style="bold", padding=(0, 1))
    for name in HEADING:
        table.add_column(name, justify="right", no_wrap=True)
    for one in bins:
        table.add_row(*one.cells())
    target.print(table)
    target.print(NOTE, soft_wrap=True)


def show_diff(found: SweepDiff, target: Console) -> None:
    """Two sweeps beside each other."""
    first, second = found.outcomes
    table = Table(box=None, header_style="bold", padding=(0, 1))
    for name in ("", first.sweep, second.sweep):
        table.add_column(name, overflow="fold")
    for change in found.changes:
        table.add_row(change.setting, change.first or "–", change.second or "–")
    table.add_row("trials run", *(f"{one.trials:,}" for one in found.outcomes))
    table.add_row("best score", *("–" if one.score is None else f"{one.score:.4f}" for one in found.outcomes))
    if any(one.confirmed is not None for one in found.outcomes):
        table.add_row("winner, confirmed", *map(_confirmed, found.outcomes))
    target.print(table)
    if not found.changes:
        target.print("the same was asked of both")
    for note in found.notes():
        target.print(note, soft_wrap=True)


def _confirmed(outcome: Any) -> str:
    if outcome.confirmed is None:
        return "–"
    runs = f", {outcome.runs} runs" if outcome.runs else ""
    return f"trial {outcome.winner}{runs}: {outcome.confirmed:.4f} {between(outcome.interval)}".rstrip()


def _cell(name: str, row: dict[str, Any]) -> str:
    value = row[name]
    if value is None:
        return ""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, float):
        text = f"{value:.4f}" if name.startswith(("score", "confirmed", "val_")) else short(value)
    else:
        text = " ".join(str(value).split())
    if name == "confirmed" and row.get("winner"):
        text += " winner"
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
