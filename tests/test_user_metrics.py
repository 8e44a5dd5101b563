"""A metric of the user's: found, tried before anything starts, computed every epoch, and recorded under its name."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from conftest import Command
from journals import trial, write_sweep

from orchestrator import report, validation
from orchestrator.cluster import machine
from orchestrator.leaderboard import boards, rerun, selection
from orchestrator.plan import models, plan
from orchestrator.plan.context import SweepData
from orchestrator.plan.options import SweepOptions
from orchestrator.plan.request import Request
from orchestrator.record.state import SweepState, TrialRecord
from trainables import user_metrics
from trainables.config import TrialConfig
from trainables.datasets.inventory import Inventory
from trainables.epoch_metrics import METRICS, better, canonical, column, direction_of, score_name
from trainables.errors import ConfigError
from trainables.loop import final_metrics, train

MODULE = """
import numpy as np
import torch

def misses(labels, probabilities):
    assert labels.dtype == np.int64 and probabilities.dtype == np.float64
    assert np.allclose(probabilities.sum(1), 1)
    return (probabilities.argmax(1) != labels).sum()

def raises(labels, probabilities):
    raise RuntimeError("no such row")

def tensor(labels, probabilities):
    return torch.tensor(0.5)

def text(labels, probabilities):
    return "0.5"

def nan(labels, probabilities):
    return float("nan")

def infinite(labels, probabilities):
    return np.inf

def nothing(labels, probabilities):
    pass

def truth(labels, probabilities):
    return True

def unary(labels):
    return 0.5

def accuracy(labels, probabilities):
    return 0.5

NUMBER = 3

class Costs:
    @staticmethod
    def mean(labels, probabilities):
        return np.float32(0.25)
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a folder with the user's module, which is on the path."""
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "costs.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    sys.modules.pop("costs", None)


def test_names_and_directions() -> None:
    assert [canonical(text) for text in ("val_f1:max", "a.b:c", "a.b:c:max", "a.b:c:min", "val_loss:min")] == [
        "val_f1", "a.b:c", "a.b:c", "a.b:c:min", "val_loss",
    ]  # fmt: skip
    names = ("val_f1", "a.b:c", "a:b.c:min")
    assert [column(name) for name in names] == ["val_f1", "val_c", "val_c"]
    assert [score_name(name) for name in names] == ["f1", "c", "c"]
    assert [direction_of(name) for name in names] == ["max", "max", "min"]
    assert better("a:b:min", 1.0, 2.0)
    assert not better("a:b", 1.0, 2.0)


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("nowhere:f", "--metric nowhere:f: there is no module nowhere in this folder, on PYTHONPATH or among the"),
        ("costs:missed", "--metric costs:missed: there is no missed in costs; did you mean misses?"),
        ("costs:NUMBER", "--metric costs:NUMBER: NUMBER is a int; a function that returns a number is needed"),
        ("costs:accuracy", "accuracy is the name of something else; give the function another one"),
        ("costs:misses:most", "--metric costs:misses:most: unknown"),
        ("log_loss", "--metric log_loss: unknown; did you mean val_loss? (allowed: val_accuracy, "),
        ("val_loss:max", "the direction of val_loss is always min"),
    ],
)
def test_what_cannot_be_a_metric_is_refused_at_once(metric: str, message: str) -> None:
    (problem,) = user_metrics.problems(metric)
    assert message in problem
    with pytest.raises(ConfigError, match="--metric"):
        validation.check(SweepOptions("digits", metric=metric), [machine.Resources(2, 0)])


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("raises", "costs.py, line 11: RuntimeError: no such row"),
        ("tensor", "returned a Tensor: a finite number is needed, such as float(…) of it"),
        ("text", "returned a str: a finite number is needed"),
        ("nothing", "returned a NoneType: a finite number is needed"),
        ("nan", "returned nan: let it return a finite number where every class has rows"),
        ("infinite", "returned inf: a finite number is needed"),
        ("truth", "returned True: a finite number is needed"),
        ("unary", "TypeError: unary() takes 1 positional argument but 2 were given"),
    ],
)
def test_nonsense_is_refused_before_anything_starts(function: str, message: str, tmp_path: Path) -> None:
    metric = f"costs:{function}"
    assert user_metrics.problems(metric) == []
    options = SweepOptions("digits", metric=metric, results=tmp_path)
    planned = plan.make(Request(options), [machine.Resources(2, 0)])
    with pytest.raises(ConfigError) as raised:
        models.tried(planned, SweepData(tiny.search_data(), {}, Inventory()))
    (problem,) = raised.value.problems
    assert problem.startswith(f"--metric {metric}, tried on 6 rows of 3 classes")
    assert message in problem


