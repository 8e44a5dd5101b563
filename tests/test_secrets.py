"""Nothing secret is published: neither by the record of a sweep and its files, nor by what is printed."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, Command

from orchestrator.plan.options import SweepOptions, parse
from orchestrator.plan.public_command import COMMAND, public_command
from trainables.command_line import complain
from trainables.secrets import without_secrets

SECRET = "hunter2-7d1f"  # noqa: S105 - it stands for one


@pytest.mark.parametrize(
    ("text", "public"),
    [
        (f"postgresql://me:{SECRET}@host/trials", "postgresql://…@host/trials"),
        (f"optuna=mysql://host/db?user=me&password={SECRET}", "optuna=mysql://host/db?user=me&password=…"),
        (f"https://host/x?X-Amz-Signature={SECRET}&page=2", "https://host/x?X-Amz-Signature=…&page=2"),
        (f"'https://host/?api_key={SECRET}': no answer", "'https://host/?api_key=…': no answer"),
        (f"s3://{SECRET}@bucket/path and lr=0.1", "s3://…@bucket/path and lr=0.1"),
        ("lr=log(1e-4,1e-1) if optimizer=sgd", "lr=log(1e-4,1e-1) if optimizer=sgd"),
        ("me@host: no URL", "me@host: no URL"),
    ],
)
def test_logins_and_secret_parameters_of_urls_are_left_out(text: str, public: str) -> None:
    assert without_secrets(text) == public


def test_the_record_has_the_options_and_not_the_command_line() -> None:
    given = ["cifar10", "--set", "model=resnet8", "lr=0.1", "--search", "dropout=uniform(0, 0.3)", "--trials", "4"]
    options = parse("", "sweep", [*given, "--no-refit", "--on-end", SECRET, "--quiet", "--data-dir", "my data"])
    words = shlex.split(public_command(options))
    assert tuple(words[:3]) == COMMAND
    assert SECRET not in words
    again = parse("", "sweep", words[3:])
    assert (again.set, again.search, again.trials, again.no_refit) == (
        options.set, options.search, 4, True,
    )  # fmt: skip
    assert (again.dataset, again.data_dir, again.on_end) == ("cifar10", Path("my data"), None)
    assert public_command(again) == public_command(options)
    assert public_command(SweepOptions("digits", quick=True)) == "python -m orchestrator.sweep digits --quick"


def test_messages_are_without_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    complain([f"--export postgresql://me:{SECRET}@host/db: it cannot be opened"])
    assert SECRET not in capsys.readouterr().err


def test_a_password_in_the_url_of_a_tracker_is_refused(command: Command) -> None:
    for url in (f"postgresql://me:{SECRET}@host/db", f"postgresql://host/db?password={SECRET}"):
        done = command("orchestrator.sweep", "digits", "--log", f"optuna={url}")
        assert done.code == 2
        assert "a password belongs in the environment" in done.err
        assert SECRET not in done.out + done.err


MODEL = """
import torch

def make(*, classes, channels, image_size):
    raise RuntimeError("https://me:{secret}@host/weights?token={secret}: not found")
"""


@pytest.mark.slow
def test_no_file_of_a_sweep_has_a_secret(environment: dict[str, str], tmp_path: Path) -> None:
    """The secrets are in the environment, in `--on-end`, and in the error of a model of the user's."""
    names = ("HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "MY_PASSWORD")
    secrets = {**environment, **dict.fromkeys(names, SECRET), "PYTHONPATH": str(ROOT)}
    (tmp_path / "mine.py").write_text(MODEL.format(secret=SECRET))
    asked = [
        *["digits", "--quick", "--trials", "2", "--confirm", "0", "--log", "tensorboard", "--results"],
        str(tmp_path / "results"),
    ]
    begun = time.time()
    for more in ([], ["--set", "model=mine:make"]):
        done = subprocess.run(
            [sys.executable, "-m", "orchestrator.sweep", *asked, *more, "--on-end", f"true {SECRET}"],
            capture_output=True, text=True, cwd=tmp_path, env=secrets, timeout=110, check=False,
        )  # fmt: skip
        assert SECRET not in done.stdout + done.stderr
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "mine.py"]
    assert {"journal.jsonl", "sweep.json", "report.html", "leaderboard.parquet"} <= {path.name for path in written}
    ray = [path for path in Path("/tmp/ray").glob("session_2*/logs/*") if path.stat().st_mtime > begun]  # noqa: S108
    found = [path for path in [*written, *ray] if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert found == []
