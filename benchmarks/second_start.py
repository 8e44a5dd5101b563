"""The time from the command to the first step of training, over pictures that the cache has already.

    python -m benchmarks.second_start

Synthetic pictures of several sizes, 320 pixels high or wide, are written as JPEG into class folders, and decoded by a
first sweep. Then the same command starts again, over 5,000 and over 20,000 pictures, alternating. Target: at most 10 s,
and no more for the larger set than for the smaller one but for seconds of noise: files whose size and time are known
are not read again. The time of the first epoch is not part of it.

Opening the data alone is also measured in CPU seconds, which other work on the machine does not change much.

The same run measures what storing costs: seconds and bytes of the first start, and images a second of batches of 224 px
from stored pixels and from JPEG, which docs/performance.md plans a million pictures by.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import torch
import tyro

from benchmarks.command import run
from benchmarks.record import EVIDENCE, Figure, Record, Target, two_cores
from orchestrator.record.events import TrialEpoch
from orchestrator.record.journal import read
from trainables import datasets
from trainables.batches import Batches
from trainables.config import TrialConfig
from trainables.datasets import pictures
from trainables.datasets.source import Pixels
from trainables.splits import search_data

SIZES = ((320, 427), (427, 320), (320, 320), (320, 480))
SCENES = 200  # made from noise; the others differ from them in a corner


OPENING = """
import json, sys, time
from trainables import datasets
from trainables.splits import describe, search_data
began = time.process_time()
dataset = datasets.load(sys.argv[1])
search_data(dataset), describe(dataset)
print(json.dumps({"opening_cpu_s": round(time.process_time() - began, 3)}))
"""


@dataclass(frozen=True)
class Options:
    """Start sweeps over pictures that are in the cache."""

    pictures: tuple[int, ...] = (5_000, 20_000)
    pairs: int = 2
    batches: int = 20
    """Batches of 64 pictures whose views are timed."""
    work: Path | None = None
    """Folder for the pictures and the cache, on a disk with 20 GB. Default: a temporary one."""
    evidence: Path = EVIDENCE
    """Folder of the evidence file that is written."""


def main() -> int:
    options = tyro.cli(Options)
    two_cores()
    record = Record("second_start", {**asdict(options), "work": None, "evidence": None})
    work = options.work or Path(tempfile.mkdtemp())
    try:
        for count in options.pictures:
            write(work / f"pictures{count}", count)
            record.add({"kind": "first", "pictures": count, **start(work, count)})
        record.add({"kind": "views", **views(work, min(options.pictures), options.batches)})
        for _ in range(options.pairs):
            for count in options.pictures:
                record.add({"kind": "second", "pictures": count, **start(work, count)})
    finally:
        if options.work is None:
            shutil.rmtree(work)
    return 0 if record.write(options.evidence, figures(record.runs)) else 1


def write(folder: Path, count: int) -> None:
    """Write so many JPEGs of two classes, with waves and grain as photographs have them."""
    if folder.exists():
        return
    random = np.random.default_rng(0)
    made = [photograph(*SIZES[number % len(SIZES)], random) for number in range(SCENES)]
    for row in range(count):
        path, picture = folder / "ab"[row % 2] / f"{row}.jpg", made[row % SCENES]
        path.parent.mkdir(parents=True, exist_ok=True)
        picture[:64, :64] = random.integers(0, 256, (8, 8, 3)).repeat(8, 0).repeat(8, 1)  # no two are copies
        path.write_bytes(simplejpeg.encode_jpeg(picture, 90))


def photograph(height: int, width: int, random: np.random.Generator) -> Pixels:
    """Return a picture [H, W, 3] of smooth waves and a little grain."""
    rows, columns = np.mgrid[:height, :width]
    waves = [
        np.sin(rows / random.uniform(9, 60)) + np.cos(columns / random.uniform(9, 60) + random.uniform(0, 6))
        for _ in range(3)
    ]
    grain = random.normal(0, 6, (height, width, 3))
    return np.clip(np.stack(waves, axis=2) * 55 + 128 + grain, 0, 255).astype(np.uint8)


def start(work: Path, count: int) -> dict[str, Any]:
    """Run a sweep of one trial; return the seconds to its start and to the end of its first epoch."""
    name = f"s{count}-{time.time_ns()}"
    fields = ["model=simple_cnn", "image_size=16", "batch_size=256", "precision=float32", "memory_format=contiguous"]
    folder, environment = str(work / f"pictures{count}"), {"SWEEP_ORCHESTRATOR_CACHE": str(work / "cache")}
    sizes = ["--trials", "1", "--max-epochs", "1", "--subset", "1000", "--confirm", "0", "--slots", "1"]
    place = ["--name", name, "--results", str(work / "results")]
    command = ["-m", "orchestrator.sweep", folder, *place, *sizes, "--json", "--quiet", "--set", *fields]
    done = run(command, environment)
    events = read(work / "results" / name / "journal.jsonl")[0]
    epoch = next(event for event in events if isinstance(event, TrialEpoch))
    started = epoch.t - epoch.metrics["train_s"] - epoch.metrics["eval_s"]
    stored = sum(file.stat().st_size for file in (work / "cache").rglob(f"pictures{count}-*/*images.npy"))
    opened = run(["-c", OPENING, folder], environment).answer
    return {"to_first_step_s": round(started - done.started_at, 2), "bytes": stored, **opened}


def views(work: Path, count: int, batches: int) -> dict[str, float]:
    """Return images a second of training batches of 224 px on one thread, from stored pixels and from JPEG."""
    os.environ["SWEEP_ORCHESTRATOR_CACHE"] = str(work / "cache")
    found: dict[str, float] = {}
    for name, limit in (("pixels", pictures.PIXELS_LIMIT), ("jpeg", 0)):
        pictures.PIXELS_LIMIT = limit
        if name == "jpeg":
            os.environ["SWEEP_ORCHESTRATOR_CACHE"] = str(work / "cache-jpeg")
        data = search_data(datasets.load(str(work / f"pictures{count}")))
        config = TrialConfig(batch_size=64, image_size=224, resized_crop=0.1)
        torch.set_num_threads(1)
        made = Batches.of(data, torch.device("cpu"))
        started = time.perf_counter()
        rows = torch.from_numpy(data.pool)
        for _ in made.train(rows, min(len(rows), 64 * batches), config, torch.Generator().manual_seed(0)):
            pass
        found[f"{name}_images_s"] = round(min(len(rows), 64 * batches) / (time.perf_counter() - started))
        found[f"{name}_bytes"] = data.images.nbytes
    return found


def figures(runs: list[dict[str, Any]]) -> list[Figure]:
    """Return the figures: seconds to the first step by the number of pictures, and what storing costs."""
    made, starts = [], [found for found in runs if found["kind"] != "views"]
    for kind, what in (("first", "first start"), ("second", "second start")):
        for count in dict.fromkeys(found["pictures"] for found in starts):
            chosen = [found for found in starts if (found["kind"], found["pictures"]) == (kind, count)]
            target = Target(10, statistic="max") if kind == "second" else None
            seconds = [found["to_first_step_s"] for found in chosen]
            made.append(Figure(f"command to first step, {what}, {count:,} pictures", "s", seconds, target))
            if kind == "second":
                opening = [found["opening_cpu_s"] for found in chosen]
                made.append(Figure(f"CPU seconds to open {count:,} stored pictures", "s", opening))
    views = [found for found in runs if found["kind"] == "views"]
    kinds = [(way, unit) for unit in ("images_s", "bytes") for way in ("pixels", "jpeg")]
    made += [
        Figure(f"{way}, {unit}, batches of 224 px", unit, [found[f"{way}_{unit}"] for found in views])
        for way, unit in kinds
    ]
    return made


if __name__ == "__main__":
    sys.exit(main())