@pytest.mark.parametrize("classes", [2, 3, 1000, 5000])
def test_a_sound_metric_is_accepted_for_any_number_of_classes(classes: int) -> None:
    assert user_metrics.problems_with("costs:misses:min", classes) == []
    assert user_metrics.problems_with("costs:Costs.mean", classes) == []


def test_top_five_needs_more_classes() -> None:
    (problem,) = user_metrics.problems_with("val_top5_accuracy", 5)
    assert problem == (
        "--metric val_top5_accuracy: of 5 classes all are among the 5 likeliest; use val_accuracy, or data with more "
        "than 5 classes"
    )
    assert user_metrics.problems_with("val_top5_accuracy", 6) == []


def test_every_epoch_has_its_value_and_the_score_is_its_least() -> None:
    data, state = tiny.start(tiny.config(metric="costs:misses:min"))
    epochs = [epoch.to_dict() for epoch in train(data, state)]
    values = [epoch["val_misses"] for epoch in epochs]
    assert values == [round((1 - epoch["val_accuracy"]) * len(data.scored_rows)) for epoch in epochs]
    assert (state.score, state.best_epoch) == (min(values), 1 + values.index(min(values)))
    assert json.loads(json.dumps(epochs)) == epochs
    assert "own" not in epochs[0]


def test_final_metrics_have_it_as_well() -> None:
    data, state = tiny.start(tiny.config(metric="costs:misses:min", max_epochs=1))
    data = data.of_run(state.config, final=True)
    list(train(data, state))
    (part,) = final_metrics(data, state).values()
    assert part["misses"] == state.score


def test_an_undefined_value_is_none_and_an_error_ends_the_trial_with_its_text() -> None:
    logits, labels = torch.zeros(4, 2), torch.tensor([0, 1, 0, 1])
    assert user_metrics.of_outputs("costs:nan", logits, labels) == {"nan": None}
    assert user_metrics.of_outputs("val_f1", logits, labels) == {}
    data, state = tiny.start(tiny.config(metric="costs:raises"))
    with pytest.raises(ConfigError, match=r"metric=costs:raises, .*line 11: RuntimeError: no such row"):
        next(train(data, state))


def test_code_of_a_metric_is_shipped_unless_it_is_installed(module: Path) -> None:
    assert user_metrics.source("costs:misses:min") == module / "costs.py"
    assert [user_metrics.source(name) for name in ("val_f1", "sklearn.metrics:f1_score")] == [None, None]


def test_a_resumed_sweep_may_name_it_again_but_no_other(tmp_path: Path) -> None:
    from orchestrator.plan import resumption

    options = SweepOptions("digits", metric="costs:misses:min", results=tmp_path)
    began = plan.make(Request(options), [machine.Resources(2, 0)])
    assert began.space.base.metric == "costs:misses:min"

    def resumed(metric: str) -> Any:
        options = SweepOptions(resume="one", metric=metric, results=tmp_path)
        return resumption.resume(Request(options), began, SweepState(), [machine.Resources(2, 0)])

    assert resumed("costs:misses:min").space.base.metric == "costs:misses:min"
    with pytest.raises(ConfigError, match="--metric costs:misses: this sweep began with costs:misses:min"):
        resumed("costs:misses")


