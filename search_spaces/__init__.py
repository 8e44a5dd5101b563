"""What a sweep searches: a base configuration and distributions over some of its fields.

The search spaces that come with the project are modules with a function `space`, which takes those attributes of a
`Situation` as keywords that it depends on.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from trainables import datasets

if TYPE_CHECKING:
    from collections.abc import Callable

    from search_spaces.space import SearchSpace

SPACES = {"digits": "digits", "cifar10": "cifar10", "fashion-mnist": "fashion_mnist"}
"""The data sets with a search space made for them, and its module."""

GENERIC = "generic"
"""The module of the search space of every other data set; it suits images of any kind."""


def load(dataset: str) -> Callable[..., SearchSpace]:
    """Return the function that makes the search space of a data set, which is a name or a path.

    Raises:
        DatasetError: no data set has this name.
    """
    datasets.check_known(dataset)
    module = importlib.import_module(f"search_spaces.{SPACES.get(dataset, GENERIC)}")
    maker: Callable[..., SearchSpace] = module.space
    return maker
