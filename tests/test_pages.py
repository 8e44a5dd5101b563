"""The pages for one's own spaces, models and data: their files and commands work as they are written."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from conftest import ROOT
from test_docs import commands

from orchestrator import doctor, predict, sweep

PROGRAMS = {"orchestrator.sweep": sweep.main, "orchestrator.doctor": doctor.main, "orchestrator.predict": predict.main}


def lines(page: str) -> list[str]:
    return commands((ROOT / "docs" / page).read_text())


def write_files(page: str, folder: Path) -> None:
    """The page's code blocks whose first line is their name, `# NAME.py` or `# NAME.yaml`."""
    for name, content in re.findall(
        r"```(?:python|yaml)\n# (\S+\.(?:py|ya?ml))\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL
    ):
        (folder / name).write_text(content)


def run(line: str, *more: str | Path) -> int:
    """A command line of a page, in this process."""
    _, _, program, *arguments = shlex.split(line)
    return PROGRAMS[program]([*arguments, *map(str, more)])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> Path:
    """A folder to work in, with the tests' cache of decoded data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SWEEP_ORCHESTRATOR_CACHE", environment["SWEEP_ORCHESTRATOR_CACHE"])
    return tmp_path


@pytest.mark.parametrize("line", lines("spaces.md"))
def test_spaces_can_be_planned(line: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_files("spaces.md", here)
    assert run(line, "--dry-run") == 0
    told = capsys.readouterr().err
    assert "samples" in told
    assert "uniform(0.8, 0.99) if optimizer=sgd" in told or "optimizer=sgd" in line
