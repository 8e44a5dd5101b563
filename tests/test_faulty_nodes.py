"""Sweeps on clusters of which one node fails every trial that it is given, or goes with the winner's weights."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from ray_cluster import RAY, ray_cluster
from test_cluster import Sweeps, new, sweeps, unshared  # noqa: F401 - a fixture

from orchestrator.record.events import AttemptLost, PlaceSetAside
from orchestrator.record.state import replay

TRIALS = 24
NET = """
import os, time
from torch import nn

class Slow(nn.Flatten):
    def forward(self, images):
        time.sleep(SECONDS)
        return super().forward(images)

def small(num_classes):
    if "SICK" in os.environ:
        raise RuntimeError("uncorrectable ECC error")
    return nn.Sequential(Slow(), nn.Linear(3 * 8 * 8, num_classes))
"""
"""A net that takes as long for a trial as a worker for its start, so that the sick node gets several trials."""


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("healthy", [1, 2])
def test_all_trials_complete_elsewhere(healthy: int, sweeps: Sweeps, tmp_path: Path) -> None:  # noqa: F811
    code = new(tmp_path / "code")
    (code / "own_nets.py").write_text(NET.replace("SECONDS", str(0.025 * healthy)))
    asked = ("--set", "model=own_nets:small", "--trials", str(TRIALS), "--scheduler", "none", "--name", "sick")
    with ray_cluster(0) as cluster:
        for _ in range(healthy):
            cluster.add_node(1)
        sick = cluster.add_node(1, environment={"SICK": "yes"})
        attached = (*asked, "--address", cluster.address)
        with sweeps.started(*attached, PYTHONPATH=str(code), **cluster.environment) as process:
            _, err = process.communicate(timeout=250)
    assert process.returncode == 0, err
    events = sweeps.events("sick")
    state = replay(events)
    assert [trial.status for trial in state.trials.values()] == ["completed"] * TRIALS
    assert max(trial.attempt for trial in state.trials.values()) <= 2
    places = {event.place.node_id for event in events if isinstance(event, PlaceSetAside)}
    assert places == {sick.node_id}
    lost = [event for event in events if isinstance(event, AttemptLost)]
    assert {event.place and event.place.node_id for event in lost} == places
    assert "set aside" in err
    assert "uncorrectable ECC error" in err


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_winners_weights_were_on_a_node_that_went(sweeps: Sweeps) -> None:  # noqa: F811
    """Its disk is its own. The run is trained again on another node, by this command or the next."""
    away = (*unshared([sweeps.results]), *RAY)
    asked = ("--trials", "2", "--confirm", "1", "--confirm-seeds", "2", "--name", "gone")
    with ray_cluster(0) as cluster:
        first = cluster.add_node(1, ray=away)
        with sweeps.started(*asked, "--address", cluster.address, **cluster.environment) as process:
            sweeps.wait_for(process, lambda: finals(sweeps) >= 1, 120)
            first.kill()
            cluster.add_node(1, ray=away)
            _, err = process.communicate(timeout=200)
        if process.returncode:
            assert "--resume" in err
            again = ("--resume", "gone", "--results", str(sweeps.results), "--address", cluster.address)
            done = subprocess.run(
                [sys.executable, "-m", "orchestrator.sweep", *again],
                env=sweeps.environment(**cluster.environment), cwd=ROOT, capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert done.returncode == 0, err + done.stderr
    state = replay(sweeps.events("gone"))
    assert finals(sweeps) == 2
    assert (sweeps.results / "gone" / "best" / "model.safetensors").exists()
    assert (sweeps.results / "gone" / "report.html").exists()
    assert any("test" in trial.final_metrics for trial in state.trials.values())


def finals(sweeps: Sweeps) -> int:  # noqa: F811
    """Return the number of confirmation runs that have ended."""
    return sum(trial.final and trial.end is not None for trial in replay(sweeps.events("gone")).trials.values())
