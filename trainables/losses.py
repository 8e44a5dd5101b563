"""What training minimises: cross-entropy, smoothed, weighted, focal; and penalties on the head's weights."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional

from trainables.config import TrialConfig
from trainables.errors import ConfigError


def training_loss(config: TrialConfig, logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    """Mean loss of float32 logits [B, C] and int64 labels [B]; a scalar.

    Targets are smoothed over all classes or over the wrong ones, as `smoothed_over` says.
    `weights` (float32 [C]) count the classes; the mean is over them, as torch's is. With a `focal_gamma` γ every row's
    loss is times (1 - p)^γ, p being the probability of its label (Lin et al. 2017, arXiv 1708.02002, equation 5).

    Raises:
        ConfigError: the smoothing would leave the label less than the wrong classes.
    """
    smoothing = _smoothing(config, logits.shape[1])
    if config.focal_gamma == 0:
        return functional.cross_entropy(logits, labels, weights, label_smoothing=smoothing)
    losses = functional.cross_entropy(logits, labels, weights, reduction="none", label_smoothing=smoothing)
    right = logits.softmax(1).gather(1, labels[:, None])[:, 0]
    counted = len(labels) if weights is None else weights[labels].sum()
    return ((1 - right) ** config.focal_gamma * losses).sum() / counted


def _smoothing(config: TrialConfig, classes: int) -> float:
    """The share ε that torch spreads over all of c classes.

    What takes 1 - ε for the label and ε / (c - 1) for each other class is torch's smoothing with ε·c / (c - 1).
    """
    if config.smoothed_over == "all" or config.label_smoothing == 0:
        return config.label_smoothing
    others = (classes - 1) / classes
    if config.label_smoothing > others:
        given = f"label_smoothing={config.label_smoothing:g} smoothed_over=others"
        raise ConfigError(f"{given} leaves the label less than the others of {classes} classes; at most {others:g}")
    return min(config.label_smoothing / others, 1.0)


def penalty(config: TrialConfig, weights: Iterable[Tensor]) -> Tensor | float:
    """What the head's `weights` (those of two and more dimensions) add to the loss."""
    total: Tensor | float = 0.0
    for weight in weights:
        if config.head_l1:
            total = total + config.head_l1 * weight.abs().sum()
        if config.head_l2:
            total = total + config.head_l2 * weight.square().sum()
    return total


def class_weights(labels: Tensor, classes: int) -> Tensor:
    """Inverse frequencies that sum to one, float32 [C]: w_c = (1 / n_c) / Σ (1 / n_k); a class without rows has 0."""
    counts = labels.bincount(minlength=classes).double()
    inverse = torch.where(counts > 0, 1 / counts, 0.0)
    return (inverse / inverse.sum()).float()
