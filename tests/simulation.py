"""A sweep without Ray, torch or time: the real searcher, recorder, scheduler, rule and journal, and a pretended Tune.

The hooks are called in Tune's order (2.60): `suggest` while slots are free; for a result the stopper, then the
scheduler unless the result is the trial's last, then the searcher unless the trial is stopped; `on_trial_complete`
at its end; for a dead worker the scheduler's `on_trial_error`, then the searcher's `on_trial_complete(error=True)`.
When the whole search is stopped no hook is called for the trials that were running.

Workers learn along curves that depend on the configuration alone, keep checkpoints as `trainables.trainable` does,
and die; the driver is killed in the midst of any write. Everything happens by the order of one random generator.
"""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher
from ray.tune.utils import flatten_dict

from orchestrator.cluster.machine import Slot
from orchestrator.record import aims
from orchestrator.record.events import (
    Event,
    SweepEnded,
    SweepResumed,
    SweepStarted,
    TrialEnded,
    TrialEpoch,
    TrialProposed,
)
from orchestrator.record.facts import Spec
from orchestrator.record.journal import Journal
from orchestrator.search.incidents import Incidents
from orchestrator.search.limits import Limits, LimitWatch
from orchestrator.search.schedulers import ByArm, StopRule
from orchestrator.search.searcher import JournalSearcher
from orchestrator.search.stopping import AshaStopping
from orchestrator.search.study import JournalStudy
from orchestrator.search.time_reserve import Budget, TimeReserve
from orchestrator.search.trial_queue import NextTrial, TrialQueue
from orchestrator.search.tuning import Ended, Ending, JournalScheduler, Recorder
from orchestrator.search.workers import Workers
from search_spaces.space import SearchSpace, choice, integer, log, uniform
from trainables.config import TrialConfig
from trainables.seeds import seed_for

SPACE = SearchSpace(
    TrialConfig(model="resnet8", max_epochs=5, precision="float32", memory_format="contiguous", threads=1),
    {
        "lr": log(0.01, 1.0),
        "dropout": uniform(0.0, 0.4, 0.1),
        "batch_size": integer(16, 64, 16),
        "model": choice("resnet8", "resnet20"),
    },
)


GRID = SearchSpace(
    SPACE.base,
    {"dropout": uniform(0.0, 0.4, 0.1), "batch_size": integer(16, 64, 16), "model": choice("resnet8", "resnet20")},
)


PARAMETERS = {"resnet8": 75_290, "resnet20": 269_722}
Learned = Callable[[dict[str, Any], int], dict[str, Any]]
"""Returns the metrics of a configuration after an epoch, or the incident that it ends with."""


@dataclass(frozen=True)
class Setup:
    """The options of a simulated sweep."""

    trials: int = 6
    sampler: str = "random"
    seed: int = 0
    slots: int = 1
    rule: StopRule = field(default_factory=lambda: AshaStopping(max_epochs=5, grace=1, factor=2))
    space: SearchSpace = SPACE
    arms: tuple[str, ...] = ("",)  # of a recipe; all have the same space
    seeds: int = 0  # final runs of every arm
    best: int = 1  # trials that have final runs
    confirm_start: bool = False  # so has the one at the start point, if it is among the best ten
    budget: float = math.inf  # seconds of a command; with it there are as many trials as fit
    limits: Limits = field(default_factory=Limits)
    constraint: tuple[str, ...] = ()
    places: tuple[tuple[str, str | None], ...] = ()  # node and device of each slot; by default one node without any
    kinds: Mapping[str, str] = field(default_factory=dict)  # of GPUs, by node
    slot: Slot = field(default_factory=lambda: Slot(1))
    sick: frozenset[int] = frozenset()  # slots where every attempt fails, while it begins
    learned: Learned | None = None  # instead of `learned`
    in_time: bool = False  # every epoch takes as long as the next one, in all slots; else any worker is the next one


@dataclass(frozen=True)
class Chaos:
    """How often things go wrong: shares of the writes, results and turns of the controller."""

    kill: float = 0.0  # the driver, in the midst of a write
    lose: float = 0.0  # a worker
    late: float = 0.0  # of the lost ones: its result arrives all the same
    signal: float = 0.0
    checkpoint: float = 0.5  # of the epochs


CALM = Chaos()


class DriverKilledError(Exception):
    """The driver's process was killed."""


