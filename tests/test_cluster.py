"""Sweeps on a Ray cluster that runs already: a real head, started by `ray start`, with a token."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from conftest import Command

RAY = Path(sys.executable).with_name("ray")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def head() -> Iterator[tuple[str, Path]]:
    """The address of a two-CPU cluster, and its token's file. Sockets need a short path."""
    folder = Path(tempfile.mkdtemp(prefix="c", dir="/tmp"))
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    port = free_port()
    process = subprocess.Popen(
        [RAY, "start", "--head", "--block", f"--port={port}", "--num-cpus=2", "--include-dashboard=false",
         "--disable-usage-stats", f"--temp-dir={folder}", "--node-ip-address=127.0.0.1",
         f"--dashboard-agent-listen-port={free_port()}", "--object-store-memory=100000000"],
        env={**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        wait_until_open(port)
        yield f"127.0.0.1:{port}", token
    finally:
        children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.send_signal(signal.SIGTERM)
        psutil.wait_procs(children, timeout=10)
        for child in children:
            if child.is_running():
                child.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def wait_until_open(port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert time.monotonic() < deadline, "the cluster did not start"
            time.sleep(0.2)
        else:
            return


def test_a_sweep_attaches_and_brings_its_code(
    head: tuple[str, Path], command: Command, tmp_path: Path, environment: dict[str, str]
) -> None:
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(head[1])}
    try:
        done = command(
            "orchestrator.sweep", "digits", "--quick", "--trials", "3", "--json",
            "--results", tmp_path, "--name", "attached", "--address", head[0],
        )  # fmt: skip
    finally:
        del environment["RAY_AUTH_MODE"], environment["RAY_AUTH_TOKEN_PATH"]
    assert done.code == 0, done.err
    assert sum(done.result["trials"].values()) == 3
    assert done.result["bundle"]
    assert head[1].read_text() not in done.out + done.err + (tmp_path / "attached" / "sweep.json").read_text()


def test_an_address_where_nothing_listens_is_told(command: Command, tmp_path: Path) -> None:
    done = command("orchestrator.sweep", "digits", "--results", tmp_path, "--address", f"127.0.0.1:{free_port()}")
    assert done.code == 2
    assert "nothing answers there" in done.err
    assert "Traceback" not in done.err
