"""Coverage of the intervals of a confirmed sweep, and the shrinkage of its scores, in a simulation.

    python -m benchmarks.coverage

Nothing is trained; truth is known. Targets: coverage within 95 ± 2 % at S = 3 seeds where the validation set has 1,000
rows. The validation set of digits, 288 rows, of which some four are missed, is there to show what so few rows do; it
has no target.

The model: a run is right on a row if z > 0, with

    z = setting + seed + epoch + √0.80 row + √0.03 row (setting) + √0.16 row (run) + √0.01 row (epoch)

where each `row` is standard normal, drawn anew for what stands in brackets: a run's accuracy over all rows is
Φ(setting + seed + epoch), and two runs err on much the same rows, but not on all. The shares are near those of 24
trainings of ResNet-8 on 360 rows of digits, scored on 1,437 (four settings of learning rate, decay, dropout, smoothing;
six seeds each; last three of 12 epochs): 0.83, 0.01, 0.16 and less than 0.01, as tetrachoric correlations of errors;
more for the setting, as sweeps vary more than these. How much better one seed is than another, over all rows, is the
scenario's: 0.6 points in those trainings, next to nothing after long training on many rows (Jordan 2023, arXiv
2304.01910).

A sweep: as many settings as trials, with the errors of the best possible one times 1 + a number drawn from an
exponential distribution of mean 0.3. Two rungs on the validation set, at which scores know the end in part, let a third
pass. A run's score is the best of its last three epochs on the validation set, in the search as in confirmation. The
best three are confirmed with three seeds each; the winner has the best mean; the bundle is its median run. The first
setting is confirmed too, as one that nobody chose. What is true of a setting's mean on the validation set is taken from
60 further seeds.

* The t interval should hold the setting's mean over all seeds on the validation set. Where three seeds tie there is
  none.
* The prediction interval should hold the test score of one more model of the setting; the bundle's is reported as well.
* Wilson's interval of the bundle's correct test predictions should hold its accuracy over all rows.
* Ties: how often the winner is called better (5 %, adjusted) than a candidate that is at least as good over all rows
  and seeds, of the sweeps in which such a one was beaten.

The winner's scores are followed in points of accuracy: in the search, confirmed on the validation set, over all rows.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import tyro
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from benchmarks.record import EVIDENCE, Figure, Record, Target, two_cores
from orchestrator.assessment.intervals import Correct, Interval, mean_interval, prediction_interval, ties, wilson

ROW, SETTING, RUN, EPOCH = 0.80, 0.03, 0.16, 0.01  # shares of the variance of z
RUNGS = ((-0.5, 0.2), (-0.2, 0.1))  # how far from its end z is there: mean and deviation over settings
LOOKS, CANDIDATES, SEEDS, FURTHER = 3, 3, 3, 60

Floats = NDArray[np.float64]
S = TypeVar("S", bound=Any)


@dataclass(frozen=True)
class Scenario:
    """Trials, rows, the best possible accuracy; deviations between seeds, and between epochs of a run, in points."""

    trials: int
    validation: int
    test: int
    accuracy: float
    seeds: float
    epochs: float = 0.1


SCENARIOS = {
    "digits": Scenario(trials=24, validation=288, test=360, accuracy=0.985, seeds=0.2),
    "steady seeds": Scenario(trials=40, validation=1000, test=1000, accuracy=0.90, seeds=0.1),
    "unsteady seeds": Scenario(trials=40, validation=1000, test=1000, accuracy=0.80, seeds=1.5),
}


@dataclass(frozen=True)
class Options:
    """Simulate the coverage of a sweep's intervals."""

    sweeps: int = 2000
    """Sweeps of each scenario."""
    seed: int = 0
    evidence: Path = EVIDENCE
    """Folder of the evidence file that is written."""


def main() -> int:
    options = tyro.cli(Options)
    two_cores()
    record = Record("coverage", asdict(options))
    add_means(record, options, SCENARIOS, simulated)
    return 0 if record.write(options.evidence, figures(record.runs)) else 1


