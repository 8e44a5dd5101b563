"""Calibration: how far a classifier's probabilities are from its accuracy, and the temperature that fixes most of it.

Guo, Pleiss, Sun and Weinberger 2017, "On calibration of modern neural networks", arXiv 1706.04599.
It needs torch alone: scipy's import would cost each worker's start a quarter of a second.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from trainables.epoch_metrics import TEMPERATURES

BINS = 15
HALVINGS = 20  # of the interval TEMPERATURES, in logarithms: the temperature is exact to some millionths


class Calibration(NamedTuple):
    """Expected calibration errors of a model on some rows, in 0..1: as it was trained, and at a temperature."""

    calibration_error: float | None  # None if a logit is not finite
    temperature: float | None  # logits are divided by it; None if none was fitted to the model
    tempered_error: float | None


def calibration(logits: Tensor, labels: Tensor, temperature: float | None) -> Calibration:
    """Return the calibration of float logits [N, C] for int64 labels [N], with and without a `temperature`."""
    logits = logits.double()
    error = calibration_error(logits.softmax(1), labels)
    tempered = None if temperature is None else calibration_error((logits / temperature).softmax(1), labels)
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
    logits = logits.double()
    if logits.shape[1] < 2 or not bool(logits.isfinite().all()):
        return None
    target = logits.gather(1, labels[:, None]).mean()
    low, high = least, most = [math.log(temperature) for temperature in TEMPERATURES]
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        expected = ((logits / math.exp(middle)).softmax(1) * logits).sum(1).mean()
        low, high = (middle, high) if expected > target else (low, middle)
    if low == least or high == most:
        return TEMPERATURES[0 if low == least else 1]
    return math.exp((low + high) / 2)


def calibration_error(probabilities: Tensor, labels: Tensor) -> float | None:
    """Return the expected calibration error (section 2, equation 3) of float64 probabilities [N, C], int64 labels [N].

    Rows fall into BINS bins of equal width by the probability of the likeliest class; the error is the mean, over
    rows, of how far their bin's accuracy is from its mean probability. None if a probability is not a number.
    """
    certainty, predictions = probabilities.cpu().max(1)
    if not bool(certainty.isfinite().all()):
        return None
    bins = _bins(certainty)
    excess = torch.bincount(bins, weights=certainty - (predictions == labels.cpu()).double(), minlength=BINS)
    return excess.abs().sum().item() / len(labels)


def reliability(probabilities: Tensor, labels: Tensor) -> list[list[float]] | None:
    """Return [rows, mean probability, share of correct predictions] of each bin of `calibration_error` that has rows.

    `probabilities` are float64 [N, C], `labels` int64 [N]. None if a probability is not a number.
    """
    certainty, predictions = probabilities.cpu().max(1)
    if not bool(certainty.isfinite().all()):
        return None
    bins, correct = _bins(certainty), (predictions == labels.cpu()).double()
    rows = torch.bincount(bins, minlength=BINS)
    means = [torch.bincount(bins, weights=values, minlength=BINS) / rows for values in (certainty, correct)]
    return [[int(n), p, share] for n, p, share in zip(*(of.tolist() for of in (rows, *means)), strict=True) if n]


def _bins(certainty: Tensor) -> Tensor:
    """Return the bin of each probability, int64 [N]: (0, 1/15], (1/15, 2/15], …"""
    return (certainty * BINS).ceil().long().clamp(1, BINS) - 1
