"""Stop rules: ASHA decides as Ray's does, and nothing counts but what came before."""

from __future__ import annotations

import random
from collections import Counter
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journals import folded
from ray.tune.schedulers import AsyncHyperBandScheduler, MedianStoppingRule, TrialScheduler

from orchestrator.record.events import Event, TrialAttempt, TrialEpoch, TrialProposed
from orchestrator.record.state import SweepState
from orchestrator.search.schedulers import SCHEDULERS, StopRule, check_settings, stop_rule
from orchestrator.search.stopping import AshaStopping, Median, NeverStop
from search_spaces.space import SearchSpace
from trainables.config import TrialConfig


def space_of(max_epochs: int) -> SearchSpace:
    return SearchSpace(TrialConfig(max_epochs=max_epochs))


class Stream:
    """Results of many trials, folded as they come."""

    def __init__(self, rule: StopRule, metric: str = "val_accuracy") -> None:
        self.rule = rule
        self.state = SweepState()
        self._metric = metric
        self._config = TrialConfig(metric=metric).to_dict()

    def decide(self, number: int, epoch: int, value: float | None, attempt: int = 0) -> bool:
        """Fold a result, and return whether the rule stops the trial there."""
        self.propose(number)
        if self.state.running.get(number) != attempt:
            self._fold(TrialAttempt(number, attempt))
        trial, metrics = self.state.trials[number], {"epoch": epoch, self._metric: value}
        stops = self.rule.stops(self.state, trial, epoch, trial.score_with(metrics))
        self._fold(TrialEpoch(number, attempt, metrics))
        return stops

    def propose(self, number: int) -> None:
        """Fold the proposal of a trial, unless there was one."""
        if number not in self.state.trials:
            self._fold(TrialProposed(number, {}, self._config))

    def _fold(self, event: Event) -> None:
        folded(event, state=self.state)


class RayTrial(NamedTuple):
    """The part of Tune's trial that its median rule looks at."""

    trial_id: str


def rays_asha(max_t: int, grace: int, factor: float) -> Any:
    return AsyncHyperBandScheduler(
        time_attr="epoch", metric="score", mode="max", max_t=max_t, grace_period=grace, reduction_factor=factor
    )


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    max_epochs=st.integers(1, 30),
    grace=st.integers(1, 4),
    factor=st.sampled_from([2, 2.5, 3, 4]),
    trials=st.integers(1, 25),
    ties=st.booleans(),
)
def test_asha_decides_as_rays(seed: int, max_epochs: int, grace: int, factor: float, trials: int, ties: bool) -> None:
    """The last epoch is left out: Ray's scheduler stops every trial there, and ours leaves it to the trial's budget."""
    grace = min(grace, max_epochs)
    fate = random.Random(seed)
    ours, rays = Stream(AshaStopping(max_epochs, grace, factor)), rays_asha(max_epochs, grace, factor)
    live = dict.fromkeys(range(trials), 0)
    for number in live:
        rays.on_trial_add(None, SimpleNamespace(trial_id=str(number), is_finished=lambda: False))
    while live:
        number = fate.choice(list(live))
        live[number] += 1
        if live[number] == max_epochs:
            del live[number]
            continue
        stopped = ours.decide(number, live[number], fate.randint(0, 5) / 5 if ties else fate.random())
        result = {"epoch": live[number], "score": ours.state.trials[number].score}
        decision = rays.on_trial_result(None, SimpleNamespace(trial_id=str(number)), result)
        assert stopped == (decision == TrialScheduler.STOP)
        if stopped:
            del live[number]


@pytest.mark.parametrize(
    ("rule", "rungs"),
    [
        (AshaStopping(27, 1, 3), (1, 3, 9)),
        (AshaStopping(9, 1, 3), (1, 3)),
        (AshaStopping(10, 1, 3), (1, 3, 9)),
        (AshaStopping(1, 1, 3), ()),
        (AshaStopping(30, 2, 2.5), (2, 5, 13)),
    ],
)
def test_rungs_lie_below_the_budget(rule: AshaStopping, rungs: tuple[int, ...]) -> None:
    assert rule.rungs(0) == rungs


def test_asha_keeps_the_best_share() -> None:
    stream = Stream(AshaStopping(9, 1, 3))
    stops = [stream.decide(n, 1, value) for n, value in enumerate([0.5, 0.4, 0.6, 0.45, 0.7, 0.55])]
    assert stops == [False, True, False, True, False, True]


def test_less_is_better_for_a_loss() -> None:
    stream = Stream(AshaStopping(9, 1, 2), "val_loss")
    assert [stream.decide(n, 1, value) for n, value in enumerate([0.5, 0.6, 0.4])] == [False, True, False]


