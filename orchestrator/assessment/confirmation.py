"""Confirmation: the best trials run again with other seeds, the winner, and its test scores.

The search's best score is the luckiest of many looks at one validation set. Confirmation runs the best K trials again,
in full, with the same S seeds each. The best mean wins, or a smaller model within one standard error of it. Only then
the test set is opened, for the winner's S models alone.

A command works this out once, by `confirmation_of`, and hands it on.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.assessment import intervals, row_intervals
from orchestrator.assessment.candidates import Candidate, Confirmed, bounded, compared
from orchestrator.assessment.ensemble import LEVEL, Ensemble, refit_result
from orchestrator.assessment.intervals import Interval
from orchestrator.assessment.racing import Race, confirmed_by
from orchestrator.assessment.worth import Worth, worth
from orchestrator.record.ranking import best_trial, rank_key
from orchestrator.record.state import SweepState, TrialRecord
from trainables.epoch_metrics import score_name

if TYPE_CHECKING:
    from orchestrator.plan.plan import Plan  # loads Optuna, which a bundle's reader may not have

LESS_LEARNED = 0.15
"""Training accuracy that a refit may lack, at its last epoch, against the worst of the winner's runs: it has rows that
they had not, of which it can learn no more by heart; a run that failed is near a guess.
"""


@dataclass(frozen=True)
class Spread:
    """A metric of several models: its mean and the interval of the mean, None if any value is undefined."""

    mean: float | None
    values: list[float | None]
    interval: Interval | None


@dataclass(frozen=True)
class TestScores:
    """The scores of the winner's models on the test set.

    `model_score` and `model_accuracy` are of the one that is kept, with intervals over rows: `model_interval` (None
    where what is known of the rows does not suffice) and `wilson`.
    """

    __test__ = False  # by its name pytest takes it for a test

    rows: int
    score: Spread
    accuracy: Spread
    model_accuracy: float
    wilson: Interval
    commonest: float  # the accuracy of always naming the class that most rows have
    learnt: bool  # the kept model is better than that
    predicted: Interval | None  # for the accuracy of one more model
    inside: bool | None  # the kept model's accuracy is within `predicted`
    model_score: float | None = None
    model_interval: Interval | None = None

    def as_expected(self) -> str:
        """Return how the kept model's accuracy lies to the interval predicted for it; nothing where there is none."""
        if self.predicted is None:
            return ""
        above = self.model_accuracy > self.predicted.high
        return "as expected" if self.inside else "better than expected" if above else "worse than expected"

    def doubt(self) -> str:
        """Return a warning if the model may be no better than a guess; else nothing."""
        if self.learnt:
            return ""
        return (
            f"No better than always naming the commonest class, which would reach {self.commonest:.4f}: "
            "it needs more epochs, more trials or more images."
        )


