"""The published systems, one a file; each file's docstring is its lab note."""

from __future__ import annotations

import importlib

from search_spaces.recipe import Recipe

RECIPES = ("resnet18-binary", "resnet50-balance", "cactus-features", "improved-resnet50", "cnn-comparison")


def load(name: str) -> Recipe:
    """The recipe called `name`, one of `RECIPES`."""
    module = importlib.import_module(f"search_spaces.recipes.{name.replace('-', '_')}")
    recipe: Recipe = module.RECIPE
    return recipe
