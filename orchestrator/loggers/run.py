"""What every tracker is told of a trial, in the words of the leaderboard."""

from __future__ import annotations

import hashlib
from pathlib import Path

from orchestrator.record.state import SweepState, TrialRecord

LONGEST = 1000  # characters of a tag: an error may be pages
NOT_MEASURED = ("epoch", "attempt", "ended_at")


def name(folder: Path, trial: TrialRecord) -> str:
    """`<sweep>/trial-<n>`."""
    return f"{folder.name}/trial-{trial.number}"


def identity(folder: Path, trial: TrialRecord) -> str:
    """The same for all attempts and commands; another one for another sweep, also of the same name."""
    text = f"{folder.name}/{trial.number}/{trial.proposed_at!r}"
    return f"{folder.name}-{trial.number}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def tags(state: SweepState, trial: TrialRecord) -> dict[str, str]:
    """What the trial is, where it comes from, and how it ended; what is not known is left out."""
    end = trial.end or {}
    git, split = state.spec.get("git", {}), state.spec.get("split", {})
    found = {
        "trial": trial.number,
        "arm": trial.arm or None,
        "confirms": trial.confirms,
        "seed_index": trial.index if trial.final else None,
        "data_fingerprint": split.get("data_fingerprint"),
        "git_revision": git.get("revision"),
        "git_dirty": git.get("dirty"),
        "status": trial.status,
        "stop_reason": end.get("stop_reason"),
        "error": end.get("error"),
    }
    return {key: str(value)[:LONGEST] for key, value in found.items() if value is not None}


def metrics(epoch: dict[str, object]) -> dict[str, float]:
    """The numbers that one of `TrialRecord.epochs` has; those that are undefined are left out."""
    return {key: value for key, value in epoch.items() if _is_number(value) and key not in NOT_MEASURED}  # type: ignore[misc]


def final_metrics(trial: TrialRecord) -> dict[str, float]:
    """What the trial came to: score and best epoch, and of a final run `<part of the data>/<metric>`."""
    found: dict[str, object] = {"best_score": trial.score, "best_epoch": trial.best_epoch}
    for part, measured in trial.final_metrics.items():
        found |= {f"{part}/{key}": value for key, value in measured.items()}
    return {key: value for key, value in found.items() if _is_number(value)}  # type: ignore[misc]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
