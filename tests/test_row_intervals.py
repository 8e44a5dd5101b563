"""Intervals of a model's metrics over rows: they hold the truth as often as they say, and stay within bounds."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from sklearn import metrics as reference

from orchestrator.assessment import row_intervals
from orchestrator.assessment.intervals import wilson
from orchestrator.assessment.row_intervals import bounds, interval_on, row_interval, value_of
from orchestrator.record.facts import Measured
from trainables.epoch_metrics import FINAL_METRICS
from trainables.evaluation import measured
from trainables.row_predictions import RowPredictions


def part(rows: int, classes: int, signal: float = 3.0, seed: int = 0) -> Measured:
    """Return what a model with this skill is measured to be on a stratified test set."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(rows) % classes
    logits = torch.randn(rows, classes, generator=random) + signal * torch.nn.functional.one_hot(labels, classes)
    return Measured.of(json.loads(json.dumps(measured(logits, labels, positive=1, temperature=None, seconds=0.0))))


@pytest.mark.parametrize("classes", [2, 3, 30])
def test_every_metric_has_an_interval_around_its_value_within_its_bounds(classes: int) -> None:
    found, without = part(300, classes), []
    for name in FINAL_METRICS:
        interval, value = interval_on(found, name, 1), found.metrics[name]
        if value is None or interval is None:
            without.append(name)
            continue
        low, high = bounds(name)
        assert low <= interval.low < value < interval.high <= high, name
        assert interval == interval_on(found, name, 1)  # the same draws
    assert without == {2: ["top5_accuracy"], 3: ["top5_accuracy", "roc_auc"], 30: ["roc_auc"]}[classes]


def test_a_share_of_rows_has_wilsons_interval() -> None:
    found = part(500, 10)
    for name in ("accuracy", "top5_accuracy"):
        assert interval_on(found, name, None) == wilson(round((found.metrics[name] or 0) * 500), 500)


@pytest.mark.parametrize("name", ["balanced_accuracy", "f1", "precision", "recall", "worst_recall", "mcc", "roc_auc"])
@pytest.mark.parametrize("rows", [2, 40])
def test_a_model_without_a_mistake_has_an_interval_with_a_width(name: str, rows: int) -> None:
    interval = interval_on(part(rows, 2, signal=50.0), name, 1)
    assert interval is not None
    assert bounds(name)[0] <= interval.low < 0.99
    assert interval.high == pytest.approx(1)


def test_twice_the_rows_narrow_it_by_the_root_of_two() -> None:
    for name in ("balanced_accuracy", "f1", "mcc", "loss"):
        widths = []
        for rows in (500, 1000, 2000):
            interval = interval_on(part(rows, 5), name, 1)
            assert interval is not None
            widths.append(interval.high - interval.low)
        assert widths[0] / widths[2] == pytest.approx(2, rel=0.25), name


def test_what_is_not_known_has_none() -> None:
    found = part(100, 3)
    assert interval_on(found, "costs", 1) is None
    former = Measured.of({name: value for name, value in found.to_dict().items() if name != "predictions"})
    assert interval_on(former, "f1", 1) is None
    assert bounds("costs") == (-math.inf, math.inf)


def test_the_area_of_what_is_recorded_is_scikit_learns() -> None:
    found = part(400, 2, signal=1.0)
    rows = found.row_predictions()
    assert rows is not None
    chances = np.where(rows.labels == 1, np.exp(-rows.losses), 1 - np.exp(-rows.losses))
    area = value_of(rows, "roc_auc", 1)
    assert area == pytest.approx(reference.roc_auc_score(rows.labels, chances), abs=1e-4)
    assert area == pytest.approx(found.metrics["roc_auc"] or 0, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("shares", [(1, 1), (9, 1), (1,) * 10, tuple(2.0**-i for i in range(8))])
def test_intervals_hold_the_truth(shares: tuple[float, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """95 % of 300, less three standard errors and what little rows cost; more for the worst recall."""
    monkeypatch.setattr(row_intervals, "DRAWS", 150)
    random, classes = np.random.default_rng(0), len(shares)
    sizes = np.maximum(np.rint(600 * np.array(shares) / sum(shares)).astype(int), 4)

    def drawn(times: int) -> RowPredictions:
        labels = np.repeat(np.arange(classes), sizes * times)
        logits = random.standard_normal((len(labels), classes))
        logits[np.arange(len(labels)), labels] += 2.5 + np.sin(labels)
        losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(labels)), labels]
        return RowPredictions(labels, logits.argmax(1), losses.astype(np.float32), np.ones(len(labels), np.bool_))

    names = [name for name in FINAL_METRICS if name != "top5_accuracy" and (name != "roc_auc" or classes == 2)]
    whole, held = drawn(500), dict[str, list[bool]]()
    truth = {name: value_of(whole, name, 1) or 0.0 for name in names}
    for _ in range(300):
        rows = drawn(1)
        for name in names:
            value = value_of(rows, name, 1)
            interval = None if value is None else row_interval(rows, name, value, 1)
            if interval is not None:
                held.setdefault(name, []).append(interval.low <= truth[name] <= interval.high)
    assert set(held) == set(truth)
    shares_held = {name: float(np.mean(every)) for name, every in held.items()}
    assert {name: share for name, share in shares_held.items() if share < 0.9} == {}
