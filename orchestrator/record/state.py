"""The state of a sweep as plain data, and the one function that changes it.

Everything else (studies, rungs, numbering, tables, the live view) is derived from this state, live and on resume alike.
The events are those of `orchestrator.record.events`.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from orchestrator.record.confusions import Confusions
from orchestrator.record.epochs import Epochs, Reached
from orchestrator.record.events import (
    AttemptLost,
    Delivered,
    DeliveryFailed,
    EnsembleMeasured,
    Event,
    PlaceReopened,
    PlaceSetAside,
    SearchClosed,
    SearchExhausted,
    SlotsChanged,
    SweepEnded,
    SweepResumed,
    SweepStarted,
    TestMeasured,
    TestOpened,
    TrialAttempt,
    TrialEnded,
    TrialEpoch,
    TrialEvent,
    TrialFeatures,
    TrialPaused,
    TrialProposed,
    WeightsLost,
    WorkerFound,
)
from orchestrator.record.facts import Measured, Place, Spec, Worker
from orchestrator.record.supply import Supply
from orchestrator.record.trial_record import End, TrialRecord
from trainables.config import format_key

__all__ = ["ArmState", "Deliverable", "End", "SweepState", "TrialRecord", "fold", "replay"]


class Deliverable(NamedTuple):
    """The state of a deliverable, after all that was run."""

    digest: str | None  # SHA-256 of its content, once it was there
    error: str | None = None  # why it could not be made


@dataclass
class ArmState:
    """The progress of one arm's search and final runs. An ordinary sweep has one arm, without a name."""

    indices: set[int] = field(default_factory=set)  # of the searched trials
    finished: int = 0  # of those, ended
    exhausted: bool = False  # there are no more points to propose
    finals: set[tuple[int | None, int]] = field(default_factory=set)  # the final runs proposed: confirms, index
    refits: set[tuple[int | None, int]] = field(default_factory=set)  # the same of refits
    promoted: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    """Epoch → index and number of the trials that paused there and went on, by index."""
    scores: dict[int, Reached] = field(default_factory=dict)  # epoch → searched trial → score there
    means: dict[int, Reached] = field(default_factory=dict)  # the same of `TrialRecord.mean`
    _free: int = field(default=0, compare=False, repr=False)  # all indices before it are taken

    def reach(self, trial: int, epoch: int, score: float | None, mean: float | None) -> None:
        """Note the score and the mean of a searched trial at an epoch."""
        if epoch not in self.scores:
            self.scores[epoch], self.means[epoch] = Reached(), Reached()
        self.scores[epoch].append(trial, score)
        self.means[epoch].append(trial, mean)

    @property
    def proposed(self) -> int:
        """The number of searched trials."""
        return len(self.indices)

    @property
    def next_index(self) -> int:
        """The index of the next searched trial: the first free one, as that of a proposal whose line is lost."""
        while self._free in self.indices:
            self._free += 1
        return self._free

    def promote(self, trial: TrialRecord) -> None:
        """Note that a trial goes on that is paused."""
        bisect.insort(self.promoted.setdefault(trial.last_epoch, []), (trial.index, trial.number))

    def promoted_of(self, epoch: int, start: int, end: int) -> list[int]:
        """Return the trials that paused at an epoch and went on, with an index from `start` to before `end`."""
        there = self.promoted.get(epoch, [])
        return [number for _, number in there[bisect.bisect(there, (start,)) : bisect.bisect(there, (end,))]]


