"""The JSON files of a bundle as typed values: `config.json`, `preprocessing.json` and `metrics.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.assessment import row_intervals
from orchestrator.assessment.confirmation import Confirmation
from orchestrator.assessment.intervals import Interval
from orchestrator.record.decoding import By, from_json
from orchestrator.record.facts import Measured, cells_of
from orchestrator.record.kept_weights import Calibration as FittedCalibration
from orchestrator.record.state import TrialRecord
from trainables.datasets.source import WHITE
from trainables.epoch_metrics import FINAL_METRICS, RESERVED
from trainables.trial_rows import TrialRows

EARLY, SEARCHED, CONFIRMED, REFIT, ENSEMBLE = "early", "searched", "confirmed", "refit", "ensemble"
KINDS = {
    EARLY: "the best trial so far of a sweep that was still running; it is replaced by better ones, and at the end by "
    "the sweep's winner",
    SEARCHED: "the best trial of the search, none of which was confirmed",
    CONFIRMED: "the run with the median score among those of the confirmed winner",
    ENSEMBLE: "the mean of the confirmed winner's models of all seeds",
    REFIT: "the confirmed winner, trained once more on all rows but the test set's, the validation set among them",
}
"""Kinds of models in a bundle → why this model is the one."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """The data that a model was trained on, as `config.json` describes them."""

    name: str = ""
    train_rows: int = 0
    scored_rows: int = 0
    folds: int = 1  # of the scored rows; the model is that of the first one
    test_rows: int | None = None
    data_fingerprint: str | None = None
    test_fingerprint: str | None = None
    commonest_share: float | None = None  # of the scored rows: what naming the commonest class always would score


@dataclass(frozen=True, kw_only=True)
class InitialWeights:
    """The file that a model's training began with, and what it gave."""

    source: str  # as `weights` names it; of a file of one's own its name
    sha256: str
    loaded: int  # tensors that came from it
    drawn: int  # tensors that were drawn at random instead, those of a new head among them
    license: str | None = None  # as the publisher states it, where that is known


@dataclass(frozen=True, kw_only=True)
class Member:
    """One of several models whose mean a bundle computes."""

    trial: int
    config: dict[str, Any]  # of `TrialConfig`, without any auto
    temperature: float | None  # by which this model's logits are divided
    shared: list[str] = field(default_factory=list)  # tensors that are stored once, with the first member's


@dataclass(frozen=True, kw_only=True)
class Description:
    """The contents of `config.json`: where a model comes from, how it is built, and the other files."""

    schema_version: int
    sweep: str | None = None
    trial: int
    twin: int | None = None  # of a refit, the confirmation run with its settings and seed, whose scores are given
    kind: str | None = None  # one of `KINDS`; None in bundles of earlier versions
    config: dict[str, Any]  # of `TrialConfig`, without any auto; of several models the first one's
    members: list[Member] = field(default_factory=list)  # of an ensemble; empty of one model
    classes: int = 0
    image_size: int  # pixels, the smaller side of what the model is given
    data: Data = field(default_factory=Data)
    initial_weights: InitialWeights | None = None  # None: all were drawn at random, or the bundle is an earlier one
    versions: dict[str, str | None] = field(default_factory=dict)  # by package
    files: dict[str, str]  # name → SHA-256 in hexadecimal digits

    @property
    def model(self) -> str:
        """The model's name, or the `package.module:factory` that builds it."""
        return str(self.config.get("model"))

    @property
    def origin(self) -> dict[str, Any]:
        """The sweep, trial, data and versions that the model comes from, as plain JSON values."""
        return {"sweep": self.sweep, "trial": self.trial, "data": asdict(self.data), "versions": self.versions}


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """The contents of `preprocessing.json`: how an image becomes what the model is given."""

    height: int  # pixels of stored images
    width: int
    channels: int
    scale: float = 1 / 255
    image_size: int  # pixels, the smaller side of what the model is given
    evaluation_crop: float
    interpolation: str = "bilinear"
    normalization: str
    mean: tuple[float, ...]  # [channels], of the training rows' pixels in 0..1
    std: tuple[float, ...]
    stored_side: int | None = (
        None  # pixels, the shorter side of a stored picture, at most; None: all have height × width
    )
    fit: str = "crop"
    background: tuple[int, int, int] = WHITE  # behind transparent pictures, and around padded ones
    evaluation_views: str = "one"


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The temperature that was fitted to a model, and its expected calibration errors without and with it, in 0..1."""

    temperature: float
    fitted_on: str  # part of the data
    judged_on: str
    calibration_error: float | None
    tempered_error: float | None


@dataclass(frozen=True, kw_only=True)
class ClassMetrics:
    """The metrics of one class on a part of the data; None where undefined."""

    label: str
    rows: int
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True)
class PartMetrics:
    """The metrics of a model on a part of the data: `FINAL_METRICS` and the user's, by name, None where undefined."""

    rows: int
    metrics: dict[str, float | None]
    classes: list[ClassMetrics]  # empty without a confusion matrix

    @classmethod
    def of(cls, value: dict[str, Any]) -> PartMetrics:
        """Return the metrics that a part of `metrics.json` has, side by side with its rows and classes."""
        known = from_json(_Part, value)
        names = [*FINAL_METRICS, *(name for name in value if name not in RESERVED)]
        numbers = {name: value[name] for name in names if name in value}
        return cls(known.rows, from_json(dict[str, float | None], numbers), known.classes or [])


