"""Metrics of a classifier's logits, computed with torch on their device, and tested against scikit-learn.

scikit-learn itself would cost each epoch of a small trial 5–10 ms, and each worker's start 0.9 s.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from trainables.epoch_metrics import CONFUSED_PAIRS, CONFUSED_ROWS


class Scores(NamedTuple):
    """Metrics of some rows: macro averages; of two classes, precision, recall, F1 and ROC-AUC are the positive one's.

    A metric that is 0 / 0 for a class, such as the precision of one that was never predicted, is undefined
    (scikit-learn's `zero_division=nan`). Its mean over all classes is undefined then, too: None.
    """

    loss: float
    accuracy: float
    f1: float | None
    precision: float | None
    recall: float | None
    roc_auc: float | None
    confusion: Tensor  # int64 [C, C]: row = label, column = prediction


def scores(logits: Tensor, labels: Tensor, positive: int = 1) -> Scores:
    """Return the scores of float32 logits [N, C] for int64 labels [N]; `positive` is one of two classes."""
    confusion = confusion_matrix(logits.argmax(1), labels, logits.shape[1])
    matrix = confusion.double()
    correct, predicted, actual = matrix.diagonal(), matrix.sum(0), matrix.sum(1)
    return Scores(
        loss=functional.cross_entropy(logits, labels).item(),
        accuracy=(correct.sum() / matrix.sum()).item(),
        f1=_average(2 * correct / (predicted + actual), positive),
        precision=_average(correct / predicted, positive),
        recall=_average(correct / actual, positive),
        roc_auc=roc_auc(logits.softmax(1), labels, positive),
        confusion=confusion,
    )


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


def balanced_accuracy(confusion: Tensor) -> float:
    """Return the mean recall of the classes that have rows; of two classes it is the ROC-AUC of hard labels.

    `confusion` is int64 [C, C], as `confusion_matrix` returns it.
    """
    actual = confusion.sum(1)
    return (confusion.diagonal() / actual.double())[actual > 0].mean().item()


def roc_auc(probabilities: Tensor, labels: Tensor, positive: int = 1) -> float | None:
    """Return the area under the ROC curve, macro-averaged, one class against the rest; of two the `positive` one's.

    It is computed by the rank-sum identity (Hanley and McNeil 1982), with ties at their mean rank. None if a class has
    no rows, or all of them.

    Args:
        probabilities: float [N, C].
        labels: int64 [N].
    """
    rows, classes = probabilities.shape
    columns = probabilities.double().T.contiguous()  # [C, N]
    ordered = columns.sort(dim=1).values
    below = torch.searchsorted(ordered, columns)
    up_to = torch.searchsorted(ordered, columns, right=True)
    ranks = (below + up_to + 1) / 2
    is_class = functional.one_hot(labels, classes).T.bool()  # [C, N]
    positives = is_class.sum(1).double()
    rank_sums = (ranks * is_class).sum(1)
    return _average((rank_sums - positives * (positives + 1) / 2) / (positives * (rows - positives)), positive)


def _average(per_class: Tensor, positive: int) -> float | None:
    """Return the mean over classes, or of two the positive one's value; None if a class has none (0 / 0)."""
    value = (per_class[positive] if len(per_class) == 2 else per_class.mean()).item()
    return None if value != value else value
