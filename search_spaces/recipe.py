"""A recipe, which is a published system: its arms with their fixed settings, and the metrics that its paper reports."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from search_spaces.space import SearchSpace
from trainables.config import TrialConfig


@dataclass(frozen=True)
class Arm:
    """One fixed variant of a recipe."""

    config: TrialConfig
    reported: Mapping[str, float] = field(default_factory=dict)  # the paper's metrics; names of comparison.parquet


@dataclass(frozen=True)
class Recipe:
    """A published system that can be run in full or, on a laptop, in its quick variant."""

    paper: str  # authors, year
    datasets: Mapping[str, int | None]  # the paper's, the default first, with its number of rows if the paper says
    published: Callable[[str], dict[str, Arm]]  # returns the arms on one of these data sets
    shown: tuple[str, ...]  # the metrics of its comparison, the most important ones first
    quick: Mapping[str, Any]  # fields that the quick variant sets in every arm
    quick_subset: int  # rows that the quick variant uses
    quick_arms: Mapping[str, Mapping[str, Any] | None] = field(
        default_factory=dict
    )  # fields for one arm; None drops it
    trials: int = 16  # of every arm, if something is searched

    @property
    def dataset(self) -> str:
        """The data set of the recipe, unless the user names another."""
        return next(iter(self.datasets))

    def arms(self, dataset: str) -> dict[str, Arm]:
        """Return the arms as published; on any other data set those of the paper's first, without its metrics."""
        if dataset in self.datasets:
            return self.published(dataset)
        return {name: Arm(arm.config) for name, arm in self.published(self.dataset).items()}

    def spaces(self, dataset: str, *, quick: bool) -> dict[str, SearchSpace]:
        """Return the arms on `dataset` as search spaces in which nothing is searched yet."""
        spaces = {}
        for name, arm in self.arms(dataset).items():
            changes = self.quick_arms.get(name, {})
            if quick and changes is None:
                continue
            config = arm.config.replace(**{**self.quick, **(changes or {})}) if quick else arm.config
            spaces[name] = SearchSpace(config, trials=self.trials, subset=self.quick_subset if quick else None)
        return spaces


def searched_split(split: str) -> str:
    """Return the split for searching settings for a final training run with `split`; it never scores on test rows.

    Where a split has no validation part, a fifth of its training part is held out.
    """
    if split in ("core", "official"):
        return "core"
    train, *rest = (int(share) for share in split.split(":"))
    shares = (4 * train, train, 5 * rest[0])
    return split if len(rest) == 2 else ":".join(str(share // math.gcd(*shares)) for share in shares)
