"""Schedulers: rules that stop weak trials early, as functions of the folded journal.

A rule sees the state before an epoch and the score at that epoch, so a replay that reaches the same event decides the
same. Each arm has its own rungs, keyed by the trial's number; nothing is kept beside the journal. Where a search has
stages, trials are compared with those of their kind alone: a head on features learns faster than a whole net, and says
nothing of what that net will reach. To add a scheduler, add its entry to `SCHEDULERS`.
"""

from __future__ import annotations

import bisect
import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from orchestrator.record.ranking import direction, gain, gains
from orchestrator.record.state import SweepState, TrialRecord
from search_spaces.space import SearchSpace
from trainables.errors import look_up

GOLDEN = (math.sqrt(5) - 1) / 2
LEAST_FACTOR = 1.1  # with less there are dozens of rungs, and hardly any trial stops at one


class StopRule(Protocol):
    """A rule that decides after every epoch whether a trial ends there."""

    @property
    def reason(self) -> str:
        """The stop reason of the trials that the rule stops."""
        ...

    def stops(self, state: SweepState, trial: TrialRecord, epoch: int, score: float | None) -> bool:
        """Return whether `trial`, with `score` at `epoch`, ends there; `state` does not hold that epoch yet."""
        ...


def of_others(
    there: Mapping[int, float | None], state: SweepState, trial: TrialRecord, kinds: tuple[str, ...]
) -> dict[int, float | None]:
    """Return the values of all other trials that are like `trial` in the fields `kinds`, of those that are `there`.

    Fields are compared as they were drawn; one that was not drawn, since its condition did not hold, is like itself.
    """
    kind = [trial.params.get(name) for name in kinds]
    return {
        number: value
        for number, value in there.items()
        if number != trial.number and (not kinds or [state.trials[number].params.get(n) for n in kinds] == kind)
    }


@dataclass(frozen=True)
class NeverStop:
    """The rule that lets every trial run its full budget."""

    reason: str = "none"

    def stops(self, state: SweepState, trial: TrialRecord, epoch: int, score: float | None) -> bool:
        return False


@dataclass(frozen=True)
class Asha:
    """Asynchronous successive halving, the stopping variant (Li et al. 2020, arXiv 1810.05934).

    At each rung (`grace`, `grace`·`factor`, … below `max_epochs`, in epochs) a trial goes on if its score is in the
    top 1/`factor` of the trials that reached the rung before it. With several `brackets`, bracket b has its first rung
    at `grace`·`factor`^b: Hyperband (Li et al. 2018, JMLR 18-185) without its synchronization. As there, brackets have
    equal budgets, not equal numbers of trials: of a bracket whose trials run k times as long there are 1/k as many.
    """

    max_epochs: int
    grace: int
    factor: float
    brackets: int = 1
    kinds: tuple[str, ...] = ()  # fields in which trials that are compared are alike
    reason: str = "asha"

    @classmethod
    def hyperband(cls, max_epochs: int, grace: int, factor: float, kinds: tuple[str, ...] = ()) -> Asha:
        """Return a rule with one bracket for each rung, and one in which trials are never stopped."""
        brackets = len(cls(max_epochs, grace, factor).rungs(0)) + 1
        return cls(max_epochs, grace, factor, brackets, kinds)

    def rungs(self, bracket: int) -> tuple[int, ...]:
        """Return the bracket's rungs in epochs, ascending."""
        return _rungs(self.max_epochs, self.grace, self.factor, bracket)

    def bracket(self, index: int) -> int:
        """Return the bracket of the `index`-th trial of an arm.

        Multiples of the golden ratio, without their whole parts, are spread evenly over 0 to 1 however many there are;
        each bracket has a part of that range.
        """
        return bisect.bisect(_shares(self.max_epochs, self.grace, self.factor, self.brackets), index * GOLDEN % 1)

    def stops(self, state: SweepState, trial: TrialRecord, epoch: int, score: float | None) -> bool:
        bracket = self.bracket(trial.index)
        if epoch not in self.rungs(bracket):
            return False
        there: Mapping[int, float | None] = state.arm(trial.arm).scores.get(epoch, {})
        others = of_others(there, state, trial, self.kinds)
        before = [score for number, score in others.items() if self.bracket(state.trials[number].index) == bracket]
        if not before:
            return False
        sign = direction(trial.metric)
        return bool(gain(score, sign) < np.percentile(gains(before, sign), 100 * (1 - 1 / self.factor)))


@functools.cache
def _rungs(max_epochs: int, grace: int, factor: float, bracket: int) -> tuple[int, ...]:
    rungs, epoch = [], grace * factor**bracket
    while math.ceil(epoch) < max_epochs:
        rungs.append(math.ceil(epoch))
        epoch *= factor
    return tuple(rungs)