@dataclass(frozen=True)
class _Part:
    rows: int
    classes: list[ClassMetrics] | None = None


@dataclass(frozen=True)
class BestEpoch:
    """The epoch whose weights are kept."""

    epoch: int


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """The contents of `metrics.json`: the model's metrics on each part of the data that it was measured on."""

    confirmed: bool
    metric: str
    score: float | None
    best_epoch: BestEpoch
    calibration: Calibration | None = None
    parts: dict[str, Annotated[PartMetrics, By(PartMetrics.of)]]
    confirmation: dict[str, Any] | None = None  # as `Confirmation.to_dict`


def metrics(
    trial: TrialRecord,
    classes: tuple[str, ...],
    rows: TrialRows,
    calibration: FittedCalibration | None,
    confirmation: Confirmation | None,
    also: Mapping[str, Measured | None] = MappingProxyType({}),
) -> dict[str, Any]:
    """Return the contents of `metrics.json`: the winner's metrics on each part of the data that it was measured on.

    A refit or an ensemble has `also` its own metrics, by part of the data, in the place of those of its twin, `trial`;
    None where it was not measured.
    """
    scored = "test" if rows.scored_is_test else "validation"
    best = trial.best
    known = {**trial.final_metrics, **also}
    measured_parts = {part: measured for part, measured in known.items() if measured is not None}
    parts: dict[str, dict[str, Any]] = {
        part: {
            "rows": measured.rows,
            **measured.metrics,
            **_confusion(measured.confusion, measured.cells(), classes),
            "intervals": _intervals(measured, rows.positive) if part == "test" else None,
        }
        for part, measured in measured_parts.items()
    }
    if not known:  # it is not from a confirmation run: its best epoch
        measured = {name.removeprefix("val_"): value for name, value in best.items() if name.startswith("val_")}
        matrix = measured.get("confusion")
        measured |= _confusion(matrix, cells_of(matrix) if matrix else None, classes)
        parts[scored] = {"rows": len(rows.scored), **measured, **(asdict(calibration) if calibration else {})}
    return {
        "confirmed": confirmation is not None,
        "metric": trial.metric,
        "score": trial.score,
        "best_epoch": best,
        "calibration": _calibration(calibration, scored, measured_parts.get("test")),
        "parts": parts,
        "confirmation": None if confirmation is None else confirmation.to_dict(),
    }


def _calibration(fitted: FittedCalibration | None, fitted_on: str, test: Measured | None) -> dict[str, Any] | None:
    """Return the temperature and the calibration errors without and with it, on the test set if measured there."""
    if fitted is None or fitted.temperature is None:
        return None
    judged_on, errors = fitted_on, asdict(fitted)
    if test is not None and test.metrics.get("tempered_error") is not None:
        judged_on, errors = "test", test.metrics
    return {
        "temperature": fitted.temperature,
        "fitted_on": fitted_on,
        "judged_on": judged_on,
        **{name: errors[name] for name in ("calibration_error", "tempered_error")},
    }


def _intervals(measured: Measured, positive: int) -> dict[str, Interval]:
    """Return the intervals over rows of those metrics that have one, by name."""
    found = {name: row_intervals.interval_on(measured, name, positive) for name in FINAL_METRICS}
    return {name: interval for name, interval in found.items() if interval is not None}


def _confusion(
    matrix: list[list[int]] | None, cells: NDArray[np.int64] | None, classes: Sequence[str]
) -> dict[str, Any]:
    """Return what `metrics.json` has of a confusion: the matrix or, of many classes, its cells; and each class."""
    if cells is None:
        return {"confusion": None, "classes": None}
    counts = {"confusion": matrix} if matrix else {"confusion_cells": cells.tolist()}
    return counts | {"classes": [asdict(one) for one in per_class(classes, cells)]}


def per_class(classes: Sequence[str], cells: NDArray[np.int64]) -> list[ClassMetrics]:
    """Return rows, precision, recall and F1 of each class, None where undefined.

    `cells` are those of the confusion matrix, int64 [K, 3]: label, prediction, count.
    """
    labels, predictions, counts = cells.T
    right = labels == predictions
    correct, actual, predicted = (
        np.bincount(numbers, weights, minlength=len(classes)).astype(np.int64).tolist()
        for numbers, weights in ((labels[right], counts[right]), (labels, counts), (predictions, counts))
    )
    return [
        ClassMetrics(
            label=label,
            rows=actual[i],
            precision=correct[i] / predicted[i] if predicted[i] else None,
            recall=correct[i] / actual[i] if actual[i] else None,
            f1=2 * correct[i] / (actual[i] + predicted[i]) if actual[i] + predicted[i] else None,
        )
        for i, label in enumerate(classes)
    ]
