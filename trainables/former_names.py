"""Today's names for those that earlier versions wrote into files, which are translated when they are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainables.model_names import TORCHVISION

PARTS = {"core": "validation", "outside": "external"}
"""Parts of the data on which a trial is measured at its end."""


def renamed(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return `values` with the keys that are in `names` replaced by theirs, in the same order."""
    return {names.get(key, key): value for key, value in values.items()}


def final_metrics(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return a trial's final metrics, part of the data → metrics, under today's names."""
    return {PARTS.get(part, part): renamed(measured, {"hits": "correct"}) for part, measured in parts.items()}


OF_WEIGHTS = {"stem", "weights", "image_size", "normalization"}
"""Fields that every record of a configuration has, and few texts of a user's name all of."""


def config(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration such that today's autos mean what they meant to the version that recorded it.

    Where `interpolation` is missing, views were bilinear, and the stem below 64 pixels was small with weights, too.
    """
    if "interpolation" in values or not values.keys() >= OF_WEIGHTS or values["weights"] == "none":
        return dict(values)
    small = values["stem"] == "auto" and values.get("model") in TORCHVISION and values["image_size"] in range(1, 64)
    return {**values, "interpolation": "bilinear", **({"stem": "small"} if small else {})}


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
