"""A sweep over 796 real pictures as they lie in their folder, with three pretrained nets and no other option.

    apt-get download tuxpaint-stamps-default && dpkg -x tuxpaint-stamps-default_*.deb stamps
    python -m benchmarks.stamps --pictures stamps/usr/share/tuxpaint/stamps --weights nets

The pictures are drawings and photographs of many sizes, nearly all of them transparent, in 16 classes of very different
sizes beside 9,600 other files. `nets` holds EfficientNet-Lite0, 1 and 2 as safetensors with timm's names. One command
per sweep seed, each with an empty cache. Targets: the model in `best/` reaches at least 0.86 on the sealed test set, in
mean; the first usable model is there within 4 minutes, everything within 20. Marks to beat: scikit-learn's logistic
regression on one frozen net's flip-averaged features, with the same share of rows, 0.822 (8 splits). Without
`--weights`, where none can be downloaded either, what training from scratch comes to, within 20 minutes.
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from benchmarks import command
from benchmarks.record import EVIDENCE, Figure, Record, Target, two_cores


@dataclass(frozen=True)
class Options:
    """Sweep over the stamps of Tux Paint with pretrained nets."""

    pictures: Path
    """Folder of the class folders: share/tuxpaint/stamps of the unpacked Debian package."""
    weights: Path | None = None
    """The folder of the nets' weights, as safetensors with timm's names. Without it a net is trained from scratch, on a
    machine that cannot download any; its evidence is `stamps_scratch`."""
    preset: str = "good"
    """The preset of the sweeps."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds, one sweep each."""
    trials: int | None = None
    """A smaller number, for a smoke test. Default: that of the search space."""
    evidence: Path = EVIDENCE
    """Folder of the evidence file that is written."""


def main() -> int:
    options = tyro.cli(Options)
    two_cores()
    known = {"preset": options.preset, "seeds": str(options.seeds), "trials": str(options.trials)}
    record = Record("stamps" if options.weights else "stamps_scratch", known)
    for seed in options.seeds:
        with tempfile.TemporaryDirectory(prefix="benchmark-") as results:
            record.add(measure(options, seed, Path(results)))
    runs = record.runs
    score, first = (Target(0.86, False, "mean"), Target(240, statistic="max")) if options.weights else (None, None)
    figures = [
        Figure("test score of the model in best/", "", [run["best"] for run in runs], score),
        Figure("test score of the confirmed models, mean", "", [run["test"] for run in runs]),
        Figure("validation score of the confirmed models, mean", "", [run["validation"] for run in runs]),
        Figure("command to first usable model", "s", [run["first_s"] for run in runs], first),
        Figure("command to leaderboard", "s", [run["wall_s"] for run in runs], Target(1200, statistic="max")),
    ]
    return 0 if record.write(options.evidence, figures) else 1


def measure(options: Options, seed: int, results: Path) -> dict[str, Any]:
    """Run one sweep and return its figures."""
    more = [] if options.trials is None else ["--trials", str(options.trials)]
    weights = [] if options.weights is None else ["--weights", str(options.weights.absolute())]
    asked = [str(options.pictures), *weights, "--preset", options.preset, *more]
    os.environ["SWEEP_ORCHESTRATOR_CACHE"] = str(results / "cache")
    run = command.sweep([*asked, "--seed", str(seed)], results, f"seed-{seed}")
    final = json.loads((results / f"seed-{seed}" / "final.json").read_text())
    validation, test = final["validation"], final["test"]
    first = min(trial.ended_at or math.inf for trial in run.state.trials.values() if trial.status == "completed")
    return {
        "seed": seed,
        "wall_s": round(run.done.wall_s, 3),
        "first_s": round(first - run.done.started_at, 3),
        "search": final["search"],
        "validation": validation["mean"],
        "validation_interval": validation["interval"],
        "test": test["score"]["mean"],
        "test_interval": test["score"]["interval"],
        "inside": test["inside"],
        "predicted": test["predicted"],
        "wilson": test["wilson"],
        "kind": final["best"]["kind"],
        "best": final[kind]["test_accuracy"] if (kind := final["best"]["kind"]) in final else test["model_accuracy"],
        "best_config": {name: value for name, value in run.done.answer["best"]["config"].items() if name != "weights"},
        "slot_use": run.done.answer["slot_use"],
    }


if __name__ == "__main__":
    sys.exit(main())
