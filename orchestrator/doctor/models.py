"""Check that each model of the search space can be trained, and estimate the memory and disk space of a trial."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.doctor.finding import Finding, all_failed, failed
from orchestrator.plan.plan import Plan
from search_spaces.space import SearchSpace
from trainables.config import TrialConfig
from trainables.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from trainables.batches import Batches
    from trainables.splits import SearchData

STEP_ROWS = 16  # of the tried step: enough for batch norm, quick for large models


@dataclass(frozen=True)
class Cost:
    """Bytes that a trial of one model takes."""

    weights: int
    state: int  # on disk: weights, best weights, the optimizer's state
    memory: int  # of a worker: weights, best weights, gradients, the optimizer's state, activations


def check_models(planned: Plan, data: SearchData) -> Generator[Finding, None, list[Cost]]:
    """Try one optimizer step of each model that the space names, as a worker does it but of few rows; return costs."""
    import torch

    from trainables.batches import Batches
    from trainables.errors import WeightsError
    from trainables.memory import out_of_memory

    device = torch.device("cuda" if planned.slot_gpus and torch.cuda.is_available() else "cpu")
    torch.set_num_threads(planned.slot_cpus)
    batches = Batches.of(data, device)
    costs = []
    for name, weights, space in _models(planned):
        config = space.base.replace(model=name, weights=weights, threads=planned.slot_cpus)
        label = name if weights == "none" else f"{name} with weights={weights}"
        other = 'leave the model out of the search space: --set model=… and --search "model=…"'
        try:
            cost, seconds = _step(config, data, batches, device, max(space.values("batch_size")))
        except ConfigError as error:
            yield from all_failed("model", error.problems, other)
        except WeightsError as error:
            yield failed("model", f"{label}: {error}", other)
        except Exception as error:  # whatever it is, a trial would fail by it
            fix = "a smaller batch_size or model" if out_of_memory(error) else other
            what = (str(error).splitlines() or [""])[0]
            yield Finding("model", "failed", f"{label}: {type(error).__name__}: {what}", fix)
        else:
            costs.append(cost)
            what = f"{label}: {cost.weights / 4e6:.3g} million parameters"
            yield Finding("model", "ok", f"{what}; a step of {STEP_ROWS} rows on {device.type} took {seconds:.2g} s")
    return costs


def _models(planned: Plan) -> Iterator[tuple[str, str, SearchSpace]]:
    """Yield each model with each of its initial weights, and the space of the first arm that has them."""
    seen = set()
    for space in planned.arms.values():
        for params in space.branches(("model", "weights")):
            config = space.config(params)
            if (config.model, config.weights) not in seen:
                seen.add((config.model, config.weights))
                yield config.model, config.weights, space


def _step(
    config: TrialConfig, data: SearchData, batches: Batches, device: torch.device, batch_size: int
) -> tuple[Cost, float]:
    """Return what a trial with full batches will take, and the seconds of one optimizer step of a few rows."""
    import torch

    from trainables.loop import TrialData, TrialState, optimizer_step
    from trainables.models import heads

    auto = "float32" if device.type == "cpu" else "bfloat16"
    at_once = min(batch_size, config.micro_batch or batch_size)
    config = config.replace(
        batch_size=min(batch_size, STEP_ROWS),
        micro_batch=0,
        precision=auto if config.precision == "auto" else config.precision,
        memory_format="contiguous" if config.memory_format == "auto" else config.memory_format,
    )
    trial = TrialData.select(config, data, batches)
    state = TrialState.start(config, trial, device)
    state.kept.schedule.set_rate(0)
    heads.set_training(config, state.model)
    images, labels = next(batches.train(trial.train_rows, trial.epoch_rows, config, torch.Generator().manual_seed(0)))
    saved: dict[int, int] = {}  # bytes that wait for the backward pass, by address

    def save(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    started = time.perf_counter()
    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        optimizer_step(state.kept, images, labels, trial.folds[0].class_weights)[0].item()
    seconds = time.perf_counter() - started
    moments = [
        tensor for entry in state.kept.optimizer.state.values() for tensor in entry.values() if torch.is_tensor(tensor)
    ]
    weights, extra = _bytes(state.model.state_dict().values()), _bytes(moments)
    full_batch = min(at_once, trial.epoch_rows)
    activations = sum(saved.values()) * full_batch // len(labels)
    copies = 3 if config.ema else 2  # the model and its best weights, and their average
    state_bytes = len(trial.folds) * (copies * weights + extra)
    return Cost(weights, state_bytes, weights + state_bytes + activations), seconds


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
