"""How well a sweep says beforehand, and while it runs, how long it takes.

    python -m benchmarks.forecast

The digits sweep with each sampler seed: first `--dry-run`, whose forecast is compared with the time from the command to
its end; then the sweep, whose journal is read again as the live view reads it. After a quarter, a half and three
quarters of the time from the start of the search to its last trial's end the view says how much is left: the error is
that of the whole time. All errors are shares of what the sweep took.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console

from benchmarks import command
from benchmarks.record import EVIDENCE, Figure, Record, Target, two_cores
from orchestrator.display.live_view import SweepView
from orchestrator.plan import recorded
from orchestrator.record.events import Event, SweepStarted, TrialEnded
from orchestrator.record.state import SweepState, fold

MOMENTS = (0.25, 0.5, 0.75)
MOST = 0.2


@dataclass(frozen=True)
class Options:
    """Compare forecasts of digits sweeps with what they took."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds, one sweep each."""
    trials: int | None = None
    """A smaller number, for a smoke test. Default: that of the search space."""
    evidence: Path = EVIDENCE
    """Folder of the evidence file that is written."""


def main() -> int:
    options = tyro.cli(Options)
    two_cores()
    record = Record("forecast", asdict(options))
    for seed in options.seeds:
        with tempfile.TemporaryDirectory(prefix="benchmark-") as results:
            record.add(measure(options, seed, Path(results)))
    figures = [Figure("error of the forecast before the sweep", "", [r["before"] for r in record.runs], Target(MOST))]
    figures += [
        Figure(
            f"error of the forecast after {share:.0%} of the time",
            "",
            [r[str(share)] for r in record.runs],
            Target(MOST),
        )
        for share in MOMENTS
    ]
    return 0 if record.write(options.evidence, figures) else 1


def measure(options: Options, seed: int, results: Path) -> dict[str, Any]:
    """Forecast a sweep, run it, and return the errors."""
    more = [] if options.trials is None else ["--trials", str(options.trials)]
    asked = ["digits", "--seed", str(seed), *more]
    dry = command.run(["-m", "orchestrator.sweep", *asked, "--dry-run", "--json", "--results", str(results)])
    expected = dry.answer["forecast"]
    run = command.sweep(asked, results, "timed")
    expected_s = (expected["low_s"] + expected["high_s"]) / 2
    before = abs(expected_s - run.done.wall_s) / run.done.wall_s
    plan = recorded.read(results / "timed").plan
    return {
        "seed": seed,
        "wall_s": round(run.done.wall_s, 2),
        "forecast_s": [round(expected["low_s"], 2), round(expected["high_s"], 2)],
        "before": round(before, 4),
        **{str(share): round(error, 4) for share, error in while_running(run.events, plan).items()},
    }


def while_running(events: list[Event], plan: Any) -> dict[float, float]:
    """Return the error of what the live view says at each moment."""
    start = next(event.t for event in events if isinstance(event, SweepStarted))
    whole = max(event.t for event in events if isinstance(event, TrialEnded)) - start
    state = SweepState()
    view = SweepView(state, plan, Console(quiet=True))
    found: dict[float, float] = {}
    for event in events:
        fold(state, event)
        view.observe(event)
        elapsed = event.t - start
        for share in MOMENTS:
            left = view.seconds_left(event.t) if share not in found and elapsed >= share * whole else None
            if left is not None:
                found[share] = abs(elapsed + left - whole) / whole
    return found


if __name__ == "__main__":
    sys.exit(main())
