"""The share of the commonest class: counted on the scored rows, and beside every score that a person reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bundles
import pytest
from journals import SPLIT, trial, write_sweep
from numbered import dataset

from orchestrator import report
from orchestrator.assessment import baseline
from orchestrator.display import progress, summary
from orchestrator.display.live_view import SweepView
from orchestrator.plan import recorded
from orchestrator.record.facts import Spec
from orchestrator.record.paths import SweepFolder
from orchestrator.result import SweepResult
from trainables.splits import describe

TEXT = "always naming the commonest class: 0.23"
UNEVEN = {**SPLIT, "commonest_share": 0.2345}


def test_it_is_the_share_among_the_validation_rows() -> None:
    assert describe(dataset([30, 50, 20]))["commonest_share"] == 0.5
    assert describe(dataset([30, 50, 20]), subset=50)["commonest_share"] == 0.5


@pytest.mark.parametrize(
    ("split", "metric", "text"),
    [
        (UNEVEN, "val_accuracy", TEXT),
        (UNEVEN, "val_f1", "always naming the commonest class: accuracy 0.23"),
        (SPLIT, "val_accuracy", ""),  # of a former version
        ({**UNEVEN, "opened_rows": 100}, "val_accuracy", ""),  # a recipe scores on other rows
    ],
)
def test_its_text_names_the_metric_that_it_is_of(split: dict[str, Any], metric: str, text: str) -> None:
    assert baseline.text(split, metric) == text


def test_live_view_summary_report_and_result_have_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_sweep(tmp_path / "uneven", trial(0, [0.5]), split=UNEVEN)
    sweep = recorded.read(folder)
    console = progress.console()
    assert TEXT in str(SweepView(sweep.state, sweep.plan, console)._summary())
    summary.show_end(sweep.state, sweep.plan, None, SweepFolder(folder), console)
    assert TEXT in capsys.readouterr().err
    report.write(folder)
    assert TEXT in (folder / "report.html").read_text()
    result = SweepResult(folder, sweep.plan, sweep.state, None, "finished", 1.0)
    assert result.to_dict()["commonest_share"] == 0.2345


def test_the_model_card_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundles, "SPEC", Spec(plan={"dataset": "stripes"}, split={"test_rows": 9, **UNEVEN}))
    made = bundles.make(tmp_path / "best")
    assert f"({TEXT})" in (made.folder / "README.md").read_text()
