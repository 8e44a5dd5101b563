"""Names that files had in earlier versions, and what they are called now. Files are translated when they are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PARTS = {"core": "validation", "outside": "external"}
"""Parts of the data on which a trial is measured at its end."""


def renamed(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return `values` with the keys that `names` has replaced, in the same order."""
    return {names.get(key, key): value for key, value in values.items()}


def final_metrics(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return a trial's metrics at its end, part of the data → metrics, under today's names."""
    return {PARTS.get(part, part): renamed(measured, {"hits": "correct"}) for part, measured in parts.items()}


def worker(described: Mapping[str, Any]) -> dict[str, Any]:
    """Return the description of a trial's worker under today's names."""
    return renamed(described, {"form": "format"})


def checkpoint(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that a checkpoint holds beside its tensors, under today's names."""
    found = renamed(values, {"figures": "final_metrics"})
    if "figures" in values:
        found["final_metrics"] = final_metrics(values["figures"])
    if "worker" in values:
        found["worker"] = worker(values["worker"])
    return found