@dataclass
class SweepState:
    """The folded journal: plain data, equal for equal events."""

    spec: Spec = field(default_factory=Spec)  # empty until an event says how the sweep began
    trials: dict[int, TrialRecord] = field(default_factory=dict)
    running: dict[int, int] = field(default_factory=dict)  # trial → its current attempt
    waiting: list[int] = field(default_factory=list)  # trials due for a (further) attempt, in order
    paused: list[int] = field(default_factory=list)  # trials that ended an attempt at a rung
    arms: dict[str, ArmState] = field(default_factory=dict)
    formats: dict[str, dict[str, str]] = field(default_factory=dict)  # `format_key` → precision and memory format
    finished: int = 0  # trials that have ended
    next_trial: int = 0  # above every number that was ever given to a trial
    next_n: int = 0
    first_proposal: float | None = None
    idle_s: float = 0.0  # since the first proposal, between two commands
    active_s: float = 0.0  # from the first proposal to the last end of a trial, without the time between commands
    closed: SearchClosed | None = None  # the search, to keep time for the runs after it; a further command reopens it
    supply: Supply = field(default_factory=Supply)  # of a cluster
    last_t: float | None = None
    ended: str | None = None  # the reason, once the sweep has ended
    openings: int = 0  # of the test set
    opened: set[int] = field(default_factory=set)  # the runs that it was opened for
    ensembles: dict[tuple[int, ...], dict[str, Measured]] = field(default_factory=dict)  # runs → part → of their mean
    deliverables: dict[str, Deliverable] = field(default_factory=dict)  # by name; none once another attempt began
    set_aside: list[Place] = field(default_factory=list)  # nodes and devices that get no trials now
    confusions: Confusions | None = field(default=None, compare=False, repr=False)  # the file beside the journal

    @property
    def begun(self) -> bool:
        """True if an event says how the sweep began."""
        return bool(self.spec.plan)

    @property
    def owed(self) -> dict[str, str]:
        """Deliverables that could not be made, and why."""
        return {name: found.error for name, found in self.deliverables.items() if found.error is not None}

    def arm(self, name: str) -> ArmState:
        """Return how far arm `name` is."""
        found = self.arms.get(name)
        if found is None:
            found = self.arms[name] = ArmState()
        return found

    def formats_of(self, config: Mapping[str, Any]) -> dict[str, dict[str, str]]:
        """Return the formats that are known for trials like one of `config`, by kind of device."""
        start = format_key(config, "")
        return {key.removeprefix(start): known for key, known in self.formats.items() if key.startswith(start)}

    def record(self) -> dict[str, Any]:
        """Return what was asked, and every auto as it was resolved: `sweep.json`, and the metadata of the tables."""
        return {**self.spec.to_dict(), "formats": self.formats}


def replay(events: Iterable[Event], confusions: Confusions | None = None) -> SweepState:
    """Return the state that `events` fold to; `confusions` is the file that they refer to."""
    state = SweepState(confusions=confusions)
    for event in events:
        fold(state, event)
    return state


def fold(state: SweepState, event: Event) -> SweepState:
    """Advance `state` (in place: sweeps have 10⁵ events) by one event, and return it.

    Depends on its arguments alone. What an event presupposes may be missing, its line damaged: events of an unknown
    trial change nothing but the numbering, and all others what they can.
    """
    state.next_n = event.n + 1
    if isinstance(event, TrialEvent):
        state.next_trial = max(state.next_trial, event.trial + 1)
        trial = state.trials.get(event.trial)
        if isinstance(event, TrialProposed):
            _propose(state, event)
        elif trial is not None:
            _fold_trial(state, trial, event)
    else:
        _fold_sweep(state, event)
    state.last_t = event.t
    return state


def _propose(state: SweepState, event: TrialProposed) -> None:
    arm = state.arm(event.arm)
    index = arm.next_index if event.index is None else event.index
    kind = event.arm, index, event.final, event.confirms, event.refit
    trial = TrialRecord(event.trial, event.params, event.config, event.t, *kind)
    trial.epochs = Epochs(confusions=state.confusions)
    if event.final:
        (arm.refits if event.refit else arm.finals).add((trial.confirms, trial.index))
    else:
        arm.indices.add(index)
    state.trials[trial.number] = trial
    state.waiting.append(trial.number)
    if state.first_proposal is None:
        state.first_proposal = event.t


def _fold_sweep(state: SweepState, event: Event) -> None:
    match event:
        case SweepStarted(spec=spec):
            state.spec = spec
        case TestOpened(runs=runs):
            state.openings += 1
            state.opened.update(runs)
        case EnsembleMeasured(runs=runs, part=part, metrics=metrics):
            state.ensembles.setdefault(tuple(runs), {})[part] = metrics
        case SearchExhausted(arm=arm):
            state.arm(arm).exhausted = True
        case SearchClosed():
            state.closed = event
        case SlotsChanged(slots=slots, nodes=nodes, asked=asked):
            state.supply.change(event.t, slots, nodes, asked)
        case Delivered(deliverable=name, digest=digest):
            state.deliverables[name] = Deliverable(digest)
        case DeliveryFailed(deliverable=name, error=error):
            state.deliverables[name] = Deliverable(None, error)
        case PlaceSetAside(place=place):
            state.set_aside.append(place)
        case PlaceReopened(place=place):
            state.set_aside = [other for other in state.set_aside if other != place]
        case SweepEnded(reason=reason):
            state.ended = reason
            state.supply.change(event.t)
            if state.running:
                _mark_active(state, event)
            _interrupt(state)
        case SweepResumed(spec=spec):
            state.supply.change(state.last_t or event.t)  # the last command may have ended without saying so
            if state.last_t is not None and state.first_proposal is not None:
                state.idle_s += max(event.t - state.last_t, 0.0)
            state.spec = state.spec.after(spec) if state.begun else spec
            state.ended = state.closed = None
            state.set_aside = []
            _interrupt(state)
            for number in state.waiting:
                state.trials[number].lost = []  # what took the workers then may be fixed


