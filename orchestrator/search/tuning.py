"""Trials run by Ray Tune, which gets them from the journal and whose results go there.

Results enter through a `Stopper`, the only hook of Tune that sees every result, and sees it first. It appends them,
with the decision of the stop rule, before the scheduler acts on that decision.
"""

from __future__ import annotations

import shutil
import tempfile
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune import CheckpointConfig, FailureConfig, RunConfig, TuneConfig, TuneError
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.stopper import Stopper

from orchestrator.cluster import process_state, signals
from orchestrator.record.decoding import from_json
from orchestrator.record.events import Event, TrialEnded, TrialEpoch, TrialFeatures, TrialPaused
from orchestrator.record.facts import Place, Worker
from orchestrator.record.journal import Journal
from orchestrator.record.state import SweepState
from orchestrator.search.incidents import Incident, Incidents
from orchestrator.search.schedulers import ByArm
from orchestrator.search.searcher import JournalSearcher
from orchestrator.search.workers import Workers
from trainables.storage import Storage
from trainables.trainable import ImageTrial
from trainables.workload import Workload

FREEING_S = 5.0  # that Ray has to free the slots
NODE_LABEL = "ray.io/node-id"  # Ray gives it to every node


@dataclass
class Ending:
    """The reasons to end a sweep before its trials do: a signal, no time left, or workers that cannot start."""

    deadline: float = float("inf")  # time.monotonic() seconds
    interruption: signals.Interruption = field(default_factory=signals.Interruption)
    failure: str | None = None  # why no trial can be trained

    @property
    def reason(self) -> str | None:
        """The reason to end now; None to go on."""
        if self.failure is not None:
            return "failed"
        if self.interruption.received:
            return "signal"
        return "sweep_budget" if time.monotonic() >= self.deadline else None

    def fail(self, why: str) -> None:
        """Have the sweep end as failed."""
        self.failure = self.failure or why


class Ended(BaseException):
    """Leaves Tune at once: it would wait for its actors, up to 15 s, and write down every trial once more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """The attempt at a trial that a worker was given, or reports of."""

    trial: int
    attempt: int

    def is_current(self, state: SweepState) -> bool:
        """Return whether this attempt is the one that runs the trial."""
        return state.running.get(self.trial) == self.attempt


@dataclass(frozen=True, slots=True)
class FeaturesReport:
    """The progress of features of a frozen base, as `TrialFeatures` has it."""

    rows: int
    of: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result(Attempt):
    """The parts of Tune's result that the worker made: see `ImageTrial`."""

    epochs: list[dict[str, Any]]
    place: Place | None = None
    incident: Incident | None = None
    held: bool = False
    features: FeaturesReport | None = None
    worker: Worker | None = None
    end: dict[str, Any] | None = None
    paused: bool = False
    unsaved: str | None = None


