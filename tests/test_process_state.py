"""What a sweep changes in the state of its process is put back when it has ended."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from conftest import ROOT

from orchestrator.cluster.signals import Interruption
from trainables.command_line import INTERRUPTED

SCRIPT = """
import logging, os, signal, sys
from pathlib import Path
from orchestrator import sweep
from orchestrator.cluster import connection

LOGGERS = ("ray", "ray.tune", "optuna")

def state():
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    return dict(os.environ), handlers, os.getcwd(), [logging.getLogger(name).level for name in LOGGERS]

environment, handlers, folder, _ = state()
with connection.connect("local"):
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert dict(os.environ) != environment
assert state()[:3] == (environment, handlers, folder)

from ray.air.execution import PlacementGroupResourceManager
from ray.tune import registry
from ray.tune.execution import tune_controller
import optuna, sklearn  # whose import sets variables for good

for name in LOGGERS:
    logging.getLogger(name).setLevel(13)
before, finalizer, patched = state(), PlacementGroupResourceManager.__del__, dict(vars(registry._global_registry))
options = sweep.SweepOptions("digits", quick=True, trials=1, confirm=0, quiet=True, results=Path(sys.argv[1]))
assert sweep.run(options).ended == "finished"
assert state() == before
assert PlacementGroupResourceManager.__del__ is finalizer
assert tune_controller.PlacementGroupResourceManager is PlacementGroupResourceManager
assert {name for name in vars(registry._global_registry)} == set(patched)
"""


@pytest.mark.slow
def test_a_sweep_leaves_its_process_as_it_was(environment: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path],
        capture_output=True, text=True, cwd=ROOT, env=environment, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


GUEST = """
import os, signal, sys, threading
from pathlib import Path
import ray
from orchestrator import sweep

ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")

@ray.remote(num_cpus=0)
class Counter:
    def __init__(self): self.count = 0
    def add(self): self.count += 1; return self.count

counter = Counter.remote()
assert ray.get(counter.add.remote()) == 1
ended, before = [], (signal.getsignal(signal.SIGINT), dict(os.environ))
options = sweep.SweepOptions("digits", quick=True, trials=2, confirm=0, quiet=True, results=Path(sys.argv[1]))
thread = threading.Thread(target=lambda: ended.append(sweep.run(options).ended))
thread.start()
thread.join()
assert ended == ["finished"]
assert ray.is_initialized()
assert ray.get(counter.add.remote()) == 2, "its actors live"
assert (signal.getsignal(signal.SIGINT), dict(os.environ)) == before
try:
    sweep.run(sweep.SweepOptions("digits", quick=True, address="10.0.0.1:6379", quiet=True, results=Path(sys.argv[1])))
except sweep.ConfigError as error:
    assert "connected to Ray already" in str(error)
else:
    raise AssertionError("two connections at a time")
assert ray.get(counter.add.remote()) == 3
ray.shutdown()
"""


@pytest.mark.slow
def test_a_program_that_uses_ray_may_run_a_sweep_in_a_thread(environment: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", GUEST, tmp_path],
        capture_output=True, text=True, cwd=ROOT, env=environment, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_second_signal_raises_unless_the_process_belongs_to_the_command() -> None:
    interruption = Interruption()
    with interruption.handled(lambda: False):
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    script = """
import os, signal
from orchestrator.cluster.signals import Interruption, owned
with owned(), Interruption().handled(lambda: True):
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)
    raise AssertionError
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, timeout=60, check=False)
    assert done.returncode == INTERRUPTED


def test_signals_are_left_to_the_main_thread() -> None:
    found, before = [], signal.getsignal(signal.SIGINT)

    def look() -> None:
        with Interruption().handled(lambda: False):
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [before]


def test_no_other_module_changes_the_process() -> None:
    changes = re.compile(
        r"os\.environ(\[[^\]]*\] =|\.setdefault| \|=|\.update|\.pop)|putenv|signal\.signal\(|\.setLevel\(|set_verbosity"
    )
    found = [
        path.relative_to(ROOT / "orchestrator").as_posix()
        for path in sorted((ROOT / "orchestrator").rglob("*.py"))
        if changes.search(path.read_text())
    ]
    assert found == ["cluster/process_state.py", "cluster/signals.py"]


def test_a_signal_is_noted_and_interrupts_only_what_may_be_left() -> None:
    before, busy, interruption = signal.getsignal(signal.SIGTERM), True, Interruption()
    with interruption.handled(lambda: busy), interruption.raised():
        os.kill(os.getpid(), signal.SIGTERM)
        assert interruption.received
    assert signal.getsignal(signal.SIGTERM) is before
    interruption, busy = Interruption(), False
    with interruption.handled(lambda: busy):
        with pytest.raises(KeyboardInterrupt), interruption.raised():
            os.kill(os.getpid(), signal.SIGINT)
        interruption.received = False
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.received
