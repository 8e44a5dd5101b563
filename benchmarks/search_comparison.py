"""How many epochs searches take to find a good setting, on a recorded table of curves; nothing is trained.

    python -m benchmarks.search_comparison                    (after benchmarks.record_curves)
    python -m benchmarks.search_comparison --kind dense --within 2

Each method runs on the same table with the same seeds and slots, until it has spent 40 times the epochs of a full run.
What it has found is the setting whose score is best so far, on the rows that a search sees. Counted are the epochs
until that setting's run in full is within a point of the table's best, on 10,000 other rows: from when on it stays
there, and when it first was, which may be chance, as a high score after one epoch may. A search that never gets there
counts as infinite, so medians are those of Kaplan and Meier. Figures: the ratio of medians, over all numbers of slots,
to stock Optuna under Ray's ASHA, with the 95 % interval of a bootstrap over seeds, paired. The table's best is the mean
of its best settings over three further seeds. Off the table the nearest setting that no trial had stands for a
proposal. In the recorded table that may be far; so the same can be asked of a dense one, whose 6,000 settings have the
scores that a forest predicts (`curve_tables.densified`). There most searches never come to stay within a point: of so
many settings, the one that noise favors most is further from the best.

Methods: stock (OptunaSearch and AsyncHyperBandScheduler with their defaults; also with a factor of 3, as ours), random
(settings in full), random asha, stopping (this project's sampler under asha-stopping), asha (cold: without start
points), start (with the space's own), memory (and what `--warm-start` takes of a search on the small table, which was
recorded on other rows, by the scores that this search saw), memories (of five such searches), misled (by settings of
the worse half of one). At equal epochs asha is compared with i-Epoch: random settings for i epochs each, then the best
three in full.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import optuna
import tyro

from benchmarks.curve_tables import KINDS, Curves
from benchmarks.record import EVIDENCE, Figure, Record, Target, two_cores
from benchmarks.search_methods import Found, ours, stock, top_of_few
from orchestrator.leaderboard.memory import SHARE, Earlier, portfolio
from orchestrator.search.promotion import KEEP, ROUND, Asha, Rounds
from orchestrator.search.stopping import AshaStopping
from search_spaces.starts import Start

LIMIT = 40  # full runs of epochs that a search may spend
WHEN = {"settled": "epochs until it stays within", "first": "epochs until it is first within"}
MEMORIES = 5
TARGETS = {
    ("asha", "stock"): 0.65,
    ("start", "stock"): 0.45,
    ("memory", "stock"): 0.35,
    ("memories", "stock"): 0.3,
    ("misled", "start"): 1.1,
}
RESAMPLED = 2_000


@dataclass(frozen=True)
class Options:
    """Compare searches on a recorded table."""

    table: str = "cifar10"
    small: str = "cifar10_small"
    """Table that memory comes from."""
    kind: Literal["recorded", "dense"] = "recorded"
    """Both as they were recorded, or made dense by a forest."""
    within: float = 1.0
    """Points to the best that count as found."""
    seeds: int = 50
    slots: tuple[int, ...] = (2, 4, 8)
    evidence: Path = EVIDENCE
    """Folder of the evidence file that is written."""


class Task(NamedTuple):
    """One search to simulate."""

    method: str
    slots: int
    seed: int
    kind: str
    table: str
    small: str
    within: float


def main() -> int:
    options = tyro.cli(Options)
    two_cores()
    record = Record("search_comparison" + ("_dense" if options.kind == "dense" else ""), asdict(options))
    about = options.kind, options.table, options.small, options.within
    reached: dict[str, dict[str, list[list[float]]]] = {when: {name: [] for name in METHODS} for when in WHEN}
    with ProcessPoolExecutor(initializer=without_disk) as pool:
        for slots in options.slots:
            for name in METHODS:
                found = list(pool.map(search, [Task(name, slots, seed, *about) for seed in range(options.seeds)]))
                for when, of_method in reached.items():
                    of_method[name].append([one[when] for one in found])
                record.add(summary(name, slots, found))
    without_disk()
    table = read(options.kind, options.table)
    points = "a point" if options.within == 1 else f"{options.within:g} points"
    pairs = [*((name, "stock") for name in METHODS if name != "stock"), ("misled", "start")]
    figures = [
        Figure(f"{name}: {WHEN[when]} {points}, against {other}: {what}", "", [value], target)
        for when, of_method in reached.items()
        for name, other in pairs
        for what, value, target in ratios(
            of_method[name], of_method[other], TARGETS.get((name, other)), 2.0 * LIMIT * table.max_epochs
        )
    ]
    figures += equal_epochs(table, options)
    return 0 if record.write(options.evidence, figures) else 1


def without_disk() -> None:
    """Have this process flush nothing to a disk, which is no part of this, and keep Optuna quiet."""
    os.fsync = lambda fd: None
    optuna.logging.set_verbosity(optuna.logging.ERROR)


@cache
def read(kind: str, name: str) -> Curves:
    return KINDS[kind](name)


def search(task: Task) -> dict[str, Any]:
    """Run one search; return the epochs until it is near the best, its last regret, and the regret on its way."""
    table = read(task.kind, task.table)
    found = METHODS[task.method](table, read(task.kind, task.small), task.slots, task.seed)
    full = table.max_epochs
    way = {at: found.regret_at(at) for at in range(full, (LIMIT + 1) * full, full)}  # of the picture in docs/search.md
    first, settled = found.epochs_to(task.within), found.epochs_until_settled(task.within)
    return {"first": first, "settled": settled, "regret": found.regret, "way": way}


def summary(method: str, slots: int, found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what the searches of one method with so many slots have found, as the evidence has it."""
    return {
        "method": method,
        "slots": slots,
        **{f"median_{when}": shown(statistics.median(one[when] for one in found)) for when in WHEN},
        **{when: [shown(one[when]) for one in found] for when in WHEN},
        "regret": [round(one["regret"], 4) for one in found],
        "mean_regret": {at: round(statistics.fmean(one["way"][at] for one in found), 4) for at in found[0]["way"]},
    }


