"""Makes training bear witness. Every Python that starts with this folder in PYTHONPATH reads this, workers too.

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
now: dict[str, int | None] = {"trial": None, "attempt": None}  # what this process is at


def tell(**line: Any) -> None:
    line = {**now, "pid": os.getpid(), "t": time.time(), **line}
    file = os.open(os.environ["CHAOS_WITNESS"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(file, (json.dumps(line) + "\n").encode())
        os.fsync(file)
    finally:
        os.close(file)


def watch_attempts(checkpoint: Any) -> None:
    """Every attempt makes a `Saver` of its own before it trains."""
    make = checkpoint.Saver.__init__

    def made(self: Any, storage: Any, trial: int, attempt: int) -> None:
        now.update(trial=trial, attempt=attempt)
        make(self, storage, trial, attempt)

    checkpoint.Saver.__init__ = made


def watch_epochs(loop: Any) -> None:
    train, train_epoch = loop.train, loop.train_epoch

    def slow_epoch(*arguments: Any) -> Any:
        found = train_epoch(*arguments)
        time.sleep(EPOCH_S.get(str(now["trial"]), EPOCH_S.get("*", 0.0)))
        return found

    def witnessed(data: Any, state: Any) -> Iterator[Any]:
        tell(begins=state.epoch)
        for metrics in train(data, state):
            tell(**metrics.to_dict())
            yield metrics

    loop.train, loop.train_epoch = witnessed, slow_epoch


WATCHED: dict[str, Callable[[Any], None]] = {"trainables.checkpoint": watch_attempts, "trainables.loop": watch_epochs}


class Watching:
    """Imports the modules of `WATCHED` as ever, then changes them."""

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
