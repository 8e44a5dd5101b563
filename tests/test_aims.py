"""Several aims: their names, the Pareto front, and constraints that the winner must meet."""

from __future__ import annotations

import html
import json
import os
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from journals import WORKER, folded, trial, write_sweep
from simulation import CALM, SPACE, Chaos, Setup, Simulation, curve, outcome

from orchestrator import report
from orchestrator.cluster import machine
from orchestrator.leaderboard import __main__ as leaderboard
from orchestrator.plan import plan, recorded, resumption
from orchestrator.plan.options import SweepOptions
from orchestrator.plan.plan import Plan
from orchestrator.plan.request import Request
from orchestrator.record.aims import MEASURES, Constraint, parse_aims, parse_constraints
from orchestrator.record.events import Event, SweepStarted, TrialEnded, TrialEpoch
from orchestrator.record.facts import Spec, Worker
from orchestrator.record.front import front
from orchestrator.record.journal import read
from orchestrator.record.ranking import best_trial, best_trials, is_feasible, ranked
from orchestrator.record.state import SweepState, replay
from orchestrator.report import aims as report_aims
from orchestrator.result import SweepResult
from orchestrator.search.limits import Limits
from orchestrator.search.promotion import Rounds
from orchestrator.search.schedulers import stop_rule
from orchestrator.search.study import JournalStudy
from orchestrator.validation import check
from search_spaces.space import SearchSpace, log, uniform
from trainables.config import TrialConfig
from trainables.errors import ConfigError

SMALL = "parameters<100000"
LEARNING = ["tpe", "nsga2", pytest.param("gp", marks=pytest.mark.slow)]
ROUGH = Chaos(kill=0.02, lose=0.05, late=0.5, signal=0.01)


@pytest.fixture(autouse=True)
def _no_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out flushes, as in tests/test_simulation.py."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def problems(**options: Any) -> list[str]:
    with pytest.raises(ConfigError) as error:
        check(SweepOptions("digits", **options), [machine.Resources(2, 0)])
    return error.value.problems


# Names


@pytest.mark.parametrize("name", MEASURES)
def test_every_measure_may_be_an_aim_and_bounded_and_is_a_column_of_the_leaderboard(name: str) -> None:
    from orchestrator.assessment.tables import LEADERBOARD

    (aim,) = parse_aims([name], "MODULE:function")
    assert (aim.name, aim.direction) == (name, MEASURES[name].direction)
    assert (
        parse_aims(
            [
                f"{name}:max",
            ],
            "MODULE:function",
        )[0].direction
        == "max"
    )
    (constraint,) = parse_constraints([f"{name} >= 0.5"])
    assert constraint == Constraint(name, ">=", 0.5)
    assert parse_constraints([str(constraint)]) == (constraint,)
    assert name in LEADERBOARD.names


def test_all_that_is_wrong_is_said_at_once() -> None:
    found = problems(
        also=("parameters:low", "paramters", "val_accuracy", "train_s", "train_s:max"),
        constraint=("parameters 5", "parameters<many", "paramters<5"),
    )
    assert found == [
        "--also parameters:low: allowed are parameters, parameters:min and parameters:max",
        f"--also paramters: unknown; did you mean parameters? (allowed: {', '.join(MEASURES)})",
        "--also val_accuracy: val_accuracy is the metric already; leave it out",
        "--also train_s:max: train_s is named twice; leave one out",
        *(
            f'--constraint {text!r}: a name, one of <, <=, >, >= and a number are needed: --constraint "parameters<5e6"'
            for text in ("parameters 5", "parameters<many")
        ),
        f"--constraint 'paramters<5': paramters is unknown; did you mean parameters? (allowed: {', '.join(MEASURES)})",
    ]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("parameters<1e5", "parameters>1e6"), '"parameters<100000" and "parameters>1000000": nothing'),
        (("parameters<5", "parameters>=5"), "nothing can meet that, as parameters is from 0;"),
        (("val_accuracy>1",), "nothing can meet that, as val_accuracy is from 0 to 1;"),
        (("val_loss<0",), "nothing can meet that, as val_loss is from 0;"),
        (("val_mcc<-1.5",), "as val_mcc is from -1 to 1;"),
        (("images_per_s<inf",), "a number are needed"),
    ],
)
def test_what_nothing_can_meet_is_said_before_anything_starts(given: tuple[str, ...], said: str) -> None:
    (problem,) = problems(constraint=given)
    assert said in problem


@pytest.mark.parametrize(
    "given", [("parameters<=5", "parameters>=5"), ("val_mcc>-1",), ("val_loss<=0",), ("val_f1>=1",)]
)
def test_bounds_that_something_can_meet_are_taken(given: tuple[str, ...]) -> None:
    assert [str(one) for one in parse_constraints(given)] == list(given)


