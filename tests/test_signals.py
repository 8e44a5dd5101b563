"""Ctrl-C and SIGTERM at unlucky moments: the command ends with its code, frees what it took, and can be resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT

from orchestrator.cluster import signals
from trainables.command_line import INTERRUPTED

LATE = """
import os, signal, sys
from orchestrator import conclusion, sweep
from orchestrator.record.events import TrialEnded
from trainables.command_line import leave

before = conclusion.Ahead.observe

def observe(self, event):
    before(self, event)
    if isinstance(event, TrialEnded) and conclusion.is_run(self.context.state, self.context.plan):
        os.kill(os.getpid(), signal.SIGINT)

def tables(*arguments):
    os.kill(os.getpid(), signal.SIGTERM)

if sys.argv[2] == "last end":
    conclusion.Ahead.observe = observe
else:
    conclusion._write_tables = tables
short = ["--quick", "--trials", "2", "--max-epochs", "1", "--no-refit", "--quiet"]
leave(sweep.main(["digits", *short, "--results", sys.argv[1], "--name", "late"]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["last end", "tables"])
def test_a_late_signal_ends_the_command_as_any_other(moment: str, environment: dict[str, str], tmp_path: Path) -> None:
    """At the last end the test set would be opened, for which Tune's groups left no CPU; Ray's end takes handlers."""
    done = subprocess.run(
        [sys.executable, "-c", LATE, tmp_path, moment],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == INTERRUPTED, done.stderr
    journal = (tmp_path / "late" / "journal.jsonl").read_text()
    assert ("test_opened" in journal) == (moment == "tables")
    again = subprocess.run(
        [sys.executable, "-m", "orchestrator.sweep", "--resume", "late", "--results", tmp_path, "--quiet"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "late" / "report.html").exists()


GUEST = """
import os, signal, sys, threading, time
import ray
from orchestrator import conclusion, sweep
from orchestrator.record.events import TrialEnded

ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
before, signalled = conclusion.Ahead.observe, []

def observe(self, event):
    before(self, event)
    if isinstance(event, TrialEnded) and not signalled:
        signalled.append(1)
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()

conclusion.Ahead.observe = observe
found = sweep.run(sweep.SweepOptions("digits", quick=True, quiet=True, confirm=0, results=sys.argv[1], name="guest"))
assert found.ended == "signal", found.ended
until = time.monotonic() + 15
while ray.available_resources().get("CPU") != 2 and time.monotonic() < until:
    time.sleep(0.1)
assert ray.available_resources().get("CPU") == 2, ray.available_resources()
found = sweep.run(sweep.SweepOptions(resume="guest", quiet=True, results=sys.argv[1]))
assert found.ended == "finished", found.ended
"""


@pytest.mark.slow
def test_a_sweep_that_a_program_interrupts_gives_its_cpus_back(environment: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", GUEST, tmp_path],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=110,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_terminated_command_is_interrupted_wherever_it_is() -> None:
    script = """
import os, signal
from orchestrator import sweep

def run(options):
    os.kill(os.getpid(), signal.SIGTERM)

sweep.run = run
raise SystemExit(sweep.main(["digits"]))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (INTERRUPTED, "")


def test_a_handler_is_set_again() -> None:
    with signals.owned():
        signals.again()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)


def test_what_takes_too_long_is_not_waited_for() -> None:
    started = time.monotonic()
    signals.in_time(lambda: time.sleep(5), 0.1)
    signals.in_time(lambda: 1 / 0, 5)
    assert time.monotonic() - started < 2
