"""Splits: disjoint, exhaustive, stratified, nested, the same every time, or refused with a reason."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.config import TrialConfig
from trainables.datasets import Dataset, DatasetError, load, open_test
from trainables.errors import ConfigError
from trainables.splits import SearchData, describe, search_data, split
from trainables.strata import Rows, apportion, class_counts, interleaved, shuffled_by_class
from trainables.trial_rows import TrialRows, check_split, trial_rows

SEEDS = st.integers(0, 2**63 - 1)
FRACTIONS = st.floats(0.001, 1)


def dataset(counts: list[int], duplicates: list[int] | None = None) -> Dataset:
    """Return a data set with so many rows a class, in a mixed order, and images that show their row number."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    images = np.zeros((len(labels), 2, 2, 3), dtype=np.uint8)
    images[..., 0], images[..., 1] = (np.arange(len(labels)) % 256)[:, None, None], labels[:, None, None]
    return Dataset(
        name="made",
        classes=tuple(f"class {number}" for number in range(len(counts))),
        images=images,
        labels=labels.astype(np.int64),
        duplicates=np.array(duplicates or [], dtype=np.int64),
        fingerprint="0" * 64,
        test_rows=5,
        test_fingerprint="1" * 64,
        official_test=True,
        origin="a test",
        folder=Path("nowhere"),
        unreadable=(),
        side=None,
    )


DATASETS = st.lists(st.integers(2, 120), min_size=1, max_size=8).map(dataset)


def counts_of(data: SearchData | Dataset, rows: Rows) -> Rows:
    return class_counts(data.labels[rows], len(data.classes))


@given(DATASETS, SEEDS)
def test_validation_set_and_pool_are_disjoint_and_exhaustive(made: Dataset, seed: int) -> None:
    chosen = split(made, seed=seed)
    assert sorted([*chosen.validation, *chosen.pool]) == list(range(len(made.labels)))


