"""What a first rung says of the end, and what else its epochs could buy: on a recorded table; nothing is trained.

    python -m benchmarks.first_rung digits                       or cifar10: tables of benchmarks/data

A one-cycle schedule shows what a setting is worth only when it anneals: the figures begin with the rank correlation of
the score after some epochs with the final one on other rows, and of the end of a whole schedule of a third of the
epochs. Then the mean regret, in points on other rows, of ways to use such a rung: random settings in full; random
settings to epoch 1, to the end of a third of the epochs, or over a whole short schedule, and the best three in full. On
digits, where the rung says little, at last asha, with the space's start point and cold, at the epochs that so many
trials take, against random settings in full, paired by seeds; on CIFAR-10 benchmarks.search_comparison does that.
"""

from __future__ import annotations

import statistics
import sys
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Literal

import numpy as np
import tyro
from scipy.stats import spearmanr

from benchmarks import curve_tables
from benchmarks.curve_tables import Curves
from benchmarks.record import EVIDENCE, Figure, Record, two_cores
from benchmarks.search_comparison import behind, cold, searched, without_disk
from benchmarks.search_methods import top_of_few, top_of_short
from orchestrator.search.promotion import KEEP, Asha, Rounds

DRAWS = 400  # of random settings
TRIALS = (24, 48)  # of asha


@dataclass(frozen=True)
class Options:
    """Compare ways to use a first rung on a recorded table."""

    table: tyro.conf.Positional[Literal["digits", "cifar10"]]
    seeds: int = 50
    """Searches of each kind that are simulated."""
    evidence: Path = EVIDENCE
    """Folder of the evidence file that is written."""


def main() -> int:
    options = tyro.cli(Options)
    two_cores()
    without_disk()
    record = Record(f"first_rung_{options.table}", asdict(options))
    table = curve_tables.read(options.table)
    figures = [*correlations(table), *ways(table)]
    if options.table == "digits":
        figures += guard(table, options.seeds)
    return 0 if record.write(options.evidence, figures) else 1


def correlations(table: Curves) -> list[Figure]:
    """Return the rank correlations of early scores with the final one on other rows."""
    end, short = table.others[:, -1], table.short
    full = table.max_epochs
    epochs = sorted({1, full // 3, full // 2, full * 3 // 4, full})
    early = {f"epoch {epoch}": table.searched[:, epoch - 1] for epoch in epochs}
    if short is not None:
        early[f"a whole schedule of {short.shape[1]} epochs"] = short[:, -1]
    return [
        Figure(f"rank correlation of {name} with the end", "", [float(spearmanr(scores, end).statistic)])
        for name, scores in early.items()
    ]


def ways(table: Curves) -> list[Figure]:
    """Return the mean regrets of ways to choose among random settings, with the epochs that asha takes for some trials.

    The first rung is at epoch 1, and of the last of these budgets at a third of the epochs.
    """
    full, short = table.max_epochs, table.max_epochs // 3
    budgets = [rule(table, trials, grace).epochs(trials) for trials, grace in ((24, 1), (48, 1), (48, short))]
    figures = []
    for epochs in budgets:
        kinds = {
            "all in full": partial(top_of_few, table, epochs // full, full, keep=0),
            "to epoch 1": partial(top_of_few, table, epochs - KEEP * (full - 1), 1),
            f"to epoch {short}": partial(top_of_few, table, (epochs - KEEP * (full - short)) // short, short),
        }
        if table.short is not None:
            kinds["whole short schedules"] = partial(top_of_short, table, (epochs - KEEP * full) // short)
        for name, way in kinds.items():
            mean = statistics.fmean(way(seed=seed).regret for seed in range(DRAWS))
            figures.append(Figure(f"{epochs} epochs, random settings {name}: mean regret", "points", [mean]))
    return figures


def rule(table: Curves, trials: int, grace: int) -> Asha:
    """Return asha over the table for so many trials, with its first rung after `grace` epochs."""
    return Asha(table.max_epochs, grace, 3, Rounds((trials,), KEEP), table.space)


def guard(table: Curves, seeds: int) -> list[Figure]:
    """Return the regret of asha minus that of random settings in full."""
    figures = []
    for grace, trials in product((1, table.max_epochs // 3), TRIALS):
        asha = rule(table, trials, grace)
        whole = asha.epochs(trials) // table.max_epochs
        theirs = [top_of_few(table, whole, table.max_epochs, seed, 0).regret for seed in range(seeds)]
        for name, of in (("", table), (", cold", cold(table))):
            mine = [searched(of, asha, trials, 2, seed).regret for seed in range(seeds)]
            what = f"regret of asha{name}, {trials} trials, first rung {grace}, minus {whole} random settings in full"
            figures += behind(what, mine, theirs, 0.3 if grace == 1 else None)
            plain = f"regret of asha{name}, {trials} trials, first rung {grace}, {asha.epochs(trials)} epochs"
            figures.append(Figure(plain, "points", [float(np.mean(mine))]))
    return figures


if __name__ == "__main__":
    sys.exit(main())
