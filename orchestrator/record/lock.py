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
from dataclasses import asdict, dataclass
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
    pid: int
    started: float
    since: float

    @classmethod
    def this_process(cls) -> Holder:
        return cls(socket.gethostname(), _boot(), os.getpid(), psutil.Process().create_time(), time.time())

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
        return f"process {self.pid} on {self.host}, since {since:%Y-%m-%d %H:%M:%S} UTC"


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold the sweep in `folder` while the context lasts; a dead holder's lock is taken over.

    The kernel's lock decides where the file system has one. Elsewhere, and between machines that it does not join,
    the holder's name and its signs of life do.

    Raises:
        LockError: another command holds it.
        OSError: the file cannot be written.
    """
    path = SweepFolder(folder).lock
    with path.open("a+b") as file:
        free = _try_lock(file)
        holder = _read(path)
        if not free or (holder is not None and holder.lives(path)):
            raise LockError(
                f"{folder} is in use by {holder or 'another command'}; wait for its end, or end it. "
                f"A command on a machine that is gone counts as ended after {STALE_S:.0f} s"
            )
        file.truncate(0)
        file.write(json.dumps(asdict(Holder.this_process())).encode())
        file.flush()
        os.fsync(file.fileno())
        done = threading.Event()
        beating = threading.Thread(target=_beat, args=(file, done), daemon=True)
        beating.start()
        try:
            yield
        finally:
            done.set()
            beating.join()
            with suppress(OSError):
                file.truncate(0)


def _beat(file: BinaryIO, done: threading.Event) -> None:
    while not done.wait(BEAT_S):
        with suppress(OSError):
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
