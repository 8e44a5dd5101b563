"""Intervals and ties: against scipy, at their limits, and on hits whose truth is known."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from orchestrator.assessment.intervals import Correct, mean_interval, prediction_interval, ties, wilson


def drawn(random: np.random.Generator, difficulty: NDArray[np.float64], skill: float, spread: float = 0.0) -> Correct:
    """Hits of three seeds: rows are as hard as each other's, seeds differ by `spread` and err on rows of their own."""
    seeds = spread * random.standard_normal((3, 1))
    return np.asarray(skill + seeds + 0.9 * difficulty + 0.44 * random.standard_normal((3, len(difficulty))) > 0)


# Mean


@pytest.mark.parametrize("values", [[0.9, 0.91], [0.91, 0.93, 0.9], [2.1, 2.3, 1.9, 2.2, 2.0]])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_mean_interval_is_students(values: list[float], level: float) -> None:
    expected = stats.t.interval(level, len(values) - 1, statistics.fmean(values), stats.sem(values))
    assert mean_interval(values, level) == pytest.approx(expected)


@pytest.mark.parametrize("values", [[0.9], [0.9, 0.9, 0.9]])
def test_no_interval_where_nothing_is_known_of_the_spread(values: list[float]) -> None:
    assert mean_interval(values) is None


# One model


@pytest.mark.parametrize(("correct", "rows"), [(0, 10), (10, 10), (7, 10), (285, 288), (9_412, 10_000)])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_wilson_is_scipys(correct: int, rows: int, level: float) -> None:
    expected = stats.binomtest(correct, rows).proportion_ci(level, "wilson")
    assert wilson(correct, rows, level) == pytest.approx((expected.low, expected.high), abs=1e-12)


# One more model


@pytest.mark.parametrize("correct", [180, 200])
def test_prediction_for_all_rows_is_wilsons_where_seeds_agree(correct: int) -> None:
    same = np.tile(np.arange(200) < correct, (3, 1))
    assert prediction_interval(same, 10**12) == pytest.approx(wilson(correct, 200), abs=1e-6)


def test_prediction_is_students_where_seeds_alone_differ() -> None:
    accuracies, rows = [0.5, 0.7, 0.6], 10**6
    correct = np.stack([np.arange(rows) < accuracy * rows for accuracy in accuracies])
    reach = stats.t.ppf(0.975, 2) * statistics.stdev(accuracies) * math.sqrt(1 + 1 / 3)
    found = prediction_interval(correct, rows)
    assert found == pytest.approx((max(0.6 - reach, 0), min(0.6 + reach, 1)), abs=0.002)


def test_prediction_is_wider_for_fewer_rows_and_stays_a_share() -> None:
    correct = drawn(np.random.default_rng(0), np.random.default_rng(1).standard_normal(300), skill=2.0)
    narrow, wide, widest = (prediction_interval(correct, rows) for rows in (10_000, 300, 1))
    assert narrow is not None
    assert wide is not None
    assert widest is not None
    assert 0 <= widest.low < wide.low < narrow.low < correct.mean() < narrow.high < wide.high <= widest.high <= 1


@pytest.mark.parametrize(
    ("seeds", "rows", "new_rows", "wrong"), [(2, 160, 200, 2), (3, 160, 1000, 2), (2, 1000, 10_000, 15)]
)
def test_seeds_that_agree_by_chance_do_not_make_the_prediction_exact(
    seeds: int, rows: int, new_rows: int, wrong: int
) -> None:
    """Take seeds of one accuracy, whose mistakes are in different rows: their variance seems to be 0."""
    correct = np.ones((seeds, rows), dtype=np.bool_)
    for seed in range(seeds):
        correct[seed, seed * wrong : (seed + 1) * wrong] = False
    found, share = prediction_interval(correct, new_rows), 1 - wrong / rows
    assert found is not None
    least = 1.9 * math.sqrt(share * (1 - share) * (1 / (seeds * rows) + 1 / new_rows))
    assert found.high - found.low > 2 * least * 0.8
    assert found.low < share < found.high


def test_the_prediction_of_two_seeds_holds_where_errors_have_nothing_in_common() -> None:
    random, inside = np.random.default_rng(0), 0
    for _ in range(1000):
        found = prediction_interval(random.random((2, 160)) < 0.95, 200)
        assert found is not None
        inside += found.low - 1e-12 <= (random.random(200) < 0.95).mean() <= found.high + 1e-12
    assert inside >= 930


def test_the_prediction_interval_of_a_model_without_mistakes_has_a_width() -> None:
    found = prediction_interval(np.ones((3, 288), dtype=np.bool_), 360)
    assert found is not None
    assert found.high == 1
    assert 0.97 < found.low < 0.995


def test_no_prediction_from_one_seed() -> None:
    assert prediction_interval(np.ones((1, 10), dtype=np.bool_), 10) is None


@pytest.mark.parametrize("spread", [0.0, 0.1, 0.5])
def test_prediction_holds_the_test_score_of_one_more_model(spread: float) -> None:
    """95 ± 3 % of 800: two of its standard errors and the 2 points that are left between the limits."""
    random, held = np.random.default_rng(0), 0
    for _ in range(800):
        correct = drawn(random, random.standard_normal(300), 1.0, spread)
        one_more = drawn(random, random.standard_normal(250), 1.0, spread)[0].mean()
        found = prediction_interval(correct, 250)
        assert found is not None
        held += found.low <= one_more <= found.high
    assert 0.92 <= held / 800 <= 0.985


