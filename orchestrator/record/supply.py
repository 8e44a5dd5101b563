"""The supply of slots: what a sweep had of a cluster, and asked it for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Supply:
    """The slots and machines of a cluster that a sweep has now, and in seconds over all commands."""

    slots: int = 0
    nodes: int = 0  # machines that hold slots
    asked: int = 0  # slots that the cluster was asked for
    slot_s: float = 0.0
    node_s: float = 0.0
    asked_s: float = 0.0
    since: float | None = None  # the time of the last change

    def change(self, t: float, slots: int = 0, nodes: int = 0, asked: int = 0) -> None:
        """Count what there was until the time `t`, and note what there is from then on."""
        seconds = max(t - self.since, 0.0) if self.since is not None else 0.0
        self.slot_s += self.slots * seconds
        self.node_s += self.nodes * seconds
        self.asked_s += self.asked * seconds
        self.slots, self.nodes, self.asked, self.since = slots, nodes, asked, t
