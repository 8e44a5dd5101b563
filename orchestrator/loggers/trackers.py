"""The experiment trackers that a sweep can be logged to. To add one, add its entry to `TRACKERS`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from orchestrator.cluster.process_state import optuna_quiet
from orchestrator.record.state import SweepState, TrialRecord
from trainables.errors import look_up, suggestion
from trainables.secrets import SECRET_NAME

LOGIN_S = 20.0


class Tracker(Protocol):
    """Has one run for each trial, whatever number of attempts and commands the trial takes."""

    def update(self, trial: TrialRecord) -> None:
        """Bring the trial's run up to date with the journal. What it has already is not logged again.

        May raise anything: it is called again for the same trial, later.
        """

    def close(self) -> None:
        """Close the runs that are still open; no update follows."""


def _check_storage(url: str, sweep: str | None) -> list[str]:
    """Return why the Optuna storage cannot be opened, or has a study of the new sweep's name."""
    if not url:
        return ["--log optuna: the URL of a storage is needed, for example optuna=sqlite:///trials.db"]
    if "://" not in url:
        return [f"--log optuna={url}: this is not a URL; for example optuna=sqlite:///trials.db"]
    from optuna import get_all_study_names
    from optuna.storages import get_storage
    from sqlalchemy import make_url
    from sqlalchemy.exc import SQLAlchemyError

    try:
        parsed = make_url(url)
        if parsed.password is not None or any(map(SECRET_NAME.search, parsed.query)):  # other users see the command
            return ["--log optuna=…: a password belongs in the environment or the driver's own file, not in the URL"]
        with optuna_quiet():
            studies = get_all_study_names(get_storage(url))
    except (SQLAlchemyError, ImportError, ValueError, OSError, RuntimeError) as error:
        return [f"--log optuna={url}: it cannot be opened: {str(error).strip().splitlines()[0]}"]
    if sweep is not None and any(study == sweep or study.startswith(f"{sweep}/") for study in studies):
        return [f"--log optuna={url}: it has a study {sweep} already; choose another --name, or another storage"]
    return []


def _check_key(url: str, sweep: str | None) -> list[str]:
    """Return why Weights & Biases cannot be used: there is no API key, and it was not set to stay offline."""
    if os.environ.get("WANDB_MODE", "online") != "online":
        return []
    ask = "import sys, wandb; sys.exit(not wandb.login(prompt=False, verify=False))"
    try:
        done = subprocess.run([sys.executable, "-c", ask], capture_output=True, timeout=LOGIN_S, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        return []  # there is a key, and a server that does not answer now, but may later
    if done.returncode == 0:
        return []
    return ["--log wandb: no API key was found; run `wandb login`, or set WANDB_MODE=offline and `wandb sync` later"]


@dataclass(frozen=True)
class TrackerEntry:
    """A tracker: what it does, what it needs, and the class that writes to it."""

    help: str
    client: str  # the module that must be installed
    implementation: str  # MODULE:CLASS in this folder, made from the sweep's folder, its state and the URL
    check: Callable[[str, str | None], list[str]] = (
        lambda url, sweep: []
    )  # messages, from the URL and a new sweep's name
    url: bool = False  # whether a URL follows the name
    environment: Mapping[str, str] = field(default_factory=dict)  # of its process, unless the user has set it

    def usage(self, name: str) -> str:
        """Return what a user writes after `--log`."""
        return f"{name}=URL" if self.url else name


TRACKERS = {
    "tensorboard": TrackerEntry("event files in the sweep's folder", "tensorboardX", "tensorboard:TensorBoard"),
    "mlflow": TrackerEntry(
        "an experiment on the server of MLFLOW_TRACKING_URI, or in a database in the sweep's folder",
        "mlflow",
        "mlflow:MLflow",
        environment={
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # the journal waits better than a client does
            "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        },
    ),
    "wandb": TrackerEntry(
        "a group of runs in Weights & Biases",
        "wandb",
        "wandb:Wandb",
        _check_key,
        environment={"WANDB_INIT_TIMEOUT": "20", "WANDB_CONSOLE": "off", "WANDB_SILENT": "true"},
    ),
    "optuna": TrackerEntry(
        "a study in an Optuna storage, for its dashboard", "optuna", "optuna:OptunaStorage", _check_storage, url=True
    ),
}
"""The trackers that `--log` names."""
USAGE = ", ".join(entry.usage(name) for name, entry in TRACKERS.items())
"""What can follow `--log`."""


def check(texts: Sequence[str], sweep: str | None) -> list[str]:
    """Return a message for each reason why a sweep cannot be logged to the trackers that `texts` name.

    Args:
        texts: `NAME` or `NAME=URL` each.
        sweep: the name of a new sweep, if it has one.
    """
    problems, seen = [], set()
    for text in texts:
        name, _, url = text.partition("=")
        if name not in TRACKERS:
            problems.append(f"--log {text}: unknown{suggestion(name, TRACKERS, USAGE)}")
        elif name in seen:
            problems.append(f"--log {text}: name {name} once")
        elif url and not TRACKERS[name].url:
            problems.append(f"--log {text}: nothing follows {name} (allowed: {USAGE})")
        elif find_spec(TRACKERS[name].client) is None:
            problems.append(f"--log {text}: it is not installed; pip install 'sweep-orchestrator[{name}]'")
        else:
            problems += TRACKERS[name].check(url, sweep)
        seen.add(name)
    return problems


def make(text: str, folder: Path, state: SweepState) -> Tracker:
    """Return the tracker that `text` (`NAME` or `NAME=URL`) names, for the sweep in `folder`.

    Raises:
        ConfigError: there is no such tracker.
        Exception: whatever its client raises.
    """
    name, _, url = text.partition("=")
    module, _, kind = look_up(TRACKERS, name, "tracker").implementation.partition(":")
    tracker: Tracker = getattr(import_module(f"orchestrator.loggers.{module}"), kind)(folder, state, url)
    return tracker
