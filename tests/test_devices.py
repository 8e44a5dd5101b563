"""GPUs are asked, never inferred: by processes that may hang or die, and what cannot be used is named with a reason."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cluster import machine
from orchestrator.plan import slot_range
from orchestrator.plan.options import SweepOptions
from orchestrator.record import provenance
from trainables import devices
from trainables.devices import Gpu

SICK = Gpu("1", "Tesla V100", problem="no kernel image is available")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Forget what is known of this machine's GPUs, before and after."""
    devices.found.cache_clear()
    monkeypatch.setenv(devices.VISIBLE, "0")  # so that it is put back, whatever a test leaves there
    monkeypatch.delenv(devices.VISIBLE)
    yield monkeypatch
    monkeypatch.undo()
    devices.found.cache_clear()


@pytest.fixture
def two(here: pytest.MonkeyPatch) -> None:
    """Have this machine's GPUs answer: one works, the other one does not."""
    here.setattr(devices, "found", lambda: (Gpu("0", "NVIDIA A100", 80 * 2**30), SICK))


def test_a_machine_without_a_sign_of_a_gpu_starts_no_process(here: pytest.MonkeyPatch, tmp_path: Path) -> None:
    here.setattr(devices, "LIBRARY", "no-such-library.so")
    assert not devices.is_seen(tmp_path)
    here.setattr(devices, "is_seen", lambda: False)
    here.setattr("subprocess.run", pytest.fail)
    assert devices.found() == ()


@pytest.mark.parametrize(
    "file", ["dev/nvidia0", "proc/driver/nvidia/gpus/0000:01:00.0", "usr/lib/wsl/lib/libcuda.so.1"]
)
def test_device_files_are_signs(file: str, here: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).touch()
    here.setattr(devices, "LIBRARY", "no-such-library.so")
    assert devices.is_seen(tmp_path)
    for hidden in ("", "-1", "NoDevFiles"):
        here.setenv(devices.VISIBLE, hidden)
        assert not devices.is_seen(tmp_path)


def test_a_library_is_a_sign(here: pytest.MonkeyPatch, tmp_path: Path) -> None:
    here.setattr(devices, "LIBRARY", None)  # dlopen(NULL): it is there on every machine
    assert devices.is_seen(tmp_path)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("0,2", ["0", "2"]), ("GPU-ab, MIG-cd", ["GPU-ab", "MIG-cd"]), ("1,-1,0", ["1"]), ("", []), ("NoDevFiles", [])],
)
def test_what_is_visible_is_what_cuda_sees(value: str, expected: list[str], here: pytest.MonkeyPatch) -> None:
    here.setenv(devices.VISIBLE, value)
    assert devices.visible() == devices.names() == expected


class Nvml:
    """NVML of a machine with one plain board and one that is divided in two, with an empty place between them."""

    broken = 0

    def nvmlInit_v2(self) -> int:  # noqa: N802 - NVML's names
        return self.broken

    def nvmlShutdown(self) -> int:  # noqa: N802
        return 0

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:  # noqa: N802
        count._obj.value = 2
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, board: Any, handle: Any) -> int:  # noqa: N802
        handle._obj.value = 100 + board.value
        return 0

    def nvmlDeviceGetMigMode(self, handle: Any, now: Any, later: Any) -> int:  # noqa: N802
        now._obj.value = later._obj.value = int(handle.value == 101)
        return 0

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: Any, most: Any) -> int:  # noqa: N802
        most._obj.value = 3
        return 0

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Any, place: Any, part: Any) -> int:  # noqa: N802
        part._obj.value = 200 + place.value
        return 6 if place.value == 1 else 0  # NVML_ERROR_NOT_FOUND

    def nvmlDeviceGetUUID(self, part: Any, uuid: Any, size: Any) -> int:  # noqa: N802
        assert size.value == ctypes.sizeof(uuid)
        uuid.value = f"MIG-{part.value}".encode()
        return 0


def test_parts_of_a_board_are_gpus(here: pytest.MonkeyPatch) -> None:
    assert devices.names(Nvml()) == ["0", "MIG-200", "MIG-202"]  # type: ignore[arg-type]


