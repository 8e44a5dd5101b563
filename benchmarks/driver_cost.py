"""The driver's time for each trial: stub trials that return at once, through the real journal, searcher and ASHA.

    python -m benchmarks.driver_cost

300 trials of at most 3 epochs, two slots, through `orchestrator.search.tuning.run` with everything that
`orchestrator.sweep` subscribes to the journal; TPE and random search alternate within one Ray. The stub's results look
like `ImageTrial`'s and its scores are drawn by the trial's number, so that ASHA stops about two of three trials after
their first epoch, as in a real sweep; `--scheduler none` lets all train 3 epochs. The figure is the time from the first
end of a trial to the last, by the trials after the first: the time of a trial once the workers run, their results
included. The workers' start is a figure of its own. Journal appends are timed twice: bare (a `trial_epoch` event,
flushed to the disk) and within the sweep (with the fold and all subscribers). Memory is the driver's resident set, from
a third of the way to the end."""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
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

    trials: int = 300
    repeats: int = 3
    samplers: tuple[str, ...] = ("tpe", "random")
    scheduler: str = "asha"
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
            for sampler in options.samplers:
                with connection.connect("local"):
                    record.add(measure(Path(folder) / f"{sampler}-{repeat}", options, sampler, repeat))
    return 0 if record.write(options.evidence, figures(options.samplers, record.runs, appends)) else 1


def figures(samplers: tuple[str, ...], runs: list[dict[str, Any]], appends: list[float]) -> list[Figure]:
    found = []
    for sampler in samplers:
        with_sampler = [run for run in runs if run["sampler"] == sampler]
        found += [
            Figure(f"driver, a trial ({sampler})", "ms", [run["ms_a_trial"] for run in with_sampler], Target(20)),
            Figure(f"workers' start ({sampler})", "s", [run["start_s"] for run in with_sampler]),
            Figure(f"of that in journal appends ({sampler})", "ms", [run["append_ms_a_trial"] for run in with_sampler]),
            Figure(f"driver memory, a trial ({sampler})", "kB", [run["kb_a_trial"] for run in with_sampler]),
        ]
    return [*found, Figure("a bare journal append", "µs", [round(s * 1e6, 1) for s in appends])]


def measure(folder: Path, options: Options, sampler: str, seed: int) -> dict[str, Any]:
    """Run one sweep of stub trials, set up as by `orchestrator.sweep`, and return its figures."""
    trials = options.trials
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
        scheduler=options.scheduler,
        seed=seed,
        cpus_per_trial=1,
        slots=SLOTS,
        results=folder,
    )
    planned = plan.make(Request(sweep_options), [machine.Resources(SLOTS, 0)])
    folder.mkdir(parents=True)
    journal = TimedJournal(folder / "journal.jsonl")
    study = JournalStudy(planned.space, sampler, planned.seed)
    memory: list[int] = []  # the driver's, in kB, after each trial

    def configure(number: int, due: NextTrial, params: dict[str, Any]) -> TrialConfig:
        return planned.space.config(params, **FORMAT, threads=1, seed=number)

    def observe(event: Event) -> None:
        if isinstance(event, TrialEnded):
            memory.append(resident_kb())

    view = SweepView(journal.state, planned, progress.console(quiet=True))
    writer = tables.Writer(journal.state, planned, SweepFolder(folder))
    pruner = kept_weights.Pruner(journal.state, Storage(str(folder / "checkpoints")))
    for subscriber in (study.observe, writer.observe, pruner.observe, view.observe, observe):
        journal.subscribe(subscriber)
    journal.append(SweepStarted(Spec(plan=planned.to_dict(), **vars(provenance.describe()))))
    rule = planned.stop_rule()
    searcher = JournalSearcher(journal, planned.queue(), rule, {"": study}, configure, slots.SlotCounter(planned.slots))
    started = time.perf_counter()
    ended = tuning.run(journal, searcher, rule, stub(), {"cpu": 1, "gpu": 0}, tuning.Ending())
    wall_s = time.perf_counter() - started
    state = journal.state
    epochs = sum(len(trial.epochs) for trial in state.trials.values())
    if ended != "finished" or state.finished != trials:
        raise BenchmarkError(f"{sampler}: {ended} after {state.finished} of {trials} trials and {epochs} epochs")
    journal.close()
    third = len(memory) // 3
    return {
        "sampler": sampler,
        "repeat": seed,
        "trials": trials,
        "epochs": epochs,
        "wall_s": round(wall_s, 3),
        "ms_a_trial": steady_ms(state.trials.values()),
        "start_s": round(wall_s - steady_ms(state.trials.values()) * (trials - 1) / 1000, 3),
        "appends": len(journal.seconds),
        "append_ms_a_trial": round(sum(journal.seconds) / trials * 1000, 3),
        "append_us_median": round(statistics.median(journal.seconds) * 1e6, 1),
        "kb_a_trial": (memory[-1] - memory[third]) / max(len(memory) - 1 - third, 1),
        "memory_kb": memory[-1],
    }


def steady_ms(trials: Any) -> float:
    """Return milliseconds for each trial once the workers run: from the first end of a trial to the last."""
    ends = sorted(trial.ended_at for trial in trials)
    return float(round((ends[-1] - ends[0]) / max(len(ends) - 1, 1) * 1000, 3))


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
