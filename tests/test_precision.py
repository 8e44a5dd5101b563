"""`resolve`: it leaves no auto, keeps what is fixed, and changes no other state."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch

from trainables import precision
from trainables.config import TrialConfig
from trainables.precision import resolve

AUTO = tiny.config(precision="auto", memory_format="auto")
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
    monkeypatch.setattr(precision, "_step_seconds", None)
    made = tiny.config(precision="float16", memory_format="contiguous")
    assert resolve(made, tiny.select(made)) == made


@pytest.mark.parametrize("fastest", range(4))
def test_the_fastest_is_taken(fastest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds(config: TrialConfig, *args: Any, best: float) -> float:
        return 1.0 if (config.precision, config.memory_format) == FORMATS[fastest] else 2.0

    monkeypatch.setattr(precision, "_step_seconds", seconds)
    found = resolved()
    assert (found.precision, found.memory_format) == FORMATS[fastest]


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
