"""Coverage of the intervals on uneven and small data, with a validation set and with folds, in a simulation.

    python -m benchmarks.uneven_coverage

Nothing is trained; truth is known. Targets: the winner's prediction interval holds the test score in 95 ± 2 % of the
sweeps over 16 uneven classes in 800 rows, and over 3 classes in 150 rows, with the folds that `--folds auto` takes.
Without a target beside them: the same with a validation set, and with the former one of ten rows a class.

The model is that of `benchmarks.coverage`, with classes: a run is right on a row of class c if z + e(c) > 0. Classes
shrink geometrically; e(c) has deviation `hardness`, half of its variance by the logarithm of the class's size (rare
classes are harder) and half by chance. Rows are drawn as the product draws them. With folds, half the variance between
seeds is common to the models of a seed, half particular to each; in addition the models of a setting differ by the rows
that they train on, by `data` points. The best of three epochs is taken for all folds together.

A sweep: settings as in `benchmarks.coverage`, each run once to its end; the best three are confirmed with three seeds;
the winner has the best mean; the bundle is the first fold's model of its median run.

Beside these, sweeps over four even classes compare what a sweep gains by folds: with as many trials, and with a fifth
of them, which takes as long as one validation set.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
import tyro
from numpy.typing import NDArray
from scipy.special import ndtr

from benchmarks import coverage
from benchmarks.coverage import CANDIDATES, EPOCH, LOOKS, ROW, RUN, SEEDS, SETTING, holds
from benchmarks.record import Figure, Record, Target, two_cores
from orchestrator.assessment.intervals import Correct, prediction_interval, wilson
from trainables.splits import FOLDS, validation_counts
from trainables.strata import Rows, apportion

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scenario:
    """Rows of a data set, its classes, and the size of each class by that of the last larger one; points as there."""

    rows: int
    classes: int
    ratio: float
    folds: int
    trials: int = 24
    accuracy: float = 0.8
    seeds: float = 1.0
    data: float = 0.7
    epochs: float = 0.5
    hardness: float = 0.5
    least: int = 1  # rows of each class in the validation set


UNEVEN = partial(Scenario, rows=800, classes=16, ratio=0.72)
SMALL = partial(Scenario, rows=150, classes=3, ratio=0.6, seeds=2.0)
SCENARIOS = {
    "16 classes, 800 rows, folds": UNEVEN(folds=FOLDS),
    "3 classes, 150 rows, folds": SMALL(folds=FOLDS),
    "16 classes, 800 rows, validation set": UNEVEN(folds=1),
    "3 classes, 150 rows, validation set": SMALL(folds=1),
    "16 classes, 800 rows, ten rows a class": UNEVEN(folds=1, least=10),
    **{
        f"{rows} rows, {trials} trials, {'folds' if folds > 1 else 'validation set'}": Scenario(
            rows=rows, classes=4, ratio=1.0, folds=folds, trials=trials
        )
        for rows in (250, 500, 1000, 2000)
        for folds, trials in ((1, 30), (FOLDS, 30), (FOLDS, 6))
    },
}
JUDGED = 2  # scenarios with targets, the first ones


@dataclass(frozen=True)
class Options(coverage.Options):
    """Simulate the coverage of a sweep's intervals on uneven and small data."""


def main() -> int:
    options = tyro.cli(Options)
    two_cores()
    record = Record("uneven_coverage", asdict(options))
    coverage.add_means(record, options, SCENARIOS, simulated)
    return 0 if record.write(options.evidence, figures(record.runs)) else 1


class World(NamedTuple):
    """The rows of a data set, as the product draws them."""

    shares: Floats  # of each class in the whole
    test: Rows  # rows of each class
    labels: Rows  # [N] of the scored rows, fold after fold
    fold: Rows  # [N]

    @classmethod
    @cache
    def of(cls, scenario: Scenario) -> World:
        sizes = scenario.ratio ** np.arange(scenario.classes)
        counts = np.maximum(np.rint(sizes / sizes.sum() * scenario.rows), 3).astype(np.int64)
        counts[0] += scenario.rows - counts.sum()
        total = max(round(0.2 * scenario.rows), scenario.classes)
        test = apportion(total, counts, np.ones_like(counts), counts - 2)
        scored = counts - test if scenario.folds > 1 else validation_counts(counts - test, scenario.least)
        labels = np.repeat(np.arange(scenario.classes), scored)
        order = np.concatenate([np.arange(fold, len(labels), scenario.folds) for fold in range(scenario.folds)])
        return cls(counts / counts.sum(), test, labels[order], order % scenario.folds)


class Setting(NamedTuple):
    """A setting: the accuracy over all rows of a model of some skill, what its runs share on scored rows, its folds."""

    accuracy: Callable[[Floats], Floats]
    by_class: Callable[[float], Floats]  # the same, of each class
    density: float  # of accuracy for skill
    skill: float
    rows: Floats  # [N]
    folds: Floats  # [K], how much better a model is for the rows that it trains on


class Runs(NamedTuple):
    correct: Correct  # [R, N]
    skill: Floats  # [R], of the first fold's model

    @property
    def scores(self) -> Floats:
        return np.asarray(self.correct.mean(1))


