"""The worth of a search: its winner against the start point, confirmed with the same seeds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from conftest import Command
from journals import folded, trial

from orchestrator.assessment import intervals
from orchestrator.assessment.candidates import Confirmed
from orchestrator.assessment.rung_trust import RungTrust, rung_trust
from orchestrator.assessment.worth import Worth, worth
from orchestrator.cluster import machine
from orchestrator.plan import plan
from orchestrator.plan.options import SweepOptions
from orchestrator.plan.request import Request
from orchestrator.record.events import SweepStarted, TrialAttempt, TrialEnded, TrialEpoch, TrialProposed
from orchestrator.record.facts import Spec
from orchestrator.record.state import SweepState, fold
from orchestrator.search.trial_queue import NEAR_TOP, NextTrial, TrialQueue
from search_spaces.space import SearchSpace, choice, log
from trainables.config import TrialConfig

SPACE = SearchSpace(TrialConfig(max_epochs=3), {"lr": log(0.01, 1.0)}, starts=({"lr": 0.1},))


def searched(scores: list[float], first: float = 0.1) -> SweepState:
    """Return a sweep whose trials have these scores; the first one has this learning rate."""
    state = SweepState()
    for number, score in enumerate(scores):
        rate = first if number == 0 else 0.2 + number / 100
        config = SPACE.config({"lr": rate}).to_dict()
        for event in (
            TrialProposed(number, {"lr": rate}, config, index=number, n=state.next_n),
            TrialAttempt(number, 0, n=state.next_n),
            TrialEpoch(number, 0, {"epoch": 3, "val_accuracy": score}, n=state.next_n),
            TrialEnded(number, 0, "completed", "budget", n=state.next_n),
        ):
            fold(state, event)
    return state


@pytest.mark.parametrize(
    ("scores", "first", "expected"),
    [
        ([0.5, 0.9, 0.8, 0.7], 0.1, [1, 2, 0]),  # the start point beside the best two
        ([0.95, 0.9, 0.8, 0.7], 0.1, [0, 1]),  # it is one of them
        ([0.5, 0.9, 0.8, 0.7], 0.3, [1, 2]),  # there is no trial at it
        ([0.1, *(0.2 + n / 100 for n in range(NEAR_TOP + 1))], 0.1, [11, 10]),  # it is not good enough
    ],
)
def test_the_start_point_is_confirmed_beside_the_best(scores: list[float], first: float, expected: list[int]) -> None:
    state = searched(scores, first)
    queue = TrialQueue({"": SPACE}, len(scores), seeds=2, best=2, confirm_start=True)
    assert [trial.number for trial in queue.candidates(state)] == expected
    due = []
    while (final := queue.next(state)) is not None:
        due.append((final.confirms, final.index))
        number = len(state.trials)
        proposal = final.proposal(number, final.params or {}, SPACE.config(final.params or {}).to_dict())
        for event in (proposal, TrialAttempt(number, 0), TrialEnded(number, 0, "completed", "budget")):
            fold(state, event)
        assert queue.owed(state) == 2 * len(expected) - len(due)
    assert sorted(due) == sorted((number, seed) for number in expected for seed in (0, 1))


def test_runs_of_former_candidates_are_not_those_of_a_new_best_one() -> None:
    state, queue = searched([0.9, 0.5], 0.3), TrialQueue({"": SPACE}, 3, seeds=2)
    for index, final in enumerate(queue._finals("", state), start=2):
        proposal = final.proposal(index, final.params or {}, SPACE.config(final.params or {}).to_dict())
        for made in (proposal, TrialAttempt(index, 0), TrialEnded(index, 0, "completed", "budget")):
            fold(state, made)
    assert queue.owed(state) == 0
    params = {"lr": 0.2}
    for event in trial(4, [0.95], due=NextTrial("", 2), config=SPACE.config(params).to_dict(), params=params):
        folded(event, state=state)
    assert queue.owed(state) == 2


def test_of_several_nets_at_the_start_point_the_best_one_counts() -> None:
    space = replace(SPACE, distributions={**SPACE.distributions, "model": choice("resnet8", "resnet20")})
    state = SweepState()
    for number, (model, rate, score) in enumerate(
        [("resnet8", 0.1, 0.6), ("resnet20", 0.1, 0.7), ("resnet8", 0.2, 0.9)]
    ):
        params = {"lr": rate, "model": model}
        for event in trial(number, [score], config=space.config(params).to_dict(), params=params):
            folded(event, state=state)
    start = TrialQueue({"": space}, 3).start(state)
    assert start is not None
    assert start.number == 1
    assert TrialQueue({"": replace(space, starts=())}, 3).start(state) is None


def confirmed(number: int, values: np.ndarray[Any, Any], sign: int = 1) -> Confirmed:
    runs = tuple(SimpleNamespace(index=index, score=float(row.mean())) for index, row in enumerate(values))
    made = SimpleNamespace(
        trial=SimpleNamespace(number=number), runs=runs, sign=sign, scores=[run.score for run in runs],
        mean=float(values.mean()), row_values=lambda: values,
    )  # fmt: skip
    made.on_seeds = lambda indices: made
    return cast(Confirmed, made)


def test_a_gain_has_an_interval_over_seeds_and_rows() -> None:
    generator = np.random.default_rng(0)
    rows = generator.random(2000)
    ours, theirs = ((rows < share + generator.normal(0, 0.01, (3, 1))).astype(float) for share in (0.9, 0.8))
    best, start = confirmed(5, ours), confirmed(0, theirs)
    found = worth(best, 0, [best, start])
    assert found.gain == pytest.approx(ours.mean() - theirs.mean())
    assert found.interval is not None
    assert 0 < found.interval.low < 0.1 < found.interval.high
    assert str(found).startswith("worth it over the start point, trial 0: +0.")
    assert "luck" not in str(found)


def test_the_interval_holds_the_true_gain_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    inside = 0
    for _ in range(300):
        hard = generator.random(800)
        seeds = generator.normal(0, 0.01, (2, 3, 1))
        ours, theirs = (
            (generator.random((3, 800)) < 0.7 + 0.3 * hard + s + g) for s, g in zip(seeds, (0.02, 0), strict=True)
        )
        interval = intervals.difference_interval(ours.astype(float) - theirs.astype(float))
        assert interval is not None
        inside += interval.low <= 0.02 <= interval.high
    assert 0.92 <= inside / 300 <= 1.0


def test_what_is_said_without_a_gain() -> None:
    best, other = confirmed(5, np.ones((2, 4))), confirmed(3, np.zeros((2, 4)))
    assert str(worth(best, 5, [best])) == (
        "the start point, trial 5, won: the search found nothing better than what it began with"
    )
    assert str(worth(best, 0, [best, other])) == "the start point, trial 0, was not among the best trials of the search"
    assert "which may be luck" in str(Worth(0, 0.01, intervals.Interval(-0.01, 0.03)))
    assert str(Worth(0, 0.01)).endswith("trial 0: +0.0100 on the seeds that both had, too few for an interval")


@pytest.mark.slow
def test_a_sweep_says_what_it_was_worth(command: Command, tmp_path: Path) -> None:
    done = command(
        *("orchestrator.sweep", "digits", "--results", tmp_path, "--name", "s", "--subset", "300", "--trials", "3"),
        *("--max-epochs", "1", "--confirm-seeds", "2"),
    )
    assert done.code == 0, done.err
    assert "the start point, trial 0" in done.err
    assert "the start point, trial 0" in (tmp_path / "s" / "report.html").read_text().lower()


@pytest.mark.parametrize(
    ("curves", "alike", "pairs"),
    [
        ([[0.1, 0.5], [0.2, 0.6], [0.3, 0.7]], 3.0, 3),
        ([[0.3, 0.5], [0.2, 0.6], [0.1, 0.7]], 0.0, 3),
        ([[0.2, 0.5], [0.2, 0.6]], 0.5, 1),
        ([[0.2, 0.5], [0.1, 0.5]], None, None),  # equal at the end
        ([[0.2, 0.5]], None, None),
        ([[0.2, 0.5, 0.6], [0.3, 0.4], [0.1, 0.3]], 2.0, 3),  # the first two changed places in the second epoch
        ([[0.2, 0.5], [0.3]], None, None),  # the second did not go on
    ],
)
def test_the_first_rung_is_held_against_the_end(
    tmp_path: Path, curves: list[list[float]], alike: float | None, pairs: int | None
) -> None:
    planned = plan.make(Request(SweepOptions("digits", results=tmp_path)), [machine.Resources(2, 0)])
    state = folded(SweepStarted(Spec(plan=planned.to_dict())))
    for number, scores in enumerate(curves):
        folded(*trial(number, scores, config=planned.space.base.to_dict()), state=state)
    found = rung_trust(state, planned)
    assert (found and found.alike, found and found.pairs) == (alike, pairs)
    if found is not None:
        assert f"{alike:g} of {pairs} pairs" in str(found)


def test_an_epoch_that_is_lost_says_nothing_of_a_rung(tmp_path: Path) -> None:
    """Once it counted as the worst score of all."""
    planned = plan.make(Request(SweepOptions("digits", results=tmp_path)), [machine.Resources(2, 0)])
    state = folded(SweepStarted(Spec(plan=planned.to_dict())))
    for number, scores in enumerate(([0.3, 0.7], [0.2, 0.6], [0.1, 0.5])):
        events = trial(number, scores, config=planned.space.base.to_dict())
        lost = next(event for event in events if isinstance(event, TrialEpoch)) if number == 0 else None
        folded(*(event for event in events if event is not lost), state=state)
    found = rung_trust(state, planned)
    assert found is not None
    assert (found.alike, found.pairs) == (1.0, 1)


def test_trials_that_nothing_stops_say_nothing_of_a_rung(tmp_path: Path) -> None:
    planned = plan.make(Request(SweepOptions("digits", results=tmp_path)), [machine.Resources(2, 0)])
    spared = replace(planned.space, unstopped={"model": planned.space.base.model})
    planned = replace(planned, arms={"": spared})
    state = folded(SweepStarted(Spec(plan=planned.to_dict())))
    for number, scores in enumerate(([0.1, 0.5], [0.2, 0.6])):
        folded(*trial(number, scores, config=planned.space.base.to_dict()), state=state)
    assert rung_trust(state, planned) is None


def test_a_rung_that_says_little_is_called_so() -> None:
    assert "says little" in str(RungTrust(1, 10, 5.0))
    assert "says little" not in str(RungTrust(1, 10, 7.0))
    assert "says little" not in str(RungTrust(1, 3, 0.0))