@functools.cache
def _shares(max_epochs: int, grace: int, factor: float, brackets: int) -> tuple[float, ...]:
    """Return where the trials of each bracket but the last end, as shares of all trials, ascending."""
    weights = []
    for bracket in range(brackets):
        ends = (*_rungs(max_epochs, grace, factor, bracket), max_epochs)
        parts = zip((0, *ends), ends, strict=False)  # of which a trial runs each one with 1/factor of the chance before
        weights.append(1 / math.fsum((end - begin) / factor**number for number, (begin, end) in enumerate(parts)))
    return tuple(math.fsum(weights[: bracket + 1]) / math.fsum(weights) for bracket in range(brackets - 1))


@dataclass(frozen=True)
class Median:
    """The median stopping rule (Golovin et al. 2017, Google Vizier, section 3.2.2).

    A trial stops whose score is below the median of the others' running means: the means of their metric from the
    first epoch to this one. Compared are trials that came that far.
    """

    grace: int
    at_least: int = 5  # trials to compare with
    kinds: tuple[str, ...] = ()  # fields in which trials that are compared are alike
    reason: str = "median"

    def stops(self, state: SweepState, trial: TrialRecord, epoch: int, score: float | None) -> bool:
        there: Mapping[int, float | None] = state.arm(trial.arm).means.get(epoch, {})
        before = of_others(there, state, trial, self.kinds).values()
        if epoch < self.grace or len(before) < self.at_least:
            return False
        sign = direction(trial.metric)
        return bool(gain(score, sign) < np.median(gains(before, sign)))


@dataclass(frozen=True)
class Sparing:
    """A rule for the trials of a space that may be stopped early; all others run in full."""

    rule: StopRule
    space: SearchSpace

    @property
    def reason(self) -> str:
        """The stop reason of the rule."""
        return self.rule.reason

    def stops(self, state: SweepState, trial: TrialRecord, epoch: int, score: float | None) -> bool:
        return self.space.stops(trial.config) and self.rule.stops(state, trial, epoch, score)


@dataclass(frozen=True)
class ByArm:
    """A rule for each arm of a recipe, or for the one arm of an ordinary sweep; final runs are never stopped."""

    rules: Mapping[str, StopRule]

    @property
    def reason(self) -> str:
        """The stop reason, which all rules share."""
        return next(iter(self.rules.values())).reason

    def stops(self, state: SweepState, trial: TrialRecord, epoch: int, score: float | None) -> bool:
        return not trial.final and self.rules[trial.arm].stops(state, trial, epoch, score)


@dataclass(frozen=True)
class Scheduler:
    """A way to stop weak trials early."""

    help: str
    make: Callable[[int, int, float, tuple[str, ...]], StopRule]  # from max_epochs, grace, factor and kinds
    described: str  # with {grace} and {factor}, after "stopped by"
    has_rungs: bool = False  # `factor` apart

    def describe(self, grace: int, factor: float) -> str:
        """Return the rule and its settings as text."""
        return self.described.format(grace=grace, factor=f"{factor:g}")


SCHEDULERS = {
    "asha": Scheduler(
        "lets the best 1/factor of the trials pass each rung",
        lambda max_epochs, grace, factor, kinds: Asha(max_epochs, grace, factor, kinds=kinds),
        "asha from epoch {grace} on, factor {factor}",
        has_rungs=True,
    ),
    "hyperband": Scheduler(
        "is asha in brackets of equal budgets that begin to stop at different epochs",
        Asha.hyperband,
        "hyperband from epoch {grace} on, factor {factor}",
        has_rungs=True,
    ),
    "median": Scheduler(
        "stops trials whose score is below the median of the others' means so far",
        lambda max_epochs, grace, factor, kinds: Median(grace, kinds=kinds),
        "median from epoch {grace} on",
    ),
    "none": Scheduler("stops no trial", lambda *settings: NeverStop(), "nothing"),
}
"""The schedulers that `--scheduler` names."""


def stop_rule(name: str, max_epochs: int, grace: int, factor: float, kinds: tuple[str, ...] = ()) -> StopRule:
    """Return the stop rule of a scheduler, which compares trials that are alike in the fields `kinds`.

    Raises:
        ConfigError: there is no such scheduler.
    """
    return look_up(SCHEDULERS, name, "scheduler").make(max_epochs, grace, factor, kinds)


def check_factor(name: str, factor: float, grace: int, max_epochs: int) -> str | None:
    """Return why a scheduler cannot compare trials at rungs `factor` apart, as a message; None if it can.

    Raises:
        ConfigError: there is no such scheduler.
    """
    rungs = _rungs(max_epochs, grace, max(factor, LEAST_FACTOR), 0)
    apart = factor >= LEAST_FACTOR and len(set(rungs)) == len(rungs)
    if apart or not look_up(SCHEDULERS, name, "scheduler").has_rungs:
        return None
    return (
        f"--factor {factor:g}: rungs from epoch {grace} on, each {factor:g} times as late as the last, fall on the "
        "same epoch; use 2 to 4, or begin later by --grace"
    )


def space_rule(name: str, space: SearchSpace, grace: int, factor: float) -> StopRule:
    """Return the stop rule of a scheduler for the trials of a space.

    Raises:
        ConfigError: there is no such scheduler.
    """
    rule = stop_rule(name, space.base.max_epochs, grace, factor, space.kinds)
    return Sparing(rule, space) if space.unstopped else rule
