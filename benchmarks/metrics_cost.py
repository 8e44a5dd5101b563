"""The cost of an epoch's metrics, and of those at a trial's end, at 10 to 10,000 classes.

    python -m benchmarks.metrics_cost

A head of 512 features is trained with AdamW on 40,000 rows, in batches of 128, and scored on 10,000 rows, as a trial on
a frozen net is, on one thread. Measured are the seconds of

* an epoch of training;
* an epoch's metrics: all but the ROC-AUC and, with at most 20 classes, with it, and the pairs confused most;
* the ROC-AUC alone, which of more classes an epoch has only if it is the metric to optimize;
* what a trial's end costs besides: the temperature, and `evaluation.measured`;
* the `before`: what every epoch that improved cost up to revision 7829d44, by the same formulas (two searches of a
  sorted copy of all probabilities in float64, a dense confusion matrix, the temperature).

The target: at 1,000 classes an epoch's metrics take at most a tenth of the epoch's training. Memory is what the
process's peak grows by, each in a process of its own. Bytes are those of the journal's lines.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.record import EVIDENCE, Figure, Record, Target, two_cores
from trainables.calibration import fit_temperature
from trainables.epoch_metrics import MANY_CLASSES
from trainables.evaluation import measured
from trainables.metrics import confused, confusion_matrix, roc_auc, scores

POOL, SCORED, FEATURES, BATCH, JUDGED = 40_000, 10_000, 512, 128, 1000


@dataclass(frozen=True)
class Options:
    """Measure the cost of metrics."""

    classes: tuple[int, ...] = (10, 100, 1000, 10_000)
    runs: int = 3
    """Runs of each measurement; the shortest counts."""
    most_before: int = 1000
    """Classes up to which the former formulas are measured."""
    evidence: Path = EVIDENCE
    """Folder of the evidence file that is written."""


def main() -> int:
    options = tyro.cli(Options)
    two_cores()
    record = Record("metrics_cost", asdict(options))
    for classes in options.classes:
        names = [name for name in MEASURED if name != "before" or classes <= options.most_before]
        found = {name: _in_a_process(name, classes, options.runs) for name in names}
        seconds = {f"{name}_s": round(each[0], 4) for name, each in found.items()}
        memory = {f"{name}_mb": round(each[1]) for name, each in found.items() if name != "train"}
        share = found["epoch"][0] / found["train"][0]
        record.add({"classes": classes, **seconds, **memory, "share": round(share, 4), **_bytes(classes)})
    (judged,) = [run for run in record.runs if run["classes"] == JUDGED]
    figures = [
        Figure("metrics of an epoch at 1,000 classes, share of its training", "", [judged["share"]], Target(0.1)),
        Figure("metrics of an epoch at 1,000 classes", "s", [judged["epoch_s"]]),
        Figure("the same before", "s", [judged["before_s"]]),
        Figure("a part's final metrics at 1,000 classes in the journal", "kB", [judged["final_bytes"] / 1000]),
    ]
    return 0 if record.write(options.evidence, figures) else 1


def _in_a_process(name: str, classes: int, runs: int) -> tuple[float, float]:
    """Return the least seconds of several runs, and by how many MB the first one raises the peak of memory."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, (name, classes, runs))


def _measure(name: str, classes: int, runs: int) -> tuple[float, float]:
    torch.set_num_threads(1)
    logits, labels = _outputs(classes)
    before, taken, peaks = _peak_mb(), [], []
    for _ in range(runs):
        started = time.perf_counter()
        MEASURED[name](logits, labels)
        taken.append(time.perf_counter() - started)
        peaks.append(_peak_mb())
    return min(taken), peaks[0] - before


def _outputs(classes: int) -> tuple[Tensor, Tensor]:
    """Return float32 logits [SCORED, classes] of a model that is right on most rows, and labels."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(SCORED) % classes
    logits = torch.randn(SCORED, classes, generator=random)
    logits[torch.arange(SCORED), labels] += 4
    return logits, labels


def _train(logits: Tensor, labels: Tensor) -> None:
    """Train a head for an epoch."""
    classes = logits.shape[1]
    features, targets = torch.randn(POOL, FEATURES), torch.randint(classes, (POOL,))
    head = nn.Linear(FEATURES, classes)
    optimizer = torch.optim.AdamW(head.parameters(), fused=True)
    for first in range(0, POOL, BATCH):
        rows = slice(first, first + BATCH)
        functional.cross_entropy(head(features[rows]), targets[rows]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()


def _epoch(logits: Tensor, labels: Tensor) -> None:
    """Compute what `loop.train` records of an epoch."""
    classes = logits.shape[1]
    few, predictions = classes <= MANY_CLASSES, logits.argmax(1)
    scores(logits, labels, 1, few)
    confused(predictions, labels, torch.arange(len(labels)), classes)
    if few:
        confusion_matrix(predictions, labels, classes)


def _before(logits: Tensor, labels: Tensor) -> None:
    """Compute what an epoch that improved cost before, by the former formulas."""
    classes = logits.shape[1]
    confusion_matrix(logits.argmax(1), labels, classes)
    functional.cross_entropy(logits, labels)
    columns = logits.softmax(1).double().T.contiguous()
    ordered = columns.sort(dim=1).values
    ranks = (torch.searchsorted(ordered, columns) + torch.searchsorted(ordered, columns, right=True) + 1) / 2
    (ranks * functional.one_hot(labels, classes).T.bool()).sum(1)
    exact = logits.double()
    for step in range(22):  # 20 halvings, and the calibration with and without the temperature
        ((exact / (1 + step / 10)).softmax(1) * exact).sum(1).mean()


MEASURED: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "train": _train,
    "epoch": _epoch,
    "area": lambda logits, labels: roc_auc(logits.softmax(1), labels),
    "temperature": fit_temperature,
    "final": lambda logits, labels: measured(logits, labels, 1, 1.5, 0.0),
    "before": _before,
}
"""Name → what is measured."""


def _bytes(classes: int) -> dict[str, int]:
    """Return the lengths in the journal of a part's final metrics, and of a dense matrix in their place."""
    logits, labels = _outputs(classes)
    found = measured(logits, labels, 1, 1.5, 0.0)
    matrix = (
        3 * classes**2
        if classes > JUDGED
        else len(json.dumps(confusion_matrix(logits.argmax(1), labels, classes).tolist()))
    )
    return {"final_bytes": len(json.dumps(found)), "matrix_bytes": matrix}


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
