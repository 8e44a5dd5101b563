"""Compare the sweep command with a script on plain Ray Tune: wall time for each epoch, with equal work on both sides.

    python -m benchmarks.against_plain_ray --data-dir DIR        (or BENCHMARK_CIFAR10=DIR; without either: digits only)

Two workloads, both torchvision's ResNet-18 with its ImageNet stem, batch 128, two slots of one CPU:

    digits    1,797 images of 8×8 as RGB, 16 trials × at most 5 epochs
    cifar10   4,000 of CIFAR-10's training images, 8 trials × at most 4 epochs, flips and padded crops

The baseline is `plain_ray_tune.py`. To be fair: the rows of `trainables.splits.search_data` are handed to it, so both
train and score the same rows each epoch (checked after each run, as are the threads, 1 a trial on both sides); the same
ranges searched by Optuna's TPE, the same ASHA (grace 1, factor 4), SGD with Nesterov momentum, one-cycle schedule;
both sides restricted to the same two cores. Ours also measures precision and recall, keeps weights, flushes its journal
and chooses its numeric format by measurement; all of that is within its time. ASHA stops different trials, so the
figure is wall time from the command to its end, process and Ray start included, divided by the epochs run. Ratios are
within a pair, and the side that runs first alternates.

Shares of slot time are of slots × the command's whole wall time. Our `train` holds the making of batches, the
baseline's `steps` does not; its `train` does.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks import command
from benchmarks.record import EVIDENCE, BenchmarkError, Figure, Record, Target, cifar10_files, two_cores

SIDES = ("ours", "plain")
SLOTS = 2
RANGES = {
    "lr": ("log", 0.01, 0.3),
    "weight_decay": ("log", 1e-5, 1e-2),
    "dropout": ("uniform", 0.0, 0.3),
    "label_smoothing": ("uniform", 0.0, 0.15),
}
BATCH_SIZE, GRACE, FACTOR, WARMUP = 128, 1, 4, 0.2


@dataclass(frozen=True)
class Workload:
    """The work of both sides."""

    dataset: str
    trials: int
    max_epochs: int
    target: float  # ours / theirs, in wall time an epoch
    subset: int | None = None
    flip: bool = False
    crop_padding: int = 0


WORKLOADS = {
    "digits": Workload("digits", 16, 5, 0.25),
    "cifar10": Workload("cifar10", 8, 4, 0.50, subset=4_000, flip=True, crop_padding=4),
}


@dataclass(frozen=True)
class Options:
    """Compare the sweep command with plain Ray Tune."""

    workloads: tuple[str, ...] = tuple(WORKLOADS)
    """Workloads to run: digits, cifar10."""
    pairs: int = 3
    """Pairs of runs of each workload."""
    data_dir: Path | None = None
    """Folder of CIFAR-10's files. Default: that of the environment variable BENCHMARK_CIFAR10."""
    trials: int | None = None
    """A smaller number, for a smoke test."""
    max_epochs: int | None = None
    """A smaller number, for a smoke test."""
    subset: int | None = None
    """A smaller number of rows, for a smoke test."""
    evidence: Path = EVIDENCE
    """Folder of the evidence file that is written."""


def main() -> int:
    options = tyro.cli(Options)
    two_cores()
    held = [compare(options, *one) for one in chosen(options.workloads, options.data_dir)]
    return 0 if all(held) else 1


def chosen(names: Iterable[str], given: Path | None) -> Iterator[tuple[str, Path | None]]:
    """Yield the workloads of these names, but those whose files are not there, each with the folder of its files.

    Raises:
        BenchmarkError: there is no such workload.
    """
    for name in names:
        if name not in WORKLOADS:
            raise BenchmarkError(f"unknown workload {name!r} (allowed: {', '.join(WORKLOADS)})")
        data_dir = cifar10_files(given) if name == "cifar10" else None
        if name != "cifar10" or data_dir is not None:
            yield name, data_dir


