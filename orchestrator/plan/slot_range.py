"""Slots: how large a trial's share of a machine is, and how many of them a sweep has at least and at most.

A local sweep has the machine as it is. On a cluster slots may come later: `--slots MIN..MAX` begins with MIN, which may
be 0, and asks for MAX.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from orchestrator.cluster.machine import WORKER_BYTES, Nodes, Resources, Slot, capacity, share_of_gpu, widest
from orchestrator.plan.options import SweepOptions
from trainables.errors import ConfigError, counted, sized


@dataclass(frozen=True)
class SlotRange:
    """The fewest slots with which a sweep begins, and the most that it uses: None for as many as fit."""

    least: int = 1
    most: int | None = None

    @classmethod
    def parse(cls, text: str | int) -> SlotRange | None:
        """Return the range of `4`, `2..8` or `auto`; None if the text is none of these."""
        if text == "auto":
            return cls()
        match = re.fullmatch(r"(\d+)(?:\.\.(\d+))?", str(text).strip())
        return None if match is None else cls(int(match[1]), int(match[2] or match[1]))


def asked(options: SweepOptions) -> SlotRange:
    """Return the range that `--slots` asks for, once it is checked."""
    return SlotRange.parse(options.slots) or SlotRange()


def check(options: SweepOptions) -> list[str]:
    """Return what is wrong with `--slots` itself."""
    wanted = SlotRange.parse(options.slots)
    if wanted is None:
        return [f"--slots {options.slots}: allowed are a number, such as 4, MIN..MAX, such as 0..8, and auto"]
    if wanted.most is not None and wanted.most < max(wanted.least, 1):
        return [f"--slots {options.slots}: MAX is {wanted.most}; at least {max(wanted.least, 1)} is needed"]
    if wanted.least < 1 and options.address == "local":
        return [f"--slots {options.slots}: only a cluster can begin without slots (--address); MIN is 1 or more here"]
    return []


def check_share(options: SweepOptions, nodes: Nodes) -> list[str]:
    """Return a message for each resource of which a trial asks for more than any machine has, or will have."""
    problems = []
    gpu, cpus = options.gpus_per_trial, options.cpus_per_trial
    most_gpus, most_cpus = (max((getattr(node, name) for node in nodes), default=0) for name in ("gpus", "cpus"))
    may_come = asked(options).least < 1
    if gpu != "auto" and not 0 <= gpu <= 1:
        problems.append(f"--gpus-per-trial {gpu:g}: allowed are 0 to 1; a trial trains on one GPU or on a share of it")
    if gpu != "auto" and gpu > most_gpus and not may_come:
        why = "".join(f" ({reason})" for node in nodes for reason in node.unusable)
        problems.append(
            f"--gpus-per-trial {gpu:g}: no machine here has more than {most_gpus}{why}; "
            "ask for fewer, or attach to a cluster by --address"
        )
    if cpus != "auto" and cpus > most_cpus and not may_come:
        problems.append(f"--cpus-per-trial {cpus}: no machine here has more than {most_cpus}; ask for fewer")
    return problems


def gpus(options: SweepOptions, nodes: Nodes) -> float:
    """Return the GPUs of a trial: what is asked for, else a whole one, if any machine has some.

    More slots than GPUs on machines of which no more will come share them.
    """
    if options.gpus_per_trial != "auto":
        return options.gpus_per_trial
    there = sum(node.gpus for node in nodes)
    most = asked(options).most if options.address == "local" else None
    if there == 0 or most is None or most <= there:
        return float(there > 0)
    return share_of_gpu(math.ceil(most / there))


def size(options: SweepOptions, nodes: Nodes, trials: int) -> Slot:
    """Return a trial's share: one CPU each does the most work, more are used only if trials are few.

    Raises:
        ConfigError: it cannot be found out, as there are no machines yet.
    """
    cpus, slot, wanted = options.cpus_per_trial, Slot(1, gpus(options, nodes)), asked(options)
    if wanted.least < 1 and "auto" in (cpus, options.gpus_per_trial) and capacity(nodes, slot) < 1:
        raise ConfigError(
            f"--slots {options.slots}: there is no machine yet to share, so say what a trial needs: "
            "--cpus-per-trial N --gpus-per-trial F"
        )
    return widest(slot, nodes, wanted.most or trials) if cpus == "auto" else Slot(cpus, slot.gpus)


def check_capacity(slots: SlotRange, slot: Slot, nodes: Nodes, *, grows: bool) -> None:
    """Raise ConfigError if a slot fits on no machine, or too few fit on all.

    Args:
        slot: a trial's share.
        grows: machines may come while the sweep runs.
    """
    fitting = capacity(nodes, slot) if slot.cpus else 0
    if fitting < 1 and slots.least > 0:
        most = f"the largest has {', '.join(_has(node) for node in sorted(nodes, key=_size)[-1:]) or 'nothing'}"
        later = "; --slots 0..MAX begins without any and asks the cluster for them" if grows else ""
        raise ConfigError(
            f"no machine has the capacity for a trial of {slot} each ({most}): ask for less, or for another "
            f"cluster{later}"
        )
    wanted = slots.least if grows else slots.most or slots.least
    if wanted > fitting:
        fewer = f"{fitting}..{max(slots.most or 0, slots.least)}" if grows else str(fitting)
        memory = f" and {sized(WORKER_BYTES)} of memory" if any(node.is_tight(slot) for node in nodes) else ""
        raise ConfigError(
            f"--slots: {wanted} are asked for, and at most {fitting} fit at a time, {slot}{memory} each; "
            f"ask for --slots {fewer}"
        )


def _size(node: Resources) -> tuple[int, int]:
    return node.gpus, node.cpus


def _has(node: Resources) -> str:
    return f"{counted(node.cpus, 'CPU')} and {counted(node.gpus, 'GPU')}"
