"""Fifty pictures a class: heads on frozen nets, fine-tuning, both in stages, and small nets from scratch.

    python -m benchmarks.few_pictures --data-dir path/to/cifar10 --weights path/to/nets
    python -m benchmarks.few_pictures --data-dir … --weights … --learn 10 200 500 --ways heads "from scratch"

CIFAR-10 is written as a user would have it, as folders of PNG files: 50 pictures a class to learn from, 100 a class in
`test/`. Each way is one command with its own seeds; the figures are the winner's means on the sealed test set. From
scratch the pictures keep their 32 pixels, and there are five times the epochs. Heads are searched on all nets at once,
and on each one alone.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from PIL import Image

from benchmarks import command
from benchmarks.record import EVIDENCE, Figure, Record, two_cores
from trainables import datasets

HEADS = "heads"
SCRATCH = "from scratch"
WAYS = {HEADS: ("freeze=true",), "fine-tuned": ("freeze=false",), "heads, then fine-tuned": (), SCRATCH: ()}
"""Each way → what it fixes of the space that searches both."""


@dataclass(frozen=True)
class Options:
    """Learn from fifty pictures a class, in four ways."""

    data_dir: Path
    """Folder of CIFAR-10."""
    weights: Path
    """Pretrained nets: a folder or a file."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds, of the pictures and of the sweep."""
    learn: tuple[int, ...] = (50,)
    """Pictures a class to learn from; each number has evidence of its own."""
    ways: tuple[str, ...] = tuple(WAYS)
    """The ways to compare."""
    image_size: int = 96
    """Pixels of the nets' inputs; the pictures have 32."""
    trials: int = 8
    max_epochs: int = 8
    lines: Path | None = None
    """File that keeps the figures of each sweep; the same command goes on from it."""
    evidence: Path = EVIDENCE
    """Folder of the evidence file that is written."""


def main() -> int:
    options = tyro.cli(Options)
    two_cores()
    held = [compare(options, learn) for learn in options.learn]
    return 0 if all(held) else 1


def compare(options: Options, learn: int) -> bool:
    """Run all sweeps over so many pictures a class, and return whether the targets hold."""
    kept = ("seeds", "image_size", "trials", "max_epochs")
    about = {name: str(value) for name, value in asdict(options).items() if name in kept}
    record = Record(f"few_pictures_{learn}", {"learn": learn, **about}, lines=options.lines)
    for seed in options.seeds:
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
            pictures = write_pictures(options.data_dir, Path(folder) / "pictures", seed, learn)
            for way, weights in commands(options):
                sweep = partial(measure, options, way, weights, seed, pictures, Path(folder) / "results")
                record.once({"learn": learn, "seed": seed, "way": way}, sweep)
    figures = [
        Figure(f"{way}: {what}", unit, [run[key] for run in record.runs if run["way"] == way])
        for way, _ in commands(options)
        for what, unit, key in (("test score, mean", "", "test"), ("command to leaderboard", "s", "wall_s"))
    ]
    return record.write(options.evidence, figures)


def commands(options: Options) -> list[tuple[str, Path | None]]:
    """Return the name and the weights of each command."""
    nets = sorted(options.weights.glob("*.safetensors"))
    alone = [(f"{HEADS} of {net.stem}", net) for net in nets] if HEADS in options.ways and len(nets) > 1 else []
    return [*((way, None if way == SCRATCH else options.weights) for way in options.ways), *alone]


def write_pictures(data_dir: Path, folder: Path, seed: int, learn: int, test: int = 100) -> Path:
    """Write `learn` and `test` rows of each class of CIFAR-10 as PNG files in `train/` and `test/`; return `folder`."""
    dataset = datasets.load("cifar10", datasets.Reading(data_dir))
    parts = {"train": (dataset.images, dataset.labels, learn), "test": (*datasets.open_test(dataset), test)}
    generator = np.random.default_rng(seed)
    for part, (images, labels, count) in parts.items():
        for number, name in enumerate(dataset.classes):
            (folder / part / name).mkdir(parents=True)
            for row in generator.permutation(np.flatnonzero(labels == number))[:count].tolist():
                Image.fromarray(np.asarray(images[row])).save(folder / part / name / f"{row}.png")
    return folder


def measure(
    options: Options, way: str, weights: Path | None, seed: int, pictures: Path, results: Path
) -> dict[str, Any]:
    """Run one sweep and return its figures."""
    epochs = options.max_epochs * (5 if weights is None else 1)
    asked = ("--seed", str(seed), "--trials", str(options.trials), "--max-epochs", str(epochs), "--preset", "best")
    confirmed = ("--confirm", "1", "--confirm-seeds", "1", "--folds", "1", "--no-refit")
    size = 32 if weights is None else options.image_size
    fixed = (f"image_size={size}", *WAYS[HEADS if way.startswith(f"{HEADS} of") else way])
    nets = "none" if weights is None else str(weights.absolute())
    name = f"{way.replace(' ', '-').replace(',', '')}-{seed}"
    run = command.sweep([str(pictures), *asked, *confirmed, "--weights", nets, "--set", *fixed], results, name)
    final = json.loads((results / name / "final.json").read_text())
    return {
        "wall_s": round(run.done.wall_s, 3),
        "validation": final["validation"]["mean"],
        "test": final["test"]["score"]["mean"],
        "trials": [trial.score for trial in run.state.trials.values() if not trial.final],
    }


if __name__ == "__main__":
    sys.exit(main())
