"""Check the machines of the connected cluster: their resources, libraries, GPUs, and the storage that they share."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

from orchestrator.cluster.machine import Node
from orchestrator.display.text import counted
from orchestrator.doctor.finding import Finding, Findings, all_failed
from orchestrator.doctor.libraries import requirements, unmet
from orchestrator.plan.options import SweepOptions
from orchestrator.plan.plan import Plan
from trainables import devices
from trainables.devices import Gpu
from trainables.errors import last_line
from trainables.storage import Storage


def check_ray(address: str, nodes: Sequence[Node], notes: Sequence[str]) -> Findings:
    """Describe the Ray that was started or attached to, and check that all nodes have the libraries of workers.

    Args:
        notes: messages for the user while attaching.
    """
    cpus, gpus = (sum(getattr(node.resources, name) for node in nodes) for name in ("cpus", "gpus"))
    has, token = f"{counted(cpus, 'CPU')} and {counted(gpus, 'GPU')}", _token_source()
    if address == "local":
        lock = "locked by a new token" if token else "not locked by a token"
        yield Finding("ray", "ok", f"starts on this machine with {has}, {lock}")
        return
    lock = f"the token is taken from {token}" if token else "it asks for no token"
    yield Finding("ray", "ok", f"{address}: attached; {counted(len(nodes), 'node')}, {has}; {lock}")
    for text in notes:
        if text.startswith("warning: "):
            yield Finding("ray", "warning", text.removeprefix("warning: "), "start its nodes with RAY_AUTH_MODE=token")
    try:
        needed = requirements()
    except PackageNotFoundError:  # already a finding
        return
    for name, problems in _problems_of(nodes, unmet, needed):
        yield from all_failed(
            "environment", [f"node {name}: {text}" for text in problems], "install what the sweep needs there"
        )


def _token_source() -> str | None:
    """Return where Ray's token comes from, never the token itself; None without authentication."""
    if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
        return None
    if os.environ.get("RAY_AUTH_TOKEN"):
        return "the environment (RAY_AUTH_TOKEN)"
    return os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token"


def _problems_of(
    nodes: Sequence[Node], check: Callable[..., list[str]], *arguments: Any
) -> Iterator[tuple[str, list[str]]]:
    """Yield each node's name and the problems that `check` returns there, or why it could not run there."""
    import ray

    from orchestrator.cluster import connection

    for node, result in [(node, connection.on_node(node.id, check, *arguments)) for node in nodes]:
        try:
            yield node.name, ray.get(result, timeout=connection.NODE_S)
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            yield node.name, [f"cannot run this project's code ({reason[-1].strip()})"]


def check_gpus(address: str, planned: Plan, nodes: Sequence[Node]) -> Findings:
    """Check that torch can compute on all GPUs that Ray assigns, on each node that has some."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from orchestrator.cluster import connection

    for why in devices.unusable() if address == "local" else ():
        yield Finding("gpu", "warning", why, "install a driver that fits torch's CUDA, or a torch that fits the GPU")
    if not planned.slot_gpus:
        why = "none are requested" if any(node.resources.gpus for node in nodes) else "there are none"
        yield Finding("gpu", "ok", f"{why}: trials run on CPUs")
        return
    remote = ray.remote(num_cpus=0, max_retries=0)(_asked)
    results = [
        (
            node,
            remote.options(
                num_gpus=node.resources.gpus,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False),
            ).remote(),
        )
        for node in nodes
        if node.resources.gpus
    ]
    for node, result in results:
        gpus = f"node {node.name}: {counted(node.resources.gpus, 'GPU')}"
        try:
            answers = ray.get(result, timeout=connection.NODE_S + devices.CHILD_S)
        except ray.exceptions.GetTimeoutError:
            what = f"{gpus}, some of which did not become free within {connection.NODE_S + devices.CHILD_S:.0f} s"
            yield Finding("gpu", "warning", what, "wait until the work that uses them has ended")
            continue
        except ray.exceptions.RayError as error:
            answers = (Gpu("all", problem=last_line(str(error))),)
        yield from _of_gpus(gpus, answers)


def _asked() -> tuple[Gpu, ...]:
    """Return what torch says of each GPU that Ray gave this process."""
    return devices.found() or (Gpu("of Ray", problem="nothing on the node shows that there is one"),)


def _of_gpus(gpus: str, answers: Sequence[Gpu]) -> Findings:
    """Describe the answers of a node's GPUs."""
    fix = "install a driver that fits torch's CUDA, or run on CPUs: --gpus-per-trial 0"
    for gpu in answers:
        if gpu.problem is not None:
            yield Finding("gpu", "failed", f"{gpus} of which torch cannot use {gpu} ({gpu.problem})", fix)
    if all(gpu.problem is None for gpu in answers):
        names = ", ".join(sorted({gpu.name for gpu in answers}))
        yield Finding("gpu", "ok", f"{gpus} ({names}); torch can compute on them")


def checkpoint_place(options: SweepOptions, planned: Plan) -> Storage:
    """Return where the sweep's checkpoints will be, without the sweep's own folder in it."""
    uri = options.storage or planned.storage or str(options.results)
    return Storage(uri if "://" in uri else str(Path(uri).expanduser().absolute()))


def check_storage(storage: Storage) -> Findings:
    """Check that every node can write to the storage, and reads there what others write."""
    from orchestrator.cluster import storage_probe

    if storage.is_folder:
        fix = "choose a folder that every node can read and write, or free disk space"
    else:
        fix = "check bucket, region and endpoint, and the credentials in the environment (for s3 AWS_ACCESS_KEY_ID …)"
    started = time.monotonic()
    try:
        without_access = storage_probe.nodes_without_access(storage)
    except OSError as error:
        yield Finding("storage", "failed", f"{storage.uri} cannot be used from this machine: {error}", fix)
        return
    for name, why in without_access.items():
        yield Finding("storage", "failed", f"{storage.uri}: node {name}: {why}", fix)
    if not without_access:
        seconds = time.monotonic() - started
        yield Finding("storage", "ok", f"{storage.uri}: every node wrote to it and read from it, in {seconds:.1f} s")
