"""The work that is planned for a process, which bounds what it may spend on choosing how to compute."""

from __future__ import annotations

from dataclasses import dataclass

SHARE, MOST_S = 0.02, 20.0  # of the planned time, and seconds: what choosing may take, at most


@dataclass
class Workload:
    """The work of one process, a slot of a sweep, and what choosing numeric formats has taken of it."""

    epochs: float
    seconds: float = 0.0  # beside the epochs
    limit_s: float = float("inf")  # of everything
    spent_s: float = 0.0  # on choosing

    def allowed_s(self, epoch_s: float) -> float:
        """Return the seconds that choosing may still take, if an epoch takes `epoch_s`."""
        planned = min(self.seconds + self.epochs * epoch_s, self.limit_s)
        return min(SHARE * planned, MOST_S) - self.spent_s
