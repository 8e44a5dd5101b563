"""`resolve`: it leaves no auto, keeps what is fixed, and changes no other state."""

from __future__ import annotations

import dataclasses
import json
import math
import random
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch

from trainables import precision
from trainables.config import TrialConfig
from trainables.precision import StepTimes, resolve
from trainables.workload import MOST_S, Workload

AUTO = tiny.config(precision="auto", memory_format="auto")
pytestmark = pytest.mark.usefixtures("own_cache")
FORMATS = [(p, m) for p in ("float32", "bfloat16") for m in ("contiguous", "channels_last")]


def resolved(**fixed: Any) -> TrialConfig:
    made = AUTO.replace(**fixed)
    return resolve(made, tiny.select(made))


def test_it_is_concrete_and_changes_nothing_else() -> None:
    found = resolved(seed=3)
    assert (found.precision, found.memory_format) in FORMATS
    assert found.replace(precision="auto", memory_format="auto") == AUTO.replace(seed=3)


@pytest.mark.parametrize("fixed", [{"precision": "bfloat16"}, {"memory_format": "channels_last"}])
def test_what_is_fixed_stays(fixed: dict[str, str]) -> None:
    found = resolved(**fixed).to_dict()
    assert fixed.items() <= found.items()
    assert "auto" not in (found["precision"], found["memory_format"])


def test_nothing_is_measured_where_all_is_fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_measure", None)
    made = tiny.config(precision="float16", memory_format="contiguous")
    assert resolve(made, tiny.select(made)) == made


class Simulated(StepTimes):
    """Step times under a clock that only steps turn: each takes its seconds, but for noise."""

    def __init__(self, seconds: Sequence[float], noise: float = 0.0, seed: int = 0) -> None:
        super().__init__(len(seconds))
        self.now, self.random, self.clock = 0.0, random.Random(seed), lambda: self.now
        self.steps = [partial(self.step, each, noise) for each in seconds]

    def step(self, seconds: float, noise: float) -> None:
        self.now += seconds * math.exp(self.random.gauss(0, noise))


def chosen(seconds: Sequence[float], noise: float = 0.0, seed: int = 0, until: float = 1e9) -> tuple[int, Simulated]:
    times = Simulated(seconds, noise, seed)
    times.take(times.steps, until)
    return times.choice(), times


@pytest.mark.parametrize("fastest", range(4))
def test_the_fastest_is_taken(fastest: int) -> None:
    for seed in range(50):
        found, times = chosen([1.0 if number == fastest else 1.15 for number in range(4)], 0.03, seed)
        assert found == fastest
        assert times.settled


def test_float32_stays_unless_another_is_faster_by_the_margin() -> None:
    assert chosen([1.0, 0.98, 0.98, 0.98])[0] == 0
    assert chosen([1.0, 0.96, 0.98, 0.94])[0] == 3
    assert chosen([1.0, 1.2, 0.9, 0.85])[0] == 3


def test_noise_alone_changes_nothing() -> None:
    found = [chosen([1.0] * 4, 0.03, seed)[0] for seed in range(200)]
    assert found.count(0) > 190


def test_a_slow_format_takes_two_steps_and_all_no_more_than_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "FAR", dict.fromkeys(precision.FAR, 1.5))
    _, times = chosen([1.0, 9.0, 0.8, 0.9], 0.02)
    assert [len(each) for each in times.seconds] == [5, 2, 5, 5]
    _, times = chosen([1.0] * 4, 0.1, until=20.0)
    assert 19 < times.now < 24
    assert not times.settled


def test_a_neighbor_that_comes_and_goes_hits_all_formats() -> None:
    """Every step that it is there for takes three times as long, as the clock has it."""
    for seed in range(50):
        times = Simulated([1.0, 0.8], 0.05, seed)

        def step(seconds: float, times: Simulated = times) -> None:
            times.now += seconds * (3.0 if times.now % 20 < 10 else 1.0) * math.exp(times.random.gauss(0, 0.05))

        times.take([partial(step, 1.0), partial(step, 0.8)], until=1e9)
        assert times.choice() == 1


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SWEEP_ORCHESTRATOR_CACHE", str(tmp_path))
    return tmp_path / "formats"


def times_of(seconds: Sequence[float], settled: bool = True) -> Callable[..., StepTimes]:
    def measure(*_: Any) -> StepTimes:
        times = chosen(seconds)[1]
        times.settled = settled
        return times

    return measure


