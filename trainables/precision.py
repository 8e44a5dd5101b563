"""The numeric format that `precision=auto` and `memory_format=auto` stand for: measured on a CPU, known on a GPU.

It belongs to a net and to a kind of device: what is fastest on one processor may be the slowest on the next. Whoever
runs a net on another kind of device chooses again.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from itertools import product
from math import comb

import torch
from torch import Tensor

from trainables import features, format_store, hardware
from trainables.batches import memory_format
from trainables.config import TrialConfig, timed_rows
from trainables.learner import Learner
from trainables.loop import TrialData, optimizer_step
from trainables.model_names import is_timm, is_user_model
from trainables.models import heads
from trainables.workload import Workload

STEP_S, FEW_ROWS = 0.5, 8  # a step that takes longer is timed with fewer rows, but not with fewer than these
LEAST_S = 0.025  # of steps in a row, whose mean counts: caches are cold after another format, or another process
ROUNDS, LEAST_ROUNDS = 24, 4  # of steps, at most; and for which there must be time
CHANCE = 0.05  # with which a format that is as fast as another one counts as slower
MARGIN = 1.03  # a format must be so many times as fast as one that is preferred to it
FAR = {time.thread_time: 1.2, time.perf_counter: 2.0}
"""How many times slower a format must be in two rounds not to be timed further, by the clock."""


def device_kind(device: torch.device) -> str:
    """Return the name of the GPU or the CPU, as the record of a trial has it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else hardware.cpu_model()


def prepare(device: torch.device) -> None:
    """Have a GPU try its convolutions for the fastest, as batches keep their shape, and compute float32 as TF32.

    It is for a process that trains, once. TF32 has float32's range and 10 bits of its 23 (Ampere and newer; others do
    not have it). A CPU is left as it is.
    """
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        torch.backends.cudnn.conv.fp32_precision = "tf32"  # type: ignore[attr-defined]


def resolve(config: TrialConfig, data: TrialData, workload: Workload | None = None) -> TrialConfig:
    """Return `config` with its autos replaced by the fastest format on a CPU, by what suits the hardware on a GPU.

    On CPUs neither bfloat16 nor channels-last is faster for all models and image sizes, so their steps are timed, and
    the choice is kept on the disk: the next sweep chooses the same. It is float32 in its usual layout unless another
    format is faster by more than noise and MARGIN. A frozen base whose features are computed once does so in float32,
    channels last. The random state stays as it was.

    Args:
        workload: what is planned; by default the epochs of this trial.
    """
    device = data.batches.labels.device
    if features.suffice(config) and device.type == "cpu":  # what learns is a head: no steps on images to be timed
        exact = {"precision": "float32"} if config.precision == "auto" else {}
        return config.replace(**exact, **({"memory_format": "channels_last"} if config.memory_format == "auto" else {}))
    precisions = [config.precision] if config.precision != "auto" else _precisions(device)
    layouts = [config.memory_format] if config.memory_format != "auto" else _layouts(device)
    formats = [{"precision": p, "memory_format": m} for p, m in product(precisions, layouts)]
    if len(formats) == 1:
        return config.replace(**formats[0])
    facts = _facts(config, data)
    kept = not is_user_model(config.model)  # its code may change
    known = format_store.read(facts) if kept else None
    if known not in formats:
        workload = workload or Workload(config.max_epochs)
        with torch.random.fork_rng(devices=()):  # several formats are a CPU's choice
            timed = _measure(config, data, formats, workload)
        known = formats[timed.choice()]
        if kept and timed.settled:
            medians = {" ".join(each.values()): timed.median(number) for number, each in enumerate(formats)}
            format_store.write(facts, known, medians)
    return config.replace(**known)


def _precisions(device: torch.device) -> list[str]:
    if device.type == "cuda":
        return ["bfloat16" if torch.cuda.get_device_capability(device) >= (8, 0) else "float16"]
    return ["float32", "bfloat16"] if device.type == "cpu" else ["float32"]


def _layouts(device: torch.device) -> list[str]:
    return ["contiguous", "channels_last"] if device.type == "cpu" else ["channels_last"]


def _facts(config: TrialConfig, data: TrialData) -> dict[str, str | int]:
    """Return all that the choice depends on, as plain JSON values."""
    return {
        **{name: getattr(config, name) for name in ("model", "stem", "precision", "memory_format")},
        "image_size": data.image_size,
        "rows": timed_rows(config.to_dict()),
        "threads": torch.get_num_threads(),
        "cpu": hardware.cpu_model(),
        "instructions": " ".join(sorted(name for name, there in torch.cpu.get_capabilities().items() if there is True)),
        "kernels": f"{torch.backends.cpu.get_cpu_capability()} {os.environ.get('ONEDNN_MAX_CPU_ISA', '')}".strip(),
        "torch": torch.__version__,
        "nets": version("timm" if is_timm(config.model) else "torchvision"),
    }


