"""The scale of the loss under float16, whose numbers end at 65,504: a step that overflows is left out and counted.

A single one says nothing about the settings. As many in a row as LONGEST_RUN do: torch's scale begins at 2^16, so after
16 steps that are left out it is 1, and then it is not the scale that makes numbers overflow.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

LONGEST_RUN = 20  # steps in a row that may be left out


class LossScaler(torch.amp.GradScaler):
    """torch's scaler, which also counts what it leaves out, on the device: nothing waits for that.

    The forward pass that overflows has spoilt batch norm's running statistics by then; they get their values back.
    """

    def __init__(self, device: torch.device, model: nn.Module, enabled: bool) -> None:
        super().__init__(device.type, enabled=enabled)
        self._norms = [module for module in model.modules() if isinstance(module, _BatchNorm)] if enabled else []
        self._one = torch.ones((), device=device)
        self._counts = torch.zeros(3, dtype=torch.int64, device=device)  # this epoch's, in a row, most in a row
        self._before: tuple[list[Tensor], Tensor] | None = None
        self.left_out: Tensor | None = None  # bool, a scalar: of the newest step; None if nothing is scaled

    def begin_epoch(self) -> None:
        """Count anew what is left out; a row of steps goes on."""
        self._counts[0] = 0

    def begin_step(self) -> None:
        """Note the statistics that the forward pass changes."""
        of_norms = ((norm.running_mean, norm.running_var) for norm in self._norms if norm.training)
        statistics = [each for pair in of_norms for each in pair if each is not None]
        self._before = (statistics, torch.cat(statistics)) if statistics else None

    def update(self, new_scale: float | Tensor | None = None) -> None:
        """Update the scale after a step, and count the step if it was left out."""
        if not self.is_enabled():
            return
        before = self.scale(self._one)
        super().update(new_scale)
        self.left_out = self.scale(self._one) < before
        row = (self._counts[1] + 1) * self.left_out
        self._counts = torch.stack((self._counts[0] + self.left_out, row, torch.maximum(self._counts[2], row)))
        if self._before is not None:
            statistics, values = self._before
            values = torch.where(self.left_out, values, torch.cat(statistics))
            torch._foreach_copy_(statistics, list(torch.split(values, [len(each) for each in statistics])))

    @property
    def skipped(self) -> int:
        """The number of this epoch's steps that were left out; it waits for the device if there may be any."""
        return int(self._counts[0]) if self.is_enabled() else 0

    @property
    def in_a_row(self) -> int:
        """The most steps in a row that were left out so far; it waits for the device if there may be any."""
        return int(self._counts[2]) if self.is_enabled() else 0

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain JSON values."""
        found: dict[str, Any] = super().state_dict()
        return {**found, "in_a_row": int(self._counts[1])} if found else found

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state that `state_dict` returned; those of earlier versions do not have what was in a row."""
        super().load_state_dict({name: value for name, value in state_dict.items() if name != "in_a_row"})
        self._counts[1] = state_dict.get("in_a_row", 0)
