"""The training loop on all of CIFAR-10: the accuracy of one trial, and its speed beside that of a bare loop.

    python -m benchmarks.cifar10_resnet18 --data-dir DIR         (or BENCHMARK_CIFAR10=DIR)

torchvision's ResNet-18 with its ImageNet stem, at 32 px, two threads, through `trainables.loop`: no sweep, no Ray.

Accuracy: 5 epochs over all 50,000 official training rows (no validation set is held out), one-cycle AdamW,
label smoothing 0.1, flips and padded crops; seeds 0, 1, 2. The weights after the last epoch, whatever they are, are
scored once on the 10,000 official test rows. This is the one place outside a confirmation that opens the test set
(`trainables.datasets.open_test`), at each seed's end; nothing is chosen by it. Target: mean accuracy ≥ 0.757.
Settings were chosen on a validation set, 5 epochs over 20,000 rows.
Crops padded by 4: SGD with Nesterov momentum, batch 64,
reached 0.623 at 0.1 and 0.653 at 0.05; AdamW, batch 128, 0.655 at 0.002 and 0.664 at 0.005. Crops padded by 2, as
cifar10-airbench has them: AdamW, batch 128, 0.684 at 0.005 and 0.677 at 0.01; batch 64, 0.697 at 0.005.

Speed: images a second of `loop.train` (augmentation, checks, evaluation and scores included) over those of `BareLoop`
below, written by hand as fast as is known without leaving torch: resident uint8 tensors, an epoch's flips and crops
at once (as cifar10-airbench has them), the same autocast, layout and batch size, a fused optimizer, a plain accuracy on
the same rows at the end of the epoch. Blocks of one epoch of `--steps` steps each, the sides alternating, after a block
of each to warm up. Target: ≥ 0.95.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from benchmarks.record import EVIDENCE, BenchmarkError, Figure, Record, Target, cifar10_files, say, two_cores
from trainables import datasets, evaluation, loop, precision
from trainables.batches import Batches
from trainables.config import TrialConfig
from trainables.loop import Fold, TrialData, TrialState
from trainables.splits import SearchData

THREADS = 2
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Options:
    """Train on all of CIFAR-10, and measure the loop's speed."""

    data_dir: Path | None = None
    """Folder of CIFAR-10's files. Default: that of the environment variable BENCHMARK_CIFAR10."""
    seeds: tuple[int, ...] = (0, 1, 2)
    epochs: int = 5
    batch_size: int = 64
    lr: float = 0.005
    weight_decay: float = 0.05
    warmup: float = 0.2
    crop_padding: int = 2
    label_smoothing: float = 0.1
    train_rows: int | None = None
    """A smaller number of rows, for a smoke test. Default: all."""
    test_rows: int | None = None
    """A smaller number of rows, for a smoke test. Default: all."""
    blocks: int = 6
    """Blocks of each side for the speed; 0 leaves it out."""
    steps: int = 100
    """Optimizer steps of each block."""
    evidence: Path = EVIDENCE
    """Folder of the evidence file that is written."""


def main() -> int:
    options = tyro.cli(Options)
    data_dir = cifar10_files(options.data_dir)
    if data_dir is None:
        return 0
    two_cores()
    torch.set_num_threads(THREADS)
    record = Record("cifar10_resnet18", asdict(options))
    dataset = datasets.load("cifar10", datasets.Reading(data_dir))
    data = all_rows(dataset, options.train_rows)
    config = base_config(options)
    batches = Batches.of(data, CPU)
    config = precision.resolve(config, TrialData.select(config, data, batches))
    record.add({"kind": "form", "precision": config.precision, "memory_format": config.memory_format})
    figures = []
    if options.blocks:  # first, on a machine that is still cool
        for run in speed(config, data, options):
            record.add(run)
        figures += speed_figures([run for run in record.runs if run["kind"] == "speed"])
    for seed in options.seeds:
        record.add(accuracy(config.replace(seed=seed), data, dataset, options.test_rows))
    trained = [run for run in record.runs if run["kind"] == "accuracy"]
    if trained:
        scores = [run["test_accuracy"] for run in trained]
        figures += [
            Figure("test accuracy", "", scores, Target(0.757, at_most=False, statistic="mean")),
            Figure("seconds of training a seed", "s", [run["train_s"] for run in trained]),
        ]
    return 0 if record.write(options.evidence, figures) else 1


