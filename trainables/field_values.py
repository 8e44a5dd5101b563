"""The values that fields of a configuration allow."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from trainables.epoch_metrics import is_user_metric
from trainables.errors import listed
from trainables.model_names import HUB, TIMM, is_timm, is_user_model


@dataclass(frozen=True)
class Interval:
    """The numbers that a field allows: from `low` to `high`, each included unless it is open."""

    low: float
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return False
        above = value > self.low if self.open_low else value >= self.low
        return above and (value < self.high if self.open_high else value <= self.high)

    def __str__(self) -> str:
        if math.isinf(self.high):
            return f"{'above' if self.open_low else 'at least'} {self.low:g}"
        return f"in {'(' if self.open_low else '['}{self.low:g}, {self.high:g}{')' if self.open_high else ']'}"


@dataclass(frozen=True)
class OneOf:
    """The names that a field allows."""

    names: tuple[str, ...]

    def __contains__(self, value: object) -> bool:
        return value in self.names

    def __str__(self) -> str:
        return f"one of {listed(self.names)}"


@dataclass(frozen=True)
class ModelName(OneOf):
    """Names of built-in models, and every name that looks like timm's or the user's: importing shows if those exist."""

    def __contains__(self, value: object) -> bool:
        return value in self.names or (isinstance(value, str) and (is_user_model(value) or is_timm(value)))

    def __str__(self) -> str:
        return f"{super().__str__()}, timm:NAME or package.module:factory"


WEIGHTS = ("none", "imagenet")
"""Names of initial weights that are no place."""


def is_place(weights: str) -> bool:
    """Return whether initial weights are a file or a folder, by their name."""
    return weights not in WEIGHTS and not weights.startswith((TIMM, HUB))


@dataclass(frozen=True)
class MetricName(OneOf):
    """Names of metrics, and every name that looks like a function of the user's: importing shows if it exists."""

    def __contains__(self, value: object) -> bool:
        return value in self.names or is_user_metric(value)

    def __str__(self) -> str:
        return f"{super().__str__()}, package.module:function or package.module:function:min"


@dataclass(frozen=True)
class WeightsSource:
    """Sources of initial weights: none, ImageNet, files, folders of them, timm's, or the Hugging Face Hub."""

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, str):
            return False
        if value.startswith(HUB):
            return re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", value.removeprefix(HUB)) is not None
        if value.startswith(TIMM):
            return is_timm(value)
        path = Path(value)
        return value in WEIGHTS or path.suffix in (".safetensors", ".pth", ".pt", ".bin") or _is_folder(value, path)

    def __str__(self) -> str:
        return (
            "none, imagenet, a .safetensors, .pth or .pt file, a folder of such files (./NAME), timm:NAME.TAG or "
            "hf-hub:ORGANIZATION/NAME"
        )


def _is_folder(value: str, path: Path) -> bool:
    """Return whether a text names a folder: it looks like a path, or there is such a folder here."""
    return bool(value) and ("/" in value or value in (".", "..", "~") or path.is_dir())


@dataclass(frozen=True)
class ClassNumbers:
    """Numbers of some of a data set's classes."""

    def __contains__(self, value: object) -> bool:
        return isinstance(value, str) and re.fullmatch(r"(\d+(,\d+)*)?", value) is not None

    def __str__(self) -> str:
        return "numbers of classes, counted from 0, with commas between them, such as 0,3"


@dataclass(frozen=True)
class SplitName:
    """Splits into the rows that a trial trains on and is scored on; shares are whole numbers of any sum."""

    def __contains__(self, value: object) -> bool:
        if value in ("core", "all", "official"):
            return True
        return isinstance(value, str) and re.fullmatch(r"[1-9]\d{0,3}(:[1-9]\d{0,3}){1,2}", value) is not None

    def __str__(self) -> str:
        return (
            "core, all, official, or whole shares TRAIN:TEST or TRAIN:VALIDATION:TEST of all rows, such as 80:20 or "
            "70:15:15"
        )


Allowed = Interval | OneOf | WeightsSource | ClassNumbers | SplitName