def add_means(
    record: Record,
    options: Options,
    scenarios: Mapping[str, S],
    simulate: Callable[[S, np.random.Generator], dict[str, float]],
) -> None:
    """Simulate sweeps of each scenario, a dataclass, and add the means of what `simulate` returns to the record."""
    for place, (name, scenario) in enumerate(scenarios.items()):
        random = np.random.default_rng((options.seed, place))
        found = [simulate(scenario, random) for _ in range(options.sweeps)]
        known = {key: [each[key] for each in found if key in each] for key in dict.fromkeys(chain(*found))}
        means = {key: statistics.fmean(values) for key, values in known.items()}
        record.add({"scenario": name, **asdict(scenario), **{key: round(mean, 3) for key, mean in means.items()}})


# One sweep


class Runs(NamedTuple):
    """Results of R runs, each at the best of its last epochs on the validation set."""

    correct: Correct  # [R, N]
    truth: Floats  # [R], accuracy over all rows

    @property
    def scores(self) -> Floats:
        return np.asarray(self.correct.mean(1))


class Setting(NamedTuple):
    """Skill of a setting, Φ⁻¹ of its accuracy over all rows, and what its runs share on validation rows, [N]."""

    skill: float
    rows: NDArray[np.float32]


class Candidate(NamedTuple):
    setting: Setting
    score: float  # of its trial in the search
    runs: Runs  # that confirm it

    @property
    def mean(self) -> float:
        return float(self.runs.scores.mean())


def simulated(scenario: Scenario, random: np.random.Generator) -> dict[str, float]:
    """Simulate one sweep; return 100 for each interval that held, 0 for others, and figures in points of accuracy."""
    settings = drawn(scenario, random)
    searches = [(setting, trained(setting, scenario, 1, random)) for setting in searched(settings, random)]
    searches = sorted(searches, key=lambda found: -found[1].scores[0])[:CANDIDATES]
    candidates = [Candidate(s, float(run.scores[0]), trained(s, scenario, SEEDS, random)) for s, run in searches]
    first, winner = candidates[0], max(candidates, key=lambda candidate: candidate.mean)
    further, unchosen = trained(winner.setting, scenario, FURTHER, random), settings[0]
    beforehand, after = (trained(unchosen, scenario, runs, random) for runs in (SEEDS, FURTHER))
    everywhere = winner.runs.truth.mean()
    best = ndtr(max(setting.skill for setting in settings))
    points = {
        "best of the search, less its confirmed mean": first.score - first.mean,
        "winner in the search, less confirmed": winner.score - winner.mean,
        "winner confirmed, less all seeds on the core": winner.mean - further.scores.mean(),
        "winner confirmed, less over all rows": winner.mean - everywhere,
        "best of the search, less the winner over all rows": first.score - everywhere,
        "the best setting, less the winner, over all rows": best - ndtr(winner.setting.skill),
    }
    return {
        **{f"{name}, unchosen": value for name, value in covered(beforehand, after, scenario, random).items()},
        **{f"{name}, winner": value for name, value in covered(winner.runs, further, scenario, random).items()},
        **false_calls(winner, [candidate for candidate in candidates if candidate is not winner]),
        **{name: 100 * float(value) for name, value in points.items()},
    }


def drawn(scenario: Scenario, random: np.random.Generator) -> list[Setting]:
    errors = (1 - scenario.accuracy) * (1 + random.exponential(0.3, scenario.trials))
    common = math.sqrt(ROW) * random.standard_normal(scenario.validation, np.float32)
    own = math.sqrt(SETTING) * random.standard_normal((scenario.trials, scenario.validation), np.float32)
    return [Setting(-float(ndtri(error)), common + rows) for error, rows in zip(errors, own, strict=True)]


def searched(settings: list[Setting], random: np.random.Generator) -> list[Setting]:
    """Return the settings that pass all rungs, with their scores."""
    for mean, deviation in RUNGS:
        skills = np.array([s.skill for s in settings]) + mean + deviation * random.standard_normal(len(settings))
        known = np.stack([s.rows for s in settings])
        noise = math.sqrt(RUN + EPOCH) * random.standard_normal(known.shape, np.float32)
        scores = (known + noise > -skills[:, None].astype(np.float32)).mean(1)
        settings = [settings[i] for i in np.argsort(-scores, kind="stable")[: math.ceil(len(settings) / 3)]]
    return settings