def test_a_recipe_has_its_own_metrics() -> None:
    with pytest.raises(ConfigError) as error:
        check(SweepOptions(recipe="improved-resnet50", also=("parameters",), constraint=(SMALL,)), None)
    assert [text.partition(":")[0] for text in error.value.problems if "recipe's arms" in text] == [
        "--also",
        "--constraint",
    ]


def test_what_only_a_gpu_has_is_refused_without_one() -> None:
    request = Request(SweepOptions("digits", also=("peak_gpu_mb",), constraint=("peak_gpu_mb<8000",)))
    with pytest.raises(ConfigError, match="peak_gpu_mb:min: trials do not run on GPUs here; use peak_memory_mb"):
        plan.make(request, [machine.Resources(2, 0)])
    made = plan.make(request, [machine.Resources(2, 1)])
    assert (made.also, made.constraint) == (("peak_gpu_mb:min",), ("peak_gpu_mb<8000",))


def test_the_plan_keeps_aims_and_constraints_and_resume_refuses_others() -> None:
    nodes = [machine.Resources(2, 0)]
    options: dict[str, Any] = {"also": [["images_per_s", "parameters : min"]], "constraint": "parameters < 5e6"}
    made = plan.make(Request(SweepOptions("digits", name="x", **options)), nodes)
    assert (made.also, made.constraint) == (("images_per_s:max", "parameters:min"), ("parameters<5000000",))
    assert Plan.from_dict(made.to_dict()) == made
    older = {name: value for name, value in made.to_dict().items() if name not in ("also", "constraint")}
    assert (Plan.from_dict(older).aims, Plan.from_dict(older).constraints) == ((), ())
    again = Request(SweepOptions(resume="x", also=("images_per_s", "parameters"), constraint=("parameters<5e6",)))
    assert resumption.resume(again, made, SweepState(), nodes).constraint == made.constraint
    with pytest.raises(ConfigError, match="this sweep began with parameters<5000000"):
        resumption.resume(Request(SweepOptions(resume="x", constraint=("parameters<6e6",))), made, SweepState(), nodes)


# The front


def state_of(*trials: tuple[float, int], also: tuple[str, ...] = ("parameters:min",), **plan: Any) -> SweepState:
    """Return a sweep whose trials have these scores and numbers of parameters."""
    config = SPACE.base.to_dict()
    events: list[Event] = [SweepStarted(Spec(plan={"also": list(also), **plan}))]
    for number, (score, parameters) in enumerate(trials):
        worker = Worker(parameters=parameters, train_rows=parameters)
        events += trial(number, [score], config=config, worker=worker)
    return folded(*events)


def numbers(trials: Any) -> list[int]:
    return [trial.number for trial in trials]


def test_the_front_has_what_no_other_trial_beats() -> None:
    state = state_of((0.9, 100), (0.95, 200), (0.8, 100), (0.95, 200), (0.7, 50), (0.94, 250))
    assert numbers(front(state)) == [1, 3, 0, 4]
    assert front(state_of((0.9, 100), also=())) == []
    larger = state_of((0.9, 100), (0.95, 200), (0.7, 300), also=("parameters:max",))
    assert numbers(front(larger)) == [1, 2]


def test_the_front_leaves_out_what_is_unknown_or_breaks_a_constraint() -> None:
    state = state_of((0.9, 100), (0.95, 200), (0.7, 50), constraint=["parameters>=60"])
    assert numbers(front(state)) == [1, 0]
    state.trials[0].worker = Worker()
    assert numbers(front(state)) == [1]


def test_the_front_is_that_of_its_definition() -> None:
    generator = random.Random(0)
    points = [(generator.randrange(8) / 8, generator.randrange(8)) for _ in range(60)]
    beaten = {
        n
        for n, (score, size) in enumerate(points)
        if any(a >= score and b <= size and (a, b) != (score, size) for a, b in points)
    }
    assert set(numbers(front(state_of(*points)))) == set(range(60)) - beaten


# Constraints


def test_what_breaks_a_constraint_is_ranked_last_and_no_candidate() -> None:
    state = state_of((0.9, 100), (0.95, 200), (0.8, 90), (0.99, 300), constraint=["parameters<150"])
    assert numbers(ranked(state)) == [0, 2, 3, 1]
    assert numbers(best_trials(state, "", 3)) == [0, 2]
    assert [is_feasible(state, one) for one in state.trials.values()] == [True, False, True, False]


