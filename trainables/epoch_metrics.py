"""The metrics of one epoch of a trial: the one list that the search, the tables and the report derive theirs from."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from trainables.errors import look_up

Direction = Literal["max", "min"]
StopReason = Literal["budget", "patience"]
"""Why a trial ended by itself: all its epochs were run, or its score did not improve for `patience` epochs."""


MANY_CLASSES = 20
"""Most classes with which every epoch has a confusion matrix, the record of an epoch being a short line, and an area
under the ROC curve. With more, an epoch has the area only if it is the metric to optimize."""


TOP = 5
"""Classes among which a label must be for `val_top5_accuracy`; it is defined for more classes than that."""


TEMPERATURES = (0.25, 10.0)
"""Bounds of a fitted temperature: it would fall to 0 if all rows were labelled correctly."""


CONFUSED_PAIRS, CONFUSED_ROWS = 6, 3
"""Pairs of classes, those confused most, that every epoch records, and rows of each as examples; at most."""


def _about(
    meaning: str,
    direction: Direction | None = None,
    *,
    optimizable: bool = False,
    on_leaderboard: bool = False,
    of_the_run: bool = False,
) -> dict[str, Any]:
    """Return the metadata of a field of `EpochMetrics`.

    Args:
        direction: in which the metric gets better, if there is one.
        optimizable: a sweep may optimize it. It is then a field of `metrics.Scores` as well, there without `val_`.
        on_leaderboard: the leaderboard shows its value in the best epoch, as it does of all that are optimizable.
        of_the_run: it differs between runs of the same trial.
    """
    return {
        "meaning": meaning,
        "direction": direction,
        "optimizable": optimizable,
        "on_leaderboard": on_leaderboard or optimizable,
        "of_the_run": of_the_run,
    }


@dataclass(frozen=True)
class EpochMetrics:
    """Metrics of one epoch. Epochs count from 1; `step` counts optimizer steps since the trial began.

    `train_loss` and `train_accuracy` are means over the epoch's batches as trained (augmented, dropout on, smoothed
    targets; of a mixed target the predicted class's share counts as correct); `val_loss` is plain cross-entropy on the
    rows that the trial is scored on. A metric that is undefined is None, as are all of the scored rows where there are
    none.
    """

    epoch: int = field(metadata=_about("epoch, counted from 1"))
    step: int = field(metadata=_about("optimizer steps since the trial began"))
    lr: float = field(metadata=_about("learning rate of the epoch's last step"))
    train_loss: float = field(
        metadata=_about("mean training loss, with everything that regularizes it", "min", on_leaderboard=True)
    )
    train_accuracy: float = field(metadata=_about("accuracy on the batches as trained", "max"))
    val_loss: float | None = field(metadata=_about("cross-entropy on the scored rows", "min", optimizable=True))
    val_accuracy: float | None = field(
        metadata=_about("share of scored rows that are labelled correctly", "max", optimizable=True)
    )
    val_balanced_accuracy: float | None = field(
        metadata=_about("mean recall of the classes that have scored rows", "max", optimizable=True)
    )
    val_top5_accuracy: float | None = field(
        metadata=_about(
            "share of scored rows whose label is among the 5 likeliest classes; None of at most 5 classes",
            "max",
            optimizable=True,
        )
    )
    val_f1: float | None = field(metadata=_about("F1 on the scored rows, macro-averaged", "max", optimizable=True))
    val_precision: float | None = field(
        metadata=_about("precision on the scored rows, macro-averaged", "max", optimizable=True)
    )
    val_recall: float | None = field(
        metadata=_about("recall on the scored rows, macro-averaged", "max", optimizable=True)
    )
    val_worst_recall: float | None = field(
        metadata=_about(
            "recall of the class that is recognized least, of those with scored rows", "max", optimizable=True
        )
    )
    val_mcc: float | None = field(
        metadata=_about("Matthews' correlation coefficient on the scored rows, in -1..1", "max", optimizable=True)
    )
    val_roc_auc: float | None = field(
        metadata=_about(
            f"area under the ROC curve, one class against the rest; None of over {MANY_CLASSES} classes, "
            "unless it is the metric",
            "max",
            optimizable=True,
        )
    )
    train_s: float = field(metadata=_about("seconds in training steps", of_the_run=True))
    eval_s: float = field(metadata=_about("seconds in the evaluation's forward passes", of_the_run=True))
    images_per_s: float = field(metadata=_about("rows trained per second of train_s", of_the_run=True))
    peak_memory_mb: float = field(metadata=_about("peak memory of the process, in MB", of_the_run=True))
    peak_gpu_mb: float | None = field(
        metadata=_about("peak memory of CUDA's allocator, in MB; None on a CPU", of_the_run=True)
    )
    val_confusion: list[list[int]] | None = field(
        metadata=_about(f"confusion matrix: row = label, column = prediction; None of over {MANY_CLASSES} classes")
    )
    stop_reason: StopReason | None = field(default=None, metadata=_about("why the trial ended, in its last epoch"))
    val_confused: list[list[int]] = field(
        default_factory=list, metadata=_about("pairs of classes confused most, each [label, prediction, count, row, …]")
    )
    skipped_steps: int = field(
        default=0, metadata=_about("optimizer steps that were left out, as numbers overflowed under float16")
    )
    own: dict[str, float | None] = field(
        default_factory=dict, metadata=_about("the user's metric, `val_` and its function's name → value")
    )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values: the user's metric beside all others."""
        values = dataclasses.asdict(self)
        own: dict[str, float | None] = values.pop("own")
        return values | own


