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


def event(line: Mapping[str, Any]) -> dict[str, Any]:
    """Return a line of a journal of schema 2 as schema 3 has it; see docs/formats.md for what changed.

    A value of a wrong type stays as it is: whoever reads the line refuses it.
    """
    now = dict(line)
    for name, translate in (("spec", spec), ("worker", former_names.worker)):
        if isinstance(line.get(name), dict):
            now[name] = translate(line[name])
    if line.get("event") == "test_measured":
        now["metrics"] = final_metrics({"test": now.pop("figures", None)})["test"]
    elif "figures" in line:
        now["final_metrics"] = final_metrics(now.pop("figures"))
    return now


def spec(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of what a sweep was asked (`sweep.json`, metadata of tables) as schema 3 has it."""
    now = renamed(record, {"forms": "formats"})
    for name, names in (("plan", {"outside": "external_test"}), ("split", SPLIT)):
        if isinstance(record.get(name), dict):
            now[name] = renamed(record[name], names)
    return now


def plan(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plan of a sweep of schema 2 to 4 as schema 5 has it: its `asha` is today's `asha-stopping`."""
    return renamed(values, {}) | ({"scheduler": "asha-stopping"} if values.get("scheduler") == "asha" else {})


def final_metrics(parts: Any) -> Any:
    """Return a trial's final metrics, part of the data → metrics, under today's names."""
    if not isinstance(parts, dict) or not all(isinstance(measured, dict) for measured in parts.values()):
        return parts
    return former_names.final_metrics(parts)


def final_metrics_text(text: str | None) -> str | None:
    """Return a leaderboard's JSON text of a trial's final metrics under today's names."""
    return None if text is None else json.dumps(final_metrics(json.loads(text)))


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
