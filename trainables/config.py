"""What one trial is (`TrialConfig`) and what one epoch of it yields (`EpochMetrics`).

Both are frozen, made of plain values only, and go to and from plain dicts: they travel through Ray, the journal
and the leaderboard unchanged. Importing this file imports nothing heavy.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from trainables.epoch_metrics import METRICS
from trainables.errors import ConfigError, did_you_mean
from trainables.field_values import Allowed, ClassNumbers, Interval, ModelName, OneOf, SplitName, WeightsSource
from trainables.model_names import MODELS

AUGMENTATIONS = (
    "flip", "resized_crop", "crop_padding", "rotation", "shift", "scale", "brightness", "contrast", "saturation",
)  # fmt: skip
"""The fields that change images at random, unless they are zero."""


def _field(default: Any, allowed: Allowed, unit: str) -> Any:
    return dataclasses.field(default=default, metadata={"allowed": allowed, "unit": unit})


def _flag(default: bool, unit: str) -> Any:
    return dataclasses.field(default=default, metadata={"allowed": OneOf(("true", "false")), "unit": unit})


@dataclass(frozen=True)
class TrialConfig:
    """Everything that decides how one trial trains.

    A field's allowed values and unit stand beside it and are checked on construction.

    Raises:
        ConfigError: naming every field whose value is not allowed.
    """

    model: str = _field("resnet18", ModelName(MODELS), "architecture")
    stem: str = _field("auto", OneOf(("auto", "imagenet", "small")), "first layers; auto: small below 64 px")
    weights: str = _field("none", WeightsSource(), "initial weights")
    dropout: float = _field(0.0, Interval(0, 1, open_high=True), "probability, before the head")
    head_width: int = _field(0, Interval(0), "units of a layer with ReLU before the last one; 0: none")
    freeze: bool = _flag(False, "all but the head keeps its weights, batch norm its statistics")

    optimizer: str = _field("sgd", OneOf(("sgd", "adam", "adamw")), "sgd has Nesterov momentum")
    lr: float = _field(0.1, Interval(0, open_low=True), "peak learning rate")
    weight_decay: float = _field(5e-4, Interval(0), "a step; biases and norms have none")
    momentum: float = _field(0.9, Interval(0, 1, open_high=True), "of sgd; beta1 of adam and adamw")
    grad_clip: float = _field(0.0, Interval(0), "largest gradient norm; 0: no clipping")
    schedule: str = _field(
        "cosine", OneOf(("constant", "cosine", "one_cycle", "cyclic", "plateau")), "of the learning rate"
    )
    warmup: float = _field(0.0, Interval(0, 1, open_high=True), "share of the steps in which the rate rises")
    batch_size: int = _field(128, Interval(1), "rows a step")
    max_epochs: int = _field(30, Interval(1), "epochs; schedules span them")
    patience: int = _field(0, Interval(0), "epochs without a better score before stopping; 0: never")
    selection: str = _field("best", OneOf(("best", "last")), "the epoch whose weights and score a trial ends with")
    label_smoothing: float = _field(0.0, Interval(0, 1, open_high=True), "share of the target spread over classes")
    smoothed_over: str = _field("all", OneOf(("all", "others")), "classes that get that share: all, or the wrong ones")
    focal_gamma: float = _field(0.0, Interval(0), "of the focal loss; 0: plain cross-entropy")
    class_weights: str = _field("none", OneOf(("none", "inverse")), "of the loss; inverse: of a class's frequency")
    head_l1: float = _field(0.0, Interval(0), "times the sum of the head's absolute weights, added to the loss")
    head_l2: float = _field(0.0, Interval(0), "times the sum of the head's squared weights, added to the loss")

    split: str = _field("core", SplitName(), "rows trained and scored on; core: see docs/design.md")
    train_fraction: float = _field(1.0, Interval(0, 1, open_low=True), "share of the pool trained on")
    removed_share: float = _field(0.0, Interval(0, 1, open_high=True), "share of the rows of removed_classes left out")
    removed_classes: str = _field("", ClassNumbers(), "classes of which rows are left out of the pool")
    long_tail: float = _field(
        1.0, Interval(0, 1, open_low=True), "rows kept of the last class; between it and the first exponentially"
    )
    epoch: str = _field("pool", OneOf(("pool", "rows")), "as many rows as the whole pool has, or as are trained on")
    sampling: str = _field("shuffled", OneOf(("shuffled", "balanced")), "balanced: every class equally often")
    image_size: int = _field(0, Interval(0), "pixels, the shorter side; 0: as stored, at most 224, on a CPU 64")
    normalization: str = _field("train", OneOf(("train", "imagenet", "half", "none")), "whose mean and deviation")
    evaluation_crop: float = _field(1.0, Interval(0, 1, open_low=True), "share of the shorter side, about the middle")
    flip: bool = _flag(False, "horizontal, probability 0.5")
    resized_crop: float = _field(
        0.0, Interval(0, 1, open_high=True), "smallest share of the area in a random resized crop; 0: none"
    )
    crop_padding: int = _field(0, Interval(0), "pixels of zeros around the image before a random crop")
    rotation: float = _field(0.0, Interval(0, 180), "degrees, at most, either way")
    shift: float = _field(0.0, Interval(0, 1), "share of width and height, at most, either way")
    scale: float = _field(0.0, Interval(0, 1, open_high=True), "zoom by a factor of 1 ± this, at most")
    brightness: float = _field(0.0, Interval(0, 1), "factor of 1 ± this, at most")
    contrast: float = _field(0.0, Interval(0, 1), "factor of 1 ± this, at most")
    saturation: float = _field(0.0, Interval(0, 1), "factor of 1 ± this, at most")

    metric: str = _field("val_accuracy", OneOf(tuple(METRICS)), "its running best is the score")
    positive_class: str = _field(
        "1", OneOf(("0", "1", "rarest")), "of two classes, the one whose precision, recall and F1 are told"
    )
    precision: str = _field("auto", OneOf(("auto", "float32", "bfloat16", "float16")), "of autocast")
    memory_format: str = _field("auto", OneOf(("auto", "contiguous", "channels_last")), "layout of activations")
    threads: int = _field(0, Interval(0), "CPU threads; 0: those of the slot")
    seed: int = _field(0, Interval(0, 2**63 - 1), "of weights, order, augmentation and dropout")

    def __post_init__(self) -> None:
        problems = check_values(dataclasses.asdict(self))
        if problems:
            raise ConfigError(*problems)

    @property
    def augments(self) -> bool:
        """Whether images are changed at random."""
        return any(getattr(self, name) for name in AUGMENTATIONS)

    def replace(self, **changes: Any) -> TrialConfig:
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrialConfig:
        """Raises ConfigError for unknown fields, wrong types and values that are not allowed."""
        problems = check_values(values)
        if problems:
            raise ConfigError(*problems)
        return cls(**{name: coerce(name, value) for name, value in values.items()})

    def digest(self) -> str:
        """16 hex digits of the SHA-256 of the canonical JSON: equal configurations have equal digests."""
        canonical = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def format_key(config: Mapping[str, Any]) -> str:
    """Names the trials of a sweep that resolve their autos alike, given their fields as a dict."""
    return "/".join(config[name] for name in ("model", "precision", "memory_format"))


FIELDS: dict[str, dataclasses.Field[Any]] = {f.name: f for f in dataclasses.fields(TrialConfig)}
FIELD_TYPES: dict[str, type] = {name: type(f.default) for name, f in FIELDS.items()}
OTHER_NAMES = {
    "learning_rate": "lr",
    "epochs": "max_epochs",
    "batch": "batch_size",
    "arch": "model",
    "architecture": "model",
    "network": "model",
    "wd": "weight_decay",
    "scheduler": "schedule",
    "amp": "precision",
    "resolution": "image_size",
    "pretrained": "weights",
}
"""What people call fields elsewhere."""


def check_values(values: Mapping[str, Any]) -> list[str]:
    """A sentence for each entry that `TrialConfig` would refuse; an empty list if there is none."""
    problems = []
    for name, value in values.items():
        if name not in FIELDS:
            near = did_you_mean(OTHER_NAMES.get(name, name), FIELDS)
            problems.append(f"unknown field {name!r}{near} (fields: {', '.join(FIELDS)})")
            continue
        allowed, kind = FIELDS[name].metadata["allowed"], FIELD_TYPES[name]
        if kind is bool:
            if not isinstance(value, bool):
                problems.append(f"{name}={value!r}: allowed are true and false")
            continue
        if kind is int and isinstance(value, float):
            problems.append(f"{name}={value!r}: a whole number is needed, {allowed}")
        elif value not in allowed:
            near = did_you_mean(value, allowed.names) if isinstance(allowed, OneOf) and isinstance(value, str) else ""
            problems.append(f"{name}={value!r} is not allowed{near} (allowed: {allowed})")
    return problems


def parse_value(name: str, text: str) -> Any:
    """`text` as a value of field `name`; what is no number stays text and is refused by the field's own check."""
    kind = FIELD_TYPES[name]
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    if kind is str:
        return text
    try:
        number = float(text)
    except ValueError:
        return text
    return int(number) if kind is int and number.is_integer() else number


def parse_fields(
    texts: Iterable[str],
    form: str,
    parse: Callable[[str, str], Any] = parse_value,
    elsewhere: Mapping[str, str] = MappingProxyType({}),
) -> tuple[dict[str, Any], list[str]]:
    """`FIELD=…` texts as a dict of parsed values, and a sentence for each that cannot be parsed.

    Args:
        form: what a text should look like, for the sentences.
        parse: (field, text after the =) to a value; may raise ConfigError.
        elsewhere: fields that are not given here, and the option that decides each.
    """
    parsed: dict[str, Any] = {}
    problems: list[str] = []
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            problems.append(f"{text!r} is not of the form {form} (a data set goes before the options)")
        elif name in elsewhere:
            problems.append(f"{name} belongs to the whole sweep: use {elsewhere[name]}")
        elif name not in FIELDS:
            problems += check_values({name: value})
        else:
            try:
                parsed[name] = parse(name, value.strip())
            except ConfigError as error:
                problems += error.problems
    return parsed, problems


def coerce(name: str, value: Any) -> Any:
    """A whole number given for a field of real numbers, as a real number: 1 and 1.0 are one configuration."""
    return float(value) if FIELD_TYPES[name] is float else value
