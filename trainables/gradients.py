"""The gradients of a batch's loss, at once or added up over micro-batches, which need less memory."""

from __future__ import annotations

import torch
from torch import Tensor

from trainables.evaluation import autocast
from trainables.learner import Learner
from trainables.losses import penalty, total_weight, training_loss


def backpropagate(
    learner: Learner, images: Tensor, targets: Tensor, weights: Tensor | None, shift: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Add the gradients of the batch's loss to those of the model; return the loss, a scalar, and the logits [B, C].

    Both are detached. `targets`, `weights` and `shift` are those of `training_loss`. Over micro-batches the loss and
    its gradients are those of the mean over the whole batch. Batch norm sees each micro-batch alone, and dropout draws
    anew for each.
    """
    config, parts = learner.config, _micro_batches(learner.config.micro_batch, len(images))
    losses: list[Tensor] = []
    logits: list[Tensor] = []
    for rows, of_rows in zip(images.tensor_split(parts), targets.tensor_split(parts), strict=True):
        with autocast(config, learner.device):
            outputs = learner.network(rows)
        outputs = outputs.float()
        loss = training_loss(config, outputs, of_rows, weights, shift)
        if parts > 1:
            loss = loss * (total_weight(of_rows, weights) / total_weight(targets, weights))
        if not losses and (config.head_l1 or config.head_l2):
            matrices = (parameter for parameter in learner.head.parameters() if parameter.ndim > 1)
            loss = loss + penalty(config, matrices)
        torch.autograd.backward(learner.scaler.scale(loss))
        losses.append(loss.detach())
        logits.append(outputs.detach())
    return sum(losses[1:], losses[0]), torch.cat(logits)


def _micro_batches(most: int, rows: int) -> int:
    """Return the number of micro-batches of at most `most` rows, alike in size; 1 if `most` is 0.

    Of an odd number of rows by twos one has three: batch norm cannot train on a single row.
    """
    parts = -(-rows // most) if most else 1
    return parts if most == 1 else min(parts, max(rows // 2, 1))