class FragileJournal(Journal):
    """A journal whose driver can be killed while it writes, which leaves any part of the bytes in the file."""

    def __init__(self, path: Path, clock: Callable[[], float], fate: random.Random, kill: float) -> None:
        super().__init__(path, clock)
        self._fate = fate
        self._kill = kill

    def _write(self, content: bytes) -> None:
        if self._fate.random() < self._kill:
            super()._write(content[: self._fate.randint(0, len(content))])
            raise DriverKilledError
        super()._write(content)


def curve(config: dict[str, Any], epoch: int) -> dict[str, Any]:
    """Return the metrics of `config` at `epoch`, the same in every run; None where undefined."""
    drawn = random.Random(f"{config['seed']} {epoch}").random()
    reached = 0.9 - abs(config["lr"] - 0.1) - config["dropout"] / 10 - 0.4 / epoch + 0.2 * drawn
    defined = drawn > 0.05
    seconds = 2.0  # the clock ticks at the step and at its event
    return {"epoch": epoch, "val_accuracy": reached if defined else None, "val_loss": 1 - reached, "train_s": seconds}


@dataclass
class Checkpoint:
    """The metrics of every epoch so far, and whether the trial has ended."""

    epochs: list[dict[str, Any]]
    epoch: int
    ended: bool = False


class Worker:
    """One attempt, as `ImageTrial` runs it."""

    def __init__(
        self,
        assignment: dict[str, Any],
        checkpoints: dict[int, Checkpoint],
        place: dict[str, Any],
        sick: bool,
        learns: Learned,
    ) -> None:
        self._learned = learns
        self._place = place
        self._sick = sick
        self.held = [place["node_id"], place["device"]] in assignment["avoid"]["devices"]
        self._identity = {"trial": assignment["trial"], "attempt": assignment["attempt"]}
        self._config = json.loads(assignment["config"])
        self._final_metrics = {"test": {"rows": 8, "accuracy": self._config["seed"]}} if assignment["final"] else None
        self._checkpoints = checkpoints
        self._saved = checkpoints.get(assignment["trial"])
        self._epoch = self._saved.epoch if self._saved else 0
        self._reported = list(self._saved.epochs) if self._saved else []  # which the driver may have missed
        self._first = True
        self._until = assignment["until"]

    def step(self, save: bool) -> dict[str, Any]:
        """Return the next result; with `save`, write a checkpoint at its epoch before the driver sees it."""
        if self.held:
            return {**self._identity, "epochs": [], "place": self._place, "held": True}
        result: dict[str, Any] = {**self._identity, "epochs": list(self._reported) if self._first else []}
        result["place"] = self._place
        if self._sick:
            return {**result, "incident": {"happened": "error", "error": "RuntimeError: ECC error 0x1f"}}
        if self._first:
            result["worker"] = {
                "node": "simulated",
                "format": {"precision": "float32", "memory_format": "contiguous"},
                "parameters": PARAMETERS.get(self._config["model"]),
            }
        if self._saved is not None and self._saved.ended:
            return {**result, **_end("completed", "budget", self._final_metrics)}
        self._first = False
        if self._until is not None and self._epoch >= self._until:
            return {**result, "paused": True, "done": True}
        self._epoch += 1
        learned = self._learned(self._config, self._epoch)
        if "happened" in learned:
            return {**self._identity, "epochs": list(self._reported), "place": self._place, "incident": learned}
        ended = self._epoch == self._config["max_epochs"]
        metrics = {**learned, "stop_reason": "budget" if ended else None}
        result["epochs"].append(metrics)
        self._reported.append(metrics)
        paused = not ended and self._epoch == self._until
        if save or ended or paused:
            self._checkpoints[self._identity["trial"]] = Checkpoint(list(self._reported), self._epoch, ended)
        if paused:
            return {**result, "paused": True, "done": True}
        return {**result, **_end("completed", "budget", self._final_metrics)} if ended else result


def learned(config: dict[str, Any], epoch: int) -> dict[str, Any]:
    """Return the metrics of `config` at `epoch` or, of settings that cannot train, the incident."""
    return _trouble(config, epoch) or curve(config, epoch)


def _trouble(config: dict[str, Any], epoch: int) -> dict[str, Any] | None:
    """Return the incident at `epoch` of settings that cannot train, wherever they do."""
    if config["lr"] > 0.3 and epoch > 1:
        return {"happened": "not_finite", "error": f"the loss is not finite in epoch {epoch}"}
    if config["batch_size"] == 64 and config["dropout"] > 0.25:
        return {"happened": "error", "error": "ValueError: such pictures have no such batches"}
    return None


