"""Calibration: how far a classifier's probabilities are from its accuracy, and the temperature that fixes most of it.

Guo, Pleiss, Sun and Weinberger 2017, "On calibration of modern neural networks", arXiv 1706.04599.
It needs torch alone: scipy's import would cost each worker's start a quarter of a second.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from trainables.epoch_metrics import TEMPERATURES

BINS = 15
PART = 2**21  # logits that are computed with at a time, in float64
HALVINGS = 20  # of the interval TEMPERATURES, in logarithms: the temperature is exact to some millionths


class Calibration(NamedTuple):
    """Expected calibration errors of a model on some rows, in 0..1: as it was trained, and at a temperature."""

    calibration_error: float | None  # None if a logit is not finite
    temperature: float | None  # logits are divided by it; None if none was fitted to the model
    tempered_error: float | None


def calibration(logits: Tensor, labels: Tensor, temperature: float | None) -> Calibration:
    """Return the calibration of float logits [N, C] for int64 labels [N], with and without a `temperature`."""
    error = _error(*_certainty(logits), labels)
    tempered = None if temperature is None else _error(*_certainty(logits, temperature), labels)
    return Calibration(error, temperature, tempered)


def fit_temperature(logits: Tensor, labels: Tensor) -> float | None:
    """Return the temperature T in TEMPERATURES at which softmax(logits / T) makes `labels` likeliest (section 4.2).

    The negative log-likelihood is convex in b = 1 / T: its slope, the mean of sum_c softmax(b z)_c z_c - z_label, only
    grows with b, and its zero is found by halving. None if there is nothing to fit: a single class, or a logit that is
    not finite.

    Args:
        logits: float [N, C], N of at least 1.
        labels: int64 [N].
    """
    if logits.shape[1] < 2 or not all(bool(part.isfinite().all()) for part in _parts(logits)):
        return None
    target = logits.gather(1, labels[:, None]).double().mean()
    low, high = least, most = [math.log(temperature) for temperature in TEMPERATURES]
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _expected(logits, math.exp(middle)) > target else (low, middle)
    if low == least or high == most:
        return TEMPERATURES[0 if low == least else 1]
    return math.exp((low + high) / 2)


def _expected(logits: Tensor, temperature: float) -> Tensor:
    """Return the mean over rows of sum_c softmax(z / T)_c z_c, float64, of logits z [N, C]."""
    sums = [((part / temperature).softmax(1) * part).sum(1) for part in _parts(logits)]
    return torch.cat(sums).mean()


def mean_probabilities(logits: Sequence[Tensor], temperatures: Sequence[float | None]) -> Tensor:
    """Return the mean of several models' calibrated probabilities, float64 [N, C], of each one's float logits [N, C].

    An average is less certain than its members are, so it may need a temperature of its own: see `log_probabilities`.
    """
    pairs = zip(logits, temperatures, strict=True)
    return torch.stack([(one.double() / (temperature or 1.0)).softmax(1) for one, temperature in pairs]).mean(0)


def log_probabilities(probabilities: Tensor) -> Tensor:
    """Return logits whose softmax are the float64 `probabilities` [N, C]: a temperature can be fitted to them."""
    return probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()


def calibration_error(probabilities: Tensor, labels: Tensor) -> float | None:
    """Return the expected calibration error (section 2, equation 3) of float64 probabilities [N, C], int64 labels [N].

    Rows fall into BINS bins of equal width by the probability of the likeliest class; the error is the mean, over
    rows, of how far their bin's accuracy is from its mean probability. None if a probability is not a number.
    """
    return _error(*probabilities.cpu().max(1), labels)


def reliability(logits: Tensor, labels: Tensor, temperature: float | None = None) -> list[list[float]] | None:
    """Return [rows, mean probability, share of correct predictions] of each bin of `calibration_error` that has rows.

    `logits` are float [N, C], `labels` int64 [N]. None if a probability is not a number.

    Args:
        temperature: the probabilities are those at this one.
    """
    certainty, predictions = _certainty(logits, temperature or 1.0)
    if not bool(certainty.isfinite().all()):
        return None
    bins, correct = _bins(certainty), (predictions == labels.cpu()).double()
    rows = torch.bincount(bins, minlength=BINS)
    means = [torch.bincount(bins, weights=values, minlength=BINS) / rows for values in (certainty, correct)]
    return [[int(n), p, share] for n, p, share in zip(*(of.tolist() for of in (rows, *means)), strict=True) if n]


def _error(certainty: Tensor, predictions: Tensor, labels: Tensor) -> float | None:
    """Return the error of predictions, int64 [N], that are made with the probabilities `certainty`, float64 [N]."""
    if not bool(certainty.isfinite().all()):
        return None
    bins = _bins(certainty)
    excess = torch.bincount(bins, weights=certainty - (predictions == labels.cpu()).double(), minlength=BINS)
    return excess.abs().sum().item() / len(labels)


def _certainty(logits: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return the probability of the likeliest class, float64 [N], and that class, int64 [N], on the CPU."""
    found = [(part / temperature).softmax(1).max(1) for part in _parts(logits)]
    return torch.cat([each.values for each in found]).cpu(), torch.cat([each.indices for each in found]).cpu()


def _parts(logits: Tensor) -> Iterator[Tensor]:
    """Yield the rows of logits [N, C] in float64, some at a time."""
    return (part.double() for part in torch.split(logits, max(PART // logits.shape[1], 1)))


def _bins(certainty: Tensor) -> Tensor:
    """Return the bin of each probability, int64 [N]: (0, 1/15], (1/15, 2/15], …"""
    return (certainty * BINS).ceil().long().clamp(1, BINS) - 1
