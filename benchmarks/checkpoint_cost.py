"""The time that checkpoints cost a trial, and that the journal costs for each event.

    python -m benchmarks.checkpoint_cost

ResNet-18 (ImageNet stem) on 32 px noise, one thread, float32, batch 128, with SGD (a state of 134 MB) and AdamW
(179 MB), trained by `trainables.loop.train` and saved by `trainables.checkpoint.Saver` into a local folder as
`ImageTrial` does it, without Ray. Epochs are over half of the 15 s that may be lost, so that a state is due
after each: as often as it ever is. Blocks of epochs with and without saving alternate within one training, the order
turning round from pair to pair. Figures, for each optimizer: the time that training stood still for states, as a share
of a block's time (promised are 3 % at most); the slow-down of a pair, in which the writing beside training is felt as
well; and the last state, which a trial waits for once, at its end.

The journal: 1,000 `trial_epoch` events, one flushed append each.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from benchmarks.driver_cost import bare_appends
from benchmarks.record import EVIDENCE, Figure, Record, Target, two_cores
from trainables.batches import Batches
from trainables.checkpoint import MOST_COST, Saver
from trainables.config import TrialConfig
from trainables.learner import Fold
from trainables.loop import TrialData, TrialState, train
from trainables.storage import Storage

CPU = torch.device("cpu")
SCORED = 500  # rows


@dataclass(frozen=True)
class Options:
    """Measure the time of checkpoints and of journal events."""

    rows: int = 6_000
    """Rows of each epoch; the default takes some 8–12 s."""
    epochs: int = 3
    """Epochs of each block."""
    pairs: int = 2
    """Blocks with saving for each optimizer, and as many without."""
    appends: int = 1_000
    """Appends to the journal."""
    evidence: Path = EVIDENCE
    """Folder of the evidence file that is written."""


def main() -> int:
    options = tyro.cli(Options)
    two_cores()
    torch.set_num_threads(1)
    record = Record("checkpoint_cost", asdict(options))
    figures = []
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        appends = [round(seconds * 1000, 4) for seconds in bare_appends(Path(folder), options.appends)]
        for optimizer in ("sgd", "adamw"):
            trial = Trial(optimizer, options, Storage(f"{folder}/{optimizer}"))
            for block in trial.blocks(options):
                record.add(block)
            figures += trial.figures([run for run in record.runs if run["optimizer"] == optimizer])
    p95 = statistics.quantiles(appends, n=20)[-1]
    figures += [
        Figure("a journal event, flushed", "ms", appends, Target(2)),
        Figure("a journal event, flushed, p95", "ms", [p95], Target(2)),
    ]
    return 0 if record.write(options.evidence, figures) else 1


class Trial:
    """One training, run as by an actor."""

    def __init__(self, optimizer: str, options: Options, storage: Storage) -> None:
        self.optimizer = optimizer
        self.storage = storage
        random = np.random.default_rng(0)
        images = random.integers(0, 256, (options.rows + SCORED, 32, 32, 3), dtype=np.uint8)
        batches = Batches(images, random.integers(0, 10, len(images)), [0.5] * 3, [0.3] * 3, CPU)
        rows = torch.arange(len(images))
        fold = Fold(rows[: options.rows], rows[options.rows :])
        data = TrialData(batches, (fold,), options.rows, 10, 32)
        config = TrialConfig(
            model="resnet18", stem="imagenet", optimizer=optimizer, lr=1e-3, max_epochs=1_000, precision="float32",
            memory_format="contiguous", threads=1,
        )  # fmt: skip
        self.state = TrialState.start(config, data, CPU)
        self.training = train(data, self.state)
        self.reported: list[dict[str, Any]] = []

    def blocks(self, options: Options) -> Iterator[dict[str, Any]]:
        """Yield pairs of blocks, after an epoch that is not counted."""
        next(self.training)
        for pair in range(options.pairs):
            for saving in (True, False) if pair % 2 == 0 else (False, True):
                yield {"optimizer": self.optimizer, "pair": pair, **self.block(options.epochs, saving)}

    def block(self, epochs: int, saving: bool) -> dict[str, Any]:
        """Train some epochs, with states saved as often as they are due or not at all."""
        saver, still = Saver(self.storage, 0, 0), []
        started = time.perf_counter()
        for _ in range(epochs):
            metrics = next(self.training)
            self.reported.append(metrics.to_dict())
            before = time.perf_counter()
            if saving and saver.due(metrics.train_s + metrics.eval_s):
                tensors, values = self.state.to_checkpoint()
                saver.save(self.state.epoch, tensors, {**values, "epochs": self.reported})
                still.append(time.perf_counter() - before)
        seconds = time.perf_counter() - started
        saver.wait()
        assert saver.error is None, saver.error
        return {"saving": saving, "states": len(still), "seconds": round(seconds, 4), "still_s": round(sum(still), 4)}

    def last_state_s(self) -> float:
        """Return the seconds that a trial's end waits for its best weights to be written."""
        best = {f"best.{name}": tensor for name, tensor in self.state.kept.best_weights.items()}
        started = time.perf_counter()
        Saver(self.storage, 0, 1).save_last(self.state.epoch, best, {"epochs": self.reported})
        return time.perf_counter() - started

    def figures(self, blocks: list[dict[str, Any]]) -> list[Figure]:
        saved, bare = ([block for block in blocks if block["saving"] is saving] for saving in (True, False))
        shares = [block["still_s"] / block["seconds"] for block in saved]
        slower = [a["seconds"] / b["seconds"] - 1 for a, b in zip(saved, bare, strict=True)]
        return [
            Figure(f"training stood still for states ({self.optimizer})", "", shares, Target(MOST_COST)),
            Figure(f"slower with states ({self.optimizer})", "", slower),
            Figure(f"seconds a block ({self.optimizer})", "s", [block["seconds"] for block in saved]),
            Figure(f"states a block ({self.optimizer})", "", [block["states"] for block in saved]),
            Figure(f"a trial's last state ({self.optimizer})", "s", [self.last_state_s() for _ in range(3)]),
        ]


if __name__ == "__main__":
    sys.exit(main())
