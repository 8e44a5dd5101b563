"""The gain of a trial on CPUs if its process keeps the memory that a step frees (`trainables.memory.keep_freed`).

    python -m benchmarks.kept_memory --data-dir DIR         (or BENCHMARK_CIFAR10=DIR)

`python -m trainables` on a few thousand rows of CIFAR-10, one thread, once as it is and once with glibc's
defaults (any setting of glibc in the environment leaves them in place; MALLOC_ARENA_MAX=16 is the default on two
cores). The sides alternate, first one, then the other beginning. Figures: training seconds of the defaults over those
with memory kept, above 1 is a gain; and the peak of memory, kept over default.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import tyro

from benchmarks import command
from benchmarks.record import EVIDENCE, BenchmarkError, Figure, Record, Target, cifar10_files, two_cores

MODELS = {"resnet20": (), "resnet18": ("stem=imagenet",), "efficientnet_b0": ()}
SIDES = {"kept": {}, "default": {"MALLOC_ARENA_MAX": "16"}}


@dataclass(frozen=True)
class Options:
    """Compare training with freed memory kept with glibc's defaults."""

    data_dir: Path | None = None
    """Folder of CIFAR-10's files as Parquet. Default: that of the environment variable BENCHMARK_CIFAR10."""
    rows: int = 2_000
    epochs: int = 2
    pairs: int = 3
    evidence: Path = EVIDENCE
    """Folder of the evidence file that is written."""


def main() -> int:
    options = tyro.cli(Options)
    data_dir = cifar10_files(options.data_dir)
    if data_dir is None:
        return 0
    two_cores()
    record, figures = Record("kept_memory", asdict(options)), []
    for model, settings in MODELS.items():
        fields = (f"model={model}", *settings, "threads=1", "batch_size=128", f"max_epochs={options.epochs}")
        arguments = [
            "-m",
            "trainables",
            "cifar10",
            "--data-dir",
            str(data_dir),
            "--subset",
            str(options.rows),
            "--json",
        ]
        gains, peaks = [], []
        for pair in range(options.pairs):
            found = {}
            for side in list(SIDES)[:: 1 if pair % 2 == 0 else -1]:
                answer = command.run([*arguments, "--set", *fields], SIDES[side]).answer
                last = answer["epochs"][-1]
                found[side] = {"train_s": last["train_s"], "peak_mb": last["peak_memory_mb"], "score": answer["score"]}
                record.add({"model": model, "pair": pair, "side": side, **found[side]})
            gains.append(found["default"]["train_s"] / found["kept"]["train_s"])
            peaks.append(found["kept"]["peak_mb"] / found["default"]["peak_mb"])
        figures += [
            Figure(f"training, glibc's defaults / kept ({model})", "", gains, Target(1.0, at_most=False)),
            Figure(f"peak memory, kept / glibc's defaults ({model})", "", peaks),
        ]
    return 0 if record.write(options.evidence, figures) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchmarkError as error:
        sys.exit(f"failed: {error}")
