"""How often a search goes back to settings that cannot train; nothing is trained.

    python -m benchmarks.infeasible

A sweep's own study proposes 40 trials one after the other, of which the first 10 are random. Counted are those after
them that cannot train. The spaces:

* `model`: one model of three is out of memory; of the other two one is better by 0.02;
* `cliff`: `lr` from 1e-4 to 10 diverges above 1, a fifth of its range in the logarithm; its optimum is half a decade
  below the cliff;
* `rare`: the same with the cliff at 0.0004: seven eighths of the range diverge.

All have a dropout as well. Scores have a noise of 0.005, as between seeds. The `before` is the same study with trials
that end as errors do, of which a sampler hears nothing: what revision 3c12543 reported of settings that cannot train.
"""

from __future__ import annotations

import math
import random
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from benchmarks.record import EVIDENCE, Figure, Record, Target
from orchestrator.record.events import TrialEnded, TrialEpoch, TrialProposed
from orchestrator.search.study import JournalStudy
from search_spaces.space import SearchSpace, choice, log, uniform
from trainables.config import TrialConfig

RANDOM = 10  # proposals before TPE begins
NOISE = 0.005  # standard deviation of a score


@dataclass(frozen=True)
class Options:
    """Count the proposals that cannot train."""

    trials: int = 40
    seeds: int = 8
    sampler: str = "tpe"
    evidence: Path = EVIDENCE
    """Folder of the evidence file that is written."""


@dataclass(frozen=True)
class Landscape:
    """A search space, how its trials end that cannot train, which those are, and the mean score of all others."""

    space: SearchSpace
    end: tuple[str, str]  # status and stop reason
    fails: Callable[[dict[str, Any]], bool]
    score: Callable[[dict[str, Any]], float]
    most: float | None  # share of proposals that may fail


def _away(params: dict[str, Any], best_lr: float) -> float:
    """Return what a distance from the best learning rate and dropout costs."""
    return float(0.05 * abs(math.log10(params["lr"] / best_lr)) + 0.1 * abs(params["dropout"] - 0.2))


def _cliff(edge: float, most: float | None) -> Landscape:
    space = SearchSpace(TrialConfig(), {"lr": log(1e-4, 10.0), "dropout": uniform(0.0, 0.5)})
    best = edge / math.sqrt(10)
    return Landscape(
        space,
        ("diverged", "not_finite"),
        lambda params: bool(params["lr"] > edge),
        lambda params: 0.9 - _away(params, best),
        most,
    )


MODELS = SearchSpace(
    TrialConfig(),
    {"model": choice("resnet8", "resnet14", "resnet20"), "lr": log(1e-3, 1.0), "dropout": uniform(0.0, 0.5)},
)
LANDSCAPES = {
    "model": Landscape(
        MODELS,
        ("failed", "out_of_memory"),
        lambda params: bool(params["model"] == "resnet20"),
        lambda params: 0.88 + 0.02 * (params["model"] == "resnet14") - _away(params, 0.1),
        0.15,
    ),
    "cliff": _cliff(1.0, 0.25),
    "rare": _cliff(0.0004, None),
}


def main() -> int:
    options = tyro.cli(Options)
    record = Record("infeasible", vars(options))
    figures = []
    for name, landscape in LANDSCAPES.items():
        for taught in (True, False):
            end = landscape.end if taught else ("failed", "error")
            found = [_search(landscape, end, seed, options) for seed in range(options.seeds)]
            shares, bests = [share for share, _ in found], [best for _, best in found if best is not None]
            case = name if taught else f"{name}, before"
            record.add({"case": case, "shares": shares, "bests": bests})
            bound = landscape.most if taught else None
            target = None if bound is None else Target(bound, statistic="mean")
            figures.append(Figure(f"proposals that cannot train ({case})", "", shares, target))
            figures.append(Figure(f"best mean score ({case})", "", bests))
            print(f"{case}: {100 * statistics.mean(shares):.1f} % fail, best {statistics.mean(bests):.4f}")
    return 0 if record.write(options.evidence, figures) else 1


def _search(landscape: Landscape, end: tuple[str, str], seed: int, options: Options) -> tuple[float, float | None]:
    """Return the share of the proposals after the random ones that cannot train, and the best mean score; None if none
    could.
    """
    fate = random.Random(seed)
    study = JournalStudy(landscape.space, options.sampler, seed, trials=options.trials)
    failed, best = [], None
    for number in range(options.trials):
        proposal = study.propose(number)
        if proposal is None:
            raise ValueError(f"{options.sampler} proposes no more than {number} trials here")
        params = proposal.params
        study.observe(TrialProposed(number, params, {}))
        failed.append(landscape.fails(params))
        if not failed[-1]:
            score = landscape.score(params)
            best = score if best is None else max(best, score)
            metrics = {"epoch": 1, "val_accuracy": score + fate.gauss(0, NOISE)}
            study.observe(TrialEpoch(number, 0, metrics))
        study.observe(TrialEnded(number, 0, *(end if failed[-1] else ("completed", "budget"))))
    return statistics.mean(failed[RANDOM:]), best


if __name__ == "__main__":
    sys.exit(main())
