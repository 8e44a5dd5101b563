"""The stages of one arm's search as they go: what is decided about the next trial, from the trials before it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from orchestrator.record.facts import RowCounts
from orchestrator.record.ranking import UNRANKED, direction, gain
from search_spaces.space import SearchSpace
from search_spaces.stage import quotas

FAILURES = (
    2  # trials of a value that fail or diverge in a stage, without another that has a score, before it is left out
)


@dataclass
class _Run:
    """A searched trial: its stage, its values, and how it went so far."""

    stage: int
    params: Mapping[str, Any]
    score: float | None = None
    status: str = "running"

    @property
    def counts(self) -> bool:
        """True if the trial has a score that says what its values are worth."""
        return self.score is not None and self.status not in UNRANKED


class StageProgress:
    """Follows the trials of an arm, and decides about some searched values of the next one.

    It depends on the events that it has seen alone, so that a resumed search decides as the first one did.
    """

    def __init__(self, space: SearchSpace, trials: int) -> None:
        """Begin with no trials; `trials` is how many there will be."""
        self._space = space
        self._quotas = quotas(space.stages, trials)
        self._runs: dict[int, _Run] = {}
        self._rows: int | None = None  # that scores are computed on; None while unknown

    def decisions(self) -> Iterator[dict[str, Any]]:
        """Yield what may be decided for the next trial, of searched fields, in the order of preference.

        A later one counts where all points with the earlier ones were tried: other values of the stage, then other
        stages, the next ones first.
        """
        stages = self._space.stages
        next_one = self._next_stage() if stages else 0
        order = [*range(next_one, len(stages)), *range(next_one)]
        for number in order:
            yield from self._decisions(number)
        yield from (dict(stages[number].fixed) for number in order)
        if not stages:
            yield {}

    def _decisions(self, number: int) -> Iterator[dict[str, Any]]:
        """Yield what stage `number` decides, with each combination of the values that deserve more trials."""
        stage = self._space.stages[number]
        untried = {name: self._untried(number, name)[:1] for name in stage.each}
        in_turn = {name: values[0] for name, values in untried.items() if values}
        for best in product(*(self._in_turn(number, name, count) for name, count in stage.best.items())):
            yield {**stage.fixed, **in_turn, **dict(zip(stage.best, best, strict=True))}

    def deserving(self, number: int, name: str, count: int) -> list[Any]:
        """Return at most `count` values of the searched choice `name` that stage `number` may take, the best first.

        A value is worth the best score that a trial of an earlier stage had with it. Those within the noise of the best
        one deserve more trials. A value that only fails in the stage itself makes place for the next; where nothing is
        known of any value, all of them are left.
        """
        choices = list(self._space.distributions[name].choices)  # type: ignore[union-attr]
        sign = direction(self._space.base.metric)
        worth: dict[Any, float] = {}
        for run in self._runs.values():
            if run.counts and run.stage < number and name in run.params:
                value = run.params[name]
                worth[value] = max(gain(run.score, sign), worth.get(value, -math.inf))
        known = sorted((value for value in choices if value in worth), key=lambda value: -worth[value])
        known = [value for value in known if not self._fails(number, name, value)] or known
        if not known:
            return [value for value in choices if not self._fails(number, name, value)] or choices
        least = worth[known[0]] - self._noise(worth[known[0]])
        return [value for value in known if worth[value] >= least][:count]

    def propose(self, number: int, params: Mapping[str, Any]) -> None:
        """Count a proposed trial to the first stage that it fits and that lacks trials."""
        stages = self._space.stages
        if not stages:
            return
        fitting = [place for place, stage in enumerate(stages) if stage.fits(params)] or [len(stages) - 1]
        lacking = [place for place in fitting if self._count(place) < self._quotas[place]]
        self._runs[number] = _Run((lacking or fitting[-1:])[0], params)

    def score(self, number: int, score: float | None) -> None:
        """Note the best score of a trial so far."""
        if number in self._runs:
            self._runs[number].score = score

    def end(self, number: int, status: str) -> None:
        """Note that a trial has ended."""
        if number in self._runs:
            self._runs[number].status = status

    def begin(self, rows: RowCounts) -> None:
        """Note how many rows scores are computed on: their noise depends on it."""
        self._rows = (rows.search_rows if rows.folds > 1 else rows.validation_rows) or None

    def _next_stage(self) -> int:
        """Return the number of the first stage that lacks trials, from 0; of the last one if none does."""
        lacking = (place for place, quota in enumerate(self._quotas) if self._count(place) < quota)
        return next(lacking, len(self._quotas) - 1)

    def _count(self, number: int) -> int:
        return sum(run.stage == number for run in self._runs.values())

    def _untried(self, number: int, name: str) -> list[Any]:
        """Return the values of a choice with which no trial of the stage has been proposed."""
        tried = [run.params.get(name) for run in self._runs.values() if run.stage == number]
        return [value for value in self._space.distributions[name].choices if value not in tried]  # type: ignore[union-attr]

    def _in_turn(self, number: int, name: str, count: int) -> list[Any]:
        """Return the deserving values, those with the fewest trials in the stage first; of several, the best one."""
        proposed = [run.params.get(name) for run in self._runs.values() if run.stage == number]
        return sorted(self.deserving(number, name, count), key=proposed.count)

    def _fails(self, number: int, name: str, value: Any) -> bool:
        """Return whether the trials with a value fail, and none of them has a score, in a stage."""
        here = [run for run in self._runs.values() if run.stage == number and run.params.get(name) == value]
        failed = sum(run.status in UNRANKED for run in here)
        return failed >= FAILURES and not any(run.counts for run in here)

    def _noise(self, best: float) -> float:
        """Return one standard error of a score, as a gain; infinite where it is not known.

        A mean over n rows of values from 0 to 1 has at most the standard error √(p(1−p)/n), where p is the mean
        (Bhatia and Davis 2000); accuracy has exactly this one. Of other metrics, such as a loss, it is unknown.
        """
        known = direction(self._space.base.metric) > 0 and 0 <= best <= 1 and self._rows
        return math.sqrt(best * (1 - best) / self._rows) if known and self._rows else math.inf


def stage_of(space: SearchSpace, params: Mapping[str, Any]) -> int:
    """Return the number, from 0, of the first stage whose fixed values a trial has; 0 if there is none."""
    return next((number for number, stage in enumerate(space.stages) if stage.fits(params)), 0)
