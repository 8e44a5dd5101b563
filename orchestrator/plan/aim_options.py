"""The options that say what a good trial is, one of the groups of `orchestrator.plan.options`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from orchestrator.record.aims import DIRECTIONS, MEASURES
from trainables.command_line import Repeated, option
from trainables.epoch_metrics import METRICS

FURTHER = [name for name in MEASURES if name not in METRICS]
"""What `--also` and `--constraint` may name beside the metrics."""


@dataclass(frozen=True)
class AimOptions:
    """The metric to optimize, further aims, and what the winner must meet."""

    metric: Annotated[
        str,
        option(
            "NAME|MODULE:FUNCTION",
            f"Metric to optimize: {', '.join(METRICS)}, or your function, with :min after it if less is better. A "
            "trial's score is its best value so far.",
        ),
    ] = "val_accuracy"
    also: Annotated[
        Repeated,
        option(
            f"NAME[:{'|'.join(DIRECTIONS)}]",
            "Further aims: the trials that no other beats in all of them and the metric are shown. The search goes by "
            f"the metric alone. NAME is one of the metrics, or one of {', '.join(FURTHER)}. See docs/search.md.",
        ),
    ] = ()
    constraint: Annotated[
        Repeated,
        option(
            '"NAME<NUMBER"',
            'What the winner must meet, such as "parameters<5e6" or "val_worst_recall>=0.8", with a NAME as after '
            "--also.",
        ),
    ] = ()
