"""Linear heads on features that step at once, as those of a trial's folds do, against the same one after another.

    python -m benchmarks.fused_heads

Heads of 16 classes on 1,280 features, batches of 64, AdamW, dropout: the code of a trial, on made features. Each round
times as many steps of one head alone, of all heads one after another, and of all at once, in another order each time.
With one thread, as a slot has; `make gpu` does the same on a GPU. Figures: ratios within a round.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.record import EVIDENCE, Figure, Record, Target, two_cores
from trainables.config import TrialConfig
from trainables.fused_heads import FusedHeads
from trainables.learner import Fold, Learner
from trainables.loop import optimizer_step

ROWS, BATCH, CLASSES = 512, 64, 16
FEATURES = 1280  # of EfficientNet-B0
CONFIG = TrialConfig(
    model="efficientnet_b0", freeze=True, optimizer="adamw", lr=0.01, dropout=0.1, label_smoothing=0.1,
    precision="float32", memory_format="contiguous", threads=1,
)  # fmt: skip
Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Options:
    """Compare heads that step at once with heads that step one after another."""

    heads: tuple[int, ...] = (5, 16, 64)
    rounds: int = 9
    steps: int = 60
    """Steps of each side in a round."""
    evidence: Path = EVIDENCE
    """Folder of the evidence file that is written."""


def main() -> int:
    import tyro  # a machine on which `make gpu` runs may not have it

    options = tyro.cli(Options)
    two_cores()
    torch.set_num_threads(1)
    record = Record("fused_heads", asdict(options))
    for heads in options.heads:
        for run in rounds(heads, options.rounds, options.steps, torch.device("cpu")):
            record.add(run)
    found = [figure for heads in options.heads for figure in figures(record.runs, heads)]
    return 0 if record.write(options.evidence, found) else 1


def rounds(heads: int, count: int, steps: int, device: torch.device) -> list[dict[str, float]]:
    """Time all sides `count` times, after a round to warm up; return the seconds of a step of each side."""
    first = Learner.start(CONFIG, CLASSES, 32, ROWS, device)
    learners = [first, *(first.twin(ROWS) for _ in range(heads - 1))]
    for learner in learners:
        learner.on_features = True
        learner.begin_epoch(1)
    batches = [
        (torch.randn(BATCH, FEATURES, device=device), torch.randint(CLASSES, (BATCH,), device=device)) for _ in learners
    ]
    fold = Fold(torch.empty(0), torch.empty(0))
    fused = FusedHeads(learners, [fold] * heads)
    sides: dict[str, Callable[[], object]] = {
        "one": partial(optimizer_step, first, *batches[0]),
        "in_turn": partial(_in_turn, learners, batches),
        "at_once": partial(fused.step, batches),
    }
    found = []
    for number in range(count + 1):
        order = list(sides) if number % 2 else list(sides)[::-1]
        found.append({"heads": heads, **{name: _seconds(sides[name], steps, device) for name in order}})
    return found[1:]


def figures(runs: Sequence[dict[str, float]], heads: int, most: float | None = None) -> list[Figure]:
    """Return the ratios of so many heads; `most` bounds what all of them may take, in the time of one."""
    mine = [run for run in runs if run.get("heads") == heads]
    target = None if most is None else Target(most)
    return [
        Figure(f"{heads} heads: at once / one after another", "", [run["at_once"] / run["in_turn"] for run in mine]),
        Figure(f"{heads} heads: at once / one alone", "", [run["at_once"] / run["one"] for run in mine], target),
    ]


def _in_turn(learners: Sequence[Learner], batches: Sequence[Batch]) -> None:
    for learner, batch in zip(learners, batches, strict=True):
        optimizer_step(learner, *batch)


def _seconds(step: Callable[[], object], steps: int, device: torch.device) -> float:
    """Return the seconds of one of `steps` calls."""
    _wait(device)
    started = time.perf_counter()
    for _ in range(steps):
        step()
    _wait(device)
    return (time.perf_counter() - started) / steps


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    sys.exit(main())
