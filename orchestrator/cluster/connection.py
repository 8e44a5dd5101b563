"""Start a Ray on this machine or attach to a running cluster; find its nodes and call functions on them.

Ray reads its environment when it is imported, so it is imported here only after that is set.
"""

from __future__ import annotations

import atexit
import importlib
import logging
import math
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, chdir, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orchestrator
import search_spaces
import trainables
from orchestrator.cluster import process_state
from orchestrator.cluster.address import find
from orchestrator.cluster.machine import Node, Resources, local
from trainables import devices, memory
from trainables.errors import ConfigError
from trainables.storage import PATIENCE_S, StorageError

if TYPE_CHECKING:
    import ray


LONGEST_TEMP = 40  # characters; Ray's part of a socket's path needs the rest
GPU_KIND = "accelerator_type:"  # begins the resource by which Ray names the kind of a node's GPUs
NODE_S = 30.0  # for nodes to answer

log = logging.getLogger(__name__)


@contextmanager
def connect(address: str, report: Callable[[str], object] = log.warning, code: Iterable[Path] = ()) -> Iterator[None]:
    """Start Ray on this machine, or attach to the cluster at `address`, for as long as the context lasts.

    Arguments and exceptions are those of `connecting`.
    """
    with connecting(address, report, code) as connection:
        if connection is not None:
            connection.wait()
        yield


@dataclass(frozen=True)
class Connection:
    """Ray, which takes seconds to start and one to end: the caller may do something else meanwhile."""

    threads: Executor
    begun: list[Future[Any]]

    def wait(self) -> None:
        """Wait until Ray can be used.

        Raises:
            ConfigError: it cannot start here.
        """
        for future in self.begun:
            future.result()

    def end(self) -> None:
        """Begin to end Ray, which nothing needs any more."""
        import ray

        wait(self.begun)
        self.begun.append(self.threads.submit(ray.shutdown))


@contextmanager
def connecting(
    address: str,
    report: Callable[[str], object] = log.warning,
    code: Iterable[Path] = (),
    step: Callable[[str], AbstractContextManager[object]] = nullcontext,
) -> Iterator[Connection | None]:
    """Begin to start Ray on this machine, or attach to the cluster at `address`, for as long as the context lasts.

    In a program that uses Ray already its connection serves, and stays: None is yielded.

    Args:
        report: takes what a user should know of the cluster before anything is sent there. Default: the log.
        code: folders and files of modules that other nodes will need besides this project.
        step: notes how long a step takes that runs beside the caller, as a context with its name.

    Raises:
        ConfigError: this machine cannot attach to `address`.
    """
    if is_guest():
        if address not in ("local", "auto"):
            raise ConfigError(
                f"--address {address}: this program is connected to Ray already, and has one connection at a time: "
                "leave the address out to use that one, or call ray.shutdown() before"
            )
        with process_state.environment_for_ray({}):
            yield None
        return
    variables: dict[str, str] = {}
    if address != "local":
        found = find(address)
        variables["RAY_AUTH_MODE"] = "token" if found.locked else "disabled"
        if address == "auto":
            report(f"attaching to the Ray cluster at {found.address}")
        if found.warning:
            report(found.warning)
        address = found.address
    else:
        variables |= _of_this_machine()
    if len(tempfile.gettempdir()) > LONGEST_TEMP:
        variables["RAY_TMPDIR"] = str(session_folder())
    folder = tempfile.mkdtemp(prefix="sweep-ray-")
    with process_state.environment_for_ray(variables):
        importlib.import_module("ray")  # it reads its environment now
        with process_state.changes_by_ray_undone(), ThreadPoolExecutor(2) as threads:
            connection = Connection(threads, [threads.submit(importlib.import_module, "ray.tune")])
            try:
                if address == "local":
                    connection.begun.append(threads.submit(_start, step))
                else:
                    _attach(address, folder, code)
                yield connection
            finally:
                connection.end()
                wait(connection.begun)
                shutil.rmtree(folder, ignore_errors=True)


