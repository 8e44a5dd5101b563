"""The commands that `benchmarks.long_sweep` measures, each in a process of its own: WHAT FOLDER STARTED."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.long_sweep import peak_mb


def main() -> int:
    what, folder, started = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
    marks: dict[str, Any] = resume(folder, started) if what == "resume" else leaderboard(folder)
    seconds = {"s": round(time.time() - started, 2), "cpu_s": round(sum(os.times()[:2]), 2)}
    sys.stdout.write(json.dumps({**marks, **seconds, "peak_mb": round(peak_mb())}) + "\n")
    return 0


def resume(folder: Path, started: float) -> dict[str, Any]:
    """Do what a command does that goes on with the sweep, until it has proposed the next trial."""
    from orchestrator import conclusion, sweep
    from orchestrator.assessment import refits, tables
    from orchestrator.cluster.process_state import optuna_quiet
    from orchestrator.display import progress
    from orchestrator.display.live_view import SweepView
    from orchestrator.record import kept_weights
    from orchestrator.record.paths import SweepFolder
    from orchestrator.search import tuning
    from orchestrator.search.searcher import JournalSearcher
    from orchestrator.search.study import JournalStudy
    from trainables.storage import Storage

    del tuning, conclusion  # imported as the command does
    imported = time.time()
    with ExitStack() as stack:
        journal, planned = sweep._reopen(folder, stack)
        opened = time.time()
        study = JournalStudy(planned.space, planned.sampler, planned.seed, "", planned.trials)
        pruner = kept_weights.Pruner(journal.state, Storage(str(folder / "checkpoints")))
        view = SweepView(journal.state, planned, progress.console(quiet=True))
        writer = tables.Writer(journal.state, planned, SweepFolder(folder))
        stack.enter_context(optuna_quiet())
        for subscriber in (study.observe, writer.observe, pruner.observe, view.observe):
            journal.subscribe(subscriber)
        followed = time.time()
        rule = planned.stop_rule()
        searcher = JournalSearcher(journal, refits.queue(planned), rule, {"": study}, planned.config, lambda: 8)
        due = searcher._queue.next(journal.state)
        assert due is not None
        assert study.propose(journal.state.next_trial)
    proposed = time.time()
    marks = (started, imported, opened, followed, proposed)
    names = ("import_s", "open_s", "follow_s", "propose_s")
    return {name: round(end - begin, 2) for name, begin, end in zip(names, marks, marks[1:], strict=False)}


def leaderboard(folder: Path) -> dict[str, Any]:
    from orchestrator.leaderboard.__main__ import main as command

    sys.stdout.flush()
    assert command([str(folder), "--top", "20"]) == 0
    return {}


if __name__ == "__main__":
    sys.exit(main())
