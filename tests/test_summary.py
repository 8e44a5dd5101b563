"""The end of a sweep on the terminal: what a reader learns who has seen nothing before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from journals import trial, write_sweep

from orchestrator.display import progress, summary
from orchestrator.plan import recorded
from orchestrator.record.paths import SweepFolder


@pytest.mark.parametrize("ended", ["signal", "finished"])
def test_an_interruption_is_said_first_and_how_to_go_on_last(
    ended: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_sweep(tmp_path / "mine", trial(0, [0.5]))
    sweep = recorded.read(folder)
    summary.show_end(replace(sweep.state, ended=ended), sweep.plan, None, SweepFolder(folder), progress.console())
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("interrupted: what has ended is kept") == (ended == "signal")
    assert ("--resume mine" in lines[-1]) == (ended == "signal")
