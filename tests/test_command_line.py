"""What all commands share: `--version`, the one name for all of them, and installations that can be repeated."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest
from conftest import ROOT, Command
from packaging.requirements import Requirement

from orchestrator.__main__ import COMMANDS
from orchestrator.doctor.libraries import TESTED_WITH

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
VERSION = f"sweep-orchestrator {PROJECT['version']}\n"
SCRIPT = Path(sys.prefix) / "bin" / "sweep-orchestrator"

needs_script = pytest.mark.skipif(not SCRIPT.exists(), reason="this project is not installed in this environment")


@pytest.mark.parametrize(
    "module", ["orchestrator", *(module.removesuffix(".__main__") for module, _ in COMMANDS.values())]
)
def test_every_command_has_a_version_and_a_help(module: str, command: Command) -> None:
    done = command(module, "--version")
    assert (done.code, done.out, done.err) == (0, VERSION, "")
    done = command(module, "--help")
    assert "usage: " in done.out + done.err


def test_all_commands_have_one_name(command: Command) -> None:
    done = command("orchestrator", "--help")
    assert done.code == 0
    assert all(f"  {name} " in done.out for name in COMMANDS)
    assert command("orchestrator").out == done.out
    assert "--confirm-seeds" in command("orchestrator", "sweep", "--help").out


def test_an_unknown_command_is_refused_with_a_suggestion(command: Command) -> None:
    done = command("orchestrator", "leaderbord")
    assert done.code == 2
    assert "there is no command leaderbord; did you mean leaderboard?" in done.err


@needs_script
def test_the_script_is_installed() -> None:
    (entry,) = entry_points(group="console_scripts", name="sweep-orchestrator")
    assert entry.value == PROJECT["scripts"]["sweep-orchestrator"]
    done = subprocess.run([SCRIPT, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == VERSION


@needs_script
def test_the_script_does_what_the_module_does(tmp_path: Path, environment: dict[str, str]) -> None:
    """Also where a user's model lies in the folder that it runs in."""
    (tmp_path / "nets.py").write_text("def small(*, num_classes):\n    raise SystemExit(f'{num_classes} of them')\n")
    arguments = ["sweep", "digits", "--set", "model=nets:small", "--dry-run"]
    done = subprocess.run([SCRIPT, *arguments], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 2
    assert "10 of them" in done.stderr


# Installations that can be repeated


def constraints() -> dict[str, str]:
    """The versions in constraints.txt, by normalized name."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines), "a name and a version alone"
    return {
        re.sub(r"[-_.]+", "-", name).lower(): number for name, _, number in (line.partition("==") for line in lines)
    }


def test_constraints_meet_the_requirements() -> None:
    """Of the project and of all its tests; trackers that no test needs are left to pip."""
    versions = constraints()
    extras = PROJECT["optional-dependencies"]
    for text in [*PROJECT["dependencies"], *extras["test"], *extras["onnx"], *extras["explain"], *extras["timm"]]:
        needed = Requirement(text)
        assert needed.specifier.contains(versions[needed.name.lower()]), text


def test_constraints_are_of_the_tested_releases() -> None:
    """Bounds let newer releases in; the doctor names those that the tests did not run with."""
    versions = constraints()
    assert all(f"{versions[name]}.".startswith(f"{tested}.") for name, tested in TESTED_WITH.items())
    assert version("sweep-orchestrator") == PROJECT["version"]
    bounded = [Requirement(text) for text in PROJECT["dependencies"] if "<" in text]
    assert {needed.name for needed in bounded} == set(TESTED_WITH)
