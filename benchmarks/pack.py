"""Processes that share a GPU, each with a trial that is ready to train."""

from __future__ import annotations

import multiprocessing
import time
from typing import Any

from benchmarks.loops import our_epochs, pictures
from trainables.config import TrialConfig


class Pack:
    """Processes that each have a trial ready, and train a block of it when they are asked to."""

    def __init__(self, config: TrialConfig, size: int, together: int, device: str, steps: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes, self._processes = [], []
        for _ in range(together):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_member, args=(theirs, config.to_dict(), size, device, steps, 1 / together)
            )
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def __enter__(self) -> Pack:
        for pipe in self._pipes:
            pipe.recv()  # it is ready
        return self

    def __exit__(self, *exception: object) -> None:
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            pipe.close()
            process.join(10)
            process.kill()

    def one_after_another(self) -> float:
        """Return the seconds in which every process trains a block, each for itself."""
        started = time.perf_counter()
        for pipe in self._pipes:
            pipe.send(None)
            pipe.recv()
        return time.perf_counter() - started

    def all_at_once(self) -> float:
        """Return the seconds in which all processes train a block."""
        started = time.perf_counter()
        for pipe in self._pipes:
            pipe.send(None)
        for pipe in self._pipes:
            pipe.recv()
        return time.perf_counter() - started


def _member(pipe: Any, fields: dict[str, Any], size: int, device: str, steps: int, share: float) -> None:
    """Train a block of a trial whenever `pipe` says so, and answer when it is done."""
    from trainables import memory

    memory.prepare()
    import torch

    torch.set_num_threads(1)
    memory.fence(torch.device(device), share)
    config = TrialConfig.from_dict(fields)
    data = pictures(max(2 * config.batch_size, 2000), size)
    epochs = our_epochs(data, config, device, steps)
    next(epochs)
    pipe.send(None)
    while True:
        try:
            pipe.recv()
        except EOFError:
            return
        next(epochs)
        pipe.send(None)
