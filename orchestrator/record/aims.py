"""Aims beside the metric, and constraints: what a trial's record says that a sweep may weigh or bound.

All of it follows from the journal: that a machine was slow on some day stands there, and a replay finds it there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from orchestrator.record.trial_record import TrialRecord
from trainables.epoch_metrics import MEANINGS, METRICS, Direction, canonical, column
from trainables.errors import ConfigError, suggestion

Value = Callable[[TrialRecord], float | None]


@dataclass(frozen=True)
class Measure:
    """Something that is known of a trial, as the leaderboard's column of its name has it."""

    meaning: str
    direction: Direction  # in which it is better, unless a user says otherwise
    value: Value  # None where it is not known
    low: float = 0.0  # its least value
    high: float = math.inf
    settled: bool = False  # it is the same after every epoch
    on_gpus: bool = False  # only trials on GPUs have it


def _in_best_epoch(name: str) -> Value:
    def value(trial: TrialRecord) -> float | None:
        place = None if trial.best_epoch is None else trial.epochs.place(trial.best_epoch)
        number = math.nan if place is None else trial.epochs.raw(name)[place]
        return None if math.isnan(number) else number

    return value


def _pace(trial: TrialRecord) -> float | None:
    """Return the rows that a trial trained on per second of training steps."""
    rates = trial.epochs.column("images_per_s"), trial.epochs.column("train_s")
    rows = sum(pace * seconds for pace, seconds in zip(*rates, strict=True) if pace and seconds)
    train_s = trial.total("train_s")
    return rows / train_s if train_s else None


MEASURES: Mapping[str, Measure] = {
    **{
        name: Measure(
            f"{MEANINGS[name]}, in the best epoch",
            better,
            _in_best_epoch(name),
            -1.0 if name == "val_mcc" else 0.0,
            1.0 if better == "max" else math.inf,
        )
        for name, better in METRICS.items()
    },
    "parameters": Measure("parameters of the model", "min", lambda trial: trial.worker.parameters, settled=True),
    "train_rows": Measure("different rows trained on", "min", lambda trial: trial.worker.train_rows, settled=True),
    "images_per_s": Measure("rows trained on per second of training", "max", _pace),
    "train_s": Measure("seconds in training steps", "min", lambda trial: trial.total("train_s")),
    "eval_s": Measure("seconds in evaluation", "min", lambda trial: trial.total("eval_s")),
    "peak_memory_mb": Measure("peak memory of the process, in MB", "min", lambda trial: trial.peak("peak_memory_mb")),
    "peak_gpu_mb": Measure(
        "peak memory of the GPU, in MB", "min", lambda trial: trial.peak("peak_gpu_mb"), on_gpus=True
    ),
}
"""What `--also` and `--constraint` may name."""

DIRECTIONS = ("min", "max")
COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    "<=": lambda value, bound: value <= bound,
    ">=": lambda value, bound: value >= bound,
    "<": lambda value, bound: value < bound,
    ">": lambda value, bound: value > bound,
}
_CONSTRAINT = re.compile(rf"\s*(\w+)\s*({'|'.join(COMPARISONS)})\s*(\S+)\s*")
EXAMPLE = '--constraint "parameters<5e6"'


class Aim(NamedTuple):
    """A measure that should be small or large."""

    name: str
    direction: Direction

    def __str__(self) -> str:
        return f"{self.name}:{self.direction}"

    @property
    def measure(self) -> Measure:
        """The measure that is aimed at."""
        return MEASURES[self.name]

    @property
    def sign(self) -> int:
        """1 if more is better, -1 if less is."""
        return 1 if self.direction == "max" else -1


class Constraint(NamedTuple):
    """A bound of a measure, which the winner must keep."""

    name: str
    comparison: str
    bound: float

    def __str__(self) -> str:
        return f"{self.name}{self.comparison}{self.bound:.15g}"

    @property
    def measure(self) -> Measure:
        """The measure that is bounded."""
        return MEASURES[self.name]

    def allows(self, value: float | None) -> bool:
        """Return whether a value keeps the bound; one that is not known does not."""
        return value is not None and COMPARISONS[self.comparison](value, self.bound)

    def excess(self, value: float | None) -> float:
        """Return by how much a value breaks the bound, in (0, 1], or keeps it, in [-1, 0]; 1 where it is not known.

        It is x / (1 + |x|), of the distance x from the bound as a multiple of the bound.
        """
        if value is None:
            return 1.0
        distance = (value - self.bound) / (abs(self.bound) or 1.0) * (1 if "<" in self.comparison else -1)
        bounded = math.copysign(1.0, distance) if math.isinf(distance) else distance / (1 + abs(distance))
        return min(bounded, 0.0) if self.allows(value) else max(bounded, 1e-9)


def parse_aims(texts: Iterable[str], metric: str | None) -> tuple[Aim, ...]:
    """Return the aims of `--also`, each `NAME`, `NAME:min` or `NAME:max`, beside the `metric`, if that is known.

    Raises:
        ConfigError: naming everything that is wrong.
    """
    found, problems = list[Aim](), list[str]()
    for text in texts:
        name, _, way = (part.strip() for part in text.partition(":"))
        if name not in MEASURES:
            problems.append(f"--also {text}: unknown{suggestion(name, MEASURES)}")
        elif way not in ("", *DIRECTIONS):
            problems.append(f"--also {text}: allowed are {name}, {name}:min and {name}:max")
        elif metric is not None and name == column(canonical(metric)):
            problems.append(f"--also {text}: {name} is the metric already; leave it out")
        elif any(aim.name == name for aim in found):
            problems.append(f"--also {text}: {name} is named twice; leave one out")
        else:
            found.append(_aim(name, way))
    if problems:
        raise ConfigError(*problems)
    return tuple(found)


