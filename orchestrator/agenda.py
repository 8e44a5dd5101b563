"""What a sweep has still to run: searched trials of every arm in turn, then each arm's final runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.ranking import best_trial
from orchestrator.state import SweepState
from search_spaces.space import SearchSpace


@dataclass(frozen=True)
class Due:
    """The next trial. `params` are None where the arm's sampler is to be asked; `index` is as in `TrialRecord`."""

    arm: str
    index: int
    params: dict[str, Any] | None = None
    confirms: int | None = None

    @property
    def final(self) -> bool:
        """Whether the trial is run for its figures, with the settings of a trial that was searched or of the arm."""
        return self.params is not None

    def fields(self) -> dict[str, Any]:
        """What the event of its proposal says beyond that of a sweep without arms and final runs."""
        arm = {"arm": self.arm} if self.arm else {}
        return arm | ({"final": True, "index": self.index, "confirms": self.confirms} if self.final else {})


@dataclass(frozen=True)
class Agenda:
    """Arms with what is searched in each. `seeds`: final runs of every arm; 0 in an ordinary sweep."""

    arms: Mapping[str, SearchSpace]
    trials: int  # searched, of every arm that searches anything
    seeds: int = 0

    def next(self, state: SweepState) -> Due | None:
        """What `state` lacks; None when nothing can be proposed until a running trial has ended, or ever."""
        searching = [name for name in self.arms if self._searched(name) and state.arm(name).proposed < self.trials]
        if searching:
            arm = min(searching, key=lambda name: state.arm(name).proposed)
            return Due(arm, state.arm(arm).proposed)
        ready = [name for name in self.arms if len(state.arm(name).finals) < self.seeds and self._ready(name, state)]
        for arm in sorted(ready, key=lambda name: len(state.arm(name).finals)):
            index = next(i for i in range(self.seeds) if i not in state.arm(arm).finals)
            if not self._searched(arm):
                return Due(arm, index, {})
            best = best_trial(state, arm)
            if best is not None:
                return Due(arm, index, best.params, best.number)
        return None

    def total(self) -> int:
        """How many trials there will be, if every arm's search finds something."""
        return sum(self.trials * self._searched(name) + self.seeds for name in self.arms)

    def _searched(self, arm: str) -> bool:
        return self.seeds == 0 or bool(self.arms[arm].distributions)

    def _ready(self, arm: str, state: SweepState) -> bool:
        return not self._searched(arm) or state.arm(arm).finished == state.arm(arm).proposed
