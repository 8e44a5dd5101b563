"""The device that a command computes on, by the names that `--device` takes. Importing this imports no torch."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from trainables.errors import ConfigError, counted

if TYPE_CHECKING:
    import torch

NAMES = "auto|cpu|cuda|cuda:N|mps"
_PATTERN = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def problems(name: str) -> list[str]:
    """Return a message if there is no such name of a device."""
    allowed = "auto (a GPU if there is one), cpu, cuda, cuda:N (the GPU number N, from 0), mps (Apple's GPUs)"
    return [] if _PATTERN.fullmatch(name) else [f"--device {name}: allowed are {allowed}"]


def choose(name: str, report: Callable[[str], None]) -> torch.device:
    """Return the device of that name, once something was computed there; auto stands for a GPU of CUDA, or the CPU.

    If auto's GPU cannot be used, it is the CPU, and `report` gets a sentence that says so.

    Raises:
        ConfigError: the device is missing, cannot be used, or its memory is full.
    """
    import torch

    if name != "auto":
        device = torch.device(name)
        if problem := _problem(device):
            raise ConfigError(f"--device {name}: {problem}; --device cpu computes on the processor")
        return device
    if torch.cuda.is_available():
        device = torch.device("cuda")
        if not (problem := _problem(device)):
            return device
        report(f"computing on the CPU, as the GPU cannot be used: {problem}")
    return torch.device("cpu")


def _problem(device: torch.device) -> str:
    """Return why nothing can be computed on the device; an empty text if something can."""
    from trainables import memory

    if missing := MISSING[device.type](device):
        return missing
    try:
        memory.compute(device)
    except Exception as error:  # whatever it is, the command would meet it
        if memory.out_of_memory(error, device):
            return "its memory is full: end other programs that use it, or wait for them"
        return f"nothing can be computed there ({(str(error).strip().splitlines() or [type(error).__name__])[0]})"
    return ""


def _missing_cuda(device: torch.device) -> str:
    import torch

    if not torch.cuda.is_available():
        return "torch finds no NVIDIA GPU with a driver that it can use (python -m orchestrator.doctor says more)"
    count = torch.cuda.device_count()
    return "" if (device.index or 0) < count else f"there {'is' if count == 1 else 'are'} {counted(count, 'GPU')}"


def _missing_mps(device: torch.device) -> str:
    import torch

    return "" if torch.backends.mps.is_available() else "torch finds no GPU of Apple's that it can use"


MISSING: dict[str, Callable[[torch.device], str]] = {
    "cpu": lambda device: "",
    "cuda": _missing_cuda,
    "mps": _missing_mps,
}
"""Type of device → why there is none; an empty text if there is."""
