"""How far the first rung can be trusted: whether it had the trials that went on in the order that they came to."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from orchestrator.record.ranking import direction, gain
from orchestrator.record.state import SweepState

if TYPE_CHECKING:
    from orchestrator.plan.plan import Plan  # loads Optuna, which a bundle's reader may not have

DEAF = 0.6  # share of pairs below which a rung says little
ENOUGH = 8  # pairs from which on that is reported
MOST = 200  # trials that are compared, the newest ones


@dataclass(frozen=True)
class RungTrust:
    """Pairs of searched trials that went on from an epoch, and how many of them were in the same order there.

    The order is that at the last epoch that both have. They are the best ones, so they are nearer to each other than
    others, and their order is harder to tell.
    """

    epoch: int
    pairs: int
    alike: float  # a tie at the epoch counts half

    @property
    def share(self) -> float:
        """The share of pairs in the same order."""
        return self.alike / self.pairs

    def __str__(self) -> str:
        first = f"the first rung, epoch {self.epoch}"
        text = f"{first}: {self.alike:g} of {self.pairs} pairs of trials that went on had their later order there"
        deaf = self.pairs >= ENOUGH and self.share < DEAF
        return f"{text}; it says little of the end (see docs/search.md)" if deaf else text

    def short(self) -> str:
        """Return the share as the report has it."""
        return f"{self.share:.0%} of {self.pairs} pairs in their later order"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, as `final.json` has them."""
        return asdict(self)


def rung_trust(state: SweepState, planned: Plan) -> RungTrust | None:
    """Compare the order of a sweep's trials at the first rung with that at the last epoch of two trials.

    None of a recipe, without a rung that all trials come to, and without two trials that say.
    """
    epoch = None if planned.recipe is not None else planned.stop_rule().rules[""].learned_at
    if epoch is None:
        return None
    stops = planned.space.stops  # others run in full by themselves, heads on features for one
    searched = [trial for trial in state.trials.values() if not trial.final and stops(trial.config)]
    beyond = [trial for trial in searched if trial.last_epoch > epoch and trial.status in ("completed", "stopped")]
    known = [(trial.scores, trial.last_epoch, direction(trial.metric)) for trial in beyond[-MOST:]]
    pairs, alike = 0, 0.0
    for (one, last, sign), (other, others_last, _) in combinations(known, 2):
        end = min(last, others_last)
        if any(scores.get(at) is None for scores in (one, other) for at in (end, epoch)):
            continue  # a damaged line had it
        later, there = (gain(one.get(at), sign) - gain(other.get(at), sign) for at in (end, epoch))
        if later:
            pairs += 1
            alike += 0.5 if not there else float((there > 0) == (later > 0))
    return RungTrust(epoch, pairs, alike) if pairs else None
