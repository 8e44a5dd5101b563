"""How many epochs searches take to find a good setting, on a recorded table of curves; nothing is trained.

    python -m benchmarks.search_comparison                    (after benchmarks.record_curves)

Each method runs on the same table with the same seeds and slots, until it has spent 40 times the epochs of a full run.
What it has found is the setting whose score is best so far, on the rows that a search sees; counted are the epochs
until that setting's run in full is within a point of the table's best, on 10,000 other rows. A search that never gets
there counts as infinite, so medians are those of Kaplan and Meier. Figures: the ratio of medians to stock Optuna under
Ray's ASHA, with the 95 % interval of a bootstrap over seeds, paired. The table's best is the mean of its best settings
over three further seeds. Off the table the nearest setting that no trial had stands for a proposal.

Methods: stock (OptunaSearch and AsyncHyperBandScheduler with their defaults), stopping (this project's sampler under
asha-stopping), asha (cold: without start points), start (with the space's own), memory (and the best settings of one
search on the small table, which was recorded on other rows), memories (of five such searches), misled (by bad settings
of it). At equal epochs asha is compared with i-Epoch: random settings for i epochs each, then the best three in full.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import tyro

from benchmarks import curve_tables
from benchmarks.curve_tables import Curves
from benchmarks.record import EVIDENCE, Figure, Record, Target, two_cores
from benchmarks.search_methods import Found, ours, stock, top_of_few
from orchestrator.search.promotion import KEEP, ROUND, Asha, Rounds
from orchestrator.search.stopping import AshaStopping
from search_spaces.starts import Start

LIMIT = 40  # full runs of epochs that a search may spend
POINT = 1.0
MEMORIES = 5
TARGETS = {"asha": 0.65, "start": 0.45, "memory": 0.35, "memories": 0.3}
RESAMPLED = 2_000


@dataclass(frozen=True)
class Options:
    """Compare searches on a recorded table."""

    table: str = "cifar10"
    small: str = "cifar10_small"
    """Table that memory comes from."""
    seeds: int = 50
    slots: tuple[int, ...] = (2, 4, 8)
    evidence: Path = EVIDENCE
    """Folder of the evidence file that is written."""


def main() -> int:
    options = tyro.cli(Options)
    two_cores()
    os.fsync = lambda fd: None  # no disk is part of this
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    record = Record("search_comparison", asdict(options))
    tables = curve_tables.read(options.table), curve_tables.read(options.small)
    figures, full = [], tables[0].max_epochs
    grid = range(full, (LIMIT + 1) * full, full)  # of the picture in docs/search.md
    for slots in options.slots:
        reached: dict[str, list[float]] = {}
        for name, method in METHODS.items():
            found = [method(*tables, slots, seed) for seed in range(options.seeds)]
            reached[name] = [one.epochs_to(POINT) for one in found]
            ends = [one.regret for one in found]
            median = statistics.median(reached[name])
            record.add(
                {
                    "method": name,
                    "slots": slots,
                    "median": shown(median),
                    "epochs": list(map(shown, reached[name])),
                    "regret": ends,
                    "mean_regret": {at: round(statistics.fmean(one.regret_at(at) for one in found), 4) for at in grid},
                }
            )
        figures += [
            Figure(f"{name}, {slots} slots: epochs to within a point, against stock: {what}", "", [value], target)
            for name in METHODS
            if name != "stock"
            for what, value, target in ratios(reached[name], reached["stock"], TARGETS.get(name), 2.0 * LIMIT * full)
        ]
    figures += equal_epochs(tables[0], options)
    return 0 if record.write(options.evidence, figures) else 1


def shown(epochs: float) -> float | None:
    return None if epochs == float("inf") else epochs


def ratios(
    ours_: Sequence[float], stocks: Sequence[float], target: float | None, beyond: float
) -> list[tuple[str, float, Target | None]]:
    """Return the ratio of medians with its interval; what never got there counts as twice the limit."""
    generator = np.random.default_rng(0)
    pairs = np.minimum(np.array([ours_, stocks]), beyond)
    drawn = pairs[:, generator.integers(0, pairs.shape[1], (RESAMPLED, pairs.shape[1]))]
    medians = np.median(drawn, axis=2)
    low, high = np.percentile(medians[0] / medians[1], [2.5, 97.5])
    ratio = float(np.median(pairs[0]) / np.median(pairs[1]))
    goal = None if target is None else Target(target)
    return [("ratio", ratio, goal), ("lower bound", float(low), None), ("upper bound", float(high), None)]


def equal_epochs(table: Curves, options: Options) -> list[Figure]:
    """Return asha's mean regret minus that of the best i-Epoch that spends as many epochs, with its upper bound."""
    figures = []
    for trials in (16, 32, 64):
        rule = Asha(table.max_epochs, 1, 3, Rounds((trials,), KEEP), cold(table).space)
        mine = [searched(cold(table), rule, trials, 4, seed).regret for seed in range(options.seeds)]
        theirs = {}
        for epochs in (1, 2, 4):
            count = (rule.epochs(trials) - KEEP * (table.max_epochs - epochs)) // epochs
            theirs[epochs] = [top_of_few(table, count, epochs, seed, KEEP).regret for seed in range(options.seeds)]
        best = min(theirs, key=lambda epochs: statistics.fmean(theirs[epochs]))
        name = f"regret of asha at {trials} trials minus that of {best}-Epoch at as many epochs"
        figures += behind(name, mine, theirs[best])
    return figures


