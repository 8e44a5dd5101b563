"""Errors and losses of attempts, as workers report them, recorded in the journal as the table of outcomes says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from orchestrator.record.events import AttemptLost, Event, PlaceReopened, PlaceSetAside, TrialEnded
from orchestrator.record.facts import Place, Worker
from orchestrator.record.journal import Journal
from orchestrator.record.state import TrialRecord
from orchestrator.search import outcomes
from orchestrator.search.outcomes import MOST_LOSSES, SAME_ERRORS, Row
from orchestrator.search.workers import Workers
from trainables.errors import last_line

MOST_UNREAD = 20  # attempts in a row that storage may cost, each after long patience
ASK_THE_DOCTOR = (
    "`python -m orchestrator.doctor` with the same arguments shows what is wrong with machine, data or model; then go "
    "on with --resume"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """Facts about an exception in a worker, or about the end of one."""

    happened: str  # as in `outcomes.TABLE`
    error: str  # the last lines of the traceback
    alone: bool = True  # no other trial had a share of the device
    clean: bool = True  # the device works afterwards
    micro_batch: int | None = None  # rows that were computed at a time; None where that is not known


class Incidents:
    """Records incidents, and ends the sweep if nothing but one and the same error comes of it."""

    def __init__(self, journal: Journal, workers: Workers, fail: Callable[[str], None]) -> None:
        """Take a function that ends the sweep, with the reason."""
        self._journal = journal
        self._workers = workers
        self._fail = fail
        self._deaths = 0  # of workers, before any has begun an attempt
        self._unread = 0  # attempts in a row that storage has cost, all trials together
        self._errors: list[str] | None = []  # signatures of the errors that ended the first trials; None: others ended

    def record(
        self, trial: TrialRecord, attempt: int, incident: Incident, place: Place | None, worker: Worker | None = None
    ) -> bool:
        """Record what happened to the current attempt at a trial; return whether its worker may run other trials.

        Args:
            worker: what the attempt's first result says, unless an event has it already.
        """
        again = place is not None and outcomes.is_again(
            incident.happened, incident.error, place, trial.lost, self._workers.several
        )
        smaller = outcomes.halved(incident.micro_batch)
        row = outcomes.decide(incident.happened, incident.alone, again, smaller > 0)
        events: list[Event] = []
        if row.retried != "no":
            charged = row.charged == "worker"
            lost = AttemptLost(trial.number, attempt, incident.error, row.happened, charged, place)
            alone, fewer = row.retried == "alone", smaller if row.retried == "smaller" else 0
            events.append(replace(lost, alone=alone, micro_batch=fewer))
            if charged and place is not None and (aside := self._workers.fail(place)) is not None:
                events.append(PlaceSetAside(*aside, incident.error))
            if row.happened == "died" and not self._workers.any_began:
                self._count_death(incident.error)
            elif row.fault == "storage":
                self._count_unread(incident.error)
            elif charged and trial.losses >= MOST_LOSSES:
                row = outcomes.decide("lost")
        if row.status is not None:
            if row.fault == "settings":
                self._workers.forgive(trial.failures)
            end = TrialEnded(trial.number, attempt, row.status, str(row.stop_reason), incident.error, fault=row.fault)
            events.append(replace(end, worker=worker))
            self._watch_errors(row, incident.error)
        self._journal.append(*events)
        self._workers.end(trial.number, attempt)
        return row.status is not None and row.happened != "lost" and incident.clean

    def _count_death(self, error: str) -> None:
        """End the sweep once many workers have died, and none has begun a trial."""
        self._deaths += 1
        if self._deaths > MOST_LOSSES:
            self._fail(f"no worker could start: {error}")

    def _count_unread(self, error: str) -> None:
        """End the sweep once storage has failed so often that waiting is in vain."""
        self._unread += 1
        if self._unread >= MOST_UNREAD:
            self._fail(
                f"storage has failed for {self._unread} attempts in a row: {last_line(error)}; go on with --resume"
            )

    def progress(self) -> None:
        """Note that an epoch has come from any trial."""
        self._unread = 0

    def ended(self) -> None:
        """Note that a trial ended by itself."""
        self._errors = None

    def _watch_errors(self, row: Row, error: str) -> None:
        """End the sweep if its first trials all end with one same error."""
        if self._errors is None or row.happened not in ("error", "lost"):
            self._errors = None
            return
        self._errors.append(outcomes.signature(error))
        if len(set(self._errors)) > 1:
            self._errors = None
        elif len(self._errors) >= SAME_ERRORS:
            self._fail(
                f"the first {SAME_ERRORS} trials all ended with the same error: {last_line(error)}; {ASK_THE_DOCTOR}"
            )

    def reopen(self) -> None:
        """Try places again that were set aside, if their time has come."""
        for place in self._workers.reopened():
            self._journal.append(PlaceReopened(place))
