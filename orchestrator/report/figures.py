"""Figures as plotly has them, plain JSON values; the page gives them their colours of light and dark."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from orchestrator.record.ranking import is_ranked
from orchestrator.record.state import TrialRecord

Figure = dict[str, Any]
"""`data` and `layout` of a plot. A trace without a colour has that of the page's text."""

BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
"""Okabe and Ito's, which nearly everybody can tell apart, in light and dark."""
GREY = "#888888"
ARMS = (BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY)
STATUSES = {
    "completed": BLUE,
    "stopped": ORANGE,
    "running": GREEN,
    "interrupted": PURPLE,
    "diverged": VERMILLION,
    "failed": VERMILLION,
}
BEST, SAMPLE = 1_000, 1_000  # trials at most that a plot with a mark a trial shows


def chosen(trials: Sequence[TrialRecord], best: int = BEST, sample: int = SAMPLE) -> list[TrialRecord]:
    """The first `best` of `trials`, which are sorted by rank, and a fixed random `sample` of the others, in order."""
    if len(trials) <= best + sample:
        return list(trials)
    others = sorted(random.Random(0).sample(range(best, len(trials)), sample))
    return [*trials[:best], *(trials[i] for i in others)]


def said(shown: int, there: int) -> str:
    """What a caption says of a plot that shows some of the trials; nothing if it shows all."""
    return (
        "" if shown == there else f" Shown: the best {shown // 2:,} of {there:,} trials and as many others, at random."
    )


def scored(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Those with a place on the leaderboard."""
    return [trial for trial in trials if is_ranked(trial)]


def plain(value: Any) -> Any:
    """`value` as JSON has it: arrays as lists, numbers in five digits, those that are none as null."""
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
