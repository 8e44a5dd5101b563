"""Refit: the confirmed winner is trained once more on all rows but the test set's, and is then the model in `best/`."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import tiny
import torch
from conftest import Command, Finished, Once
from journals import folded, trial
from test_confirmation import sweep_of

from orchestrator.assessment import refits
from orchestrator.assessment.candidates import Confirmed
from orchestrator.assessment.confirmation import confirmation_of
from orchestrator.bundle import bundle
from orchestrator.cluster import machine
from orchestrator.plan import plan
from orchestrator.plan.options import SweepOptions
from orchestrator.plan.plan import Plan
from orchestrator.plan.request import Request
from orchestrator.record import journal
from orchestrator.record.state import SweepState, fold, replay
from orchestrator.search.trial_queue import NextTrial
from orchestrator.validation import check
from trainables.config import TrialConfig
from trainables.errors import ConfigError
from trainables.loop import TrialState, final_metrics, train

SEARCHED = {0: 0.95, 1: 0.93}
RUNS = {0: [0.90, 0.91, 0.89], 1: [0.93, 0.92, 0.94]}
VALIDATED = ("val_loss", "val_accuracy", "val_f1", "val_roc_auc", "val_confusion")


def refitting(folder: Path, runs: dict[int, list[float]] = RUNS) -> tuple[SweepState, Plan]:
    state = sweep_of(folder, SEARCHED, runs)
    return state, replace(Plan.from_dict(state.spec.plan), refit=True, trials=len(SEARCHED))


# The loop


def refit_config(**fields: Any) -> Any:
    return tiny.config(**{"split": "all", "selection": "last", "stop_epoch": 3} | fields)


def test_a_trial_without_rows_to_be_scored_on_has_no_score() -> None:
    data, state = tiny.start(refit_config())
    epochs = list(train(data, state))
    assert [epoch.epoch for epoch in epochs] == [1, 2, 3]
    assert [epoch.stop_reason for epoch in epochs] == [None, None, "budget"]
    assert {getattr(epoch, name) for epoch in epochs for name in VALIDATED} == {None}
    assert epochs[-1].val_confused == []
    assert (state.score, state.best_epoch, state.calibration) == (None, 3, None)
    assert final_metrics(data, state) == {}
    assert epochs[0].images_per_s * epochs[0].train_s == pytest.approx(tiny.POOL + tiny.VALIDATION)


def test_it_stops_on_the_way_of_its_schedule() -> None:
    whole, stopped = (list(tiny.epochs(tiny.config(schedule="one_cycle", stop_epoch=stop))) for stop in (0, 3))
    assert list(map(tiny.lasting, stopped))[:2] == list(map(tiny.lasting, whole))[:2]
    assert (len(whole), len(stopped)) == (4, 3)
    assert stopped[-1].lr == whole[2].lr


@pytest.mark.parametrize("fields", [{}, {"schedule": "plateau"}, {"patience": 1}, {"selection": "best"}])
def test_it_learns_and_keeps_its_newest_weights(fields: dict[str, Any]) -> None:
    data, state = tiny.start(refit_config(stop_epoch=0, max_epochs=8, **fields))
    *_, last = train(data, state)
    assert last.epoch == state.best_epoch == 8
    assert last.train_accuracy > 0.9
    assert all(torch.equal(t, state.model.state_dict()[name]) for name, t in state.kept_weights().items())


def test_it_goes_on_from_a_checkpoint_as_if_undisturbed() -> None:
    config = refit_config(flip=True, dropout=0.2)
    undisturbed = [tiny.lasting(epoch) for epoch in tiny.epochs(config)]
    data, state = tiny.start(config)
    before = [tiny.lasting(epoch) for epoch in islice(train(data, state), 2)]
    tensors, values = state.to_checkpoint()
    again = TrialState.start(config, data, tiny.CPU)
    again.restore(tensors, json.loads(json.dumps(values)))
    assert before + [tiny.lasting(epoch) for epoch in train(data, again)] == undisturbed


# The queue


@pytest.mark.parametrize(("schedule", "epoch"), [("one_cycle", 8), ("cosine", 8), ("constant", 5), ("plateau", 5)])
def test_a_refit_ends_where_its_twins_ended_or_where_they_were_best(schedule: str, epoch: int) -> None:
    scores = [[0.1, 0.2, 0.3, 0.4, 0.9, 0.5, 0.5, 0.5], [0.1, 0.2, 0.3, 0.9, 0.5, 0.5, 0.5, 0.5]]
    config = TrialConfig(schedule=schedule).to_dict()
    state = folded(*(event for number, found in enumerate(scores) for event in trial(number, found, config=config)))
    assert refits.stop_epoch(Confirmed(state.trials[0], tuple(state.trials.values()))) == epoch


def test_the_winner_is_refitted_once_all_runs_have_ended(tmp_path: Path) -> None:
    unfinished, planned = refitting(tmp_path, {0: RUNS[0], 1: RUNS[1][:2]})
    due = refits.queue(planned).next(unfinished)
    assert due is not None
    assert not due.refit
    state, planned = refitting(tmp_path)
    due = refits.queue(planned).next(state)
    assert due == NextTrial("", 0, {}, 1, stop_epoch=1)
    assert due.refit
    assert due.final
    fold(state, due.proposal(8, {}, planned.config(8, due, {}).to_dict()))
    assert refits.queue(planned).next(state) is None
    assert refits.queue(replace(planned, refit=False)).next(state) is None
    assert state.trials[8].refit
    assert state.arm("").finals == {(trial, seed) for trial in (0, 1) for seed in range(3)}


def test_a_refit_has_its_twin_s_settings_but_for_its_rows(tmp_path: Path) -> None:
    _, planned = refitting(tmp_path)
    params = {"lr": 0.123, "train_fraction": 0.5}
    twin = planned.config(3, NextTrial("", 1, params, 0), params)
    refit = planned.config(9, NextTrial("", 1, params, 0, stop_epoch=7), params)
    changed = {name for name, value in refit.to_dict().items() if value != twin.to_dict()[name]}
    assert changed == {"split", "train_fraction", "selection", "stop_epoch"}
    assert (refit.split, refit.train_fraction, refit.stop_epoch, refit.seed) == ("all", 1.0, 7, twin.seed)


def test_a_refit_changes_nothing_of_the_confirmation(tmp_path: Path) -> None:
    state, planned = refitting(tmp_path)
    before = confirmation_of(state, planned)
    due = refits.queue(planned).next(state)
    assert before is not None
    assert due is not None
    fold(state, due.proposal(8, {}, planned.config(8, due, {}).to_dict()))
    after = confirmation_of(state, planned)
    assert after is not None
    assert after.to_dict() == before.to_dict()  # it has not completed
    assert after.refit is None


@pytest.mark.parametrize(("reached", "kept"), [(0.90, True), (0.80, True), (0.70, False)])
def test_a_refit_that_failed_to_learn_is_not_kept(reached: float, kept: bool, tmp_path: Path) -> None:
    state, planned = refitting(tmp_path)
    due = refits.queue(planned).next(state)
    assert due is not None
    config = planned.config(8, due, {}).to_dict()
    folded(*trial(8, [reached], config=config, due=due, params={}), state=state)
    found = confirmation_of(state, planned)
    assert found is not None
    assert (found.refit is not None) is kept


@pytest.mark.parametrize(
    ("asked", "refit"),
    [
        ({"dataset": "digits"}, False),
        ({"dataset": "digits", "refit": True}, True),
        ({"dataset": "PICTURES"}, True),
        ({"dataset": "PICTURES", "no_refit": True}, False),
        ({"dataset": "PICTURES", "confirm": 0}, False),
        ({"recipe": "improved-resnet50"}, False),
    ],
)
def test_pictures_of_one_s_own_are_refitted_by_default(asked: dict[str, Any], refit: bool, tmp_path: Path) -> None:
    given: dict[str, Any] = {name: str(tmp_path) if value == "PICTURES" else value for name, value in asked.items()}
    planned = plan.make(Request(SweepOptions(results=tmp_path, **given)), [machine.Resources(2, 0)])
    assert planned.refit is refit
    runs = planned.confirm * planned.confirm_seeds
    assert planned.recipe or planned.queue().total() == planned.trials + runs + refit


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ({"refit": True, "no_refit": True}, "give one of them"),
        ({"refit": True, "confirm": 0}, "--refit: it needs a confirmed winner"),
        ({"refit": True, "recipe": "improved-resnet50"}, "--refit: a recipe's arms"),
        ({"set": ("split=all",)}, "split=all: a sweep scores all trials"),
    ],
)
def test_a_refit_that_cannot_be_is_refused(asked: dict[str, Any], problem: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=problem):
        check(SweepOptions(results=tmp_path, **asked), [machine.Resources(2, 0)])


# As a user runs it


@pytest.fixture(scope="module")
def refitted(command: Command, once: Once) -> tuple[Finished, Path]:
    """Return a quick sweep of digits with a refit, and its folder, to be left as it is."""
    options = ("digits", "--quick", "--confirm", "1", "--confirm-seeds", "2", "--refit", "--name", "all", "--results")
    done, results = once("refitted", lambda results: command("orchestrator.sweep", *options, results, "--json"))
    return done, results / "all"


def test_best_has_the_refit_and_says_so(refitted: tuple[Finished, Path]) -> None:
    done, folder = refitted
    final = json.loads((folder / "final.json").read_text())
    refit = final["refit"]
    assert final["best"]["kind"] == "refit"
    assert final["best"]["trial"] == refit["trial"] != final["model"]
    assert refit["train_rows"] == 1438  # all of digits but the 359 rows of the test set
    assert 0.5 < refit["test_accuracy"] <= 1
    assert refit["wilson"][0] < refit["test_accuracy"] < refit["wilson"][1]
    assert f"the model in best/ is trial {refit['trial']}, accuracy on the test set" in done.err
    assert final["openings"] == 1
    assert done.err.count("the test set is opened: 359 rows, 3 models of the winner") == 1
    there = bundle.read(folder / "best")
    assert (there.description.trial, there.description.twin) == (refit["trial"], final["model"])
    assert there.metrics.parts["test"].metrics["accuracy"] == refit["test_accuracy"]
    assert there.temperature is not None
    card = (folder / "best" / "README.md").read_text()
    assert "These are scores of another model" in card
    assert f"run {final['model']}, a twin" in card
    assert f"This model's accuracy is {refit['test_accuracy']:.4f}" in card


def test_every_page_says_whose_the_test_scores_are(refitted: tuple[Finished, Path], command: Command) -> None:
    """The leaderboard and the head of the report once gave a run's score to the refit, which has its own."""
    done, folder = refitted
    final = json.loads((folder / "final.json").read_text())
    own = f"{final['refit']['test_accuracy']:.4f}"
    shown = command("orchestrator.leaderboard", folder).out
    for told in (done.err, shown):
        assert f"of trial {final['model']} {final['test']['model_accuracy']:.4f}" in told
        assert f"the model in best/ is trial {final['refit']['trial']}, accuracy on the test set {own}" in told
        assert "of the model in best/" not in told
    page = (folder / "report.html").read_text()
    head = page[: page.index('id="best"')]
    assert f"run {final['model']} has accuracy {final['test']['model_accuracy']:.4f}" in head
    assert f"The model in best/, trial {final['refit']['trial']}, has accuracy {own}" in head


