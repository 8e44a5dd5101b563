"""The time of a proposal, and what it costs that samplers look at the best and the newest trials alone.

    python -m benchmarks.proposals

TPE proposes points of a space of seven fields, one under a condition; each gets a smooth score with noise. Targets:
at most 8 ms a proposal after 1,000 trials, 12 ms after 10,000 (medians of 50). Beside that, searches of 600 trials with
and without the limit: the mean of the ten best scores, with it minus without it, on the same seeds. The range of scores
that random points have is 1.5.
"""

from __future__ import annotations

import math
import random
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tyro

from benchmarks.record import EVIDENCE, Figure, Record, Target, two_cores
from orchestrator.record.events import TrialEnded, TrialEpoch
from orchestrator.search import window
from orchestrator.search.study import JournalStudy
from search_spaces.space import SearchSpace, choice, log, uniform
from trainables.config import TrialConfig

SPACE = SearchSpace(
    TrialConfig(max_epochs=9),
    {
        "lr": log(1e-4, 1.0),
        "weight_decay": log(1e-6, 1e-1),
        "dropout": uniform(0.0, 0.5),
        "label_smoothing": uniform(0.0, 0.2),
        "train_fraction": uniform(0.5, 1.0),
        "optimizer": choice("sgd", "adamw"),
        "momentum": uniform(0.5, 0.99),
    },
    conditions={"momentum": {"optimizer": ("sgd",)}},
)
NOISE, TIMED, BEST = 0.03, 50, 10


@dataclass(frozen=True)
class Options:
    """Time proposals, and compare searches with and without a limit of what samplers look at."""

    trials: tuple[int, ...] = (1_000, 10_000)
    compared: int = 600
    """Trials of the searches that are compared."""
    seeds: int = 20
    evidence: Path = EVIDENCE
    """Folder of the evidence file that is written."""


def main() -> int:
    options = tyro.cli(Options)
    two_cores()
    record = Record("proposals", asdict(options))
    times, _ = search(max(options.trials), 0)
    found = {count: statistics.median(times[count - TIMED : count]) * 1000 for count in options.trials}
    record.add({"trials": max(options.trials), "ms": found})
    gains = []
    for seed in range(options.seeds):
        (_, limited), (_, whole) = search(options.compared, seed), search(options.compared, seed, sys.maxsize)
        record.add({"seed": seed, "limited": limited, "whole": whole})
        gains.append(limited - whole)
    targets = {1_000: Target(8.0), 10_000: Target(12.0)}
    figures = [Figure(f"a proposal after {n:,} trials", "ms", [ms], targets.get(n)) for n, ms in found.items()]
    figures.append(Figure(f"mean of the {BEST} best of {options.compared} trials, with the limit − without", "", gains))
    return 0 if record.write(options.evidence, figures) else 1


def search(trials: int, seed: int, newest: int = window.NEWEST) -> tuple[list[float], float]:
    """Return the seconds of each proposal, and the mean of the best scores, of a search that looks at the newest so
    many trials beside the best.
    """
    usual, window.NEWEST = window.NEWEST, newest
    study, generator = JournalStudy(SPACE, "tpe", seed, trials=trials, learned_at=1), random.Random(seed)
    times, scores = [], []
    for number in range(trials):
        started = time.perf_counter()
        proposal = study.propose(number)
        times.append(time.perf_counter() - started)
        assert proposal is not None
        scores.append(score(proposal.params))
        seen = scores[-1] + generator.gauss(0, NOISE)
        study.observe(TrialEpoch(number, 0, {"epoch": 1, "val_accuracy": seen}))
        study.observe(TrialEnded(number, 0, "stopped", "asha"))
    window.NEWEST = usual
    return times, statistics.fmean(sorted(scores)[-BEST:])


def score(params: dict[str, Any]) -> float:
    """Return the score of a point, without noise."""
    rate, decay = (math.log10(params[name]) for name in ("lr", "weight_decay"))
    good = 1 - abs(rate + 2) / 4 - abs(decay + 3) / 6 + 0.3 * params["train_fraction"]
    good -= abs(params["dropout"] - 0.2) + abs(params["label_smoothing"] - 0.1)
    return float(good - abs(params["momentum"] - 0.9) / 4 if "momentum" in params else good - 0.05)


if __name__ == "__main__":
    sys.exit(main())
