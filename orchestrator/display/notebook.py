"""What people see in a notebook: one block that is updated while a sweep runs, and a result as a table with a chart."""

from __future__ import annotations

import io
from collections.abc import Sequence
from html import escape
from importlib import import_module
from typing import Any

from orchestrator.display.text import short
from orchestrator.record.ranking import is_ranked, ranked
from orchestrator.record.state import SweepState, TrialRecord

TOP = 10  # trials of the table
WIDTH, HEIGHT, MARGIN, DOT = 640, 160, 12, 3  # pixels of the chart
PRE = "max-height: 40em; overflow: auto; white-space: pre; line-height: 1.3"


class NotebookBlock(io.StringIO):
    """A text file that a notebook shows as one block, from the first line on, updated with each that is added."""

    def __init__(self) -> None:
        super().__init__()
        self._handle: Any = None

    def flush(self) -> None:
        """Show what has been written so far."""
        if not self.getvalue():
            return
        notebook = import_module("IPython.display")  # there is one where this is used
        content = notebook.HTML(f'<pre style="{PRE}">{escape(self.getvalue())}</pre>')
        if self._handle is None:
            self._handle = notebook.display(content, display_id=True)
        else:
            self._handle.update(content)


def result_html(heading: Sequence[str], state: SweepState, searched: Sequence[str]) -> str:
    """Return the lines of `heading`, a chart of all trials' scores and a table of the first on the leaderboard."""
    trials = [trial for trial in ranked(state) if trial.confirms is None]
    lines = "<br/>".join(escape(line) for line in heading)
    return f"<div><p>{lines}</p>{_chart(trials)}{_table(trials[:TOP], searched)}</div>"


def _table(trials: Sequence[TrialRecord], searched: Sequence[str]) -> str:
    """Return an HTML table with a row per trial."""
    names = ["trial", "status", "epochs", "score", *searched]
    rows = [
        [
            str(trial.number),
            trial.status,
            str(trial.last_epoch),
            "" if trial.score is None else f"{trial.score:.4f}",
            *(short(trial.config.get(name)) for name in searched),
        ]
        for trial in trials
    ]
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _chart(trials: Sequence[TrialRecord]) -> str:
    """Return an SVG picture of the score of each trial that has one, in the order of proposal; empty without any."""
    scores = {trial.number: trial.score for trial in trials if is_ranked(trial) and trial.score is not None}
    if not scores:
        return ""
    low, high, last = min(scores.values()), max(scores.values()), max(scores)
    dots = "".join(
        f'<circle cx="{MARGIN + number / max(last, 1) * (WIDTH - 2 * MARGIN):.1f}" '
        f'cy="{HEIGHT - MARGIN - (score - low) / ((high - low) or 1) * (HEIGHT - 2 * MARGIN):.1f}" r="{DOT}" '
        f'fill="#0072B2"><title>trial {number}: {score:.4f}</title></circle>'
        for number, score in sorted(scores.items())
    )
    about = f"scores of {len(scores):,} trials in the order of proposal, {low:.4f} to {high:.4f}"
    return (
        f'<figure style="margin: 0"><svg width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{about}" '
        f'style="max-width: 100%; border: 1px solid #8884">{dots}</svg><figcaption>{about}</figcaption></figure>'
    )
