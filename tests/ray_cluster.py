"""Ray clusters as a user starts them: a head and nodes, each a tree of real processes made by `ray start`.

All run on this host, so they share a hostname: nodes are told apart by Ray's node id.
"""

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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

START_S = 60  # for `ray start`, on a machine that is busy
END_S = 10
RAY = (sys.executable, "-m", "ray.scripts.scripts", "start", "--block")
ANYWHERE = (  # any free ports, so that clusters and nodes can stand side by side on one host
    "--min-worker-port=0",
    "--max-worker-port=0",
    "--dashboard-agent-listen-port=0",
    "--include-log-monitor=false",
    "--object-store-memory=100000000",
)
QUICK_TO_NOTICE = {  # a dead node: after 0.7 s instead of 4
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "2",
}


@dataclass
class Node:
    """One `ray start --block` and all processes that it started."""

    process: subprocess.Popen[bytes]
    node_id: str
    _seen: set[psutil.Process] = field(default_factory=set)

    def processes(self) -> set[psutil.Process]:
        """Return those that run now. They are remembered: without their raylet nothing leads to them any more."""
        if self.process.poll() is None:
            self._seen.add(psutil.Process(self.process.pid))
        for process in tuple(self._seen):
            with suppress(psutil.NoSuchProcess):
                self._seen |= set(process.children(recursive=True))
        return {process for process in self._seen if _lives(process)}

    @property
    def raylet(self) -> psutil.Process:
        return next(process for process in self.processes() if process.name() == "raylet")

    def kill_raylet(self) -> None:
        """Kill Ray on the node, as when a node is lost; its workers end when they notice."""
        self.raylet.kill()

    def kill(self) -> None:
        """Kill all processes at once, as when a machine is switched off."""
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End the node in good order, and what remains of it by force."""
        processes = self.processes()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        _, remaining = psutil.wait_procs(processes, timeout=END_S)
        for process in remaining:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(remaining, timeout=END_S)
        self.process.wait(END_S)


@dataclass
class Cluster:
    """A head and the nodes that were added."""

    address: str
    folder: Path
    token: Path | None
    environment: dict[str, str]
    """Variables that a command needs to attach: RAY_AUTH_MODE and the token's file."""
    nodes: list[Node] = field(default_factory=list)

    @property
    def head(self) -> Node:
        return self.nodes[0]

    def add_node(
        self, cpus: int = 1, *arguments: str, ray: Sequence[str] = RAY, environment: Mapping[str, str] | None = None
    ) -> Node:
        """Start a further node.

        Args:
            arguments: more arguments of `ray start`.
            ray: the command, if the node runs from another Python or in a namespace of its own.
            environment: variables beside those that all nodes have.
        """
        return self._start(
            [*ray, f"--address={self.address}", f"--num-cpus={cpus}", *ANYWHERE, *arguments], environment
        )

    def _start(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> Node:
        log = self.folder / f"{len(self.nodes)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                env=without_ray() | QUICK_TO_NOTICE | self.environment | dict(environment or {}),
                cwd=self.folder,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        node = Node(process, "")
        self.nodes.append(node)
        deadline = time.monotonic() + START_S
        while "Ray runtime started" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, f"`ray start` took over {START_S} s: {log.read_text()}"
            time.sleep(0.1)
        node.node_id = next(a for a in node.raylet.cmdline() if a.startswith("--node_id=")).partition("=")[2]
        return node


@contextmanager
def ray_cluster(
    cpus: int = 2,
    *arguments: str,
    token: bool = True,
    environment: Mapping[str, str] | None = None,
    port: int | None = None,
) -> Iterator[Cluster]:
    """Start a head with `cpus` CPUs on a free port or the given one, locked by a token or not.

    All processes are ended afterwards.

    Args:
        arguments: more arguments of `ray start --head`.
        environment: variables of the head beside the usual.
    """
    folder = Path(tempfile.mkdtemp(prefix="c", dir="/tmp"))  # a short path: those of sockets have 107 bytes
    file = folder / "token"
    if token:
        file.touch(mode=0o600)
        file.write_text(secrets.token_hex(32))
    locked = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(file)} if token else {"RAY_AUTH_MODE": "disabled"}
    port = port or free_port()
    cluster = Cluster(f"127.0.0.1:{port}", folder, file if token else None, locked)
    dashboard = [] if any(a.startswith("--include-dashboard") for a in arguments) else ["--include-dashboard=false"]
    try:
        cluster._start(
            [*RAY, "--head", f"--port={port}", f"--num-cpus={cpus}", "--node-ip-address=127.0.0.1",
             f"--temp-dir={folder}/ray", *dashboard, *ANYWHERE, *arguments],
            environment,
        )  # fmt: skip
        yield cluster
    finally:
        for node in reversed(cluster.nodes):
            node.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def without_ray() -> dict[str, str]:
    """Return this process's environment without Ray's variables."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
