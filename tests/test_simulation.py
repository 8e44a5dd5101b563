"""Thousands of sweeps whose workers and drivers are killed: the record ends as if nothing had happened."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from simulation import CALM, GRID, SPACE, Chaos, Setup, Simulation, outcome

from orchestrator.cluster.machine import Slot
from orchestrator.record.events import (
    AttemptLost,
    Event,
    PlaceSetAside,
    SearchExhausted,
    TrialAttempt,
    TrialEnded,
    TrialEpoch,
    TrialEvent,
    TrialPaused,
    TrialProposed,
)
from orchestrator.record.journal import read
from orchestrator.record.ranking import best_trials
from orchestrator.record.state import SweepState, fold, replay
from orchestrator.search.outcomes import MOST_LOSSES
from orchestrator.search.promotion import Asha, Rounds
from orchestrator.search.schedulers import StopRule
from orchestrator.search.stopping import AshaStopping, Median
from search_spaces.grid import Grid
from search_spaces.space import SearchSpace, choice, log

ROUGH = Chaos(kill=0.03, lose=0.05, late=0.5, signal=0.01)
DEADLY = Chaos(kill=0.15, lose=0.03, late=0.5, signal=0.02)

STOPPING = AshaStopping(5, 1, 2)


def promoting(*trials: int, keep: int = 2) -> Asha:
    """Return the rule with rungs at epochs 1 and 2 of 5."""
    return Asha(5, 1, 3, Rounds(trials, keep), SPACE)


@pytest.fixture(autouse=True)
def _no_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out flushes, which protect from a loss of power and cost most of the time here.

    The simulation only kills processes, which loses nothing that the kernel has. tests/test_journal.py holds that
    flushes happen.
    """
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[Path]:
    """Yield a new folder for every sweep."""
    return new_folders(tmp_path)


def new_folders(tmp_path: Path) -> Iterator[Path]:
    for i in itertools.count():
        (folder := tmp_path / str(i)).mkdir()
        yield folder


def check(simulation: Simulation, rule: StopRule, trials: int | None) -> list[Event]:
    """Check all that must hold of a finished sweep, whatever happened to it, and return its events."""
    events, damaged = read(simulation.path)
    assert not damaged
    state = replay(events)
    trials = len(state.trials) if trials is None else trials
    assert sorted(state.trials) == list(range(trials)), "numbering has a hole, or trials are missing"
    assert state.finished == trials
    assert not state.running
    assert not state.waiting
    ends = Counter(event.trial for event in events if isinstance(event, TrialEnded))
    assert set(ends.values()) <= {1}
    for trial in state.trials.values():
        assert [epoch["epoch"] for epoch in trial.epochs] == list(range(1, len(trial.epochs) + 1))
    check_decisions(events, rule)
    return events


def check_decisions(events: list[Event], rule: StopRule) -> None:
    """Check that every epoch's decision follows from the rule and what was known then, and that ends are final."""
    state = SweepState()
    due: dict[int, bool] = {}
    paused_at: dict[int, int] = {}
    for event in events:
        trial = state.trials.get(event.trial) if isinstance(event, TrialEvent) else None
        if trial is not None:
            assert trial.end is None, "something happened to a trial after its end"
        if isinstance(event, TrialEpoch):
            assert trial is not None
            assert not due.get(event.trial), "a trial that the rule stops went on"
            score = trial.score_with(event.metrics)
            due[event.trial] = not trial.final and rule.stops(state, trial, event.metrics["epoch"], score)
        elif isinstance(event, TrialEnded) and event.stop_reason == rule.reason:
            assert trial is not None
            hopeless = trial.paused and event.trial in rule.hopeless(state, trial.arm)
            assert hopeless or due[event.trial], "a trial was stopped that the rule lets go on"
        elif isinstance(event, TrialPaused):
            assert trial is not None
            assert trial.last_epoch == paused_at.pop(event.trial)
        elif isinstance(event, TrialAttempt) and trial is not None:
            if trial.paused:
                assert event.trial in (rule.due(state, trial.arm, idle=False), rule.due(state, trial.arm, idle=True))
            if not trial.final and (rung := rule.pauses_at(trial)) is not None:
                paused_at[event.trial] = rung
        fold(state, event)
    assert not state.paused


