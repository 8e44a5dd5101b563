"""The training loop of every trial: `train` yields one `EpochMetrics` per epoch and knows nothing of the sweep.

All randomness of an epoch follows from (trial seed, epoch), so a trial that goes on from the end of an epoch needs no
saved random state to give the same losses as one that was never interrupted.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from trainables import autos, features, fused_heads, memory, unfreezing, user_metrics
from trainables.batches import Batches
from trainables.calibration import calibration, fit_temperature
from trainables.config import TrialConfig
from trainables.epoch_metrics import MANY_CLASSES, EpochMetrics
from trainables.epoch_sums import EpochSums, TrainedEpoch
from trainables.errors import Diverged, look_up
from trainables.evaluation import measured, predict
from trainables.fused_heads import FusedHeads
from trainables.gradients import backpropagate
from trainables.learner import Fold, Learner, part
from trainables.losses import CLASS_WEIGHTS, log_prior
from trainables.metrics import Scores, confusions, scores
from trainables.optimizers import clip_gradients
from trainables.seeds import seed_for
from trainables.selection import keep_best, stop_reason
from trainables.splits import SearchData
from trainables.trial_rows import trial_rows

CHECK_EVERY = 100  # steps between checks of the loss: each check waits for the device
PLAIN_VALUES = ("epoch", "step", "score", "best_epoch", "peak", "peak_epoch", "calibration")  # of a state


@dataclass(frozen=True)
class TrialData:
    """The rows of one trial, as in `TrialRows`, and its batches."""

    batches: Batches
    folds: tuple[Fold, ...]
    epoch_rows: int  # rows per epoch of each model, the same for all trials over a split
    classes: int
    image_size: int  # pixels of the shorter side
    final_rows: Mapping[str, Tensor] = field(default_factory=dict)  # part of the data → rows, measured at the end
    scored_is_test: bool = False  # as in `TrialRows`
    positive: int = 1  # as in `TrialRows`

    @classmethod
    def select(cls, config: TrialConfig, data: SearchData, batches: Batches) -> TrialData:
        """Select the rows that `config` names; `batches` holds the images of `data` on the device.

        Raises:
            ConfigError: the data have no such rows.
        """
        rows, classes = trial_rows(data, config), len(data.classes)
        weights = look_up(CLASS_WEIGHTS, config.class_weights, "class_weights")

        def fold(train: Tensor, scored: Tensor) -> Fold:
            labels = batches.labels[train]
            return Fold(train, scored, weights(labels, classes), log_prior(config, labels, classes))

        return cls(
            batches=batches.normalized_by(rows.mean, rows.std),
            folds=tuple(fold(torch.from_numpy(each.train), torch.from_numpy(each.scored)) for each in rows.folds),
            epoch_rows=rows.epoch_rows,
            classes=classes,
            image_size=batches.image_size(config),
            final_rows={part: torch.from_numpy(of_part) for part, of_part in rows.final.items()},
            scored_is_test=rows.scored_is_test,
            positive=rows.positive,
        )

    @property
    def train_rows(self) -> Tensor:
        """The rows that the kept model trains on."""
        return self.folds[0].train_rows

    @property
    def scored_rows(self) -> Tensor:
        """The rows that the trial is scored on, fold after fold, ascending in each."""
        return torch.cat([fold.scored_rows for fold in self.folds])

    def of_run(self, config: TrialConfig, final: bool) -> TrialData:
        """Return the data as a sweep's run gets it: with rows to measure at its end only if it is a final training run.

        It is then measured on the validation set as well. Test metrics of a searched trial must stay unknown.
        """
        validation = {"validation": self.scored_rows} if config.split == "core" else {}
        return dataclasses.replace(self, final_rows={**validation, **self.final_rows} if final else {})


@dataclass
class TrialState:
    """The part of a trial that outlives an epoch; a checkpoint holds it.

    `score` is what the trial would end with, at `best_epoch`: the running best of its metric, or the newest value
    under `selection=last`. `peak` is the running best under either; patience looks at that. With folds there is a
    learner for each. All of them begin with the same weights and draw from the same seeds; their rows differ. The
    trial ends with the first one's model.
    """

    config: TrialConfig
    learners: list[Learner]
    device: torch.device
    epoch: int = 0
    step: int = 0  # of every learner
    score: float | None = None
    best_epoch: int = 0
    peak: float | None = None
    peak_epoch: int = 0
    calibration: dict[str, float | None] | None = None  # of the kept weights, fitted to the scored rows
    uncalibrated: tuple[Tensor, Tensor] | None = None  # logits and labels of the best epoch, until `calibrate`
    scored_logits: Tensor | None = None  # float32 [N, C], of the kept weights for the scored rows: of final runs alone

    @property
    def kept(self) -> Learner:
        """The learner whose model the trial ends with."""
        return self.learners[0]

    @property
    def model(self) -> nn.Module:
        """The model that the trial ends with."""
        return self.kept.model

    @classmethod
    def start(cls, config: TrialConfig, data: TrialData, device: torch.device) -> TrialState:
        """Start a new trial, with weights drawn from its seed, and without the autos that initial weights decide."""
        config = autos.resolved(config, data.image_size)
        first = Learner.start(config, data.classes, data.image_size, data.epoch_rows, device)
        return cls(config, [first, *(first.twin(data.epoch_rows) for _ in data.folds[1:])], device)

    def kept_weights(self) -> dict[str, Tensor]:
        """Return the weights that the trial would end with, those of `best_epoch`, under the model's names."""
        return self.kept.kept_weights()

    def calibrate(self) -> None:
        """Fit a temperature to the kept weights, if an epoch has changed them; that costs more than all metrics."""
        if self.uncalibrated is not None:
            logits, labels = self.uncalibrated
            self.calibration = calibration(logits, labels, fit_temperature(logits, labels))._asdict()
            self.uncalibrated = None

    def to_checkpoint(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return tensors and plain JSON values from which `restore` makes an equal state."""
        self.calibrate()
        newest_is_best = self.best_epoch == self.epoch
        tensors = self.kept.tensors(everything=True, newest_is_best=newest_is_best)
        for number, learner in enumerate(self.learners[1:], start=1):
            own = learner.tensors(everything=False, newest_is_best=newest_is_best)
            tensors |= {_of_fold(number) + name: tensor for name, tensor in own.items()}
        values = {name: getattr(self, name) for name in PLAIN_VALUES}
        further = {"further_folds": [learner.values() for learner in self.learners[1:]]} if self.learners[1:] else {}
        return tensors, {**values, "config": self.config.to_dict(), **self.kept.values(), **further}

    def restore(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Take over a checkpoint of the same configuration."""
        self.kept.restore(tensors, values)
        for number, learner in enumerate(self.learners[1:], start=1):
            learner.restore(part(tensors, _of_fold(number)), values["further_folds"][number - 1])
        for name in PLAIN_VALUES:
            setattr(self, name, values.get(name))  # calibration is not in the checkpoints of older versions


def _of_fold(number: int) -> str:
    """Return the beginning of the names of a fold's tensors in a checkpoint; those of the first have none."""
    return f"fold{number}."


def train(data: TrialData, state: TrialState) -> Iterator[EpochMetrics]:
    """Train from `state` to the end of the trial, and yield the metrics of each epoch; `state` is up to date then.

    A trial without rows to be scored on has no score, and ends with its newest weights.

    The last epoch's `stop_reason` is set. A trial that has ended yields nothing more.

    Raises:
        Diverged: the training or validation loss is not finite.
    """
    while stop_reason(state) is None:
        data = prepared(data, state)
        state.epoch += 1
        started = time.perf_counter()
        done = train_epoch(data, state)
        trained = time.perf_counter()
        outputs = predict_scored(data, state) if len(data.scored_rows) else None
        found = None if outputs is None else scores(*outputs, data.positive, _needs_area(data, state))
        evaluated = time.perf_counter()
        if found is not None and not found.loss < float("inf"):
            raise Diverged(f"validation loss is {found.loss} in epoch {state.epoch}")
        own = {} if outputs is None else user_metrics.of_outputs(state.config.metric, *outputs)
        for learner in state.learners:
            learner.schedule.epoch_ended(done.loss if found is None else found.loss)
        keep_best(state, None if found is None else {**found._asdict(), **own})
        if outputs is not None and state.best_epoch == state.epoch and not data.scored_is_test:
            state.uncalibrated = outputs
        if stop_reason(state) is not None:
            state.calibrate()
        values: dict[str, Any] = {f"val_{name}": getattr(found, name, None) for name in Scores._fields}
        yield EpochMetrics(
            epoch=state.epoch,
            step=state.step,
            lr=done.rate,
            train_loss=done.loss,
            train_accuracy=done.accuracy,
            **values,
            train_s=trained - started,
            eval_s=evaluated - trained,
            images_per_s=done.rows / (trained - started),
            peak_memory_mb=memory.peak_mb(),
            peak_gpu_mb=memory.peak_gpu_mb(state.device),
            **({"val_confusion": None} if outputs is None else confusions(*outputs, data.scored_rows)),
            stop_reason=stop_reason(state),
            skipped_steps=done.skipped,
            own={f"val_{name}": value for name, value in own.items()},
        )


def prepared(data: TrialData, state: TrialState) -> TrialData:
    """Return the data as the next epoch sees them: features in place of images if its base is frozen and they suffice.

    Prepared data are returned as they are.
    """
    return features.finished(preparing(data, state))


def preparing(data: TrialData, state: TrialState) -> Generator[features.Progress, None, TrialData]:
    """Return what `prepared` does, and yield the progress of features that are not in the cache."""
    suffice = features.suffice(unfreezing.in_epoch(state.config, state.epoch + 1))
    for learner in state.learners:
        learner.on_features = suffice
    if suffice == isinstance(data.batches, features.Features):
        return data
    if isinstance(data.batches, features.Features):
        return dataclasses.replace(data, batches=data.batches.of_images)
    found = yield from features.computed(state.config, state.model, data.batches, predict)
    return dataclasses.replace(data, batches=found)


def predict_scored(data: TrialData, state: TrialState) -> tuple[Tensor, Tensor]:
    """Return float32 logits [N, C] and int64 labels [N] of the trial's scored rows, in their order.

    With folds, each row's logits are those of the one model that does not train on it.
    """
    pairs = zip(data.folds, state.learners, strict=True)
    found = [predict(state.config, data.batches, fold.scored_rows, learner.predictor) for fold, learner in pairs]
    logits, labels = (torch.cat(parts) for parts in zip(*found, strict=True))
    return logits, labels


def train_epoch(data: TrialData, state: TrialState) -> TrainedEpoch:
    """Train an epoch, of one fold after another or of heads at once; raise Diverged if the loss is not finite."""
    config, first_step = state.config, state.step
    sums, rate = EpochSums(state.device, state.epoch), 0.0
    generator = torch.default_generator if state.device.type == "cpu" else torch  # the second, for all devices, is slow
    for folds, learners in fused_heads.groups(data.folds, state.learners):
        generator.manual_seed(seed_for(config.seed, "dropout", state.epoch))
        for learner in learners:
            learner.begin_epoch(state.epoch)
        fused = FusedHeads(learners, folds) if len(learners) > 1 else None
        state.step = first_step
        for batches in zip(*(_batches(data, fold, state) for fold in folds), strict=True):
            rate, *_ = [learner.schedule.set_rate(state.step) for learner in learners]
            if fused is None:
                images, targets = batches[0]
                loss, logits = optimizer_step(learners[0], images, targets, folds[0].class_weights, folds[0].log_prior)
            else:
                loss, logits, targets = fused.step(batches)
            sums.add(learners[0], loss, logits, targets)
            state.step += 1
            if state.step % CHECK_EVERY == 0:
                sums.check(learners[0])
        if fused is not None:
            fused.end()
        sums.end(learners[0])
    return sums.means(rate)


def _batches(data: TrialData, fold: Fold, state: TrialState) -> Iterator[tuple[Tensor, Tensor]]:
    """Return the batches of a fold's epoch, in the order that its seed gives."""
    order = torch.Generator().manual_seed(seed_for(state.config.seed, "batches", state.epoch))
    return data.batches.train(fold.train_rows, data.epoch_rows, state.config, order)


def optimizer_step(
    learner: Learner, images: Tensor, targets: Tensor, weights: Tensor | None = None, shift: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Compute gradients, clip them and step; return the loss, a scalar, and the logits [B, C], detached.

    `targets`, `weights` and `shift` are those of `training_loss`.
    """
    config = learner.config
    learner.scaler.begin_step()
    loss, logits = backpropagate(learner, images, targets, weights, shift)
    if config.grad_clip > 0:
        learner.scaler.unscale_(learner.optimizer)
        clip_gradients(learner.learning, config.grad_clip)
    learner.scaler.step(learner.optimizer)
    learner.scaler.update()
    learner.optimizer.zero_grad()
    if learner.average is not None:
        learner.average.update()
    return loss, logits


def final_metrics(data: TrialData, state: TrialState) -> dict[str, dict[str, Any]]:
    """Measure the weights that a trial ends with; return part of `final_rows` → metrics, as plain JSON values.

    The metrics are those of `evaluation.measure`. The model keeps these weights, so this is for a trial that has ended.
    """
    if not data.final_rows:
        return {}
    data, config = prepared(data, state), state.config
    for learner in state.learners:
        learner.scored_model.load_state_dict(learner.kept_weights())
    temperature = None if state.calibration is None else state.calibration["temperature"]
    found = {}
    for part_name, rows in data.final_rows.items():
        started = time.perf_counter()
        scored_again = part_name == "validation" and config.split == "core"
        outputs = (
            predict_scored(data, state) if scored_again else predict(config, data.batches, rows, state.kept.predictor)
        )
        state.scored_logits = outputs[0] if scored_again else state.scored_logits
        found[part_name] = measured(*outputs, data.positive, temperature, time.perf_counter() - started, config.metric)
    return found


def _needs_area(data: TrialData, state: TrialState) -> bool:
    """Return whether every epoch has its ROC-AUC: of many classes it costs more than all other metrics together."""
    return data.classes <= MANY_CLASSES or state.config.metric == "val_roc_auc"
