"""Check that memory and disks suffice for the sweep."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from orchestrator.cluster import connection
from orchestrator.cluster.machine import WORKER_BYTES, Node
from orchestrator.cluster.shared_images import STORE_SHARE
from orchestrator.display.text import counted
from orchestrator.doctor.finding import Finding, Findings
from orchestrator.doctor.models import Cost
from orchestrator.doctor.nodes import checkpoint_place
from orchestrator.plan import memory_needs
from orchestrator.plan.options import SweepOptions
from orchestrator.plan.plan import Plan
from trainables import datasets
from trainables.errors import sized

TRIAL_BYTES, EPOCH_BYTES = 6_000, 1_000  # in journal and tables, measured
RAY_BYTES = 2**28  # logs and sockets of one Ray session
SPILLING = 0.95  # share of a disk in use above which Ray writes nothing more there


def check_memory(planned: Plan, nodes: Sequence[Node], images: int, trial: int) -> Findings:
    """Check that each node has memory for its slots and for shared images.

    Args:
        images: bytes of all images.
        trial: bytes of a trial's model, optimizer and activations.
    """
    worker = WORKER_BYTES + trial
    sufficient, least = True, min((node.object_store for node in nodes), default=0)
    streamed = images > STORE_SHARE * least
    for node in nodes:
        slots = memory_needs.slots_on(planned, node.resources)
        if slots * worker > node.resources.memory:
            sufficient = False
            trials = counted(slots, "trial")
            what = f"node {node.name} has {sized(node.resources.memory)} for {trials} of about {sized(worker)} each"
            fitting = int(node.resources.memory // worker)
            fewer = f"--slots {fitting}, " if fitting else ""
            yield Finding(
                "memory", "failed", what, f"{fewer}a smaller batch_size or model, or a machine with more memory"
            )
        rest = node.resources.memory - slots * worker
        if streamed and slots and 0 <= rest < images:
            what = f"node {node.name} has {sized(rest)} beside its trials for images of {sized(images)}"
            fix = "--subset N, a smaller --stored-side, or a machine with more memory"
            yield Finding("memory", "warning", f"{what}: every epoch reads them from its disk", fix)
    if streamed:
        what = f"the images, {sized(images)}, are more than half of the {sized(least)} of shared memory that a node has"
        copies = "a node without access to these copies them to its own cache"
        yield Finding("memory", "ok", f"{what}: trials read them from files in {datasets.cache_dir()}; {copies}")
    if sufficient:
        parts = f"{sized(WORKER_BYTES)} for torch, the rest for weights, gradients, the optimizer and activations"
        yield Finding("memory", "ok", f"images {sized(images)}; a trial at most about {sized(worker)}: {parts}")


def disk_needs(options: SweepOptions, planned: Plan, nodes: Sequence[Node], costs: Sequence[Cost]) -> dict[Path, int]:
    """Return the bytes that the sweep will write on this machine, by folder."""
    from orchestrator.record.kept_weights import KEPT

    state, weights = (max((getattr(cost, name) for cost in costs), default=0) for name in ("state", "weights"))
    slots = planned.slots([node.resources for node in nodes])
    journal_and_tables = 2 * planned.queue().total() * (TRIAL_BYTES + planned.space.base.max_epochs * EPOCH_BYTES)
    needs = {
        options.results.absolute(): journal_and_tables + 2 * weights,
        datasets.cache_dir(): 0,
        connection.session_folder(): RAY_BYTES,
    }
    storage = checkpoint_place(options, planned)
    if storage.is_folder:  # twice: a new checkpoint is complete before it replaces the last one
        folder = Path(storage.uri)
        needs[folder] = needs.get(folder, 0) + 2 * slots * state + KEPT * weights
    return needs


def check_disk(needs: dict[Path, int]) -> Findings:
    """Check that the disks of some folders have space for the bytes that each will take."""
    by_device: dict[int, list[Path]] = {}
    for folder in needs:
        by_device.setdefault(_existing(folder).stat().st_dev, []).append(folder)
    for folders in by_device.values():
        usage, need = shutil.disk_usage(_existing(folders[0])), sum(needs[folder] for folder in folders)
        names = ", ".join(map(str, folders))
        if usage.free < need:
            what = f"{names}: {sized(usage.free)} free, about {sized(need)} needed"
            fix = "free disk space, or choose other folders: --results, --storage, SWEEP_ORCHESTRATOR_CACHE, TMPDIR"
            yield Finding("disk", "failed", what, fix)
        elif usage.free < (1 - SPILLING) * usage.total:
            what = f"{names}: {sized(usage.free)} free of {sized(usage.total)}; Ray writes nothing to a disk that full"
            yield Finding("disk", "warning", what, "free disk space, or set RAY_TMPDIR to another disk")
        else:
            yield Finding("disk", "ok", f"{names}: {sized(usage.free)} free, about {sized(need)} needed")


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest folder above it that exists."""
    return next(path for path in (folder, *folder.parents) if path.exists())
