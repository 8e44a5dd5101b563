"""Records of earlier schemas, translated to today's names when they are read. Formats are promised: none is dropped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from trainables import former_names
from trainables.former_names import renamed

SPLIT = {
    "core_rows": "validation_rows",
    "core_fingerprint": "validation_fingerprint",
    "outside_rows": "external_rows",
    "outside_fingerprint": "external_fingerprint",
}


def event(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event of journal schema 2 as schema 3 has it; see docs/formats.md for what changed."""
    now = dict(found)
    if "spec" in found:
        now["spec"] = spec(found["spec"])
    if "worker" in found:
        now["worker"] = former_names.worker(found["worker"])
    if found.get("event") == "test_measured":
        now["metrics"] = renamed(now.pop("figures"), {"hits": "correct"})
    elif "figures" in found:
        now["final_metrics"] = former_names.final_metrics(now.pop("figures"))
    return now


def spec(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of what a sweep was asked (`sweep.json`, metadata of tables) of schema 2 under today's names."""
    now = renamed(found, {"forms": "formats"})
    if "plan" in found:
        now["plan"] = renamed(found["plan"], {"outside": "external_test"})
    if "split" in found:
        now["split"] = renamed(found["split"], SPLIT)
    return now


def final_metrics_text(text: str | None) -> str | None:
    """Return a leaderboard's JSON text of a trial's final metrics under today's names."""
    return None if text is None else json.dumps(former_names.final_metrics(json.loads(text)))


def confirmation(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known of a confirmed winner (`final.json`, `metrics.json`) under today's names."""
    return renamed(found, {"core": "validation"})


def bundle_metrics(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `metrics.json` of a bundle of schema 3 as schema 4 has it."""
    now = renamed(found, {"figures": "parts"})
    now["parts"] = renamed(now["parts"], former_names.PARTS)
    if now["calibration"] is not None:
        places = {name: former_names.PARTS.get(now["calibration"][name], now["calibration"][name]) for name in JUDGED}
        now["calibration"] = now["calibration"] | places
    if now["confirmation"] is not None:
        now["confirmation"] = confirmation(now["confirmation"])
    return now


JUDGED = ("fitted_on", "judged_on")
"""Keys of a calibration whose values name a part of the data."""
