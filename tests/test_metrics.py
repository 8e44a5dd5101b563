"""Metrics, compared with scikit-learn's on random and on tied predictions."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn import metrics as reference
from torch import Tensor

from trainables.epoch_metrics import CONFUSED_PAIRS, FINAL_METRICS, METRICS
from trainables.metrics import Scores, balanced_accuracy, confused, confusion_matrix, roc_auc, scores


def drawn(classes: int, rows: int, seed: int, ties: bool) -> tuple[Tensor, Tensor]:
    """Return logits that are better than chance, rounded to whole numbers if `ties` are wanted, and labels."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (rows,), generator=random)
    labels[:classes] = torch.arange(classes)
    logits = torch.randn(rows, classes, generator=random) + torch.nn.functional.one_hot(labels, classes)
    return (logits.round() if ties else logits), labels


def scikit_learns(logits: Tensor, labels: Tensor, positive: int) -> Scores:
    classes = logits.shape[1]
    # Of the same precision: which probabilities tie is a matter of the last bit.
    probabilities = logits.softmax(1).double().numpy()
    truth, predicted = labels.numpy(), logits.argmax(1).numpy()

    def averaged(measure: Callable[..., np.ndarray]) -> float | None:
        each = measure(truth, predicted, labels=range(classes), average=None, zero_division=np.nan)
        value = float(each[positive] if classes == 2 else each.mean())
        return None if math.isnan(value) else value

    if classes == 2:
        area = reference.roc_auc_score(truth == positive, probabilities[:, positive])
    else:
        area = reference.roc_auc_score(truth, probabilities, multi_class="ovr", average="macro")
    return Scores(
        loss=float(reference.log_loss(truth, logits.double().softmax(1).numpy(), labels=range(classes))),
        accuracy=float(reference.accuracy_score(truth, predicted)),
        f1=averaged(reference.f1_score),
        precision=averaged(reference.precision_score),
        recall=averaged(reference.recall_score),
        roc_auc=float(area),
        confusion=torch.from_numpy(reference.confusion_matrix(truth, predicted, labels=range(classes))),
    )


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("positive", [0, 1])
@pytest.mark.parametrize(("classes", "rows"), [(2, 7), (2, 200), (3, 50), (10, 300)])
def test_scores_are_scikit_learns(classes: int, rows: int, positive: int, seed: int, ties: bool) -> None:
    logits, labels = drawn(classes, rows, seed, ties)
    *found, confusion = scores(logits, labels, positive)
    *expected, matrix = scikit_learns(logits, labels, positive)
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-7)
    assert confusion.tolist() == matrix.tolist()
    balanced = reference.balanced_accuracy_score(labels.numpy(), logits.argmax(1).numpy())
    assert balanced_accuracy(confusion) == pytest.approx(balanced)


def test_the_metrics_that_a_sweep_may_optimize_are_the_scores() -> None:
    measured = {f"val_{name}" for name in Scores._fields} - {"val_confusion"}
    assert measured == set(METRICS)
    assert {f"val_{name}" for name in FINAL_METRICS} == measured | {"val_balanced_accuracy"}


def test_a_class_that_is_never_predicted() -> None:
    logits, labels = torch.tensor([[2.0, 0, 0], [0, 2, 0], [1, 0, 0]]), torch.tensor([0, 1, 2])
    found = scores(logits, labels)
    assert found.precision is None  # 0 / 0 for the last class
    assert found.recall == pytest.approx(2 / 3)
    assert found.f1 == pytest.approx((2 / 3 + 1) / 3)


def test_balanced_accuracy_is_over_the_classes_that_have_rows() -> None:
    assert balanced_accuracy(torch.tensor([[3, 1, 0], [0, 0, 0], [0, 1, 1]])) == (3 / 4 + 1 / 2) / 2


def test_balanced_accuracy_of_two_classes_is_the_area_of_hard_labels() -> None:
    """Compare with Pan and Karim's AUC, from the confusion matrices that they print (columns are the labels)."""
    for matrix, area in (([[1924, 46], [41, 614]], 0.957), ([[1961, 9], [0, 655]], 0.998)):
        truth, hard = np.repeat([0, 0, 1, 1], np.ravel(matrix)), np.repeat([0, 1, 0, 1], np.ravel(matrix))
        assert balanced_accuracy(torch.tensor(matrix)) == pytest.approx(reference.roc_auc_score(truth, hard))
        assert balanced_accuracy(torch.tensor(matrix)) == pytest.approx(area, abs=5e-4)


def test_two_classes_are_those_of_the_positive_one() -> None:
    logits, labels = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]]), torch.tensor([0, 1, 1, 1])
    found = scores(logits, labels)
    assert found.precision == 1.0
    assert found.recall == pytest.approx(2 / 3)
    other = scores(logits, labels, positive=0)
    assert (other.precision, other.recall) == (0.5, 1.0)
    never = scores(torch.tensor([[1.0, 0], [1, 0]]), torch.tensor([0, 1]))
    assert (never.precision, never.recall, never.f1) == (None, 0.0, 0.0)


def test_no_area_where_a_class_is_missing() -> None:
    assert roc_auc(torch.rand(4, 3), torch.tensor([0, 1, 0, 1])) is None
    assert roc_auc(torch.rand(4, 2), torch.tensor([1, 1, 1, 1])) is None
    found = scores(torch.rand(4, 3), torch.tensor([0, 1, 0, 1]))
    assert found.recall is None
    assert 0 <= found.accuracy <= 1


def test_area_of_a_constant_score_is_a_half() -> None:
    assert roc_auc(torch.full((10, 3), 1 / 3), torch.arange(10) % 3) == 0.5


def test_confusion_matrix() -> None:
    predictions, labels = torch.tensor([0, 1, 1, 2]), torch.tensor([0, 1, 2, 2])
    assert confusion_matrix(predictions, labels, 4).tolist() == [
        [1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0],
    ]  # fmt: skip


def test_the_pairs_confused_most_with_rows_of_each() -> None:
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2, 2])
    found = torch.tensor([1, 1, 1, 1, 1, 0, 0, 1, 2])
    rows = torch.arange(100, 109)
    assert confused(found, labels, rows, 3) == [
        [0, 1, 4, 100, 101, 102],
        [1, 0, 1, 105],
        [2, 0, 1, 106],
        [2, 1, 1, 107],
    ]
    assert confused(labels, labels, rows, 3) == []


def test_the_number_of_pairs_is_limited() -> None:
    labels = torch.arange(100)
    assert len(confused((labels + 1) % 100, labels, labels, 100)) == CONFUSED_PAIRS
