"""Confirmation as a race: who is clearly behind gets no more runs, and the record says so."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from test_confirmation import result_of, sweep_of

from orchestrator.assessment import intervals, refits
from orchestrator.assessment.confirmation import confirmation_of
from orchestrator.assessment.racing import Race
from orchestrator.display import summary
from orchestrator.plan.plan import Plan
from orchestrator.record.state import SweepState

SEARCHED = {0: 0.95, 1: 0.93, 2: 0.92}


def due(state: SweepState) -> list[tuple[int | None, int]]:
    """Return the confirmation runs that the sweep still makes, as trial and seed."""
    queue = refits.queue(Plan.from_dict(state.spec.plan))
    return [(run.confirms, run.index) for run in queue._finals("", state)]


def test_who_is_clearly_behind_gets_no_more_runs(tmp_path: Path) -> None:
    state = sweep_of(tmp_path, SEARCHED, {0: [0.95], 1: [0.949], 2: [0.5]})
    assert due(state) == [(0, 1), (1, 1), (0, 2), (1, 2)]
    assert Race(Plan.from_dict(state.spec.plan)).out(state) == {2}


def test_nobody_is_behind_within_the_noise(tmp_path: Path) -> None:
    state = sweep_of(tmp_path, SEARCHED, {0: [0.95], 1: [0.949], 2: [0.949]})
    assert len(due(state)) == 6


def test_runs_that_have_not_ended_are_not_waited_for(tmp_path: Path) -> None:
    """With another seed the first one is not compared alone: only seeds that both have run count."""
    state = sweep_of(tmp_path, SEARCHED, {0: [0.95, 0.95], 1: [], 2: [0.5]})
    assert Race(Plan.from_dict(state.spec.plan)).out(state) == {2}
    assert due(state) == [(1, 0), (1, 1), (0, 2), (1, 2)]


def test_candidates_without_a_common_seed_are_not_compared(tmp_path: Path) -> None:
    """Of several slots one ends the second seed of a candidate first, another one the first seed of the other."""
    state = sweep_of(tmp_path, SEARCHED, {0: [0.95, 0.94], 1: [0.93], 2: []})
    first = next(run for run in state.trials.values() if (run.confirms, run.index) == (0, 0))
    first.end, first.running = None, True
    assert Race(Plan.from_dict(state.spec.plan)).out(state) == set()
    assert due(state) == [(2, 0), (1, 1), (2, 1), (0, 2), (1, 2), (2, 2)]


def test_the_result_says_who_left_the_race(tmp_path: Path) -> None:
    state = sweep_of(tmp_path, SEARCHED, {0: [0.95, 0.94, 0.951], 1: [0.94, 0.945, 0.94], 2: [0.5]})
    found = result_of(state)
    assert found.winner.trial.number == 0
    assert [(c.confirmed.trial.number, len(c.confirmed.runs), c.out) for c in found.candidates] == [
        (0, 3, False),
        (1, 3, False),
        (2, 1, True),
    ]
    assert found.to_dict()["candidates"][2]["out"] is True


def test_who_is_behind_at_the_end_of_all_runs_is_not_said_to_have_had_fewer(tmp_path: Path) -> None:
    """With as many slots as runs nothing is saved: the comparison over seeds and rows then says what is true."""
    state = sweep_of(tmp_path, SEARCHED, {0: [0.95, 0.95, 0.951], 1: [0.94, 0.945, 0.94]})
    assert Race(Plan.from_dict(state.spec.plan)).out(state) == {1}
    console = Console(file=(shown := StringIO()), width=100)
    summary.show_confirmation(found := result_of(state), console)
    assert not any(candidate.out for candidate in found.candidates)
    assert "no more runs" not in shown.getvalue()
    assert [candidate.tied for candidate in found.candidates] == [None, True]


def test_one_that_is_out_does_not_win_by_being_smaller(tmp_path: Path) -> None:
    runs = {0: [0.95, 0.80, 0.95], 1: [0.9], 2: [0.5]}
    state = sweep_of(tmp_path, SEARCHED, runs, parameters={1: 10})
    assert result_of(state).winner.trial.number == 0


def test_an_earlier_sweep_that_ran_all_seeds_is_as_it_was(tmp_path: Path) -> None:
    """The race ends nothing that was run."""
    runs = {0: [0.95, 0.95, 0.951], 1: [0.94, 0.945, 0.94], 2: [0.5, 0.99, 0.99]}
    found = result_of(sweep_of(tmp_path, SEARCHED, runs))
    assert [len(candidate.confirmed.runs) for candidate in found.candidates] == [3, 3, 3]


def test_a_recipe_has_no_race(tmp_path: Path) -> None:
    state = sweep_of(tmp_path, SEARCHED, {0: [0.95], 1: [0.949], 2: [0.5]})
    planned = Plan.from_dict({**state.spec.plan, "recipe": "some"})
    assert Race(planned).out(state) == ()
    assert confirmation_of(state, Plan.from_dict(state.spec.plan)) is None


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_the_standard_error_is_that_of_the_difference(seeds: int) -> None:
    generator = np.random.default_rng(seeds)
    means = [(generator.random((seeds, 400)) < 0.5).mean() for _ in range(400)]
    found = [intervals.standard_error((generator.random((seeds, 400)) < 0.5).astype(float)) for _ in range(400)]
    assert np.mean(found) == pytest.approx(np.std(means), rel=0.25)
