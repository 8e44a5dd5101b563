"""Pretrained nets: the space of every data set of one's own, and of any other with `--weights`.

    python -m orchestrator.sweep path/to/pictures --weights folder/of/nets

Trials begin with heads on the features of frozen nets, which take seconds once the features are computed: every net and
view of the pictures once, however many trials there are. With a GPU, and under `--preset best` without one, the last
trials train the nets whose heads did best, head first.
"""

from __future__ import annotations

import math
from collections.abc import Container
from dataclasses import dataclass, replace

from search_spaces.distributions import Distribution
from search_spaces.space import SearchSpace, choice, integer, log, uniform
from search_spaces.stage import Stage
from search_spaces.starts import ADAMW, Start
from trainables.config import TrialConfig

NETS = {False: ("resnet18", "efficientnet_b0"), True: ("resnet50", "efficientnet_b0", "convnext_tiny")}
"""torchvision's models that are searched unless the user names others: without a GPU, and with one."""

FORWARD_PASSES = 40_000
"""Forward passes of all pictures through all nets on a CPU, at most: at 16 ms, some five minutes on two cores."""

ROWS, FEWEST, MOST = 25_000, 5, 40
"""Rows that a trial trains on in all its epochs together, and bounds of how many epochs that may make."""

HEADS = {"quick": 8, "good": 48, "best": 96}
"""Trials of heads on frozen nets, by preset. They run in full: once the features are there, an epoch takes a tenth of a
second, and what a head reaches in a few epochs of its schedule says little of where it ends."""

FINE_TUNED = {("good", True): 12, ("best", True): 24, ("best", False): 6}
"""Trials that train whole nets, by preset and whether there is a GPU; elsewhere there are none."""

FINE_TUNING: dict[str, Distribution] = {
    "head_epochs": integer(1, 3),
    "base_lr": log(3e-3, 1.0),
    "lr_decay": uniform(0.7, 1.0),
    "flip": choice(True),
    "resized_crop": uniform(0.25, 0.9),
}
"""Fields that are searched where the base learns: a frozen one sees every picture as it is, once."""


HEAD_LR = 1e-2
"""Ten times the usual rate: one layer on fixed features bears it, and learns little in its few steps at a lower one."""

WHOLE: Start = {"head_epochs": 1, "base_lr": 0.1, "lr_decay": 0.9, "flip": True, "resized_crop": 0.35}
"""A usual way to train a whole net: the head first, then all of it, the base at a tenth of the rate."""


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
    heads, tuned = HEADS[preset], FINE_TUNED.get((preset, gpu), 0)
    several = {"model": seen.nets, "fit": seen.fits, "freeze": (True, False) if tuned else (True,)}
    choices = {name: choice(*values) for name, values in several.items() if len(values) > 1}
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
            **choices,
            "lr": log(1e-3, 3e-2),
            "weight_decay": log(1e-5, 1.0),
            "dropout": uniform(0.0, 0.5),
            "label_smoothing": uniform(0.0, 0.2),
            "train_fraction": uniform(0.5, 1.0),
            **(FINE_TUNING if tuned else {}),
        },
        trials=heads + tuned,
        conditions={name: {"freeze": (False,)} for name in FINE_TUNING} if tuned else {},
        stages=_stages(heads, tuned, choices),
        unstopped={"freeze": True},
        starts=_starts(tuned > 0),
    )


def _starts(tuned: bool) -> tuple[Start, ...]:
    """Return the start points of heads and, if whole nets are trained, of those."""
    heads = {**ADAMW, "lr": HEAD_LR}
    return ({**heads, "freeze": True}, {**ADAMW, **WHOLE, "freeze": False}) if tuned else (heads,)


def _stages(heads: int, tuned: int, choices: Container[str]) -> tuple[Stage, ...]:
    """Return a stage of heads, every net once at first, and one that trains the nets whose heads did best."""
    each = ("model",) if "model" in choices else ()
    if tuned == 0:
        return (Stage(heads, each=each),) if each else ()
    best = {name: count for name, count in (("model", 2), ("fit", 1)) if name in choices}
    return Stage(heads, {"freeze": True}, each=each), Stage(tuned, {"freeze": False}, best)
