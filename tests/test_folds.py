"""Folds: every row is scored once, by a model that has not trained on it; to all else it is one trial with epochs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import bundles
import numpy as np
import pytest
import tiny
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from numbered import DATASETS, SEEDS, counts_of, dataset
from sklearn import metrics as reference

from trainables import checkpoint, features, fused_heads, loop
from trainables.config import TrialConfig
from trainables.datasets import Dataset
from trainables.errors import ConfigError, Diverged
from trainables.evaluation import predict
from trainables.loop import TrialData, TrialState, final_metrics, train
from trainables.metrics import confused, scores
from trainables.models import heads
from trainables.splits import Scoring, SearchData, describe, search_data, split
from trainables.storage import Storage
from trainables.trial_rows import trial_rows

FOLDS = 4


def folded(folds: int = FOLDS) -> SearchData:
    rows = np.arange(tiny.VALIDATION + tiny.POOL)
    return dataclasses.replace(
        tiny.search_data(), validation=rows, pool=rows, folds=tuple(rows[n::folds] for n in range(folds))
    )


def start(made: TrialConfig, folds: int = FOLDS) -> tuple[TrialData, TrialState]:
    data = tiny.select_from(made, folded(folds))
    return data, TrialState.start(made, data, tiny.CPU)


# Rows


@given(DATASETS, SEEDS, st.integers(2, 7))
def test_every_row_is_scored_once_by_a_model_that_trains_on_all_others(made: Dataset, seed: int, folds: int) -> None:
    assume(folds <= len(made.labels))
    data = search_data(made, seed=seed, scoring=Scoring(folds))
    found = trial_rows(data, TrialConfig()).folds
    assert sorted(row for fold in found for row in fold.scored) == list(range(len(made.labels)))
    for fold in found:
        assert sorted([*fold.train, *fold.scored]) == list(range(len(made.labels)))
        assert (counts_of(made, fold.train) >= 1).all(), "a model that has never seen a class cannot name it"


@given(DATASETS, SEEDS, st.integers(2, 7))
def test_folds_are_alike_in_size_and_in_every_class(made: Dataset, seed: int, folds: int) -> None:
    assume(folds <= len(made.labels))
    parts = split(made, seed=seed, scoring=Scoring(folds)).folds
    counts = np.array([counts_of(made, part) for part in parts])
    assert np.ptp(counts, axis=0).max() <= 1
    assert np.ptp(counts.sum(1)) <= 1


def test_a_subset_is_dealt_to_folds_and_duplicates_are_in_none() -> None:
    made = dataset([60, 30], duplicates=[1, 2])
    chosen = split(made, subset=45, scoring=Scoring(3))
    assert [len(part) for part in chosen.folds] == [15, 15, 15]
    assert not np.intersect1d(chosen.validation, [1, 2]).size
    data = search_data(made, subset=45, scoring=Scoring(3))
    for before, now in zip(chosen.folds, data.folds, strict=True):
        np.testing.assert_array_equal(np.asarray(data.images[now]), np.asarray(made.images[before]))


@pytest.mark.parametrize("fraction", [0.3, 1.0])
def test_the_train_fraction_and_removed_rows_apply_within_each_fold(fraction: float) -> None:
    data = search_data(dataset([100, 40]), scoring=Scoring(5))
    config = TrialConfig(train_fraction=fraction, removed_classes="1", removed_share=0.5)
    for fold in trial_rows(data, config).folds:
        assert counts_of(data, fold.train).tolist() == [round(80 * fraction), np.ceil(16 * fraction)]
        assert not np.intersect1d(fold.train, fold.scored).size


def test_an_epoch_has_equally_many_rows_in_every_fold() -> None:
    data = search_data(dataset([7, 6]), scoring=Scoring(3))
    found = trial_rows(data, TrialConfig())
    assert [len(fold.train) for fold in found.folds] == [8, 9, 9]
    assert found.epoch_rows == 9


def test_folds_are_in_record_and_fingerprint() -> None:
    made = dataset([60, 30])
    assert describe(made)["folds"] == 1
    record = describe(made, scoring=Scoring(3))
    assert (record["folds"], record["validation_rows"], record["pool_rows"]) == (3, 90, 90)
    fingerprints = {search_data(made, scoring=Scoring(folds)).fingerprint for folds in (1, 2, 3)}
    assert len(fingerprints) == 3


# Training


def test_one_fold_computes_what_it_always_did() -> None:
    """Replace the validation set by a fold of the same rows: nothing of the trial may change."""
    made = tiny.config(max_epochs=2, dropout=0.2)
    data = tiny.search_data()
    one = dataclasses.replace(data, folds=(data.validation,))
    first, again = (tiny.select_from(made, each) for each in (data, one))
    before, now = (
        [tiny.lasting(epoch) for epoch in train(each, TrialState.start(made, each, tiny.CPU))]
        for each in (first, again)
    )
    assert before == now


def test_scores_are_of_the_predictions_of_all_folds_for_rows_they_did_not_see() -> None:
    made = tiny.config(max_epochs=1)
    data, state = start(made)
    (epoch,) = train(data, state)
    logits = torch.zeros(84, 3)
    for fold, learner in zip(data.folds, state.learners, strict=True):
        logits[fold.scored_rows] = predict(made, data.batches, fold.scored_rows, learner.network)[0]
    truth = torch.from_numpy(folded().labels)
    assert epoch.val_confused == confused(
        logits.argmax(1)[data.scored_rows], truth[data.scored_rows], data.scored_rows, 3
    )
    assert epoch.val_accuracy == pytest.approx(reference.accuracy_score(truth, logits.argmax(1)))
    assert epoch.val_loss == pytest.approx(scores(logits, truth).loss, rel=1e-6)
    assert sum(map(sum, epoch.val_confusion or [])) == 84


def test_every_fold_trains_on_its_own_rows_from_the_same_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    made = tiny.config(max_epochs=1)
    data, state = start(made)
    first = state.learners[0].model.state_dict()
    for learner in state.learners:
        torch.testing.assert_close(learner.model.state_dict(), first, rtol=0, atol=0)
    seen: list[set[int]] = []
    draw = type(data.batches).train

    def watched(batches: Any, rows: torch.Tensor, *others: Any) -> Any:
        seen.append(set(rows.tolist()))
        return draw(batches, rows, *others)

    monkeypatch.setattr(type(data.batches), "train", watched)
    (epoch,) = train(data, state)
    for rows, fold in zip(seen, data.folds, strict=True):
        assert rows.isdisjoint(fold.scored_rows.tolist())
        assert len(rows) == 63
    assert epoch.step == state.step == 4  # of every model: 63 rows in batches of 16
    weights = [torch.cat([p.flatten() for p in learner.model.parameters()]) for learner in state.learners]
    assert not torch.equal(weights[0], weights[1])


def test_five_folds_learn() -> None:
    *_, last = train(*start(tiny.config(max_epochs=8), 5))
    assert (last.val_accuracy or 0.0) > 0.9


@pytest.mark.parametrize(
    "fields",
    [
        {"optimizer": "adamw", "schedule": "plateau", "dropout": 0.3, "shift": 0.1, "patience": 2},
        {"freeze": True, "head_width": 4, "dropout": 0.3},
        {"freeze": True, "dropout": 0.3, "optimizer": "adamw", "ema": 0.9, "schedule": "plateau"},
        {"freeze": True, "momentum": 0.9, "selection": "last", "precision": "bfloat16"},
        {"selection": "last", "memory_format": "channels_last", "train_fraction": 0.6},
        {"mixup": 0.4, "cutmix": 1.0, "trivial_augment": True, "erasing": 0.5, "logit_adjustment": 1.0},
    ],
)
def test_a_trial_with_folds_goes_on_as_if_never_interrupted(fields: dict[str, Any], tmp_path: Path) -> None:
    made = tiny.config(**fields)
    data, state = start(made)
    straight = [tiny.lasting(epoch) for epoch in train(data, state)]
    for stop in range(1, len(straight)):
        data, other = start(made)
        training = train(data, other)
        epochs = [tiny.lasting(next(training)) for _ in range(stop)]
        storage = Storage(str(tmp_path / str(stop)))
        checkpoint.save(storage, 0, 0, stop, checkpoint.pack(*other.to_checkpoint()))
        saved = checkpoint.load(storage, 0)
        assert saved is not None
        data, other = start(made)
        other.restore(*saved[:2])
        epochs += [tiny.lasting(epoch) for epoch in train(data, other)]
        assert epochs == straight
        for one, again in zip(state.learners, other.learners, strict=True):
            torch.testing.assert_close(one.kept_weights(), again.kept_weights(), rtol=0, atol=0)
        assert other.calibration == state.calibration


def test_a_frozen_base_is_saved_once() -> None:
    _, state = start(tiny.config(freeze=True))
    tensors, _ = state.to_checkpoint()
    assert [name for name in tensors if name.startswith("fold1.model.")] == [
        "fold1.model.fc.weight",
        "fold1.model.fc.bias",
    ]
    assert len([name for name in tensors if name.startswith("model.")]) > 20


@pytest.mark.parametrize("freeze", [True, False])
def test_all_folds_begin_with_the_same_weights_and_share_a_frozen_base(freeze: bool) -> None:
    made = tiny.config(freeze=freeze, head_width=6)
    _, state = start(made)
    first, second = (learner.model for learner in state.learners[:2])
    torch.testing.assert_close(dict(second.state_dict()), dict(first.state_dict()), rtol=0, atol=0)
    shared = {id(tensor) for tensor in first.parameters()} & {id(tensor) for tensor in second.parameters()}
    head = {id(tensor) for tensor in heads.head_of(first).parameters()}
    assert shared == ({id(tensor) for tensor in first.parameters()} - head if freeze else set())


def test_features_of_a_frozen_base_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[Any] = []
    compute = features.computed

    def watched(*args: Any) -> Any:
        computed.append(args)
        return compute(*args)

    monkeypatch.setattr(features, "computed", watched)
    made = tiny.config(freeze=True, max_epochs=2)
    data, state = start(made)
    on_features = list(train(data, state))
    assert len(computed) == 1
    monkeypatch.setattr(features, "suffice", lambda config: False)
    data, state = start(made)
    for one, other in zip(on_features, train(data, state), strict=True):
        assert one.val_loss == pytest.approx(other.val_loss, rel=1e-3)


def test_final_metrics_of_the_validation_set_are_those_of_the_best_epoch_over_all_folds() -> None:
    made = tiny.config(max_epochs=4)
    data, state = start(made)
    data = data.of_run(made, final=True)
    epochs = list(train(data, state))
    found = final_metrics(data, state)["validation"]
    assert found["rows"] == 84
    assert found["accuracy"] == state.score == max(epoch.val_accuracy or 0.0 for epoch in epochs)
    assert found["confusion"] == epochs[state.best_epoch - 1].val_confusion
    assert state.calibration is not None
    assert found["temperature"] == state.calibration["temperature"]


FUSED: dict[str, dict[str, Any]] = {
    "adamw": {"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.1},
    "sgd": {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9},
    "dropout": {"dropout": 0.4},
    "weights": {"class_weights": "inverse", "logit_adjustment": 1.0},
    "focal": {"focal_gamma": 2.0, "label_smoothing": 0.1},
    "penalty": {"head_l1": 1e-3, "head_l2": 1e-2},
    "clipped": {"grad_clip": 0.05},
    "average": {"ema": 0.9},
    "plateau": {"schedule": "plateau", "max_epochs": 6},
    "bfloat16": {"precision": "bfloat16"},
}


@pytest.mark.parametrize("fields", FUSED.values(), ids=FUSED)
def test_heads_trained_at_once_learn_what_they_learn_one_after_another(
    fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tiny.config(**{"freeze": True, "max_epochs": 3, **fields})
    data, at_once = start(made)
    epochs = list(train(data, at_once))
    monkeypatch.setattr(fused_heads, "fit", lambda learners: False)
    data, alone = start(made)
    rtol, atol = (0.02, 0.02) if made.precision == "bfloat16" else (1e-4, 1e-5)
    for one, other in zip(epochs, train(data, alone), strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, rel=rtol)
        assert (one.lr, one.step) == (other.lr, other.step)
    for together, single in zip(at_once.learners, alone.learners, strict=True):
        torch.testing.assert_close(together.head.state_dict(), single.head.state_dict(), rtol=rtol, atol=atol)
        torch.testing.assert_close(together.kept_weights(), single.kept_weights(), rtol=rtol, atol=atol)


@pytest.mark.parametrize("fields", [{}, {"head_width": 6}, {"micro_batch": 2}, {"freeze": False}])
def test_only_linear_heads_on_features_are_trained_at_once(
    fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    step = loop.optimizer_step

    def watched(*args: Any) -> Any:
        steps.append(1)
        return step(*args)

    monkeypatch.setattr(loop, "optimizer_step", watched)
    list(train(*start(tiny.config(**{"freeze": True, "max_epochs": 1, **fields}))))
    assert bool(steps) == bool(fields)


def test_a_fold_that_diverges_ends_the_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    step = loop.optimizer_step

    def broken(learner: Any, images: torch.Tensor, *others: Any) -> Any:
        calls.append(1)
        loss, logits = step(learner, images, *others)
        return (loss * torch.nan if len(calls) == 16 else loss), logits  # in the last batch of the last fold

    monkeypatch.setattr(loop, "optimizer_step", broken)
    with pytest.raises(Diverged):
        list(train(*start(tiny.config(max_epochs=1))))


# In a sweep


@pytest.mark.parametrize(
    ("counts", "subset", "folds"),
    [
        ([144] * 10, None, 1),  # as digits: 288 rows in the validation set
        ([50, 50, 20], None, 5),
        ([500, 499], None, 1),
        ([400, 400], None, 5),  # 160 validation rows
        ([1200, 40], None, 5),  # 8 validation rows of a class, 248 in all
        ([4000, 40], None, 1),  # 8 of a class, but 808 in all
        ([50, 50, 20], 60, 1),
        ([2, 2], None, 4),  # of 3 pictures in each class, without the test set's
    ],
)
def test_as_many_folds_as_suit_the_data(counts: list[int], subset: int | None, folds: int) -> None:
    found = split(dataset(counts), subset, scoring=Scoring(folds=None))
    assert max(len(found.folds), 1) == folds


def test_more_folds_than_rows_are_refused() -> None:
    message = (
        r"folds=9 is not allowed \(allowed: at most 8, the rows there are\); give --folds 8 or fewer, or leave it out"
    )
    with pytest.raises(ConfigError, match=message):
        split(dataset([5, 3]), scoring=Scoring(9))


def test_a_model_card_says_whose_score_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = folded()
    monkeypatch.setattr(tiny, "search_data", lambda opened: data)
    card = (bundles.make(tmp_path / "best").folder / "README.md").read_text()
    assert "trained on 63 rows, scored on 84" in card
    assert "scored in folds by 4 models, trained alike: each row by the one that had not trained on it" in card
