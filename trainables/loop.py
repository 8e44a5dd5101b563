"""The shared training loop: `train` yields one `EpochMetrics` an epoch and knows nothing of the sweep.

All randomness of an epoch follows from (trial seed, epoch), so a trial that goes on from an epoch's end needs no
saved random state to give the same losses as one that was never interrupted.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from trainables import correct_predictions, features, memory
from trainables.batches import Batches, memory_format, steps_an_epoch
from trainables.calibration import calibration, fit_temperature
from trainables.config import TrialConfig
from trainables.epoch_metrics import CONFUSION_CLASSES, EpochMetrics, StopReason, better
from trainables.errors import Diverged
from trainables.losses import class_weights, penalty, training_loss
from trainables.metrics import Scores, balanced_accuracy, confused, scores
from trainables.models import build, heads
from trainables.optimizers import Schedule, build_optimizer, clip_gradients
from trainables.seeds import seed_for
from trainables.splits import SearchData
from trainables.trial_rows import trial_rows

CHECK_EVERY = 100  # steps between looks at the loss: each look waits for the device
COUNTED = ("epoch", "step", "score", "best_epoch", "peak", "peak_epoch", "calibration")  # plain values of a state


@dataclass(frozen=True)
class TrialData:
    """The rows of one trial (int64 on the CPU), as in `TrialRows`, and its batches."""

    batches: Batches
    train_rows: Tensor
    scored_rows: Tensor
    epoch_rows: int  # rows an epoch, the same for all trials over a split
    classes: int
    image_size: int  # pixels, the smaller side
    class_weights: Tensor | None = None  # float32 [classes], on the device
    final_rows: Mapping[str, Tensor] = field(default_factory=dict)  # part → rows, measured once at the end
    scored_is_test: bool = False  # as in `TrialRows`

    @classmethod
    def select(cls, config: TrialConfig, data: SearchData, batches: Batches) -> TrialData:
        """The rows that `config` asks for; `batches` holds the images of `data` on the device.

        Raises:
            ConfigError: the data have no such rows.
        """
        rows = trial_rows(data, config)
        trained = torch.from_numpy(rows.train)
        weighted = config.class_weights == "inverse"
        return cls(
            batches.normalized_by(rows.mean, rows.std),
            trained,
            torch.from_numpy(rows.scored),
            rows.epoch_rows,
            len(data.classes),
            batches.image_size(config),
            class_weights(batches.labels[trained], len(data.classes)) if weighted else None,
            {part: torch.from_numpy(found) for part, found in rows.final.items()},
            rows.scored_is_test,
        )

    def of_run(self, config: TrialConfig, final: bool) -> TrialData:
        """As a sweep's run sees it: measured at its end if it is a final one, then on the core as well.

        Of a trial that is searched nobody should know how it does on test rows.
        """
        validation = {"validation": self.scored_rows} if config.split == "core" else {}
        return dataclasses.replace(self, final_rows={**validation, **self.final_rows} if final else {})


@dataclass
class TrialState:
    """All of a trial that outlives an epoch: what a checkpoint holds.

    `score` is what the trial would end with, at `best_epoch`: the running best of its metric, or the newest value if
    `selection` says so. `peak` is the running best, whatever it says; patience looks at that.
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
    best_weights: dict[str, Tensor] = field(default_factory=dict)  # of the best epoch, what training changes
    calibration: dict[str, float | None] | None = None  # of these weights, fitted to the scored rows; see `Calibration`
    on_features: bool = False  # batches hold what the base makes of images

    @property
    def network(self) -> nn.Module:
        """What makes logits of a batch."""
        return heads.head_of(self.model) if self.on_features else self.model

    @classmethod
    def start(cls, config: TrialConfig, data: TrialData, device: torch.device) -> TrialState:
        """A new trial: weights drawn from the trial's seed."""
        torch.manual_seed(seed_for(config.seed, "weights"))
        model = build.build(config, data.classes, data.image_size)
        model = model.to(device)
        if device.type != "cpu":  # its kernels lay weights out anew anyway, and its fused optimizers would copy them
            model = model.to(memory_format=memory_format(config))
        if config.freeze:
            heads.freeze_base(model)
        optimizer = build_optimizer(config, model)
        steps = steps_an_epoch(data.epoch_rows, config.batch_size)
        scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "float16")
        return cls(config, model, optimizer, Schedule(config, optimizer, steps), scaler, device)

    def kept_weights(self) -> dict[str, Tensor]:
        """The weights that the trial would end with, under the model's names: those of `best_epoch`."""
        return self.model.state_dict() | self.best_weights

    def to_checkpoint(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and plain JSON values from which `restore` makes an equal state."""
        optimizer = self.optimizer.state_dict()["state"]
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best_weights.items()}
        tensors |= {f"optimizer.{i}.{name}": t for i, entry in optimizer.items() for name, t in entry.items()}
        values = {name: getattr(self, name) for name in COUNTED}
        return tensors, {
            **values,
            "config": self.config.to_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def restore(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Take over a checkpoint of the same configuration.

        What the optimizer keeps is laid out as its parameters are: fused steps go through memory in order and would
        otherwise pair each weight of a channels-last model with another one's momentum.
        """
        device, parameters = self.device, [p for group in self.optimizer.param_groups for p in group["params"]]
        self.model.load_state_dict(_part(tensors, "model."))
        self.best_weights = {name: tensor.to(device) for name, tensor in _part(tensors, "best.").items()}
        entries: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _part(tensors, "optimizer.").items():
            index, _, key = name.partition(".")
            like = parameters[int(index)]
            same = torch.empty_like(like).copy_(tensor) if tensor.shape == like.shape else tensor
            entries.setdefault(int(index), {})[key] = same
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": entries, "param_groups": groups})
        self.schedule.load_state_dict(values["schedule"])
        self.scaler.load_state_dict(values["scaler"])
        for name in COUNTED:
            setattr(self, name, values.get(name))  # calibration is not in the checkpoints of older versions


def train(config: TrialConfig, data: TrialData, state: TrialState) -> Iterator[EpochMetrics]:
    """Train from `state` to the end of the trial; `state` is up to date whenever an epoch is yielded.

    The last epoch's `stop_reason` is set. A trial that has ended yields nothing more.

    Raises:
        Diverged: the training or validation loss is not finite.
    """
    data = prepared(config, data, state)
    while why_stop(config, state) is None:
        state.epoch += 1
        torch.manual_seed(seed_for(config.seed, "dropout", state.epoch))
        started = time.perf_counter()
        train_loss, train_accuracy, rows, rate = train_epoch(config, data, state)
        trained = time.perf_counter()
        logits, labels = predict(config, data.batches, data.scored_rows, state.network)
        found = score(config, data.batches, logits, labels)
        evaluated = time.perf_counter()
        if not found.loss < float("inf"):
            raise Diverged(f"validation loss is {found.loss} in epoch {state.epoch}")
        state.schedule.epoch_ended(found.loss)
        keep_best(config, state, found)
        if state.best_epoch == state.epoch and not data.scored_is_test:
            state.calibration = calibration(logits, labels, fit_temperature(logits, labels))._asdict()
        yield EpochMetrics(
            epoch=state.epoch,
            step=state.step,
            lr=rate,
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            **{f"val_{name}": value for name, value in found._asdict().items() if name != "confusion"},
            train_s=trained - started,
            eval_s=evaluated - trained,
            images_per_s=rows / (trained - started),
            peak_memory_mb=memory.peak_mb(),
            peak_gpu_mb=memory.peak_gpu_mb(state.device),
            val_confusion=found.confusion.tolist() if data.classes <= CONFUSION_CLASSES else None,
            val_confused=confused(logits.argmax(1), labels, data.scored_rows, data.classes),
            stop_reason=why_stop(config, state),
        )


def prepared(config: TrialConfig, data: TrialData, state: TrialState) -> TrialData:
    """The data as the trial sees them: for a frozen base, features in place of images, where they never change.

    What is prepared stays as it is.
    """
    state.on_features = features.suffice(config)
    if not state.on_features or isinstance(data.batches, features.Features):
        return data
    return dataclasses.replace(data, batches=features.of(config, state.model, data.batches, predict))


def train_epoch(config: TrialConfig, data: TrialData, state: TrialState) -> tuple[float, float, int, float]:
    """One epoch of optimizer steps; mean loss, accuracy, rows trained and the last step's learning rate."""
    heads.set_training(config, state.model)
    order = torch.Generator().manual_seed(seed_for(config.seed, "batches", state.epoch))
    totals = torch.zeros(2, dtype=torch.float64, device=state.device)  # loss and hits, summed over rows
    rows, rate = 0, 0.0
    for images, labels in data.batches.train(data.train_rows, data.epoch_rows, config, order):
        rate = state.schedule.set_rate(state.step)
        loss, logits = optimizer_step(config, state, images, labels, data.class_weights)
        totals += torch.stack((loss * len(labels), (logits.argmax(1) == labels).sum()))
        state.step += 1
        rows += len(labels)
        if state.step % CHECK_EVERY == 0:
            _check_finite(totals, state.epoch)
    _check_finite(totals, state.epoch)
    loss_sum, correct = totals.tolist()
    return loss_sum / rows, correct / rows, rows, rate


def optimizer_step(
    config: TrialConfig, state: TrialState, images: Tensor, labels: Tensor, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Forward under autocast, backward, clip, step; the loss (a scalar) and the logits [B, C], detached."""
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


def score(config: TrialConfig, batches: Batches, logits: Tensor, labels: Tensor) -> Scores:
    """What `logits` of some rows of `batches` are worth to a trial."""
    rarest = config.positive_class == "rarest"
    positive = int(batches.labels.bincount().argmin()) if rarest else int(config.positive_class)
    return scores(logits, labels, positive)


def final_metrics(config: TrialConfig, data: TrialData, state: TrialState) -> dict[str, dict[str, Any]]:
    """What the weights that a trial ends with are worth: part of `final_rows` → figures, plain JSON values.

    Figures are `rows`, `seconds` (of their evaluation), those of `Scores` (None where undefined) and of `Calibration`,
    `balanced_accuracy`, `confusion` and `correct` (see `correct_predictions.pack`: runs are compared row by row). The
    model is left with these weights, so this is for a trial that has ended.
    """
    if not data.final_rows:
        return {}
    data = prepared(config, data, state)
    state.model.load_state_dict(state.kept_weights())
    temperature = None if state.calibration is None else state.calibration["temperature"]
    return {
        part: measure(config, data.batches, rows, state.network, temperature) for part, rows in data.final_rows.items()
    }


def measure(
    config: TrialConfig, batches: Batches, rows: Tensor, model: nn.Module, temperature: float | None = None
) -> dict[str, Any]:
    """Figures of `model` on `rows`, as of `final_metrics`; its calibration by `temperature`, if it has one."""
    started = time.perf_counter()
    logits, labels = predict(config, batches, rows, model)
    found = score(config, batches, logits, labels)
    return {
        "rows": len(rows),
        "seconds": time.perf_counter() - started,
        **found._asdict(),
        "loss": found.loss if math.isfinite(found.loss) else None,  # pictures from elsewhere may overflow it
        **calibration(logits, labels, temperature)._asdict(),
        "balanced_accuracy": balanced_accuracy(found.confusion),
        "confusion": found.confusion.tolist(),
        "correct": correct_predictions.pack((logits.argmax(1) == labels).cpu().numpy()),
    }


@torch.inference_mode()
def predict(config: TrialConfig, batches: Batches, rows: Tensor, model: nn.Module) -> tuple[Tensor, Tensor]:
    """float32 logits [N, C] and int64 labels [N] of `rows`, in their order."""
    model.eval()
    logits, labels = [], []
    for images, batch_labels in batches.evaluate(rows, config):
        with autocast(config, images.device):
            logits.append(model(images).float())
        labels.append(batch_labels)
    return torch.cat(logits), torch.cat(labels)


def keep_best(config: TrialConfig, state: TrialState, found: Scores) -> None:
    """Take this epoch's weights if its metric is the best so far; under `selection=last` the model has them anyway."""
    value = getattr(found, config.metric.removeprefix("val_"))
    improved = better(config.metric, value, state.peak) or state.peak_epoch == 0
    if improved:
        state.peak, state.peak_epoch = value, state.epoch
    if improved or config.selection == "last":
        state.score, state.best_epoch = value, state.epoch
    if improved and config.selection == "best":
        changing = heads.head_of(state.model) if config.freeze else state.model
        own = {id(tensor) for tensor in changing.state_dict(keep_vars=True).values()}
        weights = state.model.state_dict(keep_vars=True).items()
        state.best_weights = {name: tensor.detach().clone() for name, tensor in weights if id(tensor) in own}


def why_stop(config: TrialConfig, state: TrialState) -> StopReason | None:
    """Why the trial ends with this epoch, if it does."""
    if state.epoch >= config.max_epochs:
        return "budget"
    if config.patience and state.epoch - state.peak_epoch >= config.patience:
        return "patience"
    return None


def autocast(config: TrialConfig, device: torch.device) -> torch.autocast:
    """Mixed precision as the configuration has it; does nothing for float32."""
    dtype = torch.float16 if config.precision == "float16" else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=config.precision in ("float16", "bfloat16"))


def _check_finite(totals: Tensor, epoch: int) -> None:
    if not bool(torch.isfinite(totals).all()):
        raise Diverged(f"training loss is not finite in epoch {epoch}")


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
