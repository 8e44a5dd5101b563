"""How often the intervals of a confirmed sweep hold what they should, and by how much its scores shrink: simulated.

    python -m benchmarks.coverage

Nothing is trained; truth is known. Targets: coverage within 95 ± 2 %, at S = 3 seeds, in each of the scenarios below.

The model: a run is right on a row if z > 0, with

    z = setting + seed + epoch + √0.70 row + √0.10 row for this setting + √0.12 row for this run + √0.08 row at this epoch

where `row…` are standard normal, so a run's accuracy over all rows is Φ(setting + seed + epoch), and two runs of one
setting err on much the same rows, but not on all: at 10,000 rows and an accuracy of 0.77 seeds then differ by 0.29
points in deviation without being better or worse; `cifar10_resnet18` has 0.21 over three seeds. How much better one
seed is than another is the scenario's. (Jordan 2023, arXiv 2304.01910, finds next to nothing after long training.)

A sweep: 64 settings, whose errors are the best one's times 1 + a number drawn from an exponential distribution of mean
0.3. Halving on the core lets 22 and then 8 of them pass, at scores that know the end in part. A run's score is the best
of its last three epochs on the core, in the search as in confirmation. The best three are confirmed with three seeds
each; the winner has the best mean; the bundle is its median run. The first of the 64 settings is confirmed too, as one
that nobody chose. What is true of a setting's mean on the core is taken from 60 further seeds.

* The t interval should hold the setting's mean over all seeds on the core.
* The prediction interval should hold the test score of one more model of the setting. The bundle, whose core score is
  in the interval, is inside more often: no target.
* Wilson's interval of the bundle's test hits should hold its accuracy over all rows.
* Ties: how often the winner is called better (5 %, adjusted) than a candidate that is at least as good over all rows
  and seeds, of the sweeps in which such a one was beaten.

The winner's scores are followed in points of accuracy: in the search, confirmed on the core, over all rows.
"""

from __future__ import annotations

import math
import statistics
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tyro
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from benchmarks.record import EVIDENCE, Figure, Record, Target, two_cores
from orchestrator.intervals import Hits, Interval, mean_interval, prediction_interval, ties, wilson

ROW, SETTING, RUN, EPOCH = 0.70, 0.10, 0.12, 0.08  # shares of the variance of z
SETTINGS, RUNGS = 64, ((22, -0.5, 0.2), (8, -0.2, 0.1))  # that pass; how far from the end z is there: mean, deviation
LOOKS, CANDIDATES, SEEDS, FURTHER = 3, 3, 3, 60
TARGET = Target(2.0, statistic="max")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scenario:
    """Rows, the best setting's accuracy, and deviations between seeds and between a run's epochs, in points."""

    core: int
    test: int
    accuracy: float
    seeds: float
    epochs: float = 0.1


SCENARIOS = {
    "digits": Scenario(core=288, test=360, accuracy=0.985, seeds=0.2),
    "steady seeds": Scenario(core=1000, test=1000, accuracy=0.90, seeds=0.1),
    "unsteady seeds": Scenario(core=1000, test=1000, accuracy=0.80, seeds=1.5),
}


@dataclass(frozen=True)
class Options:
    """Coverage of a sweep's intervals."""

    sweeps: int = 2000
    """Of each scenario."""
    seed: int = 0
    evidence: Path = EVIDENCE


def main() -> int:
    options = tyro.cli(Options)
    two_cores()
    record = Record("coverage", asdict(options))
    for place, (name, scenario) in enumerate(SCENARIOS.items()):
        random = np.random.default_rng((options.seed, place))
        found = [simulated(scenario, random) for _ in range(options.sweeps)]
        means = {key: statistics.fmean(known) for key in found[0] if (known := [s[key] for s in found if key in s])}
        record.add({"scenario": name, **asdict(scenario), **{key: round(mean, 3) for key, mean in means.items()}})
    return 0 if record.write(options.evidence, figures(record.runs)) else 1


# One sweep


class Runs(NamedTuple):
    """Of R runs, at the best of each one's last epochs on the core."""

    hits: Hits  # [R, N]
    truth: Floats  # [R], accuracy over all rows

    @property
    def scores(self) -> Floats:
        return self.hits.mean(1)


class Setting(NamedTuple):
    """Its skill, Φ⁻¹ of its accuracy over all rows, and what its runs have in common on the core's rows, [N]."""

    skill: float
    rows: NDArray[np.float32]


def simulated(scenario: Scenario, random: np.random.Generator) -> dict[str, float]:
    """Figures of one sweep: 100 for an interval that held, 0 for one that did not; points of accuracy for the others."""
    settings = drawn(scenario, random)
    finalists = searched(settings, random)
    found = [trained(setting, scenario, 1, random) for setting in finalists]
    first = sorted(range(len(finalists)), key=lambda i: -found[i].scores[0])[:CANDIDATES]
    confirmed = [trained(finalists[i], scenario, SEEDS, random) for i in first]
    ranked = sorted(range(CANDIDATES), key=lambda k: -confirmed[k].scores.mean())
    winner, runs = finalists[first[ranked[0]]], confirmed[ranked[0]]
    further = trained(winner, scenario, FURTHER, random)
    unchosen = covered(
        trained(settings[0], scenario, SEEDS, random), trained(settings[0], scenario, FURTHER, random), scenario, random
    )
    score, mean = found[first[ranked[0]]].scores[0], runs.scores.mean()
    return {
        **{f"{name}, unchosen": value for name, value in unchosen.items()},
        **{f"{name}, winner": value for name, value in covered(runs, further, scenario, random).items()},
        **false_calls(ranked, [finalists[i].skill for i in first], [each.hits for each in confirmed]),
        "search to confirmed": 100 * (score - mean),
        "confirmed to all seeds": 100 * (mean - further.scores.mean()),
        "confirmed to all rows": 100 * (mean - runs.truth.mean()),
        "lost to the best setting": 100 * float(ndtr(max(s.skill for s in settings)) - ndtr(winner.skill)),
    }


