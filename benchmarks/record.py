"""Evidence: a benchmark's figures, compared with their targets, and everything that they depend on.

A file holds `benchmark, command, started_at, options, hardware, versions, git, load_average, notes, figures, runs`.
Each figure has its unit, target and every value with n, median and its 95 % interval (of six values and more), mean,
standard deviation, least and most. Absolute paths in the command are cut to their last part, so a file does not show
where it was made.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchestrator.record import provenance
from trainables.files import replace_file

ROOT = Path(__file__).parent.parent
EVIDENCE = Path(__file__).parent / "evidence"
QUIET_LOAD = 0.5  # load average a core over the last minute, above which timings are not to be trusted

CIFAR10_VARIABLE = "BENCHMARK_CIFAR10"

STATISTICS: dict[str, Callable[[Sequence[float]], float]] = {
    "mean": statistics.mean,
    "median": statistics.median,
    "max": max,
    "min": min,
}


class BenchmarkError(RuntimeError):
    """A run of either side failed, or the two sides did not do equal work; there is no figure."""


@dataclass(frozen=True)
class Target:
    """The bound of a figure's `statistic`: at most, or at least, `bound`."""

    bound: float
    at_most: bool = True
    statistic: str = "median"

    def holds(self, values: Sequence[float]) -> bool:
        found = STATISTICS[self.statistic](values)
        return found <= self.bound if self.at_most else found >= self.bound

    def __str__(self) -> str:
        return f"{'≤' if self.at_most else '≥'} {self.bound:g}"


@dataclass(frozen=True)
class Figure:
    """One measured quantity, with a value for each run (or pair of runs)."""

    name: str
    unit: str
    values: Sequence[float]
    target: Target | None = None

    def to_dict(self) -> dict[str, Any]:
        if not self.values or not all(math.isfinite(value) for value in self.values):
            raise BenchmarkError(f"{self.name}: {list(self.values)} are not all finite numbers")
        return {
            "name": self.name,
            "unit": self.unit,
            "target": self.target and str(self.target),
            "judged_by": self.target and self.target.statistic,
            "holds": self.target and self.target.holds(self.values),
            "n": len(self.values),
            "median": statistics.median(self.values),
            "mean": statistics.mean(self.values),
            "stdev": statistics.stdev(self.values) if len(self.values) > 1 else None,
            "interval": median_interval(self.values),
            "min": min(self.values),
            "max": max(self.values),
            "values": list(self.values),
        }


def median_interval(values: Sequence[float]) -> list[float] | None:
    """Return an interval that holds the median with at least 95 % probability, whatever the distribution is.

    It lies between two of the sorted values; the median is between them but if nearly all values fall on one side of
    it. None of fewer than six values, where even the least and the greatest are too close.
    """
    n = len(values)
    inside = (k for k in range(n // 2, 0, -1) if 2 * sum(math.comb(n, i) for i in range(k)) / 2**n <= 0.05)
    k = next(inside, None)
    return None if k is None else [sorted(values)[k - 1], sorted(values)[n - k]]


@dataclass
class Record:
    """The evidence of one benchmark, made before its first run: the load average is that of the idle machine."""

    name: str
    options: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)
    lines: Path | None = None
    """File of JSON lines that keeps each run as soon as it has ended, so that a long benchmark can go on."""

    def __post_init__(self) -> None:
        self._started_at = datetime.now(UTC).isoformat(timespec="seconds")
        self._load = os.getloadavg()
        if self._load[0] > QUIET_LOAD * (os.cpu_count() or 1):
            self.notes.append(f"the machine was not idle: load average {self._load[0]:.2f} before the first run")
            say(f"warning: {self.notes[-1]}")

    def add(self, run: dict[str, Any]) -> None:
        """Add a run's figures, and show them."""
        self.runs.append(run)
        say(json.dumps(run))

    def once(self, key: dict[str, Any], measure: Callable[[], dict[str, Any]]) -> None:
        """Add the run named by `key`: as the file of lines has it, else as `measure` finds it."""
        kept = self.lines.read_text().splitlines() if self.lines and self.lines.exists() else []
        found = next((run for run in map(json.loads, kept) if key.items() <= run.items()), None)
        if found is None:
            found = {**key, **measure()}
            if self.lines:
                with self.lines.open("a") as file:
                    file.write(json.dumps(found) + "\n")
        self.add(found)

    def write(self, folder: Path, figures: Sequence[Figure]) -> bool:
        """Write the evidence, print the figures, and return whether every target holds."""
        judged = [figure.to_dict() for figure in figures]
        described = provenance.describe().to_dict()
        described["hardware"].pop("host")
        content = {
            "benchmark": self.name,
            **described,
            "command": _command(),
            "started_at": self._started_at,
            "options": {name: _shown(value) for name, value in self.options.items()},
            "load_average": list(self._load),
            "notes": self.notes,
            "figures": judged,
            "runs": self.runs,
        }
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / f"{self.name}.json", (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
        for figure in judged:
            verdict = {None: "", True: "holds", False: "MISSED"}[figure["holds"]]
            aim = f"target {figure['judged_by']} {figure['target']} {verdict}" if figure["target"] else ""
            spread = f"{figure['min']:.4g}–{figure['max']:.4g}, n = {figure['n']}"
            print(f"{self.name}: {figure['name']}: median {figure['median']:.4g} {figure['unit']} ({spread}) {aim}")
        return all(figure["holds"] is not False for figure in judged)


def say(text: str) -> None:
    """Write a line about the progress to standard error."""
    print(text, file=sys.stderr, flush=True)


def two_cores() -> None:
    """Keep this process and its children on two cores and off any GPU, so that machines can be compared.

    Raises:
        BenchmarkError: there are fewer than two.
    """
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise BenchmarkError("two CPU cores are needed")
    os.sched_setaffinity(0, cores[:2])
    os.environ["CUDA_VISIBLE_DEVICES"] = ""


def cifar10_files(given: Path | None) -> Path | None:
    """Return the folder of CIFAR-10's files, from the option or the environment; None, with a message, without one."""
    found = given or os.environ.get(CIFAR10_VARIABLE)
    if found is None:
        say(f"cifar10 is skipped: give the folder of its files by --data-dir or {CIFAR10_VARIABLE}")
    return None if found is None else Path(found)


def _command() -> str:
    module = Path(sys.argv[0]).stem
    return shlex.join(["python", "-m", f"benchmarks.{module}", *(_shown(argument) for argument in sys.argv[1:])])


def _shown(value: Any) -> Any:
    """Return a plain value; only the last part of an absolute path."""
    if isinstance(value, (Path, str)) and Path(value).is_absolute():
        return f"…/{Path(value).name}"
    return str(value) if isinstance(value, Path) else value