def simulate(folder: Path, setup: Setup, chaos: Chaos, seed: int) -> tuple[Simulation, list[Event]]:
    simulation = Simulation(folder, setup, chaos, seed)
    journal = simulation.run()
    events = check(simulation, setup.rule, None if setup.seeds else setup.trials)
    assert journal.state == replay(events)
    return simulation, events


@pytest.mark.parametrize("chaos", [ROUGH, DEADLY], ids=["rough", "deadly"])
@pytest.mark.parametrize(
    ("sampler", "trials", "rule", "schedules"),
    [
        ("random", 4, STOPPING, 100),
        ("random", 7, promoting(7), 60),
        ("tpe", 13, STOPPING, 20),
        ("tpe", 13, promoting(13), 20),
        ("tpe", 23, promoting(12, 23), 20),
        ("grid", 4, STOPPING, 40),
        pytest.param("random", 4, STOPPING, 3000, marks=pytest.mark.slow),  # the same seeds and more
        pytest.param("random", 13, promoting(6, 13), 3000, marks=pytest.mark.slow),
        pytest.param("tpe", 13, STOPPING, 300, marks=pytest.mark.slow),
        pytest.param("tpe", 13, promoting(13), 300, marks=pytest.mark.slow),
    ],
)
def test_one_slot_ends_as_if_nothing_had_happened(
    folders: Iterator[Path], sampler: str, trials: int, rule: StopRule, schedules: int, chaos: Chaos
) -> None:
    commands = 0
    for seed in range(schedules):
        space = GRID if sampler == "grid" else SPACE
        setup = Setup(sampler=sampler, seed=seed % 10, trials=trials, space=space, rule=rule)
        simulation, events = simulate(next(folders), setup, chaos, seed)
        commands += simulation.commands
        if not any(isinstance(event, TrialEnded) and event.stop_reason == "lost" for event in events):
            assert outcome(events) == uninterrupted(setup, folders)
    assert commands > schedules


Outcome = dict[int, list[Any]]


def uninterrupted(setup: Setup, folders: Iterator[Path], known: dict[Any, Outcome] = {}) -> Outcome:  # noqa: B006
    """Return the outcome without any trouble; it is worked out once for each setup."""
    key = (setup.sampler, setup.seed, setup.trials, str(setup.rule), setup.arms)
    if key not in known:
        simulation = Simulation(next(folders), setup)
        simulation.run()
        known[key] = outcome(read(simulation.path)[0])
    return known[key]


@pytest.mark.parametrize(
    "rule",
    [promoting(8), promoting(5, 8), STOPPING, AshaStopping(5, 1, 2, brackets=3), Median(1, at_least=2)],
    ids=["asha", "asha in rounds", "asha-stopping", "hyperband", "median"],
)
def test_many_slots_lose_nothing_and_run_nothing_twice(folders: Iterator[Path], rule: StopRule) -> None:
    for seed in range(40):
        setup = Setup(seed=seed, slots=1 + seed % 4, trials=8, rule=rule)
        simulate(next(folders), setup, ROUGH if seed % 2 else DEADLY, seed)


@pytest.mark.parametrize("rule", [promoting(8), STOPPING], ids=["asha", "asha-stopping"])
def test_kinds_of_gpus_with_other_numbers_of_slots(folders: Iterator[Path], rule: StopRule) -> None:
    """Every attempt finds a free slot where it may run, with the share of that kind, whatever is lost."""
    slots = {"h1": 4, "h2": 2, "t1": 1, "t2": 1}
    places = tuple((node, f"GPU {node}") for node, count in slots.items() for _ in range(count))
    kinds = {"h1": "H200", "h2": "H200", "t1": "T4", "t2": "T4"}
    for seed in range(20):
        setup = Setup(
            seed=seed, slots=len(places), trials=16, rule=rule, seeds=2,
            places=places, kinds=kinds, slot=Slot(1, 1.0, {"H200": 0.25}),
        )  # fmt: skip
        _, events = simulate(next(folders), setup, (CALM, ROUGH, DEADLY)[seed % 3], seed)
        shares = Counter(event.gpus for event in events if isinstance(event, TrialAttempt))
        assert set(shares) == {0.25, 1.0}
        assert shares[0.25] > shares[1.0]


