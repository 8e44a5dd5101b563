"""`ImageTrial`: an actor runs many trials, each as if it were alone. All tests but one run it without an actor."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import tiny
import torch
from faulty_files import faulty_storage

from trainables import checkpoint, correct_predictions, loop, memory, precision, trainable
from trainables.storage import Storage
from trainables.trainable import ImageTrial

BIG: dict[str, Any] = {
    "model": "resnet20", "optimizer": "adamw", "precision": "bfloat16", "memory_format": "channels_last",
    "dropout": 0.4, "batch_size": 20, "schedule": "plateau", "seed": 7,
}  # fmt: skip


def assignment(
    trial: int = 0,
    attempt: int = 0,
    final: bool = False,
    until: int | None = None,
    own: dict[str, str] | None = None,
    formats: dict[str, dict[str, str]] | None = None,
    **fields: Any,
) -> dict[str, Any]:
    config = json.dumps(tiny.config(**fields).to_dict())
    avoid: dict[str, list[Any]] = {"nodes": [], "devices": []}
    asked = {
        "config": config,
        "format": own,
        "formats": formats or {},
        "final": final,
        "until": until,
        "avoid": avoid,
    }
    return {"trial": trial, "attempt": attempt, **asked}


class Alone(ImageTrial):
    """An `ImageTrial` without Tune's actor around it."""

    def __init__(self, config: dict[str, Any], folder: Path) -> None:
        self.setup(config, tiny.search_data(opened=True), Storage(str(folder)), device="cpu", run="test")

    def step(self) -> dict[str, Any]:
        """Run a step after the one that begins the trial, and wait for the checkpoint that it has begun to write."""
        result = super().step()
        if result.keys() == {"trial", "attempt", "epochs", "place"}:
            result = super().step()
        if self._running is not None:
            self._running.saver.wait()
        return result


Make = Callable[..., Alone]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    return lambda folder=tmp_path, **fields: Alone(assignment(**fields), folder)


def run(actor: ImageTrial) -> list[dict[str, Any]]:
    """Run the actor's trial to its end; return its results."""
    results = [actor.step()]
    while not results[-1].get("done") and "incident" not in results[-1]:
        results.append(actor.step())
    return results


def lasting(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**result, "epochs": [tiny.lasting(epoch) for epoch in result["epochs"]]} for result in results]


