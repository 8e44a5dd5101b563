"""Today's names for those that earlier versions wrote into files, which are translated when they are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PARTS = {"core": "validation", "outside": "external"}
"""Parts of the data on which a trial is measured at its end."""


def renamed(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return `values` with the keys that are in `names` replaced by theirs, in the same order."""
    return {names.get(key, key): value for key, value in values.items()}


def final_metrics(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return a trial's final metrics, part of the data → metrics, under today's names."""
    return {PARTS.get(part, part): renamed(measured, {"hits": "correct"}) for part, measured in parts.items()}


def worker(described: Mapping[str, Any]) -> dict[str, Any]:
    """Return the description of a trial's worker under today's names."""
    return renamed(described, {"form": "format"})


def checkpoint(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that a checkpoint holds beside its tensors, under today's names."""
    today = renamed(values, {"figures": "final_metrics"})
    if "figures" in values:
        today["final_metrics"] = final_metrics(values["figures"])
    if "worker" in values:
        today["worker"] = worker(values["worker"])
    return today
