"""Calibration: the error as Guo et al. define it, and the temperature that makes labels the likeliest."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional

from trainables.calibration import BINS, Calibration, calibration, calibration_error, fit_temperature, reliability
from trainables.epoch_metrics import TEMPERATURES


def plain_error(probabilities: Tensor, labels: Tensor) -> float:
    """Compute the error of Guo et al. 2017, section 2: rows in bins ((m - 1) / M, m / M], equation 3 over them."""
    rows, error = len(labels), 0.0
    certainty, correct = probabilities.max(1).values.tolist(), (probabilities.argmax(1) == labels).tolist()
    for m in range(1, BINS + 1):
        own = [n for n in range(rows) if (m - 1) / BINS < certainty[n] <= m / BINS]
        if own:
            accuracy, mean = sum(correct[n] for n in own) / len(own), sum(certainty[n] for n in own) / len(own)
            error += len(own) / rows * abs(accuracy - mean)
    return error


def made(rows: int, classes: int, sharpness: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return logits, `sharpness` times as far apart as those that the labels were drawn from, and the labels."""
    random = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(rows, classes, generator=random)
    labels = torch.multinomial(logits.softmax(1), 1, generator=random)[:, 0]
    return sharpness * logits, labels


@given(st.integers(1, 300), st.integers(2, 12), st.floats(0.1, 20), st.integers(0, 9))
def test_the_error_is_that_of_the_plain_definition(rows: int, classes: int, sharpness: float, seed: int) -> None:
    logits, labels = made(rows, classes, sharpness, seed)
    probabilities = logits.double().softmax(1)
    assert calibration_error(probabilities, labels) == pytest.approx(plain_error(probabilities, labels), abs=1e-12)


def test_the_error_of_bins_edges_and_of_what_is_no_number() -> None:
    chances = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.6, 0.4]], dtype=torch.float64)
    assert calibration_error(chances, torch.tensor([0, 0, 1])) == pytest.approx((0 + 0.5 + 0.6) / 3)
    assert calibration_error(torch.full((2, 2), torch.nan), torch.tensor([0, 1])) is None


@given(st.integers(1, 300), st.integers(2, 12), st.floats(0.1, 20), st.integers(0, 9))
def test_the_bins_of_the_diagram_are_those_of_the_error(rows: int, classes: int, sharpness: float, seed: int) -> None:
    logits, labels = made(rows, classes, sharpness, seed)
    probabilities = logits.double().softmax(1)
    bins = reliability(logits, labels)
    assert bins is not None
    assert sum(n for n, _, _ in bins) == rows
    assert sum(n * abs(p - share) for n, p, share in bins) / rows == pytest.approx(plain_error(probabilities, labels))
    assert reliability(2 * logits, labels, temperature=2) == bins
    assert reliability(torch.full((2, 2), torch.nan), torch.tensor([0, 1])) is None


def test_a_bin_has_its_rows_their_mean_probability_and_how_many_are_right() -> None:
    chances = torch.tensor([[0.9, 0.1], [0.92, 0.08], [0.1, 0.9], [0.6, 0.4]], dtype=torch.float64)
    low, high = reliability(chances.log(), torch.tensor([0, 1, 1, 0])) or []
    assert low == pytest.approx([1, 0.6, 1])
    assert high == pytest.approx([3, (0.9 + 0.92 + 0.9) / 3, 2 / 3])


@pytest.mark.parametrize("sharpness", [0.4, 1.0, 3.0])
def test_the_temperature_is_scipy_s_and_undoes_what_made_logits_too_sure(sharpness: float) -> None:
    logits, labels = made(3000, 5, sharpness)
    found = fit_temperature(logits, labels)
    bounds = np.log(TEMPERATURES)
    expected = minimize_scalar(
        lambda t: functional.cross_entropy(logits.double() / np.exp(t), labels).item(), bounds=bounds, method="bounded"
    )
    assert found == pytest.approx(np.exp(expected.x), rel=1e-4)
    assert found == pytest.approx(sharpness, rel=0.1)
    without, _, tempered = calibration(logits, labels, found)
    assert tempered is not None
    assert without is not None
    assert tempered < 0.03
    assert sharpness == 1 or tempered < without / 2


def test_the_same_logits_give_the_same_temperature() -> None:
    logits, labels = made(200, 4, 2.0)
    assert fit_temperature(logits, labels) == fit_temperature(logits.clone(), labels)


def test_what_is_computed_in_parts_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, labels = made(200, 4, 2.0)
    whole = fit_temperature(logits, labels), calibration(logits, labels, 1.5), reliability(logits, labels)
    monkeypatch.setattr("trainables.calibration.PART", 28)
    assert (fit_temperature(logits, labels), calibration(logits, labels, 1.5), reliability(logits, labels)) == whole


def test_rows_that_are_all_right_or_all_wrong_meet_a_bound() -> None:
    logits, labels = torch.eye(4), torch.arange(4)
    assert fit_temperature(logits, labels) == TEMPERATURES[0]
    assert fit_temperature(logits, labels.flip(0)) == TEMPERATURES[1]


def test_where_there_is_nothing_to_fit() -> None:
    assert fit_temperature(torch.zeros(5, 1), torch.zeros(5, dtype=torch.int64)) is None
    assert fit_temperature(torch.tensor([[0.0, torch.inf]]), torch.tensor([0])) is None
    assert calibration(torch.zeros(5, 1), torch.zeros(5, dtype=torch.int64), None) == Calibration(0.0, None, None)
