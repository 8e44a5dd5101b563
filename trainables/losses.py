"""The training loss: cross-entropy, smoothed, weighted, adjusted, focal; and penalties on the head's weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn import functional

from trainables.config import TrialConfig
from trainables.errors import ConfigError, look_up


def training_loss(
    config: TrialConfig, logits: Tensor, targets: Tensor, weights: Tensor | None, shift: Tensor | None = None
) -> Tensor:
    """Return the mean loss, a scalar, of float32 logits [B, C] and targets: labels int64 [B], or shares float32 [B, C].

    Targets are smoothed over all classes or over the wrong ones, as `smoothed_over` says. `weights` (float32 [C]) are
    those of the classes; the mean is weighted by them, as torch's is for labels: see `total_weight`. `shift` (float32
    [C], from `log_prior`) is added to the logits (Menon et al. 2021, arXiv 2007.07314, equation 10). With a
    `focal_gamma` γ every row's loss is multiplied by (1 - p)^γ, p being the probability of its label (Lin et al. 2017,
    arXiv 1708.02002, equation 5). The loss of a mixed target is the mean of its classes' losses, weighted by their
    shares.

    Raises:
        ConfigError: the smoothing would leave the label less than the wrong classes.
    """
    smoothing = look_up(SMOOTHING, config.smoothed_over, "smoothed_over")(config, logits.shape[1])
    if shift is not None:
        logits = logits + shift
    if config.focal_gamma == 0 and not targets.is_floating_point():
        return functional.cross_entropy(logits, targets, weights, label_smoothing=smoothing)
    log_p = logits.log_softmax(1)
    surprise = -log_p if weights is None else -log_p * weights
    losses = torch.lerp(surprise, surprise.mean(1, keepdim=True), smoothing)  # for each class, were it the label
    if config.focal_gamma:
        # expm1, as 1 - p is 0 where p is 1 but for rounding; and at 0 the power's derivative is infinite for γ < 1.
        losses = losses * (-log_p.expm1()).clamp(min=torch.finfo(log_p.dtype).tiny) ** config.focal_gamma
    shares = targets if targets.is_floating_point() else functional.one_hot(targets, logits.shape[1])
    return (shares * losses).sum() / total_weight(targets, weights)


def total_weight(targets: Tensor, weights: Tensor | None) -> Tensor | int:
    """Return what the sum of the rows' losses is divided by: the number of rows, or the sum of their classes' weights.

    `targets` are labels int64 [B] or shares float32 [B, C], `weights` float32 [C].
    """
    if weights is None:
        return len(targets)
    return (targets @ weights).sum() if targets.is_floating_point() else weights[targets].sum()


def correct_count(logits: Tensor, targets: Tensor) -> Tensor:
    """Return how many predictions are correct, a scalar; of a mixed target it counts the predicted class's share.

    `logits` are float32 [B, C], `targets` labels int64 [B] or shares float32 [B, C].
    """
    predicted = logits.argmax(1)
    if targets.is_floating_point():
        return targets.gather(1, predicted[:, None]).sum()
    return (predicted == targets).sum()


def log_prior(config: TrialConfig, labels: Tensor, classes: int) -> Tensor | None:
    """Return `logit_adjustment` times the log of the classes' shares, float32 [C]; None without an adjustment.

    `labels` are int64 [N]. A class without rows counts as one with a single row.
    """
    if config.logit_adjustment == 0:
        return None
    counts = labels.bincount(minlength=classes).clamp(min=1).double()
    return (config.logit_adjustment * (counts / counts.sum()).log()).float()


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
