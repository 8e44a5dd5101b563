"""What every tracker logs of a trial, with the leaderboard's names."""

from __future__ import annotations

import hashlib
from pathlib import Path

from orchestrator.record.state import SweepState, TrialRecord

LONGEST = 1000  # characters of a tag: an error may be pages
NOT_MEASURED = ("epoch", "attempt", "ended_at", "beside")


def name(folder: Path, trial: TrialRecord) -> str:
    """Return `<sweep>/trial-<n>`."""
    return f"{folder.name}/trial-{trial.number}"


def identity(folder: Path, trial: TrialRecord) -> str:
    """Return an identity that all attempts and commands share; another sweep has others, even under the same name."""
    text = f"{folder.name}/{trial.number}/{trial.proposed_at!r}"
    return f"{folder.name}-{trial.number}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def tags(state: SweepState, trial: TrialRecord) -> dict[str, str]:
    """Return the trial's kind, its origin and its end; what is unknown is left out."""
    facts = {
        "trial": trial.number,
        "arm": trial.arm or None,
        "confirms": trial.confirms,
        "refit": True if trial.refit else None,
        "seed_index": trial.index if trial.final else None,
        "data_fingerprint": state.spec.split.get("data_fingerprint"),
        "git_revision": state.spec.revision,
        "git_dirty": state.spec.dirty,
        "status": trial.status,
        "stop_reason": trial.end and trial.end.stop_reason,
        "error": trial.error,
    }
    return {key: str(value)[:LONGEST] for key, value in facts.items() if value is not None}


def metrics(epoch: dict[str, object]) -> dict[str, float]:
    """Return the metrics in one of `TrialRecord.epochs`, without those that are undefined."""
    return {key: value for key, value in epoch.items() if _is_number(value) and key not in NOT_MEASURED}  # type: ignore[misc]


def final_metrics(trial: TrialRecord) -> dict[str, float]:
    """Return score and best epoch; of a final run also `<part of the data>/<metric>`."""
    values: dict[str, object] = {"best_score": trial.score, "best_epoch": trial.best_epoch}
    for part, measured in trial.final_metrics.items():
        values |= {f"{part}/{key}": value for key, value in measured.to_dict().items()}
    return {key: value for key, value in values.items() if _is_number(value)}  # type: ignore[misc]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
