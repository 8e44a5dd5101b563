"""One trial's rows: its part of the pool, or of a paper's split, and the rows that it is measured on."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numbered import DATASETS, counts_of, dataset

from trainables.config import TrialConfig
from trainables.datasets import Dataset
from trainables.errors import ConfigError
from trainables.splits import SearchData, search_data
from trainables.strata import Rows
from trainables.trial_rows import TrialRows, check_split, trial_rows

FRACTIONS = st.floats(0.001, 1)


def chosen_rows(data: SearchData, **fields: Any) -> Rows:
    return trial_rows(data, TrialConfig(**fields)).train


@given(DATASETS, FRACTIONS, FRACTIONS)
def test_train_fractions_nest_and_are_stratified(made: Dataset, one: float, other: float) -> None:
    data = search_data(made)
    small, large = (chosen_rows(data, train_fraction=fraction) for fraction in sorted((one, other)))
    assert set(small.tolist()) <= set(large.tolist()) <= set(data.pool.tolist())
    wanted = min(one, other) * counts_of(data, data.pool)
    got = counts_of(data, small)
    assert (got >= np.maximum(wanted - 1e-9, 1)).all()
    assert (got < wanted + 1).all()


def test_the_whole_fraction_is_the_pool_in_its_order() -> None:
    data = search_data(dataset([30, 20]))
    np.testing.assert_array_equal(chosen_rows(data), data.pool)


def test_a_fraction_is_the_decimal_that_was_written() -> None:
    data = search_data(dataset([125, 125]))
    assert counts_of(data, data.pool).tolist() == [100, 100]
    assert 0.55 * 100 > 55  # so a ceiling in floating point would be 56
    assert counts_of(data, chosen_rows(data, train_fraction=0.55)).tolist() == [55, 55]


@pytest.mark.parametrize("fraction", [0, -0.5, 1.01, float("nan")])
def test_a_fraction_that_cannot_be_is_refused(fraction: float) -> None:
    with pytest.raises(ConfigError, match="train_fraction"):
        chosen_rows(search_data(dataset([20, 20])), train_fraction=fraction)


def test_a_share_of_some_classes_is_removed() -> None:
    data = search_data(dataset([125] * 5))
    before = chosen_rows(data)
    after = chosen_rows(data, removed_share=0.1, removed_classes="0,1,2")
    assert counts_of(data, after).tolist() == [90, 90, 90, 100, 100]
    assert before[np.isin(before, after)].tolist() == after.tolist()  # the same rows in the same order, some left out
    half = chosen_rows(data, removed_share=0.1, removed_classes="0,1,2", train_fraction=0.5)
    assert counts_of(data, half).tolist() == [45, 45, 45, 50, 50]
    assert set(half) <= set(after)


def test_a_long_tail_falls_exponentially() -> None:
    data = search_data(dataset([125] * 5))
    assert counts_of(data, chosen_rows(data, long_tail=0.01)).tolist() == [100, 32, 10, 3, 1]
    assert counts_of(data, chosen_rows(data, long_tail=0.0001)).min() == 1


@pytest.mark.parametrize("classes", ["5", "0,17"])
def test_a_class_that_there_is_not_is_refused(classes: str) -> None:
    with pytest.raises(ConfigError, match=f"removed_classes={classes}: there are 5 classes"):
        chosen_rows(search_data(dataset([20] * 5)), removed_share=0.1, removed_classes=classes)


# The papers' splits, of all rows

CIFAR, CACTUS = [6000] * 10, [4364, 13_136]
PAPERS = ["80:20", "50:50", "60:40", "70:30", "90:10", "70:15:15"]
COUNTS = st.lists(st.integers(20, 120), min_size=2, max_size=8)


def opened(
    counts: list[int], tests: list[int] | None = None, external_test: int = 0, official: bool = True
) -> SearchData:
    """Return data with `counts` rows a class, `tests` of them test rows, and so many rows of an external test set."""
    tests = tests or [max(1, count // 6) for count in counts]
    searched, test = dataset([n - m for n, m in zip(counts, tests, strict=True)]), dataset(tests)
    elsewhere = np.full((external_test, 2, 2, 3), 255, dtype=np.uint8)
    ends = np.cumsum([len(searched.labels), len(test.labels), external_test])
    return dataclasses.replace(
        search_data(searched),
        images=np.concatenate([searched.images, test.images, elsewhere]),
        labels=np.concatenate([searched.labels, test.labels, np.zeros(external_test, dtype=np.int64)]),
        test=np.arange(ends[0], ends[1]),
        external_test=np.arange(ends[1], ends[2]),
        official_test=official,
    )


def rows(data: SearchData, split: str, **fields: Any) -> TrialRows:
    return trial_rows(data, TrialConfig(split=split, **fields))


@pytest.mark.parametrize("split", PAPERS)
@pytest.mark.parametrize("counts", [CIFAR, CACTUS])
def test_the_papers_splits_have_the_counts_of_scikit_learn(counts: list[int], split: str) -> None:
    from sklearn.model_selection import train_test_split

    data = opened(counts)
    shares = np.array([int(share) for share in split.split(":")]) * len(data.labels) // 100
    theirs, parts = np.arange(len(data.labels)), []
    for size in reversed(shares[1:]):
        theirs, part = train_test_split(theirs, test_size=int(size), stratify=data.labels[theirs], random_state=0)
        parts.append(part)
    found = rows(data, split, selection="last")
    ours = [found.final["test"], *([found.scored] if len(shares) == 3 else []), found.train]
    assert [counts_of(data, part).tolist() for part in ours] == [counts_of(data, p).tolist() for p in (*parts, theirs)]


def test_the_cactus_papers_test_part_has_its_confusion_matrix_sums() -> None:
    data = opened(CACTUS)
    assert counts_of(data, rows(data, "70:15:15").final["test"]).tolist() == [655, 1970]


@given(COUNTS, st.sampled_from(PAPERS))
def test_a_split_is_disjoint_exhaustive_and_stratified(counts: list[int], split: str) -> None:
    data = opened(counts, external_test=7)
    found = rows(data, split, selection="last")
    shares = np.array([int(share) for share in split.split(":")])
    parts = [found.train, found.scored, found.final["test"]][: len(shares)]
    np.testing.assert_array_equal(parts[-1], found.final["test"])
    assert sorted(np.concatenate(parts).tolist()) == list(range(sum(counts)))
    for part, percent in zip(parts, shares, strict=True):  # in whole numbers: 246 rows are 1 more than 0.7 · 350
        assert abs(100 * len(part) - percent * sum(counts)) <= 100
        assert (np.abs(100 * counts_of(data, part) - percent * np.array(counts)) < 200).all()


@given(COUNTS)
def test_larger_training_parts_contain_smaller_ones(counts: list[int]) -> None:
    data = opened(counts)
    found = [rows(data, f"{share}:{100 - share}") for share in (50, 60, 70, 80, 90)]
    for smaller, larger in pairwise(found):
        assert set(smaller.train.tolist()) < set(larger.train.tolist())
        assert set(smaller.scored.tolist()) > set(larger.scored.tolist())
        np.testing.assert_array_equal(smaller.final["common"], found[-1].scored)


@given(COUNTS)
def test_a_validation_part_is_taken_from_the_training_part(counts: list[int]) -> None:
    data = opened(counts)
    two, three = rows(data, "85:15", selection="last"), rows(data, "70:15:15")
    np.testing.assert_array_equal(two.final["test"], three.final["test"])
    assert {*three.train.tolist(), *three.scored.tolist()} == set(two.train.tolist())


def test_shares_of_any_sum_are_shares() -> None:
    data = opened([40, 80])
    for part in ("train", "scored"):
        np.testing.assert_array_equal(getattr(rows(data, "3:1"), part), getattr(rows(data, "75:25"), part))


def test_a_split_is_of_test_rows_too_and_the_same_for_every_trial() -> None:
    data = opened([600, 600])
    one, other = rows(data, "80:20"), rows(data, "80:20", seed=7)
    np.testing.assert_array_equal(one.train, other.train)
    assert 120 < np.isin(one.train, data.test).sum() < 200  # of 200, 80 %


def test_the_order_of_splits_is_the_one_it_has_always_been() -> None:
    data = opened([6, 6])
    assert rows(data, "50:50").train.tolist() == [7, 8, 4, 11, 2, 3]


def test_official_is_the_data_sets_own_test_part() -> None:
    data = opened([60, 30], [7, 3], external_test=5)
    found = rows(data, "official", selection="last")
    np.testing.assert_array_equal(found.scored, data.test)
    assert sorted(found.train.tolist()) == list(range(80))
    assert sorted(found.final) == ["external", "test", "train"]
    half = rows(data, "official", train_fraction=0.5)
    assert counts_of(data, half.train).tolist() == [27, 14]
    assert half.epoch_rows == 80
    assert rows(data, "official", train_fraction=0.5, epoch="rows").epoch_rows == 41


@pytest.mark.parametrize(
    ("split", "fields", "parts"),
    [
        ("80:20", {"selection": "last"}, ["common", "test", "train"]),
        ("80:20", {"selection": "last", "patience": 3}, ["common", "train", "validation"]),
        ("80:20", {"selection": "last", "schedule": "plateau"}, ["common", "train", "validation"]),
        ("80:20", {}, ["common", "train", "validation"]),
        ("official", {}, ["train", "validation"]),
        ("95:5", {"selection": "last"}, ["test", "train"]),  # trains on some of the last tenth
        ("70:15:15", {}, ["test", "train"]),
        ("core", {}, []),
    ],
)
def test_what_a_trial_is_measured_on_at_its_end(split: str, fields: dict[str, Any], parts: list[str]) -> None:
    assert sorted(rows(opened([100, 60]), split, **fields).final) == parts
    elsewhere = opened([100, 60], external_test=4)
    found = rows(elsewhere, split, **fields)
    assert sorted(found.final) == sorted([*parts, "external"])
    np.testing.assert_array_equal(found.final["external"], elsewhere.external_test)


def test_at_most_ten_thousand_training_rows_are_measured_at_the_end() -> None:
    data = opened([10_000, 10_000, 1000])
    found = rows(data, "80:20", removed_share=0.5, removed_classes="0")
    assert counts_of(data, found.train).tolist() == [4000, 8000, 800]
    assert counts_of(data, found.final["train"]).tolist() == [3125, 6250, 625]
    assert set(found.final["train"].tolist()) < set(found.train.tolist())


@pytest.mark.parametrize("split", ["80:20", "60:20:20", "official"])
def test_imbalance_acts_on_the_training_part_of_every_split(split: str) -> None:
    data = opened([125] * 5, [25] * 5)
    whole, less = rows(data, split), rows(data, split, removed_share=0.1, removed_classes="0,1", train_fraction=0.5)
    n = len(whole.train) // 5
    kept = n - round(0.1 * n)
    assert counts_of(data, less.train).tolist() == [(kept + 1) // 2] * 2 + [(n + 1) // 2] * 3
    np.testing.assert_array_equal(whole.scored, less.scored)
    assert whole.train[np.isin(whole.train, less.train)].tolist() == less.train.tolist()


@pytest.mark.parametrize("split", ["core", "80:20", "60:20:20", "official"])
def test_a_trial_is_normalized_by_its_own_training_part(split: str) -> None:
    data = opened([300, 500], external_test=20)
    found, whole = rows(data, split, train_fraction=0.3), rows(data, split)
    pixels = data.images[whole.train].astype(np.float64).reshape(-1, 3) / 255
    np.testing.assert_allclose(found.mean, pixels.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(found.std[:2], pixels.std(axis=0)[:2], rtol=1e-6)
    assert found.std[2] == 1


def test_a_trials_rows_are_its_own() -> None:
    """Check that rows are copies: torch takes no read-only arrays, which is what Ray's object store returns."""
    data = opened([60, 60], external_test=3)
    for array in (data.images, data.labels, data.validation, data.pool, data.test, data.external_test):
        assert isinstance(array, np.ndarray)
        array.flags.writeable = False
    for name in ("core", "80:20", "official"):
        found = rows(data, name)
        assert all(part.flags.writeable for part in (found.train, found.scored, *found.final.values()))


