"""The training loop of every trial: `train` yields one `EpochMetrics` per epoch and knows nothing of the sweep.

All randomness of an epoch follows from (trial seed, epoch), so a trial that goes on from the end of an epoch needs no
saved random state to give the same losses as one that was never interrupted.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from trainables import features, memory
from trainables.batches import Batches, memory_format, steps_an_epoch
from trainables.calibration import calibration, fit_temperature
from trainables.config import TrialConfig
from trainables.epoch_metrics import CONFUSION_CLASSES, EpochMetrics, StopReason, better
from trainables.errors import Diverged, look_up
from trainables.evaluation import autocast, measure, predict, score
from trainables.losses import CLASS_WEIGHTS, penalty, training_loss
from trainables.metrics import Scores, confused
from trainables.models import build, heads
from trainables.optimizers import Schedule, build_optimizer, clip_gradients
from trainables.seeds import seed_for
from trainables.splits import SearchData
from trainables.trial_rows import trial_rows

CHECK_EVERY = 100  # steps between checks of the loss: each check waits for the device
PLAIN_VALUES = ("epoch", "step", "score", "best_epoch", "peak", "peak_epoch", "calibration")  # of a state

SELECTIONS = {"best": False, "last": True}  # whether a trial ends with its newest epoch, and so keeps no weights


@dataclass(frozen=True)
class TrialData:
    """The rows of one trial (int64 on the CPU), as in `TrialRows`, and its batches."""

    batches: Batches
    train_rows: Tensor
    scored_rows: Tensor
    epoch_rows: int  # rows per epoch, the same for all trials over a split
    classes: int
    image_size: int  # pixels of the shorter side
    class_weights: Tensor | None = None  # float32 [classes], on the device
    final_rows: Mapping[str, Tensor] = field(default_factory=dict)  # part of the data → rows, measured at the end
    scored_is_test: bool = False  # as in `TrialRows`

    @classmethod
    def select(cls, config: TrialConfig, data: SearchData, batches: Batches) -> TrialData:
        """Select the rows that `config` names; `batches` holds the images of `data` on the device.

        Raises:
            ConfigError: the data have no such rows.
        """
        rows, classes = trial_rows(data, config), len(data.classes)
        train_rows = torch.from_numpy(rows.train)
        weights = look_up(CLASS_WEIGHTS, config.class_weights, "class_weights")
        return cls(
            batches=batches.normalized_by(rows.mean, rows.std),
            train_rows=train_rows,
            scored_rows=torch.from_numpy(rows.scored),
            epoch_rows=rows.epoch_rows,
            classes=classes,
            image_size=batches.image_size(config),
            class_weights=weights(batches.labels[train_rows], classes),
            final_rows={part: torch.from_numpy(of_part) for part, of_part in rows.final.items()},
            scored_is_test=rows.scored_is_test,
        )

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
    under `selection=last`. `peak` is the running best under either; patience looks at that.
    """

    config: TrialConfig
    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    scaler: torch.amp.GradScaler
    device: torch.device
    epoch: int = 0
    step: int = 0
    score: float | None = None
    best_epoch: int = 0
    peak: float | None = None
    peak_epoch: int = 0
    best_weights: dict[str, Tensor] = field(default_factory=dict)  # those that training changes, in the best epoch
    calibration: dict[str, float | None] | None = None  # of these weights, fitted to the scored rows; see `Calibration`
    on_features: bool = False  # batches hold features, the outputs of the frozen base, in place of images

    @property
    def network(self) -> nn.Module:
        """The part of the model that computes logits from a batch."""
        return heads.head_of(self.model) if self.on_features else self.model

    @classmethod
    def start(cls, config: TrialConfig, data: TrialData, device: torch.device) -> TrialState:
        """Start a new trial, with weights drawn from its seed."""
        torch.manual_seed(seed_for(config.seed, "weights"))
        model = build.build(config, data.classes, data.image_size)
        model = model.to(device)
        if device.type != "cpu":  # a CPU's kernels rearrange weights anyway, and its fused optimizers would copy them
            model = model.to(memory_format=memory_format(config))
        if config.freeze:
            heads.freeze_base(model)
        optimizer = build_optimizer(config, model)
        steps = steps_an_epoch(data.epoch_rows, config.batch_size)
        scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "float16")
        return cls(config, model, optimizer, Schedule(config, optimizer, steps), scaler, device)

    def kept_weights(self) -> dict[str, Tensor]:
        """Return the weights that the trial would end with, those of `best_epoch`, under the model's names."""
        return self.model.state_dict() | self.best_weights

    def to_checkpoint(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return tensors and plain JSON values from which `restore` makes an equal state."""
        optimizer = self.optimizer.state_dict()["state"]
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best_weights.items()}
        tensors |= {f"optimizer.{i}.{name}": t for i, entry in optimizer.items() for name, t in entry.items()}
        values = {name: getattr(self, name) for name in PLAIN_VALUES}
        return tensors, {
            **values,
            "config": self.config.to_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def restore(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Take over a checkpoint of the same configuration.

        The optimizer's tensors get the memory layout of their parameters: fused steps go through memory in order and
        would otherwise pair each weight of a channels-last model with another one's momentum.
        """
        device, parameters = self.device, [p for group in self.optimizer.param_groups for p in group["params"]]
        self.model.load_state_dict(_part(tensors, "model."))
        self.best_weights = {name: tensor.to(device) for name, tensor in _part(tensors, "best.").items()}
        entries: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _part(tensors, "optimizer.").items():
            index, _, key = name.partition(".")
            parameter = parameters[int(index)]
            moment = torch.empty_like(parameter).copy_(tensor) if tensor.shape == parameter.shape else tensor
            entries.setdefault(int(index), {})[key] = moment
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": entries, "param_groups": groups})
        self.schedule.load_state_dict(values["schedule"])
        self.scaler.load_state_dict(values["scaler"])
        for name in PLAIN_VALUES:
            setattr(self, name, values.get(name))  # calibration is not in the checkpoints of older versions


def train(data: TrialData, state: TrialState) -> Iterator[EpochMetrics]:
    """Train from `state` to the end of the trial, and yield the metrics of each epoch; `state` is up to date then.

    The last epoch's `stop_reason` is set. A trial that has ended yields nothing more.

    Raises:
        Diverged: the training or validation loss is not finite.
    """
    data, config = prepared(data, state), state.config
    while stop_reason(state) is None:
        state.epoch += 1
        torch.manual_seed(seed_for(config.seed, "dropout", state.epoch))
        started = time.perf_counter()
        train_loss, train_accuracy, rows, rate = train_epoch(data, state)
        trained = time.perf_counter()
        logits, labels = predict(config, data.batches, data.scored_rows, state.network)
        measured = score(config, data.batches, logits, labels)
        evaluated = time.perf_counter()
        if not measured.loss < float("inf"):
            raise Diverged(f"validation loss is {measured.loss} in epoch {state.epoch}")
        state.schedule.epoch_ended(measured.loss)
        keep_best(state, measured)
        if state.best_epoch == state.epoch and not data.scored_is_test:
            state.calibration = calibration(logits, labels, fit_temperature(logits, labels))._asdict()
        yield EpochMetrics(
            epoch=state.epoch,
            step=state.step,
            lr=rate,
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            **{f"val_{name}": value for name, value in measured._asdict().items() if name != "confusion"},
            train_s=trained - started,
            eval_s=evaluated - trained,
            images_per_s=rows / (trained - started),
            peak_memory_mb=memory.peak_mb(),
            peak_gpu_mb=memory.peak_gpu_mb(state.device),
            val_confusion=measured.confusion.tolist() if data.classes <= CONFUSION_CLASSES else None,
            val_confused=confused(logits.argmax(1), labels, data.scored_rows, data.classes),
            stop_reason=stop_reason(state),
        )


def prepared(data: TrialData, state: TrialState) -> TrialData:
    """Return the data as the trial trains on them: features in place of images if its base is frozen and they suffice.

    Prepared data are returned as they are.
    """
    state.on_features = features.suffice(state.config)
    if not state.on_features or isinstance(data.batches, features.Features):
        return data
    return dataclasses.replace(data, batches=features.of(state.config, state.model, data.batches, predict))


def train_epoch(data: TrialData, state: TrialState) -> tuple[float, float, int, float]:
    """Train an epoch; return the mean loss, the accuracy, the rows trained and the last step's learning rate."""
    heads.set_training(state.config, state.model)
    order = torch.Generator().manual_seed(seed_for(state.config.seed, "batches", state.epoch))
    totals = torch.zeros(2, dtype=torch.float64, device=state.device)  # loss and correct predictions, over rows
    rows, rate = 0, 0.0
    for images, labels in data.batches.train(data.train_rows, data.epoch_rows, state.config, order):
        rate = state.schedule.set_rate(state.step)
        loss, logits = optimizer_step(state, images, labels, data.class_weights)
        totals += torch.stack((loss * len(labels), (logits.argmax(1) == labels).sum()))
        state.step += 1
        rows += len(labels)
        if state.step % CHECK_EVERY == 0:
            _check_finite(totals, state.epoch)
    _check_finite(totals, state.epoch)
    loss_sum, correct = totals.tolist()
    return loss_sum / rows, correct / rows, rows, rate


def optimizer_step(
    state: TrialState, images: Tensor, labels: Tensor, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Run forward under autocast, backward, clip and step; return the loss, a scalar, and the logits [B, C], detached.

    `weights` are those of the classes, float32 [C].
    """
    config = state.config
    with autocast(config, state.device):
        logits = state.network(images)
    logits = logits.float()
    loss = training_loss(config, logits, labels, weights)
    if config.head_l1 or config.head_l2:
        head = heads.head_of(state.model)
        loss = loss + penalty(config, (parameter for parameter in head.parameters() if parameter.ndim > 1))
    torch.autograd.backward(state.scaler.scale(loss))
    if config.grad_clip > 0:
        state.scaler.unscale_(state.optimizer)
        clip_gradients(state.model.parameters(), config.grad_clip)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad()
    return loss.detach(), logits.detach()


def final_metrics(data: TrialData, state: TrialState) -> dict[str, dict[str, Any]]:
    """Measure the weights that a trial ends with; return part of `final_rows` → metrics, as plain JSON values.

    The metrics are those of `evaluation.measure`. The model keeps these weights, so this is for a trial that has ended.
    """
    if not data.final_rows:
        return {}
    data, config = prepared(data, state), state.config
    state.model.load_state_dict(state.kept_weights())
    temperature = None if state.calibration is None else state.calibration["temperature"]
    return {
        part: measure(config, data.batches, rows, state.network, temperature) for part, rows in data.final_rows.items()
    }


def keep_best(state: TrialState, measured: Scores) -> None:
    """Keep this epoch's score and weights if the trial would end with them: see `SELECTIONS`."""
    config = state.config
    value = getattr(measured, config.metric.removeprefix("val_"))
    improved = better(config.metric, value, state.peak) or state.peak_epoch == 0
    if improved:
        state.peak, state.peak_epoch = value, state.epoch
    newest = look_up(SELECTIONS, config.selection, "selection")
    if improved or newest:
        state.score, state.best_epoch = value, state.epoch
    if improved and not newest:
        changing = heads.head_of(state.model) if config.freeze else state.model
        changed = {id(tensor) for tensor in changing.state_dict(keep_vars=True).values()}
        weights = state.model.state_dict(keep_vars=True).items()
        state.best_weights = {name: tensor.detach().clone() for name, tensor in weights if id(tensor) in changed}


def stop_reason(state: TrialState) -> StopReason | None:
    """Return why the trial ends with this epoch; None if it does not."""
    if state.epoch >= state.config.max_epochs:
        return "budget"
    if state.config.patience and state.epoch - state.peak_epoch >= state.config.patience:
        return "patience"
    return None


def _check_finite(totals: Tensor, epoch: int) -> None:
    if not bool(torch.isfinite(totals).all()):
        raise Diverged(f"training loss is not finite in epoch {epoch}")


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
