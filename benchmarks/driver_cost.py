"""The driver's time for each trial: stub trials that return at once, through the real journal, searcher and ASHA.

    python -m benchmarks.driver_cost

10,000 trials of at most 3 epochs, two slots, through `orchestrator.search.tuning.run` with everything that
`orchestrator.sweep` subscribes to the journal; the kinds of search follow one another, each in a Ray of its own. The
stub's results look like `ImageTrial`'s and its scores are drawn by the trial's number, so that ASHA has trials pause,
go on and end as in a real sweep; with the scheduler none all train 3 epochs. The figure is the time from the first end
of a trial to the last, by the trials after the first: the time of a trial once the workers run, their results included.
The workers' start is a figure of its own. What grows shows in two ratios, the last thousand ends against the first
thousand: of wall time, and of the driver's CPU time, which other work on the machine changes less. Journal appends are
timed twice: bare (a `trial_epoch` event, flushed to the disk) and within the sweep (with the fold and all subscribers).
Memory is the driver's resident set, at the end, and by trial from a third of the way to the end."""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tyro

from benchmarks.record import EVIDENCE, BenchmarkError, Figure, Record, Target, two_cores
from orchestrator.cluster import machine
from orchestrator.plan import plan
from orchestrator.plan.options import SweepOptions
from orchestrator.plan.request import Request
from orchestrator.record import provenance
from orchestrator.record.events import Event, SweepStarted, TrialEnded, TrialEpoch, TrialProposed
from orchestrator.record.facts import Spec
from orchestrator.record.journal import Journal
from orchestrator.record.paths import SweepFolder
from orchestrator.search.trial_queue import NextTrial
from trainables.config import TrialConfig
from trainables.epoch_metrics import METRICS, EpochMetrics
from trainables.storage import Storage

EPOCHS = 3
SLOTS = 2
FORMAT = {"precision": "float32", "memory_format": "contiguous"}
APPENDS = 1_000


@dataclass(frozen=True)
class Options:
    """Measure the driver's time for each trial."""

    trials: int = 10_000
    repeats: int = 1
    searches: tuple[str, ...] = ("random asha", "random none", "tpe asha")
    """Sampler and scheduler of each kind of search."""
    appends: int = APPENDS
    evidence: Path = EVIDENCE
    """Folder of the evidence file that is written."""


