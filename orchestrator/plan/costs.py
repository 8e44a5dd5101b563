"""The cost of trials, measured on this machine in a few seconds: what an epoch takes, and features of a frozen base."""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.plan.plan import Plan
from orchestrator.search.trial_queue import NextTrial
from search_spaces.stage import Stage
from trainables import autos
from trainables.config import TrialConfig

if TYPE_CHECKING:
    import torch

    from trainables.batches import Batches
    from trainables.loop import TrialData, TrialState
    from trainables.splits import SearchData

MEASURED_S = 2.0  # seconds of all measuring, after which nothing more is begun
STEPS_S = 0.3  # seconds of measuring one kind of steps
SAMPLES = 5  # configurations of a stage, at least: not all fields that cost have choices
FEW = 8  # rows of the first step that is measured
STEP_S = 1.0  # seconds of a step that need not be larger
LINEAR = 1.5  # times as long as half the rows, at least: then time goes with rows
ENOUGH_S = 10.0  # seconds of measuring one kind of steps, after which no larger one is begun
LONG_S = 3.0  # of a first step that is not repeated
VIEW = ("model", "weights", "stem", "image_size", "fit", "interpolation", "normalization", "evaluation_views")
"""The fields that features depend on."""


@dataclass(frozen=True)
class Cost:
    """Seconds of a trial with one configuration."""

    epoch_s: float  # of training and evaluation
    features_s: float = 0.0  # of features, which all trials with the same `view` share
    view: tuple[Any, ...] = ()


def measured(planned: Plan, data: SearchData) -> list[list[Cost]]:
    """Return costs of some trials of every stage of the first arm, one at least; of the one stage if there are none.

    Configurations are drawn at random, with every net in turn. No weights are loaded: random ones cost the same.

    Raises:
        Exception: whatever a model raises.
    """
    import torch

    from trainables.batches import Batches

    device = torch.device("cuda" if planned.slot_gpus else "cpu")
    threads, started = torch.get_num_threads(), time.monotonic()
    torch.set_num_threads(planned.slot_cpus)
    try:
        batches = Batches.of(data, device)
        drawn = [_drawn(planned, stage) for stage in stages(planned)]
        found: list[list[Cost]] = [[] for _ in drawn]
        for turn in range(max(map(len, drawn))):
            for configs, costs in zip(drawn, found, strict=True):
                if costs and (turn >= len(configs) or time.monotonic() - started > MEASURED_S):
                    continue
                costs.append(_cost(configs[turn], data, batches, device))
        return found
    finally:
        torch.set_num_threads(threads)


def stages(planned: Plan) -> tuple[Stage, ...]:
    """Return the stages of the first arm's search, or one that decides nothing."""
    return planned.stages or (Stage(1),)


def views(planned: Plan) -> int:
    """Return how many different features trials of the first arm need, at most."""
    from trainables import features

    space = planned.space
    configs = [space.config(params) for params in space.branches((*VIEW, "freeze"))]
    return len({_view(config) for config in configs if features.suffice(config)})


def _drawn(planned: Plan, stage: Stage) -> list[TrialConfig]:
    """Return configurations of a stage's trials, in which every choice of a net or a view has its turn."""
    from orchestrator.search.study import JournalStudy

    space = planned.space
    nets = {name: len(space.values(name)) for name in VIEW if name in space.distributions and name not in stage.fixed}
    nets = {name: count for name, count in nets.items() if hasattr(space.distributions[name], "choices")}
    alone = dataclasses.replace(space, stages=(Stage(1, stage.fixed, each=tuple(nets)),))
    count = max([SAMPLES, *nets.values()])
    study = JournalStudy(alone, "random", planned.seed, trials=count)
    arm = next(iter(planned.arms))
    found = [proposal for number in range(count) if (proposal := study.propose(number)) is not None]
    return [planned.config(number, NextTrial(arm, number), drawn.params) for number, drawn in enumerate(found)]


def _view(config: TrialConfig) -> tuple[Any, ...]:
    return tuple(getattr(config, name) for name in VIEW)


