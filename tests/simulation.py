"""A sweep without Ray, torch or time: the real searcher, recorder, scheduler, rule and journal, and a pretended Tune.

The hooks are called in Tune's order (2.60): `suggest` while there is room; for a result the stopper, then the
scheduler unless the result is the trial's last, then the searcher unless the trial is stopped; `on_trial_complete`
at its end; for a dead worker the scheduler's `on_trial_error`, then the searcher's `on_trial_complete(error=True)`.
When the whole search is stopped nobody is told of the trials that were running.

Workers learn along curves that depend on the configuration alone, keep checkpoints as `trainables.trainable` does,
and die; the driver is killed in the midst of any write. Everything happens by the order of one random generator.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher
from ray.tune.utils import flatten_dict

from orchestrator.record.journal import Journal
from orchestrator.record.state import Event
from orchestrator.search.schedulers import Asha, ByArm, StopRule
from orchestrator.search.searcher import JournalSearcher
from orchestrator.search.study import JournalStudy
from orchestrator.search.trial_queue import NextTrial, TrialQueue
from orchestrator.search.tuning import Ended, Ending, JournalScheduler, Recorder
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


@dataclass(frozen=True)
class Setup:
    """What is asked of a simulated sweep."""

    trials: int = 6
    sampler: str = "random"
    seed: int = 0
    slots: int = 1
    rule: StopRule = field(default_factory=lambda: Asha(max_epochs=5, grace=1, factor=2))
    space: SearchSpace = SPACE
    arms: tuple[str, ...] = ("",)  # of a recipe; all have the same space
    seeds: int = 0  # final runs of every arm


@dataclass(frozen=True)
class Chaos:
    """How often things go wrong: a share of the writes, results and turns of the controller."""

    kill: float = 0.0  # the driver, in the midst of a write
    lose: float = 0.0  # a worker
    late: float = 0.0  # of the lost ones: its result arrives all the same
    signal: float = 0.0
    checkpoint: float = 0.5  # of the epochs


CALM = Chaos()


class DriverKilledError(Exception):
    """The driver's process is gone."""


class FragileJournal(Journal):
    """A journal whose driver can be killed while it writes: any part of the bytes is in the file then."""

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
    """What `config` reaches at `epoch`, wherever and however often it is run; None: undefined."""
    drawn = random.Random(f"{config['seed']} {epoch}").random()
    reached = 0.9 - abs(config["lr"] - 0.1) - config["dropout"] / 10 - 0.4 / epoch + 0.2 * drawn
    defined = drawn > 0.05
    return {"epoch": epoch, "val_accuracy": reached if defined else None, "val_loss": 1 - reached, "train_s": 1.0}


@dataclass
class Checkpoint:
    """The metrics of every epoch so far; `ended` once the trial has."""

    epochs: list[dict[str, Any]]
    epoch: int
    ended: bool = False


class Worker:
    """One attempt, as `ImageTrial` runs it."""

    def __init__(self, assignment: dict[str, Any], checkpoints: dict[int, Checkpoint]) -> None:
        self._identity = {"trial": assignment["trial"], "attempt": assignment["attempt"]}
        self._config = json.loads(assignment["config"])
        self._figures = {"test": {"accuracy": self._config["seed"]}} if assignment["final"] else None
        self._checkpoints = checkpoints
        self._saved = checkpoints.get(assignment["trial"])
        self._epoch = self._saved.epoch if self._saved else 0
        self._told = list(self._saved.epochs) if self._saved else []  # perhaps not to the driver
        self._first = True

    def step(self, save: bool) -> dict[str, Any]:
        """The next result; `save`: and a checkpoint at its epoch, before anybody sees it."""
        result: dict[str, Any] = {**self._identity, "epochs": list(self._told) if self._first else []}
        if self._first:
            result["worker"] = {"node": "simulated", "format": {"precision": "float32", "memory_format": "contiguous"}}
        if self._saved is not None and self._saved.ended:
            return {**result, **_end("completed", "budget", self._figures)}
        self._first = False
        self._epoch += 1
        trouble = _trouble(self._config, self._epoch)
        if trouble is not None:
            return {**self._identity, "epochs": list(self._told), **_end(*trouble)}
        ended = self._epoch == self._config["max_epochs"]
        metrics = {**curve(self._config, self._epoch), "stop_reason": "budget" if ended else None}
        result["epochs"].append(metrics)
        self._told.append(metrics)
        if save or ended:
            self._checkpoints[self._identity["trial"]] = Checkpoint(list(self._told), self._epoch, ended)
        return {**result, **_end("completed", "budget", self._figures)} if ended else result


def _trouble(config: dict[str, Any], epoch: int) -> tuple[str, str] | None:
    if config["lr"] > 0.3 and epoch > 1:
        return "diverged", "not_finite"
    return ("failed", "error") if config["batch_size"] == 64 and config["dropout"] > 0.25 else None


def _end(status: str, reason: str, figures: dict[str, Any] | None = None) -> dict[str, Any]:
    end = {"status": status, "stop_reason": reason, "error": None}
    return {"end": end | ({"final_metrics": figures} if figures else {}), "done": True}


@dataclass
class RayTrial:
    """As much of Tune's trial as the hooks look at."""

    trial_id: str
    config: dict[str, Any]
    worker: Worker
    waits: bool = False  # for the driver, that has its result
    error_file: str = "/nowhere/error.txt"


