"""The parts of the recipe that are written here, beside the libraries' that do the same: time of theirs by ours.

    python -m benchmarks.part_libraries

Batches of 128 float32 images of 32 and of 224 pixels, on one thread. torchvision's
transforms change all images of a batch alike, so those that differ from image to image are called once for each; its
MixUp and CutMix mix a whole batch, as ours do. kornia's change each image in its own way; they are left out, with a
message, if it is not installed, and so are timm's parameter groups, which are made once a trial. Flips here take the
bytes that are stored, as in training; kornia's take floats. Each side draws its own random numbers. They alternate; a
round's value is the ratio of the medians of its calls. That they give the same is a matter for the tests. No target:
own code stands where it is faster by half, or does what the library's cannot.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchvision.transforms import v2

from benchmarks.augmentation_share import BATCH, CLASSES, timed
from benchmarks.record import EVIDENCE, BenchmarkError, Figure, Record, say, two_cores
from trainables import memory
from trainables.augmentation import augment, draw
from trainables.config import TrialConfig
from trainables.mixing import draw_mix, mixed
from trainables.models.build import build
from trainables.moving_average import MovingAverage
from trainables.optimizers import build_optimizer

SIDES = (32, 224)
DECAY, LAYER_DECAY, WEIGHT_DECAY = 0.99, 0.7, 0.05
AVERAGED, GROUPED = ("resnet20", "resnet18"), "timm:resnet18"  # timm's groups are for its own nets

Call = Callable[[], object]
Pair = tuple[str, Call, Call]
"""What is compared and the library's name; the library's call; ours."""


@dataclass(frozen=True)
class Options:
    """Measure parts of the recipe beside the libraries'."""

    rounds: int = 9
    """Rounds in which both sides of each pair take their turn."""
    calls: int = 3
    """Calls of each side in a round."""
    evidence: Path = EVIDENCE
    """Folder of the evidence file that is written."""


def main() -> int:
    options = tyro.cli(Options)
    two_cores()
    memory.keep_freed()
    torch.set_num_threads(1)
    record = Record("part_libraries", asdict(options))
    pairs = [*(pair for side in SIDES for pair in of_images(side, record)), *of_weights(record)]
    for number in range(options.rounds + 1):
        for name, theirs, ours in pairs:
            sides = [("theirs", theirs), ("ours", ours)][:: 1 if number % 2 else -1]
            run = {"pair": name, "round": number, **{side: timed(call, options.calls) for side, call in sides}}
            if number:  # the first round prepares
                record.add(run)
    figures = []
    for name, _, _ in pairs:
        runs = [run for run in record.runs if run["pair"] == name]
        figures.append(Figure(f"{name}: theirs by ours", "", [run["theirs"] / run["ours"] for run in runs]))
        figures.append(Figure(f"{name}: ours", "ms", [run["ours"] for run in runs]))
    return 0 if record.write(options.evidence, figures) else 1


def of_images(side: int, record: Record) -> list[Pair]:
    """Return the pairs that change a batch of images with this many pixels a side."""
    stored = torch.randint(0, 256, (BATCH, side, side, 3), dtype=torch.uint8, generator=generator())
    images = stored.permute(0, 3, 1, 2)  # strides of the NHWC storage, as a trial's views
    floats, labels = images.float() / 255, torch.arange(BATCH) % CLASSES
    random = generator()

    def mix(**fields: Any) -> tuple[Tensor, Tensor]:
        way = draw_mix(draw(BATCH, random), TrialConfig(**fields), (side, side))
        assert way is not None
        return mixed(floats.clone(memory_format=torch.preserve_format), labels, CLASSES, way)

    def library_mix(transform: v2.Transform) -> object:
        return transform(floats.clone(memory_format=torch.preserve_format), labels)

    def change(batch: Tensor, **fields: Any) -> Tensor:
        return augment(batch, draw(BATCH, random), TrialConfig(**fields), normalized="erasing" in fields)

    def each(transform: v2.Transform, batch: Tensor) -> Tensor:
        return torch.stack([transform(image) for image in batch])

    bilinear = v2.InterpolationMode.BILINEAR
    erasing, wide = v2.RandomErasing(0.25), v2.TrivialAugmentWide(interpolation=bilinear)
    moved = v2.RandomAffine(10, translate=(0.1, 0.1), scale=(0.8, 1.2), interpolation=bilinear)
    shifts: dict[str, Any] = {"rotation": 10, "shift": 0.1, "scale": 0.2}
    pairs: list[Pair] = [
        ("mixup, torchvision", partial(library_mix, v2.MixUp(num_classes=CLASSES, alpha=0.2)), partial(mix, mixup=0.2)),
        ("CutMix, torchvision", partial(library_mix, v2.CutMix(num_classes=CLASSES)), partial(mix, cutmix=1.0)),
        ("erasing, torchvision", partial(each, erasing, floats), partial(change, floats, erasing=0.25)),
        ("TrivialAugment, torchvision", partial(each, wide, images), partial(change, images, trivial_augment=True)),
        ("affine, torchvision", partial(each, moved, floats), partial(change, floats, **shifts)),
    ]
    kornia = installed("kornia.augmentation", record)
    if kornia is not None:
        turned = kornia.RandomAffine(10, translate=(0.1, 0.1), scale=(0.8, 1.2), p=1.0)
        erased = kornia.RandomErasing(p=0.25)
        pairs += [
            ("erasing, kornia", partial(erased, floats), partial(change, floats, erasing=0.25)),
            ("affine, kornia", partial(turned, floats), partial(change, floats, **shifts)),
            ("flip, kornia", partial(kornia.RandomHorizontalFlip(), floats), partial(change, images, flip=True)),
        ]
    return [(f"{name}, {side} px", theirs, ours) for name, theirs, ours in pairs]


def of_weights(record: Record) -> list[Pair]:
    """Return the pairs that go over a net's weights: an average's update, and making the optimizer's groups."""
    pairs: list[Pair] = []
    for name in AVERAGED:
        model = build(TrialConfig(model=name), CLASSES, 32)
        ours = MovingAverage(model, [*model.parameters(), *model.buffers()], DECAY)
        theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(DECAY), use_buffers=True)  # type: ignore[no-untyped-call]
        pairs.append((f"average of weights, torch, {name}", partial(theirs.update_parameters, model), ours.update))
    timm_optim = installed("timm.optim", record)
    if timm_optim is not None:
        config = TrialConfig(model=GROUPED, lr_decay=LAYER_DECAY, weight_decay=WEIGHT_DECAY)
        model = build(config, CLASSES, 224)

        def optimizer() -> torch.optim.Optimizer:
            groups = timm_optim.param_groups_layer_decay(model, WEIGHT_DECAY, layer_decay=LAYER_DECAY)
            return torch.optim.SGD(groups, config.lr, momentum=config.momentum)

        pairs.append((f"parameter groups, {GROUPED}", optimizer, partial(build_optimizer, config, model)))
    return pairs


def installed(module: str, record: Record) -> Any:
    """Return a library's module; None, with a message and a note, if it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        note = f"{module.split('.')[0]} is not installed; its parts are left out"
        if note not in record.notes:
            record.notes.append(note)
            say(note)
        return None


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchmarkError as error:
        sys.exit(f"failed: {error}")
