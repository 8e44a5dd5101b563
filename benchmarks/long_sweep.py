"""A sweep of 10,000 trials of 100 epochs, gone on with and looked at: seconds, and the memory of the driver.

    python -m benchmarks.long_sweep

Nothing is trained. A million events are written by the project's own classes: learning curves of random settings of the
default search of digits, with everything that an epoch records. Then, each in a process of its own: what `--resume`
does until the next trial is proposed (the record is opened, the studies and all other followers of the journal have
caught up, Ray, Optuna and torch are imported, but no worker is started), and the `leaderboard` command. The limits are
20 s and 600 MB, and 3 s.
"""

from __future__ import annotations

import json
import math
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tyro

from benchmarks.record import EVIDENCE, ROOT, BenchmarkError, Figure, Record, Target, two_cores
from orchestrator.cluster import machine
from orchestrator.plan import plan
from orchestrator.plan.options import SweepOptions
from orchestrator.plan.request import Request
from orchestrator.record import provenance
from orchestrator.record.confusions import ConfusionsWriter, put_aside
from orchestrator.record.events import Event, SweepEnded, SweepStarted, TrialAttempt, TrialEnded, TrialEpoch
from orchestrator.record.facts import Spec, Worker
from orchestrator.record.journal_lines import SCHEMA, encode
from orchestrator.record.paths import SweepFolder
from orchestrator.search.trial_queue import NextTrial
from trainables.epoch_metrics import METRICS, EpochMetrics

CLASSES, ROWS = 10, 2000
SLOTS = 8
DIFFERENT = 5000  # metrics of an epoch
WORKER = Worker(node="node", device="cpu", parameters=75_290, train_rows=4 * ROWS, image_size=8, threads=1)


@dataclass(frozen=True)
class Options:
    """Go on with a long sweep, and look at it."""

    trials: int = 10_000
    epochs: int = 100
    repeats: int = 3
    evidence: Path = EVIDENCE
    """Folder of the evidence file that is written."""
    folder: Path | None = None
    """Folder of a sweep that an earlier run has left; written if it is not there. Default: a temporary one."""


def main() -> int:
    options = tyro.cli(Options)
    two_cores()
    record = Record("long_sweep", {"trials": options.trials, "epochs": options.epochs, "repeats": options.repeats})
    with tempfile.TemporaryDirectory(prefix="benchmark-") as temporary:
        folder = options.folder or Path(temporary) / "long"
        if not folder.exists():
            written_s = write(folder, options.trials, options.epochs)
            record.add({"written_s": written_s, "journal_mb": SweepFolder(folder).journal.stat().st_size / 1e6})
        for _ in range(options.repeats):
            record.add({"resume": child("resume", folder), "leaderboard": child("leaderboard", folder)})
    runs = [run for run in record.runs if "resume" in run]
    figures = [
        Figure("--resume until the next proposal", "s", [run["resume"]["s"] for run in runs], Target(20)),
        Figure("the driver's memory by then, peak", "MB", [run["resume"]["peak_mb"] for run in runs], Target(600)),
        Figure("leaderboard", "s", [run["leaderboard"]["s"] for run in runs], Target(3)),
    ]
    return 0 if record.write(options.evidence, figures) else 1


