"""What a classifier's logits are worth. Computed with torch, on the logits' device, and tested against scikit-learn.

scikit-learn itself would cost each epoch of a small trial 5–10 ms, and each worker's start 0.9 s.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from trainables.epoch_metrics import CONFUSED_PAIRS, CONFUSED_ROWS


class Scores(NamedTuple):
    """Macro averages; for two classes precision, recall, F1 and ROC-AUC are those of the positive one.

    What is 0 / 0 for a class, such as the precision of one that was never predicted, is undefined (scikit-learn's
    `zero_division=nan`), and so is the mean over all classes then: None.
    """

    loss: float
    accuracy: float
    f1: float | None
    precision: float | None
    recall: float | None
    roc_auc: float | None
    confusion: Tensor  # int64 [C, C]: row = label, column = prediction


def scores(logits: Tensor, labels: Tensor, positive: int = 1) -> Scores:
    """Scores of float32 logits [N, C] for int64 labels [N]; `positive` is the positive one of two classes."""
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
    """int64 [C, C]: row = label, column = prediction."""
    cells = torch.bincount(labels * classes + predictions, minlength=classes * classes)
    return cells.reshape(classes, classes)


def confused(predictions: Tensor, labels: Tensor, rows: Tensor, classes: int) -> list[list[int]]:
    """The pairs of classes that are confused most, as lists [label, prediction, count, row, …], the first of its rows.

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
    """The mean recall of the classes that have rows; of two classes the area under the ROC curve of hard labels."""
    actual = confusion.sum(1)
    return (confusion.diagonal() / actual.double())[actual > 0].mean().item()


def roc_auc(probabilities: Tensor, labels: Tensor, positive: int = 1) -> float | None:
    """Area under the ROC curve, one class against the rest, macro; for two classes that of the `positive` one.

    By the rank-sum identity (Hanley and McNeil 1982), ties at their mean rank. None where a class has no rows or all.

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
    own = functional.one_hot(labels, classes).T.bool()  # [C, N]
    positives = own.sum(1).double()
    rank_sums = (ranks * own).sum(1)
    return _average((rank_sums - positives * (positives + 1) / 2) / (positives * (rows - positives)), positive)


def _average(per_class: Tensor, positive: int) -> float | None:
    """The mean over classes, or of two the positive one's value; None where a class has none (0 / 0)."""
    value = (per_class[positive] if len(per_class) == 2 else per_class.mean()).item()
    return None if value != value else value
