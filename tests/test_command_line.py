"""What all commands share: `--version`, the one name for all of them, and installations that can be repeated."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points, version
from pathlib import Path
from types import ModuleType

import pytest
from conftest import ROOT, Command
from packaging.requirements import Requirement
from PIL import Image

from orchestrator import predict, sweep
from orchestrator.__main__ import COMMANDS
from orchestrator.doctor import __main__ as doctor
from orchestrator.doctor.libraries import TESTED_WITH
from orchestrator.leaderboard import __main__ as leaderboard
from trainables import __main__ as trial
from trainables.errors import split_at_commas

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
    assert "usage: " in done.out
    assert "(default: None)" not in done.out
    assert "(default: )" not in done.out


def test_all_commands_have_one_name(command: Command) -> None:
    done = command("orchestrator", "--help")
    assert done.code == 0
    assert all(f"  {name} " in done.out for name in COMMANDS)
    assert command("orchestrator").out == done.out
    assert "--confirm-seeds" in command("orchestrator", "sweep", "--help").out


def test_an_unknown_command_is_refused_with_a_suggestion(command: Command) -> None:
    done = command("orchestrator", "leaderbord")
    assert done.code == 2
    assert "leaderbord: unknown command; did you mean leaderboard?" in done.err
    assert all(name in done.err for name in COMMANDS)


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


LEAVING = """
import atexit, sys, time
from concurrent.futures import ThreadPoolExecutor
from threading import Thread
from trainables.command_line import leave

