"""Predictions row by row, as text: given back as they were, small, and refused if damaged."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from orchestrator.bundle.documents import per_class
from orchestrator.record import kept_weights
from orchestrator.record.decoding import RecordError
from orchestrator.record.facts import Measured, cells_of
from orchestrator.record.state import TrialRecord
from orchestrator.report.confusions import by_class, matrices
from trainables import checkpoint
from trainables.config import TrialConfig
from trainables.epoch_metrics import MANY_CLASSES
from trainables.evaluation import measured
from trainables.row_predictions import RowPredictions
from trainables.storage import Storage


def drawn(rows: int, classes: int, seed: int = 0, right: float = 0.7) -> RowPredictions:
    random = np.random.default_rng(seed)
    labels = random.integers(classes, size=rows)
    predictions = np.where(random.random(rows) < right, labels, random.integers(classes, size=rows))
    return RowPredictions(
        labels, predictions, random.exponential(size=rows).astype(np.float32), random.random(rows) < 0.9
    )


@given(st.integers(1, 200), st.sampled_from([1, 2, 256, 257, 65_536, 65_537, 10**6]), st.integers(0, 9))
def test_what_is_packed_is_given_back(rows: int, classes: int, seed: int) -> None:
    before = drawn(rows, classes, seed)
    after = RowPredictions.unpack(before.pack(), rows)
    assert after.labels.tolist() == before.labels.tolist()
    assert after.predictions.tolist() == before.predictions.tolist()
    assert after.in_top.tolist() == before.in_top.tolist()
    np.testing.assert_allclose(after.losses, before.losses, rtol=1e-3, atol=1e-6)


def test_losses_that_are_no_numbers_are_the_largest() -> None:
    losses = np.array([np.inf, np.nan, 1e9], dtype=np.float32)
    rows = RowPredictions(np.arange(3), np.arange(3), losses, np.ones(3, dtype=np.bool_))
    assert RowPredictions.unpack(rows.pack(), 3).losses.tolist() == [65504] * 3


@pytest.mark.parametrize(("classes", "kilobytes"), [(10, 40), (1000, 60)])
def test_ten_thousand_rows_are_a_short_text(classes: int, kilobytes: int) -> None:
    assert len(drawn(10_000, classes).pack()) < 1000 * kilobytes


def test_the_cells_are_those_of_the_confusion_matrix() -> None:
    rows = drawn(500, 7)
    matrix = reference.confusion_matrix(rows.labels, rows.predictions)
    assert rows.cells().tolist() == cells_of(matrix.tolist()).tolist()
    assert rows.cells()[:, 2].sum() == 500


@pytest.mark.parametrize(
    "text",
    [
        "",
        "?",
        base64.b64encode(b"no zlib").decode(),
        base64.b64encode(zlib.compress(b"")).decode(),
        base64.b64encode(zlib.compress(bytes([3] + [0] * 100))).decode(),
        base64.b64encode(zlib.compress(bytes(10**7))).decode(),
        drawn(9, 3).pack(),
    ],
)
def test_damaged_predictions_are_refused(text: str) -> None:
    with pytest.raises(RecordError, match="predictions: "):
        Measured.of({"rows": 10, "predictions": text})


def outputs(rows: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    labels = torch.randint(classes, (rows,), generator=random)
    return torch.randn(rows, classes, generator=random) + 4 * torch.nn.functional.one_hot(labels, classes), labels


def test_the_weights_of_a_run_of_thousands_of_classes_are_found_again(tmp_path: Path) -> None:
    """A matrix of 4,800 classes made the header longer than a reader takes."""
    found = measured(*outputs(500, 4800), positive=1, temperature=None, seconds=0.0)
    values = {"ended": "budget", "worker": {}, "final_metrics": {"test": found}, "best_epoch": 3, "epochs": []}
    content = checkpoint.pack({"best.head.weight": torch.ones(2)}, values)
    assert len(content) < 20_000
    storage = Storage(str(tmp_path))
    checkpoint.save(storage, 7, 0, 3, content)
    weights = kept_weights.find(storage, 7, 3)
    assert weights is not None
    assert weights.tensors["head.weight"].tolist() == [1, 1]


@pytest.mark.parametrize("classes", [MANY_CLASSES, MANY_CLASSES + 1])
def test_a_part_is_read_the_same_with_a_matrix_and_without(classes: int) -> None:
    logits, labels = outputs(300, classes)
    plain = measured(logits, labels, positive=1, temperature=None, seconds=0.0)
    assert ("confusion" in plain) == (classes == MANY_CLASSES)
    matrix = reference.confusion_matrix(labels, logits.argmax(1), labels=range(classes)).tolist()
    now = Measured.of(json.loads(json.dumps(plain)))
    former = Measured.of({"rows": 300, "accuracy": plain["accuracy"], "confusion": matrix})
    (cells, old_cells), names = (now.cells(), former.cells()), [str(number) for number in range(classes)]
    assert cells is not None
    assert old_cells is not None
    assert cells.tolist() == old_cells.tolist() == cells_of(matrix).tolist()
    recalls = reference.recall_score(labels, logits.argmax(1), average=None)
    assert [one.recall for one in per_class(names, cells)] == pytest.approx(recalls)
    pages = []
    for of_test in (now, former):
        trial = TrialRecord(0, {}, TrialConfig().to_dict(), 0.0)
        trial.final_metrics["test"] = of_test
        pages.append((matrices(trial, names), by_class(trial, names)))
    assert pages[0] == pages[1]
    (shown,) = pages[0][0]
    assert (shown.classes, len(shown.labels), shown.rows) == (classes, MANY_CLASSES, 300)