def test_a_trial_adopted_again_counts_once_in_a_rung() -> None:
    stream = Stream(AshaStopping(9, 1, 2))
    stream.decide(0, 1, 0.5)
    stream.decide(1, 1, 0.9)
    stream.decide(0, 1, 0.5, attempt=1)
    assert stream.state.arm("").scores[1] == {0: 0.5, 1: 0.9}
    assert not stream.decide(2, 1, 0.7), "the cutoff is 0.7, not the 0.5 of three"


def test_a_trial_is_not_compared_with_itself() -> None:
    stream = Stream(AshaStopping(9, 1, 2))
    assert not stream.decide(0, 1, 0.9)
    assert not stream.decide(0, 1, 0.1, attempt=1)


@pytest.mark.parametrize("rule", [AshaStopping(9, 1, 2), AshaStopping(9, 1, 4), Median(1, at_least=1)])
@pytest.mark.parametrize("metric", ["val_roc_auc", "val_loss"])
def test_an_undefined_score_is_worst_and_spoils_nothing(rule: StopRule, metric: str) -> None:
    better, worse = (0.1, 0.9) if metric == "val_loss" else (0.9, 0.1)
    stream = Stream(rule, metric)
    assert not stream.decide(0, 1, None)
    assert not stream.decide(1, 1, None), "as good as all before it"
    assert not stream.decide(2, 1, worse)
    stream = Stream(rule, metric)
    assert not stream.decide(0, 1, better)
    assert stream.decide(1, 1, None)
    stream = Stream(rule, metric)
    for number, value in enumerate([worse, None, better, worse, None]):
        stream.decide(number, 1, value)
    assert not stream.decide(9, 1, better)


def test_hyperbands_brackets_have_equal_budgets() -> None:
    """A trial of bracket 0 runs 1 + 2/3 + 6/9 + 18/27 = 3 epochs on average, one of the others 7, 15 and 27."""
    rule = stop_rule("hyperband", space_of(27), 1, 3)
    assert isinstance(rule, AshaStopping)
    assert [rule.rungs(b) for b in range(rule.brackets)] == [(1, 3, 9), (3, 9), (9,), ()]
    dealt = Counter(rule.bracket(index) for index in range(10_000))
    budgets = [dealt[bracket] * epochs for bracket, epochs in enumerate((3, 7, 15, 27))]
    assert budgets == pytest.approx([sum(budgets) / 4] * 4, rel=0.01)
    for trials in (16, 40, 100):
        some = Counter(rule.bracket(index) for index in range(trials))
        assert all(abs(some[b] - dealt[b] * trials / 10_000) < 2 for b in range(4)), "evenly spread from the start on"
    assert {AshaStopping(27, 1, 3).bracket(index) for index in range(100)} == {0}


def test_a_bracket_compares_its_own_trials() -> None:
    rule = stop_rule("hyperband", space_of(27), 1, 3)
    assert isinstance(rule, AshaStopping)
    first, again, *_ = (index for index in range(20) if rule.bracket(index) == 0)
    others = [next(index for index in range(20) if rule.bracket(index) == bracket) for bracket in (1, 2, 3)]
    stream = Stream(rule)
    for index in range(20):
        stream.propose(index)
    assert not stream.decide(first, 1, 0.9)
    assert not stream.decide(others[0], 1, 0.1), "bracket 1 has no rung there"
    assert not stream.decide(others[1], 3, 0.1), "nor has bracket 2"
    assert not stream.decide(others[2], 9, 0.0), "the last bracket stops nothing"
    assert stream.decide(again, 1, 0.1), "bracket 0 again"


@pytest.mark.parametrize(("factor", "refused"), [(1.0001, True), (1.05, True), (1.2, True), (1.5, False), (4, False)])
@pytest.mark.parametrize("scheduler", ["asha-stopping", "hyperband"])
def test_rungs_on_one_epoch_are_refused(scheduler: str, factor: float, refused: bool) -> None:
    problem = check_settings(scheduler, factor, 1, 100)
    assert (problem is not None) == refused
    if problem is not None:
        assert "fall on the same epoch; use 2 to 4, or begin later by --grace" in problem
    assert check_settings("median", factor, 1, 100) is None, "it has no rungs"
    if factor == 1.2:
        assert check_settings(scheduler, factor, 10, 100) is None


def test_rungs_are_computed_once() -> None:
    assert AshaStopping(10**9, 1, 1.5).rungs(0) is AshaStopping(10**9, 1, 1.5).rungs(0)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), trials=st.integers(1, 25), factor=st.sampled_from([2, 3]), ties=st.booleans())
