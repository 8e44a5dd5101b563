"""The machines of the connected cluster: what Ray gives, their GPUs, and the storage that they share."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.cluster.machine import Node
from orchestrator.doctor.finding import Finding, Findings, all_failed
from orchestrator.doctor.libraries import requirements, unmet
from orchestrator.plan.options import SweepOptions
from orchestrator.plan.plan import Plan
from trainables.storage import Storage

if TYPE_CHECKING:
    pass


def check_ray(address: str, nodes: Sequence[Node], told: Sequence[str]) -> Findings:
    """What was started or attached to, its token, and whether the other machines have what workers need.

    Args:
        told: what was said while attaching.
    """
    cpus, gpus = (sum(getattr(node.resources, name) for node in nodes) for name in ("cpus", "gpus"))
    token = _token_source()
    if address == "local":
        lock = "locked by a token of its own" if token else "not locked by a token"
        yield Finding("ray", "ok", f"starts on this machine with {cpus} CPUs and {gpus} GPUs, {lock}")
        return
    key = f"the token is taken from {token}" if token else "it asks for no token"
    yield Finding("ray", "ok", f"{address}: attached; {len(nodes)} nodes, {cpus} CPUs and {gpus} GPUs; {key}")
    for text in told:
        if text.startswith("warning: "):
            yield Finding("ray", "warning", text.removeprefix("warning: "), "start its nodes with RAY_AUTH_MODE=token")
    try:
        needed = requirements()
    except PackageNotFoundError:  # said already
        return
    for name, problems in _asked(nodes, unmet, needed):
        yield from all_failed(
            "environment", [f"node {name}: {text}" for text in problems], "install what the sweep needs there"
        )


def _token_source() -> str | None:
    """Where Ray's token comes from, never the token itself; None without authentication."""
    if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
        return None
    if os.environ.get("RAY_AUTH_TOKEN"):
        return "the environment (RAY_AUTH_TOKEN)"
    return os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token"


def _asked(nodes: Sequence[Node], ask: Callable[..., list[str]], *arguments: Any) -> Iterator[tuple[str, list[str]]]:
    """Each node's name and the problems that `ask` found there, or why it could not be asked."""
    import ray

    from orchestrator.cluster import connection

    for node, answer in [(node, connection.on_node(node.id, ask, *arguments)) for node in nodes]:
        try:
            yield node.name, ray.get(answer, timeout=connection.NODE_S)
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            yield node.name, [f"cannot run this project's code ({reason[-1].strip()})"]


def check_gpus(planned: Plan, nodes: Sequence[Node]) -> Findings:
    """Whether torch can compute on the GPUs that Ray gives out, on each node that has some."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from orchestrator.cluster import connection

    if not planned.slot_gpus:
        why = "none are asked for" if any(node.resources.gpus for node in nodes) else "there are none"
        yield Finding("gpu", "ok", f"{why}: trials run on CPUs")
        return
    remote = ray.remote(num_cpus=0, num_gpus=planned.slot_gpus, max_retries=0)(gpu_problem)
    asked = [
        (node, remote.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)).remote())
        for node in nodes
        if node.resources.gpus
    ]
    for node, answer in asked:
        seen = f"node {node.name}: {node.resources.gpus} GPUs"
        try:
            problem = ray.get(answer, timeout=connection.NODE_S)
        except ray.exceptions.GetTimeoutError:
            what = f"{seen}, none of which came free within {connection.NODE_S:.0f} s"
            yield Finding("gpu", "warning", what, "wait for the work that holds them")
            continue
        except ray.exceptions.RayError as error:
            problem = str(error).strip().splitlines()[-1]
        if problem is None:
            yield Finding("gpu", "ok", f"{seen}, and torch computes on them")
        else:
            fix = "install a driver that fits torch's CUDA, or run on CPUs: --gpus-per-trial 0"
            yield Finding("gpu", "failed", f"{seen} that torch cannot use ({problem})", fix)


def gpu_problem() -> str | None:
    """Why torch cannot compute on the GPU that this process was given; None if it can."""
    import torch

    try:
        torch.ones(8, device="cuda").sum().item()
    except (AssertionError, RuntimeError) as error:
        return str(error).splitlines()[0]
    return None


def place(options: SweepOptions, planned: Plan) -> Storage:
    """Where the sweep's checkpoints will go, but for the sweep's own folder in it."""
    uri = options.storage or planned.storage or str(options.results)
    return Storage(uri if "://" in uri else str(Path(uri).expanduser().absolute()))


def check_storage(storage: Storage) -> Findings:
    """Whether every node writes to the storage what all others read there."""
    from orchestrator.cluster import storage_probe

    if storage.is_folder:
        fix = "choose a folder that every node sees and may write to, or make room"
    else:
        fix = "check bucket, region and endpoint, and the credentials in the environment (for s3 AWS_ACCESS_KEY_ID …)"
    started = time.monotonic()
    try:
        blind = storage_probe.nodes_without_access(storage)
    except OSError as error:
        yield Finding("storage", "failed", f"{storage.uri} cannot be used from this machine: {error}", fix)
        return
    for name, why in blind.items():
        yield Finding("storage", "failed", f"{storage.uri}: node {name}: {why}", fix)
    if not blind:
        seconds = time.monotonic() - started
        yield Finding("storage", "ok", f"{storage.uri}, written and read by every node in {seconds:.1f} s")
