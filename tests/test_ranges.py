"""Fields with a range for each branch: in Python, YAML and on the command line, and wherever a space is used."""

from __future__ import annotations

import math
import os
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from journals import trial, write_sweep
from simulation import CALM, Chaos, Setup, Simulation, curve, outcome

from orchestrator.cluster import machine
from orchestrator.leaderboard import memory, selection
from orchestrator.leaderboard.boards import find
from orchestrator.plan import plan, recorded, resumption
from orchestrator.plan.options import SweepOptions
from orchestrator.plan.request import Request
from orchestrator.record.journal import read
from orchestrator.record.state import SweepState
from orchestrator.report import influence
from orchestrator.search.promotion import Rounds
from orchestrator.search.samplers import SAMPLERS
from orchestrator.search.schedulers import stop_rule
from orchestrator.search.study import JournalStudy
from orchestrator.validation import check
from search_spaces import soundness, space_file, starts
from search_spaces.changes import override, parse
from search_spaces.distributions import Distribution
from search_spaces.grid import Grid
from search_spaces.situation import Situation
from search_spaces.space import Range, SearchSpace, choice, integer, log, uniform
from trainables.config import TrialConfig
from trainables.errors import ConfigError

SGD, ADAMW = "lr=log(1e-3,1) if optimizer=sgd", "lr=log(1e-5,1e-2) if optimizer=adamw"
OPTIMIZER = "optimizer=choice(sgd,adamw)"
BASE = TrialConfig(model="resnet8", max_epochs=5, precision="float32", memory_format="contiguous", threads=1)
SPACE = SearchSpace(
    BASE,
    {"optimizer": choice("sgd", "adamw", "adam"), "lr": log(1e-3, 1.0), "dropout": uniform(0.0, 0.4, 0.1)},
    conditions={"lr": {"optimizer": ("sgd",)}},
    ranges={"lr": (Range({"optimizer": ("adamw",)}, log(1e-5, 1e-2)),)},
)
LEARNING = ["random", "tpe", "nsga2", pytest.param("gp", marks=pytest.mark.slow)]


@pytest.fixture(autouse=True)
def _no_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out flushes, as in tests/test_simulation.py."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def changed(*searches: str, base: SearchSpace | None = None, settings: tuple[str, ...] = ()) -> SearchSpace:
    return override(base or SearchSpace(BASE), *parse(settings, searches))


def bounds(space: SearchSpace, name: str, **params: Any) -> tuple[float, float] | None:
    found = space.parameter(name, params)
    return None if found is None else (found[1].low, found[1].high)  # type: ignore[union-attr]


# How a range a branch is said


def test_on_the_command_line() -> None:
    space = changed(OPTIMIZER, SGD, ADAMW)
    assert bounds(space, "lr", optimizer="sgd") == (1e-3, 1)
    assert bounds(space, "lr", optimizer="adamw") == (1e-5, 1e-2)
    assert space.describe("lr") == "log(0.001, 1) if optimizer=sgd; log(1e-05, 0.01) if optimizer=adamw"
    assert changed(OPTIMIZER, f"lr={space.describe('lr')}") == space
    assert SearchSpace.from_dict(space.to_dict()) == space


def test_a_range_without_a_condition_holds_elsewhere() -> None:
    space = changed("optimizer=choice(sgd,adamw,adam)", "lr=log(1e-3,1)", ADAMW)
    found = [bounds(space, "lr", optimizer=name) for name in ("sgd", "adam", "adamw")]
    assert found == [(1e-3, 1), (1e-3, 1), (1e-5, 1e-2)]


def test_where_no_range_holds_the_field_is_not_searched() -> None:
    assert bounds(SPACE, "lr", optimizer="adam") is None
    assert not SPACE.active("lr", {"optimizer": "adam"})
    assert SPACE.config({"optimizer": "adam"}).lr == BASE.lr


