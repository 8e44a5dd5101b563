"""A trial without memory is tried again alone on its GPU, then with fewer and fewer rows at a time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ray
import tiny
import torch
from conftest import ROOT
from ray import tune
from simulation import SPACE, Setup, Simulation, curve

from orchestrator.cluster.machine import Slot
from orchestrator.cluster.process_state import environment_for_ray
from orchestrator.display.text import incident_line
from orchestrator.record.events import AttemptLost, Event, SweepStarted, TrialAttempt, TrialEnded, TrialProposed
from orchestrator.record.facts import Place, Spec, Worker
from orchestrator.record.journal import Journal, read
from orchestrator.search.outcomes import LEAST_ROWS
from orchestrator.search.schedulers import ByArm
from orchestrator.search.searcher import JournalSearcher
from orchestrator.search.stopping import AshaStopping
from orchestrator.search.study import JournalStudy
from orchestrator.search.trial_queue import TrialQueue
from orchestrator.search.tuning import Ending, run
from orchestrator.search.workers import Workers
from search_spaces.space import SearchSpace, uniform
from trainables.storage import Storage
from trainables.trainable import ImageTrial

WHOLE = SPACE.base.replace(batch_size=64).to_dict()


def limited(most: int) -> Any:
    """Return what is learned where at most so many rows have space at a time."""

    def learned(config: dict[str, Any], epoch: int) -> dict[str, Any]:
        rows = config["micro_batch"] or config["batch_size"]
        if rows > most and epoch > 1:
            return {"happened": "out_of_memory", "error": "CUDA out of memory", "micro_batch": rows}
        return curve(config, epoch)

    return learned


def simulated(folder: Path, most: int, **fields: Any) -> tuple[list[Event], dict[int, list[Event]]]:
    """Run a sweep whose workers have space for so many rows; return its events, all and by trial."""
    rule = AshaStopping(max_epochs=5, grace=5, factor=2)  # stops nothing
    journal = Simulation(folder, Setup(trials=8, rule=rule, learned=limited(most), **fields)).run()
    events, _ = read(journal.path)
    by_trial: dict[int, list[Event]] = {}
    for event in events:
        if (number := getattr(event, "trial", None)) is not None:
            by_trial.setdefault(number, []).append(event)
    return events, by_trial


def test_trials_that_are_too_large_are_made_smaller_and_complete(tmp_path: Path) -> None:
    _, trials = simulated(tmp_path, most=16, slots=2)
    needed = set()
    for events in trials.values():
        (batch,) = (event.config["batch_size"] for event in events if isinstance(event, TrialProposed))
        rows = [event.micro_batch for event in events if isinstance(event, AttemptLost)]
        needed.add((batch, *rows))
        assert isinstance(events[-1], TrialEnded)
        assert events[-1].status == "completed"
        assert sum(isinstance(event, TrialAttempt) for event in events) == 1 + len(rows)
    assert needed <= {(16,), (32, 16), (48, 24, 12), (64, 32, 16)}
    assert len(needed) > 1


def test_a_run_that_confirms_begins_with_what_the_trial_needed(tmp_path: Path) -> None:
    _, trials = simulated(tmp_path, most=16, seeds=2, best=4)
    configs = {n: event.config for n, events in trials.items() if isinstance(event := events[0], TrialProposed)}
    finals = [event for events in trials.values() if isinstance(event := events[0], TrialProposed) and event.final]
    assert len(finals) == 8
    for final in finals:
        lost = [event.micro_batch for event in trials[int(final.confirms or 0)] if isinstance(event, AttemptLost)]
        assert final.config["micro_batch"] == (lost[-1] if lost else 0)
        assert not any(isinstance(event, AttemptLost) for event in trials[final.trial])
    assert any(config["micro_batch"] for config in configs.values())


def test_settings_that_never_fit_end_the_trial(tmp_path: Path) -> None:
    _, trials = simulated(tmp_path, most=LEAST_ROWS - 1)
    for events in trials.values():
        end = events[-1]
        assert isinstance(end, TrialEnded)
        assert (end.status, end.stop_reason, end.fault) == ("failed", "out_of_memory", "settings")


def test_a_worker_says_what_it_ran_with() -> None:
    assert Worker(micro_batch=8).resolve(WHOLE) == {**WHOLE, "micro_batch": 8}
    assert Worker().resolve(WHOLE) == WHOLE


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (
            AttemptLost(3, 0, "x", "out_of_memory", False, Place("a", "1", "GPU 0"), alone=True),
            "trial 3 was out of memory beside others on a, GPU 0; it goes on alone on a GPU",
        ),
        (
            AttemptLost(3, 0, "x", "out_of_memory", False, None, micro_batch=8),
            "trial 3 was out of memory; it goes on with at most 8 rows at a time, which leaves the gradients those of "
            "the whole batch",
        ),
    ],
)
def test_people_hear_of_it(event: AttemptLost, expected: str) -> None:
    assert incident_line(event) == expected


LIMITED = """
import json, resource, sys
sys.path[:0] = ["tests"]
from pathlib import Path
from test_trainable import Alone, assignment, run
folder = Path(sys.argv[1])
fields = {"model": "resnet20", "batch_size": 60, "max_epochs": 1, "image_size": 64}
run(Alone(assignment(trial=9, **{**fields, "micro_batch": 4}), folder))  # loads all that is needed
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 120 * 2**20, resource.RLIM_INFINITY))
rows, told = 0, []
while True:
    last = run(Alone(assignment(micro_batch=rows, **fields), folder))[-1]
    if "incident" not in last:
        break
    told.append((last["incident"]["happened"], last["incident"]["micro_batch"], last["incident"]["alone"]))
    rows = max(told[-1][1] // 2, 4)
print(json.dumps([told, last["worker"]["micro_batch"], last["end"]["status"]]))
"""


@pytest.mark.slow
def test_memory_that_is_really_used_up_is_survived(tmp_path: Path) -> None:
    """Train under a limit of the address space, in another process, until few enough rows are computed at a time."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, cwd=ROOT, timeout=100
    )
    assert done.returncode == 0, done.stderr
    told, rows, status = json.loads(done.stdout.splitlines()[-1])
    assert told[0] == ["out_of_memory", 60, True]
    assert all(happened == "out_of_memory" for happened, _, _ in told), told
    assert 4 <= rows < 60
    assert status == "completed"