pool = ThreadPoolExecutor(2)
print(pool.submit(lambda: "computed").result())
Thread(target=lambda: (time.sleep(0.2), print("waited for"))).start()
atexit.register(print, "registered")
sys.stdout.write("written")
leave(3)
"""


def test_a_command_ends_beside_a_pool_of_threads_that_idle(environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LEAVING], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout.splitlines() == ["computed", "writtenwaited for", "registered"]


def test_a_dry_run_over_pictures_ends(command: Command, tmp_path: Path) -> None:
    """Eight pictures and more of a class are scaled by several threads, which idle then."""
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(40):
            size = 20 + number, 24
            Image.new("RGB", size, (number, 90, 10)).save(tmp_path / "pets" / name / f"{number}.png")
    done = command("orchestrator.sweep", tmp_path / "pets", "--dry-run", "--quick", "--slots", "1", timeout=60)
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trails", "3"], "unknown option --trails; did you mean --trials 3?"),
        (["--epochs=3"], "unknown option --epochs; did you mean --max-epochs 3?"),
        (["--modle", "resnet50"], "unknown option --modle; did you mean --set model=resnet50?"),
        (["--learning-rate", "0.1", "--lr"], "unknown option --learning-rate; did you mean --set lr=0.1?"),
        (["--learning-rate", "0.1", "--lr"], "unknown option --lr; did you mean --set lr=…?"),
        (["--threads", "4"], "unknown option --threads; did you mean --cpus-per-trial 4?"),
        (["--dry_rnu"], "unknown option --dry_rnu; did you mean --dry-run?"),
        (["--dataset", "digits"], "unknown option --dataset; did you mean digits without it?"),
        (["--xyzzy"], "unknown option --xyzzy; see --help"),
        (["digits", "cifar10"], "unexpected argument 'cifar10'; --help shows what is allowed"),
    ],
)
def test_an_unknown_option_is_refused_with_the_nearest_one(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        sweep.main(arguments)
    assert ended.value.code == 2
    assert f"error: {message}\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        (sweep, "--trials ten", "--trials ten: a whole number is needed, at least 1"),
        (sweep, "--subset 10%", "--subset 10%: a whole number is needed, at least 2"),
        (sweep, "--max-epochs 1.5", "--max-epochs 1.5: a whole number is needed, at least 1"),
        (sweep, "--seed abc", "--seed abc: a whole number is needed, at least 0"),
        (sweep, "--min-rows few", "--min-rows few: a whole number is needed, at least 1, or drop"),
        (sweep, "--folds five", "--folds five: a whole number is needed, at least 1, or auto"),
        (sweep, "--gpus-per-trial half", "--gpus-per-trial half: a number is needed, or auto"),
        (sweep, "--target-score high", "--target-score high: a number is needed"),
        (doctor, "digits --confirm all", "--confirm all: a whole number is needed, at least 0"),
        (leaderboard, "results --replay best", "--replay best: a whole number is needed"),
        (predict, "bundle picture --top few", "--top few: a whole number is needed, at least 1"),
        (trial, "digits --subset many", "--subset many: a whole number is needed, at least 2"),
    ],
)
def test_a_text_in_the_place_of_a_number_is_refused_in_plain_words(
    command: ModuleType, arguments: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(arguments.split())
    assert (ended.value.code, capsys.readouterr().err) == (2, f"error: {message}\n")


def test_wrong_numbers_and_unknown_options_are_named_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        sweep.main(["--trials", "ten", "--trails", "3", "--gpu-hours", "two"])
    assert capsys.readouterr().err.splitlines() == [
        "error: unknown option --trails; did you mean --trials 3?",
        "error: --trials ten: a whole number is needed, at least 1",
        "error: --gpu-hours two: a number is needed",
    ]


@pytest.mark.parametrize(
    ("arguments", "written"),
    [
        (["--try", "lr=0.1,dropout=0.1"], '--try "lr=0.1 dropout=0.1"'),
        (["--try", "lr=0.1, dropout=0.1"], '--try "lr=0.1 dropout=0.1"'),
        (["--set", "lr=0.1,dropout=0.1"], "--set lr=0.1 dropout=0.1"),
        (["--set", "lr=0.1,"], "--set lr=0.1"),
        (["--search", "lr=log(0.1,1),model=choice(resnet8, resnet14)"],
         '--search "lr=log(0.1,1)" "model=choice(resnet8, resnet14)"'),
        (["--also", "parameters:min,val_loss"], "--also parameters:min val_loss"),
        (["--constraint", "parameters<5e6,val_loss<3"], '--constraint "parameters<5e6" "val_loss<3"'),
        (["--log", "tensorboard,optuna=sqlite:///a.db"], "--log tensorboard optuna=sqlite:///a.db"),
        (["--warm-start", ".,.."], "--warm-start . .."),
    ],
)  # fmt: skip
def test_commas_where_blanks_belong_are_refused_with_what_to_write(
    arguments: list[str], written: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep.main(["digits", "--dry-run", *arguments]) == 2
    message = f"error: {' '.join(arguments)}: blanks are needed, not commas: {written}\n"
    assert capsys.readouterr().err == message


def test_a_trial_has_blanks_between_fields_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert trial.main(["digits", "--set", "lr=0.1,dropout=0.1"]) == 2
    assert "blanks are needed, not commas: --set lr=0.1 dropout=0.1\n" in capsys.readouterr().err


def test_names_with_commas_between_are_refused_with_blanks(capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep.main(["--recipe", "resnet50-balance", "--arms", "50:50,60:40", "--dry-run"]) == 2
    assert "unknown; did you mean 50:50 60:40, with a blank between? (allowed: 50:50" in capsys.readouterr().err
    assert sweep.main(["digits", "--sampler", "tpe,random", "--dry-run"]) == 2
    assert "blank" not in capsys.readouterr().err


@pytest.mark.parametrize("text", ["cat", "tench, Tinca tinca", "cat,cow", "", ",", " cat"])
def test_a_comma_within_a_name_stays(text: str) -> None:
    assert split_at_commas(text, {"cat", "dog", "tench, Tinca tinca"}.__contains__) == []


def test_a_trial_has_fields_where_a_sweep_has_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        trial.main(["digits", "--epochs", "3"])
    assert "did you mean --set max_epochs=3?" in capsys.readouterr().err


# Installations that can be repeated


def constraints() -> dict[str, str]:
    """Return the versions in constraints.txt, by normalized name."""
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