def test_in_yaml(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(
        "search:\n  optimizer: choice(sgd, adamw)\n  lr:\n  - log(1e-3, 1) if optimizer=sgd\n"
        "  - log(1e-5, 1e-2) if optimizer=adamw\n"
    )
    space = space_file.read(tmp_path / "space.yaml")(Situation(False))
    assert space.describe("lr") == "log(0.001, 1) if optimizer=sgd; log(1e-05, 0.01) if optimizer=adamw"


def test_setting_the_other_field_leaves_one_range() -> None:
    for name, low in (("sgd", 1e-3), ("adamw", 1e-5)):
        space = changed(base=SPACE, settings=(f"optimizer={name}",))
        assert (dict(space.conditions), dict(space.ranges)) == ({}, {})
        assert bounds(space, "lr") == (low, 1e3 * low)
    assert "lr" not in changed(base=SPACE, settings=("optimizer=adam",)).distributions
    assert "lr" not in changed(base=SPACE, settings=("lr=0.1",)).ranges
    once = changed("lr=log(0.1,0.2)", base=SPACE)
    assert (bounds(once, "lr", optimizer="adamw"), dict(once.ranges)) == ((0.1, 0.2), {})


@pytest.mark.parametrize(
    ("searches", "said"),
    [
        (
            (OPTIMIZER, SGD, "lr=log(1e-5,1e-2) if optimizer=sgd"),
            "lr has two ranges, if optimizer=sgd and if optimizer=sgd, which may hold at once",
        ),
        ((OPTIMIZER, "flip=choice(true,false)", SGD, "lr=log(1e-4,1) if flip=true"), "which may hold at once"),
        ((OPTIMIZER, "lr=log(1e-3,1)", "lr=log(1e-4,1)"), "lr is searched in two ways at once"),
        ((OPTIMIZER, SGD, "lr=choice(0.1,0.2) if optimizer=adamw"), "its ranges are choices and numbers"),
        ((OPTIMIZER, SGD, "lr=log(1e-3,1) if optimizer=adam"), "optimizer=adam, which choice(sgd, adamw) never is"),
        (
            (OPTIMIZER, "lr=log(1e-3,1) if optimizer=sgd and optimizer=adamw"),
            "names optimizer twice; write optimizer=VALUE|VALUE",
        ),
        (
            (
                *(OPTIMIZER, "flip=choice(true,false) if optimizer=sgd"),
                "momentum=uniform(0,0.9) if flip=true and optimizer=adamw",
            ),
            "momentum is never searched: its condition flip=true and optimizer=adamw contradicts",
        ),
    ],
)
def test_what_contradicts_itself_is_said(searches: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        changed(*searches)
    (problem,) = error.value.problems
    assert said in problem


def test_stages_decide_about_no_field_of_several_ranges() -> None:
    from search_spaces.stage import Stage

    staged = replace(SPACE, stages=(Stage(1, {"lr": 0.1}), Stage(1)))
    assert "lr has several ranges, so no stage can decide about it" in next(soundness.problems(staged))[1]


# Where a space is used


@pytest.mark.parametrize("sampler", LEARNING)
def test_proposals_lie_in_their_branch_and_are_parameters_of_their_own(sampler: str) -> None:
    study, seen = JournalStudy(SPACE, sampler, 3, trials=40, learned_at=1), set[str]()
    for number in range(40):
        proposal = study.propose(number)
        assert proposal is not None
        params = proposal.params
        within = bounds(SPACE, "lr", **params)
        assert ("lr" in params) == (within is not None)
        if within is not None:
            assert within[0] <= params["lr"] <= within[1]
        study.observe(trial(number, [0.5 + 0.01 * number], config=BASE.to_dict(), params=params)[2])
        seen |= study.study.trials[-1].params.keys()
    assert seen == {"optimizer", "dropout", "lr", "lr if optimizer=adamw"}


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_killed_search_goes_on_as_it_would_have(tmp_path: Path, sampler: str) -> None:
    rule = stop_rule("asha", SPACE, 1, 3, Rounds((15,)))
    found = []
    for number, chaos in enumerate((CALM, Chaos(kill=0.02, lose=0.05, late=0.5, signal=0.01))):
        (folder := tmp_path / str(number)).mkdir()
        simulation = Simulation(folder, Setup(15, sampler, 3, rule=rule, space=SPACE, learned=curve), chaos, seed=5)
        simulation.run()
        found.append(outcome(list(read(simulation.path)[0])))
    lost = [number for number, one in found[1].items() if one[-1][1] == "lost"]
    assert lost or found[0] == found[1]


def test_the_grid_has_each_branch_with_its_values() -> None:
    stepped: dict[str, Distribution] = {"optimizer": choice("sgd", "adamw"), "batch_size": integer(16, 64, 16)}
    further = Range({"optimizer": ("adamw",)}, integer(128, 256, 128))
    space = SearchSpace(BASE, stepped, ranges={"batch_size": (further,)})
    points = {(point["optimizer"], point["batch_size"]) for point in Grid(space, 0)}
    assert points == {*(("sgd", size) for size in (16, 32, 48, 64)), ("adamw", 128), ("adamw", 256)}
    with pytest.raises(ConfigError, match=r"lr: a grid needs steps"):
        Grid(SPACE, 0)


def test_start_points_fit_their_branch() -> None:
    assert not list(
        starts.problems(
            [{"optimizer": "adamw", "lr": 1e-4}, {"optimizer": "sgd", "lr": 0.5}], SPACE.possible, SPACE.deciding
        )
    )
    ((_, problem),) = starts.problems([{"optimizer": "adamw", "lr": 0.5}], SPACE.possible, SPACE.deciding)
    assert problem == "start 1: lr=0.5 is not among what is searched: log(1e-05, 0.01)"
    generator = random.Random(0)
    for _ in range(200):
        near = starts.around({"optimizer": "adamw", "lr": 1e-4}, SPACE.possible, generator)
        assert 1e-5 <= near["lr"] <= 1e-2
    started = replace(SPACE, starts=({"optimizer": "adamw", "lr": 1e-4},))
    study = JournalStudy(started, "tpe", 0, trials=20)
    params = [found.params for number in range(20) if (found := study.propose(number)) is not None]
    assert (params[0]["optimizer"], params[0]["lr"]) == ("adamw", 1e-4)
    assert all(
        low <= one["lr"] <= high
        for one in params
        if "lr" in one
        for low, high in [bounds(SPACE, "lr", **one) or (0, 0)]
    )


def planned(results: Path, name: str, *searches: str, **options: Any) -> plan.Plan:
    asked = SweepOptions("digits", results=results, name=name, search=searches or (OPTIMIZER, SGD, ADAMW), **options)
    return plan.make(Request(asked), [machine.Resources(2, 0)])


def test_a_try_and_a_resumed_sweep_know_the_branches(tmp_path: Path) -> None:
    made = planned(tmp_path, "one", try_="lr=1e-4 optimizer=adamw")
    assert made.space.starts[0] == {"lr": 1e-4, "optimizer": "adamw"}
    with pytest.raises(ConfigError, match=r"--try: start 1: lr=0.5 is not among what is searched: log\(1e-05, 0.01\)"):
        planned(tmp_path, "two", try_="lr=0.5 optimizer=adamw")
    nodes = [machine.Resources(2, 0)]
    assert plan.Plan.from_dict(made.to_dict()) == made
    again = Request(SweepOptions(resume="one", search=(ADAMW, SGD)))
    with pytest.raises(ConfigError, match="this sweep began with log"):
        resumption.resume(again, made, SweepState(), nodes)
    same = Request(SweepOptions(resume="one", search=(OPTIMIZER, SGD, ADAMW)))
    assert resumption.resume(same, made, SweepState(), nodes).space == made.space


def drawn(generator: random.Random, number: int) -> dict[str, Any]:
    optimizer = ("sgd", "adamw")[number % 2]
    low, high = bounds(SPACE, "lr", optimizer=optimizer) or (0, 0)
    rate = math.exp(generator.uniform(math.log(low), math.log(high)))
    return {"optimizer": optimizer, "lr": rate, "dropout": 0.1, "weight_decay": 1e-4, "label_smoothing": 0.1}


def test_leaderboard_report_and_memory_have_one_column(tmp_path: Path) -> None:
    generator = random.Random(0)
    points = [drawn(generator, number) for number in range(12)]
    trials = [trial(n, [0.5 + 0.01 * n], params=params) for n, params in enumerate(points)]
    search = (OPTIMIZER, SGD, ADAMW)
    folder = write_sweep(tmp_path / "results" / "old", *trials, search=search, set=("train_fraction=1",))
    (board,), _ = find([str(folder)])
    assert selection.settings([board]).count("config.lr") == 1
    assert board.table.sort_by("trial")["config.lr"].to_pylist() == [point["lr"] for point in points]
    sweep = recorded.read(folder)
    (found,) = influence.influences(sweep.state, sweep.plan)
    assert found.trials == 12
    assert "lr" in found.slices
    made, _ = memory.remember(planned(tmp_path, "new", *search), (str(folder),), tmp_path, {})
    (best, *_) = made.space.starts[len(planned(tmp_path, "new", *search).space.starts) :]
    assert (best["optimizer"], best["lr"]) == ("adamw", points[11]["lr"])


def test_memory_of_a_sweep_with_one_optimizer_takes_its_branch(tmp_path: Path) -> None:
    points = [{"lr": 1e-4, "dropout": 0.1, "weight_decay": 1e-4, "label_smoothing": 0.1}]
    options: dict[str, Any] = {"search": ("lr=log(1e-5,1e-2)",), "set": ("optimizer=adamw", "train_fraction=1")}
    folder = write_sweep(tmp_path / "old", *(trial(0, [0.9], params=one) for one in points), **options)
    new = planned(tmp_path, "new", OPTIMIZER, SGD, ADAMW)
    made, _ = memory.remember(new, (str(folder),), tmp_path, {})
    assert made.space.starts[-1]["optimizer"] == "adamw"
    assert made.space.starts[-1]["lr"] == 1e-4


def test_a_command_with_branches_is_checked_at_once(tmp_path: Path) -> None:
    request = check(SweepOptions("digits", results=tmp_path, search=(OPTIMIZER, SGD, ADAMW)), [machine.Resources(2, 0)])
    assert request.spaces(gpu=False)[""].ranges.keys() == {"lr"}


def test_every_sampler_is_tried_here() -> None:
    assert {getattr(name, "values", (name,))[0] for name in LEARNING} | {"grid"} == set(SAMPLERS)


def test_an_exploding_grid_says_its_size(tmp_path: Path) -> None:
    axes = [f"{name}=uniform(0,0.5,0.005)" for name in ("dropout", "momentum", "label_smoothing")]
    options = {"set": ("lr=0.1", "weight_decay=0", "train_fraction=1")}
    with pytest.raises(
        ConfigError, match=r"the grid has 1,030,301 points \(allowed: at most 100,000\); use --sampler random"
    ):
        planned(tmp_path, "grid", *axes, sampler="grid", **options)


def test_a_space_without_anything_to_search_has_one_trial(tmp_path: Path) -> None:
    fixed = ("lr=0.1", "weight_decay=0", "train_fraction=1", "dropout=0", "label_smoothing=0")
    made = plan.make(Request(SweepOptions("digits", results=tmp_path, set=fixed)), [machine.Resources(2, 0)])
    assert (dict(made.space.distributions), made.trials) == ({}, 1)
