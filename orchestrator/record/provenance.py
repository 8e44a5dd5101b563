"""The origin of a result: hardware, versions, code and command, for the record."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from orchestrator.cluster import machine
from orchestrator.record.facts import Command
from trainables import devices, hardware

PACKAGES = (
    *("ray", "torch", "torchvision", "optuna", "numpy", "pillow", "pandas", "pyarrow", "scikit-learn", "timm"),
    "sweep-orchestrator",
)


def describe(slots: int | None = None, command: str | None = None) -> Command:
    """Describe where results come from. What cannot be found out is None.

    Args:
        slots: those that the sweep has.
        command: the command, without secrets: what it is given here is published with every result.
    """
    here = machine.local()
    return Command(
        slots=slots,
        command=command,
        hardware={
            "cpu": hardware.cpu_model(),
            "cpus": here.cpus,
            "gpus": here.gpus,
            **({"gpu_names": [gpu.name for gpu in devices.usable()]} if here.gpus else {}),
            **({"unusable_gpus": unusable} if (unusable := devices.unusable()) else {}),
            "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            "host": platform.node(),
            "os": platform.platform(),
        },
        versions={"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        git={"revision": _git("rev-parse", "HEAD"), "dirty": bool(_git("status", "--porcelain"))},
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    """Return git's output about the code that runs; None where it is not in a checkout of this project."""
    here = Path(__file__).parent.parent
    if not (here.parent / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", "-C", str(here), *arguments], capture_output=True, text=True, timeout=5)  # noqa: S603, S607
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
