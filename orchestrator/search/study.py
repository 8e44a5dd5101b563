"""Optuna studies that follow the journal. They need no Ray."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import optuna
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import StudyDirection
from optuna.trial import Trial, TrialState

from orchestrator.cluster.process_state import optuna_quiet
from orchestrator.record.decoding import from_json
from orchestrator.record.events import Event, SweepResumed, SweepStarted, TrialEnded, TrialEpoch, TrialProposed
from orchestrator.record.facts import RowCounts
from orchestrator.record.ranking import direction
from orchestrator.record.state import End
from orchestrator.search import outcomes
from orchestrator.search.samplers import SAMPLERS
from orchestrator.search.stages import StageProgress
from orchestrator.search.window import Window
from search_spaces import starts
from search_spaces.distributions import Distribution, fits
from search_spaces.grid import Grid
from search_spaces.space import SearchSpace
from trainables.epoch_metrics import better, column
from trainables.errors import ConfigError, look_up
from trainables.seeds import seed_for

STATES = {
    "value": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "infeasible": TrialState.PRUNED,  # samplers read nothing of a FAIL; it breaks a constraint besides
    "nothing": TrialState.FAIL,
}
"""Optuna's state of a trial by what `outcomes.learned` says of its end."""
TRAINS = "trains"  # the constraint that settings break which cannot train; its value is 1 there


Excesses = Callable[[int, int | None], Mapping[str, float]]
"""Returns how far a trial is beyond each constraint after an epoch, or at its end; above 0 it breaks it."""
RANDOM_DRAWS = 100  # then, of a space whose points cannot be listed
_REPLAYED = RandomSampler(seed=0)  # draws nothing: values are given


class Proposal(NamedTuple):
    """The searched values of a new trial, and how many points were drawn before them that had been tried."""

    params: dict[str, Any]
    redraws: int = 0


