"""Schedulers: rules that stop weak trials early, as functions of the folded journal.

A rule sees the state before an epoch and the score at that epoch, so a replay that reaches the same event decides the
same. Each arm has its own rungs, keyed by the trial's number; nothing is kept beside the journal. Where a search has
stages, trials are compared with those of their kind alone: a head on features learns faster than a whole net, and says
nothing of what that net will reach. To add a scheduler, add its entry to `SCHEDULERS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from orchestrator.record.ranking import direction, gain, gains
from orchestrator.record.state import SweepState, TrialRecord
from search_spaces.space import SearchSpace
from trainables.errors import look_up


class StopRule(Protocol):
    """A rule that decides after every epoch whether a trial ends there."""

    @property
    def reason(self) -> str:
        """The stop reason of the trials that the rule stops."""
        ...

    def stops(self, state: SweepState, trial: TrialRecord, epoch: int, score: float | None) -> bool:
        """Return whether `trial`, with `score` at `epoch`, ends there; `state` does not hold that epoch yet."""
        ...


def scores_of_others(
    state: SweepState, trial: TrialRecord, epoch: int, kinds: tuple[str, ...]
) -> dict[int, float | None]:
    """Return the scores at `epoch` of all other searched trials of the arm that are like `trial` in the fields `kinds`.

    Fields are compared as they were drawn; one that was not drawn, since its condition did not hold, is like itself.
    """
    there = state.arm(trial.arm).scores.get(epoch, {})
    kind = [trial.params.get(name) for name in kinds]
    return {
        number: score
        for number, score in there.items()
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
    top 1/`factor` of the trials that reached the rung before it. With several `brackets`, trials are dealt to them by
    their index in the arm, and bracket b has its first rung at `grace`·`factor`^b: Hyperband without its
    synchronization.
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
        rungs, epoch = [], self.grace * self.factor**bracket
        while math.ceil(epoch) < self.max_epochs:
            rungs.append(math.ceil(epoch))
            epoch *= self.factor
        return tuple(rungs)

    def stops(self, state: SweepState, trial: TrialRecord, epoch: int, score: float | None) -> bool:
        bracket = trial.index % self.brackets
        if epoch not in self.rungs(bracket):
            return False
        others = scores_of_others(state, trial, epoch, self.kinds)
        before = [score for number, score in others.items() if state.trials[number].index % self.brackets == bracket]
        if not before:
            return False
        sign = direction(trial.metric)
        return bool(gain(score, sign) < np.percentile(gains(before, sign), 100 * (1 - 1 / self.factor)))


@dataclass(frozen=True)
class Median:
    """Stops a trial whose score is below the median of the others at the same epoch (Golovin et al. 2017, Vizier)."""

    grace: int
    at_least: int = 5  # trials to compare with
    kinds: tuple[str, ...] = ()  # fields in which trials that are compared are alike
    reason: str = "median"

    def stops(self, state: SweepState, trial: TrialRecord, epoch: int, score: float | None) -> bool:
        before = scores_of_others(state, trial, epoch, self.kinds).values()
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

    def describe(self, grace: int, factor: float) -> str:
        """Return the rule and its settings as text."""
        return self.described.format(grace=grace, factor=f"{factor:g}")


SCHEDULERS = {
    "asha": Scheduler(
        "lets the best 1/factor of the trials pass each rung",
        lambda max_epochs, grace, factor, kinds: Asha(max_epochs, grace, factor, kinds=kinds),
        "asha from epoch {grace} on, factor {factor}",
    ),
    "hyperband": Scheduler(
        "is asha in brackets that begin to stop at different epochs",
        Asha.hyperband,
        "hyperband from epoch {grace} on, factor {factor}",
    ),
    "median": Scheduler(
        "stops trials below the median of the others",
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


def space_rule(name: str, space: SearchSpace, grace: int, factor: float) -> StopRule:
    """Return the stop rule of a scheduler for the trials of a space.

    Raises:
        ConfigError: there is no such scheduler.
    """
    rule = stop_rule(name, space.base.max_epochs, grace, factor, space.kinds)
    return Sparing(rule, space) if space.unstopped else rule
