"""Have training write what it does. Every Python that starts with this folder in PYTHONPATH reads this, workers too.

The loop itself appends a line to the file CHAOS_WITNESS, flushed, when a trial begins or goes on and after every epoch
that it has trained. The journal has no part in it. CHAOS_EPOCH_S, {"*": seconds, "7": seconds of trial 7}, makes
epochs longer by a sleep within what is measured as training; losses do not change by it.
"""

from __future__ import annotations

import importlib.machinery
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

EPOCH_S = json.loads(os.environ.get("CHAOS_EPOCH_S", "{}"))
now: dict[str, int | None] = {"trial": None, "attempt": None}  # what this process trains


def write(**line: Any) -> None:
    """Append a line to the witness, and flush it to the disk."""
    line = {**now, "pid": os.getpid(), "t": time.time(), **line}
    file = os.open(os.environ["CHAOS_WITNESS"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(file, (json.dumps(line) + "\n").encode())
        os.fsync(file)
    finally:
        os.close(file)


def watch_attempts(checkpoint: Any) -> None:
    """Note trial and attempt when an attempt makes its `Saver`, which it does before it trains."""
    initialize = checkpoint.Saver.__init__

    def noting(self: Any, storage: Any, trial: int, attempt: int, *others: Any) -> None:
        now.update(trial=trial, attempt=attempt)
        initialize(self, storage, trial, attempt, *others)

    checkpoint.Saver.__init__ = noting


def watch_epochs(loop: Any) -> None:
    """Write a line when a trial begins and after each epoch, which is made longer."""
    train, train_epoch = loop.train, loop.train_epoch

    def slow_epoch(*arguments: Any) -> Any:
        result = train_epoch(*arguments)
        time.sleep(EPOCH_S.get(str(now["trial"]), EPOCH_S.get("*", 0.0)))
        return result

    def witnessed(data: Any, state: Any) -> Iterator[Any]:
        write(begins=state.epoch)
        for metrics in train(data, state):
            write(**metrics.to_dict())
            yield metrics

    loop.train, loop.train_epoch = witnessed, slow_epoch


WATCHED: dict[str, Callable[[Any], None]] = {"trainables.checkpoint": watch_attempts, "trainables.loop": watch_epochs}


class Watching:
    """Importer that changes the modules of `WATCHED` after their import."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        spec = importlib.machinery.PathFinder.find_spec(name, path) if name in WATCHED else None
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_watch(module: ModuleType) -> None:
                execute(module)
                WATCHED[name](module)

            setattr(spec.loader, "exec_module", execute_and_watch)  # noqa: B010 - types forbid a method's assignment
        return spec


if "CHAOS_WITNESS" in os.environ:
    sys.meta_path.insert(0, Watching)
