"""Ask the autoscaler of the connected cluster for machines, where it has one; without one nothing comes of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from orchestrator.cluster.signals import in_time

CANCEL_S = 5.0  # to cancel a request; a Ray that has ended never answers


def request(slot: Mapping[str, float], count: int) -> None:
    """Request `count` slots in all, those that there are included, until the next call.

    Args:
        slot: amounts of Ray's resources, such as CPU and GPU.
    """
    from ray.autoscaler.sdk import request_resources

    request_resources(bundles=[{name: amount for name, amount in slot.items() if amount}] * count)


@contextmanager
def cancelled_at_end() -> Iterator[None]:
    """Cancel what is requested when the context ends, however it does."""
    try:
        yield
    finally:
        in_time(partial(request, {}, 0), CANCEL_S)
