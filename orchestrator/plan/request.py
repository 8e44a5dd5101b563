"""A command's options, parsed once: its data set, its recipe, its search spaces and what it changes in them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import search_spaces
from orchestrator.plan.options import SweepOptions
from orchestrator.record.aims import Aim, Constraint, parse_aims, parse_constraints
from orchestrator.search.limits import Limits
from orchestrator.search.samplers import SAMPLERS
from search_spaces import pretrained, recipes, space_file, starts
from search_spaces.changes import Searched, override, parse
from search_spaces.recipe import Recipe
from search_spaces.situation import UNREAD, Pictures, Situation
from search_spaces.space import SearchSpace
from trainables import datasets
from trainables.epoch_metrics import canonical
from trainables.errors import ConfigError, look_up
from trainables.field_values import is_place
from trainables.model_names import is_timm
from trainables.models import nets


@dataclass(frozen=True)
class Request:
    """The request of a command. Each part is parsed when it is first used, and only once: a space file runs once."""

    options: SweepOptions

    @cached_property
    def settings(self) -> tuple[str, ...]:
        """The texts of `--set`, with the fields that `--fit` and `--weights` set."""
        given = {name: getattr(self.options, name) for name in ("fit", "weights")}
        return flat(self.options.set) + tuple(f"{name}={value}" for name, value in given.items() if value is not None)

    @cached_property
    def searches(self) -> tuple[str, ...]:
        """The texts of `--search`."""
        return flat(self.options.search)

    @cached_property
    def trackers(self) -> tuple[str, ...]:
        """The texts of `--log`."""
        return flat(self.options.log)

    @cached_property
    def changes(self) -> tuple[dict[str, Any], dict[str, Searched]]:
        """The fields that `--set`, `--fit` and `--weights` fix and those that `--search` searches.

        Raises:
            ConfigError: naming every wrong field, value and distribution at once.
        """
        return parse(self.settings, self.searches)

    @cached_property
    def tries(self) -> tuple[starts.Start, ...]:
        """The start points of `--try`.

        Raises:
            ConfigError: naming every wrong field and value at once.
        """
        return starts.parse(flat(self.options.try_))

    @cached_property
    def warm_start(self) -> tuple[str, ...]:
        """The texts of `--warm-start`."""
        return flat(self.options.warm_start)

    @cached_property
    def limits(self) -> Limits:
        """The limits of the search beside trials and time."""
        options = self.options
        return Limits(options.epoch_budget, options.gpu_hours, options.target_score, options.patience_trials)

    @cached_property
    def limit_texts(self) -> list[str]:
        """Texts about the limits that end the search early."""
        budget = self.options.time_budget
        return ([] if budget is None else [f"{budget} in all"]) + self.limits.describe()

    @cached_property
    def aims(self) -> tuple[Aim, ...]:
        """The aims of `--also`, beside the metric.

        Raises:
            ConfigError: naming everything that is wrong with them.
        """
        metric = self.options.metric if self.options.resume is None else None  # else that of the sweep
        return parse_aims(flat(self.options.also), metric)

    @cached_property
    def constraints(self) -> tuple[Constraint, ...]:
        """The constraints of `--constraint`.

        Raises:
            ConfigError: naming everything that is wrong with them, and what nothing can meet.
        """
        return parse_constraints(flat(self.options.constraint))

    @cached_property
    def recipe(self) -> Recipe | None:
        """The recipe that is asked for."""
        return None if self.options.recipe is None else recipes.load(self.options.recipe)

    @cached_property
    def dataset(self) -> str:
        """The data set that is asked for, the recipe's, or digits."""
        if self.options.dataset is not None:
            return self.options.dataset
        return self.recipe.dataset if self.recipe is not None else "digits"

    @cached_property
    def space_file(self) -> space_file.SpaceMaker | None:
        """The maker of search spaces that the user's space file holds; a Python file has run.

        Raises:
            ConfigError: it cannot be read, or raises.
        """
        return None if self.options.space is None else space_file.read(self.options.space)

    @cached_property
    def weights(self) -> str | None:
        """The weights that the options ask for, as the field `weights` has them; None if they do not say.

        Raises:
            ConfigError: a value of `--set` or `--search` is wrong.
        """
        found = self.changes[0].get("weights")
        return None if found is None else str(found)

    @cached_property
    def _offered(self) -> tuple[str, ...]:
        """The nets in the file or folder of `weights`: it is looked through once a command."""
        return tuple(nets.available(str(self.weights)))

    def situation(self, *, gpu: bool, pictures: Pictures = UNREAD) -> Situation:
        """Return the situation that search spaces are made for.

        Raises:
            ConfigError: there are no nets where the options say.
        """
        found, weights = self._nets(gpu)
        return Situation(gpu, self.options.preset, weights if found else "none", found, pictures.rows, pictures.square)

    def _nets(self, gpu: bool) -> tuple[tuple[str, ...], str]:
        """Return the pretrained nets that can be had, and the value of the field `weights` for them."""
        model, weights = self.changes[0].get("model"), self.weights
        usual = pretrained.NETS[gpu] if model is None else (str(model),)
        if weights == "none" or (weights is None and self.dataset in search_spaces.SPACES):
            return (), "none"
        if weights is None:
            return tuple(nets.available("imagenet", usual)), "imagenet"
        if model is None and Path(weights).expanduser().exists():
            return self._offered, weights
        if model is None and is_timm(weights):
            return (weights.partition(".")[0],), weights
        return usual, weights

    def base_spaces(self, *, gpu: bool, pictures: Pictures = UNREAD) -> dict[str, SearchSpace]:
        """Return the search space of every arm before the options change it; without a recipe of one arm, named "".

        Raises:
            ConfigError: the space file does not make a space, or there are no nets where the options say.
        """
        if self.recipe is not None:
            arms = self.recipe.spaces(self.dataset, quick=self.options.preset == "quick")
            return {name: arms[name] for name in self.options.arms or arms}
        situation = self.situation(gpu=gpu, pictures=pictures)
        if self.space_file is not None:
            return {"": self.space_file(situation)}
        return {"": situation.make(pretrained.space if situation.nets else search_spaces.load(self.dataset))}

    def spaces(self, *, gpu: bool, pictures: Pictures = UNREAD) -> dict[str, SearchSpace]:
        """Return the search space of every arm with all changes that the options ask for.

        Raises:
            ConfigError: the options do not go together with a space.
        """
        return {name: self._changed(space) for name, space in self.base_spaces(gpu=gpu, pictures=pictures).items()}

    def possible_spaces(self) -> list[SearchSpace]:
        """Return the spaces of every arm, with GPUs and without: what is known before the machines are.

        Raises:
            ConfigError: the options do not go together with a space.
        """
        return [space for gpu in (False, True) for space in self.spaces(gpu=gpu).values()]

    def changed(self, space: SearchSpace) -> SearchSpace:
        """Return `space` with the fields of `--set` fixed and those of `--search` searched.

        Raises:
            ConfigError: naming everything that does not go together.
        """
        return override(space, *self.changes)

    def _changed(self, space: SearchSpace) -> SearchSpace:
        """Return `space` with all changes that the options ask for."""
        space = self._with_starts(self.changed(space))
        base = space.base.replace(metric=canonical(self.options.metric))
        if self.options.max_epochs is not None:
            base = base.replace(max_epochs=self.options.max_epochs)
        return with_absolute_paths(dataclasses.replace(space, base=base))

    def _with_starts(self, space: SearchSpace) -> SearchSpace:
        """Return `space` with the start points of `--try` before its own, which `--starts none` leaves out.

        A value that all trials have need not be searched.

        Raises:
            ConfigError: a start point has values that no trial can have, or the sampler has no use for any.
        """
        given = tuple(
            {
                name: value
                for name, value in start.items()
                if name in space.distributions or getattr(space.base, name) != value
            }
            for start in self.tries
        )
        problems = [f"--try: {problem}" for _, problem in starts.problems(given, space.possible, space.deciding)]
        if look_up(SAMPLERS, self.options.sampler, "sampler").points is not None:
            asked = {"--try": given, "--warm-start": set(self.warm_start) - {"none"}}
            why = f"--sampler {self.options.sampler} runs every combination; leave it out"
            problems += [f"{option}: {why}" for option, texts in asked.items() if texts]
        if problems:
            raise ConfigError(*problems)
        return dataclasses.replace(space, starts=given + (space.starts if self.options.starts == "space" else ()))


def with_absolute_paths(space: SearchSpace) -> SearchSpace:
    """Return `space` with weights that are files or folders by their absolute paths: workers run in another folder.

    Raises:
        ConfigError: a file or folder does not exist.
    """
    places = filter(is_place, space.values("weights"))
    paths = {value: str(Path(value).expanduser().absolute()) for value in places}
    missing = [
        f"weights={value}: there is no such file or folder" for value, path in paths.items() if not Path(path).exists()
    ]
    if missing:
        raise ConfigError(*missing)
    return space.renamed("weights", paths)


def absolute_dataset(dataset: str) -> str:
    """Return a data set's name, or its absolute path."""
    return dataset if dataset in datasets.SOURCES else str(Path(dataset).expanduser().absolute())


def absolute(path: Path | None) -> str | None:
    """Return an absolute path as text; None for None."""
    return None if path is None else str(path.absolute())


def flat(groups: tuple[tuple[str, ...] | str, ...]) -> tuple[str, ...]:
    """Return the texts of an option that may be repeated, each time with several texts or, from Python, with one."""
    return tuple(text for group in groups for text in ([group] if isinstance(group, str) else group))
