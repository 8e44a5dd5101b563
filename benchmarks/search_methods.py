"""Simulated searches on recorded tables of curves: this project's own searcher and schedulers, and others beside them.

A search spends epochs; what it has found after each is the setting whose score is best so far, on the rows that it
sees. The regret is what that setting's run in full lacks on other rows, against the best of the table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import optuna
from optuna.trial import TrialState
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from benchmarks.curve_tables import Curves
from orchestrator.search.schedulers import StopRule
from orchestrator.search.study import _suggest
from tests.simulation import Setup, Simulation
from trainables.epoch_metrics import column


@dataclass
class Found:
    """The search so far: epochs spent, and the best setting's regret after each improvement."""

    table: Curves
    epochs: int = 0
    best: float = -math.inf
    trace: list[tuple[int, float]] = field(default_factory=list)  # (epochs, regret from then on)
    of: dict[Any, int] = field(default_factory=dict)  # trial → its setting
    scores: dict[int, float] = field(default_factory=dict)  # setting → its best score, unless its run diverged

    def setting(self, trial: Any, params: Mapping[str, Any]) -> int:
        """Return the setting that stands for a trial: the nearest one that no other trial has."""
        if trial not in self.of:
            distances = ((self.table.places - self.table.place(params)) ** 2).sum(axis=1)
            distances[list(self.of.values())] = np.inf
            self.of[trial] = int(distances.argmin())
        return self.of[trial]

    def score(self, setting: int, epoch: int) -> float | None:
        """Count an epoch, and return its score; None if the run diverges in it."""
        self.epochs += 1
        score = float(self.table.searched[setting, epoch - 1])
        if math.isnan(score):
            self.scores.pop(setting, None)
            return None
        self.scores[setting] = max(score, self.scores.get(setting, score))
        if score > self.best:
            self.best = score
            self.trace.append((self.epochs, float(self.table.regrets[setting])))
        return score

    @property
    def regret(self) -> float:
        """The regret of the setting that is best at the end."""
        return self.trace[-1][1]

    def regret_at(self, epochs: int) -> float:
        """Return the regret of the setting that was best after so many epochs."""
        return [regret for at, regret in self.trace if at <= epochs][-1]

    def epochs_to(self, regret: float) -> float:
        """Return the epochs after which the best setting's regret is first at most `regret`; infinite if never."""
        return next((epochs for epochs, there in self.trace if there <= regret), math.inf)

    def epochs_until_settled(self, regret: float) -> float:
        """Return the epochs from which on the best setting's regret stays at most `regret`; infinite if it does not.

        A high score after one epoch may be of such a setting by chance, until a worse one has run longer.
        """
        settled = math.inf
        for epochs, there in reversed(self.trace):
            if there > regret:
                break
            settled = epochs
        return settled


def ours(table: Curves, rule: StopRule, setup: Mapping[str, Any], limit: float = math.inf) -> Found:
    """Run this project's searcher, study, scheduler and recorder over a table, until the search or `limit` ends."""
    found = Found(table)
    metric, sign = table.space.base.metric, 1 if table.searched.max() > 0 else -1

    def learned(config: dict[str, Any], epoch: int) -> dict[str, Any]:
        if found.epochs >= limit:
            raise SpentError
        params = {name: config[name] for name in table.space.distributions if table.space.active(name, config)}
        score = found.score(found.setting(config["seed"], params), epoch)
        if score is None:
            return {"happened": "not_finite", "error": f"the loss is not finite in epoch {epoch}"}
        return {"epoch": epoch, column(metric): sign * score, "train_s": 1.0}

    with TemporaryDirectory(prefix="search-") as folder:
        simulation = Simulation(
            Path(folder), Setup(rule=rule, space=table.space, learned=learned, in_time=True, **setup)
        )
        with suppress(SpentError):
            simulation.run()
    return found


class SpentError(Exception):
    """The epochs of a simulated search are spent."""


class RayTrial(NamedTuple):
    """The parts of Tune's trial that its scheduler looks at."""

    trial_id: str

    def is_finished(self) -> bool:
        return False


def stock(table: Curves, trials: int, slots: int, seed: int, limit: float = math.inf, factor: int = 4) -> Found:
    """Run Optuna's default sampler under Ray's ASHA, as `OptunaSearch` puts them together; by default with its factor.

    Whatever ends is reported to the sampler as complete, with its last value.
    """
    found = Found(table)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    asha: Any = AsyncHyperBandScheduler(
        time_attr="epoch", metric="score", mode="max", max_t=table.max_epochs, grace_period=1, reduction_factor=factor
    )
    live: list[tuple[Any, int]] = []  # the study's trial, epochs
    begun = 0
    while live or begun < trials:
        while len(live) < slots and begun < trials:
            trial = study.ask()
            asha.on_trial_add(None, RayTrial(str(trial.number)))
            drawn: dict[str, Any] = {}
            for name in table.space.order():
                if table.space.active(name, drawn):
                    drawn[name] = _suggest(trial, name, table.space.distributions[name])
            live, begun = [*live, (trial, 0)], begun + 1
        trial, epochs = live.pop(0)
        if found.epochs >= limit:
            return found
        score = found.score(found.setting(trial.number, trial.params), epochs + 1)
        if score is None:
            study.tell(trial, state=TrialState.FAIL)
            continue
        ray_trial = RayTrial(str(trial.number))
        decision = asha.on_trial_result(ray_trial, ray_trial, {"epoch": epochs + 1, "score": score})
        if decision == TrialScheduler.STOP or epochs + 1 == table.max_epochs:
            study.tell(trial, score)
        else:
            live.append((trial, epochs + 1))
    return found


def top_of_short(table: Curves, trials: int, seed: int, keep: int = 3) -> Found:
    """Run random settings over a whole short schedule each, then the best `keep` in full, from their start."""
    if table.short is None:
        raise ValueError(f"{table.name} has no runs over a short schedule")
    found = Found(table, epochs=trials * table.short.shape[1])
    order = np.random.default_rng(seed).permutation(len(table.params))[:trials].tolist()
    scores = np.nan_to_num(np.nanmax(table.short, axis=1), nan=-math.inf)
    for setting in sorted(order, key=lambda setting: -scores[setting])[:keep]:
        for epoch in range(1, table.max_epochs + 1):
            if found.score(setting, epoch) is None:
                break
    return found


def top_of_few(table: Curves, trials: int, epochs: int, seed: int, keep: int = 3) -> Found:
    """Run i-Epoch: random settings for `epochs` each, then the best `keep` in full (Egele et al., arXiv 2307.15422)."""
    found = Found(table)
    order = np.random.default_rng(seed).permutation(len(table.params))[:trials].tolist()
    scores = dict.fromkeys(order, -math.inf)
    for setting in order:
        for epoch in range(1, epochs + 1):
            score = found.score(setting, epoch)
            if score is None:
                scores[setting] = -math.inf
                break
            scores[setting] = max(scores[setting], score)
    for setting in sorted(order, key=lambda setting: -scores[setting])[:keep]:
        for epoch in range(epochs + 1, table.max_epochs + 1):
            if found.score(setting, epoch) is None:
                break
    return found