def _end(status: str, reason: str, final_metrics: dict[str, Any] | None = None) -> dict[str, Any]:
    end = {"status": status, "stop_reason": reason, "error": None}
    return {"end": end | ({"final_metrics": final_metrics} if final_metrics else {}), "done": True}


@dataclass
class RayTrial:
    """The parts of Tune's trial that the hooks look at."""

    trial_id: str
    config: dict[str, Any]
    worker: Worker
    slot: int = 0
    waits: bool = False  # for the driver, which has its result
    steps: int = 0  # and when it began: its own clock
    leaves: bool = False  # it ends its process when it is told to go on
    error_file: str = "/nowhere/error.txt"


class Simulation:
    """One sweep over as many commands as it needs, counted by `commands`."""

    def __init__(
        self, folder: Path, setup: Setup, chaos: Chaos = CALM, seed: int = 0, watch: Callable[..., None] | None = None
    ) -> None:
        """Take `watch`, which is called with every event and the state after it, as a subscriber is."""
        self.path = folder / "journal.jsonl"
        self.setup = setup
        self.chaos = chaos
        self.commands = 0
        self._fate = random.Random(seed)
        self._watch = watch
        self._now = 1e9
        self._checkpoints: dict[int, Checkpoint] = {}
        self._ids = 0
        self._turn = 0
        self._pids = list(range(setup.slots))  # the process of each slot

    def run(self) -> Journal:
        """Run until all trials have ended, resuming after every kill and signal; return the last journal, closed."""
        while True:
            self.commands += 1
            try:
                journal = self.command()
            except DriverKilledError:
                continue
            if journal.state.ended == "finished":
                return journal

    def command(self) -> Journal:
        """Run one command as `orchestrator.sweep` does: open, replay, search, end, close."""
        self._now += 3600
        with closing(FragileJournal(self.path, self._clock, self._fate, self.chaos.kill)) as journal:
            self._command(journal)
        return journal

    def _command(self, journal: Journal) -> None:
        if self._watch is not None:
            watch = self._watch
            journal.subscribe(lambda event: watch(event, journal.state))
        space = self.setup.space
        studies = {
            arm: JournalStudy(
                *(space, self.setup.sampler, self.setup.seed, arm, self.setup.trials, self.setup.rule.learned_at),
                aims.judge(journal.state.trials, aims.known_constraints(self.setup.constraint)),
            )
            for arm in self.setup.arms
        }
        opening = SweepResumed if journal.state.begun else SweepStarted
        for study in studies.values():
            journal.subscribe(study.observe)
        plan = {"name": "simulated", "constraint": list(self.setup.constraint)}
        spec = Spec(plan=plan, slots=self.setup.slots, command=f"command {self.commands}")
        journal.append(opening(spec))
        setup = self.setup
        arms, open_ended = dict.fromkeys(setup.arms, space), not math.isinf(setup.budget)
        queue = TrialQueue(arms, setup.trials, setup.seeds, setup.best, setup.confirm_start, open_ended=open_ended)
        budget = Budget(setup.budget, self._now + setup.budget, lambda: self._now)
        rule = ByArm(dict.fromkeys(setup.arms, setup.rule))
        limits = LimitWatch(journal, queue, setup.limits, slot_gpus=1.0)
        journal.subscribe(limits.observe)
        reserve = TimeReserve(journal, queue, budget, lambda: setup.slots)
        nodes = Counter(node for node, _ in setup.places or [("simulated", None)] * setup.slots)
        workers = Workers(lambda: nodes, setup.slot, clock=lambda: self._now, kinds=setup.kinds)
        searcher = JournalSearcher(
            *(journal, queue, rule, studies, self._configure, lambda: setup.slots),
            before=(reserve.check, limits.check),
            workers=workers,
        )
        ending = Ending()
        self._search(journal, searcher, rule, ending, workers)
        journal.append(SweepEnded(ending.reason or "finished"))

    def _search(
        self, journal: Journal, searcher: JournalSearcher, rule: ByArm, ending: Ending, workers: Workers
    ) -> None:
        incidents = Incidents(journal, workers, ending.fail)
        recorder = Recorder(journal, rule, ending, searcher, workers, incidents)
        scheduler = JournalScheduler(journal, ending, workers, incidents)
        live: list[RayTrial] = []
        try:
            while True:
                recorder.stop_all()
                suggested = searcher.suggest(f"ray-{self._ids}")
                if isinstance(suggested, dict):
                    live.append(self._start(suggested, {trial.slot for trial in live}))
                    continue
                if suggested == Searcher.FINISHED and not live:
                    continue
                assert live, "nothing runs and nothing is proposed: Tune would wait for ever"
                assert len(live) <= self.setup.slots
                self._advance(live, recorder, scheduler, searcher)
                ending.interruption.received = self._fate.random() < self.chaos.signal
        except Ended:
            assert ending.reason is not None or all(trial.leaves or trial.worker.held for trial in live)
        finally:  # workers notice later: they may save an epoch that nobody sees
            for trial in live:
                if not trial.waits and self._fate.random() < self.chaos.late:
                    self._step(trial)

    def _start(self, suggested: dict[str, Any], taken: set[int]) -> RayTrial:
        """Start an attempt in the first free slot of those nodes where it may run."""
        places = self.setup.places or (("simulated", None),) * self.setup.slots
        avoid, only = suggested["avoid"]["nodes"], suggested["only"] or [node for node, _ in places]
        free = (i for i, (node, _) in enumerate(places) if i not in taken and node in only and node not in avoid)
        slot = next(free)
        assert suggested["gpus"] in (None, self.setup.slot.gpus_of(self.setup.kinds.get(str(places[slot][0]))))
        node, device = places[slot]
        place = {"node": node, "node_id": node, "device": device, "pid": self._pids[slot]}
        worker = Worker(suggested, self._checkpoints, place, slot in self.setup.sick, self.setup.learned or learned)
        self._ids += 1
        return RayTrial(f"ray-{self._ids}", suggested, worker, slot, steps=self._turn)

    def _advance(
        self, live: list[RayTrial], recorder: Recorder, scheduler: JournalScheduler, searcher: JournalSearcher
    ) -> None:
        trial = min(live, key=lambda trial: trial.steps) if self.setup.in_time else self._fate.choice(live)
        self._turn = trial.steps
        trial.steps += 1
        if trial.leaves:
            self._lose(trial, scheduler, searcher)
            live.remove(trial)
            return
        if self._fate.random() >= self.chaos.lose:
            if self._deliver(trial, self._step(trial), recorder, scheduler, searcher):
                live.remove(trial)
            return
        late = self._step(trial) if self._fate.random() < self.chaos.late else None
        self._lose(trial, scheduler, searcher)
        live.remove(trial)
        if late is not None:
            assert self._deliver(trial, late, recorder, scheduler, searcher), "a lost attempt goes on"

    def _lose(self, trial: RayTrial, scheduler: JournalScheduler, searcher: JournalSearcher) -> None:
        self._pids[trial.slot] += self.setup.slots  # another process takes its place
        scheduler.on_trial_error(None, trial)
        searcher.on_trial_complete(trial.trial_id, error=True)

    def _step(self, trial: RayTrial) -> dict[str, Any]:
        trial.waits = True
        self._now += 1
        return trial.worker.step(self._fate.random() < self.chaos.checkpoint)

    @staticmethod
    def _deliver(
        trial: RayTrial,
        result: dict[str, Any],
        recorder: Recorder,
        scheduler: JournalScheduler,
        searcher: JournalSearcher,
    ) -> bool:
        """Do with a result what Tune does, and return whether the trial is over for it."""
        flat = flatten_dict(result)
        assert recorder(trial.trial_id, result) is False
        decision = TrialScheduler.STOP
        if not flat.get("done"):
            decision = scheduler.on_trial_result(None, trial, flat)
        if decision != TrialScheduler.STOP:
            trial.leaves = "incident" in result
            searcher.on_trial_result(trial.trial_id, flat)
            trial.waits = False
            return False
        scheduler.on_trial_complete(None, trial, flat)
        searcher.on_trial_complete(trial.trial_id, result=flat)
        return True

    def _configure(self, number: int, due: NextTrial, params: dict[str, Any]) -> TrialConfig:
        seed = ("confirm", due.index) if due.final else ("trial", number)
        return self.setup.space.config(params, seed=seed_for(self.setup.seed, *seed))

    def _clock(self) -> float:
        self._now += 1
        return self._now


def outcome(events: list[Event]) -> dict[int, list[Any]]:
    """Return each trial's settings, metrics and end, without attempts and times: equal for equal searches."""
    outcomes: dict[int, list[Any]] = {}
    for event in events:
        if isinstance(event, TrialProposed):
            outcomes[event.trial] = [event.arm, event.final, event.params, event.config]
        elif isinstance(event, TrialEpoch):
            outcomes[event.trial].append(event.metrics)
        elif isinstance(event, TrialEnded):
            outcomes[event.trial].append((event.status, event.stop_reason, event.final_metrics))
    return outcomes
