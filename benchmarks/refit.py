"""Refit and ensemble against the confirmed model, in small sweeps.

    python -m benchmarks.refit
    python -m benchmarks.refit --pictures DIR --nets tf_efficientnet_lite0.safetensors tf_efficientnet_lite1.safetensors

A sweep: some settings at random, each trained once; the best of them confirmed with three seeds; the winner has the
best mean, and its median run is the confirmed model. All that the product may put into `best/` beside it is trained by
the product's loop on the same rows and measured on the same test rows, which no run has seen:

* the refit of that run: pool and validation set together, all of the pool, stopped at the median of the winner's best
  epochs; what `best/` has, where a refit that failed to learn is left out (`confirmation.has_learned`); for the choice
  of these rules the same run to the end of its schedule, and with the winner's train fraction;
* the mean of the calibrated probabilities of the winner's three runs, and their vote; the same of their refits;
* a greedy selection from the runs of all confirmed candidates by validation rows (Caruana et al. 2004, Ensemble
  selection from libraries of models, with replacement, by log loss).

Every sweep draws its rows anew: `--rows` of digits, all others being test rows; or, of a folder of pictures, a fifth
for the test, and heads are trained on the features of frozen nets. Gains are in points of accuracy, with the interval
of the mean over sweeps. Also counted is how often each model lies in the prediction interval that confirmation made,
and below it: the interval is for one more model of the winner's settings on as many rows.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.record import EVIDENCE, Figure, Record, say, two_cores
from orchestrator.assessment.confirmation import LESS_LEARNED
from orchestrator.assessment.intervals import mean_interval, prediction_interval
from orchestrator.plan.final_runs import REFIT
from trainables import datasets
from trainables.batches import Batches
from trainables.calibration import calibration_error, fit_temperature, log_probabilities, mean_probabilities
from trainables.config import TrialConfig
from trainables.evaluation import predict
from trainables.loop import TrialData, TrialState, predict_scored, prepared, train
from trainables.splits import SearchData, search_data
from trainables.strata import apportion, class_counts, interleaved, shuffled_by_class, slices

SEEDS, CANDIDATES, GREEDY = 3, 3, 20  # of a winner; confirmed trials; rounds of the greedy selection
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Options:
    """Compare refit and ensemble with the confirmed model."""

    sweeps: int = 20
    trials: int = 6
    rows: int = 500
    """Rows of digits in a sweep, test rows not counted."""
    folds: int = 1
    """Folds that trials are scored in; 1: on a validation set."""
    epochs: int = 9
    pictures: Path | None = None
    """Folder of class folders, in the place of digits."""
    nets: tuple[Path, ...] = ()
    """Weights of frozen nets, as safetensors with timm's names: tf_efficientnet_lite0.safetensors."""
    name: str = "refit"
    """Name of the evidence file."""
    evidence: Path = EVIDENCE
    """Folder of the evidence file that is written."""


def main() -> int:
    options = tyro.cli(Options)
    two_cores()
    torch.set_num_threads(1)
    record = Record(options.name, {**asdict(options), "nets": [path.stem for path in options.nets]})
    whole = Whole.of(options)
    for seed in range(options.sweeps):
        record.add(sweep(whole, options, seed))
        say(f"sweep {seed + 1} of {options.sweeps}")
    return 0 if record.write(options.evidence, figures(record.runs)) else 1


