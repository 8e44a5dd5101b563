"""Pretrained nets: the space of every data set of one's own, and of any other with `--weights`.

    python -m orchestrator.sweep path/to/pictures --weights folder/of/nets

Trials are heads on the features of frozen nets, which take seconds once the features are computed: every net and view
of the pictures once, however many trials there are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from search_spaces.space import SearchSpace, choice, log, uniform
from trainables.config import TrialConfig

NETS = {False: ("resnet18", "efficientnet_b0"), True: ("resnet50", "efficientnet_b0", "convnext_tiny")}
"""torchvision's models that are searched unless the user names others: without a GPU, and with one."""

FORWARD_PASSES = 40_000
"""Pictures that a CPU may compute features of, over all nets and views: some twenty minutes on two cores."""

ROWS, FEWEST, MOST = 25_000, 5, 40
"""Rows that a trial trains on in all its epochs together, and bounds of how many epochs that may make."""

TRIALS = {"quick": 8, "good": 24, "best": 48}


@dataclass(frozen=True)
class Seen:
    """The nets that are searched, and how they see the pictures."""

    nets: tuple[str, ...]
    fits: tuple[str, ...]
    views: str = "flip"

    @property
    def passes(self) -> int:
        """The number of times that each picture goes through a net."""
        return len(self.nets) * len(self.fits) * (2 if self.views == "flip" else 1)

    def affordable(self, rows: int, most: float) -> Seen:
        """Return the same or, if it would take more than `most` forward passes of `rows` pictures, a part of it."""
        one_fit = replace(self, fits=self.fits[:1])
        one_view = replace(one_fit, views="one")
        fewer = (self, one_fit, one_view, replace(one_view, nets=self.nets[:2]), replace(one_view, nets=self.nets[:1]))
        return next((seen for seen in fewer if rows * seen.passes <= most), fewer[-1])


def space(
    *, gpu: bool, preset: str, weights: str, nets: tuple[str, ...], rows: int | None = None, square: bool = True
) -> SearchSpace:
    """Return a space over the pretrained `nets`; see `Situation` for the arguments."""
    seen = Seen(nets, ("crop",) if square else ("pad", "crop"))
    if preset == "quick":
        seen = Seen(nets[:1], seen.fits[:1], "one")
    elif not gpu:
        seen = seen.affordable(rows or 0, FORWARD_PASSES if preset == "good" else math.inf)
    several = {"model": seen.nets, "fit": seen.fits}
    return SearchSpace(
        base=TrialConfig(
            model=seen.nets[0],
            weights=weights,
            freeze=True,
            optimizer="adamw",
            schedule="one_cycle",
            warmup=0.2,
            batch_size=64,
            max_epochs=min(max(ROWS // (rows or ROWS), FEWEST), MOST),
            fit=seen.fits[0],
            evaluation_views=seen.views,
        ),
        distributions={
            **{name: choice(*values) for name, values in several.items() if len(values) > 1},
            "lr": log(1e-3, 3e-2),
            "weight_decay": log(1e-5, 1.0),
            "dropout": uniform(0.0, 0.5),
            "label_smoothing": uniform(0.0, 0.2),
            "train_fraction": uniform(0.5, 1.0),
        },
        trials=TRIALS[preset],
    )