def _interrupt(state: SweepState) -> None:
    """Have whatever was running wait, with what waited before, in the order of proposal."""
    for number in state.running:
        state.trials[number].running = False
    state.waiting = sorted({*state.waiting, *state.running})
    state.running = {}


def _fold_trial(state: SweepState, trial: TrialRecord, event: TrialEvent) -> None:
    """Advance `trial`; an end is final, but for what is measured on the test set after it."""
    if isinstance(event, TrialEpoch):  # first, as there are a hundred of them for one of the others
        if trial.end is None and event.epoch > trial.last_epoch:
            _count_epoch(state, trial, event)
    elif isinstance(event, TestMeasured):
        trial.final_metrics["test"] = event.metrics
    elif isinstance(event, WorkerFound):
        _meet(state, trial, event.worker)
    elif isinstance(event, WeightsLost):
        if trial.end is not None and trial.final:
            _void(state, trial)
    elif trial.end is not None:
        return
    elif isinstance(event, TrialFeatures):
        if event.rows > trial.features[0]:
            trial.lost = []
        trial.features, trial.features_s = (event.rows, event.of), trial.features_s + event.seconds
        _meet(state, trial, event.worker)
    elif isinstance(event, TrialAttempt):
        trial.attempt, trial.running, trial.gpus = event.attempt, True, event.gpus
        trial.started_at = event.t if trial.started_at is None else trial.started_at
        state.running[trial.number] = trial.attempt
        state.deliverables.clear()
        _unqueue(state, trial.number)
        if trial.paused:
            trial.paused = False
            state.paused.remove(trial.number)
            state.arm(trial.arm).promote(trial)
    elif isinstance(event, TrialPaused):
        if trial.running:
            trial.running, trial.paused = False, True
            del state.running[trial.number]
            state.paused.append(trial.number)
    elif isinstance(event, AttemptLost):
        if trial.running:
            trial.lost.append(event)
            trial.alone, trial.micro_batch = trial.alone or event.alone, event.micro_batch or trial.micro_batch
            trial.running = False
            del state.running[trial.number]
            state.waiting.append(trial.number)
    elif isinstance(event, TrialEnded):
        _end(state, trial, event)


def _end(state: SweepState, trial: TrialRecord, event: TrialEnded) -> None:
    _meet(state, trial, event.worker)
    trial.unsaved = event.unsaved or trial.unsaved
    trial.end = End(event.status, event.stop_reason, event.error, event.fault)
    trial.final_metrics = dict(event.final_metrics)
    trial.running, trial.ended_at = False, event.t
    state.running.pop(trial.number, None)
    _unqueue(state, trial.number)
    if trial.paused:
        trial.paused = False
        state.paused.remove(trial.number)
    state.finished += 1
    state.arm(trial.arm).finished += not trial.final
    _mark_active(state, event)


def _void(state: SweepState, trial: TrialRecord) -> None:
    """Have a final run that has ended wait for another attempt, as if it had never been run."""
    number = trial.number
    kind = trial.arm, trial.index, trial.final, trial.confirms, trial.refit
    again = TrialRecord(number, trial.params, trial.config, trial.proposed_at, *kind, trial.attempt)
    again.alone, again.micro_batch = trial.alone, trial.micro_batch
    state.trials[number] = replace(again, epochs=Epochs(confusions=state.confusions))
    state.finished -= 1
    state.waiting.append(number)
    state.opened.discard(number)
    state.ensembles = {runs: parts for runs, parts in state.ensembles.items() if number not in runs}
    state.deliverables.clear()


def _mark_active(state: SweepState, event: Event) -> None:
    state.active_s = max(event.t - (state.first_proposal or 0.0) - state.idle_s, 0.0)


def _count_epoch(state: SweepState, trial: TrialRecord, event: TrialEpoch) -> None:
    score, trial.unsaved = trial.count(event), event.unsaved
    if event.epoch > trial.furthest:
        trial.furthest, trial.lost = event.epoch, []
    _meet(state, trial, event.worker)
    if not trial.final:
        state.arm(trial.arm).reach(trial.number, event.epoch, score, trial.mean)


def _meet(state: SweepState, trial: TrialRecord, worker: Worker | None) -> None:
    """Note what an attempt's first result says of its worker."""
    if worker is not None:
        trial.worker = worker
        if worker.format is not None:
            state.formats.setdefault(format_key(trial.config, worker.kind), worker.format)


def _unqueue(state: SweepState, number: int) -> None:
    if number in state.waiting:
        state.waiting.remove(number)