def test_the_whole_state_is_that_of_a_replay_at_every_event(tmp_path: Path) -> None:
    replayed = SweepState()

    def compare(event: Event, state: SweepState) -> None:
        fold(replayed, event)
        assert replayed == state

    Simulation(tmp_path, Setup(trials=8, slots=3), Chaos(lose=0.1, late=0.5), watch=compare).run()
    assert replayed.finished == 8


def test_a_recipes_arms_and_final_runs_survive_whatever_happens(folders: Iterator[Path]) -> None:
    """An arm whose search has no score has no final runs; all others have theirs, with the best settings."""
    for seed in range(60):
        setup = Setup(seed=seed % 6, slots=1 + seed % 3, trials=5, arms=("a", "b", "c"), seeds=2)
        _, events = simulate(next(folders), setup, ROUGH if seed % 2 else DEADLY, seed)
        state = replay(events)
        for name in setup.arms:
            best = next(iter(best_trials(state, name, 1)), None)
            runs = [trial for trial in state.trials.values() if trial.arm == name and trial.final]
            assert sorted(run.index for run in runs) == ([0, 1] if best else [])
            for run in runs:
                assert best is not None
                assert (run.confirms, run.params) == (best.number, best.params)
                assert run.status != "stopped"
                assert (run.status == "completed") == bool(run.final_metrics)
        lost = any(isinstance(event, TrialEnded) and event.stop_reason == "lost" for event in events)
        if setup.slots == 1 and not lost:
            assert outcome(events) == uninterrupted(setup, folders)


def test_a_sweep_without_workers_fails_and_its_trials_do_not(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, Setup(trials=2, slots=2), Chaos(lose=1.0))
    assert simulation.command().state.ended == "failed"
    simulation.chaos = CALM
    simulation.run()
    check(simulation, simulation.setup.rule, 2)


def test_trials_fail_after_too_many_losses(folders: Iterator[Path]) -> None:
    failed = 0
    for seed in range(40):
        _, events = simulate(next(folders), Setup(seed=seed), Chaos(lose=0.6, late=0.3, kill=0.02), seed)
        state = replay(events)
        for trial in state.trials.values():
            assert trial.end is not None
            assert (trial.losses == MOST_LOSSES + 1) == (trial.end.stop_reason == "lost")
            failed += trial.end.stop_reason == "lost"
    assert failed


def test_a_grid_ends_with_its_last_point(tmp_path: Path) -> None:
    space = SearchSpace(SPACE.base, {"model": choice("resnet8", "resnet20"), "flip": choice(True, False)})
    simulation = Simulation(tmp_path, Setup(trials=9, sampler="grid", space=space))
    simulation.run()
    events = check(simulation, simulation.setup.rule, trials=4)
    proposed = [event.params for event in events if isinstance(event, TrialProposed)]
    assert sorted(map(str, proposed)) == sorted(map(str, Grid(space, 0)))


