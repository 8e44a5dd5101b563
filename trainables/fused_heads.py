"""The heads of a trial's folds, trained at once: a head's step is so small that calling torch takes most of its time.

Each head sees its own rows. Their order, and what dropout leaves out, are drawn from the same seeds for all folds, so
one mask serves all, and what is computed is what the folds would compute one after another, but for rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from trainables.evaluation import autocast
from trainables.learner import Fold, Learner
from trainables.losses import penalty, training_loss
from trainables.models.heads import Head
from trainables.optimizers import clip_gradients, hand_back, joined


def groups(folds: Sequence[Fold], learners: Sequence[Learner]) -> list[tuple[Sequence[Fold], Sequence[Learner]]]:
    """Return the folds that are trained one after another, or all of them at once, with their learners."""
    if fit(learners):
        return [(folds, learners)]
    return [([fold], [learner]) for fold, learner in zip(folds, learners, strict=True)]


def fit(learners: Sequence[Learner]) -> bool:
    """Return whether these learners can be trained at once: several linear heads on features, nothing scaled or cut."""
    first = learners[0]
    plain = first.config.micro_batch == 0 and first.config.precision != "float16"
    return len(learners) > 1 and first.on_features and type(first.head) is Head and plain


class FusedHeads:
    """The heads of learners that step together, each on the rows of its fold."""

    def __init__(self, learners: Sequence[Learner], folds: Sequence[Fold]) -> None:
        self._config, self._learners, self._folds = learners[0].config, learners, folds
        self._heads = [cast(Head, learner.head) for learner in learners]
        self._optimizer = joined([learner.optimizer for learner in learners])

    def step(self, batches: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
        """Train every head on its batch; return the mean loss, a scalar, logits float32 [K·B, C], detached, and labels.

        `batches` are those of the K heads: features float32 [B, F] and labels int64 [B]. The rates are those of the
        learners' own optimizers.
        """
        features, targets = (torch.stack(parts) for parts in zip(*batches, strict=True))
        logits, penalized = self._logits(features)
        losses = [
            training_loss(self._config, of_head, labels, fold.class_weights, fold.log_prior)
            for of_head, labels, fold in zip(logits, targets, self._folds, strict=True)
        ]
        loss = torch.stack(losses).sum() + penalized
        torch.autograd.backward(loss)
        if self._config.grad_clip > 0:
            for head in self._heads:
                clip_gradients(head.parameters(), self._config.grad_clip)
        for group, of_first in zip(self._optimizer.param_groups, self._learners[0].optimizer.param_groups, strict=True):
            group["lr"] = of_first["lr"]
        self._optimizer.step()
        self._optimizer.zero_grad()
        for learner in self._learners:
            if learner.average is not None:
                learner.average.update()
        return loss.detach() / len(losses), logits.detach().flatten(0, 1), targets.flatten()

    def end(self) -> None:
        """Give each learner's optimizer what the joint one remembers of its parameters."""
        hand_back(self._optimizer, [learner.optimizer for learner in self._learners])

    def _logits(self, features: Tensor) -> tuple[Tensor, Tensor | float]:
        """Return the logits float32 [K, B, C] of features [K, B, F], and the penalty on all weights."""
        weight = torch.stack([head.weight for head in self._heads])
        dropout = self._heads[0].dropout
        if dropout.p > 0:
            features = features * dropout(torch.ones_like(features[0]))
        with autocast(self._config, self._learners[0].device):
            logits = torch.bmm(features, weight.mT).float()
        if self._heads[0].bias is not None:
            logits = logits + torch.stack([head.bias for head in self._heads])[:, None]
        return logits, penalty(self._config, [weight])
