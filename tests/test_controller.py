"""Tune's controller as a sweep has it: workers are kept and left alone, and trials that have ended are let go."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from conftest import ROOT

from orchestrator.cluster.controller import IdleWorkers, SweepTrial


def cached(idle: IdleWorkers, *workers: str, key: str = "1 CPU") -> list[bool]:
    return [idle.cache_object(key, worker) for worker in workers]


def test_idle_workers_are_kept_while_there_are_trials_to_come() -> None:
    to_come = 3
    idle = IdleWorkers(lambda: to_come)
    assert cached(idle, "a", "b", "c", "d") == [True, True, True, False]
    assert list(idle.flush_cached_objects()) == []
    assert idle.pop_cached_object("1 CPU") == "a"
    to_come = 1
    assert list(idle.flush_cached_objects()) == ["b", "c"]


def test_one_idle_worker_is_kept_as_tune_does_where_nothing_is_to_come() -> None:
    idle = IdleWorkers(lambda: 0)
    assert cached(idle, "a", "b") == [True, False]
    assert list(idle.flush_cached_objects()) == []
    assert list(idle.flush_cached_objects(force_all=True)) == ["a"]


def test_idle_workers_make_way_for_a_trial_that_needs_others() -> None:
    idle = IdleWorkers(lambda: 5)
    assert cached(idle, "a", "b") == [True, True]
    idle.increase_max("1 CPU, not on node 3")
    assert list(idle.flush_cached_objects()) == ["a", "b"]
    assert cached(idle, "c") == [False]


SCRIPT = """
import json, sys
from collections import Counter
from pathlib import Path
from benchmarks import driver_cost
from orchestrator.cluster import connection

made, counts, most = Counter(), Counter(), Counter()

def counting(owner, name):
    original = getattr(owner, name)
    def counted(*arguments, **options):
        counts[name] += 1
        return original(*arguments, **options)
    setattr(owner, name, counted)

with connection.connect("local"):
    from ray.air.execution.resources import request
    from orchestrator.cluster.controller import Controller
    counting(request, "placement_group")
    counting(Controller, "_remove_actor")
    step = Controller.step
    def measured(self):
        step(self)
        known = (self._trials, self._live_trials, self._stopped_trials, self._trials_to_cache)
        most["trials"] = max(most["trials"], *map(len, known))
        made.update(actor.actor_id for actor in self._actor_to_trial)
    Controller.step = measured
    run = driver_cost.measure(Path(sys.argv[1]) / "sweep", 150, "random asha", 0)
print(json.dumps({"groups": counts["placement_group"], "removed": counts["_remove_actor"],
                  "most": most["trials"], "workers": sorted(made.values())}))
"""


@pytest.fixture(scope="module")
def counts(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what a sweep of 150 stub trials in two slots did."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path_factory.mktemp("sweep")],
        capture_output=True, text=True, cwd=ROOT, env=environment, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
def test_two_workers_run_all_trials_of_two_slots(counts: dict[str, Any]) -> None:
    """Tune would end a worker that starts when another one is free, and ask for one more, for each brief trial."""
    assert counts["groups"] == 2
    assert counts["removed"] <= 1, "the last two trials end one after the other"
    assert min(counts["workers"]) > 50


@pytest.mark.slow
def test_trials_that_have_ended_are_let_go(counts: dict[str, Any]) -> None:
    assert counts["most"] <= 4


def test_a_trial_has_no_more_calls_or_books_than_are_read() -> None:
    trial = SweepTrial("stub", stub=True)
    trial.set_ray_actor(object())  # has no method to call
    trial.update_last_result({"epochs": [1], "score": 0.5})
    assert trial.last_result == {"epochs": [1], "score": 0.5, "trial_id": trial.trial_id}
    assert trial.metric_analysis == {}
