"""The default sweep of digits as a user runs it: its time, and the score of its best trial.

    python -m benchmarks.digits_sweep

`python -m orchestrator.sweep digits --json`, 24 trials of at most 9 epochs on two cores, timed from the command to its
end: imports, Ray's start, the choice of precision, training, tables and the best model are all in it. Sweep seeds 0, 1
and 2; each must end within a minute, and their best validation accuracies have a mean of at least 0.97. Nothing is
compared; the data set comes with scikit-learn. `phases` of every run says where the time went.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import tyro

from benchmarks import command
from benchmarks.record import EVIDENCE, Figure, Record, Target, two_cores


@dataclass(frozen=True)
class Options:
    """Time the default digits sweep from start to end."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds, one sweep each."""
    trials: int | None = None
    """A smaller number, for a smoke test. Default: that of the search space."""
    max_epochs: int | None = None
    """A smaller number, for a smoke test. Default: that of the search space."""
    evidence: Path = EVIDENCE
    """Folder of the evidence file that is written."""


def main() -> int:
    options = tyro.cli(Options)
    two_cores()
    record = Record("digits_sweep", asdict(options))
    for seed in options.seeds:
        with tempfile.TemporaryDirectory(prefix="benchmark-") as results:
            record.add(measure(options, seed, Path(results)))
    seconds = [run["wall_s"] for run in record.runs]
    scores = [run["best_score"] for run in record.runs]
    figures = [
        Figure("command to leaderboard", "s", seconds, Target(60, statistic="max")),
        Figure("best validation accuracy", "", scores, Target(0.97, at_most=False, statistic="mean")),
        Figure("slot use", "", [run["slot_use"] for run in record.runs]),
    ]
    return 0 if record.write(options.evidence, figures) else 1


def measure(options: Options, seed: int, results: Path) -> dict[str, object]:
    """Run one sweep and return its figures."""
    limits = {"--trials": options.trials, "--max-epochs": options.max_epochs}
    more = [text for name, value in limits.items() if value is not None for text in (name, str(value))]
    run = command.sweep(["digits", "--seed", str(seed), *more], results, f"seed-{seed}")
    answer = run.done.answer
    return {
        "seed": seed,
        "wall_s": round(run.done.wall_s, 3),
        "best_score": answer["best"]["score"],
        "best_config": answer["best"]["config"],
        "trials": answer["trials"],
        "epochs": answer["epochs"],
        "slot_use": answer["slot_use"],
        "train_s": round(sum(epoch["train_s"] for epoch in run.epochs), 3),
        "eval_s": round(sum(epoch["eval_s"] for epoch in run.epochs), 3),
        "formats": run.state.formats,
        "phases": run.phases(),
    }


if __name__ == "__main__":
    sys.exit(main())