def test_a_refit_is_in_the_record_but_has_no_rank(refitted: tuple[Finished, Path]) -> None:
    folder = refitted[1]
    runs = pd.read_parquet(folder / "confirmation.parquet")
    assert runs["refit"].tolist() == [False, False, True]
    refit = runs.iloc[2]
    assert pd.isna(refit["score"])
    assert refit["epochs"] == refit["best_epoch"] == runs["epochs"][:2].max()
    state = replay(journal.read(folder / "journal.jsonl")[0])
    trial = state.trials[int(refit["trial"])]
    assert trial.final_metrics.keys() == {"test"}
    assert int(refit["trial"]) not in pd.read_parquet(folder / "leaderboard.parquet")["trial"].tolist()


def test_replay_and_trainables_take_a_refit(refitted: tuple[Finished, Path], command: Command) -> None:
    folder = refitted[1]
    number = json.loads((folder / "final.json").read_text())["refit"]["trial"]
    replayed = command("orchestrator.leaderboard", folder, "--replay", str(number))
    assert replayed.code == 0, replayed.err
    once_more = command("trainables", "digits", "--config", folder / "best" / "config.json", "--json")
    assert once_more.code == 0, once_more.err
    assert once_more.result["score"] is None
    assert "val_accuracy" not in once_more.err


