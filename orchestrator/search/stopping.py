"""Rules that stop a trial after an epoch, for good; under them no trial pauses.

Such a rule sees the state before the epoch and the score at it, so a replay that reaches the same event decides the
same.
"""

from __future__ import annotations

import bisect
import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from orchestrator.record.ranking import direction, gain, gains
from orchestrator.record.state import SweepState, TrialRecord

GOLDEN = (math.sqrt(5) - 1) / 2


class Unpaused:
    """The part of a rule under which no trial pauses."""

    @property
    def learned_at(self) -> int | None:
        """None: trials end at any epoch."""
        return None

    def planned_epochs(self, trials: int, config: Mapping[str, Any]) -> int | None:
        """Return None: it depends on the scores."""
        return None

    def pauses_at(self, trial: TrialRecord) -> int | None:
        """Return None."""
        return None

    def opens_round(self, index: int) -> bool:
        """Return False: there are no rounds."""
        return False

    def due(self, state: SweepState, arm: str, *, idle: bool) -> int | None:
        """Return None: no trial is paused."""
        return None

    def hopeless(self, state: SweepState, arm: str) -> list[int]:
        """Return an empty list: no trial is paused."""
        return []


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
class NeverStop(Unpaused):
    """The rule that lets every trial run its full budget."""

    reason: str = "none"

    def stops(self, state: SweepState, trial: TrialRecord, epoch: int, score: float | None) -> bool:
        return False


@dataclass(frozen=True)
class AshaStopping(Unpaused):
    """Asynchronous successive halving as Ray Tune has it: trials that are weak at a rung stop there for good.

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
    def hyperband(cls, max_epochs: int, grace: int, factor: float, kinds: tuple[str, ...] = ()) -> AshaStopping:
        """Return a rule with one bracket for each rung, and one in which trials are never stopped."""
        brackets = len(cls(max_epochs, grace, factor).rungs(0)) + 1
        return cls(max_epochs, grace, factor, brackets, kinds)

    def rungs(self, bracket: int) -> tuple[int, ...]:
        """Return the bracket's rungs in epochs, ascending."""
        return stopping_rungs(self.max_epochs, self.grace, self.factor, bracket)

    def bracket(self, index: int) -> int:
        """Return the bracket of the `index`-th trial of an arm.

        Multiples of the golden ratio, without their whole parts, are spread evenly over 0 to 1 however many there are;
        each bracket has a part of that range.
        """
        return bisect.bisect(_shares(self.max_epochs, self.grace, self.factor, self.brackets), index * GOLDEN % 1)

    def _bracket_of(self, state: SweepState, number: int) -> int:
        return self.bracket(state.trials[number].index)

    def stops(self, state: SweepState, trial: TrialRecord, epoch: int, score: float | None) -> bool:
        bracket = self.bracket(trial.index)
        if epoch not in self.rungs(bracket):
            return False
        there: Mapping[int, float | None] = state.arm(trial.arm).scores.get(epoch, {})
        others = of_others(there, state, trial, self.kinds)
        if self.brackets > 1:
            others = {number: score for number, score in others.items() if self._bracket_of(state, number) == bracket}
        before = others.values()
        if not before:
            return False
        sign = direction(trial.metric)
        return bool(gain(score, sign) < np.percentile(gains(before, sign), 100 * (1 - 1 / self.factor)))


@functools.cache
def stopping_rungs(max_epochs: int, grace: int, factor: float, bracket: int = 0) -> tuple[int, ...]:
    """Return the rungs of a bracket in epochs, ascending, as far as they lie before the last epoch."""
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
        ends = (*stopping_rungs(max_epochs, grace, factor, bracket), max_epochs)
        parts = zip((0, *ends), ends, strict=False)  # of which a trial runs each one with 1/factor of the chance before
        weights.append(1 / math.fsum((end - begin) / factor**number for number, (begin, end) in enumerate(parts)))
    return tuple(math.fsum(weights[: bracket + 1]) / math.fsum(weights) for bracket in range(brackets - 1))


@dataclass(frozen=True)
class Median(Unpaused):
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
