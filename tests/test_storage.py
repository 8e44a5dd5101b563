"""Storage: folders and buckets behave alike, faults are OSErrors in bounded time, sweeps continue from a bucket.

The bucket belongs to a real S3 server (moto), which runs in a separate process.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from conftest import QUICK, ROOT, Command
from journals import trial, write_sweep
from ray_cluster import free_port

from orchestrator.leaderboard import __main__ as leaderboard
from orchestrator.leaderboard import boards
from orchestrator.plan.options import SweepOptions
from orchestrator.record import parquet
from orchestrator.record.journal import read as read_journal
from orchestrator.record.kept_weights import KEPT
from orchestrator.record.state import SweepState, replay
from orchestrator.validation import check
from trainables import checkpoint
from trainables.errors import ConfigError
from trainables.storage import Storage

BUCKET = "checkpoints"
AWS = {  # of no account: without any, S3 clients sign differently and look for those of a cloud's machine
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_EC2_METADATA_DISABLED": "true",
}
MB = 2**20
SOON_S = 15.0  # seconds within which a fault must be reported


@pytest.fixture(scope="module", autouse=True)
def credentials(environment: dict[str, str]) -> Iterator[None]:
    """Set them for this process and for the commands that it runs."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in AWS.items():
            patch.setenv(name, value)
            patch.setitem(environment, name, value)
        yield


def uri(port: int, path: str) -> str:
    return f"s3://{path}?scheme=http&endpoint_override=127.0.0.1:{port}&region=us-east-1"


@pytest.fixture(scope="module")
def server(credentials: None) -> Iterator[int]:
    """Run an S3 server with one bucket; yield its port."""
    from pyarrow.fs import S3FileSystem

    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 30
        while not is_open(port):
            assert time.monotonic() < deadline, "the S3 server did not start"
            assert process.poll() is None, "the S3 server has ended"
            time.sleep(0.1)
        S3FileSystem(
            scheme="http", endpoint_override=f"127.0.0.1:{port}", region="us-east-1", allow_bucket_creation=True
        ).create_dir(BUCKET)
        yield port
    finally:
        process.kill()
        process.wait()


