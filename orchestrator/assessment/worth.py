"""The worth of a search: the winner against the setting that it began with, both confirmed with the same seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from orchestrator.assessment import intervals
from orchestrator.assessment.candidates import Confirmed
from orchestrator.assessment.ensemble import LEVEL
from orchestrator.assessment.intervals import Interval


@dataclass(frozen=True)
class Worth:
    """The confirmed mean of the winner minus that of the start point; positive where the winner is better.

    `gain` is None if the start point was not confirmed, since it was not among the best trials of the search.
    """

    start: int  # the trial at the start point
    gain: float | None = None
    interval: Interval | None = None  # of the gain, over seeds and rows
    won: bool = False  # the start point is the winner

    def __str__(self) -> str:
        start = f"the start point, trial {self.start}"
        if self.won:
            return f"{start}, won: the search found nothing better than what it began with"
        if self.gain is None:
            return f"{start}, was not among the best trials of the search"
        gain = f"over {start}: {self.gain:+.4f} on the seeds that both had"
        if self.interval is None:
            return f"gain {gain}, too few for an interval"
        gain = f"{gain} [{self.interval.low:+.4f}, {self.interval.high:+.4f}]"
        return f"worth it {gain}" if self.interval.low > 0 else f"gain {gain}, which may be luck"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, as `final.json` has them."""
        return asdict(self)


def worth(winner: Confirmed, start: int, confirmed: Sequence[Confirmed]) -> Worth:
    """Compare the winner with the trial at the start point, if that was confirmed."""
    if winner.trial.number == start:
        return Worth(start, 0.0, won=True)
    other = next((one for one in confirmed if one.trial.number == start), None)
    if other is None:
        return Worth(start)
    common = sorted({run.index for run in winner.runs} & {run.index for run in other.runs})
    best, begun = (winner.on_seeds(common), other.on_seeds(common)) if common else (winner, other)
    gain = winner.sign * (best.mean - begun.mean)
    ours, theirs = best.row_values(), begun.row_values()
    if ours is not None and theirs is not None and ours.shape == theirs.shape:
        return Worth(start, gain, intervals.difference_interval(winner.sign * (ours - theirs), LEVEL))
    pairs = zip(best.scores, begun.scores, strict=False)
    gains = [winner.sign * (a - b) for a, b in pairs] if common else []
    return Worth(start, gain, intervals.mean_interval(gains, LEVEL))
