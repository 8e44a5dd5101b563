"""Splits: disjoint, exhaustive, stratified, nested, the same every time, or refused with a reason."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numbered import DATASETS, SEEDS, counts_of, dataset

from trainables.calibration import fit_temperature
from trainables.config import TrialConfig
from trainables.datasets import Dataset, DatasetError, load, open_test
from trainables.datasets.seal import seal
from trainables.datasets.source import Decoded
from trainables.errors import ConfigError
from trainables.splits import Scoring, describe, rows_fingerprint, search_data, split
from trainables.strata import apportion, class_counts, interleaved, shuffled_by_class
from trainables.trial_rows import trial_rows

CIFAR10_SPLIT = ("5856a7a130d814d6", "70631f8a27960687")  # of ten classes of 5,000 rows each


@given(DATASETS, SEEDS)
def test_validation_set_and_pool_are_disjoint_and_exhaustive(made: Dataset, seed: int) -> None:
    chosen = split(made, seed=seed)
    assert sorted([*chosen.validation, *chosen.pool]) == list(range(len(made.labels)))


@given(DATASETS, SEEDS)
def test_the_validation_set_has_the_class_mix_of_all_rows_and_every_class(made: Dataset, seed: int) -> None:
    all_rows = counts_of(made, np.arange(len(made.labels)))
    validation = counts_of(made, split(made, seed=seed).validation)
    assert (validation >= 1).all()
    assert (validation < all_rows).all()
    more_than_one = validation > 1  # the others may have been raised to one row, at the expense of these
    assert (validation[more_than_one] < 0.2 * all_rows[more_than_one] + 1).all()


def test_a_class_is_as_frequent_in_the_validation_set_as_in_a_drawn_test_set() -> None:
    counts = [240, 120, 90, 60, 40, 30, 20, 15, 12, 10, 8, 6]  # 36 % of the rows are of one class
    labels = np.repeat(np.arange(len(counts)), counts)
    images = np.arange(len(labels), dtype=np.uint16).view(np.uint8).reshape(-1, 1, 2, 1)
    sealed = seal(Decoded(images, labels, tuple("abcdefghijkl"), test=None))
    made = dataset(np.bincount(labels[sealed.search]).tolist())
    tests, validation = np.bincount(labels[sealed.test]), counts_of(made, split(made).validation)
    assert tests.tolist() == [48, 24, 18, 12, 8, 6, 4, 3, 2, 2, 2, 1]
    assert (np.abs(validation - 0.8 * tests) < 1).all()


def test_digits_and_data_of_the_shape_of_cifar10_are_split_as_they_have_always_been() -> None:
    for made, expected in (
        (load("digits"), ("7a6c8bd5ce7adbc0", "8d4af3785d3ff0ec")),
        (dataset([5000] * 10), CIFAR10_SPLIT),
    ):
        chosen = split(made)
        assert (rows_fingerprint(chosen.validation)[:16], rows_fingerprint(chosen.pool)[:16]) == expected


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


def test_a_class_with_a_single_row_is_refused_by_name() -> None:
    with pytest.raises(DatasetError, match="'class 1' has 1; every class needs at least 2"):
        split(dataset([30, 1]))


def test_a_class_whose_rows_are_all_duplicates_is_refused() -> None:
    only = np.flatnonzero(dataset([30, 2]).labels == 1)
    made = dataset([30, 2], duplicates=only.tolist())
    with pytest.raises(DatasetError, match="'class 1' has 0"):
        split(made)


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
            trial_rows(data, TrialConfig(split="80:20"))


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


def test_a_temperature_of_the_validation_set_suits_the_test_set_of_uneven_data() -> None:
    """Draw ten models' logits, sure and right for the common class, sure and often wrong for ten rare ones."""
    random, counts = np.random.default_rng(0), [3000, *[60] * 10]
    labels = np.repeat(np.arange(11), counts)
    images = np.arange(len(labels), dtype=np.uint16).view(np.uint8).reshape(-1, 1, 2, 1)
    sealed = seal(Decoded(images, labels, tuple("abcdefghijk"), test=None))
    made = dataclasses.replace(dataset([2]), labels=labels[sealed.search], classes=sealed.decoded.classes)
    parts = [sealed.search[split(made, scoring=Scoring(least=least)).validation] for least in (1, 40)]
    found = []
    for _ in range(10):
        right = random.random(len(labels)) < np.where(labels == 0, 0.98, 0.4)
        logits = 4 * np.eye(11)[np.where(right, labels, random.integers(0, 11, len(labels)))]
        logits += random.standard_normal(logits.shape)
        fitted = [
            fit_temperature(torch.from_numpy(logits[rows]), torch.from_numpy(labels[rows])) or 0.0
            for rows in (sealed.test, *parts)
        ]
        found.append(np.log(fitted))
    test, now, before = np.mean(found, axis=0)
    assert now == pytest.approx(test, abs=0.06)
    assert before > test + 0.3, "rows of rare classes in excess: the former rule's mistake"
