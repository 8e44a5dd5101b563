"""Searches where the first rung says little: on the recorded table of digits, at equal epochs; nothing is trained.

    python -m benchmarks.digits_search                    (the table is benchmarks/data/digits.parquet)

A one-cycle schedule shows what a setting is worth only when it anneals: the figures begin with the rank correlation of
the score after some epochs with the final one on other rows, and of the end of a whole schedule of a third of the
epochs. Then the mean regret, in points on other rows, of ways to use such a rung: random settings in full; random
settings to epoch 1, to epoch 3, or over a whole short schedule, and the best three in full. At last asha, with the
space's start point and cold, at the epochs that so many trials take, against random settings in full, paired by seeds.
"""

from __future__ import annotations

import statistics
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

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
BUDGETS = (58, 84, 162)  # epochs: what 24 trials take under asha, 48, and 48 with a first rung at epoch 3


@dataclass(frozen=True)
class Options:
    """Compare searches on the recorded table of digits."""

    seeds: int = 50
    """Searches of each kind that are simulated."""
    evidence: Path = EVIDENCE
    """Folder of the evidence file that is written."""


def main() -> int:
    options = tyro.cli(Options)
    two_cores()
    without_disk()
    record = Record("digits_search", asdict(options))
    table = curve_tables.read("digits")
    figures = [*correlations(table), *ways(table), *guard(table, options.seeds)]
    return 0 if record.write(options.evidence, figures) else 1


def correlations(table: Curves) -> list[Figure]:
    """Return the rank correlations of early scores with the final one on other rows."""
    end, short = table.others[:, -1], table.short
    early = {f"epoch {epoch}": table.searched[:, epoch - 1] for epoch in (1, 3, 5, 7, 9)}
    if short is not None:
        early[f"a whole schedule of {short.shape[1]} epochs"] = short[:, -1]
    return [
        Figure(f"rank correlation of {name} with the end", "", [float(spearmanr(scores, end).statistic)])
        for name, scores in early.items()
    ]


def ways(table: Curves) -> list[Figure]:
    """Return the mean regrets of ways to choose among random settings."""
    full = table.max_epochs
    figures = []
    for epochs in BUDGETS:
        kinds = {
            "all in full": [top_of_few(table, epochs // full, full, seed, 0) for seed in range(DRAWS)],
            "to epoch 1": [top_of_few(table, epochs - KEEP * (full - 1), 1, seed) for seed in range(DRAWS)],
            "to epoch 3": [top_of_few(table, (epochs - KEEP * (full - 3)) // 3, 3, seed) for seed in range(DRAWS)],
            "whole short schedules": [top_of_short(table, (epochs - KEEP * full) // 3, seed) for seed in range(DRAWS)],
        }
        for name, found in kinds.items():
            mean = statistics.fmean(one.regret for one in found)
            figures.append(Figure(f"{epochs} epochs, random settings {name}: mean regret", "points", [mean]))
    return figures


def guard(table: Curves, seeds: int) -> list[Figure]:
    """Return the regret of asha minus that of random settings in full."""
    figures = []
    for trials, grace in ((24, 1), (48, 1), (24, 3), (48, 3)):
        rule = Asha(table.max_epochs, grace, 3, Rounds((trials,), KEEP), table.space)
        whole = rule.epochs(trials) // table.max_epochs
        theirs = [top_of_few(table, whole, table.max_epochs, seed, 0).regret for seed in range(seeds)]
        for name, of in (("", table), (", cold", cold(table))):
            mine = [searched(of, rule, trials, 2, seed).regret for seed in range(seeds)]
            what = f"regret of asha{name}, {trials} trials, first rung {grace}, minus {whole} random settings in full"
            figures += behind(what, mine, theirs, 0.3 if grace == 1 else None)
            plain = f"regret of asha{name}, {trials} trials, first rung {grace}, {rule.epochs(trials)} epochs"
            figures.append(Figure(plain, "points", [float(np.mean(mine))]))
    return figures


if __name__ == "__main__":
    sys.exit(main())
