"""What a step of a trial needs of a GPU: the time to launch it, the time that the GPU computes, and memory.

Measured before a sweep's first proposal, with random weights: they cost the same. Importing this imports no torch.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainables import autos, memory
from trainables.config import TrialConfig
from trainables.memory import GPU_SHARE, PROCESS_BYTES, USABLE

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from trainables.loop import TrialData
    from trainables.splits import SearchData

WARM_UP, STEPS = 2, 10  # each once to be launched, once to be computed
LONGEST_S = 20.0  # of measuring one model, after which no further step is begun
LONGEST_LAUNCH_S = 0.1  # that is waited for; a step that waits for the device takes as long as it computes
CHOICES = (8, 6, 4, 3, 2, 1)  # trials that may share a GPU
FILLED, BUSY = 0.9, 1.1  # of its memory, and of its time: one trial's pauses are another one's
CYCLES = 2e9  # a second, of a fast GPU's clock


@dataclass(frozen=True, slots=True)
class Need:
    """The need of a GPU that a model's steps have at its largest batch."""

    gpu: str  # the GPU's name
    model: str
    batch_size: int
    launch_s: float  # that the CPU takes to launch a step
    device_s: float  # that the GPU computes for it
    peak: int  # bytes that the allocator held at most, without images
    data: int  # bytes of images or, of a stream, 0
    memory: int  # bytes that the GPU has
    problem: str | None = None  # the error that ended it, such as not enough memory

    @property
    def busy(self) -> float:
        """The share of a trial's time in which the GPU computes for it; 1 where nothing could be measured."""
        return self.device_s / max(self.device_s, self.launch_s) if self.device_s else 1.0

    @property
    def together(self) -> int:
        """The number of trials with this need that a GPU has memory and time for, one at least."""
        taken = PROCESS_BYTES + self.peak + self.data
        by_memory, by_time = math.floor(FILLED * self.memory / taken), math.floor(BUSY / self.busy)
        holding = math.floor(GPU_SHARE * USABLE * self.memory / self.data) if self.data else by_memory
        return most_of(min(by_memory, by_time, holding))


def most_of(limit: int) -> int:
    """Return how many trials share a GPU if at most so many may."""
    return next(count for count in CHOICES if count <= max(limit, 1))


def measure(config: TrialConfig, data: SearchData) -> Need:
    """Run some steps of `config` over `data` on the GPU of this process, or on the CPU without one; return the need.

    An error is part of the result: whatever it is, a trial would meet it.
    """
    import torch

    from trainables import precision

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    gpu, total = "cpu", 0
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        gpu, total = properties.name, properties.total_memory
    precision.prepare(device)
    memory.fence(device)
    memory.reset_peak(device)
    known = gpu, config.model, config.batch_size
    try:
        launches, computed, taken, images = _measured(config, data, device)
    except Exception as error:
        return Need(*known, 0.0, 0.0, total, 0, total, (str(error).splitlines() or [type(error).__name__])[0])
    return Need(*known, statistics.median(launches), statistics.median(computed), taken - images, images, total)


def _measured(config: TrialConfig, data: SearchData, device: torch.device) -> tuple[list[float], list[float], int, int]:
    """Return the seconds of launching and computing some steps, the peak of memory, and the bytes of images in it."""
    from trainables import unfreezing
    from trainables.batches import Batches
    from trainables.loop import TrialData, TrialState, optimizer_step
    from trainables.precision import resolve

    trial = TrialData.select(config, data, Batches.of(data, device))
    as_trained = autos.resolved(config, trial.image_size)  # what the weights decide
    config = resolve(as_trained.replace(weights="none"), trial)
    state = TrialState.start(config, trial, device)
    state.kept.schedule.set_rate(0)
    unfreezing.set_training(config, state.model, config.max_epochs, state.kept.learning)  # the last epochs cost most
    fold, drawn = trial.folds[0], _batches(config, trial)

    def step() -> None:
        optimizer_step(state.kept, *next(drawn), fold.class_weights, fold.log_prior)

    launches, computed, until = list[float](), list[float](), time.monotonic() + LONGEST_S
    for number in range(WARM_UP + STEPS):
        launch_s = _launched(step, device)
        device_s = _computed(step, device, launch_s)
        if number >= WARM_UP or time.monotonic() > until:
            launches.append(launch_s)
            computed.append(device_s)
        if time.monotonic() > until:
            break
    return launches, computed, memory.peak_reserved(device), _resident(trial)


def _resident(trial: TrialData) -> int:
    """Return the bytes of the images that lie on the device, outside the CPU's memory."""
    from trainables.views import Resident

    images = trial.batches.images
    return images.images.nbytes if isinstance(images, Resident) else 0


def _batches(config: TrialConfig, trial: TrialData) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches of the trial without end."""
    import torch

    order = torch.Generator().manual_seed(0)
    while True:
        yield from trial.batches.train(trial.train_rows, trial.epoch_rows, config, order)


def _launched(step: Callable[[], None], device: torch.device) -> float:
    """Return the seconds of launching `step`, with those in which it waits for the device itself."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def _computed(step: Callable[[], None], device: torch.device, launch_s: float) -> float:
    """Return the seconds of computing `step`.

    A GPU first waits for a while, twice `launch_s`, so that it computes the step without gaps between its kernels.
    """
    import torch

    if device.type != "cuda":
        return _launched(step, device)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda.synchronize(device)
    torch.cuda._sleep(int(2 * min(launch_s, LONGEST_LAUNCH_S) * CYCLES))  # type: ignore[no-untyped-call]
    begin.record()
    step()
    end.record()
    torch.cuda.synchronize(device)
    return float(begin.elapsed_time(end)) / 1000
