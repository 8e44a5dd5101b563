"""Two sweeps side by side: their different settings, and their scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from orchestrator.assessment import intervals
from orchestrator.assessment.candidates import Confirmed
from orchestrator.assessment.ensemble import LEVEL
from orchestrator.assessment.intervals import Interval
from orchestrator.leaderboard.boards import Board
from orchestrator.leaderboard.selection import OF_THE_PLAN
from orchestrator.plan.plan import Plan
from trainables.config import FIELDS

ELSEWHERE = ("name", "arms", "data_dir", "storage")  # of a plan: where it is, and what is described field by field
DERIVED = ("rounds", "confirm_start", "open_ended", "share_gpus", "kind_gpus", "least_validation_rows")
"""Values of a plan that follow from options, from the time that there was, or from the version."""
OPTIONS = {
    "slot_cpus": "cpus_per_trial",
    "slot_gpus": "gpus_per_trial",
    "concurrency": "slots",
    "least_slots": "slots at the start",
}
"""Values of a plan that have another name than the option that sets them, and what they are called here."""


@dataclass(frozen=True)
class Change:
    """One setting that differs; None for a sweep that has no such setting."""

    setting: str
    first: str | None
    second: str | None


@dataclass(frozen=True)
class Outcome:
    """The results of one sweep; `confirmed` and `interval` are of its confirmed winner, if there is one."""

    sweep: str
    trials: int
    score: float | None  # the search's best
    winner: int | None
    confirmed: float | None
    interval: Interval | None
    runs: int


@dataclass(frozen=True)
class SweepDiff:
    """The differences of two sweeps. `tie` compares winners that ran the same seeds on the same validation set."""

    metric: tuple[str, str]
    same_validation_set: bool  # scores are of the same rows
    changes: tuple[Change, ...]
    outcomes: tuple[Outcome, Outcome]
    tie: intervals.Tie | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "metric": self.metric[0] if len(set(self.metric)) == 1 else list(self.metric),
            "same_validation_set": self.same_validation_set,
            "changes": [vars(change) for change in self.changes],
            "outcomes": [vars(outcome) for outcome in self.outcomes],
            "tie": None if self.tie is None else self.tie._asdict(),
        }

    def notes(self) -> list[str]:
        """Describe how far the scores may be compared."""
        if not self.same_validation_set:
            return ["another validation set or metric: scores are of different rows, and their difference says little"]
        lines = ["the same validation set: scores are of the same rows"]
        first, second = self.outcomes
        if self.tie is not None and self.tie.p is not None:
            sure = (
                "more than seeds and rows explain" if self.tie.p < 1 - LEVEL else "no more than seeds and rows explain"
            )
            lines.append(
                f"the winners, run with the same seeds, differ by {self.tie.difference:+.4f} in accuracy: {sure} "
                f"(p = {self.tie.p:.2g})"
            )
        elif first.confirmed is not None and second.confirmed is not None:
            lines.append(
                f"confirmed means differ by {second.confirmed - first.confirmed:+.4f}; each interval is of its own "
                "mean, and the runs had other seeds"
            )
        else:
            lines.append("a search's best score is partly luck: confirm both (--confirm) before one is called better")
        return lines


def diff(first: Board, second: Board) -> SweepDiff:
    """Return how `second` differs from `first`."""
    same = first.validation == second.validation
    return SweepDiff(
        metric=(first.metric, second.metric),
        same_validation_set=same,
        changes=tuple(_changes(first, second)),
        outcomes=(_outcome(first), _outcome(second)),
        tie=_tie(_winner(first), _winner(second)) if same else None,
    )


def _changes(first: Board, second: Board) -> list[Change]:
    pair = [_settings(board) for board in (first, second)]
    names = dict.fromkeys([*pair[0], *pair[1]])
    values = ((name, pair[0].get(name), pair[1].get(name)) for name in names)
    return [Change(name, one, other) for name, one, other in values if one != other]


def _settings(board: Board) -> dict[str, str]:
    """Return all settings by name: options, then each arm's fields, fixed or searched."""
    planned: Plan = board.plan
    found = {
        OPTIONS.get(name, name): str(value)
        for name, value in vars(planned).items()
        if name not in ELSEWHERE and name not in DERIVED
    }
    split = board.spec.split
    found |= {name: str(split[name])[:12] for name in ("data_fingerprint", "validation_fingerprint") if name in split}
    found |= {f"version of {name}": str(value) for name, value in board.spec.versions.items()}
    found["CPU"] = str(board.spec.cpu)
    for arm, space in planned.arms.items():
        for name in (field for field in FIELDS if field not in OF_THE_PLAN):
            found[f"{arm}: {name}" if arm else name] = space.describe(name)
    return found


def _outcome(board: Board) -> Outcome:
    names = ["rank", "score", "winner", "trial", "confirmed", "confirmed_low", "confirmed_high"]
    rows = list(zip(*(board.table[name].to_pylist() for name in names), strict=True))
    score = next((score for rank, score, *_ in rows if rank == 1), None)
    trial, mean, low, high = next((won for _, _, is_winner, *won in rows if is_winner), (None,) * 4)
    winner = _winner(board)
    return Outcome(
        sweep=board.name,
        trials=len(rows),
        score=score,
        winner=trial,
        confirmed=mean,
        interval=None if low is None or high is None else Interval(low, high),
        runs=len(winner.runs) if winner else 0,
    )


def _winner(board: Board) -> Confirmed | None:
    return None if board.confirmation is None else board.confirmation.winner


def _tie(first: Confirmed | None, second: Confirmed | None) -> intervals.Tie | None:
    """Return whether the second winner's accuracy differs from the first's, over seeds and rows."""
    if first is None or second is None:
        return None
    if [run.seed for run in first.runs] != [run.seed for run in second.runs]:
        return None
    one, other = first.correct(), second.correct()
    return None if one is None or other is None or one.shape != other.shape else intervals.ties(other, [one])[0]
