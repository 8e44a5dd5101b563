"""Numeric formats that were measured, on the disk: one file for each net, size and kind of processor."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainables.datasets.cache import cache_dir
from trainables.files import replace_file

Facts = Mapping[str, str | int]
"""All that the choice of a format depends on."""


def read(facts: Facts) -> dict[str, str] | None:
    """Return the format that was chosen for these facts: precision and memory format; None if there is none."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        content = json.loads(_path(facts).read_bytes())
        if content["facts"] == dict(facts):
            return dict(content["format"])
    return None


def write(facts: Facts, chosen: Mapping[str, str], seconds: Mapping[str, float]) -> None:
    """Keep what was chosen, with the seconds of a step in each format; without space on the disk it is not kept."""
    content: dict[str, Any] = {"facts": dict(facts), "format": dict(chosen), "seconds": dict(seconds)}
    path = _path(facts)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, json.dumps(content, indent=1).encode())


def _path(facts: Facts) -> Path:
    digest = hashlib.sha256(json.dumps(dict(facts), sort_keys=True).encode()).hexdigest()
    return cache_dir() / "formats" / f"{digest[:32]}.json"
