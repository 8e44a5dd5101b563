"""The sealed test score beside the interval that confirmation predicts: small digits sweeps, each with other rows.

    python -m benchmarks.sealed_scores

Every sweep gets scikit-learn's digits in another order, so it has another test set, validation set and pool: chance
would not vary with the same ones. Space and trials are those of `digits --quick`; the best two trials are confirmed
with three seeds each. The question: in how many of 40 sweeps the kept model's test accuracy is inside the 95 %
prediction interval, which was known before the test set was opened. The simulation (`benchmarks.coverage`) says 92.5 %
for so few rows.

Then one sweep of 5,000 rows of CIFAR-10, if its files are there: eight trials of six epochs, the best three confirmed.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tyro
from PIL import Image

from benchmarks import command
from benchmarks.record import EVIDENCE, Figure, Record, Target, cifar10_files, two_cores
from search_spaces import digits
from search_spaces.distributions import describe_distribution
from trainables import datasets
from trainables.config import FIELDS

CANDIDATES, SEEDS = 2, 3


@dataclass(frozen=True)
class Options:
    """Run confirmed digits sweeps, each with other rows."""

    sweeps: int = 40
    """Sweeps of digits."""
    data_dir: Path | None = None
    """Folder of CIFAR-10's files. Default: that of the environment variable BENCHMARK_CIFAR10."""
    evidence: Path = EVIDENCE
    """Folder of the evidence file that is written."""


def main() -> int:
    options = tyro.cli(Options)
    two_cores()
    record = Record("sealed_scores", {**asdict(options), "data_dir": None})
    data_dir = cifar10_files(options.data_dir)
    for seed in range(options.sweeps):
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
            record.add(of_digits(Path(folder), seed))
    expected = [run["predicted"] for run in record.runs]
    inside = sum(run["inside"] for run in record.runs)
    figures = [
        Figure(
            f"test scores inside the 95 % prediction interval, of {options.sweeps}",
            "sweeps",
            [inside],
            Target(0.875 * options.sweeps, at_most=False),
        ),
        Figure("width of the prediction interval", "points", [100 * (high - low) for low, high in expected]),
        Figure("search's best, less its confirmed mean", "points", [run["search_to_confirmed"] for run in record.runs]),
        Figure("winner's confirmed mean, less on the test set", "points", [run["to_test"] for run in record.runs]),
    ]
    if data_dir is not None:
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
            asked = ["cifar10", "--data-dir", str(data_dir), "--subset", "5000", "--trials", "8", "--confirm", "3"]
            record.add({"data": "cifar10", **measure([*asked, "--confirm-seeds", str(SEEDS)], Path(folder))})
    return 0 if record.write(options.evidence, figures) else 1


def of_digits(folder: Path, seed: int) -> dict[str, Any]:
    """Run one sweep of digits in the order of `seed`, and return its figures."""
    os.environ["SWEEP_ORCHESTRATOR_CACHE"] = str(folder / "cache")
    write_digits(folder / "digits.parquet", seed)
    space = digits.space(gpu=False, quick=True)
    base = {n: v for n, v in space.base.to_dict().items() if v != FIELDS[n].default and n not in space.distributions}
    arguments = [str(folder / "digits.parquet"), "--seed", str(seed), "--trials", str(space.trials)]
    arguments += ["--max-epochs", str(base.pop("max_epochs"))]
    arguments += ["--confirm", str(CANDIDATES), "--confirm-seeds", str(SEEDS)]
    arguments += ["--set", *(f"{name}={value}" for name, value in base.items()), "flip=false", "scale=0"]
    arguments += [
        "--search",
        *(f"{name}={describe_distribution(found)}" for name, found in space.distributions.items()),
    ]
    return {"data": "digits", "seed": seed, **measure(arguments, folder)}


def measure(arguments: list[str], folder: Path) -> dict[str, Any]:
    """Run one confirmed sweep, and return its figures."""
    run = command.sweep(arguments, folder, "sweep", limit_s=3600)
    final = json.loads((folder / "sweep" / "final.json").read_bytes())
    test = final["test"]
    return {
        "candidates": final["candidates"],
        "search": final["search"],
        "scores": final["validation"]["scores"],
        "interval": final["validation"]["interval"],
        "predicted": test["predicted"],
        "test": test["model_accuracy"],
        "test_mean": test["accuracy"]["mean"],
        "wilson": test["wilson"],
        "inside": test["inside"],
        "search_to_confirmed": -100 * final["shrinkage"]["search_to_confirmed"],
        "to_test": -100 * final["shrinkage"]["confirmed_to_test"],
        "wall_s": round(run.done.wall_s, 3),
    }


def write_digits(path: Path, seed: int) -> None:
    """Write digits as a Parquet file of PNG images and labels, in the order of `seed`."""
    found = datasets.load("digits")
    order = np.random.default_rng(seed).permutation(len(found.labels))
    images = [png(np.asarray(found.images[row])[..., 0]) for row in order]
    pq.write_table(pa.table({"image": images, "label": found.labels[order]}), path)


def png(image: np.ndarray) -> bytes:
    """Return a gray image, uint8 [H, W], as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="png")
    return buffer.getvalue()


if __name__ == "__main__":
    sys.exit(main())
