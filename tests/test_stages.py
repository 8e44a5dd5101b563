"""Stages of a search: what is decided in each, what deserves more trials, and what is compared with what."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import Command
from optuna.trial import TrialState
from simulation import CALM, Chaos, Setup, Simulation, outcome

from orchestrator.record.events import Event, SweepStarted, TrialAttempt, TrialEnded, TrialEpoch, TrialProposed
from orchestrator.record.facts import Spec
from orchestrator.record.journal import read
from orchestrator.record.state import SweepState, replay
from orchestrator.search.schedulers import StopRule, stop_rule
from orchestrator.search.stopping import AshaStopping, Median
from orchestrator.search.study import JournalStudy, Proposal
from search_spaces import soundness
from search_spaces.changes import override, parse
from search_spaces.grid import count_points
from search_spaces.space import SearchSpace, choice, log, uniform
from search_spaces.stage import Stage, quotas
from trainables.config import TrialConfig

NETS = ("resnet8", "resnet14", "resnet20")
HEADS, TUNING = Stage(3, {"freeze": True}, each=("model",)), Stage(1, {"freeze": False}, {"model": 2})
SPACE = SearchSpace(
    TrialConfig(max_epochs=5, precision="float32", memory_format="contiguous", threads=1),
    {
        "freeze": choice(True, False),
        "model": choice(*NETS),
        "lr": log(0.01, 0.25),
        "dropout": uniform(0.0, 0.4),
        "momentum": uniform(0.5, 0.9),
    },
    conditions={"momentum": {"freeze": (False,)}},
    stages=(HEADS, TUNING),
)
ROWS = 400


@pytest.fixture(autouse=True)
def _no_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # the power stays on here


def study(
    space: SearchSpace = SPACE, sampler: str = "random", trials: int = 16, rows: int | None = ROWS
) -> JournalStudy:
    made = JournalStudy(space, sampler, seed=3, trials=trials)
    if rows is not None:
        made.observe(SweepStarted(Spec(plan={"name": "x"}, split={"validation_rows": rows})))
    return made


def drawn(made: JournalStudy, number: int) -> dict[str, Any]:
    """Propose a trial and return its searched values."""
    proposal = made.propose(number)
    assert proposal is not None
    return proposal.params


def run(made: JournalStudy, number: int, score: float | None, status: str = "completed") -> dict[str, Any]:
    """Propose a trial and end it with a score, and return its searched values."""
    params = drawn(made, number)
    if score is not None:
        made.observe(TrialEpoch(number, 0, {"epoch": 1, "val_accuracy": score}))
    made.observe(TrialEnded(number, 0, status, "budget" if status == "completed" else "error"))
    return params


def searched(worth: dict[str, float], trials: int = 16, heads: int = 12, **asked: Any) -> list[dict[str, Any]]:
    """Return the proposals of a search whose heads have the score of their net, and fine-tuned nets all the same."""
    made, found = study(trials=trials, **asked), []
    for number in range(trials):
        model = drawn(made, number)["model"]
        found.append(made.study.trials[number].params)
        score = worth[model] if number < heads else 0.95
        made.observe(TrialEpoch(number, 0, {"epoch": 1, "val_accuracy": score}))
        made.observe(TrialEnded(number, 0, "completed", "budget"))
    return found


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_each_stage_has_its_share_and_its_values(sampler: str) -> None:
    found = searched(dict.fromkeys(NETS, 0.8), sampler=sampler)
    assert [params["freeze"] for params in found] == [True] * 12 + [False] * 4
    assert [params["model"] for params in found[:3]] == list(NETS), "no net is left untried"
    assert all(("momentum" in params) == (not params["freeze"]) for params in found), "conditions hold"
    assert len({params["lr"] for params in found}) == 16, "the rest is drawn"


@pytest.mark.parametrize("sampler", ["tpe", "random"])
@pytest.mark.parametrize(
    ("worth", "tuned"),
    [
        ((0.70, 0.80, 0.79), ["resnet14", "resnet20", "resnet14", "resnet20"]),  # 0.79 is within 0.02, the noise
        ((0.70, 0.80, 0.77), ["resnet14"] * 4),
        ((0.80, 0.80, 0.80), ["resnet8", "resnet14", "resnet8", "resnet14"]),  # at most two
    ],
)
def test_only_nets_that_deserve_it_are_fine_tuned(sampler: str, worth: Any, tuned: list[str]) -> None:
    found = searched(dict(zip(NETS, worth, strict=True)), sampler=sampler)
    assert [params["model"] for params in found[12:]] == tuned


def test_without_a_known_noise_the_best_are_taken() -> None:
    worth = dict(zip(NETS, (0.1, 0.5, 0.9), strict=True))
    assert [params["model"] for params in searched(worth, rows=None)[12:]] == ["resnet20", "resnet14"] * 2
    by_loss = replace(SPACE, base=SPACE.base.replace(metric="val_loss"))
    made = study(by_loss)
    for number in range(12):
        model = drawn(made, number)["model"]
        made.observe(TrialEpoch(number, 0, {"epoch": 1, "val_loss": worth[model]}))
        made.observe(TrialEnded(number, 0, "completed", "budget"))
    assert [drawn(made, number)["model"] for number in (12, 13)] == ["resnet8", "resnet14"]


def test_folds_have_less_noise() -> None:
    """With 1,600 rows one standard error of 0.8 is 0.01, and 0.785 is beyond it."""
    made = JournalStudy(SPACE, "random", 3, trials=16)
    made.observe(SweepStarted(Spec(plan={"x": 1}, split={"folds": 5, "search_rows": 1600, "validation_rows": 20})))
    for number in range(12):
        model = drawn(made, number)["model"]
        made.observe(TrialEpoch(number, 0, {"epoch": 1, "val_accuracy": 0.8 if model == "resnet8" else 0.785}))
    assert {drawn(made, number)["model"] for number in range(12, 16)} == {"resnet8"}


def test_a_stage_whose_values_are_unknown_takes_all_in_turn() -> None:
    made = study()
    for number in range(12):
        run(made, number, None, "failed")
    assert [run(made, number, 0.5)["model"] for number in range(12, 16)] == [*NETS, "resnet8"]


def test_a_net_that_cannot_be_fine_tuned_makes_place_for_the_next() -> None:
    worth = {"resnet8": 0.805, "resnet14": 0.8, "resnet20": 0.79}
    made = study(trials=40)
    for number in range(30):
        model = drawn(made, number)["model"]
        made.observe(TrialEpoch(number, 0, {"epoch": 1, "val_accuracy": worth[model]}))
        made.observe(TrialEnded(number, 0, "completed", "budget"))
    tuned = []
    for number in range(30, 40):
        model = drawn(made, number)["model"]
        tuned.append(model)
        if model != "resnet8":
            made.observe(TrialEpoch(number, 0, {"epoch": 1, "val_accuracy": 0.7}))
        status = "failed" if model == "resnet8" else "completed"
        made.observe(TrialEnded(number, 0, status, "error" if model == "resnet8" else "budget"))
    assert tuned[:3] == ["resnet8", "resnet14", "resnet8"]
    assert tuned[3:] == ["resnet20", "resnet14", "resnet20", "resnet14", "resnet20", "resnet14", "resnet20"]


def test_scores_of_trials_that_diverged_do_not_count() -> None:
    made = study()
    for number in range(12):
        model = drawn(made, number)["model"]
        made.observe(TrialEpoch(number, 0, {"epoch": 1, "val_accuracy": 0.9 if model == "resnet20" else 0.5}))
        made.observe(TrialEnded(number, 0, "diverged" if model == "resnet20" else "completed", "not_finite"))
    assert {run(made, number, 0.5)["model"] for number in range(12, 16)} == {"resnet8", "resnet14"}


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_optuna_is_given_what_was_decided(sampler: str) -> None:
    made = study(sampler=sampler, trials=20)
    proposed = [run(made, number, 0.5 + number / 100) for number in range(20)]
    assert [trial.params for trial in made.study.trials] == proposed
    assert {trial.state for trial in made.study.trials} == {TrialState.COMPLETE}
    assert [trial.params["freeze"] for trial in made.study.trials] == [True] * 15 + [False] * 5


@pytest.mark.parametrize(("trials", "expected"), [(1, [1, 0]), (2, [2, 0]), (4, [3, 1]), (24, [18, 6]), (40, [30, 10])])
def test_shares_are_of_the_trials_there_will_be(trials: int, expected: list[int]) -> None:
    assert quotas(SPACE.stages, trials) == expected


def test_more_trials_keep_the_shares(tmp_path: Path) -> None:
    """Trials of before count to the stage that they are of, wherever their numbers lie."""
    before = study(trials=8)
    proposed = [run(before, number, 0.5) for number in range(8)]
    resumed = study(trials=16)
    for number, params in enumerate(proposed):
        resumed.observe(TrialProposed(number, params, {}))
        resumed.observe(TrialEpoch(number, 0, {"epoch": 1, "val_accuracy": 0.5}))
        resumed.observe(TrialEnded(number, 0, "completed", "budget"))
    later = [run(resumed, number, 0.5)["freeze"] for number in range(8, 16)]
    assert [params["freeze"] for params in proposed] == [True] * 6 + [False] * 2
    assert later == [True] * 6 + [False] * 2


def events_of(folder: Path, setup: Setup, chaos: Chaos = CALM, seed: int = 0) -> list[Event]:
    folder.mkdir()
    simulation = Simulation(folder, setup, chaos, seed)
    simulation.run()
    return read(simulation.path)[0]


RULE = AshaStopping(max_epochs=5, grace=1, factor=2, kinds=("freeze",))


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_search_that_is_killed_again_and_again_proposes_the_same(tmp_path: Path, sampler: str) -> None:
    setup = Setup(trials=20, sampler=sampler, seed=4, space=SPACE, rule=RULE)
    calm = events_of(tmp_path / "calm", setup)
    for seed in range(3):
        wild = events_of(tmp_path / f"{seed}", setup, Chaos(kill=0.1, lose=0.1, signal=0.05), seed)
        assert outcome(wild) == outcome(calm)
    kinds = [event.params["freeze"] for event in calm if isinstance(event, TrialProposed)]
    assert kinds == [True] * 15 + [False] * 5


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_study_rebuilt_from_any_prefix_proposes_as_the_live_one(tmp_path: Path, sampler: str) -> None:
    setup = Setup(trials=20, sampler=sampler, slots=3, seed=4, space=SPACE, rule=RULE)
    events = events_of(tmp_path / "sweep", setup)
    for at, event in enumerate(events):
        if isinstance(event, TrialProposed):
            rebuilt = study_after(events[:at], setup)
            assert rebuilt.propose(event.trial) == Proposal(event.params, event.redraws)


def study_after(events: list[Event], setup: Setup) -> JournalStudy:
    made = JournalStudy(setup.space, setup.sampler, setup.seed, trials=setup.trials)
    for event in events:
        made.observe(event)
    return made


def test_a_grid_has_no_stages(tmp_path: Path) -> None:
    """It tries every combination once, whatever was best."""
    axes = {name: SPACE.distributions[name] for name in ("freeze", "model")}
    made = JournalStudy(replace(SPACE, distributions=axes, conditions={}), "grid", 0, trials=6)
    found = [run(made, number, 0.5) for number in range(6)]
    assert len({tuple(params.items()) for params in found}) == 6
    assert [params["freeze"] for params in found] != [True] * 4 + [False] * 2


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_few_choices_all_run_and_none_twice(tmp_path: Path, sampler: str) -> None:
    axes = {name: SPACE.distributions[name] for name in ("freeze", "model")}
    few = replace(SPACE, distributions=axes, conditions={})
    setup = Setup(trials=20, sampler=sampler, space=few, rule=RULE)
    ran = [trial.params for trial in replay(events_of(tmp_path / "sweep", setup)).trials.values()]
    assert [params["freeze"] for params in ran] == [True] * 3 + [False] * 3, "the second stage goes on for the first"
    assert len({params["model"] for params in ran[:3]}) == len({params["model"] for params in ran[3:]}) == 3


@pytest.mark.parametrize("points", [24, 64])
@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_two_stages_run_as_many_trials_as_are_asked_for(tmp_path: Path, sampler: str, points: int) -> None:
    """Heads have a quarter of the points: with 24 points half as many as their share of the trials."""
    axes: dict[str, Any] = {
        "freeze": choice(True, False),
        "model": choice(*NETS[: 3 if points == 24 else 2]),
        "momentum": uniform(0.6, 0.8, 0.1) if points == 24 else uniform(0.6, 0.8, 0.05),
        "dropout": choice(0.0, 0.1) if points == 24 else choice(0.0, 0.1, 0.2, 0.3),
    }
    space = replace(SPACE, distributions=axes, conditions={"momentum": {"freeze": (False,)}})
    setup = Setup(trials=24, sampler=sampler, space=space, rule=RULE, slots=2)
    events = events_of(tmp_path / "sweep", setup)
    state = replay(events)
    ran = [space.settings(trial.params) for trial in state.trials.values() if trial.attempt >= 0]
    assert len(ran) == len(set(ran)) == count_points(space, 24) == 24
    heads = sum(trial.params["freeze"] for trial in state.trials.values())
    assert heads == (6 if points == 24 else 8)
    for at, event in enumerate(events):
        if isinstance(event, TrialProposed):
            rebuilt = study_after(events[:at], setup)
            assert rebuilt.propose(event.trial) == Proposal(event.params, event.redraws)


# What it is compared with


@pytest.mark.parametrize("rule", [AshaStopping(9, 1, 2, kinds=("freeze",)), Median(1, at_least=1, kinds=("freeze",))])
def test_a_fine_tuned_net_is_not_compared_with_heads(rule: StopRule) -> None:
    state = replay(
        event
        for number, (freeze, score) in enumerate([(True, 0.8), (True, 0.9), (False, 0.3), (False, 0.5)])
        for event in first_epoch(number, freeze, score)
    )
    assert stops(rule, state, 4, True, 0.7)
    assert not stops(rule, state, 4, True, 0.95)
    assert stops(rule, state, 4, False, 0.2)
    assert not stops(rule, state, 4, False, 0.6), "below every head, above the nets of its kind"
    everything = replace(rule, kinds=())  # type: ignore[type-var]
    assert stops(everything, state, 4, False, 0.6)


def test_heads_run_in_full_where_the_space_spares_them() -> None:
    rule = stop_rule("asha-stopping", replace(SPACE, unstopped={"freeze": True}), 1, 2)
    state = replay(event for number in range(4) for event in first_epoch(number, number < 2, 0.9))
    assert not stops(rule, state, 4, True, 0.1)
    assert stops(rule, state, 4, False, 0.1)
    assert stops(stop_rule("asha-stopping", SPACE, 1, 2), state, 4, True, 0.1)


def first_epoch(number: int, freeze: bool, score: float) -> Iterable[Event]:
    yield TrialProposed(number, {"freeze": freeze}, TrialConfig(freeze=freeze).to_dict())
    yield TrialAttempt(number, 0)
    yield TrialEpoch(number, 0, {"epoch": 1, "val_accuracy": score})


def stops(rule: StopRule, state: SweepState, number: int, freeze: bool, score: float) -> bool:
    copied = replay([*first_epoch(number, freeze, score)][:2])
    trial = replace(copied.trials[number], number=number, index=0)
    return rule.stops(state, trial, 1, score)


# How they are given


def test_stages_are_part_of_the_record() -> None:
    spared = replace(SPACE, unstopped={"freeze": True})
    assert SearchSpace.from_dict(json.loads(json.dumps(spared.to_dict()))) == spared
    older = {name: value for name, value in SPACE.to_dict().items() if name not in ("stages", "unstopped")}
    assert SearchSpace.from_dict(older) == replace(SPACE, stages=())


def changed(*settings: str, searches: tuple[str, ...] = ()) -> SearchSpace:
    return override(SPACE, *parse(settings, searches))


@pytest.mark.parametrize(
    ("settings", "searches", "stages"),
    [
        (("lr=0.1",), (), (HEADS, TUNING)),
        (("freeze=true",), (), (Stage(3, each=("model",)),)),
        (("freeze=false",), (), ()),  # the best of nothing is no restriction
        (("model=resnet8",), (), (replace(HEADS, each=()), replace(TUNING, best={}))),
        (("model=resnet8", "freeze=true"), (), ()),
        ((), ("model=choice(resnet8,resnet56)",), (HEADS, TUNING)),
        ((), ("freeze=choice(true,false)",), (Stage(3, each=("model",)), Stage(1, best={"model": 2}))),
        (("model=resnet8",), ("freeze=choice(true,false)",), ()),
    ],
)
def test_set_and_search_settle_the_stages(settings: Any, searches: Any, stages: tuple[Stage, ...]) -> None:
    assert changed(*settings, searches=searches).stages == stages


def test_a_stage_that_fixes_a_field_whose_condition_never_holds_stays() -> None:
    space = replace(SPACE, stages=(HEADS, replace(TUNING, fixed={"freeze": False, "momentum": 0.6})))
    found = override(space, *parse(["freeze=false"], []))
    assert [stage.fixed for stage in found.stages] == [{"momentum": 0.6}]
    space = replace(SPACE, stages=(HEADS, replace(TUNING, fixed={"momentum": 0.6})))
    assert [stage.fixed for stage in override(space, *parse(["freeze=true"], [])).stages] == [{}, {}]


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ((Stage(0.0), TUNING), "stage 1: its share is 0.0; a number above 0 is needed"),
        ((Stage(1, {"epochs": 3}), TUNING), "stage 1: it fixes epochs, which is not searched"),
        ((Stage(1, {"freeze": 3}), TUNING), "stage 1: freeze=3 is none of its choices (allowed: true, false)"),
        ((Stage(1, {"lr": 3}), TUNING), "stage 1: lr=3 is not in its range (allowed: 0.01 to 0.25)"),
        ((TUNING,), "stage 1: model has no best values yet, as there is no earlier stage"),
        ((HEADS, Stage(1, best={"model": 0})), "stage 2: the number of best values of model is 0"),
        ((HEADS, Stage(1, best={"lr": 2})), "stage 2: lr is not searched by choice(…)"),
        ((HEADS, Stage(1, {"model": "resnet8"}, {"model": 2})), "stage 2: model is given in two ways; leave one out"),
    ],
)
def test_what_a_stage_may_not_say(stages: tuple[Stage, ...], message: str) -> None:
    found = [text for _, text in soundness.problems(replace(SPACE, stages=stages))]
    assert len(found) == 1
    assert message in found[0]


def test_names_that_are_replaced_are_replaced_in_stages() -> None:
    space = replace(SPACE, stages=(Stage(1, {"model": "resnet8"}), Stage(1)))
    assert space.renamed("model", {"resnet8": "resnet56"}).stages[0].fixed == {"model": "resnet56"}


def test_the_reports_plots_show_stages(tmp_path: Path) -> None:
    from orchestrator.report.influence import influences

    state = replay(events_of(tmp_path / "sweep", Setup(trials=24, sampler="tpe", space=SPACE, rule=RULE)))
    (found,) = influences(state, SimpleNamespace(arms={"": SPACE}, grace=1))  # type: ignore[arg-type]
    assert set(found.slices) == {"freeze", "model", "lr", "dropout", "momentum"}
    assert found.parallel
    assert found.contours


# A whole sweep

IN_TWO_STAGES = """
search:
  freeze: choice(true, false)
  model: choice(resnet8, resnet14)
  lr: log(1e-3, 0.3)
