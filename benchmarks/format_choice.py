"""The numeric format that `precision=auto` chooses, run after run, on a machine whose other work comes and goes.

    python -m benchmarks.format_choice

Each run is a new choice, as of a new sweep (what is kept on the disk is left out): steps of a net in float32 and
bfloat16, contiguous and channels last, with one thread, timed in turn until they part. Meanwhile neighbors, a process
for each core, multiply matrices for some seconds, then sleep for some, so that a step may take twice or three times as
long as the one before by the clock. The way of earlier versions, the faster of two steps of each format by the clock,
takes its turn with ours.

Targets: all runs of a net choose the same format, or formats that differ by at most 3 %. So the figure that is judged
is, for every run, the time of a step in the chosen format, in that of the fastest one; of either the time is the median
over all rounds of all runs. How many runs chose the commonest format is given beside it.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from benchmarks.record import EVIDENCE, BenchmarkError, Figure, Record, Target, two_cores
from trainables import memory, precision
from trainables.batches import Batches
from trainables.config import TrialConfig
from trainables.learner import Fold, Learner
from trainables.loop import TrialData
from trainables.workload import Workload

NETS = {"resnet8": (8, 64), "resnet20": (32, 128), "efficientnet_b0": (32, 128), "resnet18": (32, 128)}
"""Net → pixels of a side, and rows of a batch."""
FORMATS = [
    {"precision": p, "memory_format": m} for p in ("float32", "bfloat16") for m in ("contiguous", "channels_last")
]
ROWS, CLASSES = 256, 10
ALIKE = 1.03  # formats that differ by no more may be chosen by chance
NEIGHBOR = """
import os, sys, time
import numpy as np
on, off = map(float, sys.argv[1:])
matrix, parent = np.ones((600, 600), np.float32), os.getppid()
while os.getppid() == parent:
    until = time.monotonic() + on
    while time.monotonic() < until:
        matrix @ matrix
    time.sleep(off)
"""
PERIODS = ((1.7, 2.3), (3.1, 1.9))  # seconds of work and of sleep of each neighbor


@dataclass(frozen=True)
class Options:
    """Choose formats again and again on a busy machine."""

    runs: int = 10
    """Choices of each net."""
    nets: tuple[str, ...] = tuple(NETS)
    """Nets, of resnet8, resnet20, efficientnet_b0 and resnet18."""
    seconds: float = 1500.0
    """Seconds that each sweep is planned to take."""
    evidence: Path = EVIDENCE
    """Folder of the evidence file that is written."""


def main() -> int:
    options = tyro.cli(Options)
    two_cores()
    memory.keep_freed()
    torch.set_num_threads(1)
    record = Record("format_choice", asdict(options))
    figures: list[Figure] = []
    with neighbors():
        for net in options.nets:
            runs = list(choices(net, options, record.add))
            figures += figures_of(net, runs)
    return 0 if record.write(options.evidence, figures) else 1


@contextmanager
def neighbors() -> Iterator[None]:
    """Have other processes work and rest in turn."""
    started = [subprocess.Popen([sys.executable, "-c", NEIGHBOR, *map(str, period)]) for period in PERIODS]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def choices(net: str, options: Options, add: Callable[[dict[str, Any]], None]) -> Iterator[dict[str, Any]]:
    """Yield every choice: the formats' names that either way chose, the milliseconds of all steps, and what it took."""
    side, rows = NETS[net]
    config, data = TrialConfig(model=net, image_size=side, batch_size=rows), noise(side)
    for number in range(options.runs):
        cpu, clock = time.thread_time(), time.perf_counter()
        times = precision._measure(config, data, FORMATS, Workload(0.0, options.seconds))
        took = {"cpu_s": round(time.thread_time() - cpu, 2), "s": round(time.perf_counter() - clock, 2)}
        milliseconds = [[round(1000 * each, 2) for each in of_format] for of_format in times.seconds]
        run = {
            "net": net,
            "run": number,
            "chosen": name(times.choice()),
            "by_two_steps": name(by_two_steps(config, data)),
            "settled": times.settled,
            **took,
            "ms": dict(zip(map(name, range(len(FORMATS))), milliseconds, strict=True)),
        }
        add(run)
        yield run


def noise(side: int) -> TrialData:
    """Return pictures of noise: what is in them does not matter for the time."""
    images = np.random.default_rng(0).integers(0, 256, (ROWS, side, side, 3), dtype=np.uint8)
    batches = Batches(images, np.arange(ROWS) % CLASSES, [0.5] * 3, [0.25] * 3, torch.device("cpu"), classes=CLASSES)
    return TrialData(batches, (Fold(torch.arange(ROWS), torch.arange(ROWS)),), ROWS, CLASSES, side)


def by_two_steps(config: TrialConfig, data: TrialData) -> int:
    """Return the number of the format that earlier versions would take: that of the fastest of two steps of each."""
    config = config.replace(**FORMATS[0])
    learner = Learner.start(config, data.classes, data.image_size, data.epoch_rows, torch.device("cpu"))
    learner.schedule.set_rate(0)
    learner.model.train()
    images, labels = next(data.batches.train(data.train_rows, ROWS, config, torch.Generator().manual_seed(0)))
    fastest: list[float] = []
    for each in FORMATS:
        step = precision._step(learner, config.replace(**each), images, labels)
        step()  # prepares
        seconds = []
        for _ in range(2):
            started = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - started)
        fastest.append(min(seconds))
    return fastest.index(min(fastest))


def name(number: int) -> str:
    """Return a format in words."""
    return " ".join(FORMATS[number].values())


def figures_of(net: str, runs: list[dict[str, Any]]) -> list[Figure]:
    """Return how alike the choices are, and what they cost."""
    if not all(run["settled"] for run in runs):
        raise BenchmarkError(f"{net}: the planned seconds are too few to tell its formats apart: give more")
    per_round = {each: [] for each in runs[0]["ms"]}  # type: dict[str, list[float]]
    for run in runs:
        for each, milliseconds in run["ms"].items():
            per_round[each] += [one / first for one, first in zip(milliseconds, run["ms"][name(0)], strict=False)]
    cost = {each: statistics.median(ratios) for each, ratios in per_round.items()}
    best, found = min(cost.values()), []
    for way, key, target in (("", "chosen", Target(ALIKE, statistic="max")), (", by two steps", "by_two_steps", None)):
        commonest = Counter(run[key] for run in runs).most_common(1)[0][1]
        found += [
            Figure(
                f"{net}: a step in the chosen format / in the fastest{way}",
                "",
                [cost[run[key]] / best for run in runs],
                target,
            ),
            Figure(f"{net}: runs with the commonest format{way}, of {len(runs)}", "runs", [commonest]),
        ]
    return [*found, Figure(f"{net}: choosing", "s of CPU", [run["cpu_s"] for run in runs])]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchmarkError as error:
        sys.exit(f"failed: {error}")
