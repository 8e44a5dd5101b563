"""A cluster with two kinds of GPUs, of which each runs as many trials at a time as suit it."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import ray
import tiny
from conftest import ROOT
from ray import tune
from ray_cluster import Cluster, Node, ray_cluster

from orchestrator.cluster.machine import Slot
from orchestrator.cluster.process_state import environment_for_ray
from orchestrator.record.events import SweepStarted
from orchestrator.record.facts import Spec
from orchestrator.record.journal import Journal
from orchestrator.record.state import SweepState
from orchestrator.record.trial_record import TrialRecord
from orchestrator.search.schedulers import ByArm
from orchestrator.search.searcher import JournalSearcher
from orchestrator.search.stopping import NeverStop
from orchestrator.search.study import JournalStudy
from orchestrator.search.trial_queue import TrialQueue
from orchestrator.search.tuning import Ending, run
from orchestrator.search.workers import Workers
from search_spaces.space import SearchSpace, uniform
from trainables.storage import Storage
from trainables.trainable import ImageTrial


class Timed(ImageTrial):
    """An `ImageTrial` that takes a second, and tells its share of a logical GPU."""

    def _begin(self) -> dict[str, Any]:
        time.sleep(1)
        share = ray.get_runtime_context().get_assigned_resources()["GPU"]
        return {**super()._begin(), "unsaved": f"share {share:g}"}


def swept(cluster: Cluster, folder: Path, trials: int, beside: Callable[[SweepState], object]) -> list[TrialRecord]:
    """Run trials on a node with a whole logical GPU a slot, and on one with quarters; return them.

    Args:
        beside: called in a thread, with the state of the sweep.
    """
    paths = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    with pytest.MonkeyPatch.context() as patch, closing(Journal(folder / "journal.jsonl")) as journal:
        for name, value in cluster.environment.items():
            patch.setenv(name, value)
        ray.init(cluster.address, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": paths}})
        try:
            space = SearchSpace(tiny.config(max_epochs=1), {"dropout": uniform(0.0, 0.4)})
            journal.append(SweepStarted(Spec(plan={"name": "mixed"})))
            queue, slot = TrialQueue({"": space}, trials), Slot(1, 1.0, {"Fast": 0.25})
            searcher = JournalSearcher(
                *(journal, queue, rule := ByArm({"": NeverStop()}), {"": JournalStudy(space, "random", 0)}),
                *(lambda number, due, params: space.config(params, seed=number), lambda: 5),
                workers=Workers.of_slots(slot),
            )
            shared = {"data": ray.put(tiny.search_data()), "storage": Storage(str(folder)), "device": "cpu"}
            trainable = tune.with_parameters(Timed, **shared, weights={}, run="test")
            with environment_for_ray({}), ThreadPoolExecutor(1) as threads:
                done = threads.submit(beside, journal.state)
                assert run(journal, searcher, rule, trainable, {"cpu": 1, "gpu": 1.0}, Ending()) == "finished"
                done.result()
        finally:
            ray.shutdown()
    found = list(journal.state.trials.values())
    assert {trial.status for trial in found} == {"completed"}
    return found


@contextmanager
def two_kinds() -> Iterator[tuple[Cluster, Node, Node]]:
    """Start a cluster with a node for whole logical GPUs, and one for quarters."""
    kind = '--resources={"accelerator_type:%s": 1}'
    with ray_cluster(0, token=False) as cluster:
        whole = cluster.add_node(1, "--num-gpus=1", kind % "Slow")
        yield cluster, whole, cluster.add_node(4, "--num-gpus=1", kind % "Fast")


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_each_kind_of_gpu_runs_as_many_trials_as_suit_it(tmp_path: Path) -> None:
    with two_kinds() as (cluster, whole, quarters):
        trials = swept(cluster, tmp_path, 15, lambda state: None)
    places = Counter((trial.worker.node_id, trial.gpus, trial.unsaved) for trial in trials)
    assert set(places) == {(whole.node_id, 1.0, "share 1"), (quarters.node_id, 0.25, "share 0.25")}
    assert places[quarters.node_id, 0.25, "share 0.25"] > places[whole.node_id, 1.0, "share 1"] > 0


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_waits_for_a_kind_that_has_left_goes_to_the_other(tmp_path: Path) -> None:
    """Kill the larger node, Ray and all, while its workers start: its attempts go elsewhere."""
    with two_kinds() as (cluster, whole, quarters):

        def kill(state: SweepState) -> None:
            deadline = time.monotonic() + 60
            while len(state.running) < 5 and time.monotonic() < deadline:
                time.sleep(0.05)
            quarters.kill()

        trials = swept(cluster, tmp_path, 8, kill)
    last = [trial for trial in trials if trial.lost or trial.attempt]
    assert last, "the node was killed too late"
    assert {(trial.worker.node_id, trial.gpus) for trial in last} == {(whole.node_id, 1.0)}