def base_config(options: Options) -> TrialConfig:
    return TrialConfig(
        model="resnet18",
        stem="imagenet",
        optimizer="adamw",
        momentum=0.9,
        schedule="one_cycle",
        flip=True,
        crop_padding=options.crop_padding,
        lr=options.lr,
        weight_decay=options.weight_decay,
        warmup=options.warmup,
        label_smoothing=options.label_smoothing,
        batch_size=options.batch_size,
        max_epochs=options.epochs,
        threads=THREADS,
    )


def all_rows(dataset: datasets.Dataset, count: int | None) -> SearchData:
    """Return all official training rows for training and none for validation, in memory as in a sweep's workers."""
    images, labels = np.array(dataset.images[:count]), np.array(dataset.labels[:count])
    mean, std = images.mean((0, 1, 2), dtype=np.float64) / 255, images.std((0, 1, 2), dtype=np.float64) / 255
    rows = np.arange(len(labels))
    return SearchData(
        images, labels, dataset.classes, rows[:0], rows, mean.astype(np.float32), std.astype(np.float32), "all rows"
    )


# Accuracy


def accuracy(config: TrialConfig, data: SearchData, dataset: datasets.Dataset, test_rows: int | None) -> dict[str, Any]:
    """Train one seed to the end, then open the test set."""
    batches = Batches.of(data, CPU)
    trial = TrialData.select(config, data, batches)
    state = TrialState.start(config, trial, CPU)
    started = time.perf_counter()
    losses = []
    for epoch in range(1, config.max_epochs + 1):
        state.epoch = epoch
        loss, train_accuracy, *_ = loop.train_epoch(trial, state)
        losses.append(round(loss, 4))
        say(f"seed {config.seed} epoch {epoch}: train loss {loss:.4f}, accuracy {train_accuracy:.4f}")
    train_s = time.perf_counter() - started
    images, labels = datasets.open_test(dataset)
    images, labels = np.array(images[:test_rows]), labels[:test_rows]
    test = Batches(images, labels, data.mean, data.std, CPU)
    outputs = evaluation.predict(config, test, torch.arange(len(labels)), state.model)
    found = evaluation.measured(*outputs, positive=1, temperature=None, seconds=0.0)
    return {
        "kind": "accuracy",
        "seed": config.seed,
        "test_accuracy": found["accuracy"],
        "test_loss": found["loss"],
        "test_rows": len(labels),
        "train_rows": len(trial.train_rows),
        "train_losses": losses,
        "train_s": round(train_s, 2),
        "images_per_s": round(len(trial.train_rows) * config.max_epochs / train_s, 1),
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0],
    }


# Speed