def test_brackets_decide_as_rays(seed: int, trials: int, factor: float, ties: bool) -> None:
    """Ray draws a trial's bracket at random; here it is given ours."""
    fate, longest = random.Random(seed), 27
    rule = AshaStopping.hyperband(longest, 1, factor)
    ours = Stream(rule)
    rays = AsyncHyperBandScheduler(
        time_attr="epoch", metric="score", mode="max", max_t=longest, reduction_factor=factor, brackets=rule.brackets
    )
    live = dict.fromkeys(range(trials), 0)
    for number in live:
        ours.propose(number)
        rays.on_trial_add(None, SimpleNamespace(trial_id=str(number), is_finished=lambda: False))
        rays._trial_info[str(number)] = rays._brackets[rule.bracket(number)]
    while live:
        number = fate.choice(list(live))
        live[number] += 1
        if live[number] == longest:
            del live[number]
            continue
        stopped = ours.decide(number, live[number], fate.randint(0, 5) / 5 if ties else fate.random())
        result = {"epoch": live[number], "score": ours.state.trials[number].score}
        decision = rays.on_trial_result(None, SimpleNamespace(trial_id=str(number)), result)
        assert stopped == (decision == TrialScheduler.STOP)
        if stopped:
            del live[number]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), trials=st.integers(1, 25), at_least=st.integers(1, 6), less=st.booleans())
def test_the_median_rule_decides_as_rays(seed: int, trials: int, at_least: int, less: bool) -> None:
    """Means are compared from the first epoch on, as in the paper; Ray's leave out the epochs before the grace."""
    fate, longest = random.Random(seed), 9
    ours = Stream(Median(1, at_least), "val_loss" if less else "val_accuracy")
    rays = MedianStoppingRule(
        time_attr="epoch", metric="value", mode="min" if less else "max", grace_period=1, min_samples_required=at_least
    )
    nobody_waits = SimpleNamespace(get_live_trials=list)
    live = dict.fromkeys(range(trials), 0)
    while live:
        number = fate.choice(list(live))
        live[number] = epoch = live[number] + 1
        value = fate.randint(0, 8) / 8
        stopped = ours.decide(number, epoch, value)
        decision = rays.on_trial_result(nobody_waits, RayTrial(str(number)), {"epoch": epoch, "value": value})
        assert stopped == (decision == TrialScheduler.STOP)
        if stopped or epoch == longest:
            del live[number]


def test_the_median_needs_grace_and_company() -> None:
    stream = Stream(Median(2, at_least=3))
    for number, value in enumerate([0.2, 0.4, 0.6]):
        stream.decide(number, 1, value)
        assert not stream.decide(number, 2, value)
    assert not stream.decide(3, 1, 0.0), "the grace"
    assert stream.decide(3, 2, 0.3)
    assert not stream.decide(4, 2, 0.4)


def test_the_median_is_of_running_means() -> None:
    """The others reached 0.9 in epoch 3, and 0.5 on average."""
    stream = Stream(Median(1, at_least=1))
    for number in range(3):
        for epoch, value in enumerate([0.1, 0.5, 0.9], start=1):
            stream.decide(number, epoch, value)
    assert not stream.decide(3, 1, 0.5)
    assert not stream.decide(3, 3, 0.6), "above the mean, below the others' best"
    assert stream.decide(4, 3, 0.4)


RULES = [
    AshaStopping(9, 1, 2),
    AshaStopping(9, 1, 3, brackets=3),
    Median(2),
    *(stop_rule(name, space_of(9), 1, 3) for name in SCHEDULERS),
]


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32), rule=st.sampled_from(RULES))
def test_a_rule_sees_only_what_came_before(seed: int, rule: StopRule) -> None:
    """Decisions stay the same in a longer stream, and deciding changes nothing."""
    fate = random.Random(seed)
    results = [(number, epoch, fate.random()) for epoch in range(1, 9) for number in range(8)]
    stream, short = Stream(rule), Stream(rule)
    decisions = [stream.decide(*result) for result in results]
    cut = fate.randrange(len(results))
    assert [short.decide(*result) for result in results[:cut]] == decisions[:cut]


def test_names_stand_for_their_rules() -> None:
    assert stop_rule("none", space_of(9), 1, 3) == NeverStop()
    assert stop_rule("median", space_of(9), 2, 3) == Median(2)
    assert stop_rule("asha-stopping", space_of(9), 2, 3) == AshaStopping(9, 2, 3)
    assert not Stream(NeverStop()).decide(0, 1, None)


@pytest.mark.parametrize(
    ("name", "description"),
    [
        ("asha", "asha from epoch 2 on, factor 2.5"),
        ("hyperband", "hyperband from epoch 2 on, factor 2.5"),
        ("median", "median from epoch 2 on"),
        ("none", "nothing"),
    ],
)
def test_a_scheduler_describes_itself(name: str, description: str) -> None:
    assert SCHEDULERS[name].describe(grace=2, factor=2.5) == description