def behind(name: str, mine: Sequence[float], theirs: Sequence[float], most: float | None = 0.3) -> list[Figure]:
    """Return the mean of paired differences of regrets, and its upper 95 % bound, which should be at most `most`."""
    differences = np.array(mine) - np.array(theirs)
    upper = differences.mean() + 1.96 * differences.std(ddof=1) / len(differences) ** 0.5
    return [
        Figure(f"{name}: mean", "points", [float(differences.mean())]),
        Figure(f"{name}: upper bound", "points", [float(upper)], None if most is None else Target(most)),
    ]


def cold(table: Curves) -> Curves:
    """Return the table without start points."""
    return begun(table, ())


def begun(table: Curves, starts: Sequence[Start]) -> Curves:
    return replace(table, space=replace(table.space, starts=tuple(starts)))


def searched(table: Curves, rule: Any, trials: int, slots: int, seed: int) -> Found:
    setup = {"trials": trials, "sampler": "tpe", "seed": seed, "slots": slots}
    return ours(table, rule, setup, LIMIT * table.max_epochs)


def in_rounds(table: Curves, slots: int, seed: int) -> Found:
    """Run asha in rounds, as many as fit."""
    return searched(table, Asha(table.max_epochs, 1, 3, Rounds(), table.space), len(table.params), slots, seed)


@cache
def best_of(small: str, seed: int, count: int, worst: bool = False) -> tuple[Start, ...]:
    """Return the best settings of a search on the small table, or some of the worse half of its trials."""
    table = cold(curve_tables.read(small))
    rule = Asha(table.max_epochs, 1, 3, Rounds((2 * ROUND,)), table.space)
    found = searched(table, rule, 2 * ROUND, 4, 1_000 + seed)
    order = sorted(found.of.values(), key=lambda setting: float(table.regrets[setting]))
    chosen = order[len(order) // 2 :][:count] if worst else order[:count]
    return tuple(table.params[setting] for setting in chosen)


Method = Callable[[Curves, Curves, int, int], Found]
POINTS = ROUND // 8
METHODS: dict[str, Method] = {
    "stock": lambda table, small, slots, seed: stock(table, len(table.params), slots, seed, LIMIT * table.max_epochs),
    "stopping": lambda table, small, slots, seed: searched(
        cold(table), AshaStopping(table.max_epochs, 1, 3), len(table.params), slots, seed
    ),
    "asha": lambda table, small, slots, seed: in_rounds(cold(table), slots, seed),
    "start": lambda table, small, slots, seed: in_rounds(table, slots, seed),
    "memory": lambda table, small, slots, seed: in_rounds(
        begun(table, (*table.space.starts, *best_of(small.name, seed, POINTS))), slots, seed
    ),
    "memories": lambda table, small, slots, seed: in_rounds(
        begun(
            table,
            (*table.space.starts, *(best_of(small.name, MEMORIES * seed + n, 1)[0] for n in range(POINTS))),
        ),
        slots,
        seed,
    ),
    "misled": lambda table, small, slots, seed: in_rounds(
        begun(table, (*table.space.starts, *best_of(small.name, seed, POINTS, worst=True))), slots, seed
    ),
}
"""Methods by name: from the table, the small one, slots and seed."""


if __name__ == "__main__":
    sys.exit(main())
