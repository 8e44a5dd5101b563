"""Fixtures of the chaos tests: their short form, sweeps that leave no process behind, and the table at the end."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chaos.sweeps import Sweep

SweepMaker = Callable[..., Sweep]
Report = Callable[..., None]

_ROWS: list[dict[str, Any]] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--short", action="store_true", help="fewer faults: what CI runs")


@pytest.fixture(scope="session")
def short(request: pytest.FixtureRequest) -> bool:
    """Return whether few faults suffice."""
    return bool(request.config.getoption("--short", default=False))


@pytest.fixture(scope="session")
def long(short: bool) -> None:
    """Skip a test in the short form."""
    if short:
        pytest.skip("takes too long for the short form")


@pytest.fixture
def sweeps(environment: dict[str, str], tmp_path: Path) -> Iterator[SweepMaker]:
    """Make sweeps below `tmp_path`, or with `results` elsewhere; end all of their processes afterwards."""
    all_sweeps: list[Sweep] = []

    def make(name: str = "a", results: Path | None = None, epoch_s: dict[str, float] | None = None) -> Sweep:
        home = tmp_path / name
        home.mkdir()
        all_sweeps.append(Sweep(results or home / "results", home, environment, epoch_s))
        return all_sweeps[-1]

    yield make
    for sweep in all_sweeps:
        for command in sweep.commands:
            command.end()


@pytest.fixture
def report() -> Report:
    """Return a function that adds a row to the table at the end: the fault, how often it was injected, and results."""

    def add(fault: str, count: int, **results: Any) -> None:
        _ROWS.append({"fault": fault, "count": count, **results})

    return add


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _ROWS:
        return
    terminalreporter.section("chaos")
    for row in _ROWS:
        results = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in list(row.items())[2:])
        terminalreporter.line(f"{row['count']:4d} × {row['fault']}: {results}")
    with tempfile.NamedTemporaryFile("w", prefix="chaos-", suffix=".json", delete=False) as file:
        json.dump(_ROWS, file, indent=1)
    terminalreporter.line(f"as JSON: {file.name}")
