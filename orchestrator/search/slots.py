"""Count the slots that a cluster has, while nodes join and leave."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from orchestrator.cluster.connection import nodes
from orchestrator.cluster.machine import Nodes

RECOUNT_S = 1.0  # how long a count is used


class SlotCounter:
    """Counts the slots that the connected cluster has now: nodes may join and leave."""

    def __init__(self, fitting: Callable[[Nodes], int]) -> None:
        """Take a function that returns how many slots fit on some nodes."""
        self._fitting = fitting
        self._slots = 0
        self._counted_at = -math.inf

    def __call__(self) -> int:
        """Return the number of slots; it is at most `RECOUNT_S` old."""
        now = time.monotonic()
        if now - self._counted_at > RECOUNT_S:
            self._slots = self._fitting([node.resources for node in nodes()])
            self._counted_at = now
        return self._slots
