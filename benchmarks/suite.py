"""The main figures of the benchmarks within twenty minutes: `make bench`.

    python -m benchmarks.suite                  or make bench ARGS="--minutes 40"

Every entry is a benchmark of its own, made small: fewer repeats, the same comparison, ratios within one run, the sides
alternated. Entries are run in their order as long as there is time for them; what is left out is named. What needs
CIFAR-10 is run if `BENCHMARK_CIFAR10` names the folder of its files. At the end there is one table, and a picture of
each group; evidence and pictures are in the folder that the last line names, apart from those of the repository, which
come from complete runs.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks import pictures, table
from benchmarks.record import CIFAR10_VARIABLE, ROOT, say
from trainables.errors import counted


@dataclass(frozen=True)
class Entry:
    """A benchmark, made small."""

    name: str
    arguments: str
    minutes: float  # that it takes on two cores
    cifar10: bool = False  # it needs the files


ENTRIES = (
    Entry("digits_sweep", "--seeds 0 1", 2),
    Entry("bare_loop", "--rounds 3 --steps 0.4", 3.5),
    Entry("against_plain_ray", "--pairs 1 --workloads digits", 3),
    Entry("driver_cost", "--trials 2000 --searches 'random asha' 'tpe asha'", 2),
    Entry("many_slots", "--trials 2000 --slots 8 1000 --samplers random --workers 8 --worker-trials 300", 1.5),
    Entry("resume", "--kills 2", 1.5),
    Entry("checkpoint_cost", "--rows 2000 --epochs 1 --pairs 1", 1.5),
    Entry("kept_memory", "--pairs 1 --rows 1000 --epochs 1", 1.5, cifar10=True),
    Entry("predict", "--rows 2000 --epochs 1 --pairs 2", 2, cifar10=True),
    Entry("coverage", "", 1),
    Entry("naive_split", "--sweeps 300", 0.5),
)


@dataclass(frozen=True)
class Options:
    """Run the main benchmarks, made small, and print one table."""

    minutes: float = 20.0
    """No entry is begun that would end later."""
    only: tuple[str, ...] = ()
    """Names of the entries to run. Default: all."""
    folder: Path = ROOT / "build" / "bench"
    """The folder of evidence and pictures."""


def main() -> int:
    options = tyro.cli(Options)
    options.folder.mkdir(parents=True, exist_ok=True)
    for old in (*options.folder.glob("*.json"), *options.folder.glob("*.svg")):
        old.unlink()
    ends = time.monotonic() + 60 * options.minutes
    chosen = [entry for entry in ENTRIES if not options.only or entry.name in options.only]
    codes = {entry.name: run(entry, options.folder, ends) for entry in chosen}
    evidence = table.evidence_in(options.folder)
    print(table.all_figures(evidence))
    pictures.draw(options.folder, options.folder)
    left_out = [name for name, code in codes.items() if code is None]
    failed = [name for name, code in codes.items() if code not in (None, 0, 1)]
    for text, names in (("left out", left_out), ("failed", failed)):
        if names:
            print(f"{text}: {', '.join(names)}")
    print(f"{counted(len(evidence), 'benchmark')}; evidence and pictures: {options.folder}")
    return 1 if any(codes.values()) else 0


def run(entry: Entry, folder: Path, ends: float) -> int | None:
    """Run an entry, and return its exit code; None if there is no time or no data for it.

    It is ended after three times its minutes, with all that it has started.
    """
    if entry.cifar10 and CIFAR10_VARIABLE not in os.environ:
        return None
    if time.monotonic() + 60 * entry.minutes > ends:
        return None
    say(f"== {entry.name} {entry.arguments} (about {entry.minutes:g} min)")
    command = f"exec {sys.executable} -m benchmarks.{entry.name} {entry.arguments} --evidence {folder}"
    process = subprocess.Popen(["sh", "-c", command], cwd=ROOT, start_new_session=True)
    try:
        return process.wait(timeout=180 * entry.minutes)
    except subprocess.TimeoutExpired:
        say(f"{entry.name}: no end after {3 * entry.minutes:g} min")
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        return process.wait() or 1


if __name__ == "__main__":
    sys.exit(main())
