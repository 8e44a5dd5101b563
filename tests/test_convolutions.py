"""Convolutions over images of about one pixel: torch's results with less work."""

from __future__ import annotations

import copy
from itertools import product

import pytest
import torch
from torch import nn

from trainables.models.convolutions import Conv2d, with_small_outputs


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [*product((1, 2, 3, 5), (1, 2, 3), (0, 1, 2)), ((3, 1), (2, 1), (1, 0))]
)
@pytest.mark.parametrize("groups", [1, 2])
def test_outputs_and_gradients_are_torchs(
    kernel: int | tuple[int, int], stride: int | tuple[int, int], padding: int | tuple[int, int], groups: int
) -> None:
    theirs = nn.Conv2d(4, 6, kernel, stride, padding, groups=groups, dtype=torch.float64)
    ours = with_small_outputs(copy.deepcopy(theirs))
    assert type(ours) is Conv2d
    for height, width in product((1, 2, 3, 4), repeat=2):
        images = torch.randn(3, 4, height, width, dtype=torch.float64)
        try:
            expected = theirs(images)
        except RuntimeError:  # the kernel is larger than the image
            continue
        found = ours(images)
        torch.testing.assert_close(found, expected)
        by = torch.randn_like(expected)
        gradients = [
            torch.autograd.grad(out, list(net.parameters()), by) for out, net in ((expected, theirs), (found, ours))
        ]
        torch.testing.assert_close(gradients[1], gradients[0])


@pytest.mark.parametrize("fields", [{"dilation": 2}, {"padding": "same"}, {"padding_mode": "circular", "padding": 1}])
def test_others_stay_as_they_are(fields: dict[str, object]) -> None:
    theirs = nn.Conv2d(3, 4, 3, **fields)  # type: ignore[arg-type]
    images = torch.randn(2, 3, 6, 6)
    torch.testing.assert_close(with_small_outputs(copy.deepcopy(theirs))(images), theirs(images), rtol=0, atol=0)