def child(what: str, folder: Path) -> dict[str, Any]:
    """Return what a process of its own measured of itself: seconds from its start, and its peak memory."""
    started = time.time()
    command = [sys.executable, "-m", "benchmarks.long_sweep_commands", what, str(folder), str(started)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchmarkError(f"{what} failed: {done.stderr}")
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def write(folder: Path, trials: int, epochs: int) -> float:
    """Write the sweep's journal, `sweep.json` and tables; return the seconds that it took."""
    from orchestrator.assessment import tables
    from orchestrator.plan import recorded

    started = time.perf_counter()
    asked = SweepOptions(
        "digits", name=folder.name, trials=trials + SLOTS, max_epochs=epochs, confirm=0, cpus_per_trial=1
    )
    planned = plan.make(Request(asked), [machine.Resources(SLOTS, 0)])
    folder.mkdir(parents=True)
    beside = ConfusionsWriter(SweepFolder(folder).confusions)
    with SweepFolder(folder).journal.open("wb") as file, closing(beside):
        for n, event in enumerate(events(planned, trials, epochs)):
            if isinstance(event, TrialEpoch):
                event = put_aside(event, beside)
            file.write(encode({"v": SCHEMA, "g": 1, "n": n, "t": 1.7e9 + n / 100, **event.content()}))
    found = recorded.read(folder)
    SweepFolder(folder).spec.write_text(json.dumps(found.state.record()))
    tables.write_all(found.state, SweepFolder(folder), None)
    return round(time.perf_counter() - started, 1)


def events(planned: plan.Plan, trials: int, epochs: int) -> Iterator[Event]:
    """Yield the events of a search of which every trial is completed, `SLOTS` of them at a time."""
    split = {"validation_rows": ROWS, "pool_rows": 4 * ROWS, "test_rows": ROWS, "search_rows": 5 * ROWS}
    yield SweepStarted(Spec(plan=planned.to_dict(), split=split, **vars(provenance.describe(SLOTS))))
    generator = random.Random(0)
    pool = [measured(generator.uniform(0.3, 0.98), generator) for _ in range(DIFFERENT)]
    for first in range(0, trials, SLOTS):
        together = [
            trial(planned, number, epochs, pool, generator) for number in range(first, min(first + SLOTS, trials))
        ]
        while together:
            for one in list(together):
                event = next(one, None)
                if event is None:
                    together.remove(one)
                else:
                    yield event
    yield SweepEnded("signal")


def trial(
    planned: plan.Plan, number: int, epochs: int, pool: list[dict[str, Any]], generator: random.Random
) -> Iterator[Event]:
    """Yield the events of one trial; its epochs have metrics out of the `pool`, but scores of its own."""
    params: dict[str, Any] = {}
    for name in planned.space.order():
        if planned.space.active(name, params):
            params[name] = drawn(planned.space.distributions[name], generator)
    config = planned.space.config(params, threads=1, seed=number).to_dict()
    yield NextTrial("", number).proposal(number, params, config)
    yield TrialAttempt(number, 0)
    goal = generator.uniform(0.5, 0.98)
    for epoch in range(1, epochs + 1):
        score = round((goal - 0.4 / epoch + generator.gauss(0, 0.005)) * ROWS) / ROWS
        own: dict[str, Any] = {"epoch": epoch, "step": 64 * epoch, "val_accuracy": score}
        own["stop_reason"] = "budget" if epoch == epochs else None
        event = TrialEpoch(number, 0, pool[generator.randrange(DIFFERENT)] | own)
        yield replace(event, worker=WORKER) if epoch == 1 else event
    yield TrialEnded(number, 0, "completed", "budget")


def drawn(distribution: Any, generator: random.Random) -> Any:
    if hasattr(distribution, "choices"):
        return generator.choice(distribution.choices)
    if distribution.log:
        return math.exp(generator.uniform(math.log(distribution.low), math.log(distribution.high)))
    value = generator.uniform(distribution.low, distribution.high)
    return round(value) if isinstance(distribution.low, int) else value


def measured(score: float, generator: random.Random) -> dict[str, Any]:
    """Return the metrics of an epoch, each a number of as many digits as a real one."""
    scores: dict[str, Any] = {name: score - generator.random() / 100 for name in METRICS}
    right = round(score * ROWS / CLASSES)
    wrong = [generator.randrange(ROWS // CLASSES - right + 1) for _ in range(CLASSES)]
    confusion = [
        [right if i == j else wrong[i] if j == (i + 1) % CLASSES else 0 for j in range(CLASSES)] for i in range(CLASSES)
    ]
    confused = [[i, (i + 1) % CLASSES, wrong[i], *generator.sample(range(ROWS), 3)] for i in range(6)]
    made = EpochMetrics(
        epoch=1,
        step=64,
        lr=generator.random(),
        train_loss=1 - score + generator.random() / 10,
        train_accuracy=score + generator.random() / 100,
        **{**scores, "val_accuracy": score, "val_top5_accuracy": None},
        train_s=1 + generator.random(),
        eval_s=generator.random() / 10,
        images_per_s=5000 * generator.random(),
        peak_memory_mb=900.0,
        peak_gpu_mb=None,
        val_confusion=confusion,
        val_confused=confused,
    )
    return made.to_dict()


def peak_mb() -> float:
    """Return the most memory that this process has had, in MB, without that of the process that it was made from."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux: the other figure counts the memory of the parent, until the new program begins
        return int(next(line for line in status.read_text().splitlines() if line.startswith("VmHWM")).split()[1]) / 1000
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


if __name__ == "__main__":
    sys.exit(main())
