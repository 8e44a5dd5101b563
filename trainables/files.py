"""Files that are complete or absent, whatever happens while they are written."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any


def replace_file(path: Path, content: bytes) -> None:
    """Write `content` such that a reader finds the old file or the new one, complete, even after a crash."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path)
    finally:
        temporary.unlink(missing_ok=True)


def replace_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write plain values as JSON, as `replace_file` does."""
    replace_file(path, json.dumps(content, indent=2).encode())


def unwritable(path: Path) -> str | None:
    """Return a message why no file can be written at `path`; None if nothing speaks against it before one tries."""
    folder = path.absolute().parent
    if path.is_dir():
        return f"{path} is a folder; name a file"
    if not folder.is_dir():
        return f"{path}: there is no folder {path.parent}; make it first"
    return None if os.access(folder, os.W_OK) else f"{path}: the folder {path.parent} cannot be written"


def sync_folder(path: Path) -> None:
    """Make the folder's entry of `path` survive a loss of power, if the file system can promise that."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(folder)
    finally:
        os.close(folder)
