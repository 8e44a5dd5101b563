"""The events of a journal: a class for each, by which it is made as well.

    journal.append(TrialAttempt(trial=3, attempt=0))

Each line of the file holds one event as a JSON object: `v` (schema), `n` (number of the line), `t` (seconds since
1970), `trial` and `attempt` (null where they do not apply), `event` (the kind), and the fields of its class without
those that have their default.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from orchestrator.record.decoding import RecordError, from_json
from orchestrator.record.facts import Config, Measured, Metrics, OnPart, Place, Spec, Status, Worker
from trainables.canary import Need


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Any event. The journal sets its number and time when it is appended."""

    kind: ClassVar[str]

    n: int = -1
    t: float = 0.0
    more: bool = False  # the next event was appended together with this one

    def content(self) -> dict[str, Any]:
        """Return the event as plain JSON values, without its number and time."""
        values: dict[str, Any] = {"trial": None, "attempt": None, "event": self.kind}
        for each in dataclasses.fields(self):
            value = getattr(self, each.name)
            if each.name not in STAMP and value != _default(each):
                values[each.name] = _plain(value)
        return values


STAMP = ("n", "t", "more")


@dataclass(frozen=True, slots=True)
class SweepStarted(Event):
    """A sweep begins, as `spec` says: all that is asked, and every auto as it was resolved."""

    kind = "sweep_started"
    spec: Spec


@dataclass(frozen=True, slots=True)
class SweepResumed(Event):
    """A further command goes on, as `spec` says; trials that were running wait for another attempt."""

    kind = "sweep_resumed"
    spec: Spec


@dataclass(frozen=True, slots=True)
class SweepEnded(Event):
    """The search has ended; trials that are running wait for `--resume`."""

    kind = "sweep_ended"
    reason: str  # finished | sweep_budget | signal | failed


@dataclass(frozen=True, slots=True)
class SearchExhausted(Event):
    """No point of an arm's search space is left to propose; its search ends with fewer trials than were asked for."""

    kind = "search_exhausted"
    arm: str = ""


@dataclass(frozen=True, slots=True)
class SearchClosed(Event):
    """The search ends here, in all arms: the seconds `left` of its time budget are kept for the `runs` after it, or it
    has come to a limit.
    """

    kind = "search_closed"
    left: float
    needed: float  # as estimated from the epochs of the best trials
    runs: int
    reason: str = "time_budget"  # or epoch_budget | gpu_hours | target_score | patience_trials, where no time counts


@dataclass(frozen=True, slots=True)
class SlotsChanged(Event):
    """The slots of a cluster, its machines that hold some, or the slots that it is asked for have changed."""

    kind = "slots_changed"
    slots: int
    nodes: int
    asked: int


@dataclass(frozen=True, slots=True)
class GpuMeasured(Event):
    """The steps of a model were measured on a GPU of a node, to decide how many trials share one."""

    kind = "gpu_measured"
    node: str
    need: Need


@dataclass(frozen=True, slots=True)
class TestOpened(Event):
    """The test set is opened for the winner's runs, for the `opening`-th time."""

    __test__: ClassVar[bool] = False  # by its name pytest takes it for a test
    kind = "test_opened"
    runs: list[int]
    opening: int


@dataclass(frozen=True, slots=True)
class Delivered(Event):
    """A deliverable of the sweep is there, as it should be; `digest` is the SHA-256 of its content."""

    kind = "delivered"
    deliverable: str  # test metrics | bundle | report
    digest: str


@dataclass(frozen=True, slots=True)
class DeliveryFailed(Event):
    """A deliverable of the sweep could not be made; it is owed until it is delivered."""

    kind = "delivery_failed"
    deliverable: str
    error: str


@dataclass(frozen=True, slots=True)
class TrialEvent(Event):
    """An event of one trial."""

    trial: int


@dataclass(frozen=True, slots=True)
class TrialProposed(TrialEvent):
    """A trial is to be run, with the searched values `params`; `arm` to `refit` are those of `TrialRecord`."""

    kind = "trial_proposed"
    params: dict[str, Any]
    config: Config
    arm: str = ""
    final: bool = False
    index: int | None = None  # before schema 4 of a final run alone: searched ones were counted
    confirms: int | None = None
    refit: bool = False
    redraws: int = 0  # points drawn before it that had been tried; older records have none

    def content(self) -> dict[str, Any]:
        """Return the event as plain JSON values; of a final run always with the trial that it confirms."""
        return Event.content(self) | ({"confirms": self.confirms} if self.final else {})


@dataclass(frozen=True, slots=True)
class TrialAttempt(TrialEvent):
    """The trial is handed to Ray."""

    kind = "trial_attempt"
    attempt: int
    gpus: float | None = None  # of its slot, where they differ between kinds of GPUs


@dataclass(frozen=True, slots=True)
class AttemptLost(TrialEvent):
    """The attempt ended by what may not be the trial's fault, which waits for another attempt."""

    kind = "attempt_lost"
    attempt: int
    error: str
    happened: str = "died"  # as `orchestrator.search.outcomes.TABLE` has it
    charged: bool = True  # it counts among the attempts that a trial may lose
    place: Place | None = None  # None where it is not known
    alone: bool = False  # from now on the trial's attempts have their GPU for themselves
    micro_batch: int = 0  # rows that they compute at a time, at most; 0: as before


