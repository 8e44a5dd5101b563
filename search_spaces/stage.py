"""Stages of a search: some of the trials have given values of searched fields, or the values that were best so far."""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from optuna.distributions import CategoricalDistribution

from search_spaces.distributions import Distribution, as_typed, fits, is_number


@dataclass(frozen=True)
class Stage:
    """A share of a search's trials, and what is decided in it about fields that are searched.

    The sampler draws all other fields. It is given the decided values, so it learns from the trials of all stages.
    """

    share: float  # of the trials, beside the shares of the other stages: 3 and 1 are three quarters and a quarter
    fixed: Mapping[str, Any] = field(default_factory=dict)  # searched field → its value in this stage
    best: Mapping[str, int] = field(default_factory=dict)  # searched choice → how many values, at most, are left of it
    each: tuple[str, ...] = ()  # searched choices: the first trials of the stage take every value once

    def decides(self) -> bool:
        """Return whether the stage decides about any field."""
        return bool(self.fixed or self.best or self.each)

    def fits(self, params: Mapping[str, Any]) -> bool:
        """Return whether a trial with the searched values `params` may be of this stage."""
        return all(params.get(name, value) == value for name, value in self.fixed.items())

    def renamed(self, name: str, names: Mapping[Any, Any]) -> Stage:
        """Return the stage with a fixed value of field `name` that `names` has replaced."""
        return replace(self, fixed={n: names.get(v, v) if n == name else v for n, v in self.fixed.items()})

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; `from_dict` gives the stage back."""
        return {"share": self.share, "fixed": dict(self.fixed), "best": dict(self.best), "each": list(self.each)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Stage:
        """Return the stage that `to_dict` described."""
        return cls(values["share"], values.get("fixed", {}), values.get("best", {}), tuple(values.get("each", ())))


def quotas(stages: Sequence[Stage], trials: int) -> list[int]:
    """Return how many of `trials` each stage has: shares are rounded so that their sum is right."""
    whole = math.fsum(stage.share for stage in stages)
    ends, reached = [], 0.0
    for stage in stages:
        reached += stage.share
        ends.append(round(trials * reached / whole))
    return [end - begin for begin, end in zip([0, *ends], ends, strict=False)]


def settled(
    stages: Sequence[Stage],
    set_to: Mapping[str, Any],
    searched: Container[str],
    distributions: Mapping[str, Distribution],
) -> tuple[Stage, ...]:
    """Return the stages that are left once fields are set or searched in another way.

    A stage in which a field has another value than the one it is set to cannot happen; its trials go to the others.
    Neighbors that have become alike are one stage, and a single one that decides nothing is none.

    Args:
        set_to: fields that are no longer searched, with their values.
        searched: fields that a user searches in another way: no stage fixes them.
        distributions: those of all fields that are still searched.
    """
    choices = [name for name, found in distributions.items() if isinstance(found, CategoricalDistribution)]
    left: list[Stage] = []
    for stage in stages:
        if not all(stage.fixed.get(name, value) == value for name, value in set_to.items()):
            continue
        changed = replace(
            stage,
            fixed={
                name: value for name, value in stage.fixed.items() if name in distributions and name not in searched
            },
            best={name: count for name, count in stage.best.items() if name in choices and left},  # none at first
            each=tuple(name for name in stage.each if name in choices),
        )
        if left and replace(changed, share=left[-1].share) == left[-1]:
            left[-1] = replace(changed, share=left[-1].share + changed.share)
        else:
            left.append(changed)
    return tuple(left) if len(left) > 1 or any(stage.decides() for stage in left) else ()


def problems(
    stages: Sequence[Stage], distributions: Mapping[str, Distribution], several: Container[str] = ()
) -> Iterator[tuple[str, str]]:
    """Yield every stage that is unsound, as `stage 1`, with a message for each reason.

    Args:
        several: the fields that have more ranges than that of `distributions`.
    """
    for number, stage in enumerate(stages, start=1):
        here = f"stage {number}"
        for name in {**stage.fixed, **stage.best, **dict.fromkeys(stage.each)}:
            if name in several:
                yield here, f"{here}: {name} has several ranges, so no stage can decide about it; give it a single one"
        yield from ((here, f"{here}: {problem}") for problem in _check(stage, distributions, first=number == 1))


def _check(stage: Stage, distributions: Mapping[str, Distribution], *, first: bool) -> Iterator[str]:
    """Yield a message for each reason why a stage is unsound."""
    if not (is_number(stage.share) and 0 < stage.share < math.inf):
        yield f"its share is {stage.share}; a number above 0 is needed"
    for name, value in stage.fixed.items():
        yield from _check_fixed(name, value, distributions.get(name))
    for name in {**stage.best, **dict.fromkeys(stage.each)}:
        if not isinstance(distributions.get(name), CategoricalDistribution):
            yield f"{name} is not searched by choice(…), so it has no values to choose from"
        elif sum(name in decided for decided in (stage.fixed, stage.best, stage.each)) > 1:
            yield f"{name} is given in two ways; leave one out"
    for name, count in stage.best.items():
        if first:
            yield f"{name} has no best values yet, as there is no earlier stage"
        if type(count) is not int or count < 1:
            yield f"the number of best values of {name} is {count}; a whole number from 1 is needed"


def _check_fixed(name: str, value: Any, distribution: Distribution | None) -> Iterator[str]:
    """Yield why a stage cannot give a field a value."""
    if distribution is None:
        yield f"it fixes {name}, which is not searched; set it for all trials, or search it"
    elif fits(value, distribution):
        return
    elif isinstance(distribution, CategoricalDistribution):
        yield f"{name}={value} is none of its choices (allowed: {', '.join(map(as_typed, distribution.choices))})"
    else:
        yield f"{name}={value} is not in its range (allowed: {distribution.low:g} to {distribution.high:g})"
