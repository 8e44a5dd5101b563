"""How many trials share a GPU follows from what a step takes of it, is in the journal, and stays on resume."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch
from rich.console import Console
from test_plan import made, options

from orchestrator.cluster import machine
from orchestrator.cluster.machine import Node, Resources, Slot
from orchestrator.plan import resumption, sharing
from orchestrator.plan.context import SweepContext
from orchestrator.plan.plan import Plan
from orchestrator.plan.request import Request
from orchestrator.record.events import GpuMeasured, SweepResumed, SweepStarted, parse
from orchestrator.record.facts import Spec
from orchestrator.record.state import SweepState, replay
from trainables import batches, canary, loop, memory
from trainables.canary import Need
from trainables.datasets.stored_images import StoredImages
from trainables.views import Resident, Streamed

GB = 10**9
NODE = Node("1", "a", Resources(16, 1), 16 * GB)
LIGHT = Need("NVIDIA H200", "resnet8", 64, launch_s=0.0025, device_s=0.0003, peak=GB, data=GB, memory=140 * GB)


def need(**fields: Any) -> Need:
    return dataclasses.replace(LIGHT, **fields)


@pytest.mark.parametrize(
    ("needs", "cpus", "gpus", "trials", "expected"),
    [
        ([LIGHT], 16, 1, 100, 8),  # launches take nine tenths of its time
        ([need(device_s=0.0012)], 16, 1, 100, 2),  # busy for half of it: 1.1 / 0.48
        ([need(device_s=0.0006)], 16, 1, 100, 4),  # 1.1 / 0.24
        ([need(device_s=0.0025)], 16, 1, 100, 1),
        ([need(device_s=0.1)], 16, 1, 100, 1),  # the GPU is the limit
        ([need(peak=20 * GB)], 16, 1, 100, 4),  # 0.9 · 140 / 21.5 = 5.9
        ([need(peak=200 * GB)], 16, 1, 100, 1),
        ([need(data=8 * GB)], 16, 1, 100, 4),  # eight would each have 5 GB for images, and stream them
        ([LIGHT, need(model="resnet50", device_s=0.0006)], 16, 1, 100, 4),  # trials may have either model
        ([LIGHT], 4, 1, 100, 4),
        ([LIGHT], 16, 4, 100, 4),  # CPUs of each GPU
        ([LIGHT], 7, 1, 100, 6),
        ([LIGHT], 16, 1, 3, 3),
        ([LIGHT], 16, 2, 3, 2),
        ([need(launch_s=0.0, device_s=0.0, peak=140 * GB, problem="out of memory")], 16, 1, 100, 1),
    ],
)
def test_trials_share_a_gpu_by_memory_time_cpus_and_number(
    needs: list[Need], cpus: int, gpus: int, trials: int, expected: int
) -> None:
    node = dataclasses.replace(NODE, resources=Resources(cpus, gpus))
    assert sharing.abreast(needs, node, trials) == expected


@pytest.mark.parametrize("together", canary.CHOICES)
def test_shares_fit_as_ray_counts_them(together: int) -> None:
    share = machine.share_of_gpu(together)
    assert round(share * 10_000) * together <= 10_000
    assert Resources(together, 1).capacity(Slot(1, share)) == together


def test_a_plan_says_that_it_will_be_measured(tmp_path: Path) -> None:
    nodes = [Resources(16, 1)]
    assert made(tmp_path, nodes).share_gpus
    assert "shared, if measured so" in made(tmp_path, nodes).slot_text()
    for given in ({"gpus_per_trial": 1.0}, {"gpus_per_trial": 0.5}, {"cpus_per_trial": 4}, {"slots": 2}):
        planned = made(tmp_path, nodes, **given)
        assert not planned.share_gpus
        assert "shared" not in planned.slot_text()
    assert not made(tmp_path).share_gpus, "no GPU"


def test_slots_get_their_part_of_the_cpus(tmp_path: Path) -> None:
    planned = made(tmp_path, [NODE.resources], trials=20)
    assert (planned.slot_cpus, planned.slot_gpus) == (16, 1)
    shared = sharing.with_share(planned, {None: 4}, [NODE])
    assert (shared.slot_cpus, shared.slot_gpus, shared.share_gpus) == (4, 0.25, False)
    assert shared.slots([NODE.resources]) == 4
    alone = sharing.with_share(planned, {None: 1}, [NODE])
    assert (alone.slot_cpus, alone.slot_gpus) == (16, 1)


def test_every_model_is_measured_at_its_largest_batch(tmp_path: Path) -> None:
    searched = (("batch_size=choice(32,128,64)", "model=choice(resnet8,resnet20)"),)
    found = {config.model: config for config in sharing.configurations(made(tmp_path, search=searched))}
    assert {name: config.batch_size for name, config in found.items()} == {"resnet8": 128, "resnet20": 128}
    (ranged,) = sharing.configurations(made(tmp_path, search=(("batch_size=int(16,96)",),)))
    assert ranged.batch_size == 96


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SweepContext]:
    """Yield a sweep on a machine with a GPU, whose measurement is given."""
    monkeypatch.setattr(sharing.connection, "nodes", lambda: [NODE])  # type: ignore[attr-defined]
    monkeypatch.setattr(sharing, "_measured", lambda context, nodes: [GpuMeasured(nodes[0].name, LIGHT)])
    unused: Any = SimpleNamespace()
    with Path(tmp_path / "out").open("w") as out:
        yield SweepContext(
            made(tmp_path, [NODE.resources], trials=100),
            unused,
            unused,
            unused,
            True,
            Console(file=out, width=300),
            unused,
        )


def test_what_was_measured_is_said_journalled_and_kept(context: SweepContext, tmp_path: Path) -> None:
    fitted = sharing.fitted(context)
    assert fitted.plan.slot_gpus == 0.125
    context.console.file.flush()
    assert (tmp_path / "out").read_text() == (
        "GPUs: 8 trials share one (NVIDIA H200); a step of resnet8, batch 64, takes 2.5 ms, in which the GPU is busy "
        "for 12%, and 2.0 of 140 GB\n"
    )
    (event,) = fitted.measured
    assert parse({**event.content(), "n": 1, "t": 2.0}) == dataclasses.replace(event, n=1, t=2.0)
    began = SweepStarted(Spec(plan=fitted.plan.to_dict()))
    state = replay([began, event, SweepResumed(Spec(plan=fitted.plan.to_dict()))])
    again = Plan.from_dict(state.spec.plan)
    resumed = resumption.resume(
        Request(options(tmp_path, dataset=None, resume=again.name)), again, SweepState(), [Resources(16, 1)]
    )
    assert (resumed.slot_gpus, resumed.share_gpus) == (0.125, False)
    assert sharing.fitted(dataclasses.replace(context, plan=resumed)).measured == ()


def test_each_kind_of_gpu_has_its_share(context: SweepContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure two kinds; a node that did not answer counts as others of its kind, and without any is not shared."""
    fast, slow, silent = (
        Node(name, name, Resources(16, 1, kind=kind), 16 * GB)
        for name, kind in (("a", "H200"), ("b", "T4"), ("c", "T4"))
    )
    on_slow = need(gpu="T4", device_s=0.0012, memory=16 * GB)
    measured = [GpuMeasured("a", LIGHT), GpuMeasured("b", on_slow)]
    nodes = [fast, slow, silent]
    monkeypatch.setattr(sharing.connection, "nodes", lambda: nodes)  # type: ignore[attr-defined]
    monkeypatch.setattr(sharing, "_measured", lambda context, nodes: measured)
    planned = sharing.fitted(context).plan
    assert planned.slot == Slot(2, 0.5, {"H200": 0.125})
    assert planned.slots([node.resources for node in nodes]) == 8 + 2 + 2
    context.console.file.flush()
    said = (tmp_path / "out").read_text().splitlines()
    assert [line.split(";")[0] for line in said] == [
        "GPUs: 8 trials share one (NVIDIA H200)", "GPUs: 2 trials share one (T4)",
    ]  # fmt: skip
    kept = Plan.from_dict(json.loads(json.dumps(planned.to_dict())))
    assert kept == planned
    for asked, slot in (({}, planned.slot), ({"gpus_per_trial": 0.5}, Slot(2, 0.5)), ({"cpus_per_trial": 1}, None)):
        request = Request(options(tmp_path, dataset=None, resume=kept.name, **asked))
        resumed = resumption.resume(request, kept, SweepState(), [node.resources for node in nodes])
        assert resumed.slot == (slot or dataclasses.replace(planned.slot, cpus=1))
    monkeypatch.setattr(sharing, "_measured", lambda context, nodes: measured[:1])
    assert sharing.fitted(context).plan.slot == Slot(2, 1.0, {"H200": 0.125}), "nothing is known of the other kind"


