"""Who decides: rules that stop weak trials early, as functions of the folded journal.

A rule sees the state before an epoch and the score at that epoch, so a replay that has come to the same event
decides the same. Rungs are an arm's own and keyed by the trial's number; nothing is kept beside the journal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from orchestrator.record.ranking import direction, gain, gains
from orchestrator.record.state import SweepState, TrialRecord


class StopRule(Protocol):
    """`reason` is the trial's stop_reason when the rule stops it."""

    @property
    def reason(self) -> str: ...

    def stops(self, state: SweepState, trial: TrialRecord, epoch: int, score: float | None) -> bool:
        """Whether `trial`, whose score at `epoch` is `score`, ends there; `state` does not hold that epoch yet."""
        ...


@dataclass(frozen=True)
class NeverStop:
    """Every trial runs its full budget."""

    reason: str = "none"

    def stops(self, state: SweepState, trial: TrialRecord, epoch: int, score: float | None) -> bool:
        return False


@dataclass(frozen=True)
class Asha:
    """Asynchronous successive halving, the stopping kind (Li et al. 2020, arXiv 1810.05934).

    At each rung (`grace`, `grace`·`factor`, … below `max_epochs`, in epochs) a trial goes on if its score is in the
    top 1/`factor` of the trials that came there before it. With several `brackets`, trials are dealt to them by
    place in their arm and bracket b has its first rung at `grace`·`factor`^b: Hyperband without its synchronisation.
    """

    max_epochs: int
    grace: int
    factor: float
    brackets: int = 1
    reason: str = "asha"

    def rungs(self, bracket: int) -> tuple[int, ...]:
        """The bracket's rungs in epochs, ascending."""
        rungs, epoch = [], self.grace * self.factor**bracket
        while math.ceil(epoch) < self.max_epochs:
            rungs.append(math.ceil(epoch))
            epoch *= self.factor
        return tuple(rungs)

    def stops(self, state: SweepState, trial: TrialRecord, epoch: int, score: float | None) -> bool:
        bracket = trial.index % self.brackets
        if epoch not in self.rungs(bracket):
            return False
        before = [
            score
            for number, score in state.arm(trial.arm).scores.get(epoch, {}).items()
            if number != trial.number and state.trials[number].index % self.brackets == bracket
        ]
        if not before:
            return False
        sign = direction(trial.config["metric"])
        return bool(gain(score, sign) < np.percentile(gains(before, sign), 100 * (1 - 1 / self.factor)))


@dataclass(frozen=True)
class Median:
    """Stop a trial whose score is below the median of the others' at the same epoch (Golovin et al. 2017, Vizier)."""

    grace: int
    at_least: int = 5  # trials to compare with
    reason: str = "median"

    def stops(self, state: SweepState, trial: TrialRecord, epoch: int, score: float | None) -> bool:
        before = [s for n, s in state.arm(trial.arm).scores.get(epoch, {}).items() if n != trial.number]
        if epoch < self.grace or len(before) < self.at_least:
            return False
        sign = direction(trial.config["metric"])
        return bool(gain(score, sign) < np.median(gains(before, sign)))


@dataclass(frozen=True)
class ByArm:
    """A rule for each arm of a recipe, or for the one arm of an ordinary sweep; final runs are never stopped."""

    rules: Mapping[str, StopRule]

    @property
    def reason(self) -> str:
        return next(iter(self.rules.values())).reason

    def stops(self, state: SweepState, trial: TrialRecord, epoch: int, score: float | None) -> bool:
        return not trial.final and self.rules[trial.arm].stops(state, trial, epoch, score)


def stop_rule(name: str, max_epochs: int, grace: int, factor: float) -> StopRule:
    """The rule that `--scheduler NAME` means."""
    if name == "none":
        return NeverStop()
    if name == "median":
        return Median(grace)
    one = Asha(max_epochs, grace, factor)
    return one if name == "asha" else Asha(max_epochs, grace, factor, brackets=len(one.rungs(0)) + 1)
