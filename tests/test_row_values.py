"""Row values: their mean is the metric, they are what leaving a row out says, and equals are seldom told apart."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from orchestrator.assessment.intervals import ties
from orchestrator.assessment.row_intervals import value_of
from orchestrator.assessment.row_values import row_values
from trainables.row_predictions import RowPredictions

METRICS = ("accuracy", "balanced_accuracy", "f1", "precision", "recall", "mcc", "loss", "roc_auc")
UNEVEN, EVEN, TWO = (8, 7, 6, 5, 5, 4, 4, 4, 3, 3, 2, 2), (1,) * 5, (9, 1)


def drawn(
    random: np.random.Generator, labels: NDArray[np.int64], hard: NDArray[np.float64], signal: float, spread: float
) -> RowPredictions:
    """Return what one model predicts: rows are as hard as `hard` says, and it differs from others by `spread`."""
    each, classes = np.arange(len(labels)), hard.shape[1]
    logits = np.sqrt(0.84) * hard + np.sqrt(0.16) * random.standard_normal(hard.shape)
    logits[each, labels] += signal * (1 + np.sin(labels) / 2)
    logits[each, labels] += spread * (random.standard_normal() + random.standard_normal((classes,))[labels])
    losses = np.log(np.exp(logits).sum(1)) - logits[each, labels]
    return RowPredictions(labels, logits.argmax(1), losses.astype(np.float32), np.ones(len(labels), dtype=np.bool_))


def labels_of(shares: tuple[int, ...], rows: int) -> NDArray[np.int64]:
    return np.repeat(np.arange(len(shares)), np.rint(np.array(shares) / sum(shares) * rows).astype(int))


def model(shares: tuple[int, ...], rows: int = 400, signal: float = 2.5) -> RowPredictions:
    random, labels = np.random.default_rng(0), labels_of(shares, rows)
    return drawn(random, labels, random.standard_normal((len(labels), len(shares))), signal, 0.0)


@pytest.mark.parametrize("shares", [UNEVEN, EVEN, TWO])
def test_the_mean_of_the_values_is_the_metric(shares: tuple[int, ...]) -> None:
    rows = model(shares)
    for name in METRICS:
        values, value = row_values(rows, name, 1), value_of(rows, name, 1)
        if value is None:
            assert values is None
            continue
        assert values is not None
        assert values.mean() == pytest.approx(value, abs=1e-6), name


def test_of_the_accuracy_they_are_the_correct_rows() -> None:
    rows = model(EVEN)
    values = row_values(rows, "accuracy", 1)
    assert values is not None
    np.testing.assert_array_equal(values, rows.labels == rows.predictions)


@pytest.mark.parametrize("shares", [UNEVEN, TWO])
def test_they_are_what_leaving_a_row_out_says(shares: tuple[int, ...]) -> None:
    """N times the metric less N - 1 times that of all other rows, but for terms of 1/N."""
    rows, size = model(shares, 2_000), 2_000
    size = len(rows.labels)
    for name in METRICS:
        values, value = row_values(rows, name, 1), value_of(rows, name, 1)
        if values is None or value is None:
            continue
        for row in (0, size // 3, size - 1):
            others = np.delete(np.arange(size), row)
            left = RowPredictions(*(part[others] for part in vars(rows).values()))
            without = value_of(left, name, 1)
            assert without is not None
            assert values[row] == pytest.approx(size * value - (size - 1) * without, abs=0.1), name


@pytest.mark.parametrize("name", ["worst_recall", "val_of_mine"])
def test_metrics_that_no_mean_over_rows_describes_have_none(name: str) -> None:
    assert row_values(model(EVEN), name, 1) is None


def test_the_area_of_many_classes_has_none() -> None:
    assert row_values(model(EVEN), "roc_auc", 1) is None


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.0, 0.2])
@pytest.mark.parametrize(("shares", "signal"), [(UNEVEN, 3.0), (TWO, 2.2), (EVEN, 2.0)])
def test_equals_are_seldom_told_apart(shares: tuple[int, ...], signal: float, spread: float) -> None:
    """The level is 5 %; give or take three standard errors of 400 pairs."""
    random, labels = np.random.default_rng(0), labels_of(shares, 300)
    called: dict[str, list[bool]] = {name: [] for name in METRICS}
    for _ in range(400):
        hard = random.standard_normal((len(labels), len(shares)))
        pair = [[drawn(random, labels, hard, signal, spread) for _ in range(3)] for _ in range(2)]
        for name in METRICS:
            found = [[row_values(run, name, 1) for run in runs] for runs in pair]
            one, other = ([values for values in runs if values is not None] for runs in found)
            if len(one) == len(other) == 3:
                p = ties(np.stack(one), [np.stack(other)])[0].p
                called[name].append(p is not None and p < 0.05)
    assert {name: share for name, calls in called.items() if calls and (share := np.mean(calls)) > 0.083} == {}