def shown(epochs: float) -> float | None:
    return None if epochs == float("inf") else epochs


def ratios(
    ours_: Sequence[Sequence[float]], stocks: Sequence[Sequence[float]], target: float | None, beyond: float
) -> list[tuple[str, float, Target | None]]:
    """Return the ratio of medians over all slots and seeds, with its interval by a bootstrap over seeds.

    What never got there counts as `beyond`.
    """
    generator = np.random.default_rng(0)
    pairs = np.minimum(np.array([ours_, stocks]), beyond)  # [2, slots, seeds]
    drawn = pairs[:, :, generator.integers(0, pairs.shape[2], (RESAMPLED, pairs.shape[2]))]
    medians = np.median(drawn, axis=(1, 3))
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


def searched(table: Curves, rule: Any, trials: int, slots: int, seed: int, sampler: str = "tpe") -> Found:
    setup = {"trials": trials, "sampler": sampler, "seed": seed, "slots": slots}
    return ours(table, rule, setup, LIMIT * table.max_epochs)


def in_rounds(table: Curves, slots: int, seed: int, sampler: str = "tpe") -> Found:
    """Run asha in rounds, as many as fit."""
    return searched(table, Asha(table.max_epochs, 1, 3, Rounds(), table.space), len(table.params), slots, seed, sampler)


@cache
def earlier(small: Curves, seed: int) -> Earlier:
    """Return a search on the small table as memory sees it: its settings by the scores that it saw."""
    table = cold(small)
    found = searched(table, Asha(table.max_epochs, 1, 3, Rounds((2 * ROUND,)), table.space), 2 * ROUND, 4, 1_000 + seed)
    ranked = sorted(found.scores, key=lambda setting: -found.scores[setting])
    points = tuple(table.params[setting] for setting in ranked)
    unnamed: Any = None  # the leaderboard, of which nothing else is looked at
    return Earlier(unnamed, points, table.places[ranked], weight=1.0)


def remembering(table: Curves, slots: int, seed: int, points: Sequence[Start]) -> Found:
    """Run asha in rounds with the space's start points and remembered ones."""
    return in_rounds(begun(table, (*table.space.starts, *points)), slots, seed)


def misleading(small: Curves, seed: int) -> tuple[Start, ...]:
    """Return settings of the worse half of a search on the small table."""
    points = earlier(small, seed).points
    return points[len(points) // 2 :][:POINTS]


Method = Callable[[Curves, Curves, int, int], Found]
POINTS = ROUND // SHARE
METHODS: dict[str, Method] = {
    "stock": lambda table, small, slots, seed: stock(table, len(table.params), slots, seed, LIMIT * table.max_epochs),
    "stock, our rungs": lambda table, small, slots, seed: stock(
        table, len(table.params), slots, seed, LIMIT * table.max_epochs, factor=3
    ),
    "random": lambda table, small, slots, seed: top_of_few(table, LIMIT, table.max_epochs, seed, keep=0),
    "random asha": lambda table, small, slots, seed: in_rounds(cold(table), slots, seed, "random"),
    "stopping": lambda table, small, slots, seed: searched(
        cold(table), AshaStopping(table.max_epochs, 1, 3), len(table.params), slots, seed
    ),
    "asha": lambda table, small, slots, seed: in_rounds(cold(table), slots, seed),
    "start": lambda table, small, slots, seed: in_rounds(table, slots, seed),
    "memory": lambda table, small, slots, seed: remembering(
        table, slots, seed, portfolio([earlier(small, seed)], POINTS)
    ),
    "memories": lambda table, small, slots, seed: remembering(
        table, slots, seed, portfolio([earlier(small, MEMORIES * seed + n) for n in range(MEMORIES)], POINTS)
    ),
    "misled": lambda table, small, slots, seed: remembering(table, slots, seed, misleading(small, seed)),
}
"""Methods by name: from the table, the small one, slots and seed."""


if __name__ == "__main__":
    sys.exit(main())