def speed(config: TrialConfig, data: SearchData, options: Options) -> Iterator[dict[str, Any]]:
    """Measure the images per second of each side, block by block, the sides alternating."""
    count = options.steps * config.batch_size
    if count * 6 // 5 > len(data.labels):
        raise BenchmarkError(f"--steps {options.steps}: a block and its evaluation need more rows than there are")
    rows = torch.from_numpy(data.pool)
    trained, scored = rows[:count], rows[count : count + count // 5]
    config = config.replace(max_epochs=options.blocks + 1)
    sides = {
        "ours": our_epochs(config, data, trained, scored),
        "bare": BareLoop(config, data, trained, scored).epochs(),
    }
    for block in range(options.blocks + 1):
        names = list(sides) if block % 2 else list(sides)[::-1]
        for side in names:
            started = time.perf_counter()
            loss, score = next(sides[side])
            seconds = time.perf_counter() - started
            yield {
                "kind": "speed" if block else "warm-up",
                "block": block,
                "side": side,
                "images_per_s": round(count / seconds, 1),
                "train_loss": round(loss, 4),
                "accuracy": round(score, 4),
            }


def our_epochs(config: TrialConfig, data: SearchData, trained: Tensor, scored: Tensor) -> Iterator[tuple[float, float]]:
    """Yield train loss and accuracy after each epoch of `trainables.loop.train`."""
    batches = Batches.of(data, CPU)
    trial = TrialData(batches, (Fold(trained, scored),), len(trained), len(data.classes), data.images.shape[1])
    for metrics in loop.train(trial, TrialState.start(config, trial, CPU)):
        yield metrics.train_loss, metrics.val_accuracy or 0.0


class BareLoop:
    """The same training without anything general; only loss and accuracy are recorded."""

    def __init__(self, config: TrialConfig, data: SearchData, trained: Tensor, scored: Tensor) -> None:
        from torchvision.models import resnet18

        torch.manual_seed(0)
        self.config = config
        self.layout = torch.channels_last if config.memory_format == "channels_last" else torch.contiguous_format
        self.images, self.labels = chosen(data, trained.numpy())
        self.val_images, self.val_labels = chosen(data, scored.numpy())
        self.scale = (1 / (255 * torch.from_numpy(data.std))).view(1, 3, 1, 1)
        self.offset = (-torch.from_numpy(data.mean) / torch.from_numpy(data.std)).view(1, 3, 1, 1)
        self.model = resnet18(num_classes=len(data.classes)).to(memory_format=self.layout)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), config.lr, weight_decay=config.weight_decay, fused=True
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer,
            config.lr,
            epochs=config.max_epochs,
            steps_per_epoch=-(-len(self.labels) // config.batch_size),
            pct_start=config.warmup,
            cycle_momentum=False,
        )

    def epochs(self) -> Iterator[tuple[float, float]]:
        """Yield train loss and accuracy after each epoch."""
        while True:
            loss = self._train()
            yield loss, self._accuracy()

    def _train(self) -> float:
        self.model.train()
        total = torch.zeros(())
        images = flip_and_crop(self.images, self.config.crop_padding)
        for rows in torch.split(torch.randperm(len(self.labels)), self.config.batch_size):
            loss = functional.cross_entropy(
                self._forward(images[rows]), self.labels[rows], label_smoothing=self.config.label_smoothing
            )
            torch.autograd.backward(loss)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.schedule.step()
            total += loss.detach() * len(rows)
        return float(total) / len(self.labels)

    def _forward(self, images: Tensor) -> Tensor:
        batch = torch.addcmul(self.offset, images.float(), self.scale).contiguous(memory_format=self.layout)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.config.precision == "bfloat16"):
            logits: Tensor = self.model(batch)
        return logits.float()

    @torch.inference_mode()
    def _accuracy(self) -> float:
        self.model.eval()
        size = self.config.batch_size
        pairs = zip(torch.split(self.val_images, size), torch.split(self.val_labels, size), strict=True)
        correct = sum((self._forward(images).argmax(1) == labels).sum() for images, labels in pairs)
        return float(correct) / len(self.val_labels)


def chosen(data: SearchData, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Return images, uint8 [N, 3, H, W], and labels of `rows`."""
    images = torch.from_numpy(data.images[rows]).permute(0, 3, 1, 2).contiguous()
    return images, torch.from_numpy(data.labels[rows])


def flip_and_crop(images: Tensor, padding: int) -> Tensor:
    """Return images [N, C, H, W], each flipped at random and cropped at a random place of its padded self."""
    count, _, height, width = images.shape
    flipped = torch.where((torch.rand(count) < 0.5).view(-1, 1, 1, 1), images.flip(-1), images)
    padded = functional.pad(flipped, (padding,) * 4)
    down, right = torch.randint(2 * padding + 1, (2, count))
    rows = padded.new_empty(count, images.shape[1], height, width + 2 * padding)
    for shift in range(2 * padding + 1):
        rows[down == shift] = padded[down == shift, :, shift : shift + height]
    cut = torch.empty_like(images)
    for shift in range(2 * padding + 1):
        cut[right == shift] = rows[right == shift, :, :, shift : shift + width]
    return cut


def speed_figures(runs: list[dict[str, Any]]) -> list[Figure]:
    """Return the ratio within each pair of blocks, and both sides' rates."""
    rates = {side: [run["images_per_s"] for run in runs if run["side"] == side] for side in ("ours", "bare")}
    ratios = [ours / bare for ours, bare in zip(rates["ours"], rates["bare"], strict=True)]
    return [
        Figure("images a second, ours / bare loop", "", ratios, Target(0.95, at_most=False)),
        Figure("ours", "images/s", rates["ours"]),
        Figure("bare loop", "images/s", rates["bare"]),
    ]


if __name__ == "__main__":
    sys.exit(main())
