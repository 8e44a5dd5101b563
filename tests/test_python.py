"""From Python: options as a dataclass, a result with tables and a model; and the command that --on-end runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, Finished

from orchestrator import sweep, validation
from orchestrator.plan.request import flat
from trainables.errors import ConfigError


@pytest.mark.slow
def test_the_example_runs(environment: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "digits.py"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    board, test, label = done.stdout.splitlines()[:5], *done.stdout.splitlines()[5:]
    assert board[0].split() == ["rank", "trial", "status", "score", "config.lr"]
    assert test.startswith("test accuracy 0.")
    assert label == "this is a 0"


def test_settings_may_be_plain_texts() -> None:
    assert flat(sweep.SweepOptions(set=("lr=0.1", "dropout=0")).set) == ("lr=0.1", "dropout=0")
    assert sweep.SweepOptions(results="~/sweeps").results.is_absolute()  # type: ignore[arg-type]


def test_a_wrong_option_is_an_exception_with_all_problems(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        sweep.run(sweep.SweepOptions("digits", results=tmp_path, trials=0, on_end=" "))
    assert len(refused.value.problems) == 2


def test_on_end_gets_the_result(finished: tuple[Finished, Path]) -> None:
    done, folder = finished
    assert done.code == 0
    assert json.loads((folder.parent / "on-end").read_text()) == done.result
    assert len(done.out.splitlines()) == 1
    assert "heard" in done.err
    assert "ended with exit code 3" in done.err


def test_an_empty_on_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--on-end: nothing follows it"):
        validation.check(sweep.SweepOptions("digits", results=tmp_path, on_end=""), None)
