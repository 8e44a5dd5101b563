"""Replay: a trial of a real sweep gives its numbers again, to the last digit; what differs is named."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
from conftest import Command, Finished
from journals import WORKER, trial, write_lines, write_sweep
from lookalikes import cactus_folders
from tiny import CPU

from orchestrator.cluster import machine
from orchestrator.leaderboard import __main__ as leaderboard
from orchestrator.leaderboard import rerun
from orchestrator.leaderboard.boards import find
from orchestrator.plan import plan
from orchestrator.plan.options import SweepOptions
from orchestrator.plan.request import Request
from orchestrator.record import journal
from orchestrator.record.events import SweepResumed, SweepStarted, TrialEnded, TrialEpoch, TrialProposed
from orchestrator.record.facts import Spec, Worker
from orchestrator.record.state import TrialRecord
from orchestrator.record.state import replay as fold_all
from trainables.batches import Batches
from trainables.config import TrialConfig, format_key
from trainables.errors import Diverged
from trainables.loop import TrialData, TrialState, train


@pytest.fixture
def again(capsys: pytest.CaptureFixture[str]) -> Any:
    """Replay in this process: the code, and what `--json` says."""

    def run(*arguments: str | Path) -> tuple[int, dict[str, Any]]:
        code = leaderboard.main([*map(str, arguments), "--json"])
        return code, json.loads(capsys.readouterr().out)["replay"]

    return run


def trials(folder: Path) -> dict[int, TrialRecord]:
    return fold_all(journal.read(folder / "journal.jsonl")[0]).trials


def edited(folder: Path, target: Path, change: Any) -> Path:
    """Return a copy of a sweep's journal with every event as `change` makes it."""
    target.mkdir()
    lines = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    write_lines(target / "journal.jsonl", map(change, lines))
    return target


def test_a_searched_a_stopped_and_a_confirming_run_are_equal_to_the_last_digit(
    confirmed: tuple[Finished, Path], command: Command, again: Any
) -> None:
    folder = confirmed[1]
    found = trials(folder)
    kinds = {
        "completed": next(one for one in found.values() if one.status == "completed" and not one.final),
        "stopped": next(one for one in found.values() if one.status == "stopped"),
        "confirming": next(one for one in found.values() if one.final and one.final_metrics),
    }
    for kind, one in kinds.items():
        code, told = again(folder, "--replay", str(one.number))
        assert (code, told["equal"]) == (0, True), (kind, told)
        assert (told["epochs"], told["score"]) == (len(one.epochs), one.score)
    done = command("orchestrator.leaderboard", folder, "--replay", str(kinds["stopped"].number))  # as a user has it
    assert done.code == 0, done.err
    assert "equal to the last digit" in done.out


def test_the_first_figure_that_differs_is_named_and_none_that_the_record_lacks(
    confirmed: tuple[Finished, Path], again: Any, tmp_path: Path
) -> None:
    number = next(one.number for one in trials(confirmed[1]).values() if one.status == "completed")

    def change(event: dict[str, Any]) -> dict[str, Any]:
        if event["event"] == "trial_epoch" and event["trial"] == number and event["metrics"]["epoch"] >= 2:
            event["metrics"]["val_loss"] *= 1 + 1e-12
        if event["event"] == "sweep_started":
            event["spec"]["versions"]["torch"] = "1.0"
        return event

    code, told = again(edited(confirmed[1], tmp_path / "loss", change), "--replay", str(number))
    assert (told["first_difference"]["epoch"], told["first_difference"]["metric"]) == (2, "val_loss")
    assert (code, told["exact"], told["sound"]) == (0, False, True)  # within the tolerance of another version
    assert {"fact": "torch", "recorded": "1.0", "here": told["elsewhere"][-1]["here"]} in told["elsewhere"]

    def old(event: dict[str, Any]) -> dict[str, Any]:
        event.get("metrics", {}).pop("val_roc_auc", None)  # as of a version that did not measure it
        return event

    code, told = again(edited(confirmed[1], tmp_path / "old", old), "--replay", str(number))
    assert (code, told["equal"]) == (0, True)

    def far(event: dict[str, Any]) -> dict[str, Any]:
        if event["event"] == "trial_epoch" and event["trial"] == number:
            event["metrics"]["train_accuracy"] = 0.0
        return event

    code, told = again(edited(confirmed[1], tmp_path / "far", far), "--replay", str(number))
    assert (code, told["sound"]) == (1, False)
    assert told["beyond_tolerance"][0]["metric"] == "train_accuracy"


