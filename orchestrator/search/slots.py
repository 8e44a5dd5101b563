"""Count the slots that a cluster has."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from orchestrator.cluster.connection import nodes
from orchestrator.plan.plan import Plan

if TYPE_CHECKING:
    pass


ROOM_S = 1.0  # how long a count of slots is trusted


class Room:
    """Counts the slots that the cluster has now: nodes may join and leave."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._slots = 0
        self._counted_at = -math.inf

    def __call__(self) -> int:
        now = time.monotonic()
        if now - self._counted_at > ROOM_S:
            self._slots = self._plan.slots(nodes())
            self._counted_at = now
        return self._slots
