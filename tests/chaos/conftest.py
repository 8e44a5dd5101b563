"""Of the chaos tests: their short form, sweeps that leave no process behind, and the table at the end."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chaos.sweeps import Sweep

SweepMaker = Callable[..., Sweep]
Tell = Callable[..., None]

_ROWS: list[dict[str, Any]] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--short", action="store_true", help="fewer faults: what CI runs")


@pytest.fixture(scope="session")
def short(request: pytest.FixtureRequest) -> bool:
    """Whether few faults will do."""
    return bool(request.config.getoption("--short", default=False))


@pytest.fixture(scope="session")
def long(short: bool) -> None:
    """Leaves a test to the long form."""
    if short:
        pytest.skip("takes too long for the short form")


@pytest.fixture
def sweeps(environment: dict[str, str], tmp_path: Path) -> Iterator[SweepMaker]:
    """Makes sweeps below `tmp_path`, or with `results` elsewhere; none of their processes is left at the end."""
    made: list[Sweep] = []

    def make(name: str = "a", results: Path | None = None, epoch_s: dict[str, float] | None = None) -> Sweep:
        home = tmp_path / name
        home.mkdir()
        made.append(Sweep(results or home / "results", home, environment, epoch_s))
        return made[-1]

    yield make
    for sweep in made:
        for command in sweep.commands:
            command.end()


@pytest.fixture
def tell() -> Tell:
    """Put a row into the table at the end: the fault, how often it was injected, and figures of what was found."""

    def add(fault: str, count: int, **found: Any) -> None:
        _ROWS.append({"fault": fault, "count": count, **found})

    return add


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _ROWS:
        return
    terminalreporter.section("chaos")
    for row in _ROWS:
        found = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in list(row.items())[2:])
        terminalreporter.line(f"{row['count']:4d} × {row['fault']}: {found}")
    with tempfile.NamedTemporaryFile("w", prefix="chaos-", suffix=".json", delete=False) as file:
        json.dump(_ROWS, file, indent=1)
    terminalreporter.line(f"as JSON: {file.name}")
