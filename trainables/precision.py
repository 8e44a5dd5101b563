"""The numeric format that `precision=auto` and `memory_format=auto` stand for: measured on a CPU, known on a GPU."""

from __future__ import annotations

import time
from itertools import product

import torch

from trainables import features
from trainables.config import TrialConfig
from trainables.learner import Learner
from trainables.loop import TrialData, optimizer_step
from trainables.models import heads

BATCH = 128  # rows, at most; with smaller batches than the trial's, another format may be fastest
REPEATS = 2
SLOWER = 1.2  # a format that is so many times slower than the best in its first step is not measured further


def resolve(config: TrialConfig, data: TrialData) -> TrialConfig:
    """Return `config` with its autos replaced by the fastest format on a CPU, by what suits the hardware on a GPU.

    On CPUs neither bfloat16 nor channels-last is faster for all models and image sizes, so their steps are timed. A
    frozen base whose features are computed once does so in float32, channels last.
    The random state stays as it was.
    """
    device = data.batches.labels.device
    if features.suffice(config) and device.type == "cpu":  # what learns is a head: no steps on images to be timed
        exact = {"precision": "float32"} if config.precision == "auto" else {}
        return config.replace(**exact, **({"memory_format": "channels_last"} if config.memory_format == "auto" else {}))
    precisions = [config.precision] if config.precision != "auto" else _precisions(device)
    layouts = [config.memory_format] if config.memory_format != "auto" else _layouts(device)
    formats = [config.replace(precision=p, memory_format=m) for p, m in product(precisions, layouts)]
    if len(formats) == 1:
        return formats[0]
    seconds: list[float] = []
    with torch.random.fork_rng():
        for numeric_format in formats:
            seconds.append(_step_seconds(numeric_format, data, device, best=min(seconds, default=float("inf"))))
    return formats[seconds.index(min(seconds))]


def _step_seconds(config: TrialConfig, data: TrialData, device: torch.device, best: float) -> float:
    """Return the seconds of the fastest of a few optimizer steps."""
    config = config.replace(batch_size=min(config.batch_size, BATCH))
    learner = Learner.start(config, data.classes, data.image_size, data.epoch_rows, device)
    learner.schedule.set_rate(0)
    heads.set_training(config, learner.model)
    order = torch.Generator().manual_seed(0)
    images, labels = next(data.batches.train(data.train_rows, data.epoch_rows, config, order))
    optimizer_step(learner, images, labels)  # warms up: allocations, choice of kernels
    fastest = float("inf")
    for _ in range(REPEATS):
        started = time.perf_counter()
        optimizer_step(learner, images, labels)
        fastest = min(fastest, time.perf_counter() - started)
        if fastest > SLOWER * best:
            break
    return fastest


def _precisions(device: torch.device) -> list[str]:
    if device.type == "cuda":
        return ["bfloat16" if torch.cuda.get_device_capability(device) >= (8, 0) else "float16"]
    return ["float32", "bfloat16"] if device.type == "cpu" else ["float32"]


def _layouts(device: torch.device) -> list[str]:
    return ["contiguous", "channels_last"] if device.type == "cpu" else ["channels_last"]
