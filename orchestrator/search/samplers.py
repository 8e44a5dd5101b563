"""Samplers: what proposes configurations. To add one, add its entry to `SAMPLERS`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import TrialState

from orchestrator.cluster.process_state import one_torch_thread
from search_spaces.grid import Grid
from search_spaces.space import SearchSpace

POPULATION = 12  # trials of a generation: searches have tens of trials, not the thousands that 50 are meant for


class Together:
    """A sampler that knows its space. Optuna's look for it in all trials so far."""

    def know(self, space: SearchSpace) -> None:
        """Take the space: drawn together are the fields that every trial has, and that have several values."""
        fields = sorted(space.distributions.items())
        self._drawn_together: dict[str, BaseDistribution] = {
            name: d
            for name, d in fields
            if not d.single() and name not in space.conditions and name not in space.ranges
        }

    def infer_relative_search_space(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the fields that are drawn together."""
        return self._drawn_together


class SpaceTPE(Together, TPESampler):
    """TPE that knows its space. Optuna would look for it in all trials so far, a third of a proposal's time.

    Fields without a condition are drawn together, from all trials. One with a condition is drawn by itself, from the
    trials that had it: drawn together, only trials that had all fields would count.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        super().__init__(seed=seed)
        self.know(space)

    def sample_relative(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the values of the fields that are drawn together.

        Optuna would also note them at the trial, for proposals made before it has them all. Here a trial is added to
        the study with all its values, once they are known to be new.
        """
        return self._sample_relative(study, trial, search_space)


class SpaceGP(Together, GPSampler):
    """A Gaussian process over the fields that all trials have; those under a condition are TPE's.

    It imports torch, into the driver.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        super().__init__(seed=seed, independent_sampler=SpaceTPE(space, seed), warn_independent_sampling=False)
        self.know(space)

    def sample_relative(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the values of the fields that are drawn together; none before there are enough trials to learn from.

        As of TPE above, nothing is noted at the trial.
        """
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        if not search_space or len(complete) < self._n_startup_trials:
            return {}
        with one_torch_thread():
            return self._sample_relative_impl(study, complete, running, search_space)


class SpaceNSGA2(Together, NSGAIISampler):
    """NSGA-II whose generations follow from the number of trials alone, so that a resumed search has the same ones."""

    def __init__(self, space: SearchSpace, seed: int) -> None:
        super().__init__(seed=seed, population_size=POPULATION)
        self.know(space)

    def sample_relative(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return a child of the best trials so far, without the values that mutate; none in the first generation."""
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        generations = len(complete) // POPULATION
        if not search_space or generations == 0:
            return {}
        parents = self._elite_population_selection_strategy(study, complete[: generations * POPULATION])
        return self._child_generation_strategy(study, search_space, parents)


def _random(space: SearchSpace, seed: int) -> RandomSampler:
    return RandomSampler(seed=seed)


@dataclass(frozen=True)
class Sampler:
    """A way to propose configurations."""

    help: str
    make: Callable[[SearchSpace, int], BaseSampler]  # from space and seed, anew for every proposal
    points: Callable[[SearchSpace, int], Sequence[dict[str, Any]]] | None = None  # all proposals, if they are finite
    learns: bool = False  # from other trials
    redraws: int = 20  # if it draws a point that was tried
    reads_complete: bool = False  # it learns of complete trials alone: what cannot train is one, with a bad score


SAMPLERS = {
    "tpe": Sampler("learns from finished trials where good values lie", SpaceTPE, learns=True),
    "gp": Sampler(
        "learns a smooth function of the settings, a Gaussian process; for few numbers that interact",
        SpaceGP,
        learns=True,
        redraws=2,  # each of which fits the process anew
        reads_complete=True,
    ),
    "nsga2": Sampler(
        f"crosses and mutates the best trials, {POPULATION} a generation",
        SpaceNSGA2,
        learns=True,
        reads_complete=True,
    ),
    "random": Sampler("draws every trial independently", _random),
    "grid": Sampler("tries every combination once, in random order", _random, Grid),
}
"""The samplers that `--sampler` names."""
