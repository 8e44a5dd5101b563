"""Mixing the images of a batch in pairs, with targets to match: mixup and CutMix.

Every image is mixed with the one before it in the batch, the first with the last, all in the same way. Batches are
shuffled, so this is as good as a random permutation.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from numpy.random import Generator, default_rng
from torch import Tensor
from torch.nn import functional

from trainables.augmentation import FROM_STREAM
from trainables.config import TrialConfig
from trainables.seeds import seed_for


class Mix(NamedTuple):
    """A way to mix a batch."""

    own: float  # share of each image's own label in its target
    box: tuple[slice, slice] | None  # rows and columns that are the other image's; None: blended all over


def draw_mix(drawn: Tensor, config: TrialConfig, size: tuple[int, int]) -> Mix | None:
    """Draw how a batch of images of this height and width is mixed; return None if the configuration mixes none.

    With mixup the share of an image's own values is drawn from Beta(α, α) (Zhang et al. 2018, arXiv 1710.09412), with
    CutMix that share of the area (Yun et al. 2019, arXiv 1905.04899); the box is cut at the image's borders, as in
    torchvision. With both, a batch gets either with probability 1/2.

    Args:
        drawn: the batch's numbers from `augmentation.draw`. Its first image's are the seed, so that mixing leaves all
            other draws as they are.
    """
    if not config.mixup and not config.cutmix:
        return None
    random = default_rng(seed_for("mixing", *map(repr, drawn[:FROM_STREAM, 0].tolist())))
    cut = random.random() < (0.5 if config.mixup and config.cutmix else config.cutmix > 0)
    alpha = config.cutmix if cut else config.mixup
    own = float(random.beta(alpha, alpha))
    if not cut:
        return Mix(own, None)
    rows, columns = (_span(length, math.sqrt(1 - own), random) for length in size)
    area = (rows.stop - rows.start) * (columns.stop - columns.start)
    return Mix(1 - area / math.prod(size), (rows, columns))


def _span(length: int, share: float, random: Generator) -> slice:
    """Return the pixels of `length` that are within `share` of it, about a random one."""
    middle, half = int(random.integers(length)), int(share * length / 2)
    return slice(max(middle - half, 0), min(middle + half, length))


def mixed(images: Tensor, labels: Tensor, classes: int, mix: Mix) -> tuple[Tensor, Tensor]:
    """Return the mixed images, float32 [B, C, H, W], and their targets, float32 [B, classes]; `labels` are int64 [B].

    With a box, `images` are written to.
    """
    targets = functional.one_hot(labels, classes).float()
    targets = torch.lerp(targets.roll(1, 0), targets, mix.own)
    if mix.box is None:
        return _blended(images, mix.own), targets
    images[:, :, mix.box[0], mix.box[1]] = images[:, :, mix.box[0], mix.box[1]].roll(1, 0)
    return images, targets


def _blended(images: Tensor, own: float) -> Tensor:
    """Return each image blended with the one before it, without a copy of the whole batch in another order."""
    blended = torch.empty_like(images)
    for into, first, other in ((slice(1, None), images[1:], images[:-1]), (slice(1), images[:1], images[-1:])):
        torch.lerp(other, first, own, out=blended[into])
    return blended
