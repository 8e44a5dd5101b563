"""Trackers of experiments that are told of a sweep: TensorBoard, MLflow, Weights & Biases, an Optuna storage.

Each is told by a process of its own, which reads the journal as anybody may: the sweep never waits for a server, and no
client can harm it. What such a process still has to say when the sweep is over, it may say for `DRAIN_S`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from trainables.errors import did_you_mean

NEEDS = {"tensorboard": "tensorboardX", "mlflow": "mlflow", "wandb": "wandb", "optuna": "optuna"}
"""The trackers, and the module that each is told through."""
LOGIN_S = 20.0
DRAIN_S = 60.0  # MLflow's import and the making of its database alone can take 20 s on a busy machine


def check(asked: Sequence[str], name: str | None) -> list[str]:
    """A sentence for each reason why a sweep (`name`, if it is new and has one) cannot be logged as `asked`."""
    problems, seen = [], set()
    for text in asked:
        tracker, _, url = text.partition("=")
        allowed = f"(allowed: {', '.join(t for t in NEEDS if t != 'optuna')}, optuna=URL)"
        if tracker not in NEEDS:
            problems.append(f"--log {text}: unknown{did_you_mean(tracker, NEEDS)} {allowed}")
        elif tracker in seen:
            problems.append(f"--log {text}: name {tracker} once")
        elif tracker == "optuna":
            problems += _check_storage(url, name)
        elif url:
            problems.append(f"--log {text}: nothing follows {tracker} {allowed}")
        elif find_spec(NEEDS[tracker]) is None:
            problems.append(f"--log {text}: it is not installed; pip install 'sweep-orchestrator[{tracker}]'")
        elif tracker == "wandb":
            problems += _check_key()
        seen.add(tracker)
    return problems


def _check_storage(url: str, name: str | None) -> list[str]:
    """Whether the Optuna storage can be opened, and has no study of a new sweep's name."""
    if not url:
        return ["--log optuna: it needs the URL of a storage, for example optuna=sqlite:///trials.db"]
    from optuna import get_all_study_names, logging
    from optuna.storages import get_storage
    from sqlalchemy import make_url
    from sqlalchemy.exc import SQLAlchemyError

    logging.set_verbosity(logging.ERROR)
    try:
        if "://" not in url:
            return [f"--log optuna={url}: that is no URL; for example optuna=sqlite:///trials.db"]
        if make_url(url).password is not None:  # the command stands in the sweep's record
            return ["--log optuna=…: a password belongs in the environment or the driver's own file, not in the URL"]
        studies = get_all_study_names(get_storage(url))
    except (SQLAlchemyError, ImportError, ValueError, OSError, RuntimeError) as error:
        return [f"--log optuna={url}: it cannot be opened: {str(error).strip().splitlines()[0]}"]
    if name is not None and any(study == name or study.startswith(f"{name}/") for study in studies):
        return [f"--log optuna={url}: there is a study {name} already; choose another --name, or another storage"]
    return []


def _check_key() -> list[str]:
    """Whether W&B may be told: it has a key, or was said to stay offline."""
    if os.environ.get("WANDB_MODE", "online") != "online":
        return []
    ask = "import sys, wandb; sys.exit(not wandb.login(prompt=False, verify=False))"
    try:
        done = subprocess.run([sys.executable, "-c", ask], capture_output=True, timeout=LOGIN_S, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        return []  # there is a key, and a server that does not answer: it may, later
    if done.returncode == 0:
        return []
    return ["--log wandb: there is no key; `wandb login`, or set WANDB_MODE=offline and `wandb sync` later"]


@contextmanager
def following(asked: Sequence[str], folder: Path, tell: Callable[[str], None]) -> Iterator[None]:
    """Have the trackers that were `asked` for follow the sweep in `folder` while the context lasts, and then catch up.

    `tell` gets a sentence for people, once for each that cannot be told; it is called from other threads.
    """
    started = [(text, *_start(text, folder, tell)) for text in asked]
    try:
        yield
    finally:
        for _, child, _ in started:
            assert child.stdin is not None  # noqa: S101 - it is a pipe
            child.stdin.close()
        deadline = time.monotonic() + DRAIN_S
        for text, child, listener in started:
            _wait(child, text, deadline, tell)
            listener.join(timeout=1)
            if child.returncode:
                tell(f"note: {text} was not told everything; the same --log with --resume {folder.name} tells the rest")


def _wait(child: subprocess.Popen[str], text: str, deadline: float, tell: Callable[[str], None]) -> None:
    """Wait for `child`, saying so if that takes long; end it at the deadline (monotonic seconds)."""
    try:
        child.wait(min(3.0, max(deadline - time.monotonic(), 0.0)))
    except subprocess.TimeoutExpired:
        tell(f"{text} catches up; at most {max(deadline - time.monotonic(), 0):.0f} s")
        try:
            child.wait(max(deadline - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _start(text: str, folder: Path, tell: Callable[[str], None]) -> tuple[subprocess.Popen[str], threading.Thread]:
    """The process that tells one tracker, and the thread that passes on what it says.

    It ends once its standard input does, so it outlives no driver for long; Ctrl-C is not sent to it.
    """
    logs = folder / "logs"
    logs.mkdir(exist_ok=True)
    tracker = text.partition("=")[0]
    with (logs / f"{tracker}.log").open("ab") as chatter:
        child = subprocess.Popen(  # noqa: S603 - this very Python
            [sys.executable, "-m", "orchestrator.loggers", text, str(folder.absolute())],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=chatter,
            text=True,
            start_new_session=True,
        )

    def listen() -> None:
        assert child.stdout is not None  # noqa: S101 - it is a pipe
        with child.stdout:
            for line in child.stdout:
                tell(f"note: {line.rstrip()}")

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    return child, listener
