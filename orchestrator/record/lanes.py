"""Attempts as spans of time, side by side in lanes, one for each slot."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """One attempt of a trial, in seconds."""

    trial: int
    attempt: int
    start: float
    end: float


def lanes(spans: Sequence[Span]) -> list[tuple[int, Span]]:
    """Give each span the lowest lane, from 0, that is free at its start; as many lanes as attempts ran at a time."""
    free: list[int] = []
    busy: list[tuple[float, int]] = []
    placed, used = [], 0
    for span in sorted(spans, key=lambda span: (span.start, span.trial)):
        while busy and busy[0][0] <= span.start:
            heapq.heappush(free, heapq.heappop(busy)[1])
        if not free:
            heapq.heappush(free, used)
            used += 1
        lane = heapq.heappop(free)
        heapq.heappush(busy, (span.end, lane))
        placed.append((lane, span))
    return placed
