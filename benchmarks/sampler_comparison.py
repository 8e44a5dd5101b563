"""Samplers under asha, cold, on a recorded table of curves: what each has found after so many epochs.

    python -m benchmarks.sampler_comparison                    (after benchmarks.record_curves)

Nothing is trained. Each sampler searches the recorded table, where the nearest setting that no trial had stands for a
proposal, and a dense one, whose 6,000 settings have the scores that a forest predicts from it: see
`curve_tables.densified`. The figures are mean regrets in points on other rows, against the best of the table, and what
a proposal costs, in processor time: what else a simulated search does is in it, and is the same for all.
"""

from __future__ import annotations

import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import tyro

from benchmarks import curve_tables
from benchmarks.curve_tables import KINDS, Curves
from benchmarks.record import EVIDENCE, Figure, Record, two_cores
from benchmarks.search_comparison import cold, without_disk
from benchmarks.search_methods import ours
from orchestrator.search.promotion import Asha, Rounds

SAMPLERS = ("random", "tpe", "gp")
AT = (48, 96, 144, 240)  # epochs
SLOTS = 4


@dataclass(frozen=True)
class Options:
    """Compare samplers on a recorded table."""

    table: str = "cifar10"
    seeds: int = 16
    evidence: Path = EVIDENCE
    """Folder of the evidence file that is written."""


class Task(NamedTuple):
    """One search to simulate."""

    kind: str
    sampler: str
    seed: int
    table: str


def main() -> int:
    options = tyro.cli(Options)
    two_cores()
    record = Record("sampler_comparison", asdict(options))
    error = curve_tables.forest_error(read("recorded", options.table))
    record.notes.append(f"the forest's mean error of a final score: {error:.2f} points")
    figures = []
    with ProcessPoolExecutor(initializer=without_disk) as pool:
        for kind in KINDS:
            for sampler in SAMPLERS:
                tasks = [Task(kind, sampler, seed, options.table) for seed in range(options.seeds)]
                found = list(pool.map(search, tasks))
                record.add({"table": kind, "sampler": sampler, "searches": found})
                figures += described(f"{kind} table, {sampler}", found)
    return 0 if record.write(options.evidence, figures) else 1


def described(name: str, found: list[dict[str, Any]]) -> list[Figure]:
    """Return the mean regrets of searches, and what a proposal costs in them."""
    means = {at: statistics.fmean(one["regret"][at] for one in found) for at in AT}
    regrets = [Figure(f"{name}: mean regret after {at} epochs", "points", [mean]) for at, mean in means.items()]
    return [*regrets, Figure(f"{name}: a proposal", "ms", [one["proposal_ms"] for one in found])]


@cache
def read(kind: str, name: str) -> Curves:
    """Return a table of one of KINDS, without start points."""
    return cold(KINDS[kind](name))


def search(task: Task) -> dict[str, Any]:
    """Run one search to the last of `AT`; return the regret at each, and the processor time of a proposal."""
    table = read(task.kind, task.table)
    rule = Asha(table.max_epochs, 1, 3, Rounds(), table.space)
    setup = {"trials": len(table.params), "sampler": task.sampler, "seed": task.seed, "slots": SLOTS}
    started = time.process_time()
    found = ours(table, rule, setup, AT[-1])
    seconds = time.process_time() - started
    return {
        "regret": {at: round(found.regret_at(at), 4) for at in AT},
        "proposal_ms": round(1000 * seconds / max(len(found.of), 1), 2),
    }


if __name__ == "__main__":
    sys.exit(main())
