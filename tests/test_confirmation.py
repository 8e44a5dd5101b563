"""Confirmation: the best mean wins, the test set is opened for the winner alone, and once."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import Command, Finished
from journals import WORKER, folded, measured, trial
from PIL import Image

from orchestrator.assessment.confirmation import Confirmation, confirmation_of, unconfirmed
from orchestrator.cluster import machine
from orchestrator.plan import plan
from orchestrator.plan.options import SweepOptions
from orchestrator.plan.plan import Plan
from orchestrator.plan.request import Request
from orchestrator.record.events import Event, SweepStarted, TestMeasured, TestOpened
from orchestrator.record.facts import Measured, Spec
from orchestrator.record.journal import read
from orchestrator.record.state import SweepState, replay
from orchestrator.search.trial_queue import NextTrial
from trainables import correct_predictions, datasets

ROWS = 1000


def sweep_of(folder: Path, searched: dict[int, float], runs: dict[int, list[float]], **changes: Any) -> SweepState:
    """Return a sweep that has searched (trial → score) and confirmed (trial → scores by seed)."""
    options = SweepOptions(dataset="digits", results=folder, confirm=len(runs), confirm_seeds=3)
    planned = plan.make(Request(options), [machine.Resources(2, 0)])
    config = planned.space.base

    def run(number: int, score: float, due: NextTrial, parameters: int = 1000) -> list[Event]:
        settings = config.replace(lr=0.01 * (due.confirms if due.confirms is not None else number) + 0.01).to_dict()
        final = {"validation": measured(score, ROWS)} if due.final else None
        worker = dataclasses.replace(WORKER, parameters=parameters)
        return trial(number, [score], config=settings, due=due, worker=worker, final_metrics=final, params={})

    state = folded(SweepStarted(Spec(plan=planned.to_dict())))
    for number, score in searched.items():
        folded(*run(number, score, NextTrial("", number)), state=state)
    for searched_trial, scores in runs.items():
        parameters = changes.get("parameters", {}).get(searched_trial, 1000)
        for index, score in enumerate(scores):
            due = NextTrial("", index, {}, searched_trial)
            folded(*run(state.next_trial, score, due, parameters), state=state)
    return state


def result_of(state: SweepState) -> Confirmation:
    found = confirmation_of(state, Plan.from_dict(state.spec.plan))
    assert found is not None
    return found


def test_the_best_mean_wins_not_the_luckiest_search(tmp_path: Path) -> None:
    state = sweep_of(tmp_path, {0: 0.95, 1: 0.93}, {0: [0.90, 0.91, 0.89], 1: [0.93, 0.92, 0.94]})
    found = result_of(state).to_dict()
    assert found["trial"] == 1
    assert found["validation"]["mean"] == pytest.approx(0.93)
    low, high = found["validation"]["interval"]
    assert low < 0.93 < high
    assert [row["trial"] for row in found["candidates"]] == [1, 0]
    assert found["shrinkage"]["leader"] == 0
    assert found["shrinkage"]["search_to_confirmed"] == pytest.approx(-0.05)
    assert result_of(state).model.score == 0.93


def test_a_smaller_model_wins_within_one_standard_error_alone(tmp_path: Path) -> None:
    searched, near = {0: 0.95, 1: 0.93}, {0: [0.95, 0.91, 0.93], 1: [0.92, 0.93, 0.925]}
    found = result_of(sweep_of(tmp_path, searched, near, parameters={1: 10})).to_dict()
    assert (found["trial"], found["smaller_than"]) == (1, 0)
    far = {0: [0.95, 0.951, 0.949], 1: [0.92, 0.93, 0.925]}
    found = result_of(sweep_of(tmp_path, searched, far, parameters={1: 10})).to_dict()
    assert (found["trial"], found["smaller_than"]) == (0, None)


def test_nothing_is_confirmed_while_a_run_is_missing(tmp_path: Path) -> None:
    state = sweep_of(tmp_path, {0: 0.95, 1: 0.93}, {0: [0.90, 0.91, 0.89], 1: [0.93, 0.92]})
    assert confirmation_of(state, Plan.from_dict(state.spec.plan)) is None
    assert unconfirmed(state)["confirmed"] is False


@pytest.mark.parametrize(("right", "doubted"), [(70, True), (90, False)])
def test_a_winner_that_may_only_guess_is_said_to(right: int, doubted: bool, tmp_path: Path) -> None:
    state = sweep_of(tmp_path, {0: 0.7}, {0: [0.7, 0.7, 0.7]})
    found = result_of(state)
    assert found.test is None
    confusion = [[65, 0], [100 - right, right - 65]]  # 65 of 100 rows have the first class
    hit = correct_predictions.pack(np.arange(100) < right)
    figures = {"rows": 100, "accuracy": right / 100, "correct": hit, "confusion": confusion}
    folded(*(TestMeasured(run.number, Measured.of(figures)) for run in found.winner.runs), state=state)
    test = found.with_test(openings=1).test
    assert test == result_of(state).test
    assert test is not None
    assert test.commonest == 0.65
    assert test.learnt is not doubted
    assert ("0.6500" in test.doubt()) is doubted


def test_candidates_that_cannot_be_told_apart_are_tied(tmp_path: Path) -> None:
    state = sweep_of(tmp_path, {0: 0.95, 1: 0.93}, {0: [0.90, 0.91, 0.92], 1: [0.91, 0.90, 0.921]})
    assert result_of(state).candidates[1].tied
    clear = sweep_of(tmp_path, {0: 0.95, 1: 0.93}, {0: [0.90, 0.90, 0.90], 1: [0.5, 0.5, 0.5]})
    assert result_of(clear).candidates[1].tied is False


# as a user runs it


@pytest.fixture(scope="module")
def sure(confirmed: tuple[Finished, Path]) -> Path:
    done, folder = confirmed
    assert "the test set is opened: 359 rows, 2 models of the winner" in done.err
    assert "the winner" in done.err
    return folder


def test_the_test_set_is_opened_once_after_the_last_run(sure: Path) -> None:
    events, _ = read(sure / "journal.jsonl")
    kinds = [event.kind for event in events]
    assert kinds.count("test_opened") == 1
    assert kinds.count("test_measured") == 2
    last = max(n for n, kind in enumerate(kinds) if kind == "trial_ended")
    assert kinds.index("test_opened") > last
    final = json.loads((sure / "final.json").read_bytes())
    runs = {event.trial for event in events if isinstance(event, TestMeasured)}
    state = replay(events)
    assert {state.trials[run].confirms for run in runs} == {final["trial"]}
    assert final["model"] in runs
    assert final["openings"] == 1
    assert final["test"]["rows"] == 359


def test_confirming_runs_have_their_trials_settings_and_common_seeds(sure: Path) -> None:
    runs = pd.read_parquet(sure / "confirmation.parquet")
    board = pd.read_parquet(sure / "leaderboard.parquet").set_index("trial")
    assert len(runs) == 4
    assert set(runs["confirms"]) == set(board.sort_values("rank").index[:2])
    for number, own in runs.groupby("confirms"):
        for setting in ("config.lr", "config.dropout", "config.train_fraction"):
            assert set(own[setting]) == {board.loc[number, setting]}
    assert runs.groupby("seed").size().tolist() == [2, 2]
    assert set(runs["status"]) == {"completed"}
    assert set(runs["epochs"]) == {4}


@pytest.mark.parametrize("form", ["arrays", "folder", "parquet"])
def test_predict_has_the_test_rows_right_that_the_journal_says(sure: Path, form: str, tmp_path: Path) -> None:
    from orchestrator import predict
    from orchestrator.bundle import bundle

    final = json.loads((sure / "final.json").read_bytes())
    digits = datasets.load("digits")
    images, labels = datasets.open_test(digits)
    encoded = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image[..., 0]).save(buffer, "png")
        encoded.append(buffer.getvalue())
    if form == "arrays":
        told = bundle.load(sure / "best").predict(list(images)).labels
    else:
        given, out = tmp_path / "test.parquet", tmp_path / "labels.parquet"
        if form == "folder":
            given = tmp_path / "pictures"
            given.mkdir()
            for row, content in enumerate(encoded):
                (given / f"{row:03}.png").write_bytes(content)
        else:
            pq.write_table(pa.table({"image": encoded}), given)
        assert predict.main([str(sure / "best"), str(given), "--out", str(out)]) == 0
        told = pq.read_table(out)["label"].to_pylist()
    right = [name == digits.classes[label] for name, label in zip(told, labels, strict=True)]
    measured = replay(read(sure / "journal.jsonl")[0]).trials[final["model"]].final_metrics["test"]
    assert right == np.array(measured.correct_rows()).tolist()
    assert np.mean(right) == final["test"]["model_accuracy"]


def test_the_kept_model_is_calibrated_on_the_validation_set_and_judged_on_the_test_set(sure: Path) -> None:
    from orchestrator.bundle import bundle
    from trainables.calibration import calibration_error

    images, labels = datasets.open_test(datasets.load("digits"))
    model = bundle.load(sure / "best")
    found = bundle.read(sure / "best").metrics.calibration
    assert found is not None
    assert (found.fitted_on, found.judged_on) == ("validation", "test")
    assert found.temperature == model.temperature != 1
    tempered = torch.from_numpy(model.predict(list(images)).probabilities)
    assert calibration_error(tempered, torch.from_numpy(labels)) == pytest.approx(found.tempered_error, abs=1e-3)
    plain = model.logits(images).double().softmax(1)
    assert calibration_error(plain, torch.from_numpy(labels)) == pytest.approx(found.calibration_error, abs=1e-3)
    described = "fitted to the validation set: on the test set, they differ from the share of correct predictions by "
    card = (sure / "best" / "README.md").read_text(encoding="utf-8")
    assert f"{described}{found.tempered_error or 0:.4f}, and without the temperature by" in card


def test_a_resumed_command_opens_nothing_again(command: Command, sure: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sure, tmp_path / "sure"))
    (folder / "final.json").unlink()
    again = command("orchestrator.sweep", "--resume", folder.name, "--results", folder.parent)
    assert again.code == 0, again.err
    assert "the test set is opened: " not in again.err
    assert json.loads((folder / "final.json").read_bytes())["openings"] == 1
    assert (folder / "journal.jsonl").read_bytes().count(b'"test_opened"') == 1


@pytest.mark.slow
def test_a_command_killed_while_testing_goes_on_with_the_same_opening(
    command: Command, sure: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(sure, tmp_path / "sure"))
    journal = folder / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    opened = next(n for n, line in enumerate(lines) if b'"test_opened"' in line)
    journal.write_bytes(b"".join(lines[: opened + 2]))  # one model was measured
    (folder / "final.json").unlink()
    again = command("orchestrator.sweep", "--resume", "sure", "--results", tmp_path)
    assert again.code == 0, again.err
    final = json.loads((folder / "final.json").read_bytes())
    assert final["openings"] == 1
    assert final["test"] == json.loads((sure / "final.json").read_bytes())["test"]


@pytest.mark.slow
def test_a_sweep_can_be_confirmed_later(command: Command, finished: tuple[Finished, Path], tmp_path: Path) -> None:
    later = Path(shutil.copytree(finished[1], tmp_path / "later"))
    assert not json.loads((later / "final.json").read_bytes())["confirmed"]
    resumed = ("orchestrator.sweep", "--resume", "later", "--results", tmp_path)
    done = command(*resumed, "--confirm", "1", "--confirm-seeds", "2")
    assert done.code == 0, done.err
    assert json.loads((later / "final.json").read_bytes())["confirmed"]


def test_without_confirmation_the_seal_holds(finished: tuple[Finished, Path]) -> None:
    events, _ = read(finished[1] / "journal.jsonl")
    assert not [event for event in events if isinstance(event, TestOpened | TestMeasured)]


@pytest.mark.parametrize(
    ("asked", "confirm", "seeds"),
    [
        ({"trials": 1}, 1, 2),
        ({"trials": 6, "quick": True}, 1, 2),
        ({"trials": 9}, 1, 3),
        ({"trials": 24}, 2, 3),
        ({"trials": 27}, 3, 3),
        ({"trials": 1000}, 3, 3),
        ({"trials": 24, "confirm_seeds": 5}, 1, 5),
        ({"trials": 24, "confirm": 5}, 5, 3),
        ({"trials": 2, "confirm": 5}, 2, 3),
        ({"trials": 24, "confirm": 0}, 0, 0),
    ],
)
def test_small_sweeps_confirm_less_unless_asked(
    tmp_path: Path, asked: dict[str, Any], confirm: int, seeds: int
) -> None:
    planned = plan.make(Request(SweepOptions(dataset="digits", results=tmp_path, **asked)), [machine.Resources(2, 0)])
    assert (planned.confirm, planned.confirm_seeds) == (confirm, seeds)


def test_settings_that_are_all_fixed_are_confirmed_once(tmp_path: Path) -> None:
    fixed = (("lr=0.1", "weight_decay=0", "dropout=0", "label_smoothing=0", "train_fraction=1"),)
    planned = plan.make(Request(SweepOptions(dataset="digits", results=tmp_path, set=fixed)), [machine.Resources(2, 0)])
    assert planned.confirm == 1
    assert planned.queue().next(SweepState()) == NextTrial("", 0)


def test_planned_runs_are_counted(tmp_path: Path) -> None:
    planned = plan.make(Request(SweepOptions(dataset="digits", results=tmp_path, confirm=2)), [machine.Resources(2, 0)])
    assert planned.queue().total() == planned.trials + 2 * 3
    assert dataclasses.replace(planned, confirm=0, confirm_seeds=0).queue().total() == planned.trials
