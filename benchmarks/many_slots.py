"""How many events a second one driver carries, with up to 1,000 slots: what a large cluster asks of it.

    python -m benchmarks.many_slots

Two parts, as 1,000 real workers do not fit on two cores. (1) Simulated: no Ray, but the real searcher, recorder,
scheduler, rule, study and journal (each event flushed to the disk), called in Tune's order by the simulator of the
tests, with trials of 9 epochs that learn nothing. Counted is the time within these parts alone, as the clock has it
and, since a disk that others use takes ten times as long to flush a line, as the CPU has it. (2) Real: Tune's loop
around the same parts, with as many stub workers as are asked for, each with a share of a CPU; here an event costs what
Ray does for it besides, and the workers compete with the driver for two cores, so a driver with cores of its own does
more. An event is one of the journal's: a proposal, the begin of an attempt, an epoch, a pause, an end.

A driver keeps up with as many slots as it carries events in the time between two events of a slot, mostly an epoch:
with more, workers wait for it, and nothing else happens. `limit` says how brief an epoch may be in 1,000 slots."""

from __future__ import annotations

import random
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import tyro

from benchmarks import driver_cost
from benchmarks.record import EVIDENCE, Figure, Record, two_cores
from orchestrator.search.promotion import ROUND, Asha, Rounds
from tests.simulation import SPACE, Setup, Simulation

EPOCHS = 9
ROUNDS = {"one round": lambda trials: Rounds((trials,)), f"rounds of {ROUND}": lambda trials: Rounds()}


@dataclass(frozen=True)
class Options:
    """Count the events a second that one driver carries."""

    trials: int = 10_000
    slots: tuple[int, ...] = (8, 100, 1000)
    """Simulated slots."""
    samplers: tuple[str, ...] = ("random", "tpe")
    workers: tuple[int, ...] = (8, 16, 32)
    """Real workers; none: only the simulated slots."""
    worker_trials: int = 1000
    evidence: Path = EVIDENCE
    """Folder of the evidence file that is written."""


@dataclass
class Spent:
    """The seconds that the driver's parts took so far."""

    wall_s: float = 0.0
    cpu_s: float = 0.0


class Timed:
    """A part of the driver whose calls are timed."""

    def __init__(self, part: Any, spent: Spent) -> None:
        """Take what the seconds of each call are added to."""
        self._part, self._spent = part, spent

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._part, name)
        return Timed(found, self._spent) if callable(found) else found

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        started, began = time.perf_counter(), time.thread_time()
        found = self._part(*arguments, **options)
        self._spent.wall_s += time.perf_counter() - started
        self._spent.cpu_s += time.thread_time() - began
        return found


class TimedSimulation(Simulation):  # type: ignore[misc, unused-ignore]
    """A simulated sweep that notes how long the parts of its driver took."""

    spent: Spent

    def _search(self, journal: Any, searcher: Any, rule: Any, ending: Any, workers: Any) -> None:
        self.spent = Spent()
        super()._search(journal, Timed(searcher, self.spent), rule, ending, workers)

    def _advance(self, live: Any, recorder: Any, scheduler: Any, searcher: Any) -> None:
        super()._advance(live, Timed(recorder, self.spent), Timed(scheduler, self.spent), searcher)


def main() -> int:
    options = tyro.cli(Options)
    two_cores()
    record = Record("many_slots", asdict(options))
    for slots in options.slots:
        for sampler in options.samplers:
            for rounds in ROUNDS:
                record.add(simulated(options.trials, slots, sampler, rounds))
    for workers in options.workers:
        record.add(real(options.worker_trials, workers))
    return 0 if record.write(options.evidence, figures(record.runs)) else 1


def figures(runs: list[dict[str, Any]]) -> list[Figure]:
    return [Figure(f"{run['what']}: events a second", "", [run["events_a_second"]]) for run in runs]


def simulated(trials: int, slots: int, sampler: str, rounds: str) -> dict[str, Any]:
    """Run a simulated sweep, and return how many events a second its driver did, in all and by tenths of the trials."""
    space = replace(SPACE, base=SPACE.base.replace(max_epochs=EPOCHS))
    rule = Asha(EPOCHS, 1, 3.0, ROUNDS[rounds](trials), space)
    setup = Setup(trials, sampler, slots=slots, rule=rule, space=space, learned=learned, in_time=True)
    marks: list[tuple[float, int]] = []  # CPU seconds of the driver and events so far, at each tenth of the trials

    def watch(event: Any, state: Any) -> None:
        if state.next_trial * 10 >= (len(marks) + 1) * trials:
            marks.append((simulation.spent.cpu_s, state.next_n))

    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        simulation = TimedSimulation(Path(folder), setup, watch=watch)
        journal = simulation.run()
    spent, events = simulation.spent, journal.state.next_n
    return {
        "what": f"{slots:,} simulated slots, {sampler}, {rounds}",
        "slots": slots,
        "attempts": sum(trial.attempt + 1 for trial in journal.state.trials.values()),
        "events": events,
        "driver_s": round(spent.wall_s, 3),
        "driver_cpu_s": round(spent.cpu_s, 3),
        "events_a_second": round(events / spent.wall_s, 1),
        "events_a_cpu_second": round(events / spent.cpu_s, 1),
        "by_tenth": [round((n - m) / (t - s), 1) for (s, m), (t, n) in pairwise(marks)],
    }


def learned(config: dict[str, Any], epoch: int) -> dict[str, Any]:
    """Return the metrics of a stub trial, which depend on its seed."""
    score = random.Random(config["seed"]).random()
    return driver_cost.metrics(epoch, score, None) | {"train_s": 1.0}


def real(trials: int, workers: int) -> dict[str, Any]:
    """Run stub trials with so many workers in Ray, and return how many events a second the driver did."""
    from orchestrator.cluster import connection

    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder, connection.connect("local"):
        run = driver_cost.measure(Path(folder) / "sweep", trials, "random none", 0, workers)
    seconds = run["wall_s"] - run["start_s"]
    return {"what": f"{workers} real workers", "events_a_second": round(run["events"] / seconds, 1), **run}


if __name__ == "__main__":
    sys.exit(main())
