"""The time of a sweep that is no search: from the command to the first optimizer step, from the last trial to the exit.

    python -m benchmarks.start_and_end

The digits sweep, once to warm the file cache, then some times more. Parts of the times are in `phases` of every run;
`python -m orchestrator.sweep digits --profile FILE` shows more of them.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import tyro

from benchmarks import command
from benchmarks.record import EVIDENCE, Figure, Record, Target, two_cores

START = ("start_to_journal_s", "journal_to_proposal_s", "proposal_to_training_s")
END = ("last_end_to_sweep_ended_s", "sweep_ended_to_exit_s")


@dataclass(frozen=True)
class Options:
    """Time the start and the end of sweeps of digits."""

    runs: int = 7
    trials: int | None = None
    """A smaller number, for a smoke test. Default: that of the search space."""
    evidence: Path = EVIDENCE
    """Folder of the evidence file that is written."""


def main() -> int:
    options = tyro.cli(Options)
    two_cores()
    record = Record("start_and_end", asdict(options))
    measure(options)  # reads what the others find in the file cache
    for _ in range(options.runs):
        record.add(measure(options))
    figures = [
        Figure(name, "s", [sum(run["phases"][part] for part in parts) for run in record.runs], Target(most))
        for name, parts, most in (
            ("command to first optimizer step", START, 6.5),
            ("last trial's end to exit", END, 1.5),
        )
    ]
    return 0 if record.write(options.evidence, figures) else 1


def measure(options: Options) -> dict[str, object]:
    """Run one sweep and return its figures."""
    more = [] if options.trials is None else ["--trials", str(options.trials)]
    with tempfile.TemporaryDirectory(prefix="benchmark-") as results:
        run = command.sweep(["digits", *more], Path(results), "timed")
    return {"wall_s": round(run.done.wall_s, 3), "slot_use": run.done.answer["slot_use"], "phases": run.phases()}


if __name__ == "__main__":
    sys.exit(main())
