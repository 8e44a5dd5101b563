"""The grid: all combinations of a search space whose fields have finitely many values."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from search_spaces.distributions import Distribution
from search_spaces.space import SearchSpace
from trainables.errors import ConfigError

LARGEST = 100_000  # points


class Grid(Sequence[dict[str, Any]]):
    """The points of a space's grid, shuffled by a seed so that a part of them is spread over the whole grid."""

    def __init__(self, space: SearchSpace, seed: int) -> None:
        """Check the space, and shuffle its points.

        Raises:
            ConfigError: naming every field without a finite set of values, or saying that the grid is too large.
        """
        problems = [
            f"{name}: a grid needs steps, e.g. choice(…) or uniform(LOW,HIGH,STEP)"
            for name in space.distributions
            if any(
                isinstance(way.distribution, FloatDistribution) and way.distribution.step is None
                for way in space.ways(name)
            )
        ]
        if problems:
            raise ConfigError(*problems)
        conditioning = space.conditioning()
        self._branches = []  # values of the fields that conditions depend on, and the axes of all that is searched then
        for branch in space.branches(conditioning):
            rest = {name: space.parameter(name, branch) for name in space.distributions if name not in conditioning}
            self._branches.append(
                (branch, {name: _axis(found[1]) for name, found in rest.items() if found is not None})
            )
        size = sum(_size(axes) for _, axes in self._branches)
        if size > LARGEST:
            raise ConfigError(f"the grid has {size:,} points (allowed: at most {LARGEST:,}); use --sampler random")
        self._order = random.Random(seed).sample(range(size), size)

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, number: Any) -> Any:
        index, branches = self._order[number], iter(self._branches)
        branch, axes = next(branches)
        while index >= _size(axes):
            index -= _size(axes)
            branch, axes = next(branches)
        point = dict(branch)
        for name, axis in axes.items():
            index, place = divmod(index, len(axis))
            point[name] = axis[place]
        return point


def count_points(space: SearchSpace, most: int) -> int:
    """Return how many different configurations a space has; `most` if there are more, or more than a grid may have."""
    try:
        points = Grid(space, seed=0)
    except ConfigError:
        return most
    different: set[tuple[Any, ...]] = set()
    for point in points:
        if len(different) >= most:
            break
        different.add(space.settings(point))
    return len(different)


def _size(axes: Mapping[str, list[Any]]) -> int:
    """Return how many points the axes span."""
    return math.prod(len(axis) for axis in axes.values())


def _axis(distribution: Distribution) -> list[Any]:
    """Return the values of a distribution, ascending or in the order of a choice."""
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    low, high, step = (Decimal(str(n)) for n in (distribution.low, distribution.high, distribution.step or 1))
    kind = int if isinstance(distribution, IntDistribution) else float
    return [kind(low + i * step) for i in range(int((high - low) / step) + 1)]  # 0.3, not 0.30000000000000004