@dataclass(frozen=True, slots=True)
class TrialPaused(TrialEvent):
    """The attempt ended at a rung, its state saved: the trial waits until the scheduler has it go on, or ends it."""

    kind = "trial_paused"
    attempt: int


@dataclass(frozen=True, slots=True)
class PlaceSetAside(Event):
    """Attempt after attempt failed on a node or device while others worked: it gets no trials for `seconds`."""

    kind = "place_set_aside"
    place: Place  # the device is None if the whole node is set aside
    failures: int  # in a row
    seconds: float
    error: str  # the last one


@dataclass(frozen=True, slots=True)
class PlaceReopened(Event):
    """A node or device that was set aside is tried again."""

    kind = "place_reopened"
    place: Place


@dataclass(frozen=True, slots=True)
class TrialFeatures(TrialEvent):
    """The trial's worker computed features of its frozen base, which it will be trained on."""

    kind = "trial_features"
    attempt: int
    rows: int  # whose features are known now
    of: int
    seconds: float  # of the worker's computation since its last result
    worker: Worker | None = None  # with the first result of an attempt


@dataclass(frozen=True, slots=True)
class TrialEpoch(TrialEvent):
    """The trial has run an epoch."""

    kind = "trial_epoch"
    attempt: int
    metrics: Metrics
    worker: Worker | None = None  # with the first result of an attempt
    unsaved: str | None = None  # why the trial's state cannot be saved, when that changes
    beside: int | None = None  # the place of what was confused, in `confusions.bin`; the metrics are without it then

    @property
    def epoch(self) -> int:
        """The epoch's number, counted from 1."""
        return int(self.metrics["epoch"])

    @property
    def is_last(self) -> bool:
        """True if the trial ends by itself with this epoch."""
        return self.metrics.get("stop_reason") is not None


@dataclass(frozen=True, slots=True)
class TrialEnded(TrialEvent):
    """The trial has ended."""

    kind = "trial_ended"
    attempt: int | None  # None of a trial that was never handed to Ray
    status: Status
    stop_reason: str
    error: str | None = None
    final_metrics: dict[str, OnPart] = field(default_factory=dict)  # of a final run, by part of the data
    worker: Worker | None = None  # if no epoch of the attempt has named it
    unsaved: str | None = None
    fault: str | None = None  # whose it was, if it ended by a failure; older versions did not record it

    def content(self) -> dict[str, Any]:
        """Return the event as plain JSON values, always with its error."""
        return Event.content(self) | {"error": self.error}


@dataclass(frozen=True, slots=True)
class WeightsLost(TrialEvent):
    """The weights that a final run kept are gone or damaged: what is known of it is void, and it is run again."""

    kind = "weights_lost"
    error: str


@dataclass(frozen=True, slots=True)
class WorkerFound(TrialEvent):
    """The worker of a trial, which a damaged line of the journal named, is known from the trial's checkpoint."""

    kind = "worker_found"
    worker: Worker


@dataclass(frozen=True, slots=True)
class TestMeasured(TrialEvent):
    """One of the winner's runs was measured on the test set."""

    __test__: ClassVar[bool] = False
    kind = "test_measured"
    metrics: OnPart


@dataclass(frozen=True, slots=True)
class EnsembleMeasured(Event):
    """The mean of some of the winner's runs was measured on a part of the data."""

    kind = "ensemble_measured"
    runs: list[int]
    part: str
    metrics: OnPart


KINDS: Mapping[str, type[Event]] = {
    kind.kind: kind
    for kind in (
        *(SweepStarted, SweepResumed, SweepEnded, SearchExhausted, SearchClosed, SlotsChanged, GpuMeasured),
        *(PlaceSetAside, PlaceReopened, TestOpened, TestMeasured, EnsembleMeasured, Delivered, DeliveryFailed),
        *(TrialProposed, TrialAttempt, TrialPaused, AttemptLost, TrialFeatures, TrialEpoch, TrialEnded),
        *(WeightsLost, WorkerFound),
    )
}


def parse(line: Mapping[str, Any]) -> Event:
    """Return the event that a line of the journal holds.

    Raises:
        RecordError: it holds none: a field is missing or of another type than it should be.
    """
    kind = line.get("event")
    if type(kind) is not str or kind not in KINDS:
        raise RecordError(f"{kind!r} is no event")
    return from_json(KINDS[kind], line)


def _default(each: dataclasses.Field[Any]) -> Any:
    """Return the default of a field, or an object that equals nothing."""
    if each.default is not dataclasses.MISSING:
        return each.default
    return each.default_factory() if each.default_factory is not dataclasses.MISSING else dataclasses.MISSING


def _plain(value: Any) -> Any:
    if isinstance(value, Spec | Measured):
        return value.to_dict()
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return dataclasses.asdict(value) if isinstance(value, Worker | Place | Need) else value