def test_a_share_that_was_asked_for_is_not_measured(context: SweepContext, tmp_path: Path) -> None:
    asked = dataclasses.replace(context, plan=made(tmp_path, [NODE.resources], gpus_per_trial=0.5))
    assert sharing.fitted(asked) is asked


def test_a_step_that_fails_leaves_a_gpu_to_a_trial() -> None:
    failed = need(peak=140 * GB, data=0, device_s=0.0, launch_s=0.0, problem="CUDA out of memory")
    assert failed.busy == 1
    assert sharing.described([LIGHT, failed], 1) == (
        "GPUs: a trial has one for itself, as a step of resnet8 failed: CUDA out of memory"
    )


def test_steps_are_measured_without_a_gpu_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a check of the code: the measurement is for GPUs alone."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = canary.measure(tiny.config(batch_size=30), tiny.search_data())
    assert (found.gpu, found.model, found.batch_size, found.problem) == ("cpu", "resnet8", 30, None)
    assert 0 < found.launch_s < 1
    assert 0 < found.device_s < 1
    assert (found.peak, found.data) == (0, 0)

    def full(*arguments: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nand more")

    monkeypatch.setattr(loop, "optimizer_step", full)
    assert canary.measure(tiny.config(), tiny.search_data()).problem == "CUDA out of memory. Tried to allocate 2 GiB"


def test_a_gpu_waits_before_a_step_that_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare the order of calls: sleep, begin, launch, end, wait; gaps between kernels would count as computing."""
    calls: list[Any] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            calls.append("event")

        def elapsed_time(self, other: Event) -> float:
            return 4.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: calls.append("wait"))
    monkeypatch.setattr(torch.cuda, "_sleep", calls.append)
    cuda = torch.device("cuda")
    assert canary._launched(lambda: calls.append("step"), cuda) < 1
    assert calls == ["wait", "step"]
    del calls[:]
    assert canary._computed(lambda: calls.append("step"), cuda, launch_s=0.003) == 0.004
    assert calls == ["wait", int(0.006 * canary.CYCLES), "event", "step", "event", "wait"]


def test_a_step_that_waits_for_the_gpu_is_not_slowed_by_its_own_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each wait of a step would take in the time that the GPU sleeps, and the next sleep be twice as long."""
    slept: list[float] = []
    monkeypatch.setattr(
        torch.cuda, "Event", lambda enable_timing: SimpleNamespace(record=int, elapsed_time=lambda o: 1.0)
    )
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "_sleep", slept.append)
    for launch_s in (0.01, 0.08, 3.0):
        canary._computed(lambda: None, torch.device("cuda"), launch_s)
    assert [seconds / canary.CYCLES for seconds in slept] == pytest.approx([0.02, 0.16, 2 * canary.LONGEST_LAUNCH_S])


