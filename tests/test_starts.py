"""Start points: they are proposed first, then trials around them, and what does not fit is said before Ray starts."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Command
from simulation import Setup, Simulation

from orchestrator import sweep
from orchestrator.record.events import TrialProposed
from orchestrator.record.journal import read
from orchestrator.search.samplers import SAMPLERS
from orchestrator.search.study import JournalStudy
from search_spaces import SPACES, load, pretrained, soundness, space_file, starts
from search_spaces.changes import override, parse
from search_spaces.situation import Situation
from search_spaces.space import SearchSpace, choice, integer, log, uniform
from search_spaces.stage import Stage
from trainables.config import TrialConfig
from trainables.errors import ConfigError

START: dict[str, Any] = {"lr": 0.1, "dropout": 0.0, "batch_size": 32, "model": "resnet8"}
SPACE = SearchSpace(
    TrialConfig(model="resnet8", max_epochs=5, precision="float32", memory_format="contiguous", threads=1),
    {
        "lr": log(0.01, 1.0),
        "dropout": uniform(0.0, 0.4),
        "batch_size": integer(16, 64, 16),
        "model": choice("resnet8", "resnet20"),
    },
    starts=(START,),
)


def proposals(space: SearchSpace, count: int, sampler: str = "tpe", seed: int = 0) -> list[dict[str, Any]]:
    study = JournalStudy(space, sampler, seed, trials=count)
    found = [study.propose(number) for number in range(count)]
    return [proposal.params for proposal in found if proposal is not None]


@pytest.mark.parametrize("sampler", [name for name, entry in SAMPLERS.items() if entry.points is None])
def test_the_first_proposals_are_the_start_points(sampler: str) -> None:
    second = {"lr": 0.5, "dropout": 0.2, "batch_size": 16, "model": "resnet20"}
    assert proposals(replace(SPACE, starts=(START, second)), 3, sampler)[:2] == [START, second]


def test_fields_that_a_start_point_leaves_out_are_drawn() -> None:
    first = [proposals(replace(SPACE, starts=({"lr": 0.1},)), 1, seed=seed)[0] for seed in range(5)]
    assert {params["lr"] for params in first} == {0.1}
    assert len({params["dropout"] for params in first}) == 5


def test_trials_around_a_start_point_become_rarer() -> None:
    def near(params: dict[str, Any]) -> bool:
        return bool(0.05 < params["lr"] < 0.2 and params["dropout"] < 0.1)

    found = [proposals(SPACE, 40, seed=seed) for seed in range(20)]
    early = sum(near(params) for run in found for params in run[1:8])
    late = sum(near(params) for run in found for params in run[20:])
    blind = sum(near(params) for seed in range(20) for params in proposals(SPACE, 40, "random", seed)[20:])
    assert early / (20 * 7) > 0.2
    assert early / (20 * 7) > 2 * late / (20 * 20)
    assert blind / (20 * 20) < 0.1


def test_values_around_a_start_point_can_be_drawn() -> None:
    generator = random.Random(0)
    for _ in range(500):
        found = starts.around(START, SPACE.possible, generator)
        assert not list(starts.problems([found], SPACE.possible, SPACE.deciding))
        assert found["batch_size"] in (16, 32, 48, 64)
    whole = starts.around({"batch_size": 8}, lambda name, start: [integer(1, 100)], generator)
    assert type(whole["batch_size"]) is int


def test_in_each_stage_every_value_in_turn_begins_with_the_start_point() -> None:
    """So nets are compared with the same settings first."""
    stages = (Stage(3, {"freeze": True}, each=("model",)), Stage(1, {"freeze": False}))
    distributions = {**SPACE.distributions, "freeze": choice(True, False)}
    heads, whole = {"lr": 0.1, "dropout": 0.0, "freeze": True}, {"lr": 0.02, "freeze": False}
    found = proposals(replace(SPACE, distributions=distributions, stages=stages, starts=(heads, whole)), 8)
    assert [{n: p[n] for n in ("model", "lr", "dropout")} for p in found[:2]] == [
        {"model": "resnet8", "lr": 0.1, "dropout": 0.0},
        {"model": "resnet20", "lr": 0.1, "dropout": 0.0},
    ]
    assert (found[6]["freeze"], found[6]["lr"]) == (False, 0.02)
    assert sum(params["lr"] == 0.1 for params in found) == 2


def test_a_killed_search_proposes_what_it_would_have(tmp_path: Path) -> None:
    setup = Setup(12, sampler="tpe", space=SPACE)
    whole, parts = Simulation(tmp_path / "a", setup), Simulation(tmp_path / "b", replace(setup, trials=1))
    for simulation in (whole, parts):
        simulation.path.parent.mkdir()
        simulation.run()
    parts.setup = setup
    parts.run()
    first, second = (
        [event.params for event in read(simulation.path)[0] if isinstance(event, TrialProposed)]
        for simulation in (whole, parts)
    )
    assert first == second


def test_what_is_set_or_searched_otherwise_is_left_out() -> None:
    fixed, searched = parse(["dropout=0.3"], ["lr=log(0.5,1)", "batch_size=int(32,64,32)"])
    assert override(SPACE, fixed, searched).starts == ({"batch_size": 32, "model": "resnet8"},)


def test_a_value_under_a_condition_needs_what_decides_it() -> None:
    """Else the other is drawn, the value maybe not, and every trial of the other branch counts as at the start."""
    space = SearchSpace(
        SPACE.base,
        {"optimizer": choice("sgd", "adamw"), "momentum": uniform(0.5, 0.99), "lr": log(0.01, 1.0)},
        conditions={"momentum": {"optimizer": ("sgd",)}},
    )
    lone, whole = {"momentum": 0.9}, {"momentum": 0.9, "optimizer": "sgd"}
    ((_, problem),) = starts.problems([lone], space.possible, space.deciding)
    assert problem == "start 1: momentum=0.9 depends on optimizer, which would be drawn; give optimizer, too"
    assert not list(starts.problems([whole], space.possible, space.deciding))
    assert starts.fitted([lone, {**lone, "lr": 0.1}], space.possible, space.deciding) == ({"lr": 0.1},)
    assert starts.is_at({"optimizer": "sgd", "momentum": 0.9, "lr": 0.3}, whole)
    assert not starts.is_at({"optimizer": "adamw", "lr": 0.3}, whole)
    assert not starts.is_at({"optimizer": "adamw", "lr": 0.3}, lone), "no field is common"


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("preset", ["quick", "good", "best"])
def test_the_start_points_of_the_shipped_spaces_are_sound(gpu: bool, preset: str) -> None:
    situation = Situation(gpu, preset, "imagenet", ("resnet18", "resnet50"), 1000, True)
    spaces = [situation.make(make) for make in (*map(load, SPACES), load("./pictures"), pretrained.space)]
    for space in spaces:
        assert space.starts
        assert not list(soundness.problems(space))
        assert SearchSpace.from_dict(space.to_dict()) == space


def test_a_yaml_space_names_start_points(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(
        "search: {lr: 'log(0.01,1)', dropout: 'uniform(0,0.5)'}\nstarts:\n- {lr: 0.1, dropout: 0}\n- lr: 0.3\n"
    )
    space = space_file.read(path)(Situation(False, "good", "none", (), None, True))
    assert space.starts == ({"lr": 0.1, "dropout": 0.0}, {"lr": 0.3})
    path.write_text("search: {lr: 'log(0.01,1)'}\nstarts:\n- {lr: 7}\n- {model: resnet8}\n- {}\n")
    with pytest.raises(ConfigError) as refused:
        space_file.read(path)(Situation(False, "good", "none", (), None, True))
    assert [problem.partition("yaml, ")[2] for problem in refused.value.problems] == [
        "line 3: start 1: lr=7.0 is not among what is searched: log(0.01, 1)",
        "line 4: start 2: model is not searched, so no trial has model=resnet8",
        "line 5: start 3 has no values",
    ]


FIXED = ("dropout=0", "weight_decay=0", "label_smoothing=0", "train_fraction=1")
GRID = ("--sampler", "grid", "--search", "lr=choice(0.1,0.3)", "--set", *FIXED)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--try", "lr=7"], "--try: start 1: lr=7.0 is not among what is searched: log(0.02, 1)"),
        (["--try", "lr"], "'lr' is not of the form --try"),
        (["--try", "lr=0.1 rate=3"], "rate"),
        (["--try", "optimizer=adamw"], "optimizer is not searched, so no trial has optimizer=adamw"),
        (["--starts", "some"], "--starts some: unknown"),
        ([*GRID, "--try", "lr=0.1"], "--try: --sampler grid runs every combination; leave it out"),
        ([*GRID, "--warm-start", "auto"], "--warm-start: --sampler grid runs every combination; leave it out"),
    ],
)
def test_wrong_start_points_are_refused(command: Command, arguments: list[str], problem: str) -> None:
    done = command("orchestrator.sweep", "digits", *arguments, "--dry-run")
    assert done.code == 2
    assert problem in done.err


def test_the_plan_names_start_points_and_limits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A forgotten quote makes two start points of one."""
    planned = ["digits", "--results", str(tmp_path), "--dry-run", "--max-epochs", "1"]
    limits = ["--time-budget", "30m", "--target-score", "0.98", "--patience-trials", "5", "--epoch-budget", "60"]
    assert sweep.main([*planned, "--try", "lr=0.1", "dropout=0.1", *limits, "--starts", "none"]) == 0
    shown = " ".join(capsys.readouterr().err.split())
    assert " starts 2 settings first: lr=0.1; dropout=0.1 " in shown
    ends = "30m in all, 60 epochs in all, a score of 0.98 or 5 trials without a better score"
    assert f" limits the search ends at {ends}, whichever comes first " in shown
    assert sweep.main([*planned, "--try", "lr=0.1 dropout=0.1", "--starts", "none"]) == 0
    shown = " ".join(capsys.readouterr().err.split())
    assert " starts 1 setting first: lr=0.1 dropout=0.1 " in shown
    assert " limits " not in shown


def test_the_command_tries_what_is_asked_for(command: Command, tmp_path: Path) -> None:
    done = command(
        *("orchestrator.sweep", "digits", "--try", "lr=0.2 optimizer=sgd", "--results", tmp_path, "--dry-run", "--json")
    )
    assert done.code == 0, done.err
    assert [sample["lr"] for sample in done.result["samples"][:2]] == [0.2, 0.1]
    done = command("orchestrator.sweep", "digits", "--starts", "none", "--results", tmp_path, "--dry-run", "--json")
    assert 0.1 not in [sample["lr"] for sample in done.result["samples"]]
