"""Time budgets: what a search leaves for the runs after it, how many trials are planned, and what is said before."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Command
from simulation import SPACE, Setup, Simulation

from orchestrator.cluster.machine import Resources
from orchestrator.plan import forecast, plan, resumption, time_budget
from orchestrator.plan.forecast import Forecast, StageForecast
from orchestrator.plan.options import SweepOptions
from orchestrator.plan.plan import Plan
from orchestrator.plan.request import Request
from orchestrator.record.events import Event, SearchClosed, SweepResumed, SweepStarted, TrialEnded, TrialProposed
from orchestrator.record.facts import Spec, Worker
from orchestrator.record.journal import read
from orchestrator.record.state import SweepState, TrialRecord, replay
from orchestrator.search.promotion import ROUND
from orchestrator.search.time_reserve import END_S, RUN_S, needed_s
from orchestrator.search.trial_queue import TrialQueue
from search_spaces.situation import UNREAD, Pictures
from trainables.config import TrialConfig

BUDGET = 600.0
QUEUE = TrialQueue({"": SPACE}, trials=10, seeds=2, best=3)


@pytest.fixture(autouse=True)
def _no_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # the power stays on here


def searched(number: int, score: float, epochs: int, seconds: float, **config: Any) -> TrialRecord:
    """Return a trial of some epochs that took `seconds` each, a tenth of them for evaluation."""
    settings = TrialConfig(**{"max_epochs": 9, **config}).to_dict()
    trial = TrialRecord(number, {}, settings, 0.0, index=number, score=score)
    took = {"train_s": 0.9 * seconds, "eval_s": 0.1 * seconds}
    for n in range(1, epochs + 1):
        trial.epochs.append({"epoch": n, **took, "score": score})
    return trial


def state_of(*trials: TrialRecord, **split: int) -> SweepState:
    return SweepState(Spec(split=dict(split)), {trial.number: trial for trial in trials})


def test_what_is_needed_is_the_time_of_full_runs_of_the_best() -> None:
    """Six runs of nine epochs of two seconds, on two slots: three rounds; and an epoch of those that run meanwhile."""
    good = [searched(number, 0.9, 3, 2.0) for number in range(3)]
    state = state_of(*good, searched(3, 0.1, 9, 100.0))  # a slow one is not among the best
    assert needed_s(state, QUEUE, 2) == pytest.approx(3 * (18 + RUN_S) + 2 + END_S)
    assert needed_s(state, QUEUE, 100) == pytest.approx(18 + RUN_S + 2 + END_S)
    assert needed_s(state, QUEUE, 0) == needed_s(state, QUEUE, 1)
    state.arm("").finals |= {(0, 0), (0, 1)}  # of an earlier command
    assert needed_s(state, QUEUE, 2) == pytest.approx(2 * (18 + RUN_S) + 2 + END_S)
    assert needed_s(SweepState(), QUEUE, 2) is None


def test_a_refit_takes_longer_by_its_rows() -> None:
    trial = searched(0, 0.9, 3, 2.0)
    trial.worker = Worker(train_rows=400)
    queue = replace(QUEUE, seeds=0, refit_runs=1)
    state = state_of(trial, pool_rows=700, validation_rows=100)
    assert needed_s(state, queue, 1) == pytest.approx(2 * (18 + RUN_S) + 2 + END_S)


def story(folder: Path, **setup: Any) -> list[Event]:
    simulation = Simulation(folder, Setup(trials=8, seeds=2, best=3, budget=BUDGET, **setup))
    simulation.run()
    return read(simulation.path)[0]


@pytest.mark.parametrize("slots", [1, 4])
def test_a_search_ends_in_time_for_its_confirmation(tmp_path: Path, slots: int) -> None:
    """Far more trials than the 8 that were planned for are run; their confirmation ends within the budget."""
    events = story(tmp_path, slots=slots)
    (place,) = [place for place, event in enumerate(events) if isinstance(event, SearchClosed)]
    proposed = [event for event in events if isinstance(event, TrialProposed)]
    assert len(proposed) > 3 * 8
    assert [event.final for event in proposed] == [False] * (len(proposed) - 6) + [True] * 6
    assert not any(isinstance(event, TrialProposed) and not event.final for event in events[place:])
    closed = events[place]
    assert isinstance(closed, SearchClosed)
    assert closed.runs == 6
    assert closed.left <= min(BUDGET / 3, closed.needed)
    state = replay(events)
    assert {trial.status for trial in state.trials.values() if trial.final} == {"completed"}
    assert slots > 1 or events[-1].t - events[0].t <= BUDGET  # a simulated clock runs for one worker at a time
    cut = [event for event in events[place:] if isinstance(event, TrialEnded) and event.stop_reason == "time_budget"]
    assert len(cut) <= slots
    assert all(event.status == "stopped" for event in cut)


def test_a_further_command_reopens_the_search() -> None:
    """Unless it has a budget, a search that had as many trials as fit has those that it has."""
    events: list[Event] = [SweepStarted(Spec()), SearchClosed(10, 9, 6)]
    queue = replace(QUEUE, trials=3)
    state = replay(replace(event, n=n) for n, event in enumerate(events))
    assert queue.next(state) is None
    state = replay(replace(event, n=n) for n, event in enumerate([*events, SweepResumed(Spec())]))
    assert queue.next(state) is not None
    state.arm("").indices, state.arm("").finished = {0, 1, 2}, 3
    assert queue.next(state) is None
    assert replace(queue, open_ended=True).next(state) is not None


# The plan


def made(folder: Path, **given: Any) -> tuple[Plan, Request]:
    request = Request(SweepOptions(**{"dataset": "digits", "results": folder, **given}))
    return plan.make(request, [Resources(2, 0)]), request


@pytest.fixture
def expected(monkeypatch: pytest.MonkeyPatch) -> Callable[[Forecast | None], None]:
    """Return what sets the forecast: none is measured here, of no pictures."""
    monkeypatch.setattr(Pictures, "of", lambda data: UNREAD)

    def set_to(found: Forecast | None) -> None:
        monkeypatch.setattr(forecast, "forecast", lambda planned, data, slots: found)

    return set_to


def planned_for(folder: Path, **given: Any) -> tuple[Plan, str]:
    planned, request = made(folder, **given)
    return time_budget.planned_for(planned, request, [Resources(2, 0)], None)  # type: ignore[arg-type]


def of_search(seconds: float, end_s: float, trials: int = 16) -> Forecast:
    stage = StageForecast(trials, seconds / 2, seconds, 1.0, 0.0)
    return Forecast(0.0, 0.0, 1.0, 5, (stage,), end_s)


def test_as_many_trials_are_planned_as_fit(tmp_path: Path, expected: Callable[[Forecast | None], None]) -> None:
    """A trial takes 10 s at most, the confirmation 90: of an hour 3,492 s are left for trials."""
    expected(of_search(10.0 * made(tmp_path)[0].trials, 90.0))
    planned, warning = planned_for(tmp_path, time_budget="1h")
    assert (planned.trials, planned.open_ended, warning) == (349, True, "")
    assert (planned.confirm, planned.confirm_seeds) == (3, 3)
    limited, _ = planned_for(tmp_path, time_budget="1h", trials=500)
    assert (limited.trials, limited.open_ended) == (500, False)
    without, _ = planned_for(tmp_path)
    assert (without.trials, without.open_ended) == (made(tmp_path)[0].trials, False)
    expected(None)
    unknown, warning = planned_for(tmp_path, time_budget="1h")
    assert (unknown.trials, unknown.open_ended, warning) == (without.trials, True, "")


def test_few_trials_are_one_round(tmp_path: Path, expected: Callable[[Forecast | None], None]) -> None:
    """In a round of as many as usual the time would be over before any trial goes on from the first rung."""
    expected(of_search(10.0 * made(tmp_path)[0].trials, 90.0))
    few, _ = planned_for(tmp_path, time_budget="5m")
    assert few.trials < ROUND
    assert few.rounds == (few.trials,)
    assert planned_for(tmp_path, time_budget="1h")[0].rounds == ()
    state = SweepState()
    state.arm("").indices = set(range(few.trials + ROUND + 5))

    def resumed(**given: Any) -> Plan:
        request = Request(SweepOptions(results=tmp_path, resume="old", **given))
        return resumption.resume(request, few, state, [Resources(2, 0)])

    assert resumed(time_budget="1h").rounds == few.rounds
    ends = few.trials, few.trials + ROUND
    assert resumed(trials=100).rounds == (*ends, 100), "the rounds that it had, and one for what is added"


def test_a_budget_below_the_need_of_the_confirmation_is_named_with_numbers(
    tmp_path: Path, expected: Callable[[Forecast | None], None]
) -> None:
    expected(of_search(160.0, 90.0))
    for given in ({}, {"trials": 500}):
        _, warning = planned_for(tmp_path, time_budget="120s", confirm=3, confirm_seeds=2, **given)
        assert warning == (
            "warning: --time-budget 120s: the 6 runs after the search take about 100 s here, and at most a third of "
            "the time, 40 s, is kept for them: give 300s or more; or fewer: --confirm 1 --confirm-seeds 2, or none: "
            "--confirm 0"
        )
    assert planned_for(tmp_path, time_budget="120s", confirm=0, trials=500)[1] == ""
    assert planned_for(tmp_path, time_budget="5m", trials=500)[1] == ""


def test_a_resumed_sweep_has_more_trials_only_in_a_further_budget(tmp_path: Path) -> None:
    began = replace(made(tmp_path)[0], open_ended=True, trials=348)
    state = SweepState()
    state.arm("").indices = set(range(60))

    def resumed(**given: Any) -> Plan:
        request = Request(SweepOptions(results=tmp_path, resume="old", **given))
        return resumption.resume(request, began, state, [Resources(2, 0)])

    assert (resumed().trials, resumed().open_ended) == (60, False)
    assert (resumed(time_budget="1h").trials, resumed(time_budget="1h").open_ended) == (60, True)
    assert (resumed(trials=80).trials, resumed(trials=80).open_ended) == (80, False)


@pytest.mark.slow
def test_a_budget_ends_with_a_confirmed_winner(command: Command, tmp_path: Path) -> None:
    asked = ("--quick", "--max-epochs", "3", "--time-budget", "100s", "--confirm", "1", "--confirm-seeds", "2")
    done = command("orchestrator.sweep", "digits", *asked, "--results", tmp_path, "--name", "timed", "--json")
    assert done.code == 0, done.err
    assert done.result["ended"] == "finished"
    assert done.result["winner"]["test"]
    assert done.result["wall_s"] < 130
    assert "the search ends:" in done.err
    assert "as many as fit, about" in done.err