def trained(setting: Setting, scenario: Scenario, runs: int, random: np.random.Generator) -> Runs:
    density = math.exp(-(setting.skill**2) / 2) / math.sqrt(2 * math.pi)  # of accuracy for skill
    seeds = scenario.seeds / 100 / density * random.standard_normal((runs, 1))
    epochs = scenario.epochs / 100 / density * random.standard_normal((runs, LOOKS))
    skills = setting.skill + seeds + epochs
    of_run = setting.rows + math.sqrt(RUN) * random.standard_normal((runs, len(setting.rows)), np.float32)
    of_epoch = math.sqrt(EPOCH) * random.standard_normal((LOOKS, runs, len(setting.rows)), np.float32)
    correct = of_epoch + of_run > -skills.T[:, :, None].astype(np.float32)
    best = correct.sum(2).argmax(0)
    each = np.arange(runs)
    return Runs(correct[best, each], ndtr(skills[each, best]))


# Its intervals


def covered(runs: Runs, further: Runs, scenario: Scenario, random: np.random.Generator) -> dict[str, float]:
    """Return whether the intervals from `runs` hold the results of `further` runs of the setting, and of the test."""
    bundle = int(np.argsort(runs.scores, kind="stable")[(SEEDS - 1) // 2])
    correct, another = (int(random.binomial(scenario.test, p)) for p in (runs.truth[bundle], further.truth[0]))
    predicted = prediction_interval(runs.correct, scenario.test)
    assert predicted is not None
    mean = mean_interval(runs.scores.tolist())
    found = {} if mean is None else {"t": holds(mean, float(further.scores.mean()))}
    return found | {
        "no t interval": 100.0 * (mean is None),
        "prediction": holds(predicted, another / scenario.test),
        "prediction of the bundle": holds(predicted, correct / scenario.test),
        "Wilson": holds(wilson(correct, scenario.test), float(runs.truth[bundle])),
        "half of the prediction interval": 50 * (predicted.high - predicted.low),
    }


def holds(interval: Interval, value: float) -> float:
    return 100.0 * (interval.low - 1e-12 <= value <= interval.high + 1e-12)  # scores are sums of fractions


def false_calls(winner: Candidate, others: list[Candidate]) -> dict[str, float]:
    """Return how many are tied with the winner, and whether it is called better than one that is no worse."""
    found = ties(winner.runs.correct, [other.runs.correct for other in others])
    called = [tie.adjusted is not None and tie.adjusted < 0.05 for tie in found]
    no_worse = [call for call, o in zip(called, others, strict=True) if o.setting.skill >= winner.setting.skill]
    tied = {"tied with the winner": 100 * (1 - statistics.fmean(called))}
    return tied | ({"false calls": 100.0 * any(no_worse)} if no_worse else {})


def figures(runs: list[dict[str, Any]]) -> list[Figure]:
    """Return distances from 95 % for each interval and scenario, then figures for each scenario."""
    made = []
    for of in ("unchosen", "winner"):
        for name, of_rows in {"1,000 rows": runs[1:], "digits": runs[:1]}.items():
            off = [abs(run[f"{interval}, {of}"] - 95) for run in of_rows for interval in ("t", "prediction", "Wilson")]
            target = Target(2.0, statistic="max") if name != "digits" else None
            made.append(Figure(f"coverage off 95 %, {of}, {name}", "points", off, target))
    called = [run["false calls"] for run in runs]
    made.append(Figure("false calls of a better winner", "%", called, Target(5.0, statistic="max")))
    measured = [key for key in runs[0] if key not in ("scenario", "false calls", *Scenario.__annotations__)]
    return made + [Figure(key, _unit(key), [run[key] for run in runs]) for key in measured]


def _unit(name: str) -> str:
    return "points" if "less" in name or name.startswith("half") else "%"


if __name__ == "__main__":
    sys.exit(main())
