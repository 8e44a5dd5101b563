"""Every change that a command makes to the state of its whole process; each lasts as long as its context.

All changes to the environment, to log levels, and to parts of Ray, Tune and Optuna are made here, those to the handlers
of signals in `signals`; they are put back at the end. What importing Ray changes of itself stays: `sys.excepthook`,
`sys.path`, warning filters.
"""

from __future__ import annotations

import inspect
import logging
import os
import random
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from orchestrator.cluster import signals

RAY_VARIABLES = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a trial without a GPU sees none
    "RAY_AIR_NEW_OUTPUT": "0",  # Tune's own tables stay out
    "RAY_DEDUP_LOGS": "1",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",  # and so does what Ray prints of its processes
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # workers run in this environment, however the command was started
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_idle_worker_killing_time_threshold_ms": "60000",  # of those that are started before they are needed
    "RAY_preload_python_modules": "ray.tune,torch,trainables.trainable,trainables.loop",  # as soon as workers start
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # its CSV and JSON files cost more than a small trial
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Tune's waits for the running epoch
    "TUNE_MAX_PENDING_TRIALS_PG": "1000000",  # the searcher admits trials, by the slots there are now
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
"""Settings that Ray and Tune read when they are imported or started."""


PORTS = range(20_000, 32_000)
"""Ports that neither a system gives out by itself nor Ray's workers take."""


@contextmanager
def environment_for_ray(variables: Mapping[str, str]) -> Iterator[None]:
    """Set RAY_VARIABLES and `variables`, which Ray reads and its processes inherit.

    Put back as well what Ray sets when it is imported and started.
    """
    changes = {**RAY_VARIABLES, **variables}
    with _variables_put_back(*changes, "RAY_CLIENT_MODE", "PYTHONBREAKPOINT"):
        os.environ |= changes
        yield


@contextmanager
def command_line_unpublished() -> Iterator[None]:
    """Keep this process's arguments from the cluster, where Ray lists them for all who look at its jobs."""
    from ray._private import utils

    before = getattr(utils, "get_entrypoint_name", None)
    if before is None:  # another version of Ray
        yield
        return
    utils.get_entrypoint_name = lambda: "sweep-orchestrator"
    try:
        yield
    finally:
        utils.get_entrypoint_name = before


@contextmanager
def ray_lean() -> Iterator[None]:
    """Have a Ray that starts leave out its dashboard, autoscaler and log monitor: a sweep on one machine needs none.

    Its agent gets a port beforehand, too: Ray looks once a second whether it has found one itself. So starting takes
    2 s instead of 5, and ending 0.2 s instead of 1.4. If the port should be taken by then, the agent does without.
    """
    from ray._private import parameter, services

    params: Any = getattr(parameter, "RayParams", lambda: None)
    start, known = getattr(services, "start_api_server", None), inspect.signature(params).parameters
    changes = {"include_log_monitor": False, "no_monitor": True, "dashboard_agent_listen_port": _free_port()}
    if start is None or not changes.keys() <= known.keys():  # another version of Ray
        yield
        return
    parameter.RayParams = lambda *arguments, **options: params(*arguments, **options | changes)
    services.start_api_server = lambda *arguments, **options: ("", None)
    try:
        yield
    finally:
        parameter.RayParams, services.start_api_server = params, start


def _free_port() -> int:
    """Return a port that is free now, below those that systems give out, so that it probably stays free."""
    for port in random.SystemRandom().sample(PORTS, 20):
        with suppress(OSError), socket.socket() as tried:
            tried.bind(("", port))
            return port
    return 0


@contextmanager
def changes_by_ray_undone() -> Iterator[None]:
    """Put back what `ray.init` changes besides: the level of Ray's logger and the handler of SIGTERM.

    As long as Ray runs the handler is wanted: it ends Ray's processes with this one. `ray.init` sets it in the main
    thread alone, and warns elsewhere; so it is set here.
    """
    with _level_put_back("ray") as logger, signals.handlers_put_back(signal.SIGTERM):
        _set_level(logger, logging.ERROR)
        signals.terminable()
        yield