def is_open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@pytest.fixture(params=["folder", "bucket"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """Return an empty storage for this test."""
    if request.param == "folder":
        return Storage(str(tmp_path / "storage"))
    return Storage(uri(request.getfixturevalue("server"), f"{BUCKET}/{tmp_path.name}"))


def content(storage: Storage, path: str) -> bytes:
    with storage.open(path) as file:
        return bytes(file.read())


# Folders and buckets alike


@pytest.mark.parametrize("size", [0, 1, 10 * MB], ids=["empty", "a byte", "10 MB"])
def test_what_is_written_can_be_read(storage: Storage, size: int) -> None:
    written = os.urandom(size)
    storage.write("7/a.bin", written)
    assert content(storage, "7/a.bin") == written
    assert storage.names("7") == ["a.bin"]


def test_a_file_can_be_read_in_parts(storage: Storage) -> None:
    storage.write("a", b"0123456789")
    with storage.open("a") as file:
        assert file.read(3) == b"012"
        file.seek(8)
        assert file.read() == b"89"


def test_a_file_is_replaced(storage: Storage) -> None:
    storage.write("7/a", b"a long old content")
    storage.write("7/a", b"new")
    assert content(storage, "7/a") == b"new"
    assert storage.names("7") == ["a"]


def test_names_are_those_of_one_folder(storage: Storage) -> None:
    for path in ("1/a", "1/b", "10/c", "1/deep/d", "e"):
        storage.write(path, b"x")
    assert sorted(storage.names()) == ["1", "10", "e"]
    assert sorted(storage.names("1")) == ["a", "b", "deep"]
    assert storage.names("1/deep") == ["d"]


def test_what_is_not_there(storage: Storage) -> None:
    assert storage.names() == []
    assert storage.names("7") == []
    with pytest.raises(FileNotFoundError):
        storage.open("7/a")
    storage.remove("7/a")
    storage.remove_folder("7")
    storage.write("7/a", b"x")
    storage.remove("7/b")
    storage.remove_folder("8")
    assert storage.names("7") == ["a"]


def test_files_and_folders_are_removed(storage: Storage) -> None:
    for path in ("1/a", "1/b", "1/deep/c", "10/d"):
        storage.write(path, b"x")
    storage.remove("1/a")
    assert sorted(storage.names("1")) == ["b", "deep"]
    storage.remove_folder("1")
    assert storage.names("1") == []
    assert storage.names() == ["10"]
    storage.remove("10/d")
    assert storage.names("10") == []


def test_two_places_do_not_see_each_other(storage: Storage) -> None:
    place, _, options = storage.uri.partition("?")
    other = Storage("?".join(part for part in (f"{place}-2", options) if part))
    storage.write("a", b"x")
    other.write("b", b"y")
    assert storage.names() == ["a"]
    assert other.names() == ["b"]


# Checkpoints on both


TENSORS = {"weight": torch.arange(6.0).reshape(2, 3), "steps": torch.tensor(3)}


def save(storage: Storage, attempt: int, epoch: int, loaded: checkpoint.Position | None = None) -> None:
    checkpoint.save(storage, 7, attempt, epoch, checkpoint.pack(TENSORS, {"epoch": epoch}), loaded)


def test_the_newest_state_is_kept_and_loaded(storage: Storage) -> None:
    assert checkpoint.load(storage, 7) is None
    for attempt, epoch in ((0, 2), (0, 10), (1, 3)):
        save(storage, attempt, epoch, checkpoint.Position(0, 10) if attempt else None)
        assert storage.names("7") == [f"{attempt}-{epoch}.safetensors"]
        loaded = checkpoint.load(storage, 7)
        assert loaded is not None
        torch.testing.assert_close(loaded[0], TENSORS)
        assert loaded[1] == {"epoch": epoch}
    assert checkpoint.read_values(storage, 7, "1-3.safetensors") == {"epoch": 3}
    assert checkpoint.load(storage, 8) is None


def test_a_damaged_state_is_passed_over(storage: Storage) -> None:
    save(storage, 0, 1)
    whole = checkpoint.read(storage, 7, "0-1.safetensors")
    for damaged in (b"", whole[:5], whole[:-1], b"\xff" * len(whole)):
        storage.write("7/0-2.safetensors", damaged)
        assert checkpoint.newest_first(storage, 7) == ["0-2.safetensors", "0-1.safetensors"]
        loaded = checkpoint.load(storage, 7)
        assert loaded is not None
        assert loaded[1] == {"epoch": 1}


def test_a_late_worker_does_not_remove_what_the_next_attempt_saved(storage: Storage) -> None:
    save(storage, 1, 3)
    save(storage, 0, 11)
    assert checkpoint.newest_first(storage, 7)[0] == "1-3.safetensors"


def test_states_are_written_beside_training(storage: Storage) -> None:
    saver = checkpoint.Saver(storage, 7, 0)
    saver.save(1, TENSORS, {"epoch": 1})
    saver.wait()
    saver.save_last(2, TENSORS, {"epoch": 2})
    assert saver.error is None
    assert storage.names("7") == ["0-2.safetensors"]


# Faults


@pytest.fixture
def silent() -> Iterator[int]:
    """Run a server that accepts connections and never answers; yield its port."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        yield listening.getsockname()[1]


def fault(storage: Storage) -> str:
    """Return the error of a storage that nothing can be written to, which must come soon."""
    started = time.monotonic()
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the callers check its text
        storage.write("7/a", b"x")
    assert time.monotonic() - started < SOON_S
    return str(caught.value)


def test_a_bucket_that_is_not_there(server: int) -> None:
    storage = Storage(uri(server, "no-such-bucket/path"))
    assert "no-such-bucket" in fault(storage)
    assert checkpoint.load(storage, 7) is None


def test_a_server_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainables.storage.PATIENCE_S", 0.0)
    storage = Storage(uri(free_port(), f"{BUCKET}/x"))
    assert "connect" in fault(storage).lower()
    saver = checkpoint.Saver(storage, 7, 0)
    saver.save(1, TENSORS, {})
    saver.wait()
    assert saver.error is not None


@pytest.mark.slow  # ten seconds of waiting each
@pytest.mark.parametrize(
    ("operation", "more"), [("write", [b"x"]), ("names", []), ("open", []), ("remove", []), ("remove_folder", [])]
)
def test_a_server_that_never_answers(silent: int, operation: str, more: list[bytes]) -> None:
    storage = Storage(uri(silent, f"{BUCKET}/x"))
    started = time.monotonic()
    with pytest.raises(OSError, match="Timeout"):
        getattr(storage, operation)("a", *more)
    assert time.monotonic() - started < SOON_S


def test_a_uri_that_cannot_be_opened() -> None:
    assert "cannot be opened" in fault(Storage("s3://bucket/x?colour=red"))


@pytest.mark.slow
def test_google_storage_that_cannot_be_reached() -> None:
    """Try a server that cannot be reached, as no other is available here; it must be given up soon."""
    fault(Storage("gs://bucket/x?endpoint_override=127.0.0.1:1&scheme=http"))


def test_a_folder_in_whose_place_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "file" in fault(Storage(str(tmp_path / "file")))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk_keeps_what_was_there(small_disk: Path) -> None:
    storage = Storage(str(small_disk))
    storage.write("7/a", b"old")
    with pytest.raises(OSError, match="No space left"):
        storage.write("7/a", os.urandom(2 * MB))
    assert content(storage, "7/a") == b"old"
    assert storage.names("7") == ["a"]
    storage.write("7/a", b"new")
    assert content(storage, "7/a") == b"new"


def test_a_disk_that_is_read_only(small_disk: Path, command: Command, tmp_path: Path) -> None:
    storage = Storage(str(small_disk))
    storage.write("7/a", b"old")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert "Read-only file system" in fault(storage)
    assert content(storage, "7/a") == b"old"
    with pytest.raises(OSError, match="Read-only"):
        storage.remove("7/a")
    done = command(*QUICK, tmp_path / "results", "--storage", small_disk)
    assert done.code == 2
    assert "cannot be written (Read-only file system); choose another folder" in done.err


# As an option


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("http://host/path", "allowed are a folder, s3://BUCKET/PATH and gs://BUCKET/PATH"),
        ("s3:///path", "allowed are a folder"),
        ("gs://", "allowed are a folder"),
        ("s3://key:secret@bucket/path", "credentials belong in the environment"),
        ("/proc/nothing/here", "choose another folder or free disk space"),
    ],
)
def test_values_that_cannot_be(given: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        check(SweepOptions(dataset="digits", results=tmp_path, storage=given), None)
    assert len(caught.value.problems) == 1
    assert message in caught.value.problems[0]
    assert "secret" not in caught.value.problems[0]


def test_a_bucket_that_refuses_ends_the_command_before_the_first_trial(command: Command, tmp_path: Path) -> None:
    started = time.monotonic()
    done = command(*QUICK, tmp_path, "--name", "a", "--storage", uri(free_port(), f"{BUCKET}/x"))
    assert done.code == 2
    assert "checkpoints cannot be kept in s3://" in done.err
    assert "Traceback" not in done.err
    assert time.monotonic() - started < SOON_S + 10  # Ray's start is in it


def test_a_process_that_used_a_bucket_ends(server: int, tmp_path: Path) -> None:
    code = (
        f"from trainables.storage import Storage; Storage({uri(server, BUCKET)!r}).write('exit', b'x'); print('done')"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
    assert time.monotonic() - started < 10


# Sweeps


def states(storage: Storage) -> dict[int, list[str]]:
    """Return the states that a sweep has on its storage, by trial."""
    return {int(name): names for name in storage.names() if (names := storage.names(name))}


def replayed(folder: Path) -> SweepState:
    return replay(read_journal(folder / "journal.jsonl")[0])


def place(state: SweepState) -> Storage:
    """Return the storage of a sweep's checkpoints, from its record."""
    return Storage(state.spec.plan["storage"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "bucket"])
def test_a_sweep_keeps_its_checkpoints_there(kind: str, server: int, command: Command, tmp_path: Path) -> None:
    given = str(tmp_path / "elsewhere") if kind == "folder" else uri(server, f"{BUCKET}/sweeps")
    done = command(*QUICK, tmp_path, "--name", "kept", "--trials", "8", "--storage", given)
    assert done.code == 0, done.err
    assert "cannot save" not in done.err
    folder = tmp_path / "kept"
    assert Path(done.result["bundle"]) == folder / "best"
    assert (folder / "best" / "model.safetensors").stat().st_size > 100_000
    assert not (folder / "checkpoints").exists()
    state = replayed(folder)
    completed = sorted(
        (trial for trial in state.trials.values() if trial.status == "completed" and trial.score is not None),
        key=lambda trial: (-(trial.score or 0), trial.number),
    )
    kept = states(place(state))
    assert set(kept) == {trial.number for trial in completed[:KEPT]}
    assert all(len(names) == 1 for names in kept.values())
    assert place(state).uri.startswith(given.partition("?")[0])
    assert sorted(place(state).names()) == sorted(map(str, kept))  # and no probe


LONG_EPOCHS = (  # some 10 s each: a state is due after every one
    "--trials", "1", "--cpus-per-trial", "1", "--max-epochs", "3", "--scheduler", "none",
    "--set", "model=resnet56", "batch_size=2", "precision=float32", "memory_format=contiguous",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_killed_sweep_goes_on_from_the_bucket(server: int, environment: dict[str, str], tmp_path: Path) -> None:
    folder, given = tmp_path / "killed", uri(server, f"{BUCKET}/killed")
    process = started(
        [*QUICK, str(tmp_path), "--name", "killed", "--storage", given, *LONG_EPOCHS], environment, tmp_path
    )
    children: list[psutil.Process] = []
    try:
        wait_for(lambda: (folder / "journal.jsonl").exists() and replayed(folder).begun)
        storage = place(replayed(folder))
        wait_for(lambda: states(storage))
        children = psutil.Process(process.pid).children(recursive=True)
    finally:
        process.kill()
        process.wait()
    psutil.wait_procs(children, timeout=20)
    ((attempt, saved),) = map(order, states(storage)[0])
    assert attempt == 0
    process = started(["orchestrator.sweep", "--resume", "killed", "--results", str(tmp_path)], environment, tmp_path)
    seen: set[tuple[int, int]] = set()
    try:
        while process.poll() is None:
            seen |= {order(name) for names in states(storage).values() for name in names}
            time.sleep(0.1)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, (tmp_path / "log").read_text()
    assert (0, saved) in seen
    assert min(epoch for attempt, epoch in seen if attempt == 1) > saved  # the epochs that it knew were not run again
    trial = replayed(folder).trials[0]
    assert [epoch["epoch"] for epoch in trial.epochs] == [1, 2, 3]
    assert (trial.status, trial.attempt) == ("completed", 1)
    assert (folder / "best" / "model.safetensors").exists()


def order(name: str) -> tuple[int, int]:
    attempt, epoch = name.removesuffix(".safetensors").split("-")
    return int(attempt), int(epoch)


def started(arguments: list[str], environment: dict[str, str], folder: Path) -> subprocess.Popen[bytes]:
    """Start a command in the background."""
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip


def wait_for(what: Callable[[], Any], seconds: float = 100) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


# Leaderboards of sweeps in a bucket


def test_sweeps_in_a_bucket_are_shown(server: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bucket = Storage(uri(server, f"{BUCKET}/looked-at"))
    for name, scores in (("one", [0.8, 0.9]), ("two", [0.95])):
        folder = write_sweep(tmp_path / name, trial(0, scores))
        bucket.write(f"{name}/journal.jsonl", (folder / "journal.jsonl").read_bytes())
    parquet.write(boards.find([str(tmp_path / "one")])[0][0].table, tmp_path / "lone.parquet")
    bucket.write("three/leaderboard.parquet", (tmp_path / "lone.parquet").read_bytes())
    bucket.write("four/notes.txt", b"no sweep")
    for path, expected in (
        ("one", [("one", 0.9)]),
        ("three/leaderboard.parquet", [("one", 0.9)]),
        ("", [("two", 0.95), (uri(server, f"{BUCKET}/looked-at/one"), 0.9)]),
    ):
        place = uri(server, f"{BUCKET}/looked-at/{path}".rstrip("/"))
        assert leaderboard.main([place, "--json"]) == 0
        printed = capsys.readouterr()
        found = json.loads(printed.out)
        names = [row.get("sweep", found["sweeps"][0]["sweep"]) for row in found["trials"]]
        assert [*zip(names, (row["score"] for row in found["trials"]), strict=True)][: len(expected)] == expected
        assert ("four" in printed.err) == (path == "")
    for nothing, message in (
        (f"{BUCKET}/nothing", "is not a sweep's folder: it has neither"),
        ("no-such-bucket/x", "is not a sweep's folder: it has neither"),
        (f"{BUCKET}/x.parquet", "cannot be read"),
    ):
        assert leaderboard.main([uri(server, nothing)]) == 2
        assert message in capsys.readouterr().err