@dataclass(frozen=True)
class Whole:
    """All rows of a data set, from which every sweep draws its rows anew."""

    data: SearchData
    batches: Batches
    labels: NDArray[np.int64]
    test_share: float  # of all rows

    @classmethod
    def of(cls, options: Options) -> Whole:
        """Return digits, or the pictures that the options name."""
        dataset = datasets.load(str(options.pictures or "digits"), datasets.Reading(min_rows=10))
        data = search_data(dataset, opened=True)
        share = 0.2 if options.pictures else 1 - options.rows / len(data.labels)
        return cls(data, Batches.of(data, CPU), data.labels, share)

    def drawn(self, seed: int, folds: int) -> SearchData:
        """Return the rows of a sweep: stratified test rows, and of the others folds or a validation set of a fifth."""
        classes = len(self.data.classes)
        rows = shuffled_by_class(self.labels, classes, seed)
        counts = class_counts(self.labels, classes)
        tests = apportion(round(self.test_share * counts.sum()), counts, np.ones_like(counts), counts - 4)
        scored = np.maximum((counts - tests) // 5, 1)
        test, validation = slices(rows, np.zeros_like(counts), tests), slices(rows, tests, tests + scored)
        pool = interleaved([group[n:] for group, n in zip(rows, tests + scored, strict=True)])
        parts: tuple[NDArray[np.int64], ...] = ()
        if folds > 1:
            dealt = slices(rows, tests, counts)
            pool = interleaved([group[n:] for group, n in zip(rows, tests, strict=True)])
            validation, parts = np.sort(dealt), tuple(np.sort(dealt[fold::folds]) for fold in range(folds))
        return replace(self.data, validation=np.sort(validation), pool=pool, test=np.sort(test), folds=parts)


@dataclass(frozen=True, eq=False)
class Run:
    """A trained model: its score, and its logits for the rows that it is scored on and for the test rows."""

    config: TrialConfig
    score: float
    best_epoch: int
    scored: Tensor | None  # [N, C]
    test: Tensor  # [M, C]
    temperature: float | None
    learned: tuple[float, ...]  # training accuracy of each epoch


def trained(config: TrialConfig, data: SearchData, whole: Whole) -> Run:
    """Train a model as a sweep's worker does."""
    trial = TrialData.select(config, data, whole.batches)
    state = TrialState.start(config, trial, CPU)
    trial = prepared(trial, state)
    learned = tuple(epoch.train_accuracy for epoch in train(trial, state))
    for learner in state.learners:
        learner.model.load_state_dict(learner.kept_weights())
    test, _ = predict(config, trial.batches, torch.from_numpy(data.test), state.kept.network)
    scored = predict_scored(trial, state)[0] if config.split == "core" else None
    temperature = None if state.calibration is None else state.calibration["temperature"]
    return Run(config, state.score or 0.0, state.best_epoch, scored, test, temperature, learned)


def settings(options: Options, random: np.random.Generator) -> Iterator[TrialConfig]:
    """Yield the settings of a search's trials, at random."""
    fixed: dict[str, Any] = {"precision": "float32", "memory_format": "contiguous", "threads": 1}
    for number in range(options.trials):
        drawn: dict[str, Any] = {
            "dropout": float(random.uniform(0, 0.3)),
            "label_smoothing": float(random.uniform(0, 0.15)),
            "train_fraction": round(float(random.uniform(0.5, 1)), 3),
            "seed": int(random.integers(2**31)),
            "max_epochs": options.epochs,
        }
        if options.nets:
            path = options.nets[number % len(options.nets)]
            drawn |= {"model": f"timm:{path.stem}", "weights": str(path.absolute()), "freeze": True, "fit": "pad"}
            drawn |= {"normalization": "half", "image_size": SIZES.get(path.stem, 224), "optimizer": "adamw"}
            drawn |= {"lr": float(10 ** random.uniform(-3, -1)), "schedule": "cosine", "batch_size": 64}
        else:
            drawn |= {"model": "simple_cnn", "head_width": 64 * (number % 2), "schedule": "one_cycle", "warmup": 0.2}
            drawn |= {"lr": float(10 ** random.uniform(-2.2, -1)), "batch_size": 32, "rotation": 8.0, "shift": 0.1}
        yield TrialConfig(**fixed, **drawn)


SIZES = {"tf_efficientnet_lite1": 240, "tf_efficientnet_lite2": 260}
"""Pixels of a net's inputs, if not 224."""


def sweep(whole: Whole, options: Options, seed: int) -> dict[str, Any]:
    """Run a small sweep; return the gains over its confirmed model in points, and which models the interval holds."""
    data, random = whole.drawn(seed, options.folds), np.random.default_rng(seed)
    truth = whole.labels[data.test]
    searched = sorted(
        (trained(config, data, whole) for config in settings(options, random)), key=lambda run: -run.score
    )
    again = [[trained(one.config.replace(seed=s), data, whole) for s in range(SEEDS)] for one in searched[:CANDIDATES]]
    runs = max(again, key=lambda found: statistics.fmean(run.score for run in found))
    kept = sorted(runs, key=lambda run: run.score)[(SEEDS - 1) // 2]
    earlier = statistics.median_high(run.best_epoch for run in runs)

    def refit(run: Run, **changes: Any) -> Run:
        config = run.config.replace(**{**REFIT, **changes})
        return replace(trained(config, data, whole), temperature=run.temperature)

    refits = [refit(run) for run in runs]
    own = refits[runs.index(kept)]
    sound = [one for one in refits if one.learned[-1] >= min(run.learned[-1] for run in runs) - LESS_LEARNED]
    scored_labels = whole.labels[np.concatenate(data.folds) if data.folds else data.validation]
    models = {
        "confirmed": mean([kept]),
        "refit": mean([own]),
        "best/ with --refit": mean([own if own in sound else kept]),
        "best/ with --refit --ensemble seeds": mean(refits if len(sound) == len(refits) else runs),
        "refit to the epoch that was best": mean([refit(kept, stop_epoch=earlier)]),
        "refit with the winner's train fraction": mean([refit(kept, train_fraction=kept.config.train_fraction)]),
        "mean of the runs": mean(runs),
        "vote of the runs": vote(runs),
        "mean of the refits": mean(refits),
        "vote of the refits": vote(refits),
        "greedy selection": mean(greedy([run for found in again for run in found], scored_labels)),
    }
    accuracy = {name: float((found.argmax(1).numpy() == truth).mean()) for name, found in models.items()}
    correct = np.stack([(run.scored.argmax(1).numpy() == scored_labels) for run in runs if run.scored is not None])
    predicted = prediction_interval(correct, len(truth), folds=options.folds)
    assert predicted is not None
    return {
        "accuracy of the confirmed model": 100 * accuracy["confirmed"],
        **{f"{name}, gain": 100 * (accuracy[name] - accuracy["confirmed"]) for name in models if name != "confirmed"},
        **{f"{name}, in the interval": 100.0 * (predicted.low <= accuracy[name] <= predicted.high) for name in models},
        **{f"{name}, below the interval": 100.0 * (accuracy[name] < predicted.low) for name in models},
        **calibrated(runs, refits, scored_labels, truth),
        "the epoch that was best": earlier,
        "refits that failed to learn, of three": len(refits) - len(sound),
    }


def mean(runs: Sequence[Run]) -> Tensor:
    """Return the mean of the calibrated probabilities of the test rows."""
    return mean_probabilities([run.test for run in runs], [run.temperature for run in runs])


def vote(runs: Sequence[Run]) -> Tensor:
    """Return the votes for each class of the test rows; the mean probability decides where they are even."""
    votes = torch.stack([torch.nn.functional.one_hot(run.test.argmax(1), run.test.shape[1]) for run in runs]).sum(0)
    return votes + mean(runs) / 2


def greedy(runs: Sequence[Run], labels: NDArray[np.int64]) -> list[Run]:
    """Return the runs whose mean has the least log loss on the scored rows, chosen one by one, some of them often."""
    probabilities = [mean_probabilities([run.scored], [run.temperature]) for run in runs if run.scored is not None]
    chosen: list[int] = []
    total, best, kept = torch.zeros_like(probabilities[0]), math.inf, 0
    for rounds in range(1, GREEDY + 1):
        losses = [log_loss((total + one) / rounds, labels) for one in probabilities]
        chosen.append(losses.index(min(losses)))
        total = total + probabilities[chosen[-1]]
        if min(losses) < best:
            best, kept = min(losses), rounds
    return [runs[number] for number in chosen[:kept]]


def log_loss(probabilities: Tensor, labels: NDArray[np.int64]) -> float:
    """Return the mean negative log-likelihood of the labels."""
    return float(-log_probabilities(probabilities)[torch.arange(len(labels)), torch.from_numpy(labels)].mean())


def calibrated(
    runs: Sequence[Run], refits: Sequence[Run], labels: NDArray[np.int64], truth: NDArray[np.int64]
) -> dict[str, float]:
    """Return log losses on the test rows with and without a temperature fitted to the mean on the scored rows."""
    scored = mean_probabilities([run.scored for run in runs if run.scored is not None], [r.temperature for r in runs])
    temperature = fit_temperature(log_probabilities(scored), torch.from_numpy(labels)) or 1.0
    found = {}
    for name, members in (("runs", runs), ("refits", refits)):
        plain = mean(members)
        tempered = (log_probabilities(plain) / temperature).softmax(1)
        for how, one in (("as it is", plain), ("at its temperature", tempered)):
            found[f"log loss of the mean of the {name} {how}"] = log_loss(one, truth)
            error = calibration_error(one, torch.from_numpy(truth))
            found[f"calibration error of the mean of the {name} {how}"] = math.nan if error is None else error
    first = refits[0]
    found["log loss of a refit at its twin's temperature"] = log_loss(mean([first]), truth)
    found["log loss of a refit without a temperature"] = log_loss(mean([replace(first, temperature=None)]), truth)
    return found | {"temperature of the mean": temperature}


def figures(runs: list[dict[str, Any]]) -> list[Figure]:
    """Return every figure over all sweeps; of gains also both ends of the interval of the mean."""
    made = []
    for name in runs[0]:
        values = [float(run[name]) for run in runs]
        unit = "points" if name.endswith("gain") else "%" if "interval" in name or "accuracy" in name else ""
        made.append(Figure(name, unit, values))
        interval = mean_interval(values) if name.endswith("gain") else None
        if interval is not None:
            made.append(Figure(f"{name}, 95 % interval of the mean", unit, list(interval)))
    return made


if __name__ == "__main__":
    sys.exit(main())
