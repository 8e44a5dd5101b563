"""Evaluation: what a model predicts for rows that it does not train on, and the metrics of that."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from trainables import correct_predictions, memory, user_metrics
from trainables.batches import Batches, memory_format
from trainables.calibration import calibration, reliability
from trainables.config import TrialConfig
from trainables.datasets.source import Pixels
from trainables.datasets.stored_images import StoredImages
from trainables.epoch_metrics import MANY_CLASSES
from trainables.errors import WeightsError, look_up
from trainables.metrics import confusion_matrix, in_top, scores
from trainables.models import build, view_mean
from trainables.models.convolutions import with_small_outputs
from trainables.row_predictions import RowPredictions
from trainables.views import Color

ROWS = 4096  # of logits that are computed with at a time
PRECISIONS = {
    "auto": None,  # until `precision.resolve` has replaced it
    "float32": None,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
"""Values of `precision` → the type that autocast computes in; None: no autocast."""


def autocast(config: TrialConfig, device: torch.device) -> torch.autocast:
    """Return the context of the configuration's mixed precision, which changes nothing for float32."""
    dtype = look_up(PRECISIONS, config.precision, "precision")
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None)


@torch.inference_mode()
def predict(config: TrialConfig, batches: Batches, rows: Tensor, model: nn.Module) -> tuple[Tensor, Tensor]:
    """Return float32 logits [N, C] and int64 labels [N] of `rows`, in their order."""
    model.eval()
    logits, labels = [], []
    for images, batch_labels in batches.evaluate(rows, config):
        with autocast(config, images.device):
            logits.append(model(images).float())
        labels.append(batch_labels)
    return torch.cat(logits), torch.cat(labels)


def measured(
    logits: Tensor,
    labels: Tensor,
    positive: int,
    temperature: float | None,
    seconds: float,
    metric: str = TrialConfig.metric,
) -> dict[str, Any]:
    """Return the metrics of float32 logits [N, C] for int64 labels [N], as plain JSON values.

    They are `rows`, `seconds`, those of `Scores` (None where undefined) and `Calibration`, the user's `metric` if it is
    one, `reliability` (of the calibrated probabilities), `correct` (see `correct_predictions.pack`: runs are compared
    row by row), `predictions` (see `RowPredictions`: other rows are drawn from these) and, of at most
    MANY_CLASSES classes, `confusion`.

    Args:
        positive: of two classes the one that precision, recall and F1 are of.
        temperature: the one fitted to the model, if there is one.
        seconds: those that the predictions took.
        metric: the one that the trial's score is of.

    Raises:
        ConfigError: the user's metric raised, or returned something other than a number.
    """
    found, predictions, classes = scores(logits, labels, positive), logits.argmax(1), logits.shape[1]
    few = classes <= MANY_CLASSES
    return {
        "rows": len(labels),
        "seconds": seconds,
        **found._asdict(),
        "loss": found.loss if math.isfinite(found.loss) else None,  # external test sets may overflow it
        **calibration(logits, labels, temperature)._asdict(),
        **user_metrics.of_outputs(metric, logits, labels),
        **({"confusion": confusion_matrix(predictions, labels, classes).tolist()} if few else {}),
        "reliability": reliability(logits, labels, temperature),
        "correct": correct_predictions.pack((predictions == labels).cpu().numpy()),
        "predictions": _row_predictions(logits, labels, predictions).pack(),
    }


def _row_predictions(logits: Tensor, labels: Tensor, predictions: Tensor) -> RowPredictions:
    """Return the predictions of float32 logits [N, C] for int64 labels [N] row by row."""
    pairs = zip(torch.split(logits, ROWS), torch.split(labels, ROWS), strict=True)
    losses = torch.cat([functional.cross_entropy(*pair, reduction="none") for pair in pairs])
    inside = in_top(logits, labels)
    in_top_rows = torch.ones_like(labels, dtype=torch.bool) if inside is None else inside
    return RowPredictions(*(values.cpu().numpy() for values in (labels, predictions, losses, in_top_rows)))


def as_predicted(config: TrialConfig) -> TrialConfig:
    """Return `config` with the precision of predictions, float32, whatever the trial was trained in.

    A trial's precision is for the device that it was trained on: bfloat16 and float16 are several times slower on a
    processor without instructions for them. The memory format stays; it is as good everywhere, or nearly so.
    """
    return config.replace(precision="float32")


def trained_model(
    config: TrialConfig, weights: Mapping[str, Tensor], classes: int, image_size: int, device: torch.device
) -> nn.Module:
    """Build what predicts with the model of `config` and all its weights, in evaluation mode, without gradients.

    Raises:
        WeightsError: the weights do not fit the model.
    """
    with torch.random.fork_rng(devices=()):  # weights are drawn before they are loaded
        model = build.build(config, classes, image_size, initialized=False)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise WeightsError(" ".join(str(error).split())[:200]) from error
    if device.type == "cpu":  # as in training
        with_small_outputs(model)
    else:
        model = model.to(memory_format=memory_format(config))
    return view_mean.evaluated(config, model.to(device)).eval().requires_grad_(False)


def on_images(
    config: TrialConfig,
    weights: Mapping[str, NDArray[Any]],
    images: Pixels | StoredImages,
    labels: NDArray[np.int64],
    statistics: tuple[NDArray[np.float32], NDArray[np.float32]],
    classes: int,
    background: Color,
    positive: int,
    temperature: float | None,
    gpus: float = 0.0,
) -> tuple[dict[str, Any], NDArray[np.float32]]:
    """Return what `measured` does of a model on `images` [N, H, W, C], such as a test set's, and its logits [N, C].

    Args:
        config: the trial's, its autos resolved and its image size as it was.
        weights: by name, those of the trial's last checkpoint.
        statistics: mean and deviation of the trial's training part.
        background: the color around pictures that are padded.
        positive, temperature: as `measured` takes them.
        gpus: the share of a GPU that this process was given; 0: it computes on the CPU, whatever GPUs there are.
    """
    device, started = torch.device("cuda" if gpus else "cpu"), time.perf_counter()
    memory.fence(device, gpus)
    config, batches = as_predicted(config), Batches(images, labels, *statistics, device, background)
    tensors = {name: torch.from_numpy(array) for name, array in weights.items()}
    model = trained_model(config, tensors, classes, batches.image_size(config), device)
    logits, truth = predict(config, batches, torch.arange(len(labels)), model)
    metrics = measured(logits, truth, positive, temperature, time.perf_counter() - started, config.metric)
    return metrics, logits.cpu().numpy()
