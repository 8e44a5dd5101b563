"""The configuration of one trial: its fields, what each may be, and their values in dicts.

A configuration is frozen and made of plain values only: it travels through Ray, the journal and the leaderboard as a
dict. Importing this file imports nothing heavy.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainables import former_names
from trainables.epoch_metrics import METRICS
from trainables.errors import LONG_LIST, ConfigError, listed, suggestion
from trainables.field_values import (
    Allowed,
    ClassNumbers,
    Interval,
    MetricName,
    ModelName,
    OneOf,
    SplitName,
    WeightsSource,
)
from trainables.model_names import MODELS


def _field(default: Any, allowed: Allowed, meaning: str, augments: bool = False) -> Any:
    """Return a field with its allowed values and meaning; `augments`: it changes images at random unless it is 0."""
    metadata = {"allowed": allowed, "meaning": meaning, "augments": augments}
    return dataclasses.field(default=default, metadata=metadata)


def _flag(default: bool, meaning: str, augments: bool = False) -> Any:
    return _field(default, OneOf(("true", "false")), meaning, augments)


@dataclass(frozen=True)
class TrialConfig:
    """Everything that decides how one trial trains.

    A field's allowed values and its meaning stand beside it; values are checked on construction.

    Raises:
        ConfigError: naming every value that is not allowed.
    """

    model: str = _field("resnet18", ModelName(MODELS), "network architecture")
    stem: str = _field(
        "auto",
        OneOf(("auto", "imagenet", "small")),
        "first layers of the network: as for ImageNet, or for small images; auto: small below 64 pixels, but not with "
        "initial weights, which know ImageNet's",
    )
    weights: str = _field("none", WeightsSource(), "initial weights; none: drawn at random")
    dropout: float = _field(0.0, Interval(0, 1, open_high=True), "probability of dropout before the last layer")
    stochastic_depth: float = _field(
        0.0,
        Interval(0, 1, open_high=True),
        "probability that a row skips the last residual branch in training, falling linearly to the first; 0: as the "
        "model has it",
    )
    head_width: int = _field(0, Interval(0), "units of a hidden layer with ReLU before the last layer; 0: none")
    freeze: bool = _flag(False, "train the head only; all other weights and batch norm's statistics stay as they are")
    head_epochs: int = _field(
        0, Interval(0), "epochs in which the head learns alone, at the peak rate; the schedule begins after them"
    )
    unfreeze_epochs: int = _field(
        0, Interval(0), "epochs after these over which layers begin to learn, the last ones first; 0: all at once"
    )

    optimizer: str = _field("sgd", OneOf(("sgd", "adam", "adamw")), "optimizer; sgd has Nesterov momentum")
    lr: float = _field(0.1, Interval(0, open_low=True), "peak learning rate")
    base_lr: float = _field(
        1.0, Interval(0, 1, open_low=True), "factor of the learning rate for all layers but the head"
    )
    lr_decay: float = _field(
        1.0,
        Interval(0, 1, open_low=True),
        "factor of the learning rate from each layer to the one before it, counted from the head",
    )
    weight_decay: float = _field(
        5e-4, Interval(0), "weight decay per step, of the weights of convolutions and linear layers alone"
    )
    momentum: float = _field(0.9, Interval(0, 1, open_high=True), "momentum of sgd; beta1 of adam and adamw")
    grad_clip: float = _field(0.0, Interval(0), "largest norm of the gradient; 0: no clipping")
    schedule: str = _field(
        "cosine",
        OneOf(("constant", "cosine", "one_cycle", "cyclic", "plateau")),
        "how the learning rate changes during training",
    )
    warmup: float = _field(
        0.0, Interval(0, 1, open_high=True), "share of the steps in which the learning rate rises to its peak"
    )
    ema: float = _field(
        0.0,
        Interval(0, 1, open_high=True),
        "decay per step of a moving average of the weights, which is scored and kept; 0: no average",
    )
    batch_size: int = _field(128, Interval(1), "rows per step")
    micro_batch: int = _field(
        0, Interval(0), "rows that are computed at a time, at most, to save memory; gradients are added up; 0: all"
    )
    max_epochs: int = _field(30, Interval(1), "epochs of a trial, at most; schedules span them")
    stop_epoch: int = _field(0, Interval(0), "epoch after which a trial ends; schedules span max_epochs; 0: none")
    patience: int = _field(0, Interval(0), "epochs without a better score after which a trial stops; 0: never")
    selection: str = _field("best", OneOf(("best", "last")), "the epoch whose weights and score a trial ends with")
    label_smoothing: float = _field(
        0.0, Interval(0, 1, open_high=True), "share of the target that is spread over the classes"
    )
    smoothed_over: str = _field(
        "all", OneOf(("all", "others")), "classes that label smoothing spreads its share over: all, or the wrong ones"
    )
    focal_gamma: float = _field(0.0, Interval(0), "exponent gamma of the focal loss; 0: plain cross-entropy")
    class_weights: str = _field(
        "none", OneOf(("none", "inverse")), "weights of classes in the loss; inverse: one over their frequencies"
    )
    logit_adjustment: float = _field(
        0.0,
        Interval(0),
        "factor tau of the log of the classes' shares, which is added to the logits in training; 0: nothing is",
    )
    head_l1: float = _field(0.0, Interval(0), "factor of the L1 penalty on the head's weights, added to the loss")
    head_l2: float = _field(0.0, Interval(0), "factor of the L2 penalty on the head's weights, added to the loss")

    split: str = _field(
        "core", SplitName(), "rows that are trained and scored on; core: scored on the validation set; all: on none"
    )
    train_fraction: float = _field(1.0, Interval(0, 1, open_low=True), "share of the pool that is trained on")
    removed_share: float = _field(
        0.0, Interval(0, 1, open_high=True), "share of the rows of removed_classes that is left out of the pool"
    )
    removed_classes: str = _field("", ClassNumbers(), "classes of which the pool lacks the share removed_share")
    long_tail: float = _field(
        1.0,
        Interval(0, 1, open_low=True),
        "share of rows that the last class keeps; from the first class, which keeps all, shares fall exponentially",
    )
    epoch: str = _field(
        "pool", OneOf(("pool", "rows")), "rows in an epoch: as many as in the whole pool, or as are trained on"
    )
    sampling: str = _field(
        "shuffled", OneOf(("shuffled", "balanced")), "order of the rows; balanced: every class is seen equally often"
    )
    image_size: int = _field(
        0,
        Interval(0),
        "pixels of the images' sides; 0: the size that the initial weights know; without weights as the shorter side "
        "is stored, but at most 224, on a CPU at most 64",
    )
    fit: str = _field(
        "crop",
        OneOf(("crop", "pad", "squash")),
        "how pictures become squares: by their center crop, with the background's color around them, or out of shape",
    )
    interpolation: str = _field(
        "auto",
        OneOf(("auto", "bilinear", "bicubic")),
        "how pictures are scaled, with antialiasing; auto: as for the initial weights, bilinear without any",
    )
    normalization: str = _field(
        "auto",
        OneOf(("auto", "train", "imagenet", "half", "clip", "dpn", "none")),
        "mean and deviation that images are normalized by: the training rows', ImageNet's, 0.5 each, those of CLIP or "
        "of DPN, or none; auto: those of the initial weights, the training rows' without any",
    )
    evaluation_crop: float = _field(
        1.0, Interval(0, 1, open_low=True), "share of the shorter side in the center crop that is evaluated"
    )
    evaluation_views: str = _field(
        "one",
        OneOf(("one", "flip")),
        "views that a prediction is the mean of: the picture, or also its mirror image; a frozen base's features too",
    )
    flip: bool = _flag(False, "mirror images left to right, with probability 0.5", augments=True)
    resized_crop: float = _field(
        0.0,
        Interval(0, 1, open_high=True),
        "smallest share of the area in a random resized crop; 0: no such crop",
        augments=True,
    )
    crop_padding: int = _field(
        0, Interval(0), "pixels of zeros around the image before a random crop; 0: no such crop", augments=True
    )
    rotation: float = _field(
        0.0, Interval(0, 180), "random rotation by up to so many degrees, either way", augments=True
    )
    shift: float = _field(
        0.0, Interval(0, 1), "random shift by up to this share of width and height, either way", augments=True
    )
    scale: float = _field(0.0, Interval(0, 1, open_high=True), "random zoom by a factor within 1 ± this", augments=True)
    brightness: float = _field(
        0.0, Interval(0, 1), "random change of brightness, by a factor within 1 ± this", augments=True
    )
    contrast: float = _field(
        0.0, Interval(0, 1), "random change of contrast, by a factor within 1 ± this", augments=True
    )
    saturation: float = _field(
        0.0, Interval(0, 1), "random change of color saturation, by a factor within 1 ± this", augments=True
    )
    trivial_augment: bool = _flag(
        False, "one of 14 operations of random strength on each image, as TrivialAugment (wide) has them", augments=True
    )
    erasing: float = _field(
        0.0, Interval(0, 1), "probability that a random box of an image becomes the normalization's mean", augments=True
    )
    mixup: float = _field(
        0.0,
        Interval(0),
        "alpha of mixup: a batch's images and their targets are blended in pairs, by shares from Beta(alpha, alpha); "
        "0: no mixup",
        augments=True,
    )
    cutmix: float = _field(
        0.0,
        Interval(0),
        "alpha of CutMix: a box of each image is another's, and so is its share of the target; 0: no CutMix; with "
        "mixup too, a batch has one or the other",
        augments=True,
    )

    metric: str = _field(
        "val_accuracy", MetricName(tuple(METRICS)), "metric whose best value so far is a trial's score"
    )
    positive_class: str = _field(
        "1", OneOf(("0", "1", "rarest")), "of two classes, the one whose precision, recall and F1 are measured"
    )
    precision: str = _field(
        "auto",
        OneOf(("auto", "float32", "bfloat16", "float16")),
        "numbers that the network computes with; auto: what suits the hardware best",
    )
    memory_format: str = _field(
        "auto",
        OneOf(("auto", "contiguous", "channels_last")),
        "memory layout of images; auto: what suits the hardware best",
    )
    threads: int = _field(0, Interval(0), "CPU threads of a trial; 0: as many as its slot has CPUs")
    seed: int = _field(0, Interval(0, 2**63 - 1), "seed for initial weights, data order, augmentation and dropout")

    def __post_init__(self) -> None:
        problems = check_values(dataclasses.asdict(self))
        if problems:
            raise ConfigError(*problems)

    @property
    def augments(self) -> bool:
        """True if images are changed at random."""
        return any(getattr(self, name) for name in AUGMENTING)

    def replace(self, **changes: Any) -> TrialConfig:
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrialConfig:
        """Build a configuration from some of its fields; raise ConfigError for unknown ones and for wrong values."""
        values = former_names.config(values)
        problems = check_values(values)
        if problems:
            raise ConfigError(*problems)
        return cls(**{name: coerce(name, value) for name, value in values.items()})

    def digest(self) -> str:
        """Return 16 hex digits of the SHA-256 of the canonical JSON: equal configurations have equal digests."""
        canonical = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def format_key(config: Mapping[str, Any], device: str | None) -> str:
    """Return a key for what decides how a sweep resolves a trial's autos: some fields, and the kind of device."""
    numbers = config["precision"], config["memory_format"]
    sizes = (f"{config.get('image_size') or 'auto'} px", f"{timed_rows(config)} rows") if "auto" in numbers else ()
    frozen = ("frozen",) if config.get("freeze") else ()
    return "/".join((config["model"], *numbers, *sizes, *frozen, device or ""))


