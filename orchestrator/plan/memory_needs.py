"""The memory that trials need at least: a sweep that no machine can hold is refused before a trial starts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from orchestrator.cluster.machine import WORKER_BYTES, Nodes, Resources
from orchestrator.plan.plan import Plan
from trainables import autos
from trainables.config import TrialConfig
from trainables.errors import ConfigError, counted, sized
from trainables.model_names import BUILT_IN_MODELS

if TYPE_CHECKING:
    from trainables.splits import SearchData

NUMBER_BYTES = 4  # of a weight: float32
ROOMY_BYTES = 13e9  # for each slot, with which torchvision's largest net fits, and none is built to be counted
TWO_MOMENTS = ("adam", "adamw")
DECIDING = ("model", "weights", "stem", "freeze", "optimizer", "head_width", "ema", "selection")


def check(planned: Plan, nodes: Nodes, data: SearchData, resumed: bool = False) -> None:
    """Raise ConfigError if a machine has too little memory for as many trials as it would run at a time.

    Counted is what trials on CPUs cannot do without: torch and, of the largest net, the weights and, unless they are
    frozen, for each fold their gradients, the best ones so far, their average and the optimizer's moments. What a batch
    takes comes on top, and timm's nets and a user's are not counted.
    """
    slots = [(node, slots_on(planned, node)) for node in nodes]
    tight = [(node, count) for node, count in slots if count and node.memory < count * (WORKER_BYTES + ROOMY_BYTES)]
    if planned.slot_gpus or not tight:
        return
    need, name = max((_bytes(config, data), config.model) for config in _configs(planned))
    for node, count in tight:
        if count * need > node.memory:
            fitting = int(node.memory // need)
            fixes = []
            if fitting:  # `--slots` is of all machines together
                cpus = math.ceil(node.cpus / fitting)
                fixes = [f"--cpus-per-trial {cpus}" if len(nodes) > 1 else f"--slots {fitting}"]
            if not resumed:  # else the sweep has them
                fixes += ["--preset quick"] if planned.preset != "quick" and planned.recipe is None else []
                fixes += ["a smaller model (--set model=…)"]
            raise ConfigError(
                f"{counted(count, 'trial')} at a time, with {sized(need)} each at least for torch, {name} and what its "
                f"training keeps, do not fit into the {sized(node.memory)} that workers have here: use "
                f"{', '.join(fixes)}{' or ' if fixes else ''}a machine with more memory"
            )


def slots_on(planned: Plan, node: Resources) -> int:
    """Return how many trials run on a machine at a time, at most: no more than the sweep has of search or of runs after
    it, which wait for the search's end.
    """
    queue = planned.queue()
    most = max(queue.searched(), queue.most_owed())
    return min(node.capacity(planned.slot), most, planned.concurrency or most)


def _configs(planned: Plan) -> Iterator[TrialConfig]:
    """Yield a configuration of every kind that differs in what is kept."""
    for space in planned.arms.values():
        for params in space.branches(DECIDING):
            yield space.config(params)


def _bytes(config: TrialConfig, data: SearchData) -> int:
    """Return the bytes of a worker with a trial, without what a batch takes; of a net of a user's, those of torch."""
    if not BUILT_IN_MODELS.get(config.model, "").startswith(
        "torchvision_models:"
    ):  # small ones weigh nothing beside it
        return WORKER_BYTES
    import torch  # here: it takes a second, and most sweeps on CPUs are of small nets

    from trainables.models import build

    size = autos.image_size(config, data.images.shape[1:3], "cpu")
    try:
        with torch.device("meta"):
            model = build.build(autos.resolved(config, size), len(data.classes), size, initialized=False)
    except ConfigError:  # its trials will say so
        return WORKER_BYTES
    weights = sum(parameter.numel() for parameter in model.parameters())
    moments = 2 if config.optimizer in TWO_MOMENTS else int(config.momentum > 0)
    learning = 2 + moments + bool(config.ema) + (config.selection == "best")
    copies = 1 if config.freeze else learning * max(len(data.folds), 1)
    return WORKER_BYTES + NUMBER_BYTES * copies * weights