stages:
- {share: 2, set: {freeze: true}, each: [model]}
- share: 1
  set: {freeze: false}
  best: {model: 1}
"""
"""A YAML space of small nets, but for the size of its sweep."""

SMALL = f"""
trials: 6
max_epochs: 2
subset: 300
set: {{batch_size: 32, precision: float32, image_size: 8, stem: small}}
{IN_TWO_STAGES}"""


@pytest.mark.slow
def test_a_sweep_in_two_stages(command: Command, tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(SMALL)
    asked = ("digits", "--space", tmp_path / "space.yaml", "--folds", "1", "--results", tmp_path, "--name", "staged")
    done = command("orchestrator.sweep", *asked, "--confirm", "1", "--confirm-seeds", "1", "--slots", "1")
    assert done.code == 0, done.err
    assert "4 trials of heads on frozen nets: freeze=true, each of 2 values of model first" in done.err
    assert "2 trials of whole nets: freeze=false, model of the best one so far" in done.err
    state = replay(read(tmp_path / "staged" / "journal.jsonl")[0])
    trials = [trial for trial in state.trials.values() if not trial.final]
    heads, whole = trials[:4], trials[4:]
    assert [trial.config["freeze"] for trial in trials] == [True] * 4 + [False] * 2
    assert {trial.config["model"] for trial in heads[:2]} == {"resnet8", "resnet14"}
    best = max(heads, key=lambda trial: trial.score or 0.0)
    assert {trial.config["model"] for trial in whole} == {best.config["model"]}
    (final,) = (trial for trial in state.trials.values() if trial.final)
    assert final.confirms == max(trials, key=lambda trial: trial.score or 0.0).number, "over all stages"
    report = (tmp_path / "staged" / "report.html").read_text()
    assert "freeze" in report
