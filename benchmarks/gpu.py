"""All that only a GPU can show, in less than nine minutes: `make gpu`.

    python -m benchmarks.gpu [--data-dir DIR] [--minutes 9]

It needs torch, torchvision, safetensors, pyarrow, Pillow, pytest and hypothesis, and neither Ray nor Optuna.

First every test marked `gpu`; then, as long as there is time for each, side by side within one run:

* The loop: images a second of `loop.train_epoch` (ResNet-18 for small images, 32 px, batch 256, flips and crops) over
  those of the way most people write it: a Dataset whose images go through torchvision's transforms one by one, a
  DataLoader with a worker a core, pinned memory, autocast, channels last, fused SGD. Blocks of equal numbers of steps,
  the sides alternating, after one of each to warm up. Target: ≥ 5.
* Packed: processes that share the GPU, each fenced by its share of the memory, against the same ones one after another:
  digits' ResNet-8 (8 of them) and EfficientNet-B0 at 32 px (4). Each loads and warms up before the clock starts.
  Targets: ≥ 3 and ≥ 2.
* Accuracy: ResNet-18 on all of CIFAR-10 to 96 % on its test part, if its files are given (BENCHMARK_CIFAR10 or
  --data-dir). The settings are fixed; the test part is looked at once, after the last epoch. Target: ≤ 120 s.

* Heads: steps of 64 linear heads on features, at once, against a step of one. Target: ≤ 2.

And what the canary of a sweep measures, with the number of trials that would share the GPU. Exit codes: 0 all is as it
should be, or there is no GPU; 1 a test failed or a target was missed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np

from benchmarks import fused_heads
from benchmarks.loops import loader_epochs, our_epochs, pictures
from benchmarks.pack import Pack
from benchmarks.record import EVIDENCE, ROOT, Figure, Record, Target, cifar10_files, say
from trainables import devices
from trainables.config import TrialConfig
from trainables.splits import SearchData

TESTS_S, LOOP_S, PACKED_S, HEADS_S, ACCURACY_S = 240, 70, 60, 20, 150  # seconds that each may take, at most
CLOSING_S = 10  # kept for the evidence
REACHED = 0.96  # of CIFAR-10's test part
LOOP = TrialConfig(model="resnet18", batch_size=256, lr=0.1, flip=True, crop_padding=4, max_epochs=100, threads=4)
PACKED = {"digits": (TrialConfig(model="resnet8", batch_size=64, max_epochs=1000, threads=1), 8, 8, 3.0)}
PACKED["efficientnet"] = TrialConfig(model="efficientnet_b0", batch_size=256, max_epochs=1000, threads=1), 32, 4, 2.0
ACCURACY = LOOP.replace(
    optimizer="sgd", batch_size=512, lr=0.4, weight_decay=5e-4, schedule="one_cycle", warmup=0.25, max_epochs=60,
    label_smoothing=0.1, crop_padding=4, erasing=0.5, ema=0.99, selection="last",
)  # fmt: skip


class Clock:
    """The seconds that are left."""

    def __init__(self, minutes: float) -> None:
        self._until = time.monotonic() + 60 * minutes

    def allows(self, seconds: float) -> bool:
        return self.left() >= seconds

    def left(self) -> float:
        return self._until - time.monotonic() - CLOSING_S


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--data-dir", type=Path, help="folder of CIFAR-10's files; default: BENCHMARK_CIFAR10")
    parser.add_argument("--minutes", type=float, default=9.0, help="after which nothing is begun (default: 9)")
    parser.add_argument("--evidence", type=Path, default=EVIDENCE, help="folder of the evidence file")
    options = parser.parse_args(arguments)
    if not devices.usable():
        why = "; ".join(devices.unusable()) or "there is no sign of one"
        print(f"There is no GPU here that torch can compute on ({why}): nothing was run.")
        return 0
    clock, record = Clock(options.minutes), Record("gpu", vars(options))
    passed = tests(record, min(TESTS_S, clock.left()))
    figures: list[Figure] = []
    data_dir = cifar10_files(options.data_dir)
    parts: list[tuple[str, float, Callable[[], list[Figure]]]] = [
        ("the loop", LOOP_S, lambda: loop_figures(record, "cuda", LOOP, seconds=LOOP_S)),
        *((f"packed {name}", PACKED_S, lambda name=name: packed_figures(record, "cuda", name)) for name in PACKED),
        ("heads", HEADS_S, lambda: head_figures(record, "cuda")),
        ("canary", 30, lambda: canary_figures(record)),
    ]
    if data_dir is not None:
        parts.append(("accuracy", ACCURACY_S, lambda: accuracy_figures(record, data_dir)))
    for name, seconds, part in parts:
        if not clock.allows(seconds):
            record.notes.append(f"{name} is left out: {clock.left():.0f} s were left, it may take {seconds:.0f} s")
            continue
        try:
            figures += part()
        except Exception as error:  # the others are still worth having
            passed = False
            record.notes.append(f"{name} failed: {type(error).__name__}: {str(error).splitlines()[:1]}")
            say(record.notes[-1])
    return 0 if record.write(options.evidence, figures) and passed else 1


def tests(record: Record, seconds: float) -> bool:
    """Run every test marked `gpu`; record how they went, and return whether all passed."""
    folder = Path(tempfile.mkdtemp())
    report, plain = folder / "tests.xml", folder / "pytest.ini"
    plain.write_text("[pytest]\nmarkers = gpu\n")  # the project's own asks for plugins
    alone = ("-c", str(plain), "--rootdir", str(ROOT), "--noconftest")
    command = [sys.executable, "-m", "pytest", *alone, "-m", "gpu", "tests/test_gpu.py", f"--junitxml={report}"]
    try:
        done = subprocess.run(
            command, cwd=ROOT, timeout=seconds, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
    except subprocess.TimeoutExpired:
        record.add({"kind": "tests", "error": f"they took more than {seconds:.0f} s"})
        return False
    counts: dict[str, Any] = {"kind": "tests", "exit_code": done.returncode}
    if report.exists() and (suite := ET.parse(report).getroot().find("testsuite")) is not None:  # noqa: S314
        counts |= {name: float(suite.get(name, "0")) for name in ("tests", "failures", "errors", "skipped", "time")}
    if done.returncode:
        say(done.stdout)
        counts["output"] = done.stdout[-4000:]
    record.add(counts)
    return done.returncode == 0


# Heads on features


def head_figures(record: Record, device: str, heads: int = 64, most: float = 2.0) -> list[Figure]:
    """Return the ratios of heads that step at once."""
    import torch

    for run in fused_heads.rounds(heads, count=9, steps=20, device=torch.device(device)):
        record.add(run)
    return fused_heads.figures(record.runs, heads, most)


# The loop against a DataLoader


def loop_figures(
    record: Record, device: str, config: TrialConfig, steps: int = 100, blocks: int = 4, seconds: float = LOOP_S
) -> list[Figure]:
    """Return the ratio of images a second within each pair of blocks, as many pairs as there is time for."""
    data = pictures((steps * config.batch_size) * 10 // 9 + 1, 32)
    sides = {"ours": our_epochs(data, config, device, steps), "loader": loader_epochs(data, config, device, steps)}
    rates: dict[str, list[float]] = {side: [] for side in sides}
    until = time.monotonic() + seconds
    for block in range(blocks + 1):
        for side in list(sides) if block % 2 else list(sides)[::-1]:
            started = time.perf_counter()
            next(sides[side])
            rate = steps * config.batch_size / (time.perf_counter() - started)
            record.add({"kind": "loop" if block else "warm-up", "side": side, "images_per_s": round(rate, 1)})
            if block:
                rates[side].append(rate)
        if time.monotonic() > until and block:
            break
    ratios = [ours / loader for ours, loader in zip(rates["ours"], rates["loader"], strict=True)]
    return [
        Figure("images a second, loop / DataLoader loop, ResNet-18", "", ratios, Target(5, at_most=False)),
        Figure("loop, ResNet-18", "images/s", rates["ours"]),
        Figure("DataLoader loop, ResNet-18", "images/s", rates["loader"]),
    ]


# Processes that share the GPU


def packed_figures(record: Record, device: str, name: str, rounds: int = 2, steps: int = 0) -> list[Figure]:
    """Return how many times as fast processes are that share the GPU as the same ones one after another."""
    config, size, together, bound = PACKED[name]
    steps = steps or {"digits": 400, "efficientnet": 100}[name]
    with Pack(config, size, together, device, steps) as pack:
        ratios = []
        for number in range(rounds + 1):  # the first one warms up
            alone, packed = pack.one_after_another(), pack.all_at_once()
            record.add({"kind": f"packed {name}", "round": number, "alone_s": alone, "packed_s": packed})
            ratios += [alone / packed] if number else []
    return [
        Figure(f"{together} trials of {name}, one after another / packed", "", ratios, Target(bound, at_most=False))
    ]


# What a sweep's canary measures


def canary_figures(record: Record) -> list[Figure]:
    """Record what steps need of this GPU, and how many trials would share it."""
    from trainables import canary

    cases = [(LOOP, 32), *((config, size) for config, size, _, _ in PACKED.values())]
    figures = []
    for config, size in cases:
        need = canary.measure(config, pictures(20_000, size))
        record.add(
            {"kind": "canary", **{name: getattr(need, name) for name in need.__slots__}, "together": need.together}
        )
        if need.problem is not None:
            raise RuntimeError(f"{config.model}: {need.problem}")
        figures.append(Figure(f"share of a step that the GPU computes, {config.model}", "", [need.busy]))
    return figures


# Accuracy


def accuracy_figures(record: Record, folder: Path) -> list[Figure]:
    """Train ResNet-18 on all of CIFAR-10, and open its test part once."""
    import torch

    from trainables import datasets, evaluation, loop, precision
    from trainables.batches import Batches
    from trainables.loop import TrialData, TrialState

    dataset = datasets.load("cifar10", datasets.Reading(folder))
    images, labels = np.array(dataset.images[:]), np.array(dataset.labels[:])
    mean = (images.mean((0, 1, 2), dtype=np.float64) / 255).astype(np.float32)
    std = (images.std((0, 1, 2), dtype=np.float64) / 255).astype(np.float32)
    rows = np.arange(len(labels))
    data = SearchData(images, labels, dataset.classes, rows[:0], rows, mean, std, "all rows")
    cuda = torch.device("cuda")
    started = time.perf_counter()
    precision.prepare(cuda)
    trial = TrialData.select(ACCURACY, data, Batches.of(data, cuda))
    config = precision.resolve(ACCURACY, trial)
    state = TrialState.start(config, trial, cuda)
    for epoch in range(1, config.max_epochs + 1):
        state.epoch = epoch
        loop.train_epoch(trial, state)
    seconds = time.perf_counter() - started
    test_images, test_labels = datasets.open_test(dataset)
    test = Batches(np.array(test_images[:]), test_labels, mean, std, cuda)
    outputs = evaluation.predict(config, test, torch.arange(len(test_labels)), state.kept.predictor)
    reached = float((outputs[0].argmax(1) == outputs[1]).float().mean())
    record.add({"kind": "accuracy", "seconds": round(seconds, 2), "test_accuracy": reached})
    return [
        Figure("ResNet-18 on CIFAR-10: test accuracy", "", [reached], Target(REACHED, at_most=False)),
        Figure("ResNet-18 on CIFAR-10: seconds of training", "s", [seconds], Target(120)),
    ]


if __name__ == "__main__":
    sys.exit(main())