@contextmanager
def tune_adapted(to_come: Callable[[], int]) -> Iterator[Callable[[], None]]:
    """Adapt Tune to a sweep, and put back the handler of SIGUSR1, which Tune sets.

    Yield what ends Tune's actors, so that their slots are free: Tune itself would wait for them, up to 15 s. Its log is
    left out: everything in it is in the journal, or is of no use to a user.

    Args:
        to_come: returns how many trials are still to begin.
    """
    with (
        _level_put_back("ray.tune") as logger,
        optuna_quiet(),  # for all proposals at once: a change of level costs as much as a proposal
        signals.handlers_put_back(signal.SIGUSR1),
        _controllers_adapted(to_come) as groups,
        _trainables_remembered(),
        _environment_inherited(),
    ):
        _set_level(logger, logging.CRITICAL)

        def free_slots() -> None:
            for manager in groups:
                manager.clear()

        yield free_slots


@contextmanager
def optuna_quiet() -> Iterator[None]:
    """Keep out what Optuna logs of each study and trial, but for errors."""
    import optuna.logging  # its import sets the level, so it comes first

    with _level_put_back("optuna") as logger:
        _set_level(logger, optuna.logging.ERROR)
        yield


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Have torch compute in one thread: the cores belong to the workers, and threads that wait for one take a hundred
    times as long.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _controllers_adapted(to_come: Callable[[], int]) -> Iterator[list[Any]]:
    """Have Tune make controllers as `cluster.controller` has them; yield the list of their placement groups' managers.

    A manager's `clear` removes its groups, with the actors in them.
    """
    from ray.tune import tune
    from ray.tune.experiment import config_parser

    groups: list[Any] = []
    try:
        from orchestrator.cluster.controller import Controller, SweepTrial, is_known
    except ImportError:
        is_known = bool  # False
    if not is_known():  # another version of Ray
        yield groups
        return
    before = tune.TuneController, config_parser.Trial
    tune.TuneController = type("Controller", (Controller,), {"groups": groups, "to_come": staticmethod(to_come)})
    config_parser.Trial = SweepTrial
    try:
        yield groups
    finally:
        tune.TuneController, config_parser.Trial = before


@contextmanager
def _environment_inherited() -> Iterator[None]:
    """Have Tune give its workers no variables besides those that they inherit.

    Ray writes such variables, AWS keys among them, into its logs, and starts a new process for whatever has any, though
    there are processes that it started beforehand. Other machines have keys of their own, as the probe of the storage
    makes sure.
    """
    from ray.tune.execution import class_cache

    names = ("ENV_VARS_TO_PROPAGATE", "DEFAULT_ENV_VARS")
    before = {name: getattr(class_cache, name) for name in names if hasattr(class_cache, name)}
    for name, value in before.items():
        setattr(class_cache, name, type(value)())
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(class_cache, name, value)


@contextmanager
def _trainables_remembered() -> Iterator[None]:
    """Have Tune's registry remember trainables.

    Tune asks the cluster's key-value store for them five times a trial, and unpickles them twice.
    """
    from ray.tune import registry

    store = getattr(registry, "_global_registry", None)
    names = [name for name in ("get", "contains") if hasattr(store, name)]  # else another version of Ray
    for name in names:
        setattr(store, name, _remembered(getattr(store, name)))
    try:
        yield
    finally:
        for name in names:
            delattr(store, name)


def _remembered(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` with a memory of its results, unless they are false."""
    known: dict[tuple[Any, ...], Any] = {}

    def remembered(*arguments: Any) -> Any:
        if not known.get(arguments):
            known[arguments] = function(*arguments)
        return known[arguments]

    return remembered


@contextmanager
def _variables_put_back(*names: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _level_put_back(name: str) -> Iterator[logging.Logger]:
    logger = logging.getLogger(name)
    before = logger.level
    try:
        yield logger
    finally:
        _set_level(logger, before)


def _set_level(logger: logging.Logger, level: int) -> None:
    if logger.level != level:  # a change has all loggers forget what they know of levels
        logger.setLevel(level)