def _cost(config: TrialConfig, data: SearchData, batches: Batches, device: torch.device) -> Cost:
    """Measure some steps of a configuration, with random weights."""
    from trainables import features
    from trainables.evaluation import predict
    from trainables.loop import TrialData, TrialState

    trial = TrialData.select(config, data, batches)
    timed = _as_timed(config, trial.image_size, device)
    state = TrialState.start(timed, trial, device)
    if features.suffice(config):
        seconds = features.seconds_a_picture(timed, state.model, trial.batches, predict)
        return Cost(_head_epoch_s(timed, trial, state), seconds * len(batches.labels), _view(config))
    step_s, steps = _step_s(timed, trial, state), _steps(timed, trial)
    evaluation_s = _evaluation_s(timed, trial, state) * len(trial.scored_rows)
    return Cost(step_s * steps * len(trial.folds) + evaluation_s)


def _as_timed(config: TrialConfig, size: int, device: torch.device) -> TrialConfig:
    """Return a configuration for images of `size` pixels without an auto, and with random weights."""
    precision = "float32" if device.type == "cpu" else "bfloat16"
    return autos.resolved(config, size).replace(
        weights="none",
        precision=precision if config.precision == "auto" else config.precision,
        memory_format="contiguous" if config.memory_format == "auto" else config.memory_format,
    )


def _evaluation_s(config: TrialConfig, trial: TrialData, state: TrialState) -> float:
    """Return the seconds of one row's prediction."""
    from trainables.evaluation import predict

    def scored(rows: int) -> Callable[[], float]:
        few = trial.scored_rows[:rows]
        return lambda: predict(config, trial.batches, few, state.kept.predictor)[0].sum().item()

    rows = min(16 * FEW, len(trial.scored_rows))
    return _of_rows(scored, rows) / rows


def _head_epoch_s(config: TrialConfig, trial: TrialData, state: TrialState) -> float:
    """Return the seconds of an epoch of heads on features, here on random ones of the right width."""
    import torch

    from trainables import features, loop
    from trainables.evaluation import predict

    width = predict(config, trial.batches, torch.arange(1), features.base_of(config, state.model))[0].numel()
    drawn = torch.randn(len(trial.batches.labels), width, device=trial.batches.labels.device)
    epochs = loop.train(dataclasses.replace(trial, batches=features.Features(drawn, trial.batches)), state)
    return _timed(lambda: next(epochs), state.config.max_epochs)


def _step_s(config: TrialConfig, trial: TrialData, state: TrialState) -> float:
    """Return the seconds of an optimizer step on a batch, from a smaller one's if that takes long."""
    import torch

    from trainables import unfreezing
    from trainables.loop import optimizer_step

    unfreezing.set_training(config, state.model, config.max_epochs, state.kept.learning)  # the last epochs cost most
    state.kept.schedule.set_rate(0)
    fold = trial.folds[0]

    def step_of(rows: int) -> Callable[[], float]:
        sized = config.replace(batch_size=rows)
        epochs = (
            trial.batches.train(trial.train_rows, trial.epoch_rows, sized, torch.Generator().manual_seed(0))
            for _ in itertools.count()
        )
        drawn = itertools.chain.from_iterable(epochs)
        return lambda: optimizer_step(state.kept, *next(drawn), fold.class_weights, fold.log_prior)[0].item()

    return _of_rows(step_of, config.batch_size)


def _of_rows(call_of: Callable[[int], Callable[[], Any]], rows: int) -> float:
    """Return the seconds of a call for `rows` rows: from fewer, if those take long and twice as many take longer.

    What a few rows take may have little to do with rows: on a busy machine, threads wait for each other.

    Args:
        call_of: returns the call for a number of rows.
    """
    started, measured, before = time.perf_counter(), min(FEW, rows), math.inf
    seconds = _timed(call_of(measured))
    while measured < rows and seconds < max(STEP_S, LINEAR * before) and time.perf_counter() - started < ENOUGH_S:
        before, measured = seconds, min(rows, measured * max(2, int(STEP_S / seconds)))
        seconds = _timed(call_of(measured))
    return seconds * rows / measured


def _steps(config: TrialConfig, trial: TrialData) -> int:
    """Return the number of steps of an epoch of one fold's model."""
    from trainables.batches import steps_an_epoch

    return steps_an_epoch(trial.epoch_rows, config.batch_size)


def _timed(call: Callable[[], Any], most: int = 100) -> float:
    """Return the median seconds of at most `most` calls after a first one, which prepares; without others, of that."""
    seconds: list[float] = []
    while len(seconds) < most and (sum(seconds[1:]) < STEPS_S if sum(seconds) < LONG_S else not seconds):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:] or seconds)
