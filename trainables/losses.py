"""The training loss: cross-entropy, smoothed, weighted, focal; and penalties on the head's weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn import functional

from trainables.config import TrialConfig
from trainables.errors import ConfigError, look_up


def training_loss(config: TrialConfig, logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    """Return the mean loss, a scalar, of float32 logits [B, C] and int64 labels [B].

    Targets are smoothed over all classes or over the wrong ones, as `smoothed_over` says. `weights` (float32 [C]) are
    those of the classes; the mean is weighted by them, as torch's is. With a `focal_gamma` γ every row's loss is
    multiplied by (1 - p)^γ, p being the probability of its label (Lin et al. 2017, arXiv 1708.02002, equation 5).

    Raises:
        ConfigError: the smoothing would leave the label less than the wrong classes.
    """
    smoothing = look_up(SMOOTHING, config.smoothed_over, "smoothed_over")(config, logits.shape[1])
    if config.focal_gamma == 0:
        return functional.cross_entropy(logits, labels, weights, label_smoothing=smoothing)
    losses = functional.cross_entropy(logits, labels, weights, reduction="none", label_smoothing=smoothing)
    of_label = logits.softmax(1).gather(1, labels[:, None])[:, 0]
    total = len(labels) if weights is None else weights[labels].sum()
    return ((1 - of_label) ** config.focal_gamma * losses).sum() / total


def _over_all(config: TrialConfig, classes: int) -> float:
    """Return the share ε that torch spreads over all classes."""
    return config.label_smoothing


def _over_others(config: TrialConfig, classes: int) -> float:
    """Return torch's share for 1 - ε at the label and ε / (c - 1) at each other of c classes: ε·c / (c - 1)."""
    if config.label_smoothing == 0:
        return 0.0
    others = (classes - 1) / classes
    if config.label_smoothing > others:
        setting = f"label_smoothing={config.label_smoothing:g} smoothed_over=others"
        raise ConfigError(f"{setting} leaves the label less than the others of {classes} classes; at most {others:g}")
    return min(config.label_smoothing / others, 1.0)


SMOOTHING: dict[str, Callable[[TrialConfig, int], float]] = {"all": _over_all, "others": _over_others}
"""Values of `smoothed_over` → the label smoothing that torch is given."""


def penalty(config: TrialConfig, weights: Iterable[Tensor]) -> Tensor | float:
    """Return what the head's `weights` (of two and more dimensions) add to the loss: their L1 and L2 penalties."""
    total: Tensor | float = 0.0
    for weight in weights:
        if config.head_l1:
            total = total + config.head_l1 * weight.abs().sum()
        if config.head_l2:
            total = total + config.head_l2 * weight.square().sum()
    return total


def inverse_frequencies(labels: Tensor, classes: int) -> Tensor:
    """Return weights float32 [C] that sum to one: w_c = (1 / n_c) / Σ (1 / n_k); 0 for a class without rows.

    `labels` are int64 [N].
    """
    counts = labels.bincount(minlength=classes).double()
    inverse = torch.where(counts > 0, 1 / counts, 0.0)
    return (inverse / inverse.sum()).float()


CLASS_WEIGHTS: dict[str, Callable[[Tensor, int], Tensor | None]] = {
    "none": lambda labels, classes: None,
    "inverse": inverse_frequencies,
}
"""Name → the weights of the classes in the loss of a trial that trains on rows with these labels; None: all equal."""
