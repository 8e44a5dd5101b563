"""A sweep on a cluster that grows and shrinks, by Ray's own autoscaler."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from autoscaling import autoscaling_cluster
from ray_cluster import Cluster
from test_cluster import Sweeps, concurrency, sweeps  # noqa: F401 - a fixture

from orchestrator.record.events import Event, SlotsChanged, TrialEnded
from orchestrator.record.state import replay

SLOTS = ("--slots", "0..4", "--cpus-per-trial", "1", "--gpus-per-trial", "0")


def counts(events: list[Event]) -> list[tuple[int, int, int]]:
    """Return slots, nodes with slots, and slots asked for, at each change."""
    return [(event.slots, event.nodes, event.asked) for event in events if isinstance(event, SlotsChanged)]


def end_nodes(cluster: Cluster, keep: int = 0) -> None:
    """Kill all nodes but the head and `keep` others, as when a provider takes its machines back."""
    raylets = [process for process in cluster.head.processes() if process.name() == "raylet"]
    workers = [process for process in raylets if "--head" not in process.cmdline()]
    for process in sorted(workers, key=psutil.Process.create_time)[keep:]:
        process.kill()


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_from_no_nodes_to_four_to_none_to_some(sweeps: Sweeps, tmp_path: Path) -> None:  # noqa: F811
    long = ("--trials", "6", "--max-epochs", "5", "--scheduler", "none", "--set", "batch_size=4")
    with autoscaling_cluster(tmp_path, cpus=1, most=4) as cluster:
        arguments = (*long, *SLOTS, "--name", "grows", "--address", cluster.address)
        with sweeps.started(*arguments, **cluster.environment) as process:
            sweeps.wait_for(process, lambda: (4, 4, 4) in counts(sweeps.events("grows")), 120)
            sweeps.wait_for(process, lambda: any(isinstance(e, TrialEnded) for e in sweeps.events("grows")), 120)
            end_nodes(cluster)
            began = len(counts(sweeps.events("grows")))
            sweeps.wait_for(process, lambda: any(n == 0 for n, *_ in counts(sweeps.events("grows"))[began:]), 60)
            _, err = process.communicate(timeout=250)
    assert process.returncode == 0, err
    events = sweeps.events("grows")
    state = replay(events)
    assert counts(events)[0] == (0, 0, 4)
    assert max(concurrency(events)) == 4
    assert {trial.status for trial in state.trials.values()} == {"completed"}
    assert len(state.trials) == 6
    assert any(asked < 4 for *_, asked in counts(events))  # at the end, when few trials are left
    assert state.supply.node_s > 0
    assert "node-hours" in err