class JournalStudy:
    """An Optuna study of one arm that follows the journal event by event, live and on replay alike.

    Proposal n comes from a sampler seeded by (seed, n), so studies that have seen the same events propose the same.
    """

    @optuna_quiet()
    def __init__(
        self,
        space: SearchSpace,
        sampler: str,
        seed: int,
        arm: str = "",
        trials: int | None = None,
        learned_at: int | None = None,
        excesses: Excesses = lambda number, epoch: {},
    ) -> None:
        """Create a study without trials. There will be `trials`, or as many as the space says, shared by its stages.

        Args:
            learned_at: the epoch whose score the sampler learns from, the same for all trials that may end early; None:
                it learns from how each trial ended.
            excesses: judges the trials by the sweep's constraints.

        Raises:
            ConfigError: there is no such sampler, or it cannot search this space.
        """
        self._space = space
        self._order = space.order()
        self._base = space.base.to_dict()
        self._arm = arm
        self._sampler = look_up(SAMPLERS, sampler, "sampler")
        self._seed = seed
        self._points = self._sampler.points(space, seed) if self._sampler.points is not None else None
        self._place = 0  # in these points, all before which were tried
        self._tried: set[tuple[Any, ...]] = set()  # the settings of all trials
        self._at_starts: list[dict[str, Any]] = []  # the searched values of those at a start point
        self._of_kind: Counter[tuple[Any, ...]] = Counter()  # trials, by the values that stages fix
        self._shared_slots = False
        self._stages = StageProgress(space, trials or space.trials)
        self.study = optuna.create_study(direction=direction_of(space))
        self._window: Any = Window(self.study)
        self._learned_at = learned_at
        self._excesses = excesses
        self._trials: dict[int, Trial] = {}  # those that have not ended
        self._params: dict[int, dict[str, Any]] = {}  # their searched values, by field
        self._learned: dict[int, bool] = {}  # of these, the ones that the sampler has learned from: as infeasible
        self._proposed = -1  # the newest proposal
        self._best: dict[int, float | None] = {}  # so far, in the metric's own sign; absent or None while undefined
        self._last_epoch: dict[int, int] = {}

    def propose(self, number: int) -> Proposal | None:
        """Return the searched values of trial `number`, which no trial had; None if there are no more.

        If a point was tried, the sampler draws again, with other seeds; then an untried one is taken at random. In the
        last stage whose points all were proposed, those of the other stages are left.
        """
        for redraws, params in enumerate(self._draws(number)):
            if not self._is_tried(params):
                self._add(number, params)
                return Proposal(params, redraws)
        return None

    def observe(self, event: Event) -> None:
        """Update the study with a journal event."""
        if isinstance(event, SweepStarted | SweepResumed):
            self._shared_slots = has_shared_slots(event.spec.plan)
            if event.spec.split:
                self._stages.begin(from_json(RowCounts, event.spec.split))
        elif isinstance(event, TrialProposed):
            searched_here = event.arm == self._arm and not event.final
            if searched_here and event.trial > self._proposed:  # replayed: this study did not propose it
                self._add(event.trial, event.params)
        elif isinstance(event, TrialEpoch) and event.trial in self._trials:
            self._report(event.trial, event.epoch, event.metrics.get(column(self._space.base.metric)))
        elif isinstance(event, TrialEnded) and event.trial in self._trials:
            self._end(event)

    def _draws(self, number: int) -> Iterator[dict[str, Any]]:
        """Yield points for trial `number`, the one to prefer first; an untried one is among them if there are any."""
        if self._points is not None:
            while self._place < len(self._points) and self._is_tried(self._points[self._place]):
                self._place += 1
            if self._place < len(self._points):
                yield self._points[self._place]
            return
        for decided in self._stages.decisions():
            yield from (self._sampled(point, number) for point in self._started(number, decided))
            yield self._sampled(decided, number)
            untried = self._untried(number, decided)
            first = next(untried, None)
            if first is not None:
                yield from (self._sampled(decided, number, redraw) for redraw in range(1, self._sampler.redraws))
                yield first
                yield from untried

    def _started(self, number: int, decided: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the start points that fit what is decided, and were not proposed with it; then, with a chance that
        fades, values around the first one. The sampler draws what they leave out.
        """
        fitting = [start for start in self._space.starts if starts.fits_beside(start, decided)]
        for start in fitting:
            wanted = {**start, **decided}
            if not any(starts.is_at(params, wanted) for params in self._at_starts):
                yield wanted
        generator = random.Random(seed_for(self._seed, "start", number))
        if fitting and self._sampler.learns and generator.random() < starts.chance(self._of_kind[self._kind(decided)]):
            yield {**starts.around(fitting[0], self._space.possible, generator), **decided}

    def _kind(self, params: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return the values of the fields that stages fix."""
        return tuple(params.get(name) for name in self._space.kinds)

    def _sampled(self, decided: Mapping[str, Any], *number: int) -> dict[str, Any]:
        """Return the point that the sampler draws for a trial and, from the second on, a redraw of these numbers."""
        seed = seed_for(self._seed, "proposal", *number) % 2**32
        return self._draw(decided, self._sampler.make(self._space, seed))

    def _untried(self, number: int, decided: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield untried points with the values that are decided, in random order; points that may be tried if the space
        is too large to list them.
        """
        seed = seed_for(self._seed, "untried", number) % 2**32
        only = {name: CategoricalDistribution([value]) for name, value in decided.items()}
        try:
            points = Grid(replace(self._space, distributions={**self._space.distributions, **only}, stages=()), seed)
        except ConfigError:
            sampler = RandomSampler(seed)
            yield from (self._draw(decided, sampler) for _ in range(RANDOM_DRAWS))
        else:
            yield from (point for point in points if not self._is_tried(point))

    @optuna_quiet()
    def _draw(self, decided: Mapping[str, Any], sampler: BaseSampler) -> dict[str, Any]:
        """Return values for all fields that are searched under their own choices, without adding a trial.

        Optuna's `Trial` draws in the same way.
        """
        blank = optuna.trial.create_trial(state=TrialState.RUNNING)
        drawn: dict[str, Any] = {}
        together: dict[str, Any] | None = None
        for name in self._order:
            found = self._space.parameter(name, drawn)
            if found is None:
                continue
            parameter, distribution = found
            if name in decided and fits(decided[name], distribution):
                drawn[name] = decided[name]
                continue
            if distribution.single():
                drawn[name] = _least(distribution)
                continue
            if together is None:
                fields = sampler.infer_relative_search_space(self._window, blank)
                together = sampler.sample_relative(self._window, blank, fields)
            alone = parameter not in together
            drawn[name] = (
                sampler.sample_independent(self._window, blank, parameter, distribution)
                if alone
                else together[parameter]
            )
        return drawn

    def _is_tried(self, params: Mapping[str, Any]) -> bool:
        return self._space.settings(params) in self._tried

    @optuna_quiet()
    def _add(self, number: int, params: Mapping[str, Any]) -> None:
        """Add trial `number` with these searched values to the Optuna study."""
        self._proposed = number
        self._trials[number], drawn = self._ask(params)
        self._params[number] = drawn
        self._tried.add(self._space.settings(drawn))
        self._of_kind[self._kind(drawn)] += 1
        if any(starts.is_at(drawn, start) for start in self._space.starts):
            self._at_starts.append(drawn)
        self._stages.propose(number, drawn)

    def _ask(self, params: Mapping[str, Any]) -> tuple[Trial, dict[str, Any]]:
        """Add a trial with these searched values to the Optuna study; return it, and its values by field.

        A field with several ranges is a parameter for each of them.
        """
        self.study.sampler = _REPLAYED
        known = ((self._space.parameter(name, params), params.get(name)) for name in self._order if name in params)
        self.study.enqueue_trial({found[0]: value for found, value in known if found is not None})
        trial = self.study.ask()
        drawn: dict[str, Any] = {}
        for name in self._order:
            if (parameter := self._space.parameter(name, drawn)) is not None:
                drawn[name] = _suggest(trial, *parameter)
        return trial, drawn

    def _report(self, number: int, epoch: int, value: float | None) -> None:
        """Note the trial's score at `epoch`, the one that stop rules and the ranking use, unless it is undefined.

        Samplers read the last one of a trial that was stopped: Optuna gets that alone, at the trial's end.
        """
        if self._space.base.selection == "last" or better(self._space.base.metric, value, self._best.get(number)):
            self._best[number] = value
        best = self._best.get(number)
        if best is not None:
            self._last_epoch[number] = epoch
            self._stages.score(number, best)
            if epoch == self._learned_at:
                self._report_early(number, best)

    @optuna_quiet()
    def _report_early(self, number: int, score: float) -> None:
        """Report to the sampler the score at the first rung of a trial that may end there."""
        trial = self._trials[number]
        if self._space.stops({**self._base, **self._params[number]}):
            self._learned[number] = self._constrain(trial, self._excesses(number, self._learned_at), trains=True)
            self._window.note(self.study.tell(trial, score))

    @optuna_quiet()
    def _end(self, event: TrialEnded) -> None:
        """End the Optuna trial, with its score if it was run in full.

        If the sampler has learned from it at the first rung, and the settings cannot train after all or break a
        constraint, they are reported once more.
        """
        trial, score = self._trials.pop(event.trial), self._best.pop(event.trial, None)
        params = self._params.pop(event.trial)
        last = self._last_epoch.pop(event.trial, 0)
        end = End(event.status, event.stop_reason, fault=event.fault)
        learned = outcomes.learned(end, scored=score is not None, shared_slot=self._shared_slots)
        self._stages.end(event.trial, event.status)
        excesses = self._excesses(event.trial, None)
        if (known := self._learned.pop(event.trial, None)) is not None:
            breaks = not known and any(excess > 0 for excess in excesses.values())
            if learned != "infeasible" and (learned == "nothing" or not breaks):
                return
            trial, _ = self._ask(params)
        self._constrain(trial, excesses, trains=learned != "infeasible")
        if self._sampler.reads_complete and learned != "nothing" and (score is not None or learned == "infeasible"):
            self._window.note(self.study.tell(trial, self._worst() if learned == "infeasible" else score))
            return
        if score is not None:
            trial.report(score, last)
        self._window.note(self.study.tell(trial, score if learned == "value" else None, state=STATES[learned]))

    def _constrain(self, trial: Trial, excesses: Mapping[str, float], *, trains: bool) -> bool:
        """Note at a trial what it keeps and what it breaks; return whether it breaks anything.

        The Gaussian process needs a value for each constraint from every trial, the other samplers those that are
        broken.
        """
        values = {TRAINS: -1.0 if trains else 1.0, **excesses}
        for name, excess in values.items():
            if excess > 0 or self._sampler.reads_complete:
                trial.set_constraint(name, excess)
        return any(excess > 0 for excess in values.values())

    def _worst(self) -> float:
        """Return the worst score that the sampler has learned of; 0 before there is any."""
        known = [trial.value for trial in self._window.get_trials() if trial.value is not None]
        return float(min(known, key=lambda value: value * direction(self._space.base.metric), default=0.0))


def direction_of(space: SearchSpace) -> StudyDirection:
    """Return whether a study of `space` maximizes or minimizes its metric."""
    return StudyDirection.MAXIMIZE if direction(space.base.metric) > 0 else StudyDirection.MINIMIZE


def has_shared_slots(plan: Mapping[str, Any]) -> bool:
    """Return whether several trials of the sweep with this plan, as JSON, may run on one GPU."""
    return any(0 < float(gpus) < 1 for gpus in (plan.get("slot_gpus") or 0, *(plan.get("kind_gpus") or {}).values()))


def _least(distribution: Distribution) -> Any:
    """Return the first or the least value of a distribution."""
    return distribution.choices[0] if isinstance(distribution, CategoricalDistribution) else distribution.low


def _suggest(trial: Trial, name: str, distribution: Distribution) -> Any:
    """Return the value that the trial draws for field `name`."""
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(
            name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
        )
    return trial.suggest_float(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
