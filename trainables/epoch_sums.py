"""Sums over the steps of an epoch, on the device, so that nothing waits for it; and whether they are finite."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from trainables.errors import Diverged
from trainables.learner import Learner
from trainables.loss_scale import LONGEST_RUN
from trainables.losses import correct_count


class TrainedEpoch(NamedTuple):
    """The training of an epoch, of one fold after another."""

    loss: float  # the mean over the rows, but for steps that were left out, and whose loss is not finite
    accuracy: float
    rows: int  # of all steps
    rate: float  # the last step's learning rate
    skipped: int  # steps that were left out, as float16 overflowed


class EpochSums:
    """The loss, correct predictions and rows of an epoch's steps."""

    def __init__(self, device: torch.device, epoch: int) -> None:
        self.rows, self.skipped = 0, 0
        self._epoch = epoch
        self._totals = torch.zeros(3, dtype=torch.float64, device=device)  # loss, correct predictions, rows counted

    def add(self, learner: Learner, loss: Tensor, logits: Tensor, targets: Tensor) -> None:
        """Add a step's loss, a scalar, and logits [B, C]; one that float16 left out counts if its loss is finite."""
        rows = torch.full_like(loss, len(targets))
        sums, left_out = (
            torch.stack((loss * len(targets), correct_count(logits, targets), rows)),
            learner.scaler.left_out,
        )
        self._totals += sums if left_out is None else torch.where(left_out & ~loss.isfinite(), 0.0, sums)
        self.rows += len(targets)

    def check(self, learner: Learner) -> None:
        """Raise Diverged if the loss is not finite, or float16 overflowed too often in a row."""
        if learner.scaler.in_a_row >= LONGEST_RUN:
            raise Diverged(f"float16 overflowed in {LONGEST_RUN} steps in a row in epoch {self._epoch}")
        if not bool(torch.isfinite(self._totals).all()):
            raise Diverged(f"training loss is not finite in epoch {self._epoch}")

    def end(self, learner: Learner) -> None:
        """Check and count what a learner, of one fold, has done in the epoch."""
        self.check(learner)
        self.skipped += learner.scaler.skipped

    def means(self, rate: float) -> TrainedEpoch:
        """Return the epoch's means, with the last step's learning rate; raise Diverged if no step counts."""
        loss, correct, counted = self._totals.tolist()
        if not counted:
            raise Diverged(f"float16 overflowed in every step of epoch {self._epoch}")
        return TrainedEpoch(loss / counted, correct / counted, self.rows, rate, self.skipped)
