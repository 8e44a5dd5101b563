"""A forecast of the time that a sweep takes: how many epochs its stop rule leaves, and what an epoch costs here."""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.plan.plan import Plan
from orchestrator.record.state import SweepState, TrialRecord
from orchestrator.search.schedulers import stop_rule
from orchestrator.search.trial_queue import NextTrial
from trainables.config import TrialConfig

if TYPE_CHECKING:
    import torch

    from trainables.batches import Batches
    from trainables.splits import SearchData

SIMULATED = 100  # trials of an arm, at most: enough for the mean of their epochs
LEARNING = 2.0  # how far the last trial's score is above the first's, in ranges of chance, where a sampler learns
STEPS_S, MEASURED_S = 0.5, 2.0  # seconds of steps of one configuration, and of all measuring, at most
START_S, TRIAL_S = 12.0, 1.0  # seconds until Ray's workers have started, and beside the epochs of a trial, measured


@dataclass(frozen=True)
class Forecast:
    """Seconds that a sweep will take: if the sampler learns nothing, and if trials become better one by one."""

    low_s: float
    high_s: float
    epoch_s: float  # seconds of an epoch, the mean of the measured configurations
    measured: int  # configurations

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return dict(vars(self))


def forecast(planned: Plan, data: SearchData, slots: int, samples: Iterable[dict[str, Any]]) -> Forecast | None:
    """Return how long the sweep will take on this machine; None where it cannot be measured.

    Some steps are run, of at most the first few proposals, for a few seconds. No weights are loaded: they cost nothing.
    """
    try:
        costs = list(_costs(planned, data, list(samples) or [{}]))
    except Exception:  # whatever a model raises is said where it is trained; here there is no forecast
        return None
    if not costs:
        return None
    epoch_s, once_s = (statistics.fmean(values) for values in zip(*costs, strict=True))
    runs = planned.queue().total()
    low, high = (
        START_S + once_s + (epochs * epoch_s + runs * TRIAL_S) / max(min(slots, runs), 1)
        for epochs in expected_epochs(planned)
    )
    return Forecast(low, high, epoch_s, len(costs))


def expected_epochs(planned: Plan) -> tuple[float, float]:
    """Return the epochs of all runs together: with scores drawn at random, and with scores that rise trial by trial.

    The stop rule itself decides over simulated trials whose scores keep their order from epoch to epoch.
    """
    queue = planned.queue()
    low = high = 0.0
    for name, space in planned.arms.items():
        longest = space.base.max_epochs
        searched = queue.searched() // len(planned.arms)
        finals = (queue.total() - queue.searched()) / len(planned.arms) * longest
        low += searched * _usual(planned, name, 0.0) + finals
        high += searched * _usual(planned, name, LEARNING) + finals
    return low, high


def _usual(planned: Plan, arm: str, learning: float) -> float:
    """Return the mean number of epochs of a searched trial of an arm."""
    longest = planned.arms[arm].base.max_epochs
    rule = stop_rule(planned.scheduler, longest, planned.grace, planned.factor)
    trials, generator = min(planned.trials, SIMULATED), random.Random(0)
    config = planned.arms[arm].base.replace(metric="val_accuracy").to_dict()
    state, epochs = SweepState(), 0
    for number in range(trials):
        score = generator.random() + learning * number / trials
        trial = state.trials[number] = TrialRecord(number, {}, config, 0.0, arm, number)
        for epoch in range(1, longest + 1):
            stopped = rule.stops(state, trial, epoch, score)
            state.arm(arm).scores.setdefault(epoch, {})[number] = score
            epochs += 1
            if stopped:
                break
    return epochs / max(trials, 1)


def _costs(planned: Plan, data: SearchData, samples: list[dict[str, Any]]) -> Iterator[tuple[float, float]]:
    """Yield the seconds of an epoch, and those that are spent once, of the first proposals, until time is up."""
    import torch

    from trainables.batches import Batches

    if planned.slot_gpus and not torch.cuda.is_available():
        return
    device = torch.device("cuda" if planned.slot_gpus else "cpu")
    threads, started = torch.get_num_threads(), time.monotonic()
    torch.set_num_threads(planned.slot_cpus)
    try:
        batches = Batches(data.images, data.labels, data.mean, data.std, device)
        for number, params in enumerate(samples):
            config = planned.config(number, NextTrial(next(iter(planned.arms)), number), params)
            yield _cost(_as_timed(config, device), data, batches, device)
            if time.monotonic() - started > MEASURED_S:
                return
    finally:
        torch.set_num_threads(threads)


def _as_timed(config: TrialConfig, device: torch.device) -> TrialConfig:
    """Return a configuration without an auto, and with random weights."""
    precision = "float32" if device.type == "cpu" else "bfloat16"
    return config.replace(
        weights="none",
        precision=precision if config.precision == "auto" else config.precision,
        memory_format="contiguous" if config.memory_format == "auto" else config.memory_format,
    )


def _cost(config: TrialConfig, data: SearchData, batches: Batches, device: torch.device) -> tuple[float, float]:
    """Return the seconds of an epoch and its evaluation, and those of features, which are computed once."""
    import torch

    from trainables import features
    from trainables.batches import steps_an_epoch
    from trainables.evaluation import predict
    from trainables.loop import TrialData, TrialState, optimizer_step
    from trainables.models import heads

    trial = TrialData.select(config, data, batches)
    state = TrialState.start(config, trial, device)
    rows = trial.scored_rows[: config.batch_size]
    evaluating = _timed(lambda: predict(config, trial.batches, rows, state.model)[0].sum().item()) / len(rows)
    if features.suffice(config):
        return 0.0, evaluating * len(batches.labels)
    heads.set_training(config, state.model)
    drawn = trial.batches.train(trial.train_rows, trial.epoch_rows, config, torch.Generator().manual_seed(0))

    def step() -> None:
        state.kept.schedule.set_rate(0)
        optimizer_step(state.kept, *next(drawn), trial.folds[0].class_weights)[0].item()

    steps = steps_an_epoch(trial.epoch_rows, config.batch_size)
    models = len(trial.folds)  # each of them trains in every epoch
    return _timed(step, steps - 1) * steps * models + evaluating * len(trial.scored_rows), 0.0


def _timed(call: Any, most: float = math.inf) -> float:
    """Return the median seconds of at most `most` calls after a first one, which prepares; without others, of that."""
    seconds: list[float] = []
    while not seconds or (len(seconds) <= most and sum(seconds) < STEPS_S):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:] or seconds)