def drawn(scenario: Scenario, random: np.random.Generator) -> list[Setting]:
    errors = (1 - scenario.accuracy) * (1 + random.exponential(0.3, SETTINGS))
    common = math.sqrt(ROW) * random.standard_normal(scenario.core, np.float32)
    own = math.sqrt(SETTING) * random.standard_normal((SETTINGS, scenario.core), np.float32)
    return [Setting(-float(ndtri(error)), common + rows) for error, rows in zip(errors, own, strict=True)]


def searched(settings: list[Setting], random: np.random.Generator) -> list[Setting]:
    """Those that pass all rungs."""
    for passing, mean, deviation in RUNGS:
        skills = np.array([s.skill for s in settings]) + mean + deviation * random.standard_normal(len(settings))
        known = np.stack([s.rows for s in settings])
        noise = math.sqrt(RUN + EPOCH) * random.standard_normal(known.shape, np.float32)
        scores = (known + noise > -skills[:, None].astype(np.float32)).mean(1)
        settings = [settings[i] for i in np.argsort(-scores, kind="stable")[:passing]]
    return settings


def trained(setting: Setting, scenario: Scenario, runs: int, random: np.random.Generator) -> Runs:
    density = math.exp(-(setting.skill**2) / 2) / math.sqrt(2 * math.pi)  # of accuracy for skill
    seeds = scenario.seeds / 100 / density * random.standard_normal((runs, 1))
    epochs = scenario.epochs / 100 / density * random.standard_normal((runs, LOOKS))
    skills = setting.skill + seeds + epochs
    of_run = setting.rows + math.sqrt(RUN) * random.standard_normal((runs, len(setting.rows)), np.float32)
    of_epoch = math.sqrt(EPOCH) * random.standard_normal((LOOKS, runs, len(setting.rows)), np.float32)
    hits = of_epoch + of_run > -skills.T[:, :, None].astype(np.float32)
    best = hits.sum(2).argmax(0)
    each = np.arange(runs)
    return Runs(hits[best, each], ndtr(skills[each, best]))


# What is asked of it


def covered(runs: Runs, further: Runs, scenario: Scenario, random: np.random.Generator) -> dict[str, float]:
    """Whether the intervals from `runs` hold what `further` runs of the same setting, and the test, come to."""
    bundle = int(np.argsort(runs.scores, kind="stable")[(SEEDS - 1) // 2])
    hits, another = (int(random.binomial(scenario.test, p)) for p in (runs.truth[bundle], further.truth[0]))
    predicted = prediction_interval(runs.hits, scenario.test)
    return {
        "t": holds(mean_interval(runs.scores.tolist()), float(further.scores.mean())),
        "prediction": holds(predicted, another / scenario.test),
        "prediction of the bundle": holds(predicted, hits / scenario.test),
        "Wilson": holds(wilson(hits, scenario.test), float(runs.truth[bundle])),
        "half of the prediction interval": 50 * (predicted.high - predicted.low) if predicted else math.nan,
    }


def holds(interval: Interval | None, value: float) -> float:
    assert interval is not None
    return 100.0 * (interval.low - 1e-12 <= value <= interval.high + 1e-12)  # scores are sums of fractions


def false_calls(ranked: list[int], skills: list[float], hits: list[Hits]) -> dict[str, float]:
    """Of a sweep in which the winner beat a candidate of no less skill: whether it was called better than such a one."""
    best, *others = ranked
    called = [tie.adjusted is not None and tie.adjusted < 0.05 for tie in ties(hits[best], [hits[k] for k in others])]
    wrong = [call for k, call in zip(others, called, strict=True) if skills[k] >= skills[best]]
    tied = {"tied with the winner": 100 * (1 - statistics.fmean(called))}
    return tied | ({"false calls": 100.0 * any(wrong)} if wrong else {})


def figures(runs: list[dict[str, Any]]) -> list[Figure]:
    """A value a scenario, each."""
    made = []
    for of in ("unchosen", "winner"):
        for name in ("t", "prediction", "Wilson"):
            off = [abs(run[f"{name}, {of}"] - 95) for run in runs]
            made.append(Figure(f"{name} interval, {of}: coverage off 95 %", "points", off, TARGET))
    made.append(Figure("false calls of a better winner", "%", [run["false calls"] for run in runs], Target(5.0, statistic="max")))
    plain = [key for key in runs[0] if isinstance(runs[0][key], float) and key not in Scenario.__annotations__]
    return made + [Figure(key, "" if key == "" else "points", [run[key] for run in runs]) for key in plain]


if __name__ == "__main__":
    sys.exit(main())
