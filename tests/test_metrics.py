"""Metrics, compared with scikit-learn's on random and on tied predictions."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn import metrics as reference
from torch import Tensor

from trainables import metrics
from trainables.count_metrics import COUNT_METRICS, Counts, mcc
from trainables.epoch_metrics import CONFUSED_PAIRS, FINAL_METRICS, METRICS, TOP
from trainables.metrics import Scores, class_counts, confused, confusion_matrix, in_top, roc_auc, scores


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
    probabilities = logits.double().softmax(1).double().numpy()
    truth, predicted = labels.numpy(), logits.argmax(1).numpy()

    def averaged(measure: Callable[..., np.ndarray]) -> float | None:
        each = measure(truth, predicted, labels=range(classes), average=None, zero_division=np.nan)
        value = float(each[positive] if classes == 2 else each.mean())
        return None if math.isnan(value) else value

    recalls = reference.recall_score(truth, predicted, labels=sorted(set(truth)), average=None)
    top = reference.top_k_accuracy_score(truth, logits.numpy(), k=TOP, labels=range(classes)) if classes > TOP else None
    one_class = min(len(set(truth)), len(set(predicted))) == 1  # scikit-learn has 0 where it is 0 / 0
    if classes == 2:
        area = reference.roc_auc_score(truth == positive, probabilities[:, positive])
    else:
        area = reference.roc_auc_score(truth, probabilities, multi_class="ovr", average="macro")
    return Scores(
        loss=float(reference.log_loss(truth, logits.double().softmax(1).numpy(), labels=range(classes))),
        accuracy=float(reference.accuracy_score(truth, predicted)),
        balanced_accuracy=float(reference.balanced_accuracy_score(truth, predicted)),
        top5_accuracy=None if top is None else float(top),
        f1=averaged(reference.f1_score),
        precision=averaged(reference.precision_score),
        recall=averaged(reference.recall_score),
        worst_recall=float(recalls.min()),
        mcc=None if one_class else float(reference.matthews_corrcoef(truth, predicted)),
        roc_auc=float(area),
    )


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("positive", [0, 1])
@pytest.mark.parametrize(("classes", "rows"), [(2, 7), (2, 200), (3, 50), (10, 300)])
def test_scores_are_scikit_learns(classes: int, rows: int, positive: int, seed: int, ties: bool) -> None:
    logits, labels = drawn(classes, rows, seed, ties)
    found, expected = scores(logits, labels, positive)._asdict(), scikit_learns(logits, labels, positive)._asdict()
    if ties and classes > TOP:  # scikit-learn has the higher of equally likely classes first, predictions the lower
        expected["top5_accuracy"] = found["top5_accuracy"]
    assert {name for name in found if (found[name] is None) != (expected[name] is None)} == set()
    known = [name for name in found if found[name] is not None]
    assert [found[name] for name in known] == pytest.approx([expected[name] for name in known], rel=1e-5, abs=1e-7)
    assert scores(logits, labels, positive, False)._asdict() == {**found, "roc_auc": None}


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_metrics_of_counts_are_the_same_of_tensors_and_of_arrays(rows: int) -> None:
    """So few rows have classes without rows, predictions of one class, and all that is undefined."""
    for seed in range(20):
        logits, labels = torch.randn(rows, 3, generator=torch.Generator().manual_seed(seed)), torch.arange(rows) % 3
        counts = class_counts(logits.argmax(1), labels, 3)
        arrays = Counts(*(of.numpy() for of in counts))
        with np.errstate(invalid="ignore"):
            assert {name: of(arrays, 1) for name, of in COUNT_METRICS.items()} == {
                name: of(counts, 1) for name, of in COUNT_METRICS.items()
            }


def test_the_metrics_that_a_sweep_may_optimize_are_the_scores() -> None:
    assert {f"val_{name}" for name in Scores._fields} == set(METRICS) == {f"val_{name}" for name in FINAL_METRICS}


def test_the_top_five_of_equally_likely_classes_are_the_lower_ones() -> None:
    for logits in (torch.zeros(7, 7), torch.tensor([[9.0, 9, 9, 1, 1, 1, 0]]).expand(7, -1)):
        inside = in_top(logits, torch.arange(7))
        assert inside is not None
        assert inside.tolist() == [True] * TOP + [False] * 2
    assert in_top(torch.randn(4, TOP), torch.arange(4)) is None
    assert scores(torch.full((6, 6), torch.nan), torch.arange(6)).top5_accuracy == 0


@pytest.mark.parametrize("part", [1, 7, 10**9])
def test_what_is_computed_in_parts_is_the_same(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    logits, labels = drawn(10, 300, 0, ties=True)
    whole = scores(logits, labels)
    monkeypatch.setattr(metrics, "PART", part * 300)
    assert scores(logits, labels)._replace(loss=0) == whole._replace(loss=0)
    assert scores(logits, labels).loss == pytest.approx(whole.loss, rel=1e-6)


def test_a_class_that_is_never_predicted() -> None:
    logits, labels = torch.tensor([[2.0, 0, 0], [0, 2, 0], [1, 0, 0]]), torch.tensor([0, 1, 2])
    found = scores(logits, labels)
    assert found.precision is None  # 0 / 0 for the last class
    assert found.recall == pytest.approx(2 / 3)
    assert found.f1 == pytest.approx((2 / 3 + 1) / 3)


def of_matrix(matrix: list[list[int]]) -> Scores:
    """Return the scores of predictions with this confusion matrix."""
    cells = [(i, j) for i, row in enumerate(matrix) for j, count in enumerate(row) for _ in range(count)]
    labels, predictions = torch.tensor(cells).T
    return scores(torch.nn.functional.one_hot(predictions, len(matrix)).float(), labels)


def test_balanced_and_worst_recall_are_of_the_classes_that_have_rows() -> None:
    found = of_matrix([[3, 1, 0], [0, 0, 0], [0, 1, 1]])
    assert (found.balanced_accuracy, found.worst_recall, found.recall) == ((3 / 4 + 1 / 2) / 2, 1 / 2, None)


def test_matthews_coefficient_bears_rounded_weights() -> None:
    """Weights of drawn rows are no whole numbers: their sums differ in the last digit."""
    for seed in range(200):
        weights = np.random.default_rng(seed).dirichlet(np.full(40, 3.0)) * 40
        actual = np.array([weights[:10].sum(), weights[10:].sum()])
        counts = Counts(np.array([0.0, actual[1]]), np.array([0.0, weights.sum()]), actual)
        assert mcc(counts) is None


def test_the_correlation_of_predictions_of_one_class_is_undefined() -> None:
    assert of_matrix([[3, 0], [2, 0]]).mcc is None
    assert of_matrix([[3, 0], [0, 2]]).mcc == 1
    assert of_matrix([[0, 3], [2, 0]]).mcc == -1


def test_balanced_accuracy_of_two_classes_is_the_area_of_hard_labels() -> None:
    """Compare with Pan and Karim's AUC, from the confusion matrices that they print (columns are the labels)."""
    for matrix, area in (([[1924, 46], [41, 614]], 0.957), ([[1961, 9], [0, 655]], 0.998)):
        truth, hard = np.repeat([0, 0, 1, 1], np.ravel(matrix)), np.repeat([0, 1, 0, 1], np.ravel(matrix))
        assert of_matrix(matrix).balanced_accuracy == pytest.approx(reference.roc_auc_score(truth, hard))
        assert of_matrix(matrix).balanced_accuracy == pytest.approx(area, abs=5e-4)


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


@pytest.mark.parametrize("classes", [2, 3])
def test_the_area_of_a_net_that_is_too_sure_is_that_of_its_logits(classes: int) -> None:
    """Compare with logits that are small: probabilities of large ones are all 1 in float32."""
    torch.manual_seed(0)
    labels = torch.randint(classes, (400,))
    logits = torch.randn(400, classes) + 2 * torch.nn.functional.one_hot(labels, classes)
    found, expected = (scores(scale * logits, labels) for scale in (10, 1))
    assert scores(10 * logits, labels, positive=0).roc_auc == pytest.approx(found.roc_auc) or classes > 2
    if classes == 2:
        assert found.roc_auc == expected.roc_auc
    else:
        truth = (10 * logits).double().softmax(1)
        assert found.roc_auc == pytest.approx(reference.roc_auc_score(labels, truth, multi_class="ovr"))


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