class Recorder(Stopper):
    """Appends every result to the journal. It never stops a single trial, but all of them when the sweep should end."""

    def __init__(
        self,
        journal: Journal,
        rule: ByArm,
        ending: Ending,
        searcher: JournalSearcher,
        workers: Workers,
        incidents: Incidents,
    ) -> None:
        self._journal = journal
        self._rule = rule
        self._ending = ending
        self._searcher = searcher
        self._workers = workers
        self._incidents = incidents

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Append the result's epochs, and the trial's end if it ended or is stopped; return False."""
        news = from_json(Result, result)
        if news.held and news.place is not None:
            self._workers.hold(trial_id, news.place)
        if not news.is_current(self._journal.state):
            return False  # from a worker that was taken for lost
        if news.place is not None:
            self._workers.begin(news.trial, news.attempt, news.place)
        if news.held:
            aside = Incident(happened="set_aside", error=f"{news.place} is set aside")
            self._incidents.record(self._journal.state.trials[news.trial], news.attempt, aside, news.place)
            return False
        self._record(trial_id, news)
        if not news.is_current(self._journal.state):
            self._workers.end(news.trial, news.attempt)
        return False

    def _record(self, trial_id: str, news: Result) -> None:
        """Append what a worker reports of the current attempt at a trial."""
        number, attempt = news.trial, news.attempt
        trial, worker, unsaved = self._journal.state.trials[number], news.worker, news.unsaved
        ended = None if news.end is None else from_json(TrialEnded, {"trial": number, "attempt": attempt, **news.end})
        if news.features is not None:
            done = news.features
            self._journal.append(TrialFeatures(number, attempt, done.rows, done.of, done.seconds, worker))
            worker = None
        if news.features is not None or any(epoch["epoch"] > trial.last_epoch for epoch in news.epochs):
            self._workers.work(number, attempt)  # not those of a state that it began with
            self._incidents.progress()
        # there are several epochs where a checkpoint had some that no result reported; all may be rungs
        for epoch in (TrialEpoch(number, attempt, metrics) for metrics in news.epochs):
            if epoch.epoch <= trial.last_epoch:
                continue
            events: list[Event] = [replace(epoch, worker=worker, unsaved=unsaved)]
            worker = unsaved = None
            if ended is not None and epoch.is_last:
                events.append(ended)
            elif self._weak(epoch):
                closed = self._journal.state.closed
                reason = self._rule.reason if closed is None else closed.reason
                events.append(TrialEnded(number, attempt, "stopped", reason))
            elif news.paused and epoch.epoch == news.epochs[-1]["epoch"]:
                events.append(TrialPaused(number, attempt))
            self._journal.append(*events)
            if not news.is_current(self._journal.state):
                self._incidents.ended()
                return
        if ended is not None:
            self._incidents.ended()
            self._journal.append(replace(ended, worker=worker, unsaved=unsaved))
        elif news.paused:  # its epochs were known
            self._incidents.ended()
            self._journal.append(TrialPaused(number, attempt))
        elif news.incident is not None:
            place = self._workers.place(number, attempt)
            if not self._incidents.record(trial, attempt, news.incident, place, worker):
                self._workers.dismiss(trial_id, place or Place())

    def _weak(self, epoch: TrialEpoch) -> bool:
        """Return whether the stop rule ends the trial at this epoch, or the end of the search does."""
        trial = self._journal.state.trials[epoch.trial]
        if self._journal.state.closed is not None and not trial.final:
            return True
        return self._rule.stops(self._journal.state, trial, epoch.epoch, trial.score_with(epoch.metrics))

    def stop_all(self) -> bool:
        """Raise `Ended` if the sweep should end, else return False."""
        if self._ending.reason is not None or self._searcher.exhausted:
            raise Ended
        self._incidents.reopen()
        return False

    def __getstate__(self) -> dict[str, Any]:
        return {}


class JournalScheduler(FIFOScheduler):
    """Stops trials that ended in the journal, and records attempts whose workers died, which are then repeated."""

    def __init__(self, journal: Journal, ending: Ending, workers: Workers, incidents: Incidents) -> None:
        super().__init__()
        self._journal = journal
        self._ending = ending
        self._workers = workers
        self._incidents = incidents
        self._waiting: dict[str, Trial] = {}  # trials that may not run everywhere and wait for a node, by Tune's id

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """Return None: trials begin in their order. Tune would look at all trials of the sweep, twice an event.

        Attempts that wait for nodes that have left are recorded as lost.
        """
        for trial in [trial for trial in self._waiting.values() if self._waits_in_vain(trial)]:
            self._begun(trial)
            lost = from_json(Attempt, trial.config)
            if lost.is_current(self._journal.state):
                left = Incident(happened="set_aside", error="the nodes on which it may run have left")
                self._incidents.record(self._journal.state.trials[lost.trial], lost.attempt, left, None)
            tune_controller.request_stop_trial(trial)
        return None

    def _waits_in_vain(self, trial: Trial) -> bool:
        """Return whether no node is there any more on which the trial may run."""
        return self._workers.has_left(trial.config["avoid"]["nodes"], trial.config["only"])

    def _begun(self, trial: Trial) -> None:
        """Note that the trial waits for a node no longer."""
        self._waiting.pop(trial.trial_id, None)

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Have the trial's attempt run on those nodes where it may, with its own share of a GPU."""
        avoid, only, gpus = trial.config["avoid"]["nodes"], trial.config["only"], trial.config["gpus"]
        if avoid or only:
            self._waiting[trial.trial_id] = trial
        if avoid or only or gpus is not None:
            (slot,) = trial.placement_group_factory.bundles
            slot = {name: gpus if gpus is not None and name == "GPU" else amount for name, amount in slot.items()}
            nodes = f"in({','.join(only)})" if only else f"!in({','.join(avoid)})"
            labels = [{NODE_LABEL: nodes}] if avoid or only else None
            trial.placement_group_factory = tune.PlacementGroupFactory([slot], bundle_label_selector=labels)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Return whether the trial's worker goes on: it does if the journal says that this attempt is running.

        So does one that is to end its process, or to hold a device that no trial should be given.
        """
        self._begun(trial)
        current = from_json(Attempt, result).is_current(self._journal.state)
        if current or self._workers.keeps(trial.trial_id):
            return str(TrialScheduler.CONTINUE)
        self._workers.release(trial.trial_id)
        return str(TrialScheduler.STOP)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Record that the worker died, unless its attempt had ended before."""
        self._begun(trial)
        self._workers.release(trial.trial_id)
        lost = from_json(Attempt, trial.config)
        if not lost.is_current(self._journal.state):
            return
        if self._ending.interruption.received:  # the signal ended the worker, too
            return
        died = Incident(happened="died", error=_error_of(trial))
        place = self._workers.place(lost.trial, lost.attempt)
        self._incidents.record(self._journal.state.trials[lost.trial], lost.attempt, died, place)

    def __getstate__(self) -> dict[str, Any]:
        return {}