@pytest.mark.parametrize(
    ("counts", "split", "message"),
    [
        ([3, 90], "90:10", "split=90:10 leaves class 'class 0' (3 rows) without test rows"),
        ([3, 90], "80:10:10", "without validation rows"),
        ([3, 90], "1:9", "without train rows"),
        ([2, 2, 90], "95:5", "leaves class 'class 0' (2 rows), class 'class 1' (2 rows) without test rows"),
    ],
)
def test_a_split_that_leaves_a_class_without_rows_is_refused(counts: list[int], split: str, message: str) -> None:
    data = opened([max(count, 3) for count in counts], [1] * len(counts))
    few = [np.flatnonzero(data.labels == number)[:count] for number, count in enumerate(counts)]
    kept = np.sort(np.concatenate(few))
    data = dataclasses.replace(
        data, images=data.images[kept], labels=data.labels[kept], test=np.flatnonzero(np.isin(kept, data.test))
    )
    problems = check_split(data, TrialConfig(split=split))
    assert message in "\n".join(problems)
    with pytest.raises(ConfigError) as refused:
        rows(data, split)
    assert refused.value.problems == problems


def test_official_needs_an_official_test_part() -> None:
    data = opened([60, 60], official=False)
    with pytest.raises(ConfigError, match="split=official: the data set has no official test part"):
        rows(data, "official")
    assert check_split(data, TrialConfig(split="80:20")) == []
    assert check_split(opened([60, 60]), TrialConfig(split="official")) == []