_FIELDS = {f.name: f.metadata for f in dataclasses.fields(EpochMetrics)}
_DIRECTIONS: dict[str, Direction] = {name: about["direction"] for name, about in _FIELDS.items() if about["direction"]}
_BY_DIRECTION = sorted(_DIRECTIONS, key=lambda name: (not _FIELDS[name]["optimizable"], _DIRECTIONS[name]))

METRICS = {name: _DIRECTIONS[name] for name in _BY_DIRECTION if _FIELDS[name]["optimizable"]}
"""The metrics that a sweep may optimize, and their direction; those to be maximized first."""


ON_LEADERBOARD = tuple(name for name in _BY_DIRECTION if _FIELDS[name]["on_leaderboard"])
"""The metrics of a trial's best epoch that the leaderboard has: `METRICS`, then others."""


OF_THE_RUN = tuple(name for name, about in _FIELDS.items() if about["of_the_run"])
"""The metrics that differ between runs of the same trial: seconds and memory."""


REAL_NUMBERS = tuple(f.name for f in dataclasses.fields(EpochMetrics) if str(f.type).startswith("float"))
"""The metrics that are real numbers, in the order of `EpochMetrics`."""


MEANINGS: dict[str, str] = {name: about["meaning"] for name, about in _FIELDS.items()}
"""Every metric in a few words."""


FINAL_METRICS = tuple(metric.removeprefix("val_") for metric in METRICS)
"""The metrics of each part of the data at a trial's end: those of `METRICS`."""


RESERVED = frozenset(
    (
        *(name.removeprefix("val_") for name in _FIELDS),
        *("rows", "seconds", "classes", "intervals", "correct", "confusion_cells", "predictions", "reliability"),
        *("calibration_error", "temperature", "tempered_error"),
    )
)
"""Names that a user's metric may not have: beside it they stand for something else."""


USER_METRIC = re.compile(r"([^\W\d][\w.]*:[^\W\d][\w.]*?)(:min)?")


def canonical(text: str) -> str:
    """Return a metric as a configuration names it: without the direction, unless it is a user's to be minimized."""
    name, _, rest = text.partition(":")
    return name if name in METRICS else text.removesuffix(":max") if rest.count(":") else text


def is_user_metric(metric: object) -> bool:
    """Return whether `metric` looks like `package.module:function`, or that with `:min` after it."""
    return isinstance(metric, str) and metric not in METRICS and USER_METRIC.fullmatch(metric) is not None


def function_of(metric: str) -> str:
    """Return the `package.module:function` of a user's metric."""
    return metric.removesuffix(":min")


@cache
def direction_of(metric: str) -> Direction:
    """Return in which direction `metric`, one of `METRICS` or the user's, gets better."""
    if is_user_metric(metric):
        return "min" if metric.endswith(":min") else "max"
    return look_up(METRICS, metric, "metric")


@cache
def column(metric: str) -> str:
    """Return the name of `metric` among those of an epoch: of a user's `val_` and the function's name."""
    return f"val_{score_name(metric)}" if is_user_metric(metric) else metric


def score_name(metric: str) -> str:
    """Return the name of `metric` among the final metrics of a part of the data."""
    return re.split("[.:]", function_of(metric))[-1] if is_user_metric(metric) else metric.removeprefix("val_")


def better(metric: str, score: float | None, than: float | None) -> bool:
    """Return whether `score` improves on `than` in the metric's direction; None, undefined, is worse than anything."""
    if score is None:
        return False
    if than is None:
        return True
    return score > than if direction_of(metric) == "max" else score < than
