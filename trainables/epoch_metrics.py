"""What one epoch of a trial measures."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

METRICS = {
    "val_accuracy": "max",
    "val_f1": "max",
    "val_precision": "max",
    "val_recall": "max",
    "val_roc_auc": "max",
    "val_loss": "min",
}
"""The metrics a sweep may optimise, and their direction. All are measured on the validation core."""


StopReason = Literal["budget", "patience"]
"""Why a trial ended by itself: all its epochs were run, or its score did not improve for `patience` epochs."""


CONFUSION_CLASSES = 20
"""So many classes at most have a confusion matrix every epoch: the record of an epoch stays a short line."""


CONFUSED_PAIRS, CONFUSED_ROWS = 6, 3
"""So many pairs of classes that are confused most are told every epoch, and so many rows of each as examples."""


@dataclass(frozen=True)
class EpochMetrics:
    """What one epoch measured. Epochs count from 1; `step` counts optimizer steps since the trial began.

    `train_loss` and `train_accuracy` are means over the epoch's batches as trained (augmented, dropout on, smoothed
    targets); `val_loss` is plain cross-entropy on the rows that the trial is scored on. A metric that is undefined is
    None.
    """

    epoch: int
    step: int
    lr: float
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    val_f1: float | None
    val_precision: float | None
    val_recall: float | None
    val_roc_auc: float | None
    train_s: float  # seconds in training steps
    eval_s: float  # seconds in evaluation forwards
    images_per_s: float  # rows trained a second of train_s
    peak_memory_mb: float  # of the process
    peak_gpu_mb: float | None  # of CUDA's allocator; None on a CPU
    val_confusion: list[list[int]] | None  # row = label, column = prediction; None beyond `CONFUSION_CLASSES`
    stop_reason: StopReason | None = None  # set on the trial's last epoch
    val_confused: list[list[int]] = dataclasses.field(default_factory=list)  # [label, prediction, count, row, …] a pair

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


OF_THE_RUN = ("train_s", "eval_s", "images_per_s", "peak_memory_mb", "peak_gpu_mb")
"""Of `EpochMetrics` what differs from run to run of one trial."""


def better(metric: str, score: float | None, than: float | None) -> bool:
    """Whether `score` improves on `than` in the metric's direction; undefined is worse than anything."""
    if score is None:
        return False
    if than is None:
        return True
    return score > than if METRICS[metric] == "max" else score < than