def _measure(config: TrialConfig, data: TrialData, formats: list[dict[str, str]], workload: Workload) -> StepTimes:
    """Measure steps of all formats, in turn, until they part or the time is over.

    On a CPU all formats take the same weights, which stay as they are, and the same batch. If the time would not be
    enough to tell formats apart, nothing is timed.
    """
    times = StepTimes(len(formats))
    started = times.clock()
    config = config.replace(**formats[0], batch_size=timed_rows(config.to_dict()), micro_batch=0)
    learner = Learner.start(config, data.classes, data.image_size, data.epoch_rows, data.batches.labels.device)
    for group in learner.optimizer.param_groups:
        group["lr"] = 0.0
    heads.set_training(config, learner.model)
    order = torch.Generator().manual_seed(0)
    images, labels = next(data.batches.train(data.train_rows, data.epoch_rows, config, order))
    rows = _brief(len(labels), lambda rows: _step(learner, config, images[:rows], labels[:rows]), times)
    steps = [_step(learner, config.replace(**each), images[:rows], labels[:rows]) for each in formats]
    steps[0]()  # prepares: allocations, choice of kernels
    step_s = times.of(steps[0])
    until = started + workload.allowed_s(step_s * data.epoch_rows / rows * len(data.folds))
    if times.clock() + max(step_s, LEAST_S) * len(steps) * LEAST_ROUNDS < until:
        for step in steps[1:]:
            step()
        times.take(steps, until)
    workload.spent_s += times.clock() - started
    return times


def _brief(rows: int, step_of: Callable[[int], Callable[[], None]], times: StepTimes) -> int:
    """Return how many of `rows` a step may take that is over in STEP_S, FEW_ROWS at least."""
    few = min(FEW_ROWS, rows)
    step_of(few)()
    row_s = times.of(step_of(few)) / few
    while rows > few and rows * row_s > STEP_S:
        rows = max(rows // 2, few)
    return rows


def _step(learner: Learner, config: TrialConfig, images: Tensor, labels: Tensor) -> Callable[[], None]:
    """Return a call that trains a step in the format of `config`."""
    images = images.contiguous(memory_format=memory_format(config))

    def step() -> None:
        learner.config = config
        optimizer_step(learner, images, labels)

    return step


class StepTimes:
    """Seconds of steps in several formats, in the order of preference, of rounds in which each has its turn.

    With one thread they are seconds of the processor, of which other processes take none: what these do to its caches
    and its memory shows. With more threads they are those of the clock, as threads wait for each other.
    """

    def __init__(self, formats: int) -> None:
        self.seconds: list[list[float]] = [[] for _ in range(formats)]
        self.settled = False  # more rounds would not change the choice
        self.clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
        self._far = FAR[self.clock]
        self._left = list(range(formats))  # may still be the fastest, and the first, with which all are compared

    def of(self, step: Callable[[], None], least_s: float = 0.0) -> float:
        """Return the seconds that a call takes, the mean of as many as take `least_s` together."""
        begun, calls = self.clock(), 0
        while not calls or self.clock() - begun < least_s:
            step()
            calls += 1
        return (self.clock() - begun) / calls

    def take(self, steps: Sequence[Callable[[], None]], until: float) -> None:
        """Measure rounds of `steps`, every other one backwards, until the choice is settled or `clock` is `until`."""
        while not self.settled and self.clock() < until:
            backwards = len(self.seconds[0]) % 2
            for number in reversed(self._left) if backwards else self._left:
                self.seconds[number].append(self.of(steps[number], LEAST_S))
            best = min(self._left, key=self.median)
            self._left = [number for number in self._left if number in (0, best) or not self._is_slower(number, best)]
            self.settled = self._judged()[1] or len(self.seconds[0]) >= ROUNDS

    def choice(self) -> int:
        """Return the first of the formats, or a later one that is faster by more than noise and MARGIN."""
        return self._judged()[0]

    def _judged(self) -> tuple[int, bool]:
        """Return the choice by what is known, and whether each format is clearly faster by MARGIN, or clearly not."""
        chosen, sure = 0, True
        for number in self._left[1:]:
            if self._is_slower(chosen, number, MARGIN):
                chosen = number
            else:
                sure = sure and self._is_slower(number, chosen, 1 / MARGIN)
        return chosen, sure

    def median(self, number: int) -> float:
        """Return the median seconds of a step."""
        return statistics.median(self.seconds[number])

    def _is_slower(self, one: int, other: int, by: float = 1.0) -> bool:
        """Return whether `one` takes more than `by` times as long as the other in more rounds than by chance.

        After the last round the median decides.
        """
        ratios = [mine / theirs for mine, theirs in zip(self.seconds[one], self.seconds[other], strict=False)]
        slower, rounds = sum(ratio > by for ratio in ratios), len(ratios)
        by_chance = sum(comb(rounds, count) for count in range(slower, rounds + 1)) / 2**rounds
        if rounds >= ROUNDS:
            return statistics.median(ratios) > by
        return by_chance <= CHANCE or (rounds >= 2 and min(ratios) > self._far * by)
