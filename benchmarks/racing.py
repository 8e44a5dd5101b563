"""What confirmation as a race saves, what it loses, and whether intervals still hold, in the simulation of coverage.py.

    python -m benchmarks.racing

The best three settings of a simulated sweep are confirmed with three seeds each, seed by seed. A candidate is out once
its mean is more than so many standard errors of the paired difference below that of another one; the product's rule is
two. Beside it stand one and a half and one. Reported for each scenario: the runs made, of nine; how often the winner is
the one that all nine runs would have given; what the winner lacks against that one over all rows, in points; and how
often the winner's interval holds its mean over sixty further seeds.
"""

from __future__ import annotations

import statistics
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import tyro

from benchmarks.coverage import CANDIDATES, FURTHER, SCENARIOS, SEEDS, Runs, Scenario, drawn, searched, trained
from benchmarks.record import EVIDENCE, Figure, Record, Target, two_cores
from orchestrator.assessment.intervals import mean_interval, standard_error
from orchestrator.assessment.racing import FAR

TARGETS = {"runs": Target(6.0), "holds": Target(93.0, at_most=False)}
"""Of the product's rule: a third of the nine runs saved, and intervals that hold."""


@dataclass(frozen=True)
class Options:
    """Simulate races of candidates."""

    sweeps: int = 1000
    """Sweeps of each scenario."""
    far: tuple[float, ...] = (FAR, 1.5, 1.0)
    """Standard errors behind another one, at which a candidate is out."""
    evidence: Path = EVIDENCE
    """Folder of the evidence file that is written."""


def main() -> int:
    options = tyro.cli(Options)
    two_cores()
    record = Record("racing", asdict(options))
    for name, scenario in SCENARIOS.items():
        for far in options.far:
            random = np.random.default_rng(0)
            found = [simulated(scenario, far, random) for _ in range(options.sweeps)]
            means = {key: statistics.fmean(one[key] for one in found if key in one) for key in found[0] | found[-1]}
            record.add({"scenario": name, "far": far, **{key: round(mean, 3) for key, mean in means.items()}})
    figures = [
        Figure(
            f"{name}: {what}, out at {run['far']:g} s.e.",
            unit,
            [run[key]],
            TARGETS.get(key) if run["far"] == FAR else None,
        )
        for name in SCENARIOS
        for run in record.runs
        if run["scenario"] == name
        for what, unit, key in (
            ("runs of nine", "", "runs"),
            ("same winner", "%", "same"),
            ("lost by it", "points", "lost"),
            ("interval holds", "%", "holds"),
        )
    ]
    return 0 if record.write(options.evidence, figures) else 1


def simulated(scenario: Scenario, far: float, random: np.random.Generator) -> dict[str, float]:
    """Simulate one sweep and its race."""
    found = [(setting, trained(setting, scenario, 1, random)) for setting in searched(drawn(scenario, random), random)]
    best = sorted(found, key=lambda one: -one[1].scores[0])[:CANDIDATES]
    runs = [trained(setting, scenario, SEEDS, random) for setting, _ in best]
    racing, made = list(range(len(runs))), 0
    for seeds in range(1, SEEDS + 1):
        made += len(racing)
        racing = [one for one in racing if not any(_is_behind(runs[one], runs[other], seeds, far) for other in racing)]
    winner = max(racing, key=lambda one: runs[one].scores.mean())
    of_all = max(range(len(runs)), key=lambda one: runs[one].scores.mean())
    interval = mean_interval(runs[winner].scores.tolist())
    further = trained(best[winner][0], scenario, FURTHER, random).scores.mean()
    holds = {} if interval is None else {"holds": 100.0 * float(interval.low <= further <= interval.high)}
    lost = 100 * float(runs[of_all].truth.mean() - runs[winner].truth.mean())
    return {"runs": float(made), "same": 100.0 * float(winner == of_all), "lost": lost, **holds}


def _is_behind(one: Runs, other: Runs, seeds: int, far: float) -> bool:
    difference = other.correct[:seeds].astype(float) - one.correct[:seeds]
    return float(difference.mean()) > far * standard_error(difference)


if __name__ == "__main__":
    sys.exit(main())
