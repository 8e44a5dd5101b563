"""Samplers: what proposes configurations. To add one, add its entry to `SAMPLERS`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from search_spaces.grid import Grid
from search_spaces.space import SearchSpace


class SpaceTPE(TPESampler):
    """TPE that knows its space. Optuna would look for it in all trials so far, a third of a proposal's time.

    Fields without a condition are drawn together, from all trials. One with a condition is drawn by itself, from the
    trials that had it: drawn together, only trials that had all fields would count.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        super().__init__(seed=seed)
        self._drawn_together: dict[str, BaseDistribution] = {
            name: d
            for name, d in sorted(space.distributions.items())
            if not d.single() and name not in space.conditions
        }

    def infer_relative_search_space(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the fields that are drawn together."""
        return self._drawn_together

    def sample_relative(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the values of the fields that are drawn together.

        Optuna would also note them at the trial, for proposals made before it has them all. Here a trial is added to
        the study with all its values, once they are known to be new.
        """
        return self._sample_relative(study, trial, search_space)


def _random(space: SearchSpace, seed: int) -> RandomSampler:
    return RandomSampler(seed=seed)


@dataclass(frozen=True)
class Sampler:
    """A way to propose configurations."""

    help: str
    make: Callable[[SearchSpace, int], BaseSampler]  # from space and seed, anew for every proposal
    points: Callable[[SearchSpace, int], Sequence[dict[str, Any]]] | None = None  # all proposals, if they are finite


SAMPLERS = {
    "tpe": Sampler("learns from finished trials where good values lie", SpaceTPE),
    "random": Sampler("draws every trial independently", _random),
    "grid": Sampler("tries every combination once, in random order", _random, Grid),
}
"""The samplers that `--sampler` names."""