def format_of(config: TrialConfig) -> dict[str, str]:
    """Return the numeric format of a configuration: the fields whose autos are resolved once a sweep."""
    return {"precision": config.precision, "memory_format": config.memory_format}


def timed_rows(config: Mapping[str, Any]) -> int:
    """Return the rows of the steps by which a numeric format is chosen: a power of two, for few different ones.

    They are at most those that the trial computes at a time. With fewer another format may be fastest.
    """
    at_a_time = min(config["batch_size"], config.get("micro_batch") or MOST_ROWS, MOST_ROWS)
    return 1 << (int(at_a_time).bit_length() - 1)


FIELDS: dict[str, dataclasses.Field[Any]] = {f.name: f for f in dataclasses.fields(TrialConfig)}
FIELD_TYPES: dict[str, type] = {name: type(f.default) for name, f in FIELDS.items()}
AUGMENTING = tuple(name for name, f in FIELDS.items() if f.metadata["augments"])
"""The fields that change images at random, unless they are zero."""


MOST_ROWS = 128  # of a step that is timed
PAGE = "docs/fields.md"
"""The page that lists all fields and models."""
SYNONYMS = {
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
    "random_erasing": "erasing",
    "trivialaugment": "trivial_augment",
    "tau": "logit_adjustment",
}
"""Other common names of fields, for suggestions."""


