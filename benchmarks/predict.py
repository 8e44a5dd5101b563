"""A bundle in use: the accuracy of its labels beside its metrics, and the speed of prediction beside evaluation.

    python -m benchmarks.predict --data-dir DIR         (or BENCHMARK_CIFAR10=DIR, with CIFAR-10 as Parquet)

Of each model a short confirmed sweep is made: one trial on a few thousand rows of CIFAR-10, run again with another
seed, measured on the 10,000 test images. Then its bundle labels `test.parquet`. The rows that it labels correctly must
be the correct predictions in the journal, and their share the accuracy in `metrics.json`, to the row.

Speed: images a second of `predictions.label` (encoded images in Parquet → labels in a table) over those of
`evaluation.predict` (the same images decoded, in memory → logits), as trials are evaluated: both with the bundle's
precision, layout and batch size, in one process on two cores. The sides alternate, first one, then the other beginning,
after a run of each to warm up. Decoding is all that prediction has to do beside evaluation. Target: ≥ 0.9. The ratio of
CPU times beside it says what that costs where no core is idle. With other work on the machine set
OMP_WAIT_POLICY=passive, or threads spin for each other and neither side gets on.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from benchmarks import command
from benchmarks.record import EVIDENCE, BenchmarkError, Figure, Record, Target, cifar10_files, say, two_cores
from orchestrator.bundle import bundle, predictions
from orchestrator.bundle.classifier import Classifier
from trainables import datasets, evaluation, memory
from trainables.datasets.listing import Images
from trainables.datasets.unlabelled import find_images

MODELS = {"resnet20": (), "resnet18": ("stem=imagenet",)}
THREADS = 2


@dataclass(frozen=True)
class Options:
    """Compare a bundle's labels with its metrics, and prediction's speed with evaluation's."""

    data_dir: Path | None = None
    """Folder of CIFAR-10's files as Parquet. Default: that of the environment variable BENCHMARK_CIFAR10."""
    rows: int = 2000
    """Rows that a trial trains and is scored on."""
    epochs: int = 2
    pairs: int = 5
    evidence: Path = EVIDENCE
    """Folder of the evidence file that is written."""


def main() -> int:
    options = tyro.cli(Options)
    data_dir = cifar10_files(options.data_dir)
    if data_dir is None:
        return 0
    if not (data_dir / "test.parquet").exists():
        say(f"skipped: {data_dir} has no test.parquet; encoded images are needed")
        return 0
    two_cores()
    torch.set_num_threads(THREADS)
    memory.keep_freed()  # as in the processes of trials and of the command
    record, figures = Record("predict", asdict(options)), []
    images, labels = datasets.open_test(datasets.load("cifar10", datasets.Reading(data_dir)))
    given = find_images(data_dir / "test.parquet").images
    for model, settings in MODELS.items():
        with tempfile.TemporaryDirectory(prefix="benchmark-") as results:
            asked = ["cifar10", "--data-dir", str(data_dir), "--subset", str(options.rows), "--trials", "1"]
            asked += ["--max-epochs", str(options.epochs), "--confirm", "1", "--confirm-seeds", "1"]
            run = command.sweep([*asked, "--set", f"model={model}", *settings], Path(results), model)
            best = Path(results) / model / "best"
            kept = bundle.read(best)
            classifier = kept.classifier("cpu")
        measured = run.state.trials[kept.description.trial].final_metrics["test"]
        predicted = np.concatenate([rows["label"].to_pylist() for rows in labelled(classifier, given)])
        right = predicted == np.array(classifier.classes)[labels]
        claimed = kept.metrics.parts["test"].metrics["accuracy"] or 0.0
        if int(right.sum()) != round(claimed * len(labels)):
            say(f"{model}: metrics.json says {claimed}, predict reaches {right.mean()}")
        differing = int((right != measured.correct_rows()).sum())
        calibration = kept.metrics.calibration
        assert calibration is not None
        described = {"precision": classifier.config.precision, "memory_format": classifier.config.memory_format}
        record.add({"model": model, **described, "accuracy": claimed, "differing": differing, **asdict(calibration)})
        runs = speed(classifier, given, np.asarray(images), options.pairs)
        for found in runs:
            record.add({"model": model, **found})
        shares = [found["evaluation_cpu_s"] / found["predict_cpu_s"] for found in runs]
        ratios = [found["predict_images_s"] / found["evaluation_images_s"] for found in runs]
        figures += [
            Figure(
                f"test rows predicted otherwise than measured ({model})", "", [differing], Target(0, statistic="max")
            ),
            Figure(f"images a second, predict / evaluation ({model})", "", ratios, Target(0.9, at_most=False)),
            Figure(f"CPU time, evaluation / predict ({model})", "", shares),
            Figure(f"images a second of predict ({model})", "", [found["predict_images_s"] for found in runs]),
        ]
    return 0 if record.write(options.evidence, figures) else 1


def labelled(classifier: Classifier, given: Images) -> list[Any]:
    """Return the record batches that `python -m orchestrator.predict` writes."""
    return list(predictions.label(classifier, given.places(), given.batches(), top=1))


def speed(classifier: Classifier, given: Images, images: Any, pairs: int) -> list[dict[str, Any]]:
    """Run both sides, alternating; return images per second."""
    unused = np.zeros(len(images), np.int64)
    batches, rows = (
        classifier.batches(images, unused),
        torch.arange(len(images)),
    )
    sides: dict[str, Callable[[], object]] = {
        "predict": lambda: labelled(classifier, given),
        "evaluation": lambda: evaluation.predict(classifier.config, batches, rows, classifier.module),
    }
    runs = []
    for pair in range(pairs + 1):
        found = {}
        for name, side in list(sides.items())[:: 1 if pair % 2 else -1]:
            started, worked = time.perf_counter(), time.process_time()
            side()
            found[f"{name}_images_s"] = len(images) / (time.perf_counter() - started)
            found[f"{name}_cpu_s"] = time.process_time() - worked
        runs.append(found)
    return runs[1:]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchmarkError as error:
        sys.exit(f"failed: {error}")
