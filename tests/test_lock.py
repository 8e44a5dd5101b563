"""One command at a time works on a sweep; a dead one does not stand in the way."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from conftest import ROOT

from orchestrator.record import lock
from orchestrator.record.lock import Holder, LockError, hold

HOLD = """
import sys, time
from pathlib import Path
from orchestrator.record.lock import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def held_elsewhere(folder: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, folder], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_a_second_command_is_refused_by_name(tmp_path: Path) -> None:
    other = held_elsewhere(tmp_path)
    try:
        with pytest.raises(LockError, match=f"in use by process {other.pid} on .*, since 20"), hold(tmp_path):
            pass
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
        with hold(tmp_path):  # the dead one's is taken over
            assert json.loads((tmp_path / "sweep.lock").read_text())["pid"] == os.getpid()
    finally:
        other.kill()
        other.communicate()


def test_a_lock_is_let_go(tmp_path: Path) -> None:
    for _ in range(2):
        with hold(tmp_path):
            pass
    with pytest.raises(ZeroDivisionError), hold(tmp_path):
        raise ZeroDivisionError
    with hold(tmp_path):
        pass


@pytest.fixture
def no_kernel_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on some network file systems."""

    def unsupported(*args: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)


def written(folder: Path, holder: Holder, age_s: float = 0.0) -> None:
    path = folder / "sweep.lock"
    path.write_text(json.dumps(asdict(holder)))
    os.utime(path, (time.time() - age_s,) * 2)


@pytest.mark.usefixtures("no_kernel_locks")
def test_without_kernel_locks_the_holder_is_looked_for(tmp_path: Path) -> None:
    me = Holder.this_process()
    written(tmp_path, me)
    with pytest.raises(LockError), hold(tmp_path):
        pass
    written(tmp_path, replace(me, started=me.started - 100))  # its number belongs to another process by now
    with hold(tmp_path):
        pass


@pytest.mark.usefixtures("no_kernel_locks")
def test_a_holder_on_another_machine_lives_by_its_signs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    far = replace(Holder.this_process(), host="far", boot="another")
    written(tmp_path, far, age_s=lock.STALE_S - 10)
    with pytest.raises(LockError, match="on far"), hold(tmp_path):
        pass
    written(tmp_path, far, age_s=lock.STALE_S + 10)
    monkeypatch.setattr(lock, "BEAT_S", 0.01)
    with hold(tmp_path):
        path = tmp_path / "sweep.lock"
        os.utime(path, (1, 1))
        deadline = time.monotonic() + 10
        while path.stat().st_mtime < 2:
            assert time.monotonic() < deadline, "no sign of life"
            time.sleep(0.01)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": "far"}', "\x00"])
def test_a_torn_lock_is_nobodys(content: str, tmp_path: Path) -> None:
    (tmp_path / "sweep.lock").write_text(content)
    with hold(tmp_path):
        pass
