"""Count the slots that a cluster has, while nodes join and leave."""

from __future__ import annotations

import math
import time

from orchestrator.cluster.connection import nodes
from orchestrator.plan.plan import Plan

RECOUNT_S = 1.0  # how long a count is used


class SlotCounter:
    """Counts the slots that the connected cluster has now: nodes may join and leave."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._slots = 0
        self._counted_at = -math.inf

    def __call__(self) -> int:
        now = time.monotonic()
        if now - self._counted_at > RECOUNT_S:
            self._slots = self._plan.slots([node.resources for node in nodes()])
            self._counted_at = now
        return self._slots
