"""The training loop beside a bare one and the usual one, in images a second, for four nets at 32 pixels.

    python -m benchmarks.bare_loop

Three sides train the same net, in the same numeric format, on the same synthetic images with flips and padded crops,
and score it after each epoch. Ours: `loop.train`, with augmentation, checks, evaluation and all scores. Bare: written
by hand as fast as is known without leaving torch: resident uint8 tensors, an epoch's flips and crops at once (as
cifar10-airbench has them), the same autocast, layout and batch size, a fused optimizer, a plain accuracy; this is the
limit. Usual: a `Dataset` with torchvision's transforms for each picture, and a `DataLoader` with a process of its own,
as tutorials have it, with the bare loop's steps. No sweep, no Ray, two threads.

A block is an epoch of some seconds. Ours and one of the others alternate, first the bare one, then the usual one, after
a block of each to warm up: with all three in turn the process of the usual one slows what comes next. What is judged
are the ratios within a round, by their median, and the evidence has its 95 % interval."""

from __future__ import annotations

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
from torch.utils.data import DataLoader

from benchmarks.loops import TransformedPictures, pictures
from benchmarks.record import EVIDENCE, Figure, Record, Target, two_cores
from trainables import loop, precision
from trainables.batches import Batches
from trainables.config import TrialConfig
from trainables.learner import Fold
from trainables.loop import TrialData, TrialState
from trainables.models.build import build
from trainables.splits import SearchData

THREADS = 2
CPU = torch.device("cpu")
PIXELS, PADDING = 32, 2
STEPS = {"resnet20": 60, "resnet18": 40, "resnet50": 12, "efficientnet_b0": 20}
"""Optimizer steps of an epoch: as many as take some five seconds."""


@dataclass(frozen=True)
class Options:
    """Compare the training loop with a bare one and with the usual one."""

    models: tuple[str, ...] = tuple(STEPS)
    rounds: int = 9
    steps: float = 1.0
    """Steps of an epoch, as a share of the usual ones; less for a smoke test."""
    batch_size: int = 64
    usual: bool = True
    """Time the usual loop as well."""
    evidence: Path = EVIDENCE
    """Folder of the evidence file that is written."""


def main() -> int:
    options = tyro.cli(Options)
    two_cores()
    torch.set_num_threads(THREADS)
    held = [compare(model, options) for model in options.models]
    return 0 if all(held) else 1


def compare(model: str, options: Options) -> bool:
    """Run all rounds of a net, write its evidence, and return whether the target holds."""
    record = Record(f"bare_loop_{model}", asdict(options))
    for run in rounds(model, max(int(STEPS[model] * options.steps), 2), options):
        record.add(run)
    return record.write(options.evidence, figures(options, record.runs))


def figures(options: Options, runs: list[dict[str, Any]]) -> list[Figure]:
    """Return the ratios within each round but the first, and our rate."""
    counted = [run for run in runs if run["round"]]
    ours = [run["ours"] for run in counted]
    bare, usual = ([run["ours"] / run[side] for run in counted if side in run] for side in ("bare", "usual"))
    found = [Figure("images a second, ours / bare loop", "", bare, Target(0.97, at_most=False))]
    found += [Figure("images a second, ours / DataLoader loop", "", usual)] if options.usual else []
    return [*found, Figure("ours", "images/s", ours)]


def rounds(model: str, steps: int, options: Options) -> Iterator[dict[str, Any]]:
    """Yield the images a second of each side, round by round; round 0 warms up."""
    count = steps * options.batch_size
    data = pictures(count + count // 5, PIXELS)
    rows = torch.arange(len(data.labels))
    trained, scored = rows[:count], rows[count:]
    config = TrialConfig(
        model=model, optimizer="adamw", schedule="one_cycle", warmup=0.2, lr=0.005, weight_decay=0.05, flip=True,
        crop_padding=PADDING, label_smoothing=0.1, batch_size=options.batch_size, max_epochs=2 * (options.rounds + 1),
        threads=THREADS,
    )  # fmt: skip
    config = precision.resolve(config, TrialData.select(config, data, Batches.of(data, CPU)))
    ours = our_epochs(config, data, trained, scored)
    for name, loop_of in {"bare": BareLoop, **({"usual": UsualLoop} if options.usual else {})}.items():
        sides = {"ours": ours, name: loop_of(config, data, trained, scored).epochs()}
        for number in range(options.rounds + 1):
            run: dict[str, Any] = {"model": model, "round": number, "precision": config.precision}
            for side in list(sides)[:: 1 if number % 2 else -1]:
                started = time.perf_counter()
                loss, _ = next(sides[side])
                run[side] = round(count / (time.perf_counter() - started), 1)
                run[f"{side}_loss"] = round(loss, 4)
            yield run


def our_epochs(config: TrialConfig, data: SearchData, trained: Tensor, scored: Tensor) -> Iterator[tuple[float, float]]:
    """Yield train loss and accuracy after each epoch of `trainables.loop.train`."""
    batches = Batches.of(data, CPU)
    trial = TrialData(batches, (Fold(trained, scored),), len(trained), len(data.classes), data.images.shape[1])
    for metrics in loop.train(trial, TrialState.start(config, trial, CPU)):
        yield metrics.train_loss, metrics.val_accuracy or 0.0


class BareLoop:
    """The same training without anything general; only loss and accuracy are recorded."""

    def __init__(self, config: TrialConfig, data: SearchData, trained: Tensor, scored: Tensor) -> None:
        torch.manual_seed(0)
        self.config = config
        self.layout = torch.channels_last if config.memory_format == "channels_last" else torch.contiguous_format
        self.images, self.labels = chosen(data, trained.numpy())
        self.val_images, self.val_labels = chosen(data, scored.numpy())
        self.scale = (1 / (255 * torch.from_numpy(data.std))).view(1, 3, 1, 1)
        self.offset = (-torch.from_numpy(data.mean) / torch.from_numpy(data.std)).view(1, 3, 1, 1)
        self.model = build(config, len(data.classes), PIXELS).to(memory_format=self.layout)
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
        for images, labels in self._batches():
            smoothing = self.config.label_smoothing
            loss = functional.cross_entropy(self._forward(images), labels, label_smoothing=smoothing)
            torch.autograd.backward(loss)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.schedule.step()
            total += loss.detach() * len(labels)
        return float(total) / len(self.labels)

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        images = flip_and_crop(self.images, self.config.crop_padding)
        for rows in torch.split(torch.randperm(len(self.labels)), self.config.batch_size):
            yield images[rows], self.labels[rows]

    def _forward(self, images: Tensor) -> Tensor:
        return self._output(torch.addcmul(self.offset, images.float(), self.scale))

    def _output(self, batch: Tensor) -> Tensor:
        batch = batch.contiguous(memory_format=self.layout)
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


class UsualLoop(BareLoop):
    """The bare loop's steps, with batches from a `DataLoader` that opens and transforms picture by picture."""

    def __init__(self, config: TrialConfig, data: SearchData, trained: Tensor, scored: Tensor) -> None:
        super().__init__(config, data, trained, scored)
        dataset: Any = TransformedPictures(data, trained.numpy(), config.crop_padding)
        self.loader: Any = DataLoader(
            dataset, config.batch_size, shuffle=True, num_workers=1, persistent_workers=True, drop_last=False
        )

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from self.loader

    def _forward(self, images: Tensor) -> Tensor:
        return self._output(images) if images.is_floating_point() else super()._forward(images)


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


if __name__ == "__main__":
    sys.exit(main())
