"""Shared by all tests: one cache of decoded data for the run, the command as users call it, sweeps that have ended."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import settings

ROOT = Path(__file__).parent.parent
SEARCH = ("orchestrator.sweep", "digits", "--quick", "--confirm", "0")
QUICK = (*SEARCH, "--json", "--results")

if "PYTEST_XDIST_WORKER" in os.environ:  # the workers share the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # in a shell's background jobs, and in all that they start
    signal.signal(signal.SIGINT, signal.default_int_handler)

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
    """Return a user's environment with a cache of its own."""
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


Once = Callable[[str, Callable[[Path], Finished]], tuple[Finished, Path]]


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Run a command that fills a folder once, whichever of pytest-xdist's workers asks first; the others wait."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def run(name: str, fill: Callable[[Path], Finished]) -> tuple[Finished, Path]:
        folder, record = base / name, base / f"{name}.json"
        with FileLock(base / f"{name}.lock"):
            if not record.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a command that took too long
                folder.mkdir()
                record.write_text(json.dumps(asdict(fill(folder))))
        done = Finished(**json.loads(record.read_text()))
        assert done.code == 0, done.err
        return done, folder

    return run


@pytest.fixture(scope="session")
def finished(command: Command, once: Once) -> tuple[Finished, Path]:
    """Return a quick sweep of digits and its folder, which tests leave as it is.

    `--on-end` has it write its result beside the folder, and fail.
    """

    def fill(results: Path) -> Finished:
        return command(*QUICK, results, "--name", "quick", "--on-end", f"cat > {results}/on-end; echo heard; exit 3")

    done, results = once("finished", fill)
    return done, results / "quick"


@pytest.fixture(scope="session")
def confirmed(command: Command, once: Once) -> tuple[Finished, Path]:
    """Return a quick sweep of digits whose best two trials are confirmed, and its folder, to be left as it is.

    Its profile lies beside the folder.
    """
    options = ("digits", "--quick", "--confirm", "2", "--confirm-seeds", "2", "--name", "sure", "--json", "--results")

    def fill(results: Path) -> Finished:
        return command("orchestrator.sweep", *options, results, "--profile", results / "profile.json")

    done, results = once("confirmed", fill)
    return done, results / "sure"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files that run commands first: they take longest, and the short ones fill the workers' last minute."""
    slow = {item.path for item in items if "command" in getattr(item, "fixturenames", ())}
    items.sort(key=lambda item: item.path not in slow)
