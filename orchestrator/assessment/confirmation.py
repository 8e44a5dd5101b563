"""Confirmation: the best trials run again with other seeds, the winner, and its test scores.

The search's best score is the luckiest of many looks at one core. Confirmation runs the best K trials again, in full,
with the same S seeds each. The best mean wins, or a smaller model within one standard error of it. Only then the test
set is opened, for the winner's S models alone.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from orchestrator.assessment import intervals
from orchestrator.assessment.intervals import Correct, Interval
from orchestrator.record.ranking import best_trial, best_trials, direction
from orchestrator.record.state import SweepState, TrialRecord
from trainables import correct_predictions

LEVEL = 0.95


@dataclass(frozen=True)
class Confirmed:
    """A searched trial with its confirmation runs that completed with a score, by seed."""

    trial: TrialRecord
    runs: tuple[TrialRecord, ...]

    @property
    def scores(self) -> list[float]:
        return [run.score for run in self.runs if run.score is not None]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.scores)

    @property
    def standard_error(self) -> float:
        """The standard error of the mean over seeds; 0 of a single one."""
        return statistics.stdev(self.scores) / math.sqrt(len(self.runs)) if len(self.runs) > 1 else 0.0

    @property
    def parameters(self) -> int:
        return self.runs[0].worker.parameters or 0

    @property
    def sign(self) -> int:
        """1 if a higher score is better, -1 if a lower one is."""
        return direction(self.trial.metric)

    def interval(self) -> Interval | None:
        """Return the interval of the mean over all seeds; metrics of which more is better are at most 1."""
        return _share(intervals.mean_interval(self.scores, LEVEL), self.sign)

    def correct(self) -> Correct:
        """Return which rows of the validation set each run predicted correctly, bool [S, N]."""
        return np.stack(
            [
                correct_predictions.unpack(
                    run.final_metrics["validation"]["correct"], run.final_metrics["validation"]["rows"]
                )
                for run in self.runs
            ]
        )

    def median_run(self) -> TrialRecord:
        """Return the run with the median score (of two the lower): its model is kept, whatever the test set says."""
        ordered = sorted(self.runs, key=lambda run: (self.sign * (run.score or 0.0), run.index))
        return ordered[(len(ordered) - 1) // 2]


def confirmed(state: SweepState) -> list[Confirmed]:
    """Return the confirmed trials, the best mean first; an empty list before all their runs have ended."""
    planned = state.spec.plan
    if not planned["confirm"]:
        return []
    found = []
    for trial in best_trials(state, "", planned["confirm"]):
        runs = [run for run in state.trials.values() if run.confirms == trial.number]
        if len(runs) < planned["confirm_seeds"] or any(run.end is None for run in runs):
            return []
        sound = [run for run in runs if run.status == "completed" and run.score is not None]
        if sound:
            found.append(Confirmed(trial, tuple(sorted(sound, key=lambda run: run.index))))
    return sorted(found, key=lambda one: -one.sign * one.mean)


def winner(state: SweepState) -> Confirmed | None:
    """Return the winner among the `confirmed` trials of a sweep."""
    return best_of(confirmed(state))


def best_of(candidates: list[Confirmed]) -> Confirmed | None:
    """Return the best of `candidates` (sorted, best first), or a smaller model within its standard error; None if
    there are none.
    """
    if not candidates:
        return None
    best = candidates[0]
    near = [one for one in candidates if best.sign * (best.mean - one.mean) <= best.standard_error]
    return min(near, key=lambda one: one.parameters)  # of equal ones the first, the better one


def final(state: SweepState) -> dict[str, Any]:
    """Return the result of the sweep for `final.json`: plain JSON values."""
    candidates = confirmed(state)
    won = best_of(candidates)
    if won is None:
        best = best_trial(state)
        return {"confirmed": False, "search_best": best and best.score}
    leader = max(candidates, key=lambda one: won.sign * (one.trial.score or 0.0))  # of the search
    test = _test(won)
    return {
        "confirmed": True,
        "trial": won.trial.number,
        "model": won.median_run().number,
        "metric": won.trial.metric,
        "level": LEVEL,
        "search": won.trial.score,
        "validation": {"mean": won.mean, "scores": won.scores, "interval": won.interval()},
        "test": test,
        "openings": state.openings,
        "shrinkage": {
            "leader": leader.trial.number,
            "search_to_confirmed": leader.mean - (leader.trial.score or 0.0),
            "confirmed_to_test": test and test["score"]["mean"] - won.mean,
        },
        "smaller_than": candidates[0].trial.number if won.parameters < candidates[0].parameters else None,
        "candidates": _compared(candidates),
    }


def in_doubt(test: Mapping[str, Any]) -> str:
    """Return a warning if the model may be no better than a guess, judged by `final`'s test; else nothing."""
    if test.get("learnt", True):
        return ""
    return (
        f"No better than always naming the commonest class, which would reach {test['commonest']:.4f}: "
        "it needs more epochs, more trials or more images."
    )


def _test(won: Confirmed) -> dict[str, Any] | None:
    """Return the test metrics of the winner's models; None unless all were measured there."""
    if any("test" not in run.final_metrics for run in won.runs):
        return None
    final_metrics = [run.final_metrics["test"] for run in won.runs]
    name = won.trial.metric.removeprefix("val_")
    scores = [figure[name] for figure in final_metrics]
    model = won.median_run().final_metrics["test"]
    rows = model["rows"]
    predicted = intervals.prediction_interval(won.correct(), rows, LEVEL)
    wilson = intervals.wilson(round(model["accuracy"] * rows), rows, LEVEL)
    commonest = max(map(sum, model["confusion"])) / rows
    return {
        "rows": rows,
        "score": _spread(scores, won.sign),
        "accuracy": _spread([figure["accuracy"] for figure in final_metrics], 1),
        "model_accuracy": model["accuracy"],
        "wilson": wilson,
        "commonest": commonest,  # the accuracy of always naming the class that most rows have
        "learnt": wilson.low > commonest,
        "predicted": predicted,
        "inside": predicted and predicted.low <= model["accuracy"] <= predicted.high,
    }


def _share(interval: Interval | None, sign: int) -> Interval | None:
    return interval if interval is None or sign < 0 else Interval(max(interval.low, 0.0), min(interval.high, 1.0))


def _spread(values: list[float | None], sign: int) -> dict[str, Any]:
    known = [value for value in values if value is not None]
    whole = len(known) == len(values)
    return {
        "mean": statistics.fmean(known) if whole else None,
        "values": values,
        "interval": _share(intervals.mean_interval(known, LEVEL), sign) if whole else None,
    }


def _compared(candidates: list[Confirmed]) -> list[dict[str, Any]]:
    """Compare every candidate with the best mean; it is tied if a test over seeds and rows cannot tell the two
    apart.
    """
    best, others = candidates[0], candidates[1:]
    same = [one for one in others if [run.index for run in one.runs] == [run.index for run in best.runs]]
    compared = {one.trial.number: tie for one, tie in zip(same, _ties(best, same), strict=True)}
    rows = []
    for one in candidates:
        tie = compared.get(one.trial.number)
        rows.append(
            {
                "trial": one.trial.number,
                "search": one.trial.score,
                "mean": one.mean,
                "interval": one.interval(),
                "runs": len(one.runs),
                "parameters": one.parameters,
                "p": tie and tie.adjusted,
                "tied": None if tie is None or tie.adjusted is None else tie.adjusted > 1 - LEVEL,
            }
        )
    return rows


def _ties(best: Confirmed, others: list[Confirmed]) -> list[intervals.Tie]:
    return intervals.ties(best.correct(), [one.correct() for one in others])
