"""On a CUDA device: trials in all precisions, the same batches as on a CPU, workers with little memory, lost contexts.

`make gpu` runs this on a machine that has torch and pytest alone, so nothing here needs Ray, or conftest.py.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from orchestrator.bundle import bundle
from trainables import canary, checkpoint, devices, fused_heads, loop, memory
from trainables.batches import Batches
from trainables.datasets.source import Pixels
from trainables.datasets.stored_images import ImageFile, StoredImages
from trainables.features import Features
from trainables.loop import TrialState, train
from trainables.losses import log_prior, training_loss
from trainables.precision import resolve
from trainables.storage import Storage
from trainables.trivial_augment import OPERATIONS, STRENGTHS, trivial_augment
from trainables.views import Resident, Streamed

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
ROOT, CUDA = Path(__file__).parent.parent, torch.device("cuda")


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_trial_learns(precision: str, optimizer: str) -> None:
    made = tiny.config(
        precision=precision, memory_format="channels_last", optimizer=optimizer, lr=0.02, max_epochs=8, grad_clip=1.0
    )
    data, state = tiny.start(made, CUDA)
    *_, last = train(data, state)
    assert (last.val_accuracy or 0.0) > 0.8
    assert last.peak_memory_mb > 0
    assert {p.device.type for p in state.model.parameters()} == {"cuda"}
    assert all(parameter.isfinite().all() for parameter in state.model.parameters())


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_trial_goes_on_from_a_checkpoint(precision: str, tmp_path: Path) -> None:
    made = tiny.config(precision=precision, memory_format="channels_last", optimizer="adamw", lr=0.01)
    data, state = tiny.start(made, CUDA)
    steps = train(data, state)
    next(steps)
    storage = Storage(str(tmp_path))
    checkpoint.save(storage, 0, 0, 1, checkpoint.pack(*state.to_checkpoint()))
    data, other = tiny.start(made, CUDA)
    saved = checkpoint.load(storage, 0)
    assert saved is not None
    other.restore(*saved[:2])
    for mine, theirs in zip(steps, train(data, other), strict=True):
        assert theirs.train_loss == pytest.approx(mine.train_loss, rel=0.05)
    assert {t.device.type for t in other.kept.best_weights.values()} == {"cuda"}


BATCHES: list[dict[str, Any]] = [
    {"flip": True, "crop_padding": 1, "rotation": 10.0, "shift": 0.1, "brightness": 0.2, "contrast": 0.2},
    {"flip": True, "erasing": 0.5},
    {"mixup": 0.4},
    {"cutmix": 1.0},
    {"mixup": 0.4, "cutmix": 1.0, "erasing": 0.5, "scale": 0.2},
    {"resized_crop": 0.4, "flip": True},
    {"resized_crop": 0.4, "image_size": 6},
    {"image_size": 12, "fit": "pad"},
    {"evaluation_crop": 0.75, "scale": 0.3, "rotation": 20.0},
]


@pytest.mark.parametrize("fields", BATCHES)
def test_batches_are_those_of_a_cpu(fields: dict[str, Any]) -> None:
    made = tiny.config(**fields)

    def batches(device: torch.device) -> list[tuple[torch.Tensor, torch.Tensor]]:
        data, _ = tiny.start(made, device)
        order = torch.Generator().manual_seed(3)
        return list(data.batches.train(data.train_rows, data.epoch_rows, made, order))

    for (images, labels), (expected, expected_labels) in zip(batches(CUDA), batches(tiny.CPU), strict=True):
        assert torch.equal(labels.cpu(), expected_labels)
        level = 1 / (255 * min(tiny.search_data().std.tolist()))  # scaling may round to the next one
        resampled = {"resized_crop", "image_size"} & set(fields)
        torch.testing.assert_close(images.cpu(), expected, rtol=1e-3, atol=1.01 * level if resampled else 1e-3)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_an_operation_of_trivial_augment_is_a_cpus(name: str, channels: int) -> None:
    """Compare at all strengths: a value may be rounded to the next level, and a pixel in a hundred be at an edge."""
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (STRENGTHS, channels, 24, 20), dtype=torch.uint8, generator=random)
    drawn = torch.full((3, STRENGTHS), (list(OPERATIONS).index(name) + 0.5) / len(OPERATIONS))
    drawn[1] = (torch.arange(STRENGTHS) + 0.5) / STRENGTHS
    expected, found = trivial_augment(images, drawn), trivial_augment(images.to(CUDA), drawn)
    assert found.device.type == "cuda"
    assert ((found.cpu().int() - expected.int()).abs() <= 1).float().mean() > 0.99


def test_a_batch_under_trivial_augment_is_a_cpus() -> None:
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (200, 3, 16, 16), dtype=torch.uint8, generator=random)
    drawn = torch.rand(3, 200, generator=random)
    expected, found = trivial_augment(images, drawn), trivial_augment(images.to(CUDA), drawn)
    assert ((found.cpu().int() - expected.int()).abs() <= 1).float().mean() > 0.99


def test_the_loss_is_a_cpus() -> None:
    logits = 3 * torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    labels, weights = torch.arange(40) % 5, torch.linspace(0.1, 0.3, 5)
    mixed = 0.3 * torch.eye(5)[labels] + 0.7 * torch.eye(5)[labels.roll(1)]
    for fields in ({"label_smoothing": 0.1}, {"focal_gamma": 0.5}, {"focal_gamma": 2.0, "label_smoothing": 0.1}):
        made = tiny.config(**fields, logit_adjustment=1.0)
        for targets in (labels, mixed):
            arguments = logits, targets, weights, log_prior(made, labels[:7], 5)
            there = [None if argument is None else argument.to(CUDA) for argument in arguments]
            found = training_loss(made, *there)  # type: ignore[arg-type]
            torch.testing.assert_close(found.cpu(), training_loss(made, *arguments), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fields", [{"mixup": 0.2, "cutmix": 0.5}, {"trivial_augment": True, "erasing": 0.25}])
def test_nothing_waits_for_the_device(fields: dict[str, Any]) -> None:
    """Draw an epoch's batches with torch's check of synchronization on."""
    made = tiny.config(flip=True, **fields)
    data, _ = tiny.start(made, CUDA)
    batches_of_epoch = data.batches.train(data.train_rows, data.epoch_rows, made, torch.Generator().manual_seed(0))
    next(batches_of_epoch)  # the first one waits: mean and deviation are sent
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert len(list(batches_of_epoch)) == 3
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_images_without_room_on_the_device_are_sent_batch_by_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, rows = tiny.search_data(), torch.arange(tiny.VALIDATION + tiny.POOL)
    assert isinstance(data.images, np.ndarray)
    np.save(tmp_path / "images.npy", data.images)
    files = StoredImages((ImageFile(tmp_path / "images.npy", data.images.shape),))

    def on_device(images: Pixels | StoredImages, share: float) -> list[tuple[torch.Tensor, torch.Tensor]]:
        monkeypatch.setattr(memory, "GPU_SHARE", share)
        made = Batches(images, data.labels, data.mean, data.std, CUDA)
        assert isinstance(made.images, Streamed if share == 0 else Resident)
        return list(made.train(rows, 200, tiny.config(flip=True, rotation=5.0), torch.Generator().manual_seed(0)))

    expected = on_device(data.images, 0.3)
    for images, share in ((data.images, 0), (files, 0), (files, 0.3)):
        for found, wanted in zip(on_device(images, share), expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def test_the_form_is_known_not_measured() -> None:
    found = resolve(made := tiny.config(precision="auto", memory_format="auto"), tiny.select(made, CUDA))
    assert found.precision in ("bfloat16", "float16")
    assert found.memory_format == "channels_last"


@pytest.mark.parametrize("model", ["vit_b_16", "efficientnet_b0", "convnext_tiny", "swin_t", "resnet18"])
def test_models_train(model: str) -> None:
    made = tiny.config(model=model, image_size=32, precision="bfloat16", memory_format="channels_last", max_epochs=1)
    data, state = tiny.start(made.replace(lr=1e-3, optimizer="adamw", ema=0.9), CUDA)
    (only,) = train(data, state)
    assert only.train_loss > 0
    assert all(parameter.isfinite().all() for parameter in state.model.parameters())


@pytest.mark.parametrize("fields", [{}, {"focal_gamma": 1.0}, {"class_weights": "inverse"}, {"dropout": 0.2}])
def test_heads_learn_on_features(fields: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare the features of a frozen base with a CPU's; they lie on the device."""
    monkeypatch.setenv("SWEEP_ORCHESTRATOR_CACHE", str(tmp_path))
    made = tiny.config(freeze=True, lr=0.1, max_epochs=10, **fields)
    features = {}
    for device in (CUDA, tiny.CPU):
        data, state = tiny.start(made, device)
        prepared = loop.prepared(data, state)
        assert isinstance(prepared.batches, Features)
        assert prepared.batches.features.device.type == device.type
        features[device.type] = prepared.batches.features.cpu()
        *_, last = train(data, state)
        assert last.train_loss > 0
    torch.testing.assert_close(features["cuda"], features["cpu"], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_heads_of_folds_learn_at_once(precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare them with the same heads one after another on the GPU."""
    monkeypatch.setenv("SWEEP_ORCHESTRATOR_CACHE", str(tmp_path))
    made, rows = (
        tiny.config(freeze=True, lr=0.1, max_epochs=2, precision=precision),
        np.arange(tiny.VALIDATION + tiny.POOL),
    )
    folds = tuple(rows[number::3] for number in range(3))
    data = dataclasses.replace(tiny.search_data(), validation=rows, pool=rows, folds=folds)
    losses = []
    for fit in (fused_heads.fit, lambda learners: False):
        monkeypatch.setattr(fused_heads, "fit", fit)
        selected = tiny.select_from(made, data, CUDA)
        state = TrialState.start(made, selected, CUDA)
        *_, last = train(selected, state)
        losses.append(last.train_loss)
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_the_gpu_answers() -> None:
    assert devices.is_seen()
    usable = devices.usable()
    assert usable, devices.unusable()
    assert usable[0].memory == torch.cuda.get_device_properties(0).total_memory


def test_the_need_of_steps_is_measured() -> None:
    need = canary.measure(tiny.config(), tiny.search_data())
    assert need.problem is None
    assert 0 < need.launch_s < 1
    assert 0 < need.device_s < need.launch_s, "a step of such a net is launched for longer than it is computed"
    assert need.data == tiny.search_data().images.nbytes
    assert 0 < need.peak < need.memory


@pytest.fixture
def shared() -> Iterator[None]:
    """Put the limit of this process's memory back."""
    yield
    memory.fence(CUDA)
    torch.cuda.empty_cache()


@pytest.mark.usefixtures("shared")
def test_a_worker_cannot_take_more_than_its_share() -> None:
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    memory.fence(CUDA, 0.05)
    assert memory.budget(CUDA) <= 0.3 * 0.05 * total
    with pytest.raises(torch.OutOfMemoryError) as caught:
        torch.empty(int(0.06 * total), dtype=torch.uint8, device=CUDA)
    assert memory.out_of_memory(caught.value, CUDA)
    assert memory.works(CUDA)
    memory.fence(CUDA)
    torch.empty(int(0.06 * total), dtype=torch.uint8, device=CUDA)


POISONED = """
import torch
from trainables import memory
device = torch.device("cuda")
assert memory.works(device)
try:
    torch.zeros(3, device=device)[torch.tensor([99], device=device)]
    torch.cuda.synchronize()
except RuntimeError as error:
    assert not memory.out_of_memory(error, device), error
else:
    raise SystemExit("an index out of bounds was no error")
assert not memory.works(device)
print("lost")
"""


def test_a_lost_context_is_noticed() -> None:
    done = subprocess.run([sys.executable, "-c", POISONED], capture_output=True, text=True, cwd=ROOT, timeout=100)
    assert done.stdout == "lost\n", done.stderr


def test_a_bundle_predicts_on_both_devices() -> None:
    """A model that was trained on a CPU; in float32 a GPU's probabilities are nearly a CPU's."""
    golden = ROOT / "tests" / "golden" / "schema-4"
    images = [np.asarray(Image.open(path)) for path in sorted((golden / "pictures").glob("*"))]
    found = {place: bundle.load(golden / "search" / "best", place).predict(images) for place in ("cpu", "cuda")}
    assert found["cpu"].labels == found["cuda"].labels
    np.testing.assert_allclose(found["cpu"].probabilities, found["cuda"].probabilities, atol=0.02)


@pytest.fixture
def actors(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the module of Ray's actors; where Ray is not installed, over a class that stands for Tune's."""
    with contextlib.suppress(ModuleNotFoundError):
        return importlib.import_module("trainables.trainable")
    parts: dict[str, dict[str, Any]] = {
        "ray": {"ObjectRef": Any, "get": None, "get_runtime_context": None, "is_initialized": lambda: False},
        "ray.experimental": {},
        "ray.experimental.internal_kv": {"_internal_kv_get": None, "_internal_kv_put": None},
        "ray.tune": {"Trainable": object},
    }
    for name, content in parts.items():
        monkeypatch.setitem(sys.modules, name, module := ModuleType(name))
        vars(module).update(content)
    return importlib.import_module("trainables.trainable")


def actor(actors: ModuleType, folder: Path, **fields: Any) -> Any:
    """Return an actor on the GPU that has been assigned trial 0."""
    made = tiny.config(**{"precision": "bfloat16", "memory_format": "channels_last", "max_epochs": 1, **fields})
    avoid: dict[str, list[Any]] = {"nodes": [], "devices": []}
    asked = {
        "config": json.dumps(made.to_dict()),
        "format": None,
        "formats": {},
        "final": False,
        "until": None,
        "avoid": avoid,
    }
    found = actors.ImageTrial.__new__(actors.ImageTrial)
    found.setup({"trial": 0, "attempt": 0, **asked}, tiny.search_data(), Storage(str(folder)), "cuda", "test")
    return found


def last_result(worker: Any) -> dict[str, Any]:
    """Run an actor's trial to its end, and return the last result."""
    while True:
        result = dict(worker.step())
        if "incident" in result or "end" in result:
            return result


@pytest.mark.usefixtures("shared")
def test_an_actor_runs_a_trial_and_gives_its_memory_back(actors: ModuleType, tmp_path: Path) -> None:
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    result = last_result(actor(actors, tmp_path))
    assert result["end"]["status"] == "completed"
    assert result["worker"]["device"] == torch.cuda.get_device_name()
    assert result["epochs"][-1]["peak_gpu_mb"] > 0
    assert torch.cuda.memory_reserved() <= before + 2**25


@pytest.mark.usefixtures("shared")
def test_a_trial_without_memory_completes_with_fewer_rows(actors: ModuleType, tmp_path: Path) -> None:
    """Fence a worker between what a whole batch takes and what four rows take; halve as the driver does."""
    fields: dict[str, Any] = {"model": "resnet18", "image_size": 224, "batch_size": 60}
    peaks = []
    for rows in (0, 4):
        torch.cuda.empty_cache()
        made = tiny.config(**fields, precision="bfloat16", memory_format="channels_last", micro_batch=rows)
        peaks.append(canary.measure(made, tiny.search_data()).peak)
    total = torch.cuda.get_device_properties(0).total_memory
    share = sum(peaks) / 2 / total / memory.USABLE
    torch.cuda.empty_cache()
    rows, told = 0, []
    while True:
        worker = actor(actors, tmp_path, **fields, micro_batch=rows)
        worker._share = share
        result = last_result(worker)
        if "end" in result:
            break
        incident = result["incident"]
        assert (incident["happened"], incident["clean"]) == ("out_of_memory", True), incident["error"]
        told.append(incident["micro_batch"])
        rows = max(told[-1] // 2, 4)
    assert told[0] == 60
    assert result["end"]["status"] == "completed"
    assert result["worker"]["micro_batch"] == rows < 60
