"""Workers and nodes that die while they train."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from random import Random

import psutil
import pytest
from ray_cluster import Cluster, Node, ray_cluster

from chaos.conftest import Report, SweepMaker
from chaos.sweeps import CURVE, MOST_LOST_S, SLACK_S, WITNESS, Line, Sweep, check, check_plain, wait_for
from orchestrator.record.state import SweepState

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

SEED = 0
ALL = ("--scheduler", "none", "--sampler", "random")  # no trial depends on the results of another


def curves(state: SweepState) -> dict[int, list[list[object]]]:
    return {n: [[epoch[name] for name in CURVE] for epoch in trial.epochs] for n, trial in state.trials.items()}


def at_work(sweep: Sweep) -> dict[int, Line]:
    """Return the newest line of every trial that runs, by the journal and by the witness."""
    state = sweep.state()
    return {line["trial"]: line for line in sweep.witness() if state.running.get(line["trial"]) == line["attempt"]}


def test_one_worker_of_two_killed(sweeps: SweepMaker, short: bool, report: Report) -> None:
    """Its trial goes on from the saved state; the other trial is not affected."""
    plan = ("--trials", "2", "--max-epochs", "5", *ALL)
    calm = sweeps("calm")
    check_plain(calm.start(*plan).wait(), 0)
    expected = curves(check(calm, 2))
    sweep = sweeps("killed", epoch_s={"*": 1.0 if short else 4.0})
    running = sweep.start(*plan)
    wait_for(lambda: sweep.count("trial_epoch") >= 7, running)  # of ten; long epochs: both have saved their third
    time.sleep(0.2)
    working = at_work(sweep)
    assert len({line["pid"] for line in working.values()}) == 2
    victim = min(working)
    killed_at = time.time()
    psutil.Process(working[victim]["pid"]).kill()
    check_plain(running.wait(), 0)
    state = check(sweep, 2)
    running.wait_until_gone()
    assert curves(state) == expected
    assert {n: trial.attempt for n, trial in state.trials.items()} == {victim: 1, 1 - victim: 0}
    assert sweep.begun(1 - victim) == 1
    again = next(line for line in sweep.witness() if line.get("attempt") == 1 and "begins" in line)
    trained = [line for line in sweep.witness() if line["trial"] == victim and line["t"] < killed_at]
    lost_s = killed_at - max(line["t"] for line in trained if line.get("epoch", 0) <= again["begins"])
    assert lost_s <= MOST_LOST_S + SLACK_S
    report(
        "one worker of two killed (SIGKILL)",
        1,
        other_curve="equal to the bit",
        killed_curve="equal to the bit",
        epochs_trained=trained[-1].get("epoch", 0),
        gone_on_from_epoch=again["begins"],
        training_lost_s=round(lost_s, 1),
        seconds_to_go_on=round(again["t"] - killed_at, 1),
    )


@contextmanager
def nodes(sweep: Sweep, count: int) -> Iterator[tuple[Cluster, list[Node]]]:
    """Start a cluster that trains on its nodes alone, each with one CPU; training there writes to the witness."""
    with ray_cluster(cpus=0, environment=witnessed(sweep)) as cluster:
        yield cluster, [cluster.add_node(1, environment=witnessed(sweep)) for _ in range(count)]


def witnessed(sweep: Sweep) -> dict[str, str]:
    """Return the variables of a node's environment with which its trials write to the witness."""
    return {n: value for n, value in sweep.environment.items() if n.startswith("CHAOS_")} | {"PYTHONPATH": str(WITNESS)}


def goes_on(sweep: Sweep, lost: Line) -> bool:
    """Return whether the trial of this line trains again as a later attempt, or had just ended."""
    if sweep.state().trials[lost["trial"]].end is not None:
        return True
    return any(line["trial"] == lost["trial"] and line["attempt"] > lost["attempt"] for line in sweep.witness())


def all_go_on(sweep: Sweep, lost: list[Line]) -> bool:
    return all(goes_on(sweep, line) for line in lost)


def test_nodes_killed_and_added(sweeps: SweepMaker, short: bool, report: Report) -> None:
    """The raylet of one of two training nodes is killed, and a new node is added later, several times."""
    trials, kills = (3, 1) if short else (14, 5)
    random = Random(SEED)
    sweep = sweeps(epoch_s={"*": 2.0})
    recoveries, lost_to_kills = [], 0
    with nodes(sweep, 2) as (cluster, alive):
        running = sweep.start(
            "--trials", str(trials), "--max-epochs", "4", *ALL, "--address", cluster.address,
            environment=cluster.environment,
        )  # fmt: skip
        for _ in range(kills):
            wait_for(lambda: len(at_work(sweep)) == 2, running)
            time.sleep(random.uniform(0, 3))
            victim = alive.pop(random.randrange(2))
            pids = {process.pid for process in victim.processes()}
            before = {n: line for n, line in at_work(sweep).items() if line["pid"] in pids}
            victim.kill_raylet()
            killed_at = time.time()
            time.sleep(random.uniform(0, 3))
            alive.append(cluster.add_node(1, environment=witnessed(sweep)))
            wait_for(partial(all_go_on, sweep, list(before.values())), running)
            recoveries.append(round(time.time() - killed_at, 1))
            lost_to_kills += len(before)
        done = running.wait()
    check_plain(done, 0)
    state = check(sweep, trials)
    lost = [event for event in sweep.events() if event.kind == "attempt_lost"]
    assert lost
    assert {trial.status for trial in state.trials.values()} == {"completed"}
    report(
        f"raylet of a training node killed, a node added later, in one sweep of {trials} trials",
        kills,
        trials_at_the_end=len(state.trials),
        trials_at_work_there=lost_to_kills,
        attempts_lost=len(lost),
        run_twice=0,
        seconds_to_go_on=recoveries,
    )