def test_duplicates_of_test_rows_are_in_a_papers_split() -> None:
    made = opened([40, 40])
    data = dataclasses.replace(
        made, validation=made.validation[3:], pool=made.pool[3:]
    )  # as they are without duplicates
    found = rows(data, "80:20")
    assert len(found.train) + len(found.scored) == 80


@pytest.mark.parametrize(("counts", "rarest"), [([60, 40], 1), ([40, 60], 0), ([50, 50], 0)])
def test_the_positive_class_is_decided_once_by_the_rows_to_train_on(counts: list[int], rarest: int) -> None:
    """Not by the rows that happen to be measured: those of a test set may be another mix."""
    data = search_data(dataset(counts))
    assert trial_rows(data, TrialConfig(positive_class="rarest")).positive == rarest
    assert [trial_rows(data, TrialConfig(positive_class=name)).positive for name in ("0", "1")] == [0, 1]


# All rows but the test set's: a winner trained once more


def test_all_rows_but_the_test_sets_are_trained_on_and_none_is_scored() -> None:
    data = search_data(dataset([30, 20]))
    found, searched = (trial_rows(data, TrialConfig(split=split)) for split in ("all", "core"))
    assert sorted(found.train) == sorted([*data.pool, *data.validation]) == list(range(50))
    assert (len(found.scored), len(found.folds), dict(found.final)) == (0, 1, {})
    assert found.epoch_rows == 50
    assert (found.mean.tolist(), found.std.tolist()) == (searched.mean.tolist(), searched.std.tolist())
    assert check_split(data, TrialConfig(split="all")) == []


def test_the_positive_class_of_all_rows_is_the_pools() -> None:
    data = search_data(dataset([30, 20]))
    rare = dataclasses.replace(
        data, pool=np.arange(25), validation=np.arange(25, 50), labels=(np.arange(50) >= 23).astype(int)
    )
    for split in ("core", "all"):
        assert trial_rows(rare, TrialConfig(split=split, positive_class="rarest")).positive == 1
    assert np.bincount(rare.labels).tolist() == [23, 27]


def test_with_folds_all_rows_are_one_models() -> None:
    rows = np.arange(50)
    data = dataclasses.replace(
        search_data(dataset([30, 20])), pool=rows, validation=rows, folds=(rows[::2], rows[1::2])
    )
    found = trial_rows(data, TrialConfig(split="all"))
    assert len(found.folds) == 1
    assert sorted(found.train) == rows.tolist()
