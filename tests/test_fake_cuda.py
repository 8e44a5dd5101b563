"""Fake tensors on `cuda`: no operation of a training step leaves its device, which needs no GPU to be seen.

Fake tensors have shapes, types and devices, but no numbers. An operation over tensors of two devices raises. So does
one that needs a number, as `.item()` does: what waits for the device in a step shows, too.

They cannot carry everything without a driver: not the backward pass, whose engine asks for CUDA's streams (gradients
are fake, too, in its place), not torch's fused SGD (the steps are AdamW's), not TrivialAugment, which picks rows by
`nonzero`, and not a copy of a model, as a moving average of the weights is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily

from trainables.augmentation import augment, draw
from trainables.batches import normalize
from trainables.config import TrialConfig
from trainables.epoch_sums import EpochSums
from trainables.fused_heads import FusedHeads
from trainables.learner import Fold
from trainables.loop import TrialState, optimizer_step
from trainables.mixing import draw_mix, mixed
from trainables.models import build
from trainables.operators import from_nhwc

CUDA = torch.device("cuda")
ROWS, SIDE = 16, 8
AUGMENTED: dict[str, Any] = {
    "flip": True, "rotation": 10.0, "shift": 0.1, "scale": 0.1, "crop_padding": 1, "brightness": 0.1, "contrast": 0.1,
    "saturation": 0.1, "erasing": 0.3, "mixup": 0.2, "cutmix": 1.0,
}  # fmt: skip
STEPS: dict[str, dict[str, Any]] = {
    "resnet20": {"model": "resnet20"},
    "resnet18": {"model": "resnet18", "precision": "float16", "grad_clip": 1.0},
    "efficientnet_b0": {"model": "efficientnet_b0", "grad_clip": 1.0},
    "frozen head": {"model": "resnet18", "freeze": True, "flip": True},
    "micro-batches": {"model": "resnet8", "micro_batch": 8, "evaluation_views": "flip"},
    **{f"augmented by {name}": {"model": "resnet8", name: value} for name, value in AUGMENTED.items()},
    "augmented by all": {"model": "resnet20", **AUGMENTED},
    "losses": {"model": "resnet8", "class_weights": "inverse", "logit_adjustment": 1.0, "focal_gamma": 1.0},
}


def on_cuda(model: nn.Module) -> nn.Module:
    """Give a model fake tensors on `cuda`, and have it stay there: fake parameters cannot be moved."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(torch.empty(parameter.shape, device=CUDA))
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device=CUDA)
    model.to = lambda *_, **__: model  # type: ignore[method-assign]
    return model


@contextmanager
def faked(made: TrialConfig, monkeypatch: pytest.MonkeyPatch) -> Iterator[TrialState]:
    """Yield a trial whose model is of fake tensors on `cuda`; what is made within is fake, too."""
    build_filled, data = build.build_filled, tiny.select(made)

    def built(*arguments: Any) -> tuple[nn.Module, Any]:
        with unset_fake_temporarily():
            model, filled = build_filled(*arguments)
        return on_cuda(model), filled

    monkeypatch.setattr(build, "build_filled", built)
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)
    with FakeTensorMode(allow_non_fake_inputs=True):
        state = TrialState.start(made, data, CUDA)

        def backward(loss: Tensor) -> None:
            assert loss.requires_grad
            assert loss.device.type == "cuda"
            for parameter in state.model.parameters():
                parameter.grad = torch.empty_like(parameter) if parameter.requires_grad else None

        monkeypatch.setattr(torch.autograd, "backward", backward)
        yield state


def batch(state: TrialState, drawn: Tensor, mix: Any) -> tuple[Tensor, Tensor]:
    """Return a batch as `Batches.train` makes it of views that are on the device; random numbers are from the CPU."""
    made = state.config
    images = from_nhwc(torch.empty(ROWS, SIDE, SIDE, 3, dtype=torch.uint8, device=CUDA))
    labels = torch.empty(ROWS, dtype=torch.int64, device=CUDA)
    mean, std = torch.empty(3, device=CUDA), torch.empty(3, device=CUDA)
    images = augment(normalize(augment(images, drawn, made), mean, std), drawn, made, normalized=True)
    images = images.contiguous(memory_format=torch.channels_last)
    return (images, labels) if mix is None else mixed(images, labels, 3, mix)


@pytest.mark.parametrize("name", STEPS)
def test_a_step_stays_on_its_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tiny.config(
        **{"precision": "bfloat16", "memory_format": "channels_last", "optimizer": "adamw", **STEPS[name]}
    )
    drawn = draw(ROWS, torch.Generator().manual_seed(0))
    mix = draw_mix(drawn, made, (SIDE, SIDE))
    with faked(made, monkeypatch) as state:
        learner, sums = state.kept, EpochSums(CUDA, 1)
        learner.schedule.set_rate(0)
        learner.begin_epoch(1)
        images, targets = batch(state, drawn, mix)
        weights = shift = torch.empty(3, device=CUDA) if name == "losses" else None
        loss, logits = optimizer_step(learner, images, targets, weights, shift)
        sums.add(learner, loss, logits, targets)
        moments = [t for entry in learner.optimizer.state.values() for t in entry.values() if torch.is_tensor(t)]
        for tensor in (images, targets, loss, logits, sums._totals, *moments, *state.model.state_dict().values()):
            assert isinstance(tensor, FakeTensor)
            assert tensor.device.type == "cuda"
        assert learner.predictor.eval()(images).device.type == "cuda"
        if made.precision == "float16":
            assert learner.scaler.left_out is not None
            assert learner.scaler.left_out.device.type == "cuda"


def test_a_tensor_on_the_wrong_device_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    made, drawn = tiny.config(model="resnet8", optimizer="adamw"), draw(ROWS, torch.Generator().manual_seed(0))
    with faked(made, monkeypatch) as state:
        state.kept.schedule.set_rate(0)
        images, targets = batch(state, drawn, None)
        with pytest.raises(RuntimeError, match="device"):
            optimizer_step(state.kept, images, targets, torch.ones(3))


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")  # as a copy of a model does
@pytest.mark.parametrize("fields", [{}, {"dropout": 0.3, "head_l2": 0.1}, {"precision": "bfloat16"}])
def test_a_step_of_fused_heads_stays_on_its_device(fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with faked(tiny.config(freeze=True, optimizer="adamw", **fields), monkeypatch) as state:
        learners = [state.kept, state.kept.twin(ROWS), state.kept.twin(ROWS)]

        def backward(loss: Tensor) -> None:
            assert loss.device.type == "cuda"
            for parameter in (each for learner in learners for each in learner.head.parameters()):
                parameter.grad = torch.empty_like(parameter)

        monkeypatch.setattr(torch.autograd, "backward", backward)
        for learner in learners:
            learner.on_features = True
            learner.begin_epoch(1)
        fold = Fold(torch.empty(0), torch.empty(0))
        width = next(learners[0].head.parameters()).shape[1]
        fused = FusedHeads(learners, [fold] * len(learners))
        of_one = torch.empty(ROWS, width, device=CUDA), torch.empty(ROWS, dtype=torch.int64, device=CUDA)
        found = fused.step([of_one] * len(learners))
        fused.end()
        moments = [t for learner in learners for e in learner.optimizer.state.values() for t in e.values()]
        assert len(moments) == len(learners) * 2 * 3  # of weight and bias: the step's number and two moments
        for tensor in (*found, *moments):
            assert isinstance(tensor, FakeTensor)
            assert tensor.device.type == "cuda"
