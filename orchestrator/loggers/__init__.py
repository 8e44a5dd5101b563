"""Logging a sweep to experiment trackers: TensorBoard, MLflow, Weights & Biases, an Optuna storage.

Each tracker gets a process of its own, which reads the journal as anybody may: the sweep never waits for a server, and
no client can harm it. What such a process has still to send when the sweep is over, it may send for `DRAIN_S`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from orchestrator.loggers.trackers import TRACKERS
from orchestrator.record.paths import SweepFolder

DRAIN_S = 60.0  # MLflow's import and the making of its database alone can take 20 s on a busy machine


@contextmanager
def following(texts: Sequence[str], folder: Path, show: Callable[[str], None]) -> Iterator[None]:
    """Have trackers follow the sweep in `folder` while the context lasts, and then catch up.

    Args:
        texts: `NAME` or `NAME=URL` each.
        show: gets a message for the user, once for each tracker that cannot be updated. Other threads call it.
    """
    started = [(text, *_start(text, folder, show)) for text in texts]
    try:
        yield
    finally:
        for _, child, _ in started:
            assert child.stdin is not None  # noqa: S101 - it is a pipe
            child.stdin.close()
        deadline = time.monotonic() + DRAIN_S
        for text, child, listener in started:
            _wait(child, text, deadline, show)
            listener.join(timeout=1)
            if child.returncode:
                show(f"note: {text} did not get everything; --resume {folder.name} with the same --log sends the rest")


def _wait(child: subprocess.Popen[str], text: str, deadline: float, show: Callable[[str], None]) -> None:
    """Wait for `child`, with a message if that takes long; end it at the deadline (monotonic seconds)."""
    try:
        child.wait(min(3.0, max(deadline - time.monotonic(), 0.0)))
    except subprocess.TimeoutExpired:
        show(f"waiting for {text} to catch up, for at most {max(deadline - time.monotonic(), 0):.0f} s")
        try:
            child.wait(max(deadline - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _start(text: str, folder: Path, show: Callable[[str], None]) -> tuple[subprocess.Popen[str], threading.Thread]:
    """Return the process that updates one tracker, and the thread that shows its messages.

    The process ends once its standard input does, so it does not outlive its driver for long; it gets no Ctrl-C.
    """
    logs = SweepFolder(folder).logs
    logs.mkdir(exist_ok=True)
    tracker = text.partition("=")[0]
    path = os.pathsep.join(filter(None, sys.path))
    with (logs / f"{tracker}.log").open("ab") as output_of_client:
        child = subprocess.Popen(  # noqa: S603 - this very Python
            [sys.executable, "-m", "orchestrator.loggers", text, str(folder.absolute())],
            env={**TRACKERS[tracker].environment, **os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output_of_client,
            text=True,
            start_new_session=True,
        )

    def listen() -> None:
        assert child.stdout is not None  # noqa: S101 - it is a pipe
        with child.stdout:
            for line in child.stdout:
                show(f"note: {line.rstrip()}")

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    return child, listener