@given(DATASETS, SEEDS)
def test_the_validation_set_has_ten_rows_a_class_but_never_more_than_half_of_it(made: Dataset, seed: int) -> None:
    all_rows = counts_of(made, np.arange(len(made.labels)))
    validation = counts_of(made, split(made, seed=seed).validation)
    assert (validation >= np.minimum(10, all_rows // 2)).all()
    assert (validation <= all_rows // 2).all()


@given(st.lists(st.integers(50, 400), min_size=1, max_size=8).map(dataset), SEEDS)
def test_the_validation_set_is_a_fifth_of_each_class_within_one_row(made: Dataset, seed: int) -> None:
    validation = split(made, seed=seed).validation
    assert len(validation) == round(0.2 * len(made.labels))
    fifth = 0.2 * counts_of(made, np.arange(len(made.labels)))
    assert (np.abs(counts_of(made, validation) - fifth) < 1).all()


def test_the_validation_set_has_at_most_ten_thousand_rows() -> None:
    chosen = split(dataset([40_000, 20_000]))
    assert len(chosen.validation) == 10_000
    assert counts_of(dataset([40_000, 20_000]), chosen.validation).tolist() == [6667, 3333]


def test_with_very_many_classes_the_validation_set_still_has_at_most_ten_thousand_rows() -> None:
    many = dataset([30] * 2000)
    assert counts_of(many, split(many).validation).tolist() == [5] * 2000


@given(DATASETS, SEEDS)
def test_the_same_seed_gives_the_same_split(made: Dataset, seed: int) -> None:
    assert describe(made, seed=seed) == describe(made, seed=seed)


def test_another_seed_gives_another_split() -> None:
    made = dataset([100, 100])
    first, second = describe(made, seed=0), describe(made, seed=1)
    assert first["validation_fingerprint"] != second["validation_fingerprint"]
    assert first["pool_fingerprint"] != second["pool_fingerprint"]


def test_the_order_is_the_one_it_has_always_been() -> None:
    """Compare with rows written down here: neither another numpy nor a changed line may change those of every sweep."""
    orders = shuffled_by_class(np.array([0, 1, 0, 1, 0, 1, 0, 0]), 2, seed=0)
    assert [order.tolist() for order in orders] == [[6, 4, 2, 0, 7], [3, 5, 1]]


@given(DATASETS, SEEDS, st.data())
def test_a_subset_has_exactly_its_rows_and_every_class(made: Dataset, seed: int, data: st.DataObject) -> None:
    subset = data.draw(st.integers(2 * len(made.classes), len(made.labels)))
    chosen = split(made, subset, seed)
    rows = np.concatenate([chosen.validation, chosen.pool])
    assert len(set(rows.tolist())) == len(rows) == subset
    assert (counts_of(made, chosen.validation) >= 1).all()
    assert (counts_of(made, chosen.pool) >= 1).all()


def test_subsets_share_their_rows() -> None:
    made = dataset([60, 30, 10])
    rows = [set(np.concatenate([s.validation, s.pool]).tolist()) for s in (split(made, n) for n in (10, 50, 100))]
    assert rows[0] < rows[1] < rows[2]
    assert counts_of(made, np.array(sorted(rows[0]))).tolist() == [5, 3, 2]


@pytest.mark.parametrize("rows", [50, 51, 10_000])
def test_a_subset_of_everything_or_more_is_the_whole(rows: int) -> None:
    made = dataset([30, 20])
    whole, subset = search_data(made), search_data(made, rows)
    np.testing.assert_array_equal(whole.pool, subset.pool)
    assert whole.fingerprint == subset.fingerprint


def test_a_subset_holds_only_its_own_rows() -> None:
    made = dataset([100, 60])
    chosen, data = split(made, 40), search_data(made, 40)
    assert len(data.images) == len(data.labels) == 40
    for part in ("validation", "pool"):
        theirs, ours = getattr(chosen, part), getattr(data, part)
        np.testing.assert_array_equal(data.images[ours], made.images[theirs])
        np.testing.assert_array_equal(data.labels[ours], made.labels[theirs])


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


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(1, 200))
def test_every_prefix_of_the_pool_is_about_stratified(sizes: list[int], length: int) -> None:
    groups = [np.full(size, number) for number, size in enumerate(sizes)]
    prefix = interleaved(groups)[:length]
    wanted = np.array(sizes) * len(prefix) / sum(sizes)
    assert (np.abs(class_counts(prefix, len(sizes)) - wanted) <= 1 + len(sizes) / 2).all()


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), min_size=1, max_size=30), st.data())
def test_shares_add_up_and_stay_within_their_bounds(pairs: list[tuple[int, int]], data: st.DataObject) -> None:
    most, counts = np.sort(np.array(pairs, dtype=np.int64), axis=1).T
    least = np.minimum(3, most)
    total = data.draw(st.integers(int(least.sum()), int(most.sum())))
    shares = apportion(total, counts, least, most)
    assert shares.sum() == total
    assert (least <= shares).all()
    assert (shares <= most).all()


def test_duplicates_of_test_rows_are_in_no_part() -> None:
    made = dataset([40, 40], duplicates=[3, 70])
    chosen = split(made)
    assert not {3, 70} & {*chosen.validation.tolist(), *chosen.pool.tolist()}
    assert describe(made)["duplicate_rows"] == 2
    assert len(chosen.validation) + len(chosen.pool) == 78


