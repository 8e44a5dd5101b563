"""Disks that fill up, become read-only or are taken away while a sweep runs. Mounting needs root, or a namespace."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import Command as Run

from chaos.conftest import Report, SweepMaker
from chaos.sweeps import Sweep, check, check_kept, check_plain, check_tables, wait_for
from orchestrator.bundle import bundle

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]

PLAN = ("--trials", "4", "--max-epochs", "3", "--scheduler", "none")
DISK_MB = 16


def mount(*arguments: str | Path) -> None:
    done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount here ({done.stderr.strip()}); as root, or under `unshare -Urm`, it may be possible")


@contextmanager
def mounted(folder: Path, *arguments: str | Path) -> Iterator[Path]:
    """Mount something on `folder`."""
    folder.mkdir(exist_ok=True)
    mount(*arguments, folder)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a small disk."""
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs") as folder:
        yield folder


def fill(disk: Path, leave: int) -> Path:
    """Fill the disk up to `leave` bytes, and return the file that does."""
    filler = disk / "filler"
    with filler.open("ab") as file:
        for _ in range(20):  # somebody else may take some at the same time
            with suppress(OSError):
                status = os.statvfs(disk)
                free = status.f_bavail * status.f_frsize + filler.stat().st_size
                os.posix_fallocate(file.fileno(), 0, free - leave)
                return filler
    raise AssertionError("the disk could not be filled")


def one_message(err: str) -> str:
    """Return the one error that the command printed."""
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, err
    return lines[0]


def test_a_disk_that_fills_up_under_the_journal(sweeps: SweepMaker, disk: Path, report: Report) -> None:
    sweep = sweeps(results=disk / "results", epoch_s={"*": 0.5})
    check_plain(sweep.start(*PLAN).wait(), 0)
    old = {name: pq.read_table(sweep.folder / f"{name}.parquet") for name in ("leaderboard", "history")}
    running = sweep.resume("--trials", "8")
    wait_for(lambda: sweep.count("trial_ended") >= 5, running)
    while running.runs:  # checkpoints that the sweep removes free space
        filler = fill(disk, 0)
        time.sleep(0.02)
    done = running.wait(60)
    check_plain(done, 1)
    assert "free disk space, then go on with --resume" in one_message(done.err)
    running.wait_until_gone()
    for name, table in old.items():
        assert pq.read_table(sweep.folder / f"{name}.parquet").num_rows >= table.num_rows
    before = sweep.state()
    again = sweep.resume().wait(60)
    check_plain(again, 1)
    assert "free disk space" in one_message(again.err)
    filler.unlink()
    check_plain(sweep.resume("--trials", "8").wait(), 0)
    after = check(sweep, 8)
    check_kept(before, after)
    assert bundle.is_complete(sweep.folder / "best")
    report(
        "disk full while the journal is written", 1, exit_code=done.code, old_tables="readable", finished_trials_lost=0
    )


@pytest.mark.usefixtures("long")
def test_a_disk_that_fills_up_under_checkpoints(sweeps: SweepMaker, disk: Path, report: Report) -> None:
    """There is space for the journal and the tables, and none for weights."""
    sweep = sweeps(results=disk / "results", epoch_s={"*": 0.5})
    running = sweep.start(*PLAN, "--slots", "1", "--cpus-per-trial", "1")
    wait_for(lambda: sweep.count("trial_epoch") >= 1, running)
    filler = fill(disk, 250_000)
    done = running.wait()
    check_plain(done, 1)
    assert "still owed: best/" in one_message(done.err)
    assert "free disk space, then go on with --resume" in one_message(done.err)
    assert "cannot save its state" in done.err
    assert "No space left" in done.err
    before = check(sweep, 4)
    filler.unlink()
    check_plain(sweep.resume("--trials", "6").wait(), 0)
    check_kept(before, check(sweep, 6))
    assert bundle.is_complete(sweep.folder / "best")
    report("disk full for checkpoints alone", 1, exit_code=done.code, trials_finished=4, finished_trials_lost=0)