@dataclass(frozen=True)
class Confirmation:
    """The result of confirming a sweep's best trials. `leader` is the candidate that led the search."""

    winner: Confirmed
    leader: Confirmed
    candidates: tuple[Candidate, ...]  # the best mean first
    test: TestScores | None  # None before all of the winner's models are measured there
    openings: int  # of the test set
    refits: tuple[TrialRecord, ...] = ()  # of the winner, completed, by seed; those that failed to learn left out
    ensemble: Ensemble | None = None  # of the winner's runs or refits, if one is asked for
    worth: Worth | None = None  # of the search, if it began with a start point

    @property
    def model(self) -> TrialRecord:
        """The confirmation run whose model is kept, or that of its refit."""
        return self.winner.median_run()

    @property
    def refit(self) -> TrialRecord | None:
        """The refit of `model`, with its seed, if there is one."""
        return next((run for run in self.refits if run.index == self.model.index), None)

    @property
    def smaller_than(self) -> int | None:
        """The trial with the best mean, if the winner is a smaller model within its standard error."""
        best = self.candidates[0].confirmed
        return None if self.winner.trial.number == best.trial.number else best.trial.number

    @property
    def search_to_confirmed(self) -> float:
        """The leader's mean less its score in the search."""
        return self.leader.mean - (self.leader.trial.score or 0.0)

    @property
    def confirmed_to_test(self) -> float | None:
        """The winner's mean on the test set less its mean on the validation set; None before both are known."""
        return None if self.test is None or self.test.score.mean is None else self.test.score.mean - self.winner.mean

    def untested(self) -> list[TrialRecord]:
        """Return the winner's runs and refits that were not measured on the test set."""
        return [run for run in (*self.winner.runs, *self.refits) if "test" not in run.final_metrics]

    def unmeasured_members(self) -> tuple[TrialRecord, ...]:
        """Return the members of the ensemble, if it was not measured on the test set."""
        return () if self.ensemble is None or "test" in self.ensemble.parts else self.ensemble.runs

    def with_test(self, openings: int) -> Confirmation:
        """Return the same once the winner's models were measured on the test set."""
        return replace(self, test=_test_scores(self.winner), openings=openings)

    def twin(self, run: TrialRecord) -> TrialRecord:
        """Return the confirmation run with the settings and the seed of a refit; of any other run itself."""
        return next(one for one in self.winner.runs if one.index == run.index) if run.refit else run

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, as `final.json` has them."""
        winner = self.winner
        return {
            "confirmed": True,
            "trial": winner.trial.number,
            "model": self.model.number,
            "metric": winner.trial.metric,
            "level": LEVEL,
            "search": winner.trial.score,
            "validation": {"mean": winner.mean, "scores": winner.scores, "interval": winner.interval()},
            "test": None if self.test is None else asdict(self.test),
            "openings": self.openings,
            "shrinkage": {
                "leader": self.leader.trial.number,
                "search_to_confirmed": self.search_to_confirmed,
                "confirmed_to_test": self.confirmed_to_test,
            },
            "smaller_than": self.smaller_than,
            "refit": None if self.refit is None else refit_result(self.refit),
            "ensemble": None if self.ensemble is None else self.ensemble.to_dict(),
            "worth": None if self.worth is None else self.worth.to_dict(),
            "candidates": [candidate.to_dict() for candidate in self.candidates],
        }


def confirmation_of(state: SweepState, planned: Plan) -> Confirmation | None:
    """Return the result of confirming the best trials; None if none is to be confirmed, or a run has not ended."""
    out = Race(planned).out(state)
    confirmed = _confirmed(state, planned, out)
    if not confirmed:
        return None
    winner, key = _winner(confirmed), rank_key(state)
    leader = min(confirmed, key=lambda one: key(one.trial))
    runs = [run for run in state.trials.values() if run.refit and run.confirms == winner.trial.number]
    completed = sorted((run for run in runs if run.status == "completed"), key=lambda run: run.index)
    refits = tuple(run for run in completed if has_learned(run, winner.runs))
    ensemble = _ensemble(winner, refits, state) if planned.ensemble != "none" else None
    start = planned.queue().start(state) if planned.confirm_start else None
    gained = None if start is None else worth(winner, start.number, confirmed)
    tested, spared = _test_scores(winner), {number for number in out if _made(state, number) < planned.confirm_seeds}
    return Confirmation(winner, leader, compared(confirmed, spared), tested, state.openings, refits, ensemble, gained)


def _made(state: SweepState, number: int) -> int:
    """Return how many runs were made to confirm a trial, those that failed included."""
    return sum(run.confirms == number and not run.refit for run in state.trials.values())


def _ensemble(winner: Confirmed, refits: Sequence[TrialRecord], state: SweepState) -> Ensemble | None:
    """Return the ensemble of the winner's refits or, if one of them is missing, of its runs; None of one run."""
    median = winner.median_run().index
    members = refits if len(refits) == len(winner.runs) else winner.runs
    runs = tuple(sorted(members, key=lambda run: (run.index != median, run.index)))
    if len(runs) < 2:
        return None
    return Ensemble(runs, state.ensembles.get(tuple(run.number for run in runs), {}))