def drawn(scenario: Scenario, world: World, random: np.random.Generator) -> list[Setting]:
    """Return the settings of a sweep, over classes that are harder and easier."""
    sizes = np.log(world.shares)
    by_size = (sizes - sizes.mean()) / (sizes.std() or 1.0)
    effects = scenario.hardness * math.sqrt(0.5) * (by_size + random.standard_normal(scenario.classes))
    grid = np.linspace(-4, 6, 2001)
    accuracies = ndtr(grid[:, None] + effects) @ world.shares
    errors = (1 - scenario.accuracy) * (1 + random.exponential(0.3, scenario.trials))
    common = math.sqrt(ROW) * random.standard_normal(len(world.labels)) + effects[world.labels]
    found = []
    for skill in np.interp(1 - errors, accuracies, grid):
        density = float(np.exp(-((skill + effects) ** 2) / 2) @ world.shares) / math.sqrt(2 * math.pi)
        rows = common + math.sqrt(SETTING) * random.standard_normal(len(common))
        folds = scenario.data / 100 / density * random.standard_normal(scenario.folds) * (scenario.folds > 1)
        found.append(
            Setting(
                lambda skills: np.interp(skills, grid, accuracies),
                lambda skill: np.asarray(ndtr(skill + effects)),
                density,
                float(skill),
                rows,
                folds,
            )
        )
    return found


def trained(setting: Setting, scenario: Scenario, world: World, runs: int, random: np.random.Generator) -> Runs:
    """Return `runs` runs of a setting, each at the best of its last epochs on the scored rows."""
    point, folds, rows = 0.01 / setting.density, scenario.folds, len(world.labels)
    particular = 0.5 if folds > 1 else 0.0  # of the variance between seeds
    seeds = math.sqrt(1 - particular) * random.standard_normal((runs, 1, 1))
    seeds = scenario.seeds * point * (seeds + math.sqrt(particular) * random.standard_normal((runs, 1, folds)))
    epochs = scenario.epochs * point * random.standard_normal((runs, LOOKS, 1))
    skills = setting.skill + setting.folds + seeds + epochs
    z = setting.rows + math.sqrt(RUN) * random.standard_normal((runs, 1, rows))
    z = z + math.sqrt(EPOCH) * random.standard_normal((runs, LOOKS, rows)) + skills[:, :, world.fold]
    correct, each = z > 0, np.arange(runs)
    best = correct.sum(2).argmax(1)
    return Runs(correct[each, best], skills[each, best, 0])


def simulated(scenario: Scenario, random: np.random.Generator) -> dict[str, float]:
    """Simulate one sweep; return 100 for each interval that held, 0 for others, and figures in points of accuracy."""
    world = World.of(scenario)
    settings = drawn(scenario, world, random)
    searched = [(trained(setting, scenario, world, 1, random), setting) for setting in settings]
    best = sorted(searched, key=lambda found: -found[0].scores[0])[:CANDIDATES]
    confirmed = [(trained(setting, scenario, world, SEEDS, random), setting) for _, setting in best]
    runs, winner = max(confirmed, key=lambda found: found[0].scores.mean())
    truth = float(winner.accuracy(np.array([winner.skill]))[0])
    best_truth = max(float(setting.accuracy(np.array([setting.skill]))[0]) for setting in settings)
    return {
        **covered(
            trained(settings[0], scenario, world, SEEDS, random), settings[0], scenario, world, "unchosen", random
        ),
        **covered(runs, winner, scenario, world, "winner", random),
        "the winner, over all rows": 100 * truth,
        "winner confirmed, less over all rows": 100 * (float(runs.scores.mean()) - truth),
        "the best setting, less the winner, over all rows": 100 * (best_truth - truth),
    }


def covered(
    runs: Runs, setting: Setting, scenario: Scenario, world: World, name: str, random: np.random.Generator
) -> dict[str, float]:
    """Return whether the prediction interval from `runs` holds the test scores of one more model, and of the bundle."""
    rows = int(world.test.sum())
    bundle = float(runs.skill[np.argsort(runs.scores, kind="stable")[(SEEDS - 1) // 2]])
    another = float(trained(setting, scenario, world, 1, random).skill[0])
    tests = [int(random.binomial(world.test, setting.by_class(skill)).sum()) for skill in (another, bundle)]
    predicted = prediction_interval(runs.correct, rows, folds=scenario.folds)
    assert predicted is not None
    return {
        f"prediction, {name}": holds(predicted, tests[0] / rows),
        f"prediction of the bundle, {name}": holds(predicted, tests[1] / rows),
        f"Wilson, {name}": holds(wilson(tests[1], rows), float(setting.accuracy(np.array([bundle]))[0])),
        f"half of the prediction interval, {name}": 50 * (predicted.high - predicted.low),
    }


def figures(runs: list[dict[str, Any]]) -> list[Figure]:
    """Return the distances from 95 % that have targets, then all figures, by scenario in their order."""
    judged = [abs(run["prediction, winner"] - 95) for run in runs[:JUDGED]]
    made = [
        Figure("coverage of the winner's prediction off 95 %, folds", "points", judged, Target(2.0, statistic="max"))
    ]
    keys = [key for key in runs[0] if key != "scenario" and key not in Scenario.__annotations__]
    return made + [
        Figure(key, "points" if "less" in key or key.startswith("half") else "%", [run[key] for run in runs])
        for key in keys
    ]


if __name__ == "__main__":
    sys.exit(main())