def test_the_report_and_leaderboards_have_its_column_alone_and_merged(tmp_path: Path) -> None:
    def measure(epoch: int, score: float) -> dict[str, Any]:
        scores = dict.fromkeys(METRICS, 0.5)
        return {"epoch": epoch, **scores, "val_misses": score, "train_s": 1.0, "eval_s": 0.1, "stop_reason": None}

    trials = [trial(number, [9.0, misses], measure=measure) for number, misses in enumerate((3.0, 2.0))]
    write_sweep(tmp_path / "own", *trials, metric="costs:misses:min")
    write_sweep(tmp_path / "usual", trial(0, [0.7]))
    found, _ = boards.find([str(tmp_path / "own"), str(tmp_path / "usual")])
    (own,) = [board for board in found if board.name == "own"]
    assert own.table["val_misses"].to_pylist() == own.table["score"].to_pylist() == [2.0, 3.0]
    merged = selection.merged(found)
    assert sorted(merged["val_misses"].to_pylist(), key=str) == [2.0, 3.0, None]
    assert selection.ordered(own.table, "val_misses", own.metric)["trial"].to_pylist() == [1, 0]
    page = report.write(tmp_path / "own").read_text(encoding="utf-8")
    assert "val_misses" in page
    assert "costs:misses:min: lower is better" in " ".join(re.sub("<[^>]*>", "", page).split())


def test_a_configuration_of_anybody_runs_no_code_of_theirs(tmp_path: Path, command: Command) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"metric": "costs:misses"}))
    done = command("trainables", "digits", "--config", path)
    assert done.code == 2
    assert "would run code, costs:misses: if you trust it, allow it with --set metric=costs:misses" in done.err


def test_a_replay_runs_the_code_of_a_metric_only_if_it_is_trusted() -> None:
    config = TrialConfig(metric="costs:misses:min").to_dict()
    of_metric, of_both = (TrialRecord(0, {}, config | changes, 0.0) for changes in ({}, {"model": "costs:misses"}))
    (problem,) = rerun._code_problems(of_metric, None)
    assert problem == (
        "trial 0's metric is computed by code, costs:misses; if you trust it, allow it with --trust costs:misses"
    )
    assert "costs" not in sys.modules
    assert len(rerun._code_problems(of_both, None)) == 2
    for record in (of_metric, of_both):
        assert rerun._code_problems(record, "other:code,costs:misses") == []


@pytest.mark.slow
def test_a_sweep_by_a_metric_of_the_users(tmp_path: Path, command: Command, module: Path) -> None:
    options = ("--trials", "3", "--max-epochs", "2", "--confirm", "1", "--confirm-seeds", "2", "--name", "own")
    asked = ("--metric", "costs:misses:min", "--set", "model=simple_cnn", "--results", tmp_path)
    done = command("orchestrator.sweep", "digits", *options, *asked, cwd=module, timeout=600)
    assert done.code == 0, done.err
    folder = tmp_path / "own"
    board = pd.read_parquet(folder / "leaderboard.parquet")
    assert board["score"].tolist() == board["val_misses"].tolist() == sorted(board["score"])
    assert {"val_misses"} <= set(pd.read_parquet(folder / "history.parquet"))
    final = json.loads((folder / "final.json").read_bytes())
    assert final["metric"] == "costs:misses:min"
    test = final["test"]
    expected = [round((1 - accuracy) * test["rows"]) for accuracy in test["accuracy"]["values"]]
    assert test["score"]["values"] == expected
    metrics = json.loads((folder / "best/metrics.json").read_bytes())
    assert metrics["parts"]["test"]["misses"] in expected
    assert "| misses |" in (folder / "best/README.md").read_text(encoding="utf-8")
    assert "val_misses" in (folder / "report.html").read_text(encoding="utf-8")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    from PIL import Image

    Image.fromarray(np.zeros((8, 8), np.uint8)).save(pictures / "one.png")
    assert command("orchestrator.predict", folder / "best", pictures).code == 0  # in another folder, without the code
    again = command("orchestrator.sweep", "--resume", "own", "--results", tmp_path, cwd=module)
    assert again.code == 0, again.err


def test_configurations_name_it_and_nothing_else_of_its_look() -> None:
    assert TrialConfig(metric="a.b:c:min").metric == "a.b:c:min"
    with pytest.raises(ConfigError, match="metric='a:b:max' is not allowed"):
        TrialConfig(metric="a:b:max")