def test_if_nothing_meets_a_constraint_the_metric_decides() -> None:
    state = state_of((0.9, 100), (0.95, 200), constraint=["parameters<50"])
    assert numbers(best_trials(state, "", 3)) == [1, 0]
    best = best_trial(state)
    assert best is not None
    assert best.number == 1


def test_a_value_that_is_not_known_meets_no_constraint() -> None:
    state = state_of((0.9, 100), constraint=["parameters<150"])
    state.trials[0].worker = Worker()
    assert not is_feasible(state, state.trials[0])


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [("parameters<100", 50, -1 / 3), ("parameters<100", 200, 0.5), ("val_mcc>=0", 0, 0.0), ("val_f1>0.5", 0.25, 1 / 3),
     ("parameters<100", None, 1.0), ("parameters<100", 100, 1e-9), ("parameters>1e-310", 1e6, -1.0)],
)  # fmt: skip
def test_excess(text: str, value: float | None, expected: float) -> None:
    (constraint,) = parse_constraints([text])
    assert constraint.excess(value) == pytest.approx(expected)
    assert (constraint.excess(value) <= 0) == constraint.allows(value)


def test_a_trial_as_it_was_after_an_epoch() -> None:
    state = folded(*trial(0, [0.5, 0.9, 0.7], config=SPACE.base.to_dict()))
    then = state.trials[0].up_to(1)
    assert (then.score, then.best_epoch, then.last_epoch) == (0.5, 1, 1)
    assert MEASURES["train_s"].value(then) == pytest.approx(MEASURES["train_s"].value(state.trials[0]) / 3)  # type: ignore[operator]
    assert state.trials[0].up_to(3) is state.trials[0]


def simulated(
    folder: Path, constraint: tuple[str, ...], sampler: str = "tpe", chaos: Chaos = CALM, **options: Any
) -> Any:
    """Run a search in which the larger net is better."""
    folder.mkdir()
    rule = stop_rule("asha", SPACE, 1, 3, Rounds((TRIALS,)))

    def learned(config: dict[str, Any], epoch: int) -> dict[str, Any]:
        metrics = curve(config, epoch)
        gain = 0.2 if config["model"] == "resnet20" else 0.0
        value = metrics["val_accuracy"]
        pace = 500 + 100 * (config["seed"] % 7) + 50 * (-1) ** epoch  # of a noisy machine
        return metrics | {"val_accuracy": None if value is None else value + gain, "images_per_s": float(pace)}

    setup = Setup(TRIALS, sampler, 3, rule=rule, constraint=constraint, learned=learned, seeds=1, best=3, **options)
    simulation = Simulation(folder, setup, chaos, seed=5)
    simulation.run()
    return simulation


TRIALS = 24


def test_what_breaks_a_constraint_for_good_ends_at_its_first_rung_and_is_not_confirmed(tmp_path: Path) -> None:
    state = replay(read(simulated(tmp_path / "free", ()).path)[0])
    full = [one for one in state.trials.values() if one.last_epoch == 5]
    assert any(one.config["model"] == "resnet20" for one in full)
    state = replay(read(simulated(tmp_path / "bound", (SMALL,)).path)[0])
    large = [one for one in state.trials.values() if one.config["model"] == "resnet20"]
    assert large
    assert {one.last_epoch for one in large} <= {1}
    assert {one.config["model"] for one in state.trials.values() if one.confirms is not None} == {"resnet8"}
    in_full = [one for one in state.trials.values() if one.status == "completed" and not one.final]
    assert len(in_full) == 3


@pytest.mark.parametrize("learned_at", [1, None])
@pytest.mark.parametrize("sampler", LEARNING)
def test_samplers_avoid_what_breaks_a_constraint(sampler: str, learned_at: int | None) -> None:
    space = SearchSpace(TrialConfig(max_epochs=9), {"lr": log(1e-4, 1.0), "dropout": uniform(0.0, 0.9)})
    rates = dict[int, float]()
    bound = Constraint("parameters", "<", 0.1)
    study = JournalStudy(
        *(space, sampler, 1, "", 60, learned_at), lambda number, epoch: {str(bound): bound.excess(rates[number])}
    )
    for number in range(60):
        proposal = study.propose(number)
        assert proposal is not None
        rates[number] = proposal.params["lr"]  # the nearer to the bound, and beyond it, the better
        study.observe(TrialEpoch(number, 0, {"epoch": 1, "val_accuracy": 0.9 + rates[number]}))
        study.observe(TrialEnded(number, 0, "completed", "budget"))
    assert sum(rates[number] > 0.1 for number in range(30, 60)) <= 12