def parse_constraints(texts: Iterable[str]) -> tuple[Constraint, ...]:
    """Return the constraints, each a name, one of <, <=, >, >= and a number.

    Raises:
        ConfigError: naming everything that is wrong, and what no trial could meet.
    """
    found, problems = list[Constraint](), list[str]()
    for text in texts:
        match = _CONSTRAINT.fullmatch(text)
        bound = _number(match[3]) if match is not None else None
        if match is None or bound is None:
            problems.append(f"--constraint {text!r}: a name, one of <, <=, >, >= and a number are needed: {EXAMPLE}")
        elif match[1] not in MEASURES:
            problems.append(f"--constraint {text!r}: {match[1]} is unknown{suggestion(match[1], MEASURES)}")
        else:
            found.append(Constraint(match[1], match[2], bound))
    problems += _impossible(found)
    if problems:
        raise ConfigError(*problems)
    return tuple(dict.fromkeys(found))


def check_target(metric: str, target: float | None) -> list[str]:
    """Return a message if no trial can reach the score of `--target-score`, given a sweep's metric."""
    if target is None:
        return []
    if not math.isfinite(target):
        return [f"--target-score {target:g}: a number is needed, such as 0.95"]
    if (name := canonical(metric)) not in METRICS:  # the user's, whose bounds are not known
        return []
    reached = Constraint(name, ">=" if METRICS[name] == "max" else "<=", target)
    if _is_possible([reached]):
        return []
    return [f"--target-score {target:g}: no trial can reach that, as {name} is {_within(name)}"]


def _aim(name: str, way: str) -> Aim:
    """Return the aim at a measure in a direction, by default its own one."""
    return Aim(name, "max" if (way or MEASURES[name].direction) == "max" else "min")


def _number(text: str) -> float | None:
    """Return the finite number that a text is; None if it is none."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _impossible(constraints: Sequence[Constraint]) -> list[str]:
    """Return a message for each measure that has no value within all of its bounds."""
    problems = []
    for name in dict.fromkeys(constraint.name for constraint in constraints):
        own = [one for one in constraints if one.name == name]
        if not _is_possible(own):
            given = " and ".join(f'"{one}"' for one in own)
            problems.append(
                f"--constraint {given}: nothing can meet that, as {name} is {_within(name)}; give a wider bound"
            )
    return problems


def _is_possible(constraints: Sequence[Constraint]) -> bool:
    """Return whether the measure of some constraints, one and the same, has a value within all of their bounds."""
    measure = constraints[0].measure
    low = max([measure.low, *(one.bound for one in constraints if ">" in one.comparison)])
    high = min([measure.high, *(one.bound for one in constraints if "<" in one.comparison)])
    inner = low if low == high else low + 1 if math.isinf(high) else (low + high) / 2
    return low <= high and all(one.allows(inner) for one in constraints)


def _within(name: str) -> str:
    """Describe the bounds of a measure."""
    measure = MEASURES[name]
    return f"from {measure.low:g}" + ("" if math.isinf(measure.high) else f" to {measure.high:g}")


@cache
def known_constraints(texts: tuple[str, ...]) -> tuple[Constraint, ...]:
    """Return the constraints that a plan has; those that a later version knows alone are left out."""
    found = list[Constraint]()
    for text in texts:
        try:
            found += parse_constraints([text])
        except ConfigError:
            continue
    return tuple(found)


@cache
def known_aims(texts: tuple[str, ...]) -> tuple[Aim, ...]:
    """Return the aims that a plan has beside the metric; those that a later version knows alone are left out."""
    parts = (text.partition(":") for text in texts)
    return tuple(_aim(name, way) for name, _, way in parts if name in MEASURES)


def broken(trial: TrialRecord, constraints: Iterable[Constraint]) -> list[Constraint]:
    """Return the constraints that a trial breaks, as far as it has run."""
    return [one for one in constraints if not one.allows(one.measure.value(trial))]


def judge(
    trials: Mapping[int, TrialRecord], constraints: Sequence[Constraint]
) -> Callable[[int, int | None], dict[str, float]]:
    """Return what says how far a trial was beyond each constraint after an epoch, or at its end: above 0 it breaks it.

    It depends on the trial's epochs up to that one alone, so that a replay, which has them all, finds the same.
    """

    def excesses(number: int, epoch: int | None) -> dict[str, float]:
        if not constraints:
            return {}
        trial = trials[number] if epoch is None else trials[number].up_to(epoch)
        return {str(one): one.excess(one.measure.value(trial)) for one in constraints}

    return excesses


def without_gpus(aims: Iterable[Aim], constraints: Iterable[Constraint]) -> list[str]:
    """Return a message for each aim and constraint of which trials without a GPU have no value."""
    given = [(f"--also {aim}", aim.name) for aim in aims]
    given += [(f'--constraint "{one}"', one.name) for one in constraints]
    return [
        f"{option}: trials do not run on GPUs here; use peak_memory_mb"
        for option, name in given
        if MEASURES[name].on_gpus
    ]