class TimedJournal(Journal):
    """A journal that notes how long its appends took, in seconds, subscribers included."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.seconds: list[float] = []

    def append(self, *events: Event) -> None:
        started = time.perf_counter()
        super().append(*events)
        self.seconds.append(time.perf_counter() - started)


def main() -> int:
    options = tyro.cli(Options)
    two_cores()
    record = Record("driver_cost", asdict(options))
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        appends = bare_appends(Path(folder), options.appends)
        from orchestrator.cluster import connection

        for repeat in range(options.repeats):
            for search in options.searches:
                with connection.connect("local"):
                    record.add(measure(Path(folder) / f"{search}-{repeat}", options.trials, search, repeat))
    return 0 if record.write(options.evidence, figures(options.searches, record.runs, appends)) else 1


FIGURES: tuple[tuple[str, str, str, Target | None], ...] = (
    ("driver, a trial", "ms", "ms_a_trial", Target(15)),
    ("last thousand against first, wall time", "", "growth", Target(1.15)),
    ("last thousand against first, the driver's CPU time", "", "cpu_growth", Target(1.15)),
    ("driver memory", "MB", "memory_mb", Target(400)),
    ("the driver's CPU time, a trial", "ms", "cpu_ms_a_trial", None),
    ("workers' start", "s", "start_s", None),
    ("of a trial in journal appends", "ms", "append_ms_a_trial", None),
    ("driver memory, a trial", "kB", "kb_a_trial", None),
)
"""Name, unit, key of a run and target of the figures of each kind of search."""


def figures(searches: tuple[str, ...], runs: list[dict[str, Any]], appends: list[float]) -> list[Figure]:
    found = [
        Figure(f"{name} ({search})", unit, [run[key] for run in runs if run["search"] == search], target)
        for search in searches
        for name, unit, key, target in FIGURES
    ]
    return [*found, Figure("a bare journal append", "µs", [round(s * 1e6, 1) for s in appends])]


def measure(folder: Path, trials: int, search: str, seed: int, workers: int = SLOTS) -> dict[str, Any]:
    """Run one sweep of stub trials with so many workers, set up as by `orchestrator.sweep`; return its figures."""
    sampler, scheduler = search.split()
    from orchestrator.assessment import tables
    from orchestrator.display import progress
    from orchestrator.display.live_view import SweepView
    from orchestrator.record import kept_weights
    from orchestrator.search import slots, tuning
    from orchestrator.search.searcher import JournalSearcher
    from orchestrator.search.study import JournalStudy

    sweep_options = SweepOptions(
        dataset="digits",
        confirm=0,
        trials=trials,
        max_epochs=EPOCHS,
        sampler=sampler,
        scheduler=scheduler,
        seed=seed,
        cpus_per_trial=1,
        slots=workers,
        results=folder,
    )
    nodes = [machine.Resources(workers, 0)]  # as many as wanted: each has a share of a CPU
    planned = plan.make(Request(sweep_options), nodes)
    folder.mkdir(parents=True)
    journal = TimedJournal(folder / "journal.jsonl")
    rule = planned.stop_rule()
    study = JournalStudy(planned.space, sampler, planned.seed, "", trials, rule.rules[""].learned_at)
    memory: list[int] = []  # the driver's, in kB, after each trial
    cpu: list[float] = []  # seconds of the driver, after each trial

    def configure(number: int, due: NextTrial, params: dict[str, Any]) -> TrialConfig:
        return planned.space.config(params, **FORMAT, threads=1, seed=number)

    def observe(event: Event) -> None:
        if isinstance(event, TrialEnded):
            memory.append(resident_kb())
            cpu.append(time.process_time())

    view = SweepView(journal.state, planned, progress.console(quiet=True))
    writer = tables.Writer(journal.state, planned, SweepFolder(folder))
    pruner = kept_weights.Pruner(journal.state, Storage(str(folder / "checkpoints")))
    for subscriber in (study.observe, writer.observe, pruner.observe, view.observe, observe):
        journal.subscribe(subscriber)
    journal.append(SweepStarted(Spec(plan=planned.to_dict(), **vars(provenance.describe()))))
    count = slots.SlotCounter(planned.slots, lambda: nodes)
    searcher = JournalSearcher(journal, planned.queue(), rule, {"": study}, configure, count)
    started = time.perf_counter()
    ended = tuning.run(journal, searcher, rule, stub(), {"cpu": min(SLOTS / workers, 1), "gpu": 0}, tuning.Ending())
    wall_s = time.perf_counter() - started
    state = journal.state
    epochs = sum(len(trial.epochs) for trial in state.trials.values())
    if ended != "finished" or state.finished != trials:
        raise BenchmarkError(f"{search}: {ended} after {state.finished} of {trials} trials and {epochs} epochs")
    journal.close()
    third = len(memory) // 3
    ends = sorted(trial.ended_at or 0.0 for trial in state.trials.values())
    steady = round((ends[-1] - ends[0]) / max(len(ends) - 1, 1) * 1000, 3)
    return {
        "search": search,
        "repeat": seed,
        "trials": trials,
        "epochs": epochs,
        "attempts": sum(trial.attempt + 1 for trial in state.trials.values()),
        "wall_s": round(wall_s, 3),
        "ms_a_trial": steady,
        "growth": growth(ends),
        "cpu_growth": growth(cpu),
        "cpu_ms_a_trial": round((cpu[-1] - cpu[0]) / max(len(cpu) - 1, 1) * 1000, 3),
        "ms_by_thousand": [round(end - begin, 3) for begin, end in zip(ends[::1000], ends[1000::1000], strict=False)],
        "start_s": round(wall_s - steady * (trials - 1) / 1000, 3),
        "appends": len(journal.seconds),
        "events": state.next_n,
        "append_ms_a_trial": round(sum(journal.seconds) / trials * 1000, 3),
        "append_us_median": round(statistics.median(journal.seconds) * 1e6, 1),
        "kb_a_trial": (memory[-1] - memory[third]) / max(len(memory) - 1 - third, 1),
        "memory_mb": round(memory[-1] / 1000, 1),
    }


def growth(seconds: Sequence[float]) -> float:
    """Return how long the last ends of trials took by the first ones: a thousand of each, or a third of all if less."""
    some = max(min(1000, len(seconds) // 3), 1)
    return round((seconds[-1] - seconds[-1 - some]) / (seconds[some] - seconds[0]), 3)


def stub() -> Any:
    """Return a trainable that returns results like `ImageTrial`'s at once; Ray must be connected first."""
    from ray.tune import Trainable

    class StubTrial(Trainable):  # type: ignore[misc, unused-ignore]
        def setup(self, config: dict[str, Any]) -> None:
            self._take(config)

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self._take(new_config)
            return True

        def _take(self, assignment: dict[str, Any]) -> None:
            self._assignment = assignment
            self._epoch = 0

        def step(self) -> dict[str, Any]:
            self._epoch += 1
            identity = {"trial": self._assignment["trial"], "attempt": self._assignment["attempt"]}
            done = self._epoch == EPOCHS
            score = random.Random(identity["trial"]).random()
            result = {**identity, "epochs": [metrics(self._epoch, score, "budget" if done else None)]}
            if self._epoch == 1:
                result["worker"] = {
                    "node": "stub",
                    "device": "cpu",
                    "parameters": 1,
                    "train_rows": 1,
                    "threads": 1,
                    "format": FORMAT,
                }
            if self._epoch == self._assignment["until"]:
                return result | {"paused": True, "done": True}
            end = {"status": "completed", "stop_reason": "budget", "error": None}
            return result | ({"end": end, "done": True} if done else {})

    return StubTrial


def metrics(epoch: int, score: float, stop_reason: Any) -> dict[str, Any]:
    """Return the metrics of one epoch of a stub trial."""
    scores: dict[str, Any] = {name: score if better == "max" else 1 - score for name, better in METRICS.items()}
    return EpochMetrics(
        epoch=epoch,
        step=epoch,
        lr=0.1,
        train_loss=1 - score,
        train_accuracy=score,
        **scores,
        train_s=1e-6,
        eval_s=1e-6,
        images_per_s=1e6,
        peak_memory_mb=1.0,
        peak_gpu_mb=None,
        val_confusion=None,
        stop_reason=stop_reason,
    ).to_dict()


def bare_appends(folder: Path, count: int) -> list[float]:
    """Return the seconds of `count` appends of one epoch each, to a journal without subscribers."""
    journal = TimedJournal(folder / "bare.jsonl")
    config = TrialConfig().to_dict()
    journal.append(TrialProposed(0, {}, config))
    for epoch in range(1, count + 1):
        journal.append(TrialEpoch(0, 0, metrics(epoch, 0.5, None)))
    journal.close()
    return journal.seconds[1:]


def resident_kb() -> int:
    """Return this process's resident set in kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS:")))


if __name__ == "__main__":
    sys.exit(main())