@pytest.mark.usefixtures("long")
def test_a_disk_that_is_full_when_the_results_are_written(sweeps: SweepMaker, disk: Path, report: Report) -> None:
    """First there is no space for the best model, then none for the tables either."""
    sweep = sweeps(results=disk / "results", epoch_s={"*": 0.5})
    running = sweep.start(*PLAN)
    wait_for(lambda: sweep.count("trial_ended") >= 4, running, pause=0.001)
    filler = fill(disk, 200_000)
    done = running.wait(60)
    check_plain(done, 1)
    assert "free disk space, then go on with --resume" in one_message(done.err)
    assert pq.read_table(sweep.folder / "leaderboard.parquet").num_rows == 4
    before = sweep.state()
    assert before.finished == 4
    filler.unlink()
    check_plain(sweep.resume().wait(60), 0)
    assert bundle.is_complete(sweep.folder / "best")
    check_kept(before, check(sweep, 4))

    shutil.rmtree(sweep.folder / "best")  # as if the first command had been killed before it wrote them
    (sweep.folder / "final.json").unlink()
    table = pq.read_table(sweep.folder / "leaderboard.parquet")
    filler = fill(disk, 8192)
    done = sweep.resume().wait(60)
    check_plain(done, 1)
    assert "free disk space, then go on with --resume" in one_message(done.err)
    assert pq.read_table(sweep.folder / "leaderboard.parquet").equals(table)
    filler.unlink()
    check_plain(sweep.resume().wait(60), 0)
    check_tables(sweep.folder, before)
    assert bundle.is_complete(sweep.folder / "best")
    assert not list(sweep.folder.rglob(".*")), "a file that was not finished was left"
    report("disk full while model or tables are written", 2, exit_code=1, old_tables="readable", finished_trials_lost=0)


@pytest.mark.usefixtures("long")
def test_results_that_are_read_only_from_the_start(
    sweeps: SweepMaker, command: Run, tmp_path: Path, report: Report
) -> None:
    sweep = sweeps()
    check_plain(sweep.start(*PLAN).wait(), 0)
    results = sweep.folder.parent
    with mounted(tmp_path / "fixed", "--bind", "-o", "ro", results) as fixed:
        try:
            (fixed / "probe").touch()
        except OSError:
            pass
        else:
            pytest.skip("a read-only bind mount takes writes here")
        for arguments in (("digits", "--name", "new"), ("--resume", "sweep"), ("--resume", "sweep", "--trials", "9")):
            done = command("orchestrator.sweep", *arguments, "--results", fixed)
            check_plain(done, 1, 2)
            assert "Read-only file system" in one_message(done.err)
        check_plain(command("orchestrator.leaderboard", fixed / "sweep"), 0)
    check(sweep, 4)
    report("results read-only from the start: a new sweep, two resumptions", 3, exit_code=done.code, tracebacks=0)


@pytest.mark.usefixtures("long")
def test_results_that_become_read_only(sweeps: SweepMaker, report: Report) -> None:
    """Files and folders become immutable (`chattr +i`), for root as well."""
    sweep = sweeps(epoch_s={"*": 0.5})
    running = sweep.start(*PLAN)
    wait_for(lambda: sweep.count("trial_ended") >= 1, running)
    try:
        fixed = subprocess.run(["chattr", "-R", "+i", sweep.folder], capture_output=True, text=True, check=False)
        if fixed.returncode:
            pytest.skip(f"files cannot be made immutable here: {fixed.stderr.strip()}")
        done = running.wait(60)
        running.wait_until_gone()
        again = sweep.resume().wait(60)
    finally:
        subprocess.run(["chattr", "-R", "-i", sweep.folder], check=False, capture_output=True)
    check_plain(done, 1)
    assert "--resume" in one_message(done.err)
    check_plain(again, 1, 2)
    one_message(again.err)
    before = sweep.state()
    check_plain(sweep.resume().wait(), 0)
    check_kept(before, check(sweep, 4))
    report("results made immutable in mid-run", 1, exit_code=done.code, finished_trials_lost=0)


@pytest.mark.usefixtures("long")
def test_results_that_are_deleted(sweeps: SweepMaker, report: Report) -> None:
    for i, all_results in enumerate((False, True)):
        sweep = sweeps(str(i), epoch_s={"*": 0.5})
        running = sweep.start(*PLAN)
        wait_for(lambda: sweep.count("trial_ended") >= 1, running)  # noqa: B023
        delete(sweep, all_results)
        done = running.wait(60)
        check_plain(done, 1, 2)
        assert "deleted" in one_message(done.err)
        running.wait_until_gone()
    report("results deleted in mid-run", i + 1, exit_code=done.code, tracebacks=0)


def delete(sweep: Sweep, all_results: bool) -> None:
    """Delete the sweep's folder, or all results; workers may write there meanwhile."""
    folder = sweep.folder.parent if all_results else sweep.folder
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
    raise AssertionError("the folder could not be deleted")
