"""The situation that a search space is made for: the machine, the preset, the pretrained nets and the pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from search_spaces.space import SearchSpace
from trainables.user_code import accepted_keywords

if TYPE_CHECKING:
    from trainables.splits import SearchData

PRESETS = {
    "quick": "a first result in minutes: few trials of small nets, or heads on one pretrained net",
    "good": "what the data set's search space names",
    "best": "several times the trials, and fine-tuning on a CPU as well: hours",
}
"""The values of `--preset`, with a line of help."""

MORE_TRIALS = 3
"""Times as many trials, under `best`, of a space that does not know presets."""


@dataclass(frozen=True)
class Pictures:
    """The pictures of a data set, as far as a search space depends on them."""

    rows: int | None = None  # to learn from; None if they are not read yet
    square: bool = True  # all are as wide as high

    @classmethod
    def of(cls, data: SearchData) -> Pictures:
        """Return what `data` have for trials to learn from and to be scored on."""
        import numpy as np

        from trainables.datasets.stored_images import StoredImages

        rows = np.union1d(data.pool, data.validation)
        height, width = StoredImages.of(data.images).sizes(rows)
        return cls(len(rows), bool((height == width).all()))


UNREAD = Pictures()


@dataclass(frozen=True)
class Situation:
    """The situation that a search space is made for.

    Attributes:
        gpu: whether trials train on GPUs.
        preset: one of PRESETS.
        weights: the value of the field `weights` with which `nets` are pretrained; none if there are no nets.
        nets: pretrained models that can be had.
        rows: pictures to learn from; None if they are not read yet.
        square: whether all pictures are as wide as high.
    """

    gpu: bool = False
    preset: str = "good"
    weights: str = "none"
    nets: tuple[str, ...] = ()
    rows: int | None = None
    square: bool = True

    @property
    def quick(self) -> bool:
        """True if the small variant is wanted."""
        return self.preset == "quick"

    def make(self, maker: Callable[..., SearchSpace]) -> SearchSpace:
        """Return the space that `maker` makes of those of these attributes, and `quick`, that it takes as keywords."""
        taken = accepted_keywords(maker, {**vars(self), "quick": self.quick})
        space = maker(**taken)
        if self.preset == "best" and "preset" not in taken and isinstance(space, SearchSpace):
            return replace(space, trials=MORE_TRIALS * space.trials)
        return space