def _of_this_machine() -> dict[str, str]:
    """Return the variables with which a Ray starts here: its token, and the GPUs that it may give out."""
    variables: dict[str, str] = {}
    if "ray" not in sys.modules or _new_token.cache_info().currsize:
        # Ray reads the token once a process; unless it is given one it makes one, in the user's home.
        variables |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(_new_token())}
    if usable := devices.usable():  # Ray would give out the first ones that NVML counts
        variables[devices.VISIBLE] = ",".join(gpu.id for gpu in usable)
        variables[memory.ALLOCATOR] = os.environ.get(memory.ALLOCATOR, memory.GROWING)  # workers import torch early
    return variables


def is_guest() -> bool:
    """Return whether this program has connected to Ray before, so that this project is a guest in it."""
    return "ray" in sys.modules and bool(sys.modules["ray"].is_initialized())


def session_folder() -> Path:
    """Return the folder where a Ray that is started here puts its logs and sockets."""
    usual = tempfile.gettempdir()
    short = usual if len(usual) <= LONGEST_TEMP else "/tmp"  # noqa: S108 - the path of a socket holds 107 bytes
    return Path(os.environ.get("RAY_TMPDIR") or short)


def nodes() -> list[Node]:
    """Return the machines that the connected cluster has now."""
    import ray

    return [_node(described) for described in ray.nodes() if described["Alive"]]


def _node(described: dict[str, Any]) -> Node:
    has = described["Resources"]
    kind = next((name.removeprefix(GPU_KIND) for name in has if name.startswith(GPU_KIND)), None)
    resources = Resources(int(has.get("CPU", 0)), int(has.get("GPU", 0)), kind=kind, memory=has.get("memory", math.inf))
    return Node(described["NodeID"], described["NodeName"], resources, has.get("object_store_memory", 0))


def on_node(node_id: str, function: Callable[..., Any], *arguments: Any) -> ray.ObjectRef:
    """Start `function` on one node of the connected cluster, in a new process; return a reference to its result."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    remote = ray.remote(num_cpus=0, max_retries=0)(function)
    return remote.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False)).remote(*arguments)


def ask_node(node_id: str | None, function: Callable[..., Any], *arguments: Any) -> Any:
    """Return the result of `function`, run on one node of the cluster; None if there is no such node, or no longer.

    Raises:
        StorageError: the function raised it, or the node did not answer: what was asked for may be there.
    """
    import ray

    if node_id not in {node.id for node in nodes()}:
        return None
    try:
        return ray.get(on_node(str(node_id), function, *arguments), timeout=NODE_S + PATIENCE_S)
    except StorageError:
        raise
    except ray.exceptions.GetTimeoutError as error:
        raise StorageError(f"node {node_id} did not answer in {NODE_S + PATIENCE_S:.0f} s") from error
    except ray.exceptions.TaskUnschedulableError:  # it has gone
        return None
    except ray.exceptions.RayError as error:
        raise StorageError(f"node {node_id} does not answer: {str(error).splitlines()[0]}") from error


def _start(step: Callable[[str], AbstractContextManager[object]]) -> None:
    """Start a Ray on this machine, and note that as a step."""
    import ray

    here = local()
    try:
        with step("start Ray"), process_state.command_line_unpublished(), process_state.ray_lean():
            ray.init(
                address="local",
                num_cpus=here.cpus,
                num_gpus=here.gpus,
                _memory=int(here.memory),  # as it was planned with, not what is free by chance
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(f"Ray cannot start on this machine: {error}") from error


def _attach(address: str, empty: str, code: Iterable[Path]) -> None:
    """Attach, and send this project's code along: nodes need the dependencies only.

    Ray has workers look for code in this process's folder before all others. A node may have another version of this
    project there, so it is called from a folder that is `empty`.
    """
    import ray

    packages = [Path(str(module.__file__)).parent.absolute() for module in (orchestrator, trainables, search_spaces)]
    try:
        with chdir(empty), process_state.command_line_unpublished():
            ray.init(
                address=address,
                runtime_env={"py_modules": [str(path) for path in (*packages, *code)]},
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except (ConnectionError, RuntimeError, ValueError) as error:  # it could, a moment ago
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"--address {address}: Ray could not attach ({first})") from error


@cache
def _new_token() -> Path:
    """Make a token for this process, in a file that only this user can read; it is removed when the process ends."""
    folder = tempfile.mkdtemp(prefix="sweep-token-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = Path(folder) / "token"
    path.touch(mode=0o600)
    path.write_text(secrets.token_hex(32))
    return path
