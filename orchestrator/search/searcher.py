"""The Ray `Searcher` around the studies that follow the journal: it proposes trials."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ray.tune.search import Searcher

from orchestrator.cluster.machine import slots_a_gpu
from orchestrator.record.events import SearchExhausted, TrialAttempt, TrialEnded
from orchestrator.record.journal import Journal
from orchestrator.record.state import SweepState
from orchestrator.record.trial_record import is_alone
from orchestrator.search.schedulers import ByArm
from orchestrator.search.study import JournalStudy, Proposal
from orchestrator.search.trial_queue import NextTrial, TrialQueue
from orchestrator.search.workers import Room, Workers
from trainables.config import TrialConfig


class JournalSearcher(Searcher):
    """Suggests to Ray Tune the trials that wait for another attempt, and new ones while slots are free.

    A trial whose worker died waits in the journal's state. It is suggested again as its next attempt, under whatever
    new id Ray gives it.
    """

    def __init__(
        self,
        journal: Journal,
        queue: TrialQueue,
        rule: ByArm,
        studies: Mapping[str, JournalStudy],
        configure: Callable[[int, NextTrial, dict[str, Any]], TrialConfig],
        slots: Callable[[], int],
        ending: Callable[[], bool] = lambda: False,
        requeue: Callable[[], bool] = lambda: False,
        threads: int | None = None,
        before: Sequence[Callable[[], None]] = (),
        workers: Workers | None = None,
    ) -> None:
        """Go on where the journal is.

        Args:
            rule: has trials pause, and says which of them go on.
            studies: arm → its study, for every arm in which fields are searched.
            configure: returns a trial's configuration from its number, its entry in the queue and its searched values.
            slots: returns how many trials may run now.
            ending: returns whether the sweep should end. While no slot is free, Tune calls nothing but this searcher.
            requeue: called once all trials have ended; returns whether it has some wait for another attempt.
            before: are called before every proposal; they may close the search.
            threads: those of every attempt now, where slots may have another size than when a trial was proposed.
            workers: knows which nodes and devices are to be avoided.
        """
        super().__init__(metric=None, mode=None)
        self._journal = journal
        self._queue = queue
        self._rule = rule
        self._studies = studies
        self._configure = configure
        self._slots = slots
        self._ending = ending
        self._requeue = requeue
        self._before = before
        self._threads = {} if threads is None else {"threads": threads}
        self.workers = workers or Workers()
        self._room = Room([], [])  # where the attempt that was recorded last may run
        self.exhausted = False  # no trial runs or waits, and there are no more to propose

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return what the worker of the next trial gets, None to be called again later, or `FINISHED`."""
        state = self._journal.state
        if self._ending():
            return str(Searcher.FINISHED)
        for check in self._before:
            check()
        slots = self._slots()
        if self.workers.free(slots, self._taken(state).total()) <= 0:
            return None
        self._end_hopeless(state)
        due = self._again(state, self._ready(state, slots))
        if due is None:
            due = self._next(state)
        if due is None and not state.running:
            due = self._again(state, state.waiting)
        if due is None:
            self.exhausted = not (state.running or state.waiting or state.paused) and not self._requeue()
            return str(Searcher.FINISHED) if self.exhausted else None
        trial = state.trials[due]
        fewer = {"micro_batch": trial.micro_batch} if trial.micro_batch else {}
        return {
            "trial": due,
            "attempt": trial.attempt,
            # as text: Tune copies and encodes it many times a trial
            "config": json.dumps({**trial.config, **self._threads, **fewer}),
            "format": trial.worker.format,
            "formats": state.formats_of(trial.config),
            "final": trial.final,
            "until": self._rule.pauses_at(trial),
            "gpus": 1.0 if is_alone(state.trials, trial) else trial.gpus,
            "only": list(self._room.only),
            "avoid": {"nodes": self._room.avoid, "devices": [list(where) for where in self._room.avoid_devices]},
        }

    def to_come(self) -> int:
        """Return how many trials are still to begin, or to begin again."""
        state = self._journal.state
        return max(self._queue.total() - len(state.trials), 0) + len(state.waiting)

    def _ready(self, state: SweepState, slots: int) -> list[int]:
        """Return the trials that wait for an attempt, but for those that failed where alone a slot is free."""
        running = self._taken(state).total()
        return [
            number
            for number in state.waiting
            if self.workers.has_room_outside(
                [event.place for event in state.trials[number].failures if event.place is not None], slots, running
            )
        ]

    def _taken(self, state: SweepState) -> Counter[float | None]:
        """Return the slots that running attempts take, also those that wait for a whole GPU, by their GPUs."""
        taken = Counter[float | None]()
        for number in state.running:
            gpus = state.trials[number].gpus
            whole = self.workers.slot.gpus if gpus is None else gpus
            taken[gpus] += slots_a_gpu(whole) if is_alone(state.trials, state.trials[number]) else 1
        return taken

    def _attempt(self, state: SweepState, number: int, attempt: int) -> TrialAttempt:
        """Return the event of an attempt at a trial, and note where it may run."""
        trial = state.trials.get(number)
        node_id, failures = (None, []) if trial is None else (trial.worker.node_id, trial.failures)
        self._room = self.workers.room(node_id, failures, self._taken(state))
        return TrialAttempt(number, attempt, self._room.gpus)

    def _again(self, state: SweepState, waiting: list[int]) -> int | None:
        """Record the next attempt at the first of these trials, and return its number; None if there are none."""
        due = next(iter(waiting), None)
        if due is not None:
            self._journal.append(self._attempt(state, due, state.trials[due].attempt + 1))
        return due

    def _end_hopeless(self, state: SweepState) -> None:
        """End the paused trials that cannot go on any more."""
        reason = self._rule.reason if state.closed is None else state.closed.reason
        for number in self._rule.hopeless(state) if state.paused else ():
            self._journal.append(TrialEnded(number, state.trials[number].attempt, "stopped", reason))

    def _next(self, state: SweepState) -> int | None:
        """Record the next attempt at a trial that is paused, or at a new one, and return its number; None if there is
        none now.

        A round's trials are all proposed first; only a slot that has nothing else to do takes a paused one early.
        """
        due = self._queue.next(state)
        opens = due is None or due.final or self._rule.opens_round(due.arm, due.index)
        proposed = None if opens else self._propose(state)
        if proposed is None:
            proposed = self._go_on(state, idle=False)
        if proposed is None:
            proposed = self._propose(state)
        return self._go_on(state, idle=True) if proposed is None else proposed

    def _go_on(self, state: SweepState, *, idle: bool) -> int | None:
        """Record the next attempt at the paused trial that is due, and return its number; None if there is none."""
        due = self._rule.due(state, idle=idle)
        return self._again(state, [] if due is None else [due])

    def _propose(self, state: SweepState) -> int | None:
        """Record the next trial and its first attempt, and return its number; None if there is none yet, or no more."""
        while (due := self._queue.next(state)) is not None:
            number, drawn = state.next_trial, Proposal(due.params or {})
            if not due.final:
                found = self._studies[due.arm].propose(number)
                if found is None:
                    self._journal.append(SearchExhausted(due.arm))
                    continue
                drawn = found
            config = self._configure(number, due, drawn.params)
            if due.confirms in state.trials and (fewer := state.trials[due.confirms].micro_batch):
                config = config.replace(micro_batch=fewer)  # batch norm sees what it saw there
            proposed = due.proposal(number, drawn.params, config.to_dict(), drawn.redraws)
            self._journal.append(proposed, self._attempt(state, number, 0))
            return number
        return None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Do nothing: the journal has it already."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: all there is to save is in the journal."""

    def restore(self, checkpoint_path: str) -> None:
        """Raise NotImplementedError."""
        raise NotImplementedError("a sweep is resumed from its journal")

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles the searcher, and never unpickles it here