def compare(options: Options, name: str, data_dir: Path | None) -> bool:
    """Run all pairs of one workload, and return whether the target holds."""
    given = WORKLOADS[name]
    work = Workload(
        given.dataset,
        options.trials or given.trials,
        options.max_epochs or given.max_epochs,
        given.target,
        options.subset or given.subset,
        given.flip,
        given.crop_padding,
    )
    record = Record(f"against_plain_ray_{name}", asdict(options) | {"workload": asdict(work)})
    for pair in range(options.pairs):
        with tempfile.TemporaryDirectory(prefix="benchmark-") as scratch:
            folder = Path(scratch)
            rows = hand_over(work, data_dir, folder)
            for side in SIDES if pair % 2 == 0 else SIDES[::-1]:
                run = run_ours(work, pair, data_dir, folder) if side == "ours" else run_theirs(work, pair, folder)
                check(run, work, rows)
                record.add(run)
    return record.write(options.evidence, figures(work, record.runs))


def hand_over(work: Workload, data_dir: Path | None, folder: Path) -> dict[str, int]:
    """Write the rows that our trials train on and are scored on for the baseline, and return their numbers."""
    from trainables import datasets
    from trainables.splits import search_data

    data = search_data(datasets.load(work.dataset, datasets.Reading(data_dir)), work.subset)
    for part, rows in (("train", data.pool), ("val", data.validation)):
        images = np.asarray(data.images[rows])
        np.save(folder / f"{part}_images.npy", np.repeat(images, 3 // images.shape[-1], axis=-1))
        np.save(folder / f"{part}_labels.npy", data.labels[rows])
    moments = {name: [float(v) for v in np.broadcast_to(getattr(data, name), 3)] for name in ("mean", "std")}
    (folder / "statistics.json").write_text(json.dumps(moments))
    return {"train_rows": len(data.pool), "val_rows": len(data.validation)}


def fixed(work: Workload) -> dict[str, Any]:
    """Return the settings that our trials have in common with the baseline's."""
    return {
        "model": "resnet18",
        "stem": "imagenet",
        "optimizer": "sgd",
        "momentum": 0.9,
        "schedule": "one_cycle",
        "warmup": WARMUP,
        "batch_size": BATCH_SIZE,
        "train_fraction": 1.0,
        "flip": work.flip,
        "crop_padding": work.crop_padding,
        "rotation": 0.0,
        "shift": 0.0,
    }


def arguments_of_ours(work: Workload, seed: int, data_dir: Path | None) -> list[str]:
    """Return the arguments of our sweep, but for how long it searches."""
    arguments = [work.dataset, "--seed", str(seed), "--max-epochs", str(work.max_epochs)]
    arguments += ["--grace", str(GRACE), "--factor", str(FACTOR)]
    arguments += ["--slots", str(SLOTS), "--cpus-per-trial", "1"]
    arguments += ["--set", *(f"{name}={str(value).lower()}" for name, value in fixed(work).items())]
    arguments += ["--search", *(f"{name}={kind}({low},{high})" for name, (kind, low, high) in RANGES.items())]
    if data_dir is not None:
        arguments += ["--data-dir", str(data_dir.absolute())]
    if work.subset is not None:
        arguments += ["--subset", str(work.subset)]
    return arguments


def run_ours(work: Workload, seed: int, data_dir: Path | None, folder: Path) -> dict[str, Any]:
    """Run our side of a pair, through the command line."""
    arguments = [*arguments_of_ours(work, seed, data_dir), "--trials", str(work.trials), "--confirm", "0"]
    run = command.sweep(arguments, folder, f"seed-{seed}")
    workers = [trial.worker for trial in run.state.trials.values() if trial.worker.node]
    train_s, eval_s = (sum(epoch[name] for epoch in run.epochs) for name in ("train_s", "eval_s"))
    return {
        "side": "ours",
        "seed": seed,
        "load_average": os.getloadavg()[0],
        "trials": len(run.state.trials),
        "statuses": run.done.answer["trials"],
        "threads": sorted({worker.threads for worker in workers}),
        "train_rows": sorted({worker.train_rows for worker in workers}),
        "val_rows": [run.state.spec.split["validation_rows"]],
        "best_score": run.done.answer["best"]["score"],
        "slot_use": run.done.answer["slot_use"],
        "formats": run.state.formats,
        **timed(run.done.wall_s, len(run.epochs), train_s=train_s, eval_s=eval_s),
        "phases": run.phases(),
    }


def run_theirs(work: Workload, seed: int, folder: Path, *limit: str) -> dict[str, Any]:
    """Run the baseline's side of a pair; `limit` are further arguments that say how long it searches."""
    arguments = ["benchmarks/plain_ray_tune.py", "--data", str(folder), "--storage", str(folder / "plain")]
    arguments += ["--seed", str(seed), "--trials", str(work.trials), "--max-epochs", str(work.max_epochs)]
    arguments += ["--batch-size", str(BATCH_SIZE), "--slots", str(SLOTS), "--warmup", str(WARMUP)]
    arguments += ["--grace", str(GRACE), "--factor", str(FACTOR), "--crop-padding", str(work.crop_padding)]
    arguments += ["--flip"] if work.flip else []
    for name, (_, low, high) in RANGES.items():
        arguments += [f"--{name.replace('_', '-')}", str(low), str(high)]
    arguments += limit
    token = folder / "token"  # else Ray makes one in the user's home
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    lock = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0"}
    done = command.run(arguments, lock)
    answer = done.answer
    seconds = {name: answer.pop(name) for name in ("steps_s", "train_s", "eval_s")}
    load = os.getloadavg()[0]
    return {
        "side": "plain",
        "seed": seed,
        "load_average": load,
        **answer,
        **timed(done.wall_s, answer["epochs"], **seconds),
    }


def timed(wall_s: float, epochs: int, **seconds: float) -> dict[str, Any]:
    """Return the wall time in all and for each epoch, and the share of the slots' time that each of `seconds` is."""
    shares = {f"{name.removesuffix('_s')}_share": round(s / (SLOTS * wall_s), 4) for name, s in seconds.items()}
    rounded = {name: round(s, 3) for name, s in seconds.items()}
    return {"wall_s": round(wall_s, 3), "epochs": epochs, "s_an_epoch": wall_s / epochs, **rounded, **shares}


def check(run: dict[str, Any], work: Workload, rows: dict[str, int]) -> None:
    """Raise BenchmarkError unless the run did the work that was asked for."""
    expected = {"trials": work.trials, "threads": [1], **{name: [count] for name, count in rows.items()}}
    wrong = {name: run[name] for name, value in expected.items() if run[name] != value}
    if wrong or not work.trials <= run["epochs"] <= work.trials * work.max_epochs:
        raise BenchmarkError(f"the side {run['side']} did not do equal work: {wrong} instead of {expected}; run {run}")


def figures(work: Workload, runs: list[dict[str, Any]]) -> list[Figure]:
    """Return the ratio within each pair, and both sides' figures."""
    sides = {side: [run for run in runs if run["side"] == side] for side in SIDES}
    by_seed = {side: {run["seed"]: run["s_an_epoch"] for run in found} for side, found in sides.items()}
    ratios = [seconds / by_seed["plain"][seed] for seed, seconds in sorted(by_seed["ours"].items())]
    found = [Figure("wall time an epoch, ours / plain Ray Tune", "", ratios, Target(work.target))]
    for side, shares in (("ours", ("train_share",)), ("plain", ("steps_share", "train_share"))):
        named = {"s_an_epoch": "s", "wall_s": "s", "epochs": "", "best_score": "", **dict.fromkeys(shares, "")}
        found += [Figure(f"{side}: {name}", unit, [run[name] for run in sides[side]]) for name, unit in named.items()]
    return found


if __name__ == "__main__":
    sys.exit(main())