class Simulation:
    """One sweep over as many commands as it takes; `commands` says how many it took."""

    def __init__(
        self, folder: Path, setup: Setup, chaos: Chaos = CALM, seed: int = 0, watch: Callable[..., None] | None = None
    ) -> None:
        """`watch` is called with every event and the state after it, as a subscriber is."""
        self.path = folder / "journal.jsonl"
        self.setup = setup
        self.chaos = chaos
        self.commands = 0
        self._fate = random.Random(seed)
        self._watch = watch
        self._now = 1e9
        self._checkpoints: dict[int, Checkpoint] = {}
        self._ids = 0

    def run(self) -> Journal:
        """Run, and go on after every kill and signal, until all trials have ended; the last journal, closed."""
        while True:
            self.commands += 1
            try:
                journal = self.command()
            except DriverKilledError:
                continue
            if journal.state.ended == "finished":
                return journal

    def command(self) -> Journal:
        """One command, as `orchestrator.sweep` gives it: open, replay, search, end, close."""
        self._now += 3600
        with closing(FragileJournal(self.path, self._clock, self._fate, self.chaos.kill)) as journal:
            self._command(journal)
        return journal

    def _command(self, journal: Journal) -> None:
        if self._watch is not None:
            journal.subscribe(lambda event: self._watch(event, journal.state))
        space = self.setup.space
        studies = {arm: JournalStudy(space, self.setup.sampler, self.setup.seed, arm) for arm in self.setup.arms}
        opening = "sweep_resumed" if journal.state.spec else "sweep_started"
        for study in studies.values():
            journal.subscribe(study.observe)
        journal.append({"event": opening, "spec": {"slots": self.setup.slots, "command": self.commands}})
        queue = TrialQueue(dict.fromkeys(self.setup.arms, space), self.setup.trials, self.setup.seeds)
        searcher = JournalSearcher(journal, queue, studies, self._configure, lambda: self.setup.slots)
        ending = Ending()
        self._search(journal, searcher, ending)
        journal.append({"event": "sweep_ended", "reason": ending.reason or "finished"})

    def _search(self, journal: Journal, searcher: JournalSearcher, ending: Ending) -> None:
        rule = ByArm(dict.fromkeys(self.setup.arms, self.setup.rule))
        recorder = Recorder(journal, rule, ending, searcher)
        scheduler = JournalScheduler(journal, ending)
        live: list[RayTrial] = []
        try:
            while True:
                recorder.stop_all()
                asked = searcher.suggest(f"ray-{self._ids}")
                if isinstance(asked, dict):
                    live.append(RayTrial(f"ray-{self._ids}", asked, Worker(asked, self._checkpoints)))
                    self._ids += 1
                    continue
                if asked == Searcher.FINISHED and not live:
                    continue
                assert live, "nothing runs and nothing is proposed: Tune would wait for ever"
                assert len(live) <= self.setup.slots
                self._advance(live, recorder, scheduler, searcher)
                ending.interruption.received = self._fate.random() < self.chaos.signal
        except Ended:
            assert ending.reason is not None or not live
        finally:  # workers notice later: they may save an epoch that nobody sees
            for trial in live:
                if not trial.waits and self._fate.random() < self.chaos.late:
                    self._step(trial)

    def _advance(
        self, live: list[RayTrial], recorder: Recorder, scheduler: JournalScheduler, searcher: JournalSearcher
    ) -> None:
        trial = self._fate.choice(live)
        if self._fate.random() >= self.chaos.lose:
            if self._deliver(trial, self._step(trial), recorder, scheduler, searcher):
                live.remove(trial)
            return
        late = self._step(trial) if self._fate.random() < self.chaos.late else None
        scheduler.on_trial_error(None, trial)  # type: ignore[arg-type]
        searcher.on_trial_complete(trial.trial_id, error=True)
        live.remove(trial)
        if late is not None:
            assert self._deliver(trial, late, recorder, scheduler, searcher), "a lost attempt goes on"

    def _step(self, trial: RayTrial) -> dict[str, Any]:
        trial.waits = True
        return trial.worker.step(self._fate.random() < self.chaos.checkpoint)

    @staticmethod
    def _deliver(
        trial: RayTrial,
        result: dict[str, Any],
        recorder: Recorder,
        scheduler: JournalScheduler,
        searcher: JournalSearcher,
    ) -> bool:
        """What Tune does with a result; whether the trial is over for it."""
        flat = flatten_dict(result)
        assert recorder(trial.trial_id, result) is False
        decision = TrialScheduler.STOP
        if not flat.get("done"):
            decision = scheduler.on_trial_result(None, trial, flat)  # type: ignore[arg-type]
        if decision != TrialScheduler.STOP:
            searcher.on_trial_result(trial.trial_id, flat)
            trial.waits = False
            return False
        scheduler.on_trial_complete(None, trial, flat)  # type: ignore[arg-type]
        searcher.on_trial_complete(trial.trial_id, result=flat)
        return True

    def _configure(self, number: int, due: NextTrial, params: dict[str, Any]) -> TrialConfig:
        seed = ("confirm", due.index) if due.final else ("trial", number)
        return self.setup.space.config(params, seed=seed_for(self.setup.seed, *seed))

    def _clock(self) -> float:
        self._now += 1
        return self._now


def outcome(events: list[Event]) -> dict[int, list[Any]]:
    """What each trial was, saw and came to, without attempts and times: equal for equal searches."""
    told: dict[int, list[Any]] = {}
    for event in events:
        if event["event"] == "trial_proposed":
            told[event["trial"]] = [event.get("arm"), event.get("final"), event["params"], event["config"]]
        elif event["event"] == "trial_epoch":
            told[event["trial"]].append(event["metrics"])
        elif event["event"] == "trial_ended":
            told[event["trial"]].append((event["status"], event["stop_reason"], event.get("final_metrics")))
    return told
