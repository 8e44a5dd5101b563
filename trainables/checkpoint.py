"""Atomic save and load of a trial's state: tensors as safetensors, the rest as JSON; no pickle.

A trial's checkpoints are folders `<attempt>-<epoch>/`, each with `state.safetensors` and `state.json`. A folder
appears whole or not at all. Torch is imported only where tensors are, so that the driver can look without it.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

if TYPE_CHECKING:
    from torch import Tensor

TENSORS, VALUES = "state.safetensors", "state.json"


def save(
    folder: Path, attempt: int, epoch: int, tensors: dict[str, Tensor], values: dict[str, Any], keep: int = 0
) -> None:
    """Save a state, then remove the older ones of this attempt and of earlier ones, but for the newest `keep`.

    Raises:
        OSError: the disk did not take it; what was there before is still whole.
    """
    from safetensors.torch import save_file

    final = folder / f"{attempt}-{epoch}"
    temporary = folder / f".{attempt}-{epoch}.{os.getpid()}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        try:
            save_file(whole, temporary / TENSORS)
        except SafetensorError as error:  # how safetensors tells of a full disk
            raise OSError(f"{temporary / TENSORS} cannot be written: {error}") from error
        with (temporary / TENSORS).open("rb+") as file:
            os.fsync(file.fileno())
        _write_flushed(temporary / VALUES, json.dumps(values).encode())
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    older = [other for other in newest_first(folder) if _order(other) < (attempt, epoch)]
    for other in older[keep:]:
        shutil.rmtree(other, ignore_errors=True)


def load(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The newest whole state under `folder`, or None. One that cannot be read is passed over."""
    from safetensors.torch import load_file

    for state in newest_first(folder):
        try:
            return load_file(state / TENSORS), json.loads((state / VALUES).read_bytes())
        except (OSError, ValueError, SafetensorError):
            continue
    return None


def newest_first(folder: Path) -> list[Path]:
    """The states under `folder`; temporary ones, which begin with a dot, left out."""
    if not folder.is_dir():
        return []
    states = [path for path in folder.iterdir() if path.name.replace("-", "").isdigit()]
    return sorted(states, key=_order, reverse=True)


def _write_flushed(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _order(state: Path) -> tuple[int, int]:
    attempt, epoch = state.name.split("-")
    return int(attempt), int(epoch)
