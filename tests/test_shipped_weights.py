"""Weights of a sweep: wrong ones fail before Ray starts, right ones go to workers that do not see the file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import tiny
import torch
from safetensors.torch import save_file
from test_trainable import Alone, assignment, run

from orchestrator.cluster import shared_images
from orchestrator.cluster.machine import Resources
from orchestrator.leaderboard import rerun
from orchestrator.plan import models, plan
from orchestrator.plan.context import SweepData
from orchestrator.plan.forecast import forecast
from orchestrator.plan.options import SweepOptions
from orchestrator.plan.request import Request
from orchestrator.record.decoding import from_json
from orchestrator.record.facts import Spec, Worker
from orchestrator.record.state import SweepState, TrialRecord
from trainables.config import TrialConfig
from trainables.datasets.inventory import Inventory
from trainables.errors import ConfigError
from trainables.models import inputs, weights
from trainables.models.build import build
from trainables.models.filling import Filled


@pytest.fixture(autouse=True)
def nothing_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_read", {})
    monkeypatch.setattr(inputs, "_known", {})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    path = tmp_path / "resnet8.safetensors"
    save_file(build(TrialConfig(model="resnet8"), 10, 8).state_dict(), path)
    return path


def planned(folder: Path, *fields: str, search: tuple[str, ...] = ()) -> plan.Plan:
    options = SweepOptions("digits", results=folder, set=(fields,), search=(search,) if search else ())
    return plan.make(Request(options), [Resources(2, 0)])


def tried(folder: Path, *fields: str, search: tuple[str, ...] = ()) -> SweepData:
    return models.tried(planned(folder, *fields, search=search), SweepData(tiny.search_data(), {}, Inventory()))


def test_all_wrong_weights_of_a_space_are_named_at_once(tmp_path: Path, file: Path) -> None:
    damaged, other = tmp_path / "damaged.pth", tmp_path / "other.safetensors"
    damaged.write_bytes(b"no zip")
    save_file({"a.weight": torch.zeros(3, 4)}, other)
    search = (f"weights=choice(none,{damaged},{other},{file})", "model=choice(resnet8,resnet14)")
    with pytest.raises(ConfigError) as raised:
        tried(tmp_path, search=search)
    problems = raised.value.problems
    assert len(problems) == 4
    assert sum("damaged.pth cannot be read" in one for one in problems) == 1
    assert sum("are another net's" in one for one in problems) == 3  # other for both, the right one for resnet14
    with pytest.raises(ConfigError) as raised:
        tried(tmp_path, search=(f"weights=choice({tmp_path}/gone.pth,{tmp_path}/nowhere/)",))
    assert len(raised.value.problems) == 2


def test_a_plan_says_what_weights_fill_and_its_forecast_reads_none(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = ("model=resnet8", f"weights={file}", "freeze=true")
    loaded = tried(tmp_path, *fields)
    (filled,) = loaded.filled.values()
    assert "from resnet8.safetensors" in str(filled)
    assert str(filled).endswith("a new head")
    monkeypatch.setattr(weights, "_read", {})
    file.unlink()
    made = planned(tmp_path, "model=resnet8")
    made = dataclasses.replace(made, arms={"": made.space.renamed("weights", {"none": str(file)})})
    assert forecast(made, loaded.rows, 1) is not None
    assert weights._read == {}


def test_a_worker_takes_weights_from_the_store_and_records_them(tmp_path: Path, file: Path) -> None:
    expected = weights.read("resnet8", str(file))
    with_file = run(Alone(assignment(weights=str(file)), tmp_path / "here"))
    if not ray.is_initialized():
        ray.init(num_cpus=1, include_dashboard=False)
    shared = shared_images.share_weights([("resnet8", str(file)), ("resnet8", "none"), ("resnet8", str(file))])
    assert set(shared) == {("resnet8", str(file))}
    assert not weights.is_held("resnet8", str(file))
    file.unlink()
    worker = Alone(assignment(trial=1, weights=str(file)), tmp_path / "there")
    worker._weights = shared
    results = run(worker)
    ray.shutdown()
    assert [tiny.lasting(one) for r in results for one in r["epochs"]] == [
        tiny.lasting(one) for r in with_file for one in r["epochs"]
    ]
    recorded = results[0]["worker"]["weights"]
    assert recorded == {
        "source": "resnet8.safetensors",
        "sha256": expected.sha256,
        "loaded": len(expected.tensors) - 2,
        "drawn": 2,
        "drawn_names": ["fc.weight", "fc.bias"],
        "head": 2,
        "left": 0,
        "prefix": "",
    }
    described = from_json(Worker, json.loads(json.dumps(results[0]["worker"])))
    resolved = described.resolve(tiny.config(weights=str(file)).to_dict())
    assert (resolved["normalization"], resolved["interpolation"]) == ("train", "bilinear")


def test_a_trial_that_goes_on_has_the_same_losses(tmp_path: Path, file: Path) -> None:
    fields: dict[str, Any] = {"weights": str(file), "model": "resnet8"}
    whole = run(Alone(assignment(**fields), tmp_path / "whole"))
    begun = Alone(assignment(**fields), tmp_path / "cut")
    begun.step()
    again = run(Alone(assignment(attempt=1, **fields), tmp_path / "cut"))
    epochs = [[tiny.lasting(one) for r in results for one in r["epochs"]] for results in (whole, again)]
    assert epochs[0] == epochs[1]


def test_a_resumed_sweep_refuses_other_weights(tmp_path: Path, file: Path) -> None:
    fields = ("model=resnet8", f"weights={file}")
    state = SweepState()
    config = TrialConfig(model="resnet8", weights=str(file)).to_dict()
    trial = state.trials[0] = TrialRecord(0, {}, config, 0.0, "", 0)
    loaded = SweepData(tiny.search_data(), {}, Inventory())
    for sha256, refused in ((weights.read("resnet8", str(file)).sha256, False), ("0" * 64, True)):
        trial.worker = Worker(weights={"sha256": sha256})
        if refused:
            with pytest.raises(ConfigError, match=r"resnet8.safetensors has changed since the sweep began .*00000000"):
                models.tried(planned(tmp_path, *fields), loaded, state)
        else:
            models.tried(planned(tmp_path, *fields), loaded, state)


@pytest.mark.parametrize(("recorded", "differs"), [("0" * 64, False), ("1" * 64, True), (None, False)])
def test_a_replay_names_other_weights(recorded: str | None, differs: bool) -> None:
    config = TrialConfig(model="resnet8", weights="/there/a.pth").to_dict()
    trial = TrialRecord(0, {}, config, 0.0, "", 0)
    trial.worker = Worker(weights={"sha256": recorded} if recorded else None)
    filled = Filled("a.pth", "0" * 64, loaded=1, drawn=(), head=(), left=0, prefix="")
    made = TrialConfig.from_dict(config)
    state: Any = SimpleNamespace(device=tiny.CPU, config=made, kept=SimpleNamespace(filled=filled))
    board: Any = SimpleNamespace(events=[], spec=Spec())
    facts = [str(one) for one in rerun._elsewhere(board, trial, state) if one.fact == "weights"]
    assert facts == [f"weights a file of SHA-256 {'1' * 8}… was recorded, 00000000… is here"] * differs
