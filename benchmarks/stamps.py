"""A sweep over 796 real pictures as they lie in their folder: what a frozen pretrained net reaches without any script.

    apt-get download tuxpaint-stamps-default && dpkg -x tuxpaint-stamps-default_*.deb stamps
    python -m benchmarks.stamps --pictures stamps/usr/share/tuxpaint/stamps --weights tf_efficientnet_lite0.safetensors

The pictures are drawings and photographs of many sizes, nearly all of them transparent, in 16 classes of very
different sizes beside 9,600 other files. One command per sweep seed: a frozen EfficientNet-Lite0 (timm's, with weights
in a file) at 224 pixels, whole pictures padded to squares. Target: the winner's mean on the sealed test set is at least
0.79, what was reached by hand with pictures put on white and padded beforehand; and validation and test agree: the
test mean lies in the interval that validation predicts, and the validation mean in the test mean's interval over rows.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tyro

from benchmarks import command
from benchmarks.record import EVIDENCE, Figure, Record, Target, two_cores

FIXED = (
    "model=timm:tf_efficientnet_lite0",
    "freeze=true",
    "image_size=224",
    "normalization=half",
    "fit=pad",
    "train_fraction=1",
)
STILL = ("flip=false", "shift=0", "scale=0")
"""Frozen features are computed once, so nothing may change the pictures at random."""

HEAD = ("--max-epochs", "40", "--search", "lr=log(1e-3,1e-1)")
"""Epochs of a head on features cost next to nothing."""


@dataclass(frozen=True)
class Options:
    """Sweep over the stamps of Tux Paint with a frozen pretrained net."""

    pictures: Path
    """Folder of the class folders: share/tuxpaint/stamps of the unpacked Debian package."""
    weights: Path
    """The net's weights, as safetensors with timm's names."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds, one sweep each."""
    trials: int | None = None
    """A smaller number, for a smoke test. Default: that of the search space."""
    evidence: Path = EVIDENCE
    """Folder of the evidence file that is written."""


def main() -> int:
    options = tyro.cli(Options)
    two_cores()
    record = Record(
        "stamps", {name: str(value) for name, value in asdict(options).items() if name not in ("pictures", "weights")}
    )
    for seed in options.seeds:
        with tempfile.TemporaryDirectory(prefix="benchmark-") as results:
            record.add(measure(options, seed, Path(results)))
    figures = [
        Figure(
            "test score, mean", "", [run["test"] for run in record.runs], Target(0.79, at_most=False, statistic="mean")
        ),
        Figure("validation score, mean", "", [run["validation"] for run in record.runs]),
        Figure(
            "means within each other's interval",
            "",
            [float(run["agree"]) for run in record.runs],
            Target(1, at_most=False, statistic="min"),
        ),
        Figure("command to leaderboard", "s", [run["wall_s"] for run in record.runs]),
    ]
    return 0 if record.write(options.evidence, figures) else 1


def measure(options: Options, seed: int, results: Path) -> dict[str, Any]:
    """Run one sweep and return its figures."""
    more = [] if options.trials is None else ["--trials", str(options.trials)]
    fixed = [*FIXED, *STILL, f"weights={options.weights.absolute()}"]
    run = command.sweep(
        [str(options.pictures), "--seed", str(seed), *HEAD, "--set", *fixed, *more], results, f"seed-{seed}"
    )
    final = json.loads((results / f"seed-{seed}" / "final.json").read_text())
    validation, test = final["validation"], final["test"]["score"]
    return {
        "seed": seed,
        "wall_s": round(run.done.wall_s, 3),
        "search": final["search"],
        "validation": validation["mean"],
        "validation_interval": validation["interval"],
        "test": test["mean"],
        "test_interval": test["interval"],
        "inside": final["test"]["inside"],
        "predicted": final["test"]["predicted"],
        "wilson": final["test"]["wilson"],
        "agree": _within(test["mean"], final["test"]["predicted"])
        and _within(validation["mean"], final["test"]["wilson"]),
        "best_config": {name: value for name, value in run.done.answer["best"]["config"].items() if name != "weights"},
        "slot_use": run.done.answer["slot_use"],
    }


def _within(value: float, interval: tuple[float, float]) -> bool:
    return interval[0] <= value <= interval[1]


if __name__ == "__main__":
    sys.exit(main())
