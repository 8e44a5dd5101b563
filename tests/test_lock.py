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
from typing import Any

import pytest
from conftest import ROOT

from orchestrator.record import lock
from orchestrator.record.events import SweepEnded
from orchestrator.record.journal import Journal, read
from orchestrator.record.journal_lines import SCHEMA, encode
from orchestrator.record.lock import Holder, LockError, hold

HOLD = """
import sys, time
from pathlib import Path
from typing import Any
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
    assert json.loads((tmp_path / "sweep.lock").read_text())["pid"] == 0
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


def test_every_holder_has_a_generation_of_its_own(tmp_path: Path) -> None:
    for generation in (1, 2, 3):
        with hold(tmp_path) as lease:
            assert lease.generation == generation
            assert lease.taker() is None


SLEEPER = """
import fcntl, socket, sys
from pathlib import Path
from typing import Any

def unsupported(*args): raise OSError(95, "Operation not supported")

fcntl.flock, socket.gethostname = unsupported, lambda: "far"
from orchestrator.record import lock
from orchestrator.record.events import SweepEnded
from orchestrator.record.journal import Journal, read
from orchestrator.record.journal_lines import SCHEMA, encode
from orchestrator.record.events import SweepEnded
from orchestrator.record.journal import Journal, JournalError
lock.BEAT_S = 0.05
folder = Path(sys.argv[1])
with lock.hold(folder) as lease:
    journal = Journal(folder / "journal.jsonl", lease=lease)
    for line in sys.stdin:
        try:
            journal.append(SweepEnded(line.strip()))
            print("written", flush=True)
        except JournalError as error:
            print(error, flush=True)
    journal.close()
"""


@pytest.mark.usefixtures("no_kernel_locks")
def test_a_holder_that_slept_and_was_taken_over_writes_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "STALE_S", 0.5)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    sleeper = subprocess.Popen([sys.executable, "-c", SLEEPER, tmp_path], cwd=ROOT, **pipes)  # type: ignore[call-overload]

    def append(reason: str) -> str:
        sleeper.stdin.write(f"{reason}\n")
        sleeper.stdin.flush()
        return str(sleeper.stdout.readline().strip())

    try:
        assert append("first") == "written"
        with pytest.raises(LockError, match="on far"), hold(tmp_path):
            pass
        os.kill(sleeper.pid, signal.SIGSTOP)
        time.sleep(0.7)
        with hold(tmp_path) as lease:
            journal = Journal(tmp_path / "journal.jsonl", lease=lease)
            journal.append(SweepEnded("second"))
            os.kill(sleeper.pid, signal.SIGCONT)
            told = append("from sleep")
            assert f"was taken over by process {os.getpid()} on" in told
            assert "writes nothing more" in told
            journal.append(SweepEnded("third"))
            sleeper.stdin.close()
            assert sleeper.wait(10) == 0
            assert lease.taker() is None, "the sleeper leaves the lock alone"
            os.utime(lease.path, (1, 1))
            time.sleep(0.2)
            assert lease.path.stat().st_mtime == 1, "nor does it give signs of life any more"
            journal.close()
        events, damaged = read(tmp_path / "journal.jsonl")
        assert [event.reason for event in events if isinstance(event, SweepEnded)] == ["first", "second", "third"]
        assert not damaged
        generations = [json.loads(line)["g"] for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
        assert generations == [1, 2, 2]
    finally:
        sleeper.kill()
        sleeper.wait()
        sleeper.stdout.close()


def test_what_was_written_after_a_take_over_does_not_count(tmp_path: Path) -> None:
    """The old holder was stopped between its look at the lock and its write."""
    path = tmp_path / "journal.jsonl"
    lines: list[dict[str, Any]] = [
        {"v": SCHEMA, "g": 1, "n": n, "t": n, "event": "sweep_ended", "reason": f"old {n}"} for n in range(4)
    ]
    new = [{"v": SCHEMA, "g": 2, "n": n, "t": n, "event": "sweep_ended", "reason": f"new {n}"} for n in (2, 3, 4)]
    written = [lines[0], lines[1], new[0], lines[2], new[1], lines[3], new[2]]
    path.write_bytes(b"".join(encode(line) for line in written))
    journal = Journal(path)
    journal.close()
    events, damaged = read(path)
    assert [event.reason for event in events if isinstance(event, SweepEnded)] == [
        "old 0", "old 1", "new 2", "new 3", "new 4",
    ]  # fmt: skip
    assert not damaged
    problem = "another command had taken the sweep over when it was written"
    assert [(one.line, one.problem) for one in journal.damage] == [(4, problem), (6, problem)]
    assert (tmp_path / "journal.damaged.jsonl").read_bytes() == b"".join(encode(line) for line in lines[2:])
