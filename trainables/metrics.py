"""Metrics of a classifier's logits, computed with torch on their device, and tested against scikit-learn.

scikit-learn itself would cost each epoch of a small trial 5–10 ms, and each worker's start 0.9 s. Nothing here is of
the size classes × classes, and what is computed from every logit is computed in parts: a thousand classes are usual.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from trainables.count_metrics import COUNT_METRICS, Counts, average
from trainables.epoch_metrics import CONFUSED_PAIRS, CONFUSED_ROWS, MANY_CLASSES, TOP

PART = 2**21  # numbers that are computed at a time


class Scores(NamedTuple):
    """Metrics of some rows: macro averages; of two classes, precision, recall, F1 and ROC-AUC are the positive one's.

    Those of counts are in `COUNT_METRICS`, which says when they are undefined: None.
    """

    loss: float
    accuracy: float
    balanced_accuracy: float
    top5_accuracy: float | None  # None of at most 5 classes
    f1: float | None
    precision: float | None
    recall: float | None
    worst_recall: float
    mcc: float | None
    roc_auc: float | None  # None, too, if it was not asked for


def scores(logits: Tensor, labels: Tensor, positive: int = 1, area: bool = True) -> Scores:
    """Return the scores of float32 logits [N, C] for int64 labels [N].

    Args:
        positive: of two classes the one that precision, recall, F1 and ROC-AUC are of.
        area: the ROC-AUC, which costs more than all others together, is wanted.
    """
    counts = class_counts(logits.argmax(1), labels, logits.shape[1])
    inside = in_top(logits, labels)
    return Scores(
        loss=_loss(logits, labels),
        top5_accuracy=None if inside is None else inside.double().mean().item(),
        roc_auc=roc_auc(_odds(logits), labels, positive) if area else None,
        **{name: of_counts(counts, positive) for name, of_counts in COUNT_METRICS.items()},  # type: ignore[arg-type]
    )


def class_counts(predictions: Tensor, labels: Tensor, classes: int) -> Counts:
    """Return the rows of each class by int64 predictions and labels [N]."""
    rights = labels[predictions == labels]
    return Counts(*(rows.bincount(minlength=classes).double() for rows in (rights, predictions, labels)))


def confusion_matrix(predictions: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Count predictions and labels, int64 [N] each, in int64 [C, C]: row = label, column = prediction."""
    cells = torch.bincount(labels * classes + predictions, minlength=classes * classes)
    return cells.reshape(classes, classes)


def confused(predictions: Tensor, labels: Tensor, rows: Tensor, classes: int) -> list[list[int]]:
    """Return the pairs of classes confused most, as lists [label, prediction, count, row, …] with examples of rows.

    `predictions`, `labels` and `rows` are int64 [N], `rows` on the CPU. Of pairs confused equally often the one with
    the lower label comes first, then the lower prediction.
    """
    cells = labels * classes + predictions
    wrong = (predictions != labels).cpu()
    cells, rows = cells.cpu()[wrong], rows[wrong]
    pairs, counts = torch.unique(cells, return_counts=True)
    most = counts.argsort(descending=True, stable=True)[:CONFUSED_PAIRS].tolist()
    return [
        [*divmod(int(pairs[i]), classes), int(counts[i]), *rows[cells == pairs[i]][:CONFUSED_ROWS].tolist()]
        for i in most
    ]


def confusions(logits: Tensor, labels: Tensor, rows: Tensor) -> dict[str, Any]:
    """Return the confusion matrix of an epoch's outputs, of few classes, and its `confused`, by their names there.

    `logits` are float32 [N, C], `labels` and `rows` int64 [N], `rows` on the CPU.
    """
    predictions, classes = logits.argmax(1), logits.shape[1]
    matrix = confusion_matrix(predictions, labels, classes).tolist() if classes <= MANY_CLASSES else None
    return {"val_confusion": matrix, "val_confused": confused(predictions, labels, rows, classes)}


def in_top(logits: Tensor, labels: Tensor) -> Tensor | None:
    """Return whether each label is among the `TOP` likeliest classes, bool [N]; None if that is all classes.

    Of equally likely classes the lower one comes first, as for predictions.

    Args:
        logits: float [N, C].
        labels: int64 [N].
    """
    if logits.shape[1] <= TOP:
        return None
    own = logits.gather(1, labels[:, None])
    next_best = logits.topk(TOP + 1).values[:, -1:]
    inside = (own > next_best)[:, 0]
    tied = (own == next_best)[:, 0].nonzero()[:, 0]
    lower = torch.arange(logits.shape[1], device=labels.device) < labels[tied, None]
    before = (logits[tied] > own[tied]) | ((logits[tied] == own[tied]) & lower)
    inside[tied] = before.sum(1) < TOP
    return inside


def _odds(logits: Tensor) -> Tensor:
    """Return what orders the rows of logits [N, C] as each class's probability does, without its rounding to 1."""
    return logits - logits.flip(1) if logits.shape[1] == 2 else logits.double().softmax(1)


def roc_auc(probabilities: Tensor, labels: Tensor, positive: int = 1) -> float | None:
    """Return the area under the ROC curve, macro-averaged, one class against the rest; of two the `positive` one's.

    It is the share of pairs of a row of the class and one of the rest that are in order, a tie counting half (Hanley
    and McNeil 1982). Each probability is looked up among the sorted ones of the class's own rows, some classes at a
    time. None if a class has no rows, or all of them.

    Args:
        probabilities: float32 or float64 [N, C], or what orders the rows as they do.
        labels: int64 [N].
    """
    rows, classes = probabilities.shape
    positives = labels.bincount(minlength=classes)
    own, twice = _of_own_rows(probabilities, labels, positives), torch.zeros_like(positives)
    step = max(PART // rows, 1)
    for first in range(0, classes, step):
        part = slice(first, first + step)
        columns = probabilities[:, part].T.contiguous()
        for right in (False, True):
            twice[part] += torch.searchsorted(own[part], columns, out_int32=True, right=right).sum(1)
    counts = positives.double()
    above = counts * rows - twice / 2 - counts**2 / 2  # pairs of rows of the class, half of them in order, left out
    return average(above / (counts * (rows - counts)), positive)


def _of_own_rows(probabilities: Tensor, labels: Tensor, positives: Tensor) -> Tensor:
    """Return each class's probabilities in its own rows, ascending, [C, most rows of a class]; infinite where none."""
    order = labels.argsort(stable=True)
    classes = labels[order]
    places = torch.arange(len(labels), device=labels.device) - (positives.cumsum(0) - positives)[classes]
    own = probabilities.new_full((len(positives), int(positives.max())), torch.inf)
    own[classes, places] = probabilities[order, classes]
    return own.sort(1).values


def _loss(logits: Tensor, labels: Tensor) -> float:
    """Return the mean cross-entropy of float32 logits [N, C] for int64 labels [N]."""
    rows, classes = logits.shape
    step = max(PART // classes, 1)
    if rows <= step:
        return functional.cross_entropy(logits, labels).item()
    pairs = zip(torch.split(logits, step), torch.split(labels, step), strict=True)
    return float(sum(functional.cross_entropy(*pair, reduction="sum").double() for pair in pairs)) / rows