def test_without_nvml_cuda_counts(here: pytest.MonkeyPatch) -> None:
    here.setattr("torch.cuda.device_count", lambda: 3)
    silent = Nvml()
    silent.broken = 9
    assert devices.names(silent) == ["0", "1", "2"]  # type: ignore[arg-type]
    here.setattr(devices, "NVML", "no-such-library.so")
    assert devices.names() == ["0", "1", "2"]
    here.setattr("torch.cuda.device_count", lambda: 0)
    assert devices.names() == ["0"], "it is asked why"


def test_each_gpu_answers_for_itself() -> None:
    def answer(name: str) -> Gpu:
        if name == "dies":
            os._exit(3)
        if name == "hangs":
            time.sleep(60)
        return Gpu(name, "NVIDIA A100", 2**30, "too old" if name == "old" else None)

    fine, died, hung, old = devices.asked(["0", "dies", "hangs", "old"], answer, patience_s=1.0)
    assert fine == Gpu("0", "NVIDIA A100", 2**30)
    assert died.problem == "a process that computed there died (exit code 3)"
    assert hung.problem == "it did not answer in 1 s"
    assert old.problem == "too old"


def test_torch_is_asked_where_it_computes(here: pytest.MonkeyPatch) -> None:
    """Without a GPU torch itself says what is missing; a device that computes wrong is none."""
    import torch

    from trainables import memory

    if not torch.cuda.is_available():
        assert "NVIDIA" in str(devices.answer("0").problem) or "CUDA" in str(devices.answer("0").problem)
    here.setattr(memory, "ones", lambda device: torch.zeros(8, 8))
    assert devices.answer("0").problem == "it computes 0 where 512 is right"
    assert not memory.works(torch.device("cpu"))


def test_a_card_that_torch_was_not_built_for_is_named(here: pytest.MonkeyPatch) -> None:
    here.setattr("torch.cuda.get_device_capability", lambda: (7, 0))
    here.setattr("torch.cuda.get_arch_list", lambda: ["sm_75", "sm_80"])
    assert devices._reason(RuntimeError("CUDA error: no kernel image is available for execution on the device\nx")) == (
        "CUDA error: no kernel image is available for execution on the device (it is sm_70, this build of torch is for "
        "sm_75, sm_80)"
    )


@pytest.mark.slow  # imports torch in another process
def test_a_gpu_that_is_seen_and_cannot_be_used_is_named(here: pytest.MonkeyPatch) -> None:
    here.setenv(devices.VISIBLE, "7")
    here.setattr(devices, "is_seen", lambda: True)
    (seventh,) = devices.found()
    assert seventh.id == "7"
    assert seventh.problem
    assert devices.usable() == ()
    assert devices.unusable() == [f"GPU 7 cannot be used: {seventh.problem}"]


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        (["sh", "-c", "echo 'ImportError: libcudart' >&2; exit 1"], "torch could not be asked: ImportError: libcudart"),
        (["sh", "-c", "exit 1"], "torch could not be asked: nothing was said"),
        (["sleep", "60"], "torch did not answer in 0 s"),
    ],
)
def test_a_torch_that_does_not_answer_is_the_problem(
    command: list[str], problem: str, here: pytest.MonkeyPatch
) -> None:
    here.setenv(devices.VISIBLE, "0,1")
    here.setattr(devices, "is_seen", lambda: True)
    here.setattr(devices, "CHILD_S", 0.2)
    here.setattr(devices, "COMMAND", command)
    assert [gpu.problem for gpu in devices.found()] == [problem] * 2


@pytest.mark.usefixtures("two")
def test_everyone_counts_what_can_be_used(tmp_path: Path) -> None:
    here = machine.local()
    assert here.gpus == 1
    assert machine.warnings([here]) == ["warning: GPU 1 (Tesla V100) cannot be used: no kernel image is available"]
    hardware = provenance.describe().hardware
    assert hardware["gpus"] == 1
    assert hardware["gpu_names"] == ["NVIDIA A100"]
    assert hardware["unusable_gpus"] == ["GPU 1 (Tesla V100) cannot be used: no kernel image is available"]
    options = SweepOptions("digits", gpus_per_trial=1.0)
    assert slot_range.check_share(options, [machine.Resources(4, 0, here.unusable)]) == [
        "--gpus-per-trial 1: no machine here has more than 0 (GPU 1 (Tesla V100) cannot be used: no kernel image is "
        "available); ask for fewer, or attach to a cluster by --address"
    ]
