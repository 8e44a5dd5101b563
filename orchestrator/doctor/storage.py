"""Whether every machine can use the storage."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.doctor.finding import Finding, Findings
from orchestrator.plan.options import SweepOptions
from orchestrator.plan.plan import Plan
from trainables.storage import Storage

if TYPE_CHECKING:
    pass


def place(options: SweepOptions, planned: Plan) -> Storage:
    """Where the sweep's checkpoints will go, but for the sweep's own folder in it."""
    uri = options.storage or planned.storage or str(options.results)
    return Storage(uri if "://" in uri else str(Path(uri).expanduser().absolute()))


def check_storage(storage: Storage) -> Findings:
    """Whether every node writes to the storage what all others read there."""
    from orchestrator.cluster import storage_probe

    if storage.is_folder:
        mend = "choose a folder that every node sees and may write to, or make room"
    else:
        mend = "check bucket, region and endpoint, and the credentials in the environment (for s3 AWS_ACCESS_KEY_ID …)"
    started = time.monotonic()
    try:
        blind = storage_probe.blind_nodes(storage)
    except OSError as error:
        yield Finding("storage", "failed", f"{storage.uri} cannot be used from this machine: {error}", mend)
        return
    for name, why in blind.items():
        yield Finding("storage", "failed", f"{storage.uri}: node {name}: {why}", mend)
    if not blind:
        seconds = time.monotonic() - started
        yield Finding("storage", "ok", f"{storage.uri}, written and read by every node in {seconds:.1f} s")
