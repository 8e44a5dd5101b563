"""Start a local Ray or attach to a running cluster; how many trials there is room for.

Ray reads its environment when it is imported, so it is imported here only after that is set.
"""

from __future__ import annotations

import atexit
import importlib
import logging
import os
import secrets
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import chdir, contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orchestrator
import search_spaces
import trainables
from orchestrator.cluster.address import find
from orchestrator.cluster.machine import Node, Resources, local
from trainables.errors import ConfigError

if TYPE_CHECKING:
    import ray


LONGEST_TEMP = 40  # characters; Ray's own part of a socket's path needs the rest
NODE_S = 30.0  # for nodes to answer

log = logging.getLogger(__name__)

ENVIRONMENT = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a trial without a GPU sees none
    "RAY_AIR_NEW_OUTPUT": "0",  # Tune's own tables stay out
    "RAY_DEDUP_LOGS": "1",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",  # and so does what Ray prints of its processes
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # workers run in this environment, however the command was started
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # its CSV and JSON files cost more than a small trial
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Tune's waits for the running epoch
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",  # the journal is the record
    "TUNE_MAX_PENDING_TRIALS_PG": "1000000",  # the searcher admits trials, by the slots there are now
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
"""What Ray and Tune read when they are imported or started."""


@contextmanager
def connect(address: str, tell: Callable[[str], object] = log.warning, code: Iterable[Path] = ()) -> Iterator[None]:
    """Ray, for as long as the context lasts: started on this machine, or attached to at `address`.

    Args:
        tell: takes what a user should know of the cluster before anything is sent there. Default: the log.
        code: folders and files of modules that other nodes will need besides this project.

    Raises:
        ConfigError: this machine cannot attach to `address`, or Ray cannot start here.
    """
    if address != "local":
        found = find(address)
        os.environ["RAY_AUTH_MODE"] = "token" if found.locked else "disabled"
        if address == "auto":
            tell(f"attaching to the Ray cluster at {found.address}")
        if found.warning:
            tell(found.warning)
        address = found.address
    os.environ |= ENVIRONMENT
    if len(tempfile.gettempdir()) > LONGEST_TEMP:
        os.environ.setdefault("RAY_TMPDIR", "/tmp")  # noqa: S108 - the path of a socket has room for 107 bytes
    folder = tempfile.mkdtemp(prefix="sweep-ray-")
    # Ray reads the token once a process; unless it is given one it makes one, in the user's home.
    if address == "local" and ("ray" not in sys.modules or _own_token.cache_info().currsize):
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(_own_token())}
    import ray

    importing = threading.Thread(target=importlib.import_module, args=("ray.tune",))
    importing.start()  # takes a second, in which Ray's own processes start
    try:
        if address == "local":
            _start()
        else:
            _attach(address, folder, code)
        importing.join()
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def nodes() -> list[Node]:
    """Return the machines that the connected cluster has now."""
    import ray

    return [_node(described) for described in ray.nodes() if described["Alive"]]


def _node(described: dict[str, Any]) -> Node:
    has = described["Resources"]
    resources = Resources(int(has.get("CPU", 0)), int(has.get("GPU", 0)))
    sizes = has.get("memory", 0), has.get("object_store_memory", 0)
    return Node(described["NodeID"], described["NodeName"], resources, *sizes)


def on_node(node_id: str, function: Callable[..., Any], *arguments: Any) -> ray.ObjectRef:
    """The result to come of `function`, run on one node of the connected cluster, in a process of its own."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    remote = ray.remote(num_cpus=0, max_retries=0)(function)
    return remote.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False)).remote(*arguments)


def ask_node(node_id: str | None, function: Callable[..., Any], *arguments: Any) -> Any:
    """What `function` returns on one node of the connected cluster; None if the node is gone or not known."""
    import ray

    if node_id is None:
        return None
    try:
        return ray.get(on_node(node_id, function, *arguments), timeout=NODE_S)
    except ray.exceptions.RayError:
        return None


def _start() -> None:
    """A Ray of one's own, on this machine."""
    import ray

    here = local()
    try:
        ray.init(
            address="local",
            num_cpus=here.cpus,
            num_gpus=here.gpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(f"Ray cannot start on this machine: {error}") from error


def _attach(address: str, empty: str, code: Iterable[Path]) -> None:
    """Attach, and bring the code along: nodes need the dependencies only.

    Ray has workers look for code in this process's folder before all others. A node may have another version of this
    project there, so it is called from a folder that is `empty`.
    """
    import ray

    ours = [Path(str(module.__file__)).parent.absolute() for module in (orchestrator, trainables, search_spaces)]
    try:
        with chdir(empty):
            ray.init(
                address=address,
                runtime_env={"py_modules": [str(path) for path in (*ours, *code)]},
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except (ConnectionError, RuntimeError, ValueError) as error:  # it could, a moment ago
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"--address {address}: Ray could not attach ({first})") from error


@cache
def _own_token() -> Path:
    """A token of this process's own, in a file that only this user reads, gone when the process ends."""
    folder = tempfile.mkdtemp(prefix="sweep-token-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = Path(folder) / "token"
    path.touch(mode=0o600)
    path.write_text(secrets.token_hex(32))
    return path
