"""Promotion: every trial comes to the first rung, the best go on by quotas, and a few run in full."""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from journals import folded
from simulation import CALM, Chaos, Setup, Simulation

from orchestrator.display.text import SHOWN
from orchestrator.record import lanes
from orchestrator.record.events import SearchClosed, TrialAttempt, TrialEnded, TrialEpoch, TrialPaused, TrialProposed
from orchestrator.record.journal import read
from orchestrator.record.state import SweepState, replay
from orchestrator.report import timeline
from orchestrator.report.figures import STATUSES
from orchestrator.search.promotion import ROUND, Asha, Rounds, rungs
from search_spaces.space import SearchSpace, choice, log
from search_spaces.stage import Stage
from trainables.config import TrialConfig

SPACE = SearchSpace(
    TrialConfig(model="resnet8", max_epochs=9, precision="float32", memory_format="contiguous", threads=1),
    {"lr": log(0.01, 0.2)},  # all of which can train, in the simulation
)


@pytest.fixture(autouse=True)
def _no_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out flushes, as in tests/test_simulation.py."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def rule_of(*ends: int, keep: int = 3, max_epochs: int = 9) -> Asha:
    return Asha(max_epochs, max(1, max_epochs // 9), 3, Rounds(ends, keep), SPACE)


@pytest.mark.parametrize(
    ("max_epochs", "expected"),
    [
        (1, ()), (2, (1,)), (3, (1,)), (6, (1, 2)), (9, (1, 3)), (10, (1, 3)), (20, (2, 7)), (30, (3, 10)),
        (50, (6, 17)),
    ],
)  # fmt: skip
def test_rungs_are_counted_down_from_the_last_epoch(max_epochs: int, expected: tuple[int, ...]) -> None:
    assert rungs(max_epochs, max(1, max_epochs // 9), 3) == expected


def test_grace_keeps_rungs_away_from_the_start() -> None:
    assert rungs(12, 2, 3) == (2, 4)
    assert rungs(12, 6, 3) == (6,)
    assert rungs(12, 12, 3) == ()


@pytest.mark.parametrize(
    ("trials", "expected"),
    [(1, [1, 1, 1]), (3, [3, 3, 3]), (4, [4, 3, 3]), (16, [16, 6, 3]), (64, [64, 9, 3]), (10_000, [10_000, 9, 3])],
)
def test_quotas(trials: int, expected: list[int]) -> None:
    assert rule_of(trials).quotas(trials) == expected


def test_the_default_sweep_of_cifar10_takes_34_epochs() -> None:
    assert rule_of(16, max_epochs=6).epochs(16) == 34


def test_epochs_of_several_rounds() -> None:
    assert rule_of(16, 40).planned_epochs(40, {}) == rule_of(16).epochs(16) + rule_of(24).epochs(24)
    assert rule_of().planned_epochs(ROUND * 2 + 5, {}) == 2 * rule_of().epochs(ROUND) + rule_of().epochs(5)


def reached(state: SweepState) -> Counter[int]:
    """Return how many searched trials ended after each number of epochs."""
    return Counter(trial.last_epoch for trial in state.trials.values() if not trial.final)


@pytest.mark.parametrize("slots", [1, 2, 4, 8])
@pytest.mark.parametrize("chaos", [CALM, Chaos(kill=0.05, lose=0.05, late=0.5, signal=0.01)], ids=["calm", "rough"])
def test_the_epochs_of_a_search_are_known_before_it(tmp_path: Path, slots: int, chaos: Chaos) -> None:
    for seed in range(8):
        rule = rule_of(20)
        (folder := tmp_path / str(seed)).mkdir()
        simulation = Simulation(folder, Setup(20, slots=slots, seed=seed, rule=rule, space=SPACE), chaos, seed)
        state = simulation.run().state
        assert reached(state) == {1: 13, 3: 4, 9: 3}
        assert sum(trial.last_epoch for trial in state.trials.values()) == rule.planned_epochs(20, {})


def test_with_one_slot_the_best_of_each_rung_go_on(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, Setup(20, rule=rule_of(20), space=SPACE))
    state = simulation.run().state
    at = {rung: {n: t.scores[rung] for n, t in state.trials.items() if t.last_epoch >= rung} for rung in (1, 3)}
    for rung, count in ((1, 7), (3, 3)):
        best = sorted(at[rung], key=lambda n: -(at[rung][n] or 0))[:count]
        assert sorted(best) == sorted(n for n, trial in state.trials.items() if trial.last_epoch > rung)


def test_all_trials_are_proposed_before_any_goes_on(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, Setup(20, slots=4, rule=rule_of(20), space=SPACE))
    simulation.run()
    events, _ = read(simulation.path)
    attempts = [event for event in events if isinstance(event, TrialAttempt)]
    assert [event.trial for event in attempts[:20]] == list(range(20))


def test_few_states_wait_at_a_time(tmp_path: Path) -> None:
    """At most as many trials are paused as may go on."""
    most = 0

    def watch(event: Any, state: SweepState) -> None:
        nonlocal most
        if isinstance(event, TrialEnded):
            most = max(most, len(state.paused))

    Simulation(tmp_path, Setup(60, slots=4, rule=rule_of(60), space=SPACE), watch=watch).run()
    assert most <= 9 + 4


def test_a_longer_sweep_has_a_round_more(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, Setup(10, slots=2, rule=rule_of(10), space=SPACE))
    simulation.run()
    simulation.setup = Setup(25, slots=2, rule=rule_of(10, 25), space=SPACE)
    state = simulation.run().state
    for first, last in ((0, 10), (10, 25)):
        ends = Counter(trial.last_epoch for number, trial in state.trials.items() if first <= number < last)
        assert ends[9] == 3


def test_without_an_end_rounds_follow_each_other(tmp_path: Path) -> None:
    """Those that are due go on before the next round begins, as long as there is time."""
    simulation = Simulation(tmp_path, Setup(0, slots=3, rule=rule_of(), space=SPACE, budget=1500.0, seeds=1))
    state = simulation.command().state
    assert state.closed is not None
    assert not state.paused
    searched = {number: trial for number, trial in state.trials.items() if not trial.final}
    assert len(searched) > 2 * ROUND
    assert sum(trial.last_epoch == 9 for number, trial in searched.items() if number < ROUND) == 3
    ended = {trial.end.stop_reason for trial in searched.values() if trial.end}
    assert ended <= {"asha", "budget", "time_budget"}


class Record:
    """A journal that a test writes event by event."""

    def __init__(self, rule: Asha) -> None:
        self.rule = rule
        self.state = SweepState()
        self._config = SPACE.base.to_dict()

    def run(self, number: int, score: float, *, until: int) -> None:
        """Have a trial train to a rung, and pause there."""
        if number not in self.state.trials:
            self.add(TrialProposed(number, {"lr": 0.1}, self._config, index=number))
        trial = self.state.trials[number]
        self.add(TrialAttempt(number, trial.attempt + 1))
        for epoch in range(trial.last_epoch + 1, until + 1):
            self.add(TrialEpoch(number, trial.attempt, {"epoch": epoch, "val_accuracy": score}))
        self.add(TrialPaused(number, trial.attempt))

    def add(self, event: Any) -> None:
        folded(event, state=self.state)

    def due(self, *, idle: bool = False) -> int | None:
        return self.rule.due(self.state, "", idle=idle)


def test_a_trial_goes_on_once_enough_have_come_for_its_place() -> None:
    """Of nine, three go on: the best of the first three, of the first six the second best, and so on."""
    record = Record(rule_of(9))
    record.run(0, 0.5, until=1)
    record.run(1, 0.6, until=1)
    assert record.due() is None
    assert record.due(idle=True) == 1
    record.run(2, 0.4, until=1)
    assert record.due() == 1
    record.add(TrialAttempt(1, 1))
    assert record.due() is None
    for number, score in ((3, 0.1), (4, 0.7), (5, 0.2)):
        record.run(number, score, until=1)
    assert record.due() == 4


def test_those_without_a_place_end_at_once() -> None:
    record = Record(rule_of(9))
    scores = [0.5, 0.6, 0.4, 0.1, 0.7]
    for number, score in enumerate(scores):
        record.run(number, score, until=1)
        hopeless = record.rule.hopeless(record.state, "")
        assert hopeless == ([] if number < 3 else [{3: 3, 4: 2}[number]])
        for other in hopeless:
            record.add(TrialEnded(other, 0, "stopped", "asha"))
    assert sorted(record.state.paused) == [0, 1, 4]


def test_a_failed_trial_leaves_its_place_to_others() -> None:
    """It has come to its rung, so nobody waits for it; of those that are left as many go on as may."""
    record = Record(rule_of(9))
    for number in range(6):
        record.add(TrialProposed(number, {"lr": 0.1}, SPACE.base.to_dict(), index=number))
        record.add(TrialAttempt(number, 0))
        record.add(TrialEnded(number, 0, "diverged", "not_finite"))
    for number in (6, 7, 8):
        record.run(number, number / 10, until=1)
    gone_on = []
    while (due := record.due()) is not None:
        gone_on.append(due)
        record.add(TrialAttempt(due, 1))
    assert gone_on == [8, 7, 6]


def test_a_closed_search_ends_all_that_are_paused() -> None:
    record = Record(rule_of(9))
    for number in range(3):
        record.run(number, 0.5, until=1)
    record.add(SearchClosed(1.0, 1.0, 1))
    assert record.rule.hopeless(record.state, "") == [0, 1, 2]


def test_choices_follow_from_the_journal_alone(tmp_path: Path) -> None:
    """Every beginning of a journal, folded anew, chooses as the search did that wrote it."""
    simulation = Simulation(tmp_path, Setup(12, slots=3, rule=(rule := rule_of(12)), space=SPACE), CALM, 1)
    choices: list[Any] = []
    simulation._watch = lambda event, state: choices.append(
        (rule.due(state, "", idle=True), rule.due(state, "", idle=False), rule.hopeless(state, ""))
    )
    simulation.run()
    events, _ = read(simulation.path)
    fate = random.Random(0)
    for cut in fate.sample(range(len(events)), 30):
        state = replay(events[: cut + 1])
        again = Asha(rule.max_epochs, rule.grace, rule.factor, rule.rounds, SPACE)
        found = (again.due(state, "", idle=True), again.due(state, "", idle=False), again.hopeless(state, ""))
        assert found == choices[cut]


def test_whoever_maps_statuses_knows_that_trials_pause() -> None:
    """In the report, on the terminal and for trackers a paused trial has not failed."""
    assert "paused" in SHOWN
    assert "paused" in STATUSES
    pytest.importorskip("mlflow")
    from orchestrator.loggers import mlflow

    assert mlflow.STATUSES["paused"] == "RUNNING"


def test_a_pause_ends_the_span_of_an_attempt_in_the_timeline(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path, Setup(12, slots=2, rule=rule_of(12), space=SPACE))
    state = simulation.run().state
    found = timeline.timeline(read(simulation.path)[0])
    assert max(lane for lane, _ in lanes.lanes(found.spans)) == 1, "as many lanes as slots"
    assert len(found.spans) == sum(trial.attempt + 1 for trial in state.trials.values())


NETS = choice("resnet8", "resnet20")


@pytest.mark.parametrize(
    ("stages", "ends"),
    [
        ((Stage(1, each=("model",)), Stage(1, best={"model": 1})), (ROUND,)),  # both have trials of all values
        ((Stage(3, {"model": "resnet8"}), Stage(1, {"model": "resnet20"})), ()),  # open: all are of the last stage
    ],
    ids=["stages that fix nothing", "a round in one stage"],
)
def test_nothing_that_the_quota_lets_pass_ends_early_in_stages(
    stages: tuple[Stage, ...], ends: tuple[int, ...]
) -> None:
    space = SearchSpace(SPACE.base, {"model": NETS, "lr": log(0.01, 1.0)}, stages=stages)
    rule = Asha(9, 1, 3, Rounds(ends), space)
    for seed in range(20):
        state, draw, ended = SweepState(), random.Random(seed), list[int]()
        for number in range(ROUND):
            params = {"model": "resnet20", "lr": 0.02 + number / 1000}
            proposed = TrialProposed(number, params, space.config(params).to_dict(), index=number)
            epoch = TrialEpoch(number, 0, {"epoch": 1, "val_accuracy": draw.random()})
            folded(proposed, TrialAttempt(number, 0), epoch, TrialPaused(number, 0), state=state)
            for weak in rule.hopeless(state, ""):
                folded(TrialEnded(weak, 0, "stopped", "asha"), state=state)
                ended.append(weak)
        ranked = sorted(state.trials.values(), key=lambda trial: -(trial.score or 0.0))
        assert not set(ended) & {trial.number for trial in ranked[:8]}
        assert ended, "some end before the last one has come"
