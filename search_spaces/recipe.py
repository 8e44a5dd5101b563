"""A published system: fixed settings, arms side by side, and the figures that its paper reports."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from search_spaces.space import SearchSpace
from trainables.config import TrialConfig


@dataclass(frozen=True)
class Arm:
    """One fixed variant. `reported` has the paper's figures, by the names that `comparison.parquet` has."""

    config: TrialConfig
    reported: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """A published system as it can be run.

    `quick` is what the laptop form sets in every arm, `quick_arms` what it sets in one of them; None leaves that out.
    """

    paper: str  # authors, year
    datasets: Mapping[str, int | None]  # of the paper, the first by default, and how many rows each has if it says
    published: Callable[[str], dict[str, Arm]]  # the arms on one of these data sets
    shown: tuple[str, ...]  # the figures of its comparison, the most important ones first
    quick: Mapping[str, Any]
    quick_subset: int
    quick_arms: Mapping[str, Mapping[str, Any] | None] = field(default_factory=dict)
    trials: int = 16  # of every arm, where something is searched

    @property
    def dataset(self) -> str:
        """The data set of the recipe, unless another is named."""
        return next(iter(self.datasets))

    def arms(self, dataset: str) -> dict[str, Arm]:
        """The arms as published; on data that the paper does not have, those of its first data set, without figures."""
        if dataset in self.datasets:
            return self.published(dataset)
        return {name: Arm(arm.config) for name, arm in self.published(self.dataset).items()}

    def spaces(self, dataset: str, *, quick: bool) -> dict[str, SearchSpace]:
        """Its arms on `dataset`, as spaces in which nothing is searched yet."""
        made = {}
        for name, arm in self.arms(dataset).items():
            own = self.quick_arms.get(name, {})
            if quick and own is None:
                continue
            config = arm.config.replace(**{**self.quick, **(own or {})}) if quick else arm.config
            made[name] = SearchSpace(config, trials=self.trials, subset=self.quick_subset if quick else None)
        return made


def searched_split(split: str) -> str:
    """The rows on which settings are searched for a trial that will have `split`: never those it is tested on.

    Where a split has no validation part, that is a fifth of its training part.
    """
    if split in ("core", "official"):
        return "core"
    train, *rest = (int(share) for share in split.split(":"))
    shares = (4 * train, train, 5 * rest[0])
    return split if len(rest) == 2 else ":".join(str(share // math.gcd(*shares)) for share in shares)
