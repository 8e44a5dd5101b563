"""A forecast of the time that a sweep takes: how many epochs its stop rule leaves, and what an epoch costs here."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.plan.costs import Cost, measured, stages, views
from orchestrator.plan.plan import Plan
from orchestrator.record.state import SweepState, TrialRecord
from search_spaces.stage import quotas
from trainables.workload import Workload

if TYPE_CHECKING:
    from trainables.splits import SearchData

SIMULATED = 100  # trials of a stage, at most: enough for the mean of their epochs
LEARNING = 2.0  # how far the last trial's score is above the first's, in ranges of chance, where a sampler learns
START_S, TRIAL_S = 8.0, 0.25  # seconds of start and end, and beside the epochs of a trial, measured


@dataclass(frozen=True)
class StageForecast:
    """Seconds that the trials of a stage will take, with the features that they need first."""

    trials: int  # in all arms
    low_s: float
    high_s: float
    epoch_s: float  # the mean of the measured configurations
    features_s: float  # of all views of all nets, on one slot; slots share them


@dataclass(frozen=True)
class Forecast:
    """Seconds that a sweep will take: if the sampler learns nothing, and if trials become better one by one.

    The confirmation runs are of the cheapest stage in the first case, of the dearest in the second.
    """

    low_s: float
    high_s: float
    epoch_s: float  # seconds of an epoch, the mean over all trials
    measured: int  # configurations
    stages: tuple[StageForecast, ...] = ()  # one of a search without stages
    end_s: float = 0.0  # of all that for the runs after the search, in the first case

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**asdict(self), "stages": [asdict(stage) for stage in self.stages]}


def forecast(planned: Plan, data: SearchData, slots: int) -> Forecast | None:
    """Return how long the sweep will take on this machine; None where it cannot be measured.

    Some steps are run, of a few configurations of each stage, for a few seconds. No weights are loaded.
    """
    try:
        costs = measured(planned, data)
        there = views(planned)
    except Exception:  # whatever a model raises is reported where it is trained; here there is no forecast
        return None
    queue, abreast = planned.queue(), max(min(slots, planned.queue().total()), 1)
    found = tuple(
        _stage(number, planned, stage, there if number == 0 else 0, abreast) for number, stage in enumerate(costs)
    )
    finals = queue.total() - queue.searched()
    longest = max(space.base.max_epochs for space in planned.arms.values())
    ends = [(stage.epoch_s * longest + TRIAL_S) * finals / abreast for stage in found]
    low = START_S + min(ends) + sum(stage.low_s for stage in found)
    high = START_S + max(ends) + sum(stage.high_s for stage in found)
    weights = [max(stage.trials, 1) for stage in found]
    epoch_s = statistics.fmean([stage.epoch_s for stage in found], weights)
    return Forecast(low, high, epoch_s, sum(map(len, costs)), found, min(ends))


def _stage(number: int, planned: Plan, costs: Sequence[Cost], there: int, abreast: int) -> StageForecast:
    """Return the forecast of stage `number` from what some of its trials cost.

    Args:
        there: how many different features there are to compute; 0 if an earlier stage has.
        abreast: slots that work at a time.
    """
    queue = planned.queue()
    trials = quotas(stages(planned), planned.trials)[number] * queue.searched() // max(planned.trials, 1)
    epoch_s = statistics.fmean(cost.epoch_s for cost in costs)
    once = {cost.view: cost.features_s for cost in costs if cost.features_s}
    features_s = statistics.fmean(once.values()) * there if once else 0.0
    low, high = (
        features_s / abreast + trials * (usual * epoch_s + TRIAL_S) / abreast for usual in usual_epochs(planned, number)
    )
    return StageForecast(trials, low, high, epoch_s, features_s)


def usual_epochs(planned: Plan, number: int) -> tuple[float, float]:
    """Return the mean epochs of a trial of a stage, over all arms, for random scores and for ones that rise."""
    low, high = (
        statistics.fmean(_usual(planned, arm, number, learning) for arm in planned.arms) for learning in (0.0, LEARNING)
    )
    return low, high


def expected_epochs(planned: Plan) -> tuple[float, float]:
    """Return the epochs of all runs together: with scores drawn at random, and with scores that rise trial by trial.

    The stop rule itself decides over simulated trials whose scores keep their order from epoch to epoch.
    """
    queue = planned.queue()
    longest = statistics.fmean(space.base.max_epochs for space in planned.arms.values())
    shares = [count / max(planned.trials, 1) * queue.searched() for count in quotas(stages(planned), planned.trials)]
    finals = (queue.total() - queue.searched()) * longest
    usual = [usual_epochs(planned, number) for number in range(len(shares))]
    low, high = (sum(share * each[case] for share, each in zip(shares, usual, strict=True)) for case in (0, 1))
    return low + finals, high + finals


def workload(planned: Plan, slots: int, limit_s: float) -> Workload:
    """Return what each slot is planned to run, in at most `limit_s`."""
    runs = max(planned.queue().total(), 1)
    abreast = max(min(slots, runs), 1)
    return Workload(expected_epochs(planned)[0] / abreast, START_S + TRIAL_S * runs / abreast, limit_s)


def _usual(planned: Plan, arm: str, number: int, learning: float) -> float:
    """Return the mean number of epochs of a searched trial of one stage of an arm; others say nothing about it."""
    space, stage = planned.arms[arm], stages(planned)[number]
    rule, there = planned.stop_rule().rules[arm], quotas(stages(planned), planned.trials)[number]
    config = {**space.base.to_dict(), **stage.fixed, "metric": "val_accuracy"}
    known = rule.planned_epochs(there, config)
    if known is not None:
        return known / max(there, 1)
    longest, trials, generator = space.base.max_epochs, min(there, SIMULATED), random.Random(0)
    state, epochs = SweepState(), 0
    for number in range(trials):
        score = generator.random() + learning * number / trials
        trial = state.trials[number] = TrialRecord(number, {}, config, 0.0, arm, number)
        for epoch in range(1, longest + 1):
            stopped = rule.stops(state, trial, epoch, score)
            state.arm(arm).reach(number, epoch, score, score)
            epochs += 1
            if stopped:
                break
    return epochs / max(trials, 1)