def test_no_point_runs_twice_whatever_happens(folders: Iterator[Path]) -> None:
    axes = {"model": choice("resnet8", "resnet20"), "batch_size": choice(16, 32, 48)}
    space = SearchSpace(SPACE.base, axes)
    for seed, sampler in enumerate(("random", "tpe") * 10):
        for trials in (5, 9):
            setup = Setup(trials=trials, sampler=sampler, space=space, seed=seed // 2, slots=1 + seed % 3)
            simulation = Simulation(next(folders), setup, DEADLY, seed)
            simulation.run()
            events = check(simulation, setup.rule, min(trials, 6))
            state = replay(events)
            assert len({space.settings(trial.params) for trial in state.trials.values()}) == min(trials, 6)
            assert state.arm("").exhausted == (trials == 9)
            assert sum(isinstance(event, SearchExhausted) for event in events) == (trials == 9)


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_finished_sweep_extended_is_the_longer_sweep(folders: Iterator[Path], sampler: str) -> None:
    short, long = Setup(sampler=sampler, trials=7), Setup(sampler=sampler, trials=14)
    simulation, _ = simulate(next(folders), short, ROUGH, seed=1)
    simulation.setup = long
    simulation.run()
    assert outcome(check(simulation, long.rule, 14)) == uninterrupted(long, folders)


def test_time_between_commands_does_not_count(folders: Iterator[Path]) -> None:
    for seed in range(20):
        simulation, events = simulate(next(folders), Setup(seed=seed), DEADLY, seed)
        assert 0 < replay(events).active_s < 3600, "an hour passes before every command of the simulation"
        assert simulation.commands == 1 or events[-1].t - events[0].t > 3600


def further_attempts(events: list[Event]) -> int:
    """Return the most further attempts that a trial needed."""
    return max(trial.attempt for trial in replay(events).trials.values())


NODES = (("a", None), ("b", None), ("c", None))
GPUS = (("a", "GPU 0"), ("a", "GPU 1"))


@pytest.mark.parametrize(
    ("places", "sick", "named"),
    [(NODES, {1}, ("b", None)), (NODES[:2], {0}, ("a", None)), (GPUS, {0}, ("a", "GPU 0")), (GPUS, {1}, GPUS[1])],
    ids=["one node of three", "one node of two", "the first GPU", "the second GPU"],
)
def test_a_sick_place_costs_no_trial(
    folders: Iterator[Path], places: tuple[Any, ...], sick: set[int], named: tuple[str, str | None]
) -> None:
    space = SearchSpace(SPACE.base, {"lr": log(0.01, 0.2)})  # all of which can train
    for seed in range(10):
        setup = Setup(24, slots=len(places), places=places, sick=frozenset(sick), space=space, seed=seed)
        _, events = simulate(next(folders), setup, CALM, seed)
        state = replay(events)
        assert {trial.status for trial in state.trials.values()} == {"completed", "stopped"}
        assert further_attempts(events) <= 2
        (first, *others) = [event for event in events if isinstance(event, PlaceSetAside)]
        assert {event.place.where for event in (first, *others)} == {named}
        assert first.error == "RuntimeError: ECC error 0x1f"
        assert [event.seconds for event in (first, *others)] == [60 * 2**i for i in range(1 + len(others))]


def test_epochs_that_a_sick_place_got_from_a_checkpoint_are_no_work_of_its_own(folders: Iterator[Path]) -> None:
    """Under asha half of all attempts go on from a state, and report its epochs before they fail."""
    space = SearchSpace(SPACE.base, {"lr": log(0.01, 0.2)})
    rule = Asha(space.base.max_epochs, 1, 3, Rounds((48,)), space)
    for seed in range(6):
        setup = Setup(48, slots=2, places=GPUS, sick=frozenset((0,)), space=space, seed=seed, rule=rule)
        _, events = simulate(next(folders), setup, CALM, seed)
        assert {event.place.where for event in events if isinstance(event, PlaceSetAside)} == {GPUS[0]}
        assert sum(isinstance(event, AttemptLost) for event in events) <= 10


def test_without_a_place_that_works_none_is_set_aside(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, Setup(24, slots=3, places=NODES, sick=frozenset((0, 1, 2))))
    state = simulation.command().state
    assert state.ended == "failed"
    assert not state.set_aside
    assert len(state.trials) < 12, "the rest of the budget is not burnt"


def test_a_sweep_whose_first_trials_all_end_with_one_error_ends(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, Setup(24, slots=1, sick=frozenset((0,))))
    state = simulation.command().state
    assert state.ended == "failed"
    assert [trial.status for trial in state.trials.values()] == ["failed"] * 5
    assert {trial.attempt for trial in state.trials.values()} == {1}, "each was tried again by another process"