def test_the_next_process_chooses_the_same(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_measure", times_of([1.0, 1.0, 1.0, 0.5]))
    expected = resolved(seed=1)
    assert (expected.precision, expected.memory_format) == FORMATS[3]
    monkeypatch.setattr(precision, "_measure", None)
    assert resolved(seed=1) == expected
    assert resolved(seed=2, batch_size=31, lr=0.3, max_epochs=9) == expected.replace(
        seed=2, batch_size=31, lr=0.3, max_epochs=9
    )
    kept = json.loads(next(own_cache.iterdir()).read_bytes())
    assert kept["format"] == {"precision": "bfloat16", "memory_format": "channels_last"}
    assert kept["seconds"] == {" ".join(name): 0.5 if name == FORMATS[3] else 1.0 for name in FORMATS}


@pytest.mark.parametrize(
    "fields",
    [{"model": "resnet14"}, {"batch_size": 8}, {"micro_batch": 8}, {"image_size": 16}, {"precision": "bfloat16"}],
)
def test_what_the_choice_depends_on_has_its_own(
    fields: dict[str, Any], own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "_measure", times_of([1.0] * 4))
    resolved()
    resolved(**fields)
    assert len(list(own_cache.iterdir())) == 2


def test_threads_and_processors_have_their_own(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_measure", times_of([1.0] * 4))
    resolved()
    with monkeypatch.context() as changed:
        changed.setattr("trainables.hardware.cpu_model", lambda: "another")
        resolved()
        changed.setattr(torch, "get_num_threads", lambda: 3)
        resolved()
        changed.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
        resolved()
    assert len(list(own_cache.iterdir())) == 4


def test_what_time_cut_short_is_not_kept(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_measure", times_of([1.0, 1.0, 1.0, 0.5], settled=False))
    resolved()
    assert not own_cache.exists()


def test_a_damaged_file_is_measured_again(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_measure", times_of([1.0, 0.5, 1.0, 1.0]))
    expected = resolved()
    file = next(own_cache.iterdir())
    for content in (b"", b"[]", b'{"facts": {}, "format": {"precision": "float64"}}', file.read_bytes()[:-20]):
        file.write_bytes(content)
        assert resolved() == expected
    changed = json.loads(file.read_bytes()) | {"format": {"precision": "int8", "memory_format": "contiguous"}}
    file.write_text(json.dumps(changed))
    assert resolved() == expected


def test_without_space_on_the_disk_it_is_chosen_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SWEEP_ORCHESTRATOR_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(precision, "_measure", times_of([1.0, 0.5, 1.0, 1.0]))
    assert resolved().memory_format == "channels_last"


def test_choosing_takes_its_share_of_what_is_planned(own_cache: Path) -> None:
    """Too little time to tell formats apart is not spent at all; nothing is left of it for the next choice."""
    data = tiny.select(AUTO)
    for epochs, timed in ((1, False), (100_000, True)):
        workload = Workload(epochs)
        found = resolve(AUTO, data, workload)
        assert (workload.spent_s > 0.0) is True
        assert own_cache.exists() is timed
        if not timed:
            assert (found.precision, found.memory_format) == FORMATS[0]
    spent = workload.spent_s
    assert resolve(AUTO, data, workload) == found  # known by now
    assert workload.spent_s == spent


def test_the_time_allowed_is_a_share_of_the_planned_time_with_a_limit() -> None:
    assert Workload(100).allowed_s(0.5) == pytest.approx(1.0)
    assert Workload(100, seconds=50).allowed_s(0.5) == pytest.approx(2.0)
    assert Workload(100, seconds=50, limit_s=25).allowed_s(0.5) == pytest.approx(0.5)
    assert Workload(100, seconds=50, spent_s=1.5).allowed_s(0.5) == pytest.approx(0.5)
    assert Workload(1e9).allowed_s(1.0) == MOST_S


def test_a_large_step_is_timed_with_fewer_rows() -> None:
    for seconds, rows in ((0.001, 128), (0.0625, 64), (0.125, 32), (9.0, 8)):
        times = Simulated([])
        found = precision._brief(128, lambda rows: partial(times.step, seconds * rows / 8, 0.0), times)  # noqa: B023
        assert found == rows


def test_it_leaves_nothing_behind() -> None:
    torch.manual_seed(5)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    resolved()
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    assert not torch.is_autocast_enabled("cpu")
    assert torch.is_grad_enabled()


def test_a_gpu_is_known_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    data = tiny.select(AUTO)
    batches: Any = SimpleNamespace(labels=SimpleNamespace(device=torch.device("cuda")))
    on_a_gpu = dataclasses.replace(data, batches=batches)
    for capability, expected in (((7, 5), "float16"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, found=capability: found)
        found = resolve(AUTO, on_a_gpu)
        assert (found.precision, found.memory_format) == (expected, "channels_last")
