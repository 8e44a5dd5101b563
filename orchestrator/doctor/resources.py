"""Whether there is memory and disk for the sweep."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from orchestrator.cluster import connection
from orchestrator.cluster.machine import Node
from orchestrator.cluster.shared_images import STORE_SHARE
from orchestrator.doctor.finding import Finding, Findings
from orchestrator.doctor.models import Cost
from orchestrator.doctor.nodes import place
from orchestrator.plan.options import SweepOptions
from orchestrator.plan.plan import Plan
from trainables import datasets

ACTOR_BYTES = 450 * 2**20  # of a worker that has torch imported, measured
TRIAL_BYTES, EPOCH_BYTES = 6_000, 1_000  # in journal and tables, measured
RAY_BYTES = 2**28  # logs and sockets of a session of Ray
SPILLING = 0.95  # share of a disk in use, above which Ray puts nothing more there


def check_memory(planned: Plan, nodes: Sequence[Node], images: int, trial: int) -> Findings:
    """Whether each node has memory for its slots, and room to share `images` bytes; `trial` is a trial's own bytes."""
    worker = ACTOR_BYTES + trial
    fine, least = True, min((node.object_store for node in nodes), default=0)
    streamed = images > STORE_SHARE * least
    for node in nodes:
        slots = min(
            node.resources.capacity(planned.slot_cpus, planned.slot_gpus),
            planned.concurrency or planned.queue().total(),
        )
        if slots * worker > node.memory:
            fine = False
            what = f"node {node.name} has {_gb(node.memory)} for {slots} trials of about {_gb(worker)} each"
            fitting = int(node.memory // worker)
            fewer = f"--concurrency {fitting}, " if fitting else ""
            yield Finding("memory", "failed", what, f"{fewer}a smaller batch_size or model, or a machine with more")
        left = node.memory - slots * worker
        if streamed and slots and 0 <= left < images:
            what = f"node {node.name} has {_gb(left)} beside its trials for images of {_gb(images)}"
            fix = "--subset N, a smaller --stored-side, or a machine with more"
            yield Finding("memory", "warning", f"{what}: every epoch reads them from its disk", fix)
    if streamed:
        what = f"the images, {_gb(images)}, are more than half of the {_gb(least)} that a node shares"
        where = "that does not see them there copies them to its own cache"
        yield Finding("memory", "ok", f"{what}: trials read them from files in {datasets.cache_dir()}; a node {where}")
    if fine:
        rest = f"{_gb(ACTOR_BYTES)} for torch, then weights, what training keeps of them, activations of a batch"
        yield Finding("memory", "ok", f"images {_gb(images)}; a trial at most about {_gb(worker)}: {rest}")


def disk_needs(options: SweepOptions, planned: Plan, nodes: Sequence[Node], costs: Sequence[Cost]) -> dict[Path, int]:
    """Bytes that the sweep will write on this machine, by folder."""
    from orchestrator.record.kept_weights import KEPT

    state, weights = (max((getattr(cost, name) for cost in costs), default=0) for name in ("state", "weights"))
    slots = planned.slots([node.resources for node in nodes])
    journal_and_tables = 2 * planned.queue().total() * (TRIAL_BYTES + planned.space.base.max_epochs * EPOCH_BYTES)
    needs = {
        options.results.absolute(): journal_and_tables + 2 * weights,
        datasets.cache_dir(): 0,
        connection.session_folder(): RAY_BYTES,
    }
    storage = place(options, planned)
    if storage.is_folder:  # a state is replaced by a whole new one
        folder = Path(storage.uri)
        needs[folder] = needs.get(folder, 0) + 2 * slots * state + KEPT * weights
    return needs


def check_disk(needs: dict[Path, int]) -> Findings:
    """Whether the file systems of some folders have room for the bytes that each is to take."""
    by_device: dict[int, list[Path]] = {}
    for folder in needs:
        there = next(path for path in (folder, *folder.parents) if path.exists())
        by_device.setdefault(there.stat().st_dev, []).append(folder)
    for folders in by_device.values():
        there = next(path for path in (folders[0], *folders[0].parents) if path.exists())
        usage, need = shutil.disk_usage(there), sum(needs[folder] for folder in folders)
        names = ", ".join(map(str, folders))
        if usage.free < need:
            what = f"{names}: {_gb(usage.free)} free, about {_gb(need)} needed"
            fix = "make room, or choose other folders: --results, --storage, SWEEP_ORCHESTRATOR_CACHE, TMPDIR"
            yield Finding("disk", "failed", what, fix)
        elif usage.free < (1 - SPILLING) * usage.total:
            what = f"{names}: {_gb(usage.free)} free of {_gb(usage.total)}; Ray puts nothing on a disk that full"
            yield Finding("disk", "warning", what, "make room, or set RAY_TMPDIR to another disk")
        else:
            yield Finding("disk", "ok", f"{names}: {_gb(usage.free)} free, about {_gb(need)} needed")


def _gb(size: float) -> str:
    return f"{size / 2**20:,.0f} MB" if size < 2**30 else f"{size / 2**30:,.1f} GB"
