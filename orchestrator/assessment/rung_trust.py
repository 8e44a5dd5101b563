"""How far the first rung can be trusted: whether it had the trials that then ran in full in their final order."""

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


@dataclass(frozen=True)
class RungTrust:
    """Pairs of searched trials that ran in full, and how many of them stood in the same order at an epoch.

    They are the best ones, so they are nearer to each other than others, and their order is harder to tell.
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
        text = f"{first}: {self.alike:g} of {self.pairs} pairs of trials that ran in full had their final order there"
        deaf = self.pairs >= ENOUGH and self.share < DEAF
        return f"{text}; it says little of the end (see docs/search.md)" if deaf else text

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, as `final.json` has them."""
        return asdict(self)


def rung_trust(state: SweepState, planned: Plan) -> RungTrust | None:
    """Compare the order of a sweep's trials at the first rung with that at their end.

    None of a recipe, without a rung that all trials come to, and without two trials that say.
    """
    epoch = None if planned.recipe is not None else planned.stop_rule().rules[""].learned_at
    if epoch is None:
        return None
    stops = planned.space.stops  # others run in full by themselves, heads on features for one
    whole = [t for t in state.trials.values() if not t.final and t.status == "completed" and stops(t.config)]
    known = [(t.scores.get(epoch), t.score, direction(t.metric)) for t in whole if t.last_epoch > epoch]
    scores = [(gain(there, sign), gain(end, sign)) for there, end, sign in known]
    pairs = [(a, b) for a, b in combinations(scores, 2) if a[1] != b[1]]
    if not pairs:
        return None
    alike = sum(0.5 if a[0] == b[0] else float((a[0] > b[0]) == (a[1] > b[1])) for a, b in pairs)
    return RungTrust(epoch, len(pairs), alike)
