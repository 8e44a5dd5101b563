"""A searched split against one validation set for all trials: how often each picks the best trial, in a simulation.

    python -m benchmarks.naive_split

A sweep searches settings and the share of rows to train on. Nothing is trained; truth is known.

* Naive: a share r of all n rows is trained on, uniform from 0.5 to 0.9, and the trial is scored on the rows that are
  left. Either each trial shuffles the rows with its own seed, or all share one order, and the rows that they are scored
  on overlap as far as they can.
* One validation set: the last 20 % of that order score every trial, and a trial trains on the fraction r / 0.9 of the
  others.

The learning curve: a setting trained on m of n rows has the error 0.1 (1 + a) (m / n)^-b over all rows, a power law
(Hestness et al. 2017, arXiv 1712.00409) with a exponential of mean 0.3 and b uniform from 0.2 to 0.4. A trial is right
on a row as in `benchmarks/coverage.py`, with seeds that differ by 0.2 points, and errs on the same rows in
all ways. Each way takes the trial with the best score.

Reported for each: how often that is its truly best trial, over all rows and seeds; how many points of accuracy it is
short of that one (regret); by how much its score is above its accuracy; and that accuracy, which is the price of a
validation set: 20 % of the rows are never trained on, so the naive way's trials are a little better. Each way is
compared with its own best trial."""

from __future__ import annotations

import math
import statistics
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from scipy.special import ndtr, ndtri

from benchmarks.coverage import EPOCH, ROW, RUN, SETTING, Floats
from benchmarks.record import EVIDENCE, Figure, Record, Target, two_cores

ROWS = (1_000, 5_000, 20_000)
ERROR, SPREAD, EXPONENTS, SEEDS = 0.1, 0.3, (0.2, 0.4), 0.002
SHARES, CORE = (0.5, 0.9), 0.2
WAYS = ("naive, shuffled", "naive, one order", "one core")


@dataclass(frozen=True)
class Options:
    """Simulate a searched split and one validation set for all trials."""

    sweeps: int = 1500
    """Sweeps of each number of rows."""
    trials: int = 40
    seed: int = 0
    evidence: Path = EVIDENCE
    """Folder of the evidence file that is written."""


def main() -> int:
    options = tyro.cli(Options)
    two_cores()
    record = Record("naive_split", asdict(options))
    for rows in ROWS:
        random = np.random.default_rng((options.seed, rows))
        found = [simulated(rows, options.trials, random) for _ in range(options.sweeps)]
        for way in WAYS:
            means = {name: round(statistics.fmean(sweep[way][name] for sweep in found), 3) for name in found[0][way]}
            record.add({"rows": rows, "way": way, **means})
    return 0 if record.write(options.evidence, figures(record.runs)) else 1


def simulated(rows: int, trials: int, random: np.random.Generator) -> dict[str, dict[str, float]]:
    """Simulate one sweep in all ways, and return what the trial that each picks is worth, in % and points."""
    errors = ERROR * (1 + random.exponential(SPREAD, trials))
    exponents, shares = random.uniform(*EXPONENTS, trials), random.uniform(*SHARES, trials)
    luck = math.sqrt(SETTING + RUN + EPOCH) * random.standard_normal((trials, rows), np.float32)
    luck += math.sqrt(ROW) * random.standard_normal(rows, np.float32)
    density = math.exp(-(float(ndtri(ERROR)) ** 2) / 2) / math.sqrt(2 * math.pi)
    seeds = SEEDS / density * random.standard_normal(trials)
    cut, validation = (1 - np.round(shares * rows) / rows), np.full(trials, CORE)
    found = {}
    for way, trained, scored in zip(
        WAYS, (shares, shares, shares / SHARES[1] * (1 - CORE)), (cut, cut, validation), strict=True
    ):
        skills = -ndtri(errors * trained**-exponents)
        right = luck > -(skills + seeds)[:, None].astype(np.float32)
        if way == "naive, shuffled":
            right = random.permuted(right, axis=1)
        scores = np.array([correct[-round(part * rows) :].mean() for correct, part in zip(right, scored, strict=True)])
        found[way] = worth(scores, ndtr(skills), scored)
    return found


def worth(scores: Floats, truth: Floats, scored: Floats) -> dict[str, float]:
    """Return figures of the trial with the best score."""
    pick = int(scores.argmax())
    return {
        "picked the best": 100.0 * (truth[pick] == truth.max()),
        "regret": 100 * float(truth.max() - truth[pick]),
        "score above accuracy": 100 * float(scores[pick] - truth[pick]),
        "accuracy": 100 * float(truth[pick]),
        "scored on": 100 * float(scored[pick]),
    }


def figures(runs: list[dict[str, Any]]) -> list[Figure]:
    """Return figures with a value for each number of rows."""
    shuffled, ordered, validation = ([run for run in runs if run["way"] == way] for way in WAYS)
    made = []
    for naive, name in ((shuffled, WAYS[0]), (ordered, WAYS[1])):
        more = [
            ours["picked the best"] - theirs["picked the best"] for ours, theirs in zip(validation, naive, strict=True)
        ]
        made.append(Figure(f"best trial picked, one core less {name}", "points", more, Target(0.0, at_most=False)))
    for name in ("picked the best", "regret", "score above accuracy", "accuracy", "scored on"):
        unit = "points" if name in ("regret", "score above accuracy") else "%"
        made += [
            Figure(f"{name}, {found[0]['way']}", unit, [run[name] for run in found])
            for found in (shuffled, ordered, validation)
        ]
    return made


if __name__ == "__main__":
    sys.exit(main())
