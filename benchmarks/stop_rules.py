"""What the stop rules run and find, beside Ray Tune's own; nothing is trained.

    python -m benchmarks.stop_rules

80 trials of at most 27 epochs run on 8 slots, every result in its turn, with rungs from epoch 1 on and factor 3. A
trial's accuracy after epoch e is a·(1 − exp(−e/t)) with noise of 0.01, where a is drawn from 0.6 to 0.9 and t from 1 to
6 epochs: what learns fast is not always what ends best. Ray's rules see the same trials with the settings that are
nearest: AsyncHyperBandScheduler with one bracket and with four, MedianStoppingRule from epoch 1 on with 5 trials.

Reported are the epochs run, the trials that ran in full, the share of the epochs of each bracket of Hyperband, and by
how much the best trial that ran in full is worse than the best of all.
"""

from __future__ import annotations

import math
import random
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tyro
from ray.tune.schedulers import AsyncHyperBandScheduler, MedianStoppingRule, TrialScheduler

from benchmarks.record import EVIDENCE, Figure, Record, Target
from orchestrator.record.events import Event, TrialAttempt, TrialEpoch, TrialProposed
from orchestrator.record.state import SweepState, fold
from orchestrator.search.schedulers import StopRule, stop_rule
from orchestrator.search.stopping import AshaStopping
from search_spaces.space import SearchSpace
from trainables.config import TrialConfig

EPOCHS, FACTOR, NOISE = 27, 3, 0.01
SETTINGS: dict[str, Any] = {"time_attr": "epoch", "metric": "val_accuracy", "mode": "max"}


@dataclass(frozen=True)
class Options:
    """Count what stop rules run."""

    trials: int = 80
    slots: int = 8
    seeds: int = 20
    evidence: Path = EVIDENCE
    """Folder of the evidence file that is written."""


class RayTrial(NamedTuple):
    """The parts of Tune's trial that its schedulers look at."""

    trial_id: str

    def is_finished(self) -> bool:
        return False

    def get_live_trials(self) -> list[Any]:
        return []


class Ours:
    """A rule of this project over the folded state."""

    def __init__(self, name: str) -> None:
        self.rule: StopRule = stop_rule(name, SearchSpace(TrialConfig(max_epochs=EPOCHS)), 1, FACTOR)
        self._state = SweepState()
        self._config = TrialConfig().to_dict()

    def begin(self, trial: int) -> None:
        self._fold(TrialProposed(trial, {}, self._config))
        self._fold(TrialAttempt(trial, 0))

    def stops(self, trial: int, epoch: int, value: float) -> bool:
        record, metrics = self._state.trials[trial], {"epoch": epoch, "val_accuracy": value}
        stops = self.rule.stops(self._state, record, epoch, record.score_with(metrics))
        self._fold(TrialEpoch(trial, 0, metrics))
        return stops and epoch < EPOCHS

    def _fold(self, event: Event) -> None:
        fold(self._state, replace(event, n=self._state.next_n))


class Rays:
    """A scheduler of Ray Tune."""

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler

    def begin(self, trial: int) -> None:
        self._scheduler.on_trial_add(None, RayTrial(str(trial)))

    def stops(self, trial: int, epoch: int, value: float) -> bool:
        ray_trial = RayTrial(str(trial))
        decision = self._scheduler.on_trial_result(ray_trial, ray_trial, {"epoch": epoch, "val_accuracy": value})
        return bool(decision == TrialScheduler.STOP) and epoch < EPOCHS


RULES: dict[str, Callable[[], Ours | Rays]] = {
    "asha-stopping": lambda: Ours("asha-stopping"),
    "asha of Ray": lambda: Rays(
        AsyncHyperBandScheduler(max_t=EPOCHS, grace_period=1, reduction_factor=FACTOR, **SETTINGS)
    ),
    "hyperband": lambda: Ours("hyperband"),
    "hyperband of Ray": lambda: Rays(
        AsyncHyperBandScheduler(max_t=EPOCHS, grace_period=1, reduction_factor=FACTOR, brackets=4, **SETTINGS)
    ),
    "median": lambda: Ours("median"),
    "median of Ray": lambda: Rays(MedianStoppingRule(grace_period=1, min_samples_required=5, **SETTINGS)),
}


@dataclass(frozen=True)
class Run:
    """What a rule ran: the epochs of each trial, and by how much the best that ran in full is worse than the best."""

    epochs: list[int]
    regret: float

    @property
    def completed(self) -> int:
        return sum(epochs == EPOCHS for epochs in self.epochs)


def main() -> int:
    options = tyro.cli(Options)
    record = Record("stop_rules", vars(options))
    figures = []
    for name, make in RULES.items():
        rules = [make() for _ in range(options.seeds)]
        runs = [_run(rule, seed, options) for seed, rule in enumerate(rules)]
        figures += [
            Figure(f"epochs ({name})", "", [sum(run.epochs) for run in runs]),
            Figure(f"trials in full ({name})", "", [run.completed for run in runs]),
            Figure(f"worse than the best of all ({name})", "", [run.regret for run in runs]),
        ]
        if name == "hyperband":
            shares = [statistics.mean(part) for part in zip(*map(_by_bracket, rules, runs), strict=True)]
            figures.append(Figure("largest share of a bracket's epochs (hyperband)", "", [max(shares)], Target(0.4)))
            record.notes.append("epochs of Hyperband by bracket: " + ", ".join(f"{share:.0%}" for share in shares))
        record.add({"rule": name, "epochs": [sum(run.epochs) for run in runs], "in_full": [r.completed for r in runs]})
    return 0 if record.write(options.evidence, figures) else 1


def _by_bracket(made: Ours | Rays, run: Run) -> list[float]:
    """Return each bracket's share of the epochs."""
    rule = made.rule if isinstance(made, Ours) else None
    if not isinstance(rule, AshaStopping):
        raise TypeError("only this project's Hyperband says which bracket a trial is in")
    of_bracket = [0] * rule.brackets
    for index, epochs in enumerate(run.epochs):
        of_bracket[rule.bracket(index)] += epochs
    return [epochs / sum(run.epochs) for epochs in of_bracket]


def _run(rule: Ours | Rays, seed: int, options: Options) -> Run:
    """Run all trials on the slots, an epoch of each in turn."""
    fate = random.Random(seed)
    np.random.seed(seed)
    curves = [(fate.uniform(0.6, 0.9), fate.uniform(1, 6)) for _ in range(options.trials)]
    epochs, live, begun = [0] * options.trials, list[int](), 0
    while live or begun < options.trials:
        while len(live) < options.slots and begun < options.trials:
            rule.begin(begun)
            live, begun = [*live, begun], begun + 1
        for trial in list(live):
            epochs[trial] += 1
            reached, time = curves[trial]
            value = reached * (1 - math.exp(-epochs[trial] / time)) + fate.gauss(0, NOISE)
            if rule.stops(trial, epochs[trial], value) or epochs[trial] == EPOCHS:
                live.remove(trial)
    ends = [reached * (1 - math.exp(-EPOCHS / time)) for reached, time in curves]
    in_full = [end for end, run in zip(ends, epochs, strict=True) if run == EPOCHS]
    return Run(epochs, max(ends) - max(in_full, default=0.0))


if __name__ == "__main__":
    sys.exit(main())