@pytest.mark.slow
def test_a_command_killed_before_the_refit_goes_on_with_it(
    refitted: tuple[Finished, Path], command: Command, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(refitted[1], tmp_path / "all"))
    final = json.loads((folder / "final.json").read_text())
    lines = (folder / "journal.jsonl").read_bytes().splitlines(keepends=True)
    attempt = next(n for n, line in enumerate(lines) if json.loads(line).get("refit")) + 2
    (folder / "journal.jsonl").write_bytes(b"".join(lines[:attempt]))
    shutil.rmtree(folder / "checkpoints" / str(final["refit"]["trial"]))
    (folder / "final.json").unlink()
    done = command("orchestrator.sweep", "--resume", "all", "--results", tmp_path)
    assert done.code == 0, done.err
    again = json.loads((folder / "final.json").read_text())
    assert again["refit"] == final["refit"]
    assert again["best"] == final["best"]


@pytest.mark.slow
def test_a_sweep_can_be_refitted_later(confirmed: tuple[Finished, Path], command: Command, tmp_path: Path) -> None:
    shutil.copytree(confirmed[1], tmp_path / "later")
    done = command("orchestrator.sweep", "--resume", "later", "--results", tmp_path, "--refit")
    assert done.code == 0, done.err
    final = json.loads((tmp_path / "later" / "final.json").read_text())
    assert (final["best"]["kind"], final["openings"]) == ("refit", 2)
