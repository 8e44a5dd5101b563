"""The lock of a sweep: one command works on it at a time, named in `sweep.lock` in the sweep's folder."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import BinaryIO

import psutil

from orchestrator.record.paths import SweepFolder

BEAT_S = 5.0  # between two signs of life
STALE_S = 30.0  # without one, a holder on another machine is taken for dead


class LockError(RuntimeError):
    """Another command works on the sweep; the message names it."""


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock. Times are seconds since 1970."""

    host: str
    boot: str  # tells one start of a machine from the next
    pid: int  # 0 once it has let go
    started: float
    since: float
    generation: int = 1  # above that of all holders before

    @classmethod
    def this_process(cls, generation: int = 1) -> Holder:
        started = psutil.Process().create_time()
        return cls(socket.gethostname(), _boot(), os.getpid(), started, time.time(), generation)

    def lives(self, path: Path) -> bool:
        """Return whether the process still runs: this machine knows, of another one the age of its last sign of life
        tells.
        """
        if (self.host, self.boot) != (socket.gethostname(), _boot()):
            return _seconds_since(path) < STALE_S
        try:
            process = psutil.Process(self.pid)
            alive = process.status() != psutil.STATUS_ZOMBIE
            return bool(alive and abs(process.create_time() - self.started) < 1)
        except psutil.NoSuchProcess:
            return False

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.since, UTC)
        if not self.pid:
            return f"a process on {self.host} that has ended, of {since:%Y-%m-%d %H:%M:%S} UTC"
        return f"process {self.pid} on {self.host}, since {since:%Y-%m-%d %H:%M:%S} UTC"


@dataclass(frozen=True)
class Lease:
    """The hold of this process on a sweep. It may lose it: a process that sleeps for a while counts as dead."""

    path: Path  # of the lock
    holder: Holder

    @property
    def generation(self) -> int:
        """The number of this holder among all that the sweep has had, from 1."""
        return self.holder.generation

    def taker(self) -> Holder | None:
        """Return the process that has taken the sweep over; None while it is this one's."""
        found = _read(self.path)
        return found if found is not None and found != self.holder else None


@contextmanager
def hold(folder: Path) -> Iterator[Lease]:
    """Hold the sweep in `folder` while the context lasts; a dead holder's lock is taken over.

    The kernel's lock decides where the file system has one. Elsewhere, and between machines that it does not join,
    the holder's name and its signs of life do. A holder that was taken over gives no more signs, and leaves the lock
    to the other one.

    Raises:
        LockError: another command holds it.
        OSError: the file cannot be written.
    """
    path = SweepFolder(folder).lock
    with path.open("a+b") as file:
        free = _try_lock(file)
        holder = _read(path)
        if not free or (holder is not None and holder.pid and holder.lives(path)):
            raise LockError(
                f"{folder} is in use by {holder or 'another command'}; wait for its end, or end it. "
                f"A command on a machine that is gone counts as ended after {STALE_S:.0f} s"
            )
        lease = Lease(path, Holder.this_process(1 if holder is None else holder.generation + 1))
        _write(file, lease.holder)
        done = threading.Event()
        beating = threading.Thread(target=_beat, args=(file, lease, done), daemon=True)
        beating.start()
        try:
            yield lease
        finally:
            done.set()
            beating.join()
            with suppress(OSError):
                if lease.taker() is None:
                    _write(file, replace(lease.holder, pid=0))


def _write(file: BinaryIO, holder: Holder) -> None:
    file.truncate(0)
    file.write(json.dumps(asdict(holder)).encode())
    file.flush()
    os.fsync(file.fileno())


def _beat(file: BinaryIO, lease: Lease, done: threading.Event) -> None:
    while not done.wait(BEAT_S):
        with suppress(OSError):
            if lease.taker() is None:
                os.utime(file.fileno())


def _try_lock(file: BinaryIO) -> bool:
    """Return whether nobody else has the kernel's lock on the file; it is held until the file is closed."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _read(path: Path) -> Holder | None:
    try:
        return Holder(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None  # nobody's, or torn by a crash


def _seconds_since(path: Path) -> float:
    """Return how long ago the file was touched, by the file system's clock, which may differ from this machine's."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".clock-") as now:
        return Path(now.name).stat().st_mtime - path.stat().st_mtime


@cache
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return str(int(psutil.boot_time()))
