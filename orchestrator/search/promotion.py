"""Asynchronous successive halving as its paper has it: trials pause at rungs, and the best of them go on.

Breadth first: as long as there are trials to propose, every free slot takes the next one to the first rung. How many go
on from each rung is fixed, so that the epochs of a search are known before it begins. Every choice follows from the
folded journal alone: from the trials that are paused, those that went on, and those that may still come to a rung.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from orchestrator.record.aims import broken
from orchestrator.record.ranking import constraints, rank_key
from orchestrator.record.state import SweepState, TrialRecord
from orchestrator.search.stages import stage_of
from search_spaces.space import SearchSpace
from search_spaces.stage import quotas as stage_quotas

KEEP = 3  # trials of a round that run in full, at least: as many as are confirmed
LEVELS = 2  # rungs, counted down from the last epoch
ROUND = 32  # trials of a round where their number is open; see docs/search.md


@dataclass(frozen=True)
class Rounds:
    """The rounds of an arm's search: trials compete within a round, and some of each run in full.

    `ends` are the indices after the last trials of the rounds. Where the number of trials is open, and beyond these,
    rounds have `ROUND` trials.
    """

    ends: tuple[int, ...] = ()
    keep: int = KEEP

    def bounds(self, index: int) -> tuple[int, int]:
        """Return the first index of the round of the `index`-th trial, and the one after its last."""
        start = 0
        for end in self.ends:
            if index < end:
                return start, end
            start = end
        start += (index - start) // ROUND * ROUND
        return start, start + ROUND


def rungs(max_epochs: int, grace: int, factor: float) -> tuple[int, ...]:
    """Return the rungs of trials of `max_epochs` epochs, ascending; they are counted down from there."""
    counted = (max(math.floor(max_epochs / factor**n + 0.5), grace) for n in range(LEVELS, 0, -1))
    return tuple(dict.fromkeys(epoch for epoch in counted if 0 < epoch < max_epochs))


class Group(NamedTuple):
    """Trials that compete: of one arm, one round (from `start` to before `end`), and one stage of the search."""

    arm: str
    start: int
    end: int
    stage: int


@dataclass(frozen=True)
class Asha:
    """Asynchronous successive halving, the promotion variant (Li et al. 2020, arXiv 1810.05934), with quotas.

    Rungs are counted down from `max_epochs`: R/`factor` and R/`factor`², but none before `grace`. Of n trials all come
    to the first rung, the best min(⌈n/`factor`⌉, `factor`·K) to the second, and the best K run in full, K = `keep`; so
    few of them, as later trials are better ones, and a fixed share would let most pass. A trial that is paused goes on
    when it is the best one there and the share of the quota that is due, as trials come to the rung, is not used up;
    the paper's rule. Trials that break a constraint come after all others there. Once there is nothing to propose, a
    slot that would idle takes the best one within the quota.
    """

    max_epochs: int
    grace: int
    factor: float
    rounds: Rounds
    space: SearchSpace
    reason: str = "asha"

    @cached_property
    def rungs(self) -> tuple[int, ...]:
        """The epochs at which trials pause, ascending."""
        return rungs(self.max_epochs, self.grace, self.factor)

    @property
    def learned_at(self) -> int | None:
        """The first rung, to which all trials come: there a sampler can compare them."""
        return next(iter(self.rungs), None)

    def quotas(self, trials: int) -> list[int]:
        """Return how many of `trials` come to each rung, and how many run in full."""
        keep, levels = self.rounds.keep, len(self.rungs)
        passing = [
            max(min(math.ceil(trials / self.factor**n), math.ceil(keep * self.factor ** (levels - n))), keep)
            for n in range(1, levels + 1)
        ]
        return [trials, *(min(trials, number) for number in passing)]

    def planned_epochs(self, trials: int, config: Mapping[str, Any]) -> int | None:
        """Return how many epochs a search of so many trials takes."""
        epochs = index = 0
        while index < trials:
            start, end = self.rounds.bounds(index)
            epochs, index = epochs + self.epochs(min(end, trials) - start), end
        return epochs

    def epochs(self, trials: int) -> int:
        """Return how many epochs a round of `trials` takes."""
        ends = (*self.rungs, self.max_epochs)
        return sum(
            number * (end - begin) for number, begin, end in zip(self.quotas(trials), (0, *ends), ends, strict=False)
        )

    def stops(self, state: SweepState, trial: TrialRecord, epoch: int, score: float | None) -> bool:
        """Return False: trials end while they are paused."""
        return False

    def pauses_at(self, trial: TrialRecord) -> int | None:
        """Return the rung at which the next attempt at a trial ends; None if it runs in full."""
        return next((rung for rung in self.rungs if rung > trial.last_epoch), None)

    def opens_round(self, index: int) -> bool:
        """Return whether the `index`-th trial is the first one of a round."""
        return self.rounds.bounds(index)[0] == index

    def due(self, state: SweepState, arm: str, *, idle: bool) -> int | None:
        """Return the paused trial of an arm that should go on now; None if none should.

        Args:
            idle: the slot has nothing else to do, so quotas count that are not yet due.
        """
        for rungs in self._progress(state, arm):
            for rung in rungs:
                if rung.paused and rung.promoted < (rung.quota if idle else rung.due):
                    return rung.paused[0].number
        return None

    def hopeless(self, state: SweepState, arm: str) -> list[int]:
        """Return the paused trials of an arm that cannot go on any more.

        As many as may are better, or have gone on; or they break a constraint, and further epochs change nothing of it.
        """
        if state.closed is not None:
            return [number for number in state.paused if state.trials[number].arm == arm]
        weak = [
            trial.number
            for rungs in self._progress(state, arm)
            for rung in rungs
            for trial in rung.paused[max(rung.most - rung.promoted, 0) :]
        ]
        return weak + [trial.number for trial in self._paused(state, arm, out=True)]

    def _paused(self, state: SweepState, arm: str, *, out: bool) -> list[TrialRecord]:
        """Return the paused trials of an arm: those that break a constraint for good or, if not `out`, all others."""
        settled = [bound for bound in constraints(state) if bound.measure.settled]
        paused = (trial for trial in map(state.trials.__getitem__, state.paused) if trial.arm == arm)
        return [trial for trial in paused if bool(broken(trial, settled)) == out]

    def _progress(self, state: SweepState, arm: str) -> Iterator[list[_Rung]]:
        """Yield how far the rungs are of each group that has paused trials, the earliest round first."""
        groups: dict[Group, list[TrialRecord]] = {}
        for trial in self._paused(state, arm, out=False):
            groups.setdefault(self._group(trial), []).append(trial)
        coming: Counter[tuple[Group, int]] = Counter()  # trials on their way, by the last rung that they came to
        for trial in map(state.trials.__getitem__, (*state.running, *state.waiting) if groups else ()):
            if trial.arm == arm and not trial.final:
                coming[self._group(trial), self._level(trial)] += 1
        for group, paused in sorted(groups.items()):
            yield self._rungs_of(state, group, paused, coming)

    def _group(self, trial: TrialRecord) -> Group:
        return Group(trial.arm, *self.rounds.bounds(trial.index), stage_of(self.space, trial.params))

    def _level(self, trial: TrialRecord) -> int:
        """Return the number of the last rung that a trial came to, from 0."""
        return sum(rung <= trial.last_epoch for rung in self.rungs) - 1

    def _rungs_of(
        self, state: SweepState, group: Group, paused: Sequence[TrialRecord], coming: Mapping[tuple[Group, int], int]
    ) -> list[_Rung]:
        """Return how far each rung of a group is, which has these paused trials, and others on their way."""
        expected, missing, most = self._size(state, group)
        quotas, largest, found = self.quotas(expected), self.quotas(most), list[_Rung]()
        for level, epoch in enumerate(self.rungs):
            missing += coming[group, level - 1]
            gone = state.arm(group.arm).promoted_of(epoch, group.start, group.end)
            promoted = [number for number in gone if self._is_of(state.trials[number], group)]
            quota = min(quotas[level + 1], expected)
            due = math.floor(max(expected - missing, 0) * quota / expected) if expected else 0
            here = sorted((trial for trial in paused if self._level(trial) == level), key=rank_key(state))
            found.append(_Rung(quota, due, len(promoted), here, max(quota, largest[level + 1])))
            expected = quota if missing else min(quota, len(promoted) + len(here))
            missing = expected - len(promoted)
        return found

    def _is_of(self, trial: TrialRecord, group: Group) -> bool:
        return not trial.final and self._group(trial) == group

    def _size(self, state: SweepState, group: Group) -> tuple[int, int, int]:
        """Return how many trials a group will have, how many of them are still to be proposed, and how many it may have
        at most: how a round's trials fall to its stages is known for sure once all of them are proposed.
        """
        arm = state.arm(group.arm)
        complete = arm.exhausted or state.closed is not None or arm.proposed >= group.end
        if not self.space.stages:
            there, size = max(min(group.end, arm.proposed) - group.start, 0), group.end - group.start
            return (there, 0, there) if complete else (size, size - there, size)
        there = sum(trial.arm == group.arm and self._is_of(trial, group) for trial in state.trials.values())
        if complete:
            return there, 0, there
        fixed = [stage.fixed for stage in self.space.stages]
        alike = [number for number, values in enumerate(fixed) if values == fixed[group.stage]]
        before, after = (
            sum(stage_quotas(self.space.stages, end)[number] for number in alike) for end in (group.start, group.end)
        )
        planned = max(after - before, there)
        return planned, planned - there, there + group.end - max(arm.proposed, group.start)


class _Rung(NamedTuple):
    """The progress of a rung of a group."""

    quota: int  # trials that go on from here
    due: int  # of these, by the trials that have come so far
    promoted: int  # that have gone on
    paused: list[TrialRecord]  # the best first
    most: int  # trials that may go on from here, whatever else comes