def test_other_data_are_refused_as_by_resume(
    confirmed: tuple[Finished, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def change(event: dict[str, Any]) -> dict[str, Any]:
        if event["event"] == "sweep_started":
            event["spec"]["split"]["data_fingerprint"] = "0"
        return event

    folder = edited(confirmed[1], tmp_path / "other", change)
    assert leaderboard.main([str(folder), "--replay", "0"]) == 2
    assert "the data set is not the one this sweep began with: data_fingerprint was 0" in capsys.readouterr().err


def test_what_has_no_epoch_cannot_be_compared(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "one", trial(0, [], "failed", "error"), trial(1, [], None))
    for number, why in (("0", "broken"), ("1", "not begun"), ("2", "no such trial")):
        assert leaderboard.main([str(folder), "--replay", number]) == 2
        assert why in capsys.readouterr().err


def recorded(folder: Path, interrupted: bool = False, **asked: Any) -> Path:
    """Write a sweep of one trial, made by the loop itself, without Ray; `interrupted`: resumed from a checkpoint."""
    planned = plan.make(Request(SweepOptions(confirm=0, **asked)), [machine.Resources(1, 0)])
    data, split = planned.split(planned.load())
    params = {"lr": 0.1, "dropout": 0.1, "weight_decay": 1e-4, "label_smoothing": 0.1, "train_fraction": 0.9}
    params = {name: value for name, value in params.items() if name in planned.space.distributions}
    told = trial(0, [], "diverged", "not_finite")[:2]
    told[0] = TrialProposed(0, params, {})
    config = planned.space.config(params, threads=1, seed=0, **(WORKER.format or {}))
    rows = TrialData.select(config, data, Batches.of(data, CPU))
    worker = replace(WORKER, image_size=rows.image_size)
    end = TrialEnded(0, 0, "completed", "budget", worker=worker)
    state = TrialState.start(config, rows, CPU)
    try:
        epochs = list(itertools.islice(train(rows, state), 1 if interrupted else None))
        if interrupted:
            saved, state = state.to_checkpoint(), TrialState.start(config, rows, CPU)
            state.restore(*saved[:2])
            epochs += train(rows, state)
        told += [TrialEpoch(0, 0, one.to_dict(), worker) for one in epochs]
    except Diverged as error:
        end = TrialEnded(0, 0, "diverged", "not_finite", str(error), worker=worker)
    told.append(end)
    return write_sweep(folder, told, split=split, **asked)


def test_a_trial_that_went_on_from_a_checkpoint_gives_the_same(again: Any, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"subset": 200, "set": (("model=resnet8",),), "max_epochs": 3}
    code, told = again(recorded(tmp_path / "one", interrupted=True, dataset="digits", **asked), "--replay", "0")
    assert (code, told["equal"], told["epochs"]) == (0, True, 3)


def test_a_trial_that_diverged_diverges_again(again: Any, tmp_path: Path) -> None:
    folder = recorded(
        tmp_path / "wild", dataset="digits", subset=200, set=(("lr=1e30", "model=resnet8"),), max_epochs=2
    )
    assert trials(folder)[0].status == "diverged"
    code, told = again(folder, "--replay", "0")
    assert (code, told["equal"], told["status"]) == (0, True, "diverged")


def test_pictures_may_have_moved(again: Any, tmp_path: Path) -> None:
    cactus_folders(tmp_path / "there" / "pictures")
    small: dict[str, Any] = {"set": (("model=resnet8", "image_size=8"),), "max_epochs": 2}
    folder = recorded(tmp_path / "moved", dataset=str(tmp_path / "there" / "pictures"), **small)
    shutil.move(tmp_path / "there", tmp_path / "here")
    assert leaderboard.main([str(folder), "--replay", "0"]) == 2
    for place in ("here", "here/pictures"):
        code, told = again(folder, "--replay", "0", "--data-dir", tmp_path / place)
        assert (code, told["equal"], told["epochs"]) == (0, True, 2)


def test_code_that_a_record_names_is_not_imported_unasked(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "own", trial(0, [0.9]), set=(("model=no_such_module:make",),))
    assert leaderboard.main([str(folder), "--replay", "0"]) == 2
    assert "--trust no_such_module:make" in capsys.readouterr().err
    assert leaderboard.main([str(folder), "--replay", "0", "--trust", "no_such_module:make"]) == 2
    assert "there is no module no_such_module" in capsys.readouterr().err


def test_a_trial_that_went_on_ran_under_two_commands(tmp_path: Path) -> None:
    first, second = (Spec(versions={"torch": version}) for version in ("1", "2"))
    metrics = {"epoch": 1}
    events = [
        SweepStarted(first),
        TrialEpoch(0, 0, metrics),
        SweepResumed(second),
        TrialEpoch(0, 1, metrics),
        TrialEpoch(1, 0, metrics),
    ]
    assert rerun._commands(events, 0) == [first, second]
    assert rerun._commands(events, 1) == [second]


def test_a_lone_leaderboard_says_where_it_came_from(confirmed: tuple[Finished, Path], tmp_path: Path) -> None:
    """All that identifies code, machine, data and chance, from the file alone."""
    lone = shutil.copy(confirmed[1] / "leaderboard.parquet", tmp_path / "lone.parquet")
    record = json.loads(pq.read_schema(lone).metadata[b"sweep"])
    assert set(record["git"]) == {"revision", "dirty"}
    assert record["command"]
    for name in ("python", "torch", "torchvision", "ray", "optuna", "numpy", "pillow", "scikit-learn"):
        assert record["versions"][name], name
    assert record["versions"]["sweep-orchestrator"]
    assert record["hardware"]["cpu"]
    assert record["hardware"]["cpus"] >= 1
    for name in ("data", "test", "validation", "pool"):
        assert len(record["split"][f"{name}_fingerprint"]) == 64
    assert record["plan"]["seed"] == record["split"]["seed"] == 0
    assert record["plan"]["arms"][""]["distributions"]["lr"]
    assert record["formats"]
    rows = pq.read_table(lone).to_pylist()
    for row in rows:
        assert row["seed"] == row["config.seed"]
        assert row["precision"] in ("float32", "bfloat16")
        assert row["threads"] == row["config.threads"] >= 1
        assert row["device"] == "cpu"
        assert row["node"]
    assert sum(bool(row["winner"]) for row in rows) == 1
    board = find([str(lone)])[0][0]
    assert {**board.spec.to_dict(), "formats": board.formats} == record


def test_a_format_is_replayed_on_its_own_kind_of_device_only() -> None:
    """Elsewhere digits differ anyway, and what was fast there may take forever here."""
    made, fast = TrialConfig(model="resnet8"), {"precision": "bfloat16", "memory_format": "channels_last"}
    slow = {"precision": "float32", "memory_format": "contiguous"}
    ran = TrialRecord(0, {}, made.to_dict(), 0.0, worker=Worker(device="cpu", cpu="there", format=fast, image_size=8))
    board: Any = SimpleNamespace(formats={format_key(ran.config, "known"): slow})
    expected = made.replace(image_size=8).to_dict()
    assert rerun._as_run(board, ran, "there") == {**expected, **fast}
    assert rerun._as_run(board, ran, "known") == {**expected, **slow}
    assert rerun._as_run(board, ran, "elsewhere") == expected