def _error_of(trial: Trial) -> str:
    """Return what Tune wrote down of the trial's last error."""
    try:
        return Path(trial.error_file).read_text().strip()
    except OSError:
        return "the worker died"


def image_trials(
    data: ray.ObjectRef,
    weights: dict[tuple[str, str], ray.ObjectRef],
    storage: Storage,
    device: str,
    workload: Workload | None = None,
) -> Any:
    """Return the trainable of a sweep over `data` (a `SearchData` in the object store), on `device` (cpu or cuda).

    Args:
        weights: initial weights in the object store, by model and value of `weights`.
        workload: what each slot is planned to run.
    """
    shared = {"data": data, "storage": storage, "device": device, "weights": weights, "workload": workload}
    return tune.with_parameters(ImageTrial, **shared, run=uuid.uuid4().hex)


def run(
    journal: Journal,
    searcher: JournalSearcher,
    rule: ByArm,
    trainable: Any,
    resources: dict[str, float],
    ending: Ending,
) -> str:
    """Run trials until the searcher has no more, or the sweep should end; return the reason of its end.

    Tune's folder is temporary: nothing in it is needed once this returns. Its workers have ended by then, or will soon.
    """
    folder = tempfile.mkdtemp(prefix="sweep-")
    workers = searcher.workers
    incidents = Incidents(journal, workers, ending.fail)
    try:
        with process_state.tune_adapted(searcher.to_come) as free_slots:
            tuner = tune.Tuner(
                tune.with_resources(trainable, resources),
                tune_config=TuneConfig(
                    search_alg=searcher,
                    scheduler=JournalScheduler(journal, ending, workers, incidents),
                    num_samples=-1,
                    reuse_actors=True,
                    trial_name_creator=lambda trial: trial.trial_id,
                    trial_dirname_creator=lambda trial: trial.trial_id,
                ),
                run_config=RunConfig(
                    name="tune",
                    storage_path=folder,
                    stop=Recorder(journal, rule, ending, searcher, workers, incidents),
                    failure_config=FailureConfig(max_failures=0),
                    checkpoint_config=CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                    verbose=0,
                ),
            )
            try:
                with ending.interruption.raised(), suppress(Ended):
                    tuner.fit()
            finally:  # a signal may have ended Ray's processes, too
                signals.in_time(free_slots, FREEING_S)
    except KeyboardInterrupt:
        if not ending.interruption.received:
            raise
    except TuneError:  # Tune wraps whatever a hook raises
        if journal.failure is not None:
            raise journal.failure from None
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return ending.reason or "finished"
