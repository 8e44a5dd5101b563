"""Shared by all tests: one cache of decoded data for the run, and the command as a user calls it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

ROOT = Path(__file__).parent.parent
SEARCH = ("orchestrator.sweep", "digits", "--quick", "--confirm", "0")
QUICK = (*SEARCH, "--json", "--results")

settings.register_profile("shared-machine", deadline=None)
settings.load_profile("shared-machine")


@dataclass(frozen=True)
class Finished:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def result(self) -> dict[str, Any]:
        """The JSON object on the last line of standard output."""
        found = json.loads(self.out.splitlines()[-1])
        assert isinstance(found, dict)
        return found


Command = Callable[..., Finished]


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A user's environment with a cache of its own."""
    return {**os.environ, "SWEEP_ORCHESTRATOR_CACHE": str(tmp_path_factory.mktemp("cache"))}


@pytest.fixture(scope="session")
def command(environment: dict[str, str]) -> Command:
    """Run `python -m MODULE ARGUMENT …` to its end."""

    def run(*arguments: str | Path, timeout: float = 110, cwd: Path = ROOT) -> Finished:
        done = subprocess.run(
            [sys.executable, "-m", *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=cwd,
            env=environment,
            timeout=timeout,
            check=False,
        )
        return Finished(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def finished(command: Command, tmp_path_factory: pytest.TempPathFactory) -> tuple[Finished, Path]:
    """A quick sweep of digits, and its folder, which tests leave as it is."""
    results = tmp_path_factory.mktemp("results")
    done = command(*QUICK, results, "--name", "quick")
    assert done.code == 0, done.err
    return done, results / "quick"


@pytest.fixture(scope="session")
def confirmed(command: Command, tmp_path_factory: pytest.TempPathFactory) -> tuple[Finished, Path]:
    """A quick sweep of digits whose best two trials are confirmed, and its folder, of which the journal stays."""
    results = tmp_path_factory.mktemp("results")
    asked = ("digits", "--quick", "--confirm", "2", "--confirm-seeds", "2", "--results", results, "--name", "sure")
    done = command("orchestrator.sweep", *asked, "--json")
    assert done.code == 0, done.err
    return done, results / "sure"
