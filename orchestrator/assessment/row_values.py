"""Any metric as a mean over rows, so that models are compared row by row whatever they are scored by.

The value of a row is the metric plus N times what the metric gains for each bit of weight that the row gets: its
influence (Hampel 1974, Journal of the American Statistical Association 69; Efron 1982, The Jackknife, the Bootstrap and
Other Resampling Plans, ch. 6: the infinitesimal jackknife). The mean of all rows' values is the metric itself. Of the
accuracy they are 1 and 0, which rows are correct; of a loss the losses. Their variance over rows is that of the metric
as far as it is smooth, so that what `intervals.ties` does with correct rows it can do with these. The worst recall is
not smooth, and of the ROC-AUC of three and more classes, and of a user's metric, too little is known of each row.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from orchestrator.assessment.row_intervals import SHARES
from trainables.count_metrics import COUNT_METRICS, Counts
from trainables.row_predictions import RowPredictions

STEP = 1e-3  # of a row's weight
SMOOTH = COUNT_METRICS.keys() - {"worst_recall"}
Floats = NDArray[np.float64]


def row_values(rows: RowPredictions, name: str, positive: int) -> Floats | None:
    """Return the value of each row, float64 [N], whose mean is the metric `name`; None if it has no such values.

    Args:
        name: as in `trainables.epoch_metrics.FINAL_METRICS`.
        positive: of two classes the one that precision, recall, F1 and ROC-AUC are of.
    """
    if name in SHARES:
        return SHARES[name](rows).astype(np.float64)
    if name == "loss":
        return rows.losses.astype(np.float64)
    if name == "roc_auc":
        return _of_area(rows, positive)
    return _of_counts(rows, COUNT_METRICS[name], positive) if name in SMOOTH else None


def _of_counts(rows: RowPredictions, metric: Callable[[Counts, int], float | None], positive: int) -> Floats | None:
    """Return the values of rows for a metric of counts: those in one cell of the confusion matrix have the same."""
    classes = int(max(rows.labels.max(), rows.predictions.max(), 1)) + 1
    cells, members = np.unique(rows.labels * classes + rows.predictions, return_inverse=True)
    known = (rows.labels[rows.labels == rows.predictions], rows.predictions, rows.labels)
    counts = Counts(*(np.bincount(numbers, minlength=classes).astype(np.float64) for numbers in known))
    with np.errstate(invalid="ignore"):
        value = metric(counts, positive)
        if value is None:
            return None
        gains = [_gain(counts, int(cell) // classes, int(cell) % classes, metric, positive) for cell in cells]
    return value + len(rows.labels) * np.array(gains, dtype=np.float64)[members]


def _gain(
    counts: Counts, label: int, prediction: int, metric: Callable[[Counts, int], float | None], positive: int
) -> float:
    """Return what the metric gains for each bit of weight of rows with this label and this prediction."""
    found = []
    for step in (STEP, -STEP):
        correct, predicted, actual = (part.copy() for part in counts)
        correct[label] += step * (label == prediction)
        predicted[prediction] += step
        actual[label] += step
        found.append(metric(Counts(correct, predicted, actual), positive) or 0.0)
    return (found[0] - found[1]) / (2 * STEP)


def _of_area(rows: RowPredictions, positive: int) -> Floats | None:
    """Return the values of rows for the area under the ROC curve of two classes; None of other classes.

    A row's influence is that of its class's mean of the shares of the other class's rows that it is ranked right with
    (DeLong, DeLong and Clarke-Pearson 1988, Biometrics 44).
    """
    ours = rows.labels == positive
    if int(max(rows.labels.max(), rows.predictions.max())) > 1 or ours.all() or not ours.any():
        return None
    losses = np.maximum(rows.losses.astype(np.float64), 1e-9)
    odds = -losses - np.log(-np.expm1(-losses))  # of the label, as logarithms
    scores = np.where(ours, odds, -odds)
    shares = np.empty(len(scores))
    for mine, other in ((ours, ~ours), (~ours, ours)):
        ranked = np.sort(scores[other])
        below = (np.searchsorted(ranked, scores[mine], "left") + np.searchsorted(ranked, scores[mine], "right")) / 2
        shares[mine] = below / len(ranked)
    shares[~ours] = 1 - shares[~ours]
    area = float(shares[ours].mean())
    sizes = np.where(ours, ours.sum(), (~ours).sum())
    values: Floats = area + len(scores) / sizes * (shares - area)
    return values