def test_a_net_with_weights_is_measured_on_images_of_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of random weights it would be measured on images as they are stored."""
    seen: list[tuple[int, ...]] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    def step(learner: Any, images: torch.Tensor, *others: Any) -> None:
        seen.append(tuple(images.shape))

    monkeypatch.setattr(loop, "optimizer_step", step)
    made = tiny.config(model="resnet18", weights="imagenet", batch_size=8, normalization="auto")
    assert canary.measure(made, tiny.search_data()).problem is None
    assert {shape[1:] for shape in seen} == {(3, 224, 224)}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Simulate the memory of a GPU: what is free of it, and the fraction that this process may take."""
    state = SimpleNamespace(free=100 * GB, total=100 * GB, fraction=1.0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (state.free, state.total))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda.memory, "_lazy_init", lambda: None)
    monkeypatch.setattr(torch._C, "_cuda_getMemoryFraction", lambda device: state.fraction, raising=False)
    monkeypatch.setattr(
        torch._C,
        "_cuda_setMemoryFraction",
        lambda fraction, device: setattr(state, "fraction", fraction),
        raising=False,
    )
    return state


@pytest.mark.parametrize(("share", "fraction"), [(1.0, 0.95), (0.25, 0.2375), (0.125, 0.11875), (2.0, 0.95)])
def test_a_worker_is_fenced_by_its_share(share: float, fraction: float, gpu: SimpleNamespace) -> None:
    memory.fence(torch.device("cuda"), share)
    assert gpu.fraction == pytest.approx(fraction)
    memory.fence(torch.device("cpu"), 0.1)
    assert gpu.fraction == pytest.approx(fraction)


def test_images_are_held_by_share_not_by_what_is_free_at_the_moment(gpu: SimpleNamespace) -> None:
    """Four workers begin together, while all is free: what all of them may take fits."""
    device = torch.device("cuda")
    memory.fence(device, 0.25)
    assert memory.budget(device) == pytest.approx(0.3 * 23.75 * GB)
    assert 4 * memory.budget(device) < gpu.total / 3
    gpu.free = GB  # a stranger has the rest
    assert memory.budget(device) == pytest.approx(0.3 * GB)


def test_what_is_above_the_share_is_streamed(gpu: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    images = StoredImages.of(tiny.search_data().images)
    monkeypatch.setattr(torch, "empty", lambda *shape, device, **named: torch.zeros(*shape, **named))
    cuda = torch.device("cuda")
    gpu.total = gpu.free = int(images.nbytes / 0.3 * 1.01)
    assert isinstance(batches._on_device(images, cuda, (255, 255, 255)), Resident)
    memory.fence(cuda, 0.5)
    assert isinstance(batches._on_device(images, cuda, (255, 255, 255)), Streamed)


def test_the_allocator_is_asked_to_grow_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(memory.ALLOCATOR, raising=False)
    memory.prepare()
    assert memory.os.environ[memory.ALLOCATOR] == "expandable_segments:True"  # type: ignore[attr-defined]
    monkeypatch.setenv(memory.ALLOCATOR, "backend:cudaMallocAsync")
    memory.prepare()
    assert memory.os.environ[memory.ALLOCATOR] == "backend:cudaMallocAsync"  # type: ignore[attr-defined]
