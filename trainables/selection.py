"""The epoch that a trial ends with, and whether it has ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from trainables.config import TrialConfig
from trainables.epoch_metrics import StopReason, better, score_name
from trainables.errors import look_up
from trainables.learner import Learner

SELECTIONS = {"best": False, "last": True}  # whether a trial ends with its newest epoch, and so keeps no weights


class State(Protocol):
    """The part of `loop.TrialState` that this file is about."""

    config: TrialConfig
    learners: list[Learner]
    epoch: int
    score: float | None
    best_epoch: int
    peak: float | None
    peak_epoch: int


def keep_best(state: State, found: Mapping[str, float | None] | None) -> None:
    """Keep this epoch's score and weights if the trial would end with them: see `SELECTIONS`.

    `found` has the metrics by their names in `FINAL_METRICS`, and the user's. Without rows to be scored on (it is None)
    the trial ends with the newest ones.
    """
    config = state.config
    if found is None:
        state.best_epoch = state.peak_epoch = state.epoch
        return
    value = found[score_name(config.metric)]
    improved = better(config.metric, value, state.peak) or state.peak_epoch == 0
    if improved:
        state.peak, state.peak_epoch = value, state.epoch
    newest = look_up(SELECTIONS, config.selection, "selection")
    if improved or newest:
        state.score, state.best_epoch = value, state.epoch
    if improved and not newest:
        for learner in state.learners:
            learner.keep_weights()


def stop_reason(state: State) -> StopReason | None:
    """Return why the trial ends with this epoch; None if it does not."""
    if state.epoch >= (state.config.stop_epoch or state.config.max_epochs):
        return "budget"
    if state.config.patience and state.epoch - state.peak_epoch >= state.config.patience:
        return "patience"
    return None