def bits(folder: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of the trial whose folder this is."""
    saved = checkpoint.load(Storage(str(folder.parent)), int(folder.name))
    assert saved is not None
    return saved[0]


def test_results(make: Make, tmp_path: Path) -> None:
    first, *others = results = run(make(trial=3, attempt=1))
    assert json.loads(json.dumps(results, allow_nan=False)) == results
    assert [(r["trial"], r["attempt"]) for r in results] == [(3, 1)] * 4
    assert [epoch["epoch"] for r in results for epoch in r["epochs"]] == [1, 2, 3, 4]
    assert first["worker"]["parameters"] > 70_000
    assert (first["worker"]["device"], first["worker"]["threads"]) == ("cpu", 1)
    assert first["worker"]["train_rows"] == tiny.POOL
    assert not any("worker" in r for r in others)
    assert others[-1]["end"] == {"status": "completed", "stop_reason": "budget", "error": None}
    assert not any("end" in r or r.get("done") for r in results[:-1])
    best = max(range(4), key=lambda i: results[i]["epochs"][0]["val_accuracy"])
    assert {name.partition(".")[0] for name in bits(tmp_path / "3")} == {"best"}
    assert results[best]["epochs"][0]["val_accuracy"] > 0.5


AUTOS = {"precision": "auto", "memory_format": "auto"}
BRAIN, PLAIN = (
    dict(zip(AUTOS, each, strict=True)) for each in (("bfloat16", "channels_last"), ("float32", "contiguous"))
)


def test_a_trial_takes_the_format_of_its_kind_of_device_and_keeps_it_on_another(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What begins on one processor goes on on another one as if nothing had happened: its record has one format."""
    monkeypatch.setattr(precision, "device_kind", lambda device: "new")
    alone = run(make(tmp_path / "alone", trial=1, **BRAIN))
    known = {"new": BRAIN, "old": PLAIN}
    begun = run(make(formats=known, trial=1, until=2, **AUTOS))
    assert begun[0]["worker"]["format"] == BRAIN
    monkeypatch.setattr(precision, "device_kind", lambda device: "old")
    ended = run(make(own=BRAIN, formats=known, trial=1, attempt=1, **AUTOS))
    assert ended[0]["worker"]["format"] == BRAIN
    assert lasting(ended)[-1]["epochs"] == lasting(alone)[-1]["epochs"]
    other = run(make(tmp_path / "other", formats=known, trial=2, **AUTOS))
    assert other[0]["worker"]["format"] == PLAIN


def test_the_first_choice_for_a_kind_of_device_is_the_sweeps(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    shared: dict[str, str] = {}
    monkeypatch.setattr(trainable, "_internal_kv_get", shared.get)
    monkeypatch.setattr(trainable, "_internal_kv_put", lambda key, value, overwrite: shared.setdefault(key, value))
    for number, (kind, found) in enumerate((("new", BRAIN), ("old", PLAIN), ("new", PLAIN))):
        monkeypatch.setattr(precision, "device_kind", lambda device, kind=kind: kind)
        monkeypatch.setattr(precision, "resolve", lambda config, *_, found=found: config.replace(**found))
        results = run(make(trial=number, **AUTOS))
        assert results[0]["worker"]["format"] == (BRAIN if kind == "new" else PLAIN)
    assert len(shared) == 2


def test_features_are_reported_before_the_first_epoch(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainable, "REPORT_S", 0.0)  # after every piece
    monkeypatch.setenv("SWEEP_ORCHESTRATOR_CACHE", str(tmp_path / "cache"))
    results = run(make(tmp_path / "first", freeze=True))
    reports = [result.pop("features") for result in results if "features" in result]
    assert json.loads(json.dumps(reports)) == reports
    assert [(report["rows"], report["of"]) for report in reports] == [(64, 120), (120, 120)]
    assert all(report["seconds"] > 0 for report in reports)
    assert [len(result["epochs"]) for result in results] == [0, 0, 4]  # brief ones in one result
    assert "worker" in results[0]
    again = run(make(tmp_path / "again", freeze=True))
    assert not any("features" in result for result in again)  # they are kept
    assert lasting(again)[0]["epochs"] == lasting(results)[2]["epochs"]
    monkeypatch.setattr(trainable, "GROUP_S", 0.0)
    alone = run(make(tmp_path / "alone", freeze=True))
    assert [len(result["epochs"]) for result in alone] == [1, 1, 1, 1]
    assert [result["epochs"][0] for result in lasting(alone)] == lasting(again)[0]["epochs"]


@pytest.mark.parametrize("before", ["completed", "stopped", "failed", "diverged"])
def test_a_trial_after_another_is_as_if_alone(
    before: str, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = run(make(tmp_path / "alone", trial=1, dropout=0.2, rotation=10.0))
    actor = make(tmp_path / "after", trial=0, **{**BIG, "lr": 1e30 if before == "diverged" else 0.01})
    if before == "failed":
        with monkeypatch.context() as patch:
            patch.setattr(loop, "scores", broken)
            assert run(actor)[-1]["incident"]["happened"] == "error"
    elif before == "stopped":
        actor.step()
    elif before == "diverged":
        assert run(actor)[-1]["incident"]["happened"] == "not_finite"
    else:
        assert run(actor)[-1]["end"]["status"] == before
    assert actor.reset_config(assignment(trial=1, dropout=0.2, rotation=10.0))
    assert lasting(run(actor)) == lasting(alone)
    expected = bits(tmp_path / "alone" / "1")
    torch.testing.assert_close(bits(tmp_path / "after" / "1"), expected, rtol=0, atol=0)


def broken(*args: Any) -> Any:
    raise ValueError("the model is out of order")


def test_an_error_is_reported_with_its_facts(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "scores", broken)
    (result,) = run(make())
    incident = result["incident"]
    assert (incident["happened"], incident["alone"], incident["clean"], result["epochs"]) == ("error", True, True, [])
    assert "ValueError: the model is out of order" in incident["error"]
    assert "in broken" in incident["error"]
    assert "worker" in result


def test_a_configuration_that_is_refused_is_reported(make: Make) -> None:
    actor = make()
    wrong = assignment(trial=1)
    wrong["config"] = json.dumps(json.loads(wrong["config"]) | {"lr": -1})
    actor.reset_config(wrong)
    (result,) = run(actor)
    assert "lr=-1 is not allowed" in result["incident"]["error"]
    assert result["place"]["pid"] == os.getpid()


def test_divergence(make: Make) -> None:
    (result,) = run(make(lr=1e30))
    assert result["incident"]["happened"] == "not_finite"
    assert "not finite in epoch 1" in result["incident"]["error"]
    assert result["epochs"] == []
    json.dumps(result, allow_nan=False)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_out_of_memory_is_recognised(error: Exception, expected: bool) -> None:
    assert memory.out_of_memory(error) is expected


def test_out_of_memory_as_torch_says_it(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "scores", lambda *args: torch.empty(2**60))
    (result,) = run(make())
    assert (result["incident"]["happened"], result["incident"]["alone"]) == ("out_of_memory", True)


@pytest.mark.parametrize("works", [True, False])
def test_a_device_that_does_not_work_any_more_is_reported(
    works: bool, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ask the device, not the error: cuBLAS and cuDNN raise errors of other classes after the same fault."""

    def ones(device: torch.device) -> torch.Tensor:
        if not works:
            raise RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED")
        return torch.ones(8, 8)

    monkeypatch.setattr(loop, "scores", broken)
    monkeypatch.setattr(memory, "ones", ones)
    (result,) = run(make())
    assert result["incident"]["clean"] is works


def test_after_an_incident_the_actor_ends_or_runs_another_trial(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def exited(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(os, "_exit", exited)
    actor = make()
    with monkeypatch.context() as patch:
        patch.setattr(loop, "scores", broken)
        run(actor)
    with pytest.raises(SystemExit):
        actor.step()
    actor.reset_config(assignment(trial=1))
    assert run(actor)[-1]["end"]["status"] == "completed"


def test_a_device_that_is_to_be_avoided_is_held(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainable, "HOLD_S", 0.0)
    actor = make()
    avoiding = assignment(trial=1)
    avoiding["avoid"]["devices"] = [[None, "GPU 1"], [None, None]]
    actor.reset_config(avoiding)
    for _ in range(2):
        result = ImageTrial.step(actor)
        assert (result["held"], result["epochs"]) == (True, [])
    actor.reset_config(assignment(trial=2))
    assert run(actor)[-1]["end"]["status"] == "completed"


@pytest.fixture
def saves_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "MOST_LOST_S", 0.0)
    monkeypatch.setattr(checkpoint, "MOST_COST", 1.0)


@pytest.mark.usefixtures("saves_always")
def test_a_new_attempt_goes_on_and_reports_what_the_record_may_not_have(make: Make) -> None:
    whole = [epoch for r in run(make(trial=0)) for epoch in r["epochs"]]
    lost = make(trial=1)
    lost.step()
    lost.step()
    again = run(make(trial=1, attempt=1))
    assert [tiny.lasting(e) for r in again for e in r["epochs"]] == [tiny.lasting(e) for e in whole]
    assert [epoch["epoch"] for epoch in again[0]["epochs"]] == [1, 2, 3]  # the checkpoint's, and the next
    assert "worker" in again[0]


@pytest.mark.usefixtures("saves_always")
@pytest.mark.parametrize("fields", [{"selection": "last"}, {"freeze": True}, {"freeze": True, "flip": True}])
def test_a_new_attempt_ends_with_the_same_weights(make: Make, tmp_path: Path, fields: dict[str, Any]) -> None:
    whole = run(make(trial=0, **fields))
    lost = make(trial=1, **fields)
    lost.step()
    lost.step()
    again = run(make(trial=1, attempt=1, **fields))
    assert [tiny.lasting(e) for r in again for e in r["epochs"]] == [
        tiny.lasting(e) for r in whole for e in r["epochs"]
    ]
    torch.testing.assert_close(bits(tmp_path / "1"), bits(tmp_path / "0"), rtol=0, atol=0)


@pytest.mark.usefixtures("saves_always")
def test_a_trial_whose_checkpoint_is_damaged_begins_again(make: Make, tmp_path: Path) -> None:
    whole = run(make(tmp_path / "whole"))
    lost = make()
    for _ in range(3):
        lost.step()
    assert names(tmp_path / "0") == ["0-3.safetensors"]
    (tmp_path / "0" / "0-3.safetensors").write_bytes(b"")
    again = run(make(attempt=1))
    assert lasting(again) == [{**result, "attempt": 1} for result in lasting(whole)]
    assert names(tmp_path / "0") == ["0-3.safetensors", "1-4.safetensors"], "only what was loaded is removed"


@pytest.mark.usefixtures("saves_always")
def test_a_checkpoint_that_cannot_be_written_costs_the_checkpoint_alone(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = lasting(run(make(tmp_path / "whole")))
    actor = make()
    actor._checkpoints, faults = faulty_storage(tmp_path, monkeypatch, write=1.0)
    found = run(actor)
    assert all("NETWORK_CONNECTION" in result.pop("unsaved") for result in found[1:])
    assert faults.clock.slept[:3] == [0.5, 1.0, 2.0], "each was tried for more than a minute"
    assert lasting(found)[1:] == expected[1:]


@pytest.mark.usefixtures("saves_always")
def test_what_is_still_being_written_of_a_stopped_trial_does_not_stay(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(Storage, "write", lambda self, *args: (go_on.wait(), write(self, *args)))
    actor = make()
    for _ in range(2):  # it begins, and trains an epoch
        ImageTrial.step(actor)
    running = actor._running
    assert running is not None
    actor.reset_config(assignment(trial=1))
    go_on.set()
    running.saver.wait()
    assert names(tmp_path / "0") == []


write = Storage.write


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.usefixtures("saves_always")
def test_what_a_checkpoint_has_is_reported_though_the_next_epoch_fails(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    make().step()
    monkeypatch.setattr(loop, "scores", broken)
    (result,) = run(make(attempt=1))
    assert [epoch["epoch"] for epoch in result["epochs"]] == [1]
    assert result["incident"]["happened"] == "error"


@pytest.mark.parametrize("fields", [{}, {"freeze": True}])
def test_a_trial_that_had_ended_reports_its_end_again(make: Make, fields: dict[str, Any]) -> None:
    """Run it once more, as after a driver was lost before the trial's end reached it."""
    before = run(make(split="60:40", final=True, **fields))
    (again,) = run(make(attempt=1))
    assert list(before[-1]["end"]["final_metrics"]) == ["train", "validation", "common"]
    assert again["epochs"] == [epoch for r in before for epoch in r["epochs"]]
    assert again["end"] == before[-1]["end"]


def test_only_a_final_run_is_measured_and_in_an_ordinary_sweep_on_the_validation_set_alone(make: Make) -> None:
    assert "final_metrics" not in run(make(split="60:40"))[-1]["end"], (
        "a trial of the search is not measured on test rows"
    )
    (validation,) = run(make(trial=1, final=True))[-1]["end"]["final_metrics"].items()
    assert validation[0] == "validation"
    assert validation[1]["rows"] == tiny.VALIDATION
    assert correct_predictions.unpack(validation[1]["correct"], tiny.VALIDATION).mean() == pytest.approx(
        validation[1]["accuracy"]
    )


def test_short_trials_are_saved_once(make: Make, tmp_path: Path) -> None:
    actor = make()
    for _ in range(3):
        actor.step()
    assert not (tmp_path / "0").exists()
    actor.step()
    assert len(list((tmp_path / "0").iterdir())) == 1


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="a process's peak is reset on Linux only")
def test_the_peak_of_memory_is_the_trials_own(make: Make) -> None:
    torch.ones(2**26)  # 256 MiB, gone at once
    high = memory.peak_mb()
    (result, *_) = run(make())
    assert result["epochs"][0]["peak_memory_mb"] < high - 100


ROUNDS = """
import resource, numpy
from trainables import memory
memory.keep_freed()
faults = []
for _ in range(8):
    arrays = [numpy.ones(2**19) for _ in range(16)]  # 4 MiB each
    del arrays
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(faults[-1] - faults[0])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep memory in other ways")
def test_what_a_step_frees_is_kept_for_the_next() -> None:
    faults = {}
    for name in ("kept", "as the environment has it"):
        environment = os.environ | ({"MALLOC_ARENA_MAX": "8"} if name != "kept" else {})
        done = subprocess.run([sys.executable, "-c", ROUNDS], env=environment, capture_output=True, check=True)
        faults[name] = int(done.stdout)
    assert faults["kept"] < faults["as the environment has it"] / 10


@pytest.fixture
def local_ray() -> Iterator[None]:
    here = {"env_vars": {"PYTHONPATH": str(Path(__file__).parent)}}  # workers need this module
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, runtime_env=here)
    yield
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_in_an_actor(make: Make, tmp_path: Path) -> None:
    """Compare a trial in an actor, after another trial, with the same trial in this process: bit for bit."""
    expected = run(make(tmp_path / "here", trial=1))
    actor = ray.remote(num_cpus=1)(Alone).remote(assignment(trial=0, **BIG), tmp_path / "actor")
    while not ray.get(actor.step.remote()).get("done"):
        pass
    ray.get(actor.reset_config.remote(assignment(trial=1)))
    found: list[dict[str, Any]] = []
    while not found or not found[-1].get("done"):
        found.append(ray.get(actor.step.remote()))
    assert lasting(found) == lasting(expected)


def test_a_trial_in_three_attempts_is_the_trial_in_one(make: Make, tmp_path: Path) -> None:
    """It pauses at rungs, its state saved whatever that costs, and another actor goes on: equal to the bit."""
    whole = run(make(tmp_path / "whole", max_epochs=4, **BIG))
    parts: list[dict[str, Any]] = []
    for attempt, until in enumerate((1, 3, None)):
        results = run(make(tmp_path / "parts", max_epochs=4, attempt=attempt, until=until, **BIG))
        assert results[-1].get("paused", False) == (until is not None)
        parts += results
    seen = {epoch["epoch"]: tiny.lasting(epoch) for result in parts for epoch in result["epochs"]}
    assert list(seen.values()) == [tiny.lasting(epoch) for result in whole for epoch in result["epochs"]]
    first, second = bits(tmp_path / "whole" / "0"), bits(tmp_path / "parts" / "0")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_pause_that_nobody_heard_of_is_reported_again(make: Make, tmp_path: Path) -> None:
    run(make(max_epochs=4, until=2))
    again = run(make(max_epochs=4, attempt=1, until=2))
    assert [epoch["epoch"] for result in again for epoch in result["epochs"]] == [1, 2]
    assert again[-1]["paused"]


def test_the_next_trial_of_an_actor_leaves_a_paused_one_its_state(make: Make, tmp_path: Path) -> None:
    actor = make(max_epochs=3, until=1)
    run(actor)
    actor.reset_config(assignment(trial=1, max_epochs=2))
    run(actor)
    assert names(tmp_path / "0") == ["0-1.safetensors"]


def test_a_pause_whose_state_cannot_be_written_costs_the_state_alone(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    actor = make(max_epochs=3, until=1)
    actor._checkpoints, _ = faulty_storage(tmp_path, monkeypatch, write=1.0)
    result = run(actor)[-1]
    assert result["paused"]
    assert "NETWORK_CONNECTION" in result["unsaved"]
    whole = run(make(tmp_path / "whole", max_epochs=3))
    again = run(make(max_epochs=3, attempt=1))
    assert [tiny.lasting(epoch) for result in again for epoch in result["epochs"]] == [
        tiny.lasting(epoch) for result in whole for epoch in result["epochs"]
    ]
