"""The split: disjoint, exhaustive, stratified, nested, the same every time, and refused with a reason."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.config import ConfigError, TrialConfig
from trainables.datasets import Dataset, DatasetError
from trainables.splits import SearchData, describe, search_data, split, train_rows
from trainables.strata import Rows, apportion, class_counts, interleaved, shuffled_by_class

SEEDS = st.integers(0, 2**63 - 1)
FRACTIONS = st.floats(0.001, 1)


def dataset(counts: list[int], duplicates: list[int] | None = None) -> Dataset:
    """A data set with so many rows a class, in a mixed order, and images that tell the row."""
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
def test_core_and_pool_are_disjoint_and_exhaustive(made: Dataset, seed: int) -> None:
    chosen = split(made, seed=seed)
    assert sorted([*chosen.core, *chosen.pool]) == list(range(len(made.labels)))


@given(DATASETS, SEEDS)
def test_the_core_has_ten_rows_a_class_but_never_more_than_half_of_it(made: Dataset, seed: int) -> None:
    all_rows = counts_of(made, np.arange(len(made.labels)))
    core = counts_of(made, split(made, seed=seed).core)
    assert (core >= np.minimum(10, all_rows // 2)).all()
    assert (core <= all_rows // 2).all()


@given(st.lists(st.integers(50, 400), min_size=1, max_size=8).map(dataset), SEEDS)
def test_the_core_is_a_fifth_of_each_class_within_one_row(made: Dataset, seed: int) -> None:
    core = split(made, seed=seed).core
    assert len(core) == round(0.2 * len(made.labels))
    fifth = 0.2 * counts_of(made, np.arange(len(made.labels)))
    assert (np.abs(counts_of(made, core) - fifth) < 1).all()


def test_the_core_has_at_most_ten_thousand_rows() -> None:
    chosen = split(dataset([40_000, 20_000]))
    assert len(chosen.core) == 10_000
    assert counts_of(dataset([40_000, 20_000]), chosen.core).tolist() == [6667, 3333]


def test_with_very_many_classes_the_core_still_has_at_most_ten_thousand_rows() -> None:
    many = dataset([30] * 2000)
    assert counts_of(many, split(many).core).tolist() == [5] * 2000


@given(DATASETS, SEEDS)
def test_the_same_seed_gives_the_same_split(made: Dataset, seed: int) -> None:
    assert describe(made, seed=seed) == describe(made, seed=seed)


def test_another_seed_gives_another_split() -> None:
    made = dataset([100, 100])
    first, second = describe(made, seed=0), describe(made, seed=1)
    assert first["core_fingerprint"] != second["core_fingerprint"]
    assert first["pool_fingerprint"] != second["pool_fingerprint"]


def test_the_order_is_the_one_it_has_always_been() -> None:
    """Written down, so that another numpy or a changed line does not silently change every sweep's rows."""
    orders = shuffled_by_class(np.array([0, 1, 0, 1, 0, 1, 0, 0]), 2, seed=0)
    assert [order.tolist() for order in orders] == [[6, 4, 2, 0, 7], [3, 5, 1]]


@given(DATASETS, SEEDS, st.data())
def test_a_subset_has_exactly_its_rows_and_every_class(made: Dataset, seed: int, data: st.DataObject) -> None:
    subset = data.draw(st.integers(2 * len(made.classes), len(made.labels)))
    chosen = split(made, subset, seed)
    rows = np.concatenate([chosen.core, chosen.pool])
    assert len(set(rows.tolist())) == len(rows) == subset
    assert (counts_of(made, chosen.core) >= 1).all()
    assert (counts_of(made, chosen.pool) >= 1).all()


def test_subsets_share_their_rows() -> None:
    made = dataset([60, 30, 10])
    rows = [set(np.concatenate([s.core, s.pool]).tolist()) for s in (split(made, n) for n in (10, 50, 100))]
    assert rows[0] < rows[1] < rows[2]
    assert counts_of(made, np.array(sorted(rows[0]))).tolist() == [5, 3, 2]


def test_a_subset_of_everything_is_the_whole() -> None:
    made = dataset([30, 20])
    whole, subset = search_data(made), search_data(made, 50)
    np.testing.assert_array_equal(whole.pool, subset.pool)
    assert whole.fingerprint == subset.fingerprint


def test_a_subset_holds_only_its_own_rows() -> None:
    made = dataset([100, 60])
    chosen, data = split(made, 40), search_data(made, 40)
    assert len(data.images) == len(data.labels) == 40
    for part in ("core", "pool"):
        theirs, ours = getattr(chosen, part), getattr(data, part)
        np.testing.assert_array_equal(data.images[ours], made.images[theirs])
        np.testing.assert_array_equal(data.labels[ours], made.labels[theirs])


def chosen_rows(data: SearchData, **fields: Any) -> Rows:
    return train_rows(data, TrialConfig(**fields))


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
    assert not {3, 70} & {*chosen.core.tolist(), *chosen.pool.tolist()}
    assert describe(made)["duplicate_rows"] == 2
    assert len(chosen.core) + len(chosen.pool) == 78


def test_mean_and_deviation_are_those_of_the_pool() -> None:
    data = search_data(dataset([500, 700]))
    pixels = data.images[data.pool].astype(np.float64).reshape(-1, 3) / 255
    np.testing.assert_allclose(data.mean, pixels.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(data.std[:2], pixels.std(axis=0)[:2], rtol=1e-6)
    assert data.std[2] == 1  # a channel that never varies
    assert data.mean.dtype == data.std.dtype == np.float32


def test_search_data_is_pickled_without_copies(tmp_path: Path) -> None:
    made = dataset([200, 200])
    np.save(tmp_path / "images.npy", made.images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    data = search_data(Dataset(**{**vars(made), "images": mapped}))
    buffers: list[pickle.PickleBuffer] = []
    pickle.dumps(data, protocol=5, buffer_callback=buffers.append)
    assert any(buffer.raw().nbytes == made.images.nbytes for buffer in buffers)


def test_the_fingerprint_tells_splits_apart() -> None:
    made = dataset([60, 60])
    prints = {search_data(made, subset, seed).fingerprint for subset in (None, 50) for seed in (0, 1)}
    assert len(prints) == 4


@pytest.mark.parametrize("subset", [0, 3, 101])
def test_a_subset_that_cannot_be_is_refused(subset: int) -> None:
    with pytest.raises(ConfigError, match=rf"subset={subset} .*from 4, .* to 100"):
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
