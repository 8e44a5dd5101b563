"""What a notebook shows: a result in a few lines, with a table and a chart; a sweep as one block."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import journals
import pytest

from orchestrator import report
from orchestrator.assessment.confirmation import confirmation_of
from orchestrator.display.notebook import NotebookBlock
from orchestrator.plan import recorded
from orchestrator.record.events import Event
from orchestrator.record.state import SweepState
from orchestrator.result import SweepResult

CONFIRMED = journals.confirm(journals.sweep(20, confirm=2, confirm_seeds=3))


def result(events: list[Event], folder: Path) -> SweepResult:
    sweep = recorded.read(journals.write(events, folder))
    return SweepResult(folder, sweep.plan, sweep.state, confirmation_of(sweep.state, sweep.plan), "finished", 1.0)


def test_a_result_in_a_few_lines(tmp_path: Path) -> None:
    made = result(CONFIRMED, tmp_path)
    report.write(tmp_path)
    lines = repr(made).splitlines()
    assert len(lines) == 4
    assert re.fullmatch(r"sweep \S+, finished: 18 stopped, 1 completed, 1 failed", lines[0])
    assert re.fullmatch(r"best of the search: trial \d+, val_accuracy 0\.\d{4}", lines[1])
    assert re.fullmatch(
        r"winner: trial \d+, val_accuracy 0\.9450 confirmed, 0\.\d{4} accuracy on the test set", lines[2]
    )
    assert lines[3] == f"report: {tmp_path / 'report.html'}"
    assert repr(dataclasses.replace(made, state=SweepState(), confirmation=None)).startswith("sweep ")


def test_a_result_has_a_table_and_a_chart(tmp_path: Path) -> None:
    page = result(CONFIRMED, tmp_path)._repr_html_()
    tree = ET.fromstring(page)  # noqa: S314 - ours
    assert len(tree.findall(".//tbody/tr")) == 10
    assert [cell.text for cell in tree.findall(".//thead//th")][:4] == ["trial", "status", "epochs", "score"]
    scores = [float(row[3].text or "nan") for row in tree.findall(".//tbody/tr")]
    assert scores == sorted(scores, reverse=True)
    assert len(tree.findall(".//circle")) == 19  # one has no score
    assert len(page) < 10_000
    none = dataclasses.replace(result(CONFIRMED[:1], tmp_path), confirmation=None)
    assert "<circle" not in none._repr_html_()


def test_names_are_escaped(tmp_path: Path) -> None:
    (folder := tmp_path / "<b>bold").mkdir()
    made = result(CONFIRMED, folder)
    assert "<b>" not in made._repr_html_()


def test_a_notebook_shows_one_block_that_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    display = pytest.importorskip("IPython.display")
    shown: list[str] = []

    class Handle:
        def update(self, content: object) -> None:
            shown.append(content.data)  # type: ignore[attr-defined]

    def show(content: object, display_id: bool) -> Handle:
        assert not shown, "a second block"
        Handle().update(content)
        return Handle()

    monkeypatch.setattr(display, "display", show)
    block = NotebookBlock()
    block.flush()
    assert not shown
    for line in ("one\n", "<two>\n"):
        block.write(line)
        block.flush()
    assert shown[-1].endswith("one\n&lt;two&gt;\n</pre>")