def test_a_constraint_that_is_broken_later_is_reported_once_more() -> None:
    space = SearchSpace(TrialConfig(max_epochs=9), {"lr": log(1e-4, 1.0)})
    breaks = {0: {1: -0.5, None: 0.5}, 1: {1: 0.5, None: 0.5}, 2: {1: 0.5, None: -0.5}}
    study = JournalStudy(space, "tpe", 1, "", 9, 1, lambda number, epoch: {"train_s<9": breaks[number][epoch]})
    for number in breaks:
        assert study.propose(number) is not None
        study.observe(TrialEpoch(number, 0, {"epoch": 1, "val_accuracy": 0.5}))
        study.observe(TrialEnded(number, 0, "completed", "budget"))
    told = [(trial.params["lr"], trial.constraints) for trial in study.study.trials]
    assert [constraints for _, constraints in told] == [{}, {"train_s<9": 0.5}, {"train_s<9": 0.5}, {"train_s<9": 0.5}]
    assert told[0][0] == told[1][0]


def test_a_limit_counts_only_what_meets_the_constraints(tmp_path: Path) -> None:
    """Trials of the larger net reach the target, and may not win."""
    limits = Limits(target=0.75)
    free = replay(read(simulated(tmp_path / "free", (), limits=limits).path)[0])
    assert free.closed is not None
    bound = replay(read(simulated(tmp_path / "bound", (SMALL,), limits=limits).path)[0])
    reached = [t for t in bound.trials.values() if not t.final and (t.score or 0) >= 0.75 and is_feasible(bound, t)]
    assert (bound.closed is not None) == bool(reached)


@pytest.mark.parametrize("constraint", [(SMALL,), ("images_per_s>=800", "val_accuracy>0.4", SMALL)])
@pytest.mark.parametrize("sampler", ["random", *LEARNING])
def test_a_search_with_constraints_is_the_same_whatever_happens_to_it(
    tmp_path: Path, sampler: str, constraint: tuple[str, ...]
) -> None:
    """Values of a noisy machine decide, of the epochs that the journal has: a replay finds the same."""
    found = [
        outcome(list(read(simulated(tmp_path / name, constraint, sampler, chaos).path)[0]))
        for name, chaos in (("calm", CALM), ("rough", ROUGH))
    ]
    lost = [number for number, one in found[1].items() if one[-1][1] == "lost"]
    assert lost or found[0] == found[1]


# What is shown


def test_the_front_is_shown_and_filtered_wherever_a_sweep_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "sweep"
    sized = [(0.9, 75_290), (0.95, 172_506), (0.8, 75_290), (0.99, 269_722)]
    trials = [trial(n, [score], worker=replace(WORKER, parameters=size)) for n, (score, size) in enumerate(sized)]
    write_sweep(folder, *trials, also=("parameters", "images_per_s"), constraint=("parameters<2e5",))
    assert leaderboard.main([str(folder), "--where", "front and feasible", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["trials"]
    assert [(row["trial"], row["front"], row["feasible"]) for row in shown] == [(1, True, True), (0, True, True)]
    assert leaderboard.main([str(folder), "--sort", "parameters"]) == 0
    out = capsys.readouterr().out
    heading = out.splitlines()[0].split()
    assert heading[4:8] == ["front", "feasible", "parameters", "images_per_s"]
    assert "Pareto front over val_accuracy, parameters, images_per_s: 2 trials that no other beats" in out
    sweep = recorded.read(folder)
    made = SweepResult(folder, sweep.plan, sweep.state, None, "finished", 1.0)
    assert [(one["trial"], one["parameters"]) for one in made.front] == [(1, 172_506), (0, 75_290)]
    assert (made.to_dict()["feasible"], made.to_dict()["constraints"]) == (3, ["parameters<200000"])
    section = report_aims.section(sweep.state, sweep.plan)
    assert section is not None
    assert [row[0] for row in section["rows"]] == ["1", "0"]
    named = {trace["name"]: trace["customdata"] for trace in section["figure"]["data"]}
    assert named == {"beaten by others": [2], "breaks a constraint": [3], "on the front": [0, 1]}
    assert "Several aims" in report.write(folder).read_text()


def test_it_is_said_that_nothing_meets_a_constraint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_sweep(tmp_path / "sweep", trial(0, [0.9]), trial(1, [0.8]), constraint=("parameters<50000",))
    assert leaderboard.main([str(folder)]) == 0
    said = "no trial meets parameters<50000: ranking and confirmation go by the metric alone"
    out = capsys.readouterr().out
    assert f"{said}, and the best trial, 0, has parameters 75,290; give a wider bound" in out
    assert html.escape("N" + said[1:]) in report.write(folder).read_text()