def has_learned(refit: TrialRecord, runs: Sequence[TrialRecord]) -> bool:
    """Return whether a refit learned its rows as the winner's `runs` did theirs, within `LESS_LEARNED`.

    It has no other score, and now and then a training run fails without diverging.
    """
    epoch = refit.last_epoch
    known = [one["train_accuracy"] for run in runs for one in run.epochs if one["epoch"] == epoch]
    reached = refit.epochs[-1]["train_accuracy"] if refit.epochs else 0.0
    return not known or reached >= min(known) - LESS_LEARNED


def winner_of(state: SweepState, planned: Plan) -> Confirmed | None:
    """Return the winner alone, as `confirmation_of` does, in little time."""
    confirmed = _confirmed(state, planned, Race(planned).out(state)) if planned.confirm else []
    return _winner(confirmed) if confirmed else None


def _winner(confirmed: Sequence[Confirmed]) -> Confirmed:
    """Return the first of the `confirmed`, the best one, or the smallest model within its standard error."""
    best = confirmed[0]
    near = [one for one in confirmed if best.sign * (best.mean - one.mean) <= best.standard_error]
    within = [one for one in near if len(one.runs) == len(best.runs)]
    sizes = {one.trial.number: one.parameters for one in within}
    if None in sizes.values():  # a damaged line had it, and no checkpoint
        return best
    return min(within, key=lambda one: sizes[one.trial.number] or 0)  # of equal ones the first, the better one


def unconfirmed(state: SweepState) -> dict[str, Any]:
    """Return the result of a sweep without a confirmation: plain JSON values, as `final.json` has them."""
    best = best_trial(state)
    return {"confirmed": False, "search_best": best and best.score}


def _confirmed(state: SweepState, planned: Plan, out: Collection[int]) -> list[Confirmed]:
    """Return the confirmed trials, the best mean first; an empty list before all their runs have ended.

    Args:
        out: the candidates that get no more runs; they come last.
    """
    found = []
    for trial in planned.queue().candidates(state):
        runs = [run for run in state.trials.values() if run.confirms == trial.number and not run.refit]
        owed = planned.confirm_seeds if trial.number not in out else 0
        if len(runs) < owed or any(run.end is None for run in runs):
            return []
        if (one := confirmed_by(state, trial.number)) is not None:
            found.append(one)
    return sorted(found, key=lambda one: (one.trial.number in out, -one.sign * one.mean))


def _test_scores(winner: Confirmed) -> TestScores | None:
    """Return the scores of the winner's models on the test set; None unless all were measured there."""
    measured = {run.number: run.final_metrics.get("test") for run in winner.runs}
    tested = [part for part in measured.values() if part is not None and part.accuracy is not None]
    kept = measured[winner.median_run().number]
    cells = None if kept is None else kept.cells()
    if len(tested) < len(measured) or kept is None or kept.accuracy is None or cells is None:
        return None
    name, positive = score_name(winner.trial.metric), winner.median_run().worker.positive_class
    rows, accuracy, correct = kept.rows, kept.accuracy, winner.correct()
    wilson = intervals.of_share(accuracy, rows, LEVEL)
    commonest = float(np.bincount(cells[:, 0], cells[:, 2]).max()) / rows
    predicted = None if correct is None else intervals.prediction_interval(correct, rows, LEVEL, winner.folds)
    return TestScores(
        rows=rows,
        score=_spread([part.metrics.get(name) for part in tested], name),
        accuracy=_spread([part.accuracy for part in tested], "accuracy"),
        model_score=kept.metrics.get(name),
        model_interval=wilson if name == "accuracy" else row_intervals.interval_on(kept, name, positive, LEVEL),
        model_accuracy=accuracy,
        wilson=wilson,
        commonest=commonest,
        learnt=wilson.low > commonest,
        predicted=predicted,
        inside=None if predicted is None else predicted.low <= accuracy <= predicted.high,
    )


def _spread(values: list[float | None], name: str) -> Spread:
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return Spread(None, values, None)
    return Spread(statistics.fmean(known), values, bounded(intervals.mean_interval(known, LEVEL), name))
