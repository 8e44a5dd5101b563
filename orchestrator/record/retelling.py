"""The events of a sweep so far, made again from its state for those who join late.

A journal of a million events is folded once and then forgotten; all that followers of it need of the past is here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from operator import itemgetter

from orchestrator.record.events import Event, SweepStarted, TrialEnded, TrialEpoch, TrialProposed
from orchestrator.record.state import SweepState, TrialRecord
from trainables.epoch_metrics import column


def retell(state: SweepState) -> Iterator[Event]:
    """Yield how the sweep began, and of each trial its proposal, its last epoch, with its score, and its end; before
    the last epoch those after which it was paused.

    They come in the order of time, as samplers saw them; proposals in their own order, whatever a clock showed. These
    events have no number: `n` is -1.
    """
    if state.begun:
        yield SweepStarted(state.spec)
    rungs: dict[int, list[int]] = {}
    for arm in state.arms.values():
        for epoch, trials in sorted(arm.promoted.items()):
            for _, number in trials:
                rungs.setdefault(number, []).append(epoch)
    found, proposed_at = list[tuple[float, Event]](), 0.0
    for trial in state.trials.values():
        proposed_at = now = max(proposed_at, trial.proposed_at)
        for event in _of_trial(trial, rungs.get(trial.number, ())):
            now = max(now, event.t)
            found.append((now, event))
    yield from (event for _, event in sorted(found, key=itemgetter(0)))


def _of_trial(trial: TrialRecord, rungs: Iterable[int]) -> Iterator[Event]:
    placed = trial.arm, trial.final, trial.index, trial.confirms, trial.refit
    yield TrialProposed(trial.number, trial.params, trial.config, *placed, t=trial.proposed_at)
    places = [place for rung in rungs if (place := trial.epochs.place(rung)) is not None]
    for place in dict.fromkeys((*places, len(trial.epochs) - 1)) if trial.epochs else ():
        epoch = trial.epochs[place]
        metrics = {**epoch, column(trial.metric): epoch["score"]}
        yield TrialEpoch(trial.number, epoch["attempt"], metrics, trial.worker, t=epoch["ended_at"])
    if trial.end is not None:
        attempt = None if trial.attempt < 0 else trial.attempt
        end, measured, t = trial.end, trial.final_metrics, trial.ended_at or 0.0
        yield TrialEnded(trial.number, attempt, end.status, end.stop_reason, end.error, measured, fault=end.fault, t=t)