@pytest.mark.parametrize(("common", "particular"), [(0.0, 0.0), (0.0, 0.15), (0.15, 0.0), (0.2, 0.2)])
def test_prediction_holds_the_test_score_of_one_model_of_five_folds(common: float, particular: float) -> None:
    """95 ± 3 % of 800, as above, whether all models of a seed are better than those of another, or single ones."""
    random, held = np.random.default_rng(0), 0

    def skills() -> NDArray[np.float64]:
        return 1.0 + common * random.standard_normal((3, 1)) + particular * random.standard_normal((3, 5))

    for _ in range(800):
        rows = 0.9 * random.standard_normal(300) + 0.44 * random.standard_normal((3, 300))
        correct = np.asarray(np.repeat(skills(), 60, axis=1) + rows > 0)
        one_more = drawn(random, random.standard_normal(250), skills()[0, 0])[0].mean()
        found = prediction_interval(correct, 250, folds=5)
        assert found is not None
        held += found.low <= one_more <= found.high
    assert 0.92 <= held / 800 <= 0.985


def test_prediction_with_folds_is_wider_where_single_models_differ() -> None:
    """Two seeds of the same mean whose models differ in every fold: only the folds show how models differ."""
    first = np.concatenate([np.arange(100) < 90, np.arange(100) < 50])
    correct = np.stack([first, first[::-1]])
    narrow, wide = (prediction_interval(correct, 10**9, folds=folds) for folds in (1, 2))
    assert narrow is not None
    assert wide is not None
    assert wide.low < narrow.low < narrow.high < wide.high


# Ties


def pairs_of(random: np.random.Generator, count: int, candidates: int, spread: float) -> Iterator[list[Correct]]:
    """Candidates of equal skill on the same rows, the best mean first, `count` times."""
    for _ in range(count):
        difficulty = random.standard_normal(300)
        yield sorted((drawn(random, difficulty, 1.0, spread) for _ in range(candidates)), key=lambda h: -h.mean())


@pytest.mark.parametrize("spread", [0.0, 0.1, 0.5])
def test_equals_are_seldom_called_different(spread: float) -> None:
    """The level, 5 %, is that of all the comparisons with the best of three; give or take two standard errors."""
    called = [
        any(tie.adjusted is not None and tie.adjusted < 0.05 for tie in ties(best, others))
        for best, *others in pairs_of(np.random.default_rng(0), 400, 3, spread)
    ]
    assert statistics.fmean(called) <= 0.072


@pytest.mark.parametrize("spread", [0.0, 0.1, 0.5])
def test_level_of_one_pair(spread: float) -> None:
    """3 to 5 %, likewise."""
    random, called = np.random.default_rng(1), 0
    for _ in range(600):
        difficulty = random.standard_normal(300)
        (tie,) = ties(drawn(random, difficulty, 1.0, spread), [drawn(random, difficulty, 1.0, spread)])
        called += tie.p is not None and tie.p < 0.05
    assert 0.012 <= called / 600 <= 0.068


def test_a_clear_difference_is_called_one() -> None:
    random = np.random.default_rng(0)
    difficulty = random.standard_normal(2_000)
    best, near, far = (drawn(random, difficulty, skill) for skill in (1.5, 1.48, 1.0))
    close, apart = ties(best, [near, far])
    assert apart.difference == pytest.approx(best.mean() - far.mean())
    assert apart.adjusted is not None
    assert apart.adjusted < 0.01
    assert close.adjusted is not None
    assert close.adjusted > 0.05


def test_rows_are_compared_with_themselves() -> None:
    """What is hard for both says nothing of their difference; on rows in another order it hides it."""
    random = np.random.default_rng(0)
    hard = random.random(4_000) < 0.5
    best = np.tile(~hard, (3, 1))
    other = best & (random.random((3, 4_000)) > 0.02)
    paired, shuffled = (ties(best, [correct])[0].p for correct in (other, random.permuted(other, axis=1)))
    assert paired is not None
    assert shuffled is not None
    assert paired < 0.05 < shuffled


def test_holm_is_over_all_pairs_of_candidates() -> None:
    random = np.random.default_rng(3)
    difficulty = random.standard_normal(500)
    best, *others = (drawn(random, difficulty, skill) for skill in (1.2, 1.1, 0.9, 1.0))
    found = ties(best, others)
    p = [tie.p for tie in found if tie.p is not None]
    least, middle, most = sorted(p)
    expected = {least: 6 * least, middle: max(6 * least, 5 * middle), most: max(6 * least, 5 * middle, 4 * most)}
    assert [tie.adjusted for tie in found] == pytest.approx([min(1, expected[each]) for each in p])
    assert [tie.difference for tie in found] == pytest.approx([best.mean() - other.mean() for other in others])


def test_the_same_correct_predictions_are_a_tie_and_a_constant_difference_is_none() -> None:
    correct = drawn(np.random.default_rng(0), np.random.default_rng(1).standard_normal(50), 1.0)
    assert ties(correct, [correct]) == [(0.0, 1.0, 1.0)]
    found = ties(np.ones((3, 50), dtype=np.bool_), [np.zeros((3, 50), dtype=np.bool_)])[0]
    assert found.p is not None
    assert found.p < 1e-9


def test_one_seed_shows_a_difference_but_not_whether_it_is_one() -> None:
    assert ties(np.ones((1, 4), dtype=np.bool_), [np.array([[True, False, True, False]])]) == [(0.5, None, None)]


def test_nobody_to_compare_with() -> None:
    assert ties(np.ones((3, 4), dtype=np.bool_), []) == []


def test_candidates_have_the_same_seeds() -> None:
    with pytest.raises(ValueError, match=r"\(2, 4\), \(3, 4\).*same seeds"):
        ties(np.ones((3, 4), dtype=np.bool_), [np.ones((2, 4), dtype=np.bool_)])
