"""How many trials share a GPU under `--gpus-per-trial auto`: as many as fit into its memory and keep it busy.

Each kind of GPU is asked before the first proposal, by steps of every model at its largest batch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from orchestrator.cluster import connection
from orchestrator.cluster.machine import Node, Slot, share_of_gpu, widest
from orchestrator.plan.context import SweepContext
from orchestrator.plan.plan import Plan
from orchestrator.record.events import GpuMeasured
from trainables import canary
from trainables.canary import Need
from trainables.config import TrialConfig
from trainables.errors import counted

if TYPE_CHECKING:
    from trainables.splits import SearchData

SIZES = ("batch_size", "micro_batch", "image_size")  # fields that the memory of a step grows with
PATIENCE_S = 180.0  # for all steps on one GPU, with torch's import


def fitted(context: SweepContext) -> SweepContext:
    """Return the sweep with as many trials on a GPU as suit it, and with what was measured for that.

    A sweep whose share of a GPU is known, since it was asked for or is resumed, or that has no GPU, stays as it is.
    """
    planned = context.plan
    if not planned.share_gpus or not planned.slot_gpus:
        return context
    nodes = [node for node in connection.nodes() if node.resources.gpus]
    measured = list(_measured(context, nodes))
    needs = [event.need for event in measured]
    if not needs:
        return context
    slots: dict[str | None, int] = {}
    for kind, alike in _by_kind(nodes).items():
        names = {node.name for node in alike}
        own = [event.need for event in measured if event.node in names]
        slots[kind] = min(abreast(own, node, planned.trials) for node in alike) if own else 1
        if own:
            context.console.print(described(own, slots[kind]), soft_wrap=True)
    return dataclasses.replace(context, plan=with_share(planned, slots, nodes), measured=tuple(measured))


def _by_kind(nodes: Sequence[Node]) -> dict[str | None, list[Node]]:
    """Return the nodes of each kind of GPU."""
    kinds = dict.fromkeys(node.resources.kind for node in nodes)
    return {kind: [node for node in nodes if node.resources.kind == kind] for kind in kinds}


def abreast(needs: Sequence[Need], node: Node, trials: int) -> int:
    """Return how many trials may share each GPU of `node`, whatever model they have."""
    cpus, gpus = node.resources.cpus, node.resources.gpus
    most = min(*(need.together for need in needs), cpus // gpus, math.ceil(trials / gpus))
    return canary.most_of(most)


def with_share(planned: Plan, slots: Mapping[str | None, int], nodes: Sequence[Node]) -> Plan:
    """Return the plan with so many slots on a GPU of each kind, and as many CPUs for each as there are then.

    A GPU whose kind has no name, or comes later, has the fewest.
    """
    largest = share_of_gpu(min(slots.values()))
    shares = {kind: share_of_gpu(count) for kind, count in slots.items() if kind is not None}
    slot = Slot(1, largest, {kind: share for kind, share in shares.items() if share != largest})
    wide = widest(slot, [node.resources for node in nodes], planned.concurrency or planned.trials)
    slot = dataclasses.replace(slot, cpus=min(wide.cpus, planned.slot_cpus) or 1)
    return dataclasses.replace(planned.with_slot(slot), share_gpus=False)


def described(needs: Sequence[Need], together: int) -> str:
    """Return a sentence about how many trials share a GPU, and the need that decides it."""
    most = min(needs, key=lambda need: need.together)
    if most.problem is not None:
        return f"GPUs: a trial has one for itself, as a step of {most.model} failed: {most.problem}"
    trials = "a trial has one for itself" if together == 1 else f"{counted(together, 'trial')} share one"
    return (
        f"GPUs: {trials} ({most.gpu}); a step of {most.model}, batch {most.batch_size}, takes "
        f"{1000 * max(most.launch_s, most.device_s):.1f} ms, in which the GPU is busy for {most.busy:.0%}, and "
        f"{(most.peak + most.data) / 1e9:.1f} of {most.memory / 1e9:.0f} GB"
    )


def configurations(planned: Plan) -> Iterator[TrialConfig]:
    """Yield a configuration of each model that trials may have, at its largest batch and image size."""
    largest: dict[str, TrialConfig] = {}
    for space in planned.arms.values():
        for params in space.branches(("model", "freeze", *SIZES)):
            ranges = {name: high for name in SIZES if (high := getattr(space.distributions.get(name), "high", None))}
            config = space.config(params, threads=planned.slot_cpus, **ranges)
            known = largest.get(config.model)
            if known is None or _rows(config) > _rows(known):
                largest[config.model] = config
    yield from largest.values()


def _rows(config: TrialConfig) -> tuple[int, int, bool]:
    """Return what a step's memory grows with."""
    return (config.micro_batch or config.batch_size), config.image_size, not config.freeze


def _measured(context: SweepContext, nodes: Sequence[Node]) -> Iterator[GpuMeasured]:
    """Yield what each model's steps need on one GPU of every node; a node that does not answer is named."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from orchestrator.cluster import shared_images

    data, configs = shared_images.share(context.data), list(configurations(context.plan))
    remote = ray.remote(num_cpus=1, num_gpus=1, max_retries=0)(_needs)
    context.console.print(
        f"GPUs: {counted(2 * canary.STEPS, 'step')} of {counted(len(configs), 'model')} on each kind …"
    )
    asked = [
        (node, remote.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, False)).remote(configs, data))
        for node in nodes
    ]
    for node, result in asked:
        try:
            yield from (GpuMeasured(node.name, need) for need in ray.get(result, timeout=PATIENCE_S))
        except (ray.exceptions.RayError, ray.exceptions.GetTimeoutError) as error:
            ray.cancel(result, force=True)
            why = str(error).strip().splitlines()[0]
            context.console.print(f"warning: node {node.name}: its GPUs could not be measured ({why})", soft_wrap=True)


def _needs(configs: list[TrialConfig], data: SearchData) -> list[Need]:
    return [canary.measure(config, data) for config in configs]