def check_values(values: Mapping[str, Any]) -> list[str]:
    """Return a message for each entry that `TrialConfig` would refuse; an empty list if there is none."""
    return [problem for name, value in values.items() if (problem := _problem(name, value))]


def _problem(name: str, value: Any) -> str:
    """Return a message about a wrong field or value; an empty one if nothing is wrong."""
    if name not in FIELDS:
        return f"unknown field {name!r}{suggestion(SYNONYMS.get(name, name), FIELDS, f'{listed(FIELDS)}; see {PAGE}')}"
    allowed, kind = FIELDS[name].metadata["allowed"], FIELD_TYPES[name]
    if kind is bool:
        return "" if isinstance(value, bool) else f"{name}={value!r}: allowed are true and false"
    if kind is int and isinstance(value, float):
        return f"{name}={value!r}: a whole number is needed, {allowed}"
    if value in allowed:
        return ""
    names = allowed.names if isinstance(allowed, OneOf) and isinstance(value, str) else ()
    where = f"; see {PAGE}" if len(names) > LONG_LIST else ""
    return f"{name}={value!r} is not allowed{suggestion(str(value), names, f'{allowed}{where}')}"


def coerce(name: str, value: Any) -> Any:
    """Return a whole number given for a field of real numbers as a float: 1 and 1.0 are one configuration."""
    return float(value) if FIELD_TYPES[name] is float else value