class Crowded(ImageTrial):
    """An `ImageTrial` on a share of a logical GPU, of which every other one is out of memory beside others."""

    def _begin(self) -> dict[str, Any]:
        self._share = share = ray.get_runtime_context().get_assigned_resources()["GPU"]  # as if it trained on it
        if share < 1 and self._assignment["trial"] % 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return {**super()._begin(), "unsaved": f"share {share:g}"}


@pytest.mark.slow
def test_a_trial_gets_a_whole_gpu_of_rays(tmp_path: Path) -> None:
    """Run six trials on two halves of each of two logical GPUs: those that need one get a whole one, and none waits."""
    paths = [str(ROOT), str(ROOT / "tests")]
    ray.init(
        num_cpus=4, num_gpus=2, include_dashboard=False, log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": ":".join(paths)}},
    )  # fmt: skip
    try:
        space = SearchSpace(tiny.config(max_epochs=1), {"dropout": uniform(0.0, 0.4)})
        journal = Journal(tmp_path / "journal.jsonl")
        journal.append(SweepStarted(Spec(plan={"name": "crowded"})))
        rule, ending = ByArm({"": AshaStopping(1, 1, 2)}), Ending()
        searcher = JournalSearcher(
            *(journal, TrialQueue({"": space}, 6), rule, {"": JournalStudy(space, "random", 0)}),
            *(lambda number, due, params: space.config(params, seed=number), lambda: 4),
            workers=Workers.of_slots(Slot(1, 0.5)),
        )
        shared = {"data": ray.put(tiny.search_data()), "storage": Storage(str(tmp_path)), "device": "cpu"}
        trainable = tune.with_parameters(Crowded, **shared, weights={}, run="test")
        with environment_for_ray({}):
            assert run(journal, searcher, rule, trainable, {"cpu": 1, "gpu": 0.5}, ending) == "finished"
    finally:
        ray.shutdown()
    journal.close()
    for number, trial in journal.state.trials.items():
        assert trial.status == "completed"
        assert (trial.alone, trial.attempt, trial.unsaved) == (
            (True, 1, "share 1") if number % 2 else (False, 0, "share 0.5")
        )
