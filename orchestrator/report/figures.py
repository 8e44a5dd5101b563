"""Figures in plotly's format, as plain JSON values; the page adds the colors of its light or dark theme."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from orchestrator.record.ranking import is_ranked
from orchestrator.record.state import TrialRecord

Figure = dict[str, Any]
"""`data` and `layout` of a plot. A trace without a color gets that of the page's text."""

BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
"""Colors of Okabe and Ito, which nearly everybody can distinguish, on light and dark."""
GREY = "#888888"
ARMS = (BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY)
STATUSES = {
    "completed": BLUE,
    "stopped": ORANGE,
    "running": GREEN,
    "paused": SKY,
    "interrupted": PURPLE,
    "diverged": VERMILLION,
    "failed": VERMILLION,
}
BEST, SAMPLE = 1_000, 1_000  # trials at most in a plot with one mark per trial


def chosen(trials: Sequence[TrialRecord], best: int = BEST, sample: int = SAMPLE) -> list[TrialRecord]:
    """Return the first `best` of `trials`, sorted by rank, and a fixed random `sample` of the rest, in order."""
    if len(trials) <= best + sample:
        return list(trials)
    others = sorted(random.Random(0).sample(range(best, len(trials)), sample))
    return [*trials[:best], *(trials[i] for i in others)]


def sample_note(shown: int, there: int) -> str:
    """Return what a caption adds where a plot shows some of the trials; an empty text if it shows all of them."""
    if shown == there:
        return ""
    return f" Shown are the best {shown // 2:,} of {there:,} trials and as many others, drawn at random."


def scored(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return those of `trials` that have a rank on the leaderboard."""
    return [trial for trial in trials if is_ranked(trial)]


def plain(value: Any) -> Any:
    """Return `value` in JSON's types: arrays as lists, floats with five digits, NaN and infinity as None."""
    if isinstance(value, dict):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return value
