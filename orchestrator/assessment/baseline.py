"""The baseline: what naming the commonest class always would score on the rows that trials are scored on.

It stands beside every score: on uneven data a score that looks like learning may be no more than that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def share(split: Mapping[str, Any]) -> float | None:
    """Return the share of the commonest class among the scored rows; None if the record of a `split` has none.

    Records of former versions have none, and neither do those of recipes, whose arms are scored on other rows.
    """
    value = split.get("commonest_share")
    return value if isinstance(value, float) and "opened_rows" not in split else None


def text(split: Mapping[str, Any], metric: str) -> str:
    """Return the baseline as words to stand beside a score of `metric`; an empty text if it is unknown."""
    return words(share(split), metric)


def words(value: float | None, metric: str) -> str:
    """Return the baseline `value` as words to stand beside a score of `metric`; an empty text if it is unknown."""
    if value is None:
        return ""
    return f"always naming the commonest class: {'' if metric == 'val_accuracy' else 'accuracy '}{value:.2f}"
