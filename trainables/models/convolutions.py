"""Convolutions over images of hardly a pixel, which is what the late layers of a deep net make of small ones."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class Conv2d(nn.Conv2d):
    """`nn.Conv2d`, but where its output is one pixel it computes with the weights that meet that pixel's inputs alone.

    The others meet padding: of a 3×3 kernel over one pixel, eight in nine. On a CPU that is the larger part of
    ResNet-18's time at 32 pixels with its ImageNet stem (a step of 128 rows: 179 ms, so 129 ms).
    """

    def forward(self, images: Tensor) -> Tensor:
        rows, columns = (self._met(images.shape[2 + i], i) for i in (0, 1))
        if rows is None or columns is None:
            return super().forward(images)
        weight = self.weight[:, :, rows[0], columns[0]]
        images = images[:, :, rows[1], columns[1]]
        if self.groups > 1:
            return functional.conv2d(images, weight, self.bias, groups=self.groups)
        return functional.linear(images.flatten(1), weight.flatten(1), self.bias)[:, :, None, None]

    def _met(self, size: int, axis: int) -> tuple[slice, slice] | None:
        """Which weights meet which of `size` inputs along an axis, if the output is one pixel; else None."""
        if isinstance(self.padding, str) or self.padding_mode != "zeros" or self.dilation[axis] > 1:
            return None
        kernel, padding, stride = self.kernel_size[axis], self.padding[axis], self.stride[axis]
        if not 0 <= size + 2 * padding - kernel < stride or padding >= kernel:
            return None
        met = min(kernel - padding, size)
        return slice(padding, padding + met), slice(0, met)


def with_small_outputs(model: nn.Module) -> nn.Module:
    """`model`, its plain convolutions made `Conv2d` of this module; names and values stay."""
    for module in model.modules():
        if type(module) is nn.Conv2d:
            module.__class__ = Conv2d
    return model
