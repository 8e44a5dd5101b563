"""Ask the autoscaler of the connected cluster for machines, where it has one; without one nothing comes of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

from orchestrator.cluster.signals import in_time

CANCEL_S = 5.0  # to cancel a request; a Ray that has ended never answers


def request(bundles: Sequence[Mapping[str, float]]) -> None:
    """Request what holds all `bundles`, that which is there included, until the next call.

    Args:
        bundles: amounts of Ray's resources, such as CPU and GPU, each to be on one machine.
    """
    from ray.autoscaler.sdk import request_resources

    request_resources(bundles=[{name: amount for name, amount in bundle.items() if amount} for bundle in bundles])


@contextmanager
def cancelled_at_end() -> Iterator[None]:
    """Cancel what is requested when the context ends, however it does."""
    try:
        yield
    finally:
        in_time(partial(request, ()), CANCEL_S)