def test_mean_and_deviation_are_those_of_the_pool() -> None:
    data = search_data(dataset([500, 700]))
    pixels = data.images[data.pool].astype(np.float64).reshape(-1, 3) / 255
    np.testing.assert_allclose(data.mean, pixels.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(data.std[:2], pixels.std(axis=0)[:2], rtol=1e-6)
    assert data.std[2] == 1  # a channel that never varies
    assert data.mean.dtype == data.std.dtype == np.float32


def test_different_splits_have_different_fingerprints() -> None:
    made = dataset([60, 60])
    prints = {search_data(made, subset, seed).fingerprint for subset in (None, 50) for seed in (0, 1)}
    assert len(prints) == 4


@pytest.mark.parametrize("subset", [0, 3])
def test_a_subset_that_cannot_be_is_refused(subset: int) -> None:
    with pytest.raises(ConfigError, match=rf"subset={subset} .*at least 4, two rows a class"):
        split(dataset([50, 50]), subset)


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


def test_a_class_with_a_single_row_is_refused_by_name() -> None:
    with pytest.raises(DatasetError, match="'class 1' has 1; every class needs at least 2"):
        split(dataset([30, 1]))


def test_a_class_whose_rows_are_all_duplicates_is_refused() -> None:
    only = np.flatnonzero(dataset([30, 2]).labels == 1)
    made = dataset([30, 2], duplicates=only.tolist())
    with pytest.raises(DatasetError, match="'class 1' has 0"):
        split(made)


# The papers' splits, of all rows


CIFAR, CACTUS = [6000] * 10, [4364, 13_136]
PAPERS = ["80:20", "50:50", "60:40", "70:30", "90:10", "70:15:15"]


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


COUNTS = st.lists(st.integers(20, 120), min_size=2, max_size=8)


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


# The sealed test set, and the external one


@pytest.fixture
def digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    monkeypatch.setenv("SWEEP_ORCHESTRATOR_CACHE", str(tmp_path / "cache"))
    return load("digits")


def test_a_sweep_that_does_not_open_the_test_set_has_none_of_its_rows(digits: Dataset) -> None:
    for subset in (None, 200):
        data = search_data(digits, subset)
        assert len(data.images) == len(data.labels) == len(data.validation) + len(data.pool) == (subset or 1438)
        assert len(data.test) == len(data.external_test) == 0
        sealed = {image.tobytes() for image in open_test(digits)[0]}
        assert not sealed & {image.tobytes() for image in data.images}
        with pytest.raises(ValueError, match="opened=True"):
            rows(data, "80:20")


def test_opened_test_rows_follow_the_others(digits: Dataset) -> None:
    sealed, data = search_data(digits), search_data(digits, opened=True)
    images, labels = open_test(digits)
    np.testing.assert_array_equal(data.images[data.test], images)
    np.testing.assert_array_equal(data.labels[data.test], labels)
    np.testing.assert_array_equal(data.images[: len(sealed.images)], sealed.images)
    for part in ("validation", "pool", "mean", "std"):
        np.testing.assert_array_equal(getattr(data, part), getattr(sealed, part))
    assert not data.official_test


@pytest.mark.parametrize(("subset", "tests"), [(719, 180), (20, 10), (1437, 359), (1438, 359), (5000, 359)])
def test_a_subset_has_its_share_of_the_test_rows(digits: Dataset, subset: int, tests: int) -> None:
    data = search_data(digits, subset, opened=True)
    assert (len(data.labels) - len(data.test), len(data.test)) == (min(subset, 1438), tests)
    assert (counts_of(data, data.test) >= 1).all()
    if subset == 719:
        larger = search_data(digits, 1000, opened=True)
        known = {image.tobytes() for image in larger.images[larger.test]}
        assert all(image.tobytes() in known for image in data.images[data.test])


def test_duplicates_of_test_rows_are_in_a_papers_split() -> None:
    made = opened([40, 40])
    data = dataclasses.replace(
        made, validation=made.validation[3:], pool=made.pool[3:]
    )  # as they are without duplicates
    found = rows(data, "80:20")
    assert len(found.train) + len(found.scored) == 80


def test_test_rows_and_pictures_from_elsewhere_are_in_record_and_fingerprint(digits: Dataset) -> None:
    elsewhere = digits.images[:6] // 2, np.arange(6)
    other = digits.images[:6] // 3, np.arange(6)
    made: list[dict[str, Any]] = [
        {}, {"opened": True}, {"opened": True, "subset": 100}, {"external_test": elsewhere}, {"external_test": other}
    ]  # fmt: skip
    records = [describe(digits, **arguments) for arguments in made]
    assert len({search_data(digits, **arguments).fingerprint for arguments in made}) == len(made)
    assert not {"opened_rows", "external_rows"} & set(records[0])
    assert (records[1]["opened_rows"], records[2]["opened_rows"]) == (359, 25)
    assert records[1]["opened_fingerprint"] != records[2]["opened_fingerprint"]
    assert records[3]["external_rows"] == 6
    assert records[3]["external_fingerprint"] != records[4]["external_fingerprint"]
    data = search_data(digits, opened=True, external_test=elsewhere)
    np.testing.assert_array_equal(data.images[data.external_test], elsewhere[0])
    np.testing.assert_array_equal(data.labels[data.external_test], elsewhere[1])
    assert len(data.labels) == 1797 + 6
