"""The command end to end, as a user runs it: real Ray, real training, real kills."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import psutil
import pyarrow.parquet as pq
import pytest
import torch
from conftest import QUICK, ROOT, Command, Finished
from safetensors.torch import load_file

from orchestrator import sweep
from orchestrator.assessment.tables import HISTORY, LEADERBOARD
from orchestrator.record.events import AttemptLost, Event
from orchestrator.record.journal import read
from orchestrator.record.lock import hold
from orchestrator.record.state import replay
from trainables.batches import Batches
from trainables.config import TrialConfig
from trainables.datasets import load
from trainables.evaluation import predict
from trainables.models import build
from trainables.splits import search_data

SLOW_TRIALS = ("--set", "batch_size=2", "--trials", "4", "--max-epochs", "3", "--scheduler", "none")  # seconds an epoch


def events(folder: Path) -> list[Event]:
    return read(folder / "journal.jsonl")[0]


def test_quick_sweep_finds_good_settings_and_says_so(finished: tuple[Finished, Path]) -> None:
    done, folder = finished
    result = done.result
    assert result["sweep"] == "quick"
    assert sum(result["trials"].values()) == 6
    assert result["best"]["score"] > 0.9
    assert 0 < result["slot_use"] <= 1
    assert Path(result["leaderboard"]) == folder / "leaderboard.parquet"
    assert "Traceback" not in done.err
    assert "ray" not in done.err.lower()
    assert len(done.out.splitlines()) == 1
    assert f"-m orchestrator.leaderboard {folder}" in done.err


def test_tables_read_the_same_everywhere(finished: tuple[Finished, Path]) -> None:
    for name, schema in (("leaderboard", LEADERBOARD), ("history", HISTORY)):
        path = finished[1] / f"{name}.parquet"
        table = pq.read_table(path)
        assert table.schema.equals(schema, check_metadata=False)
        rows = table.to_pylist()
        with_pandas = pd.read_parquet(path)
        with_polars = pl.read_parquet(path)
        selected = duckdb.sql(f"select * from '{path}'")  # noqa: S608
        assert selected is not None
        with_duckdb = selected.to_arrow_table()
        assert list(with_pandas.columns) == with_polars.columns == table.column_names
        assert with_polars.rows() == [tuple(row.values()) for row in rows]
        assert with_duckdb.cast(schema).to_pylist() == rows
        for column in ("score", "trial"):
            assert with_pandas[column].tolist() == [row[column] for row in rows]


def test_leaderboard_is_ranked_and_derived_from_the_journal(finished: tuple[Finished, Path]) -> None:
    rows = pq.read_table(finished[1] / "leaderboard.parquet").to_pylist()
    scores = [row["score"] for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
    state = replay(events(finished[1]))
    assert {row["trial"]: row["score"] for row in rows} == {n: trial.score for n, trial in state.trials.items()}
    history = pq.read_table(finished[1] / "history.parquet").to_pylist()
    assert len(history) == sum(row["epochs"] for row in rows)
    for row in rows:
        curve = [epoch["val_accuracy"] for epoch in history if epoch["trial"] == row["trial"]]
        assert max(curve) == row["score"] == row["val_accuracy"]
        assert curve.index(row["score"]) + 1 == row["best_epoch"]


def test_provenance_is_in_the_parquet_itself(finished: tuple[Finished, Path]) -> None:
    metadata = pq.read_schema(finished[1] / "leaderboard.parquet").metadata
    spec = json.loads(metadata[b"sweep"])
    assert spec == json.loads((finished[1] / "sweep.json").read_text())
    assert spec["split"]["test_rows"] == 359
    assert spec["versions"]["ray"]
    assert sum(spec["inventory"]["parts"]["all"].values()) == 1_797


def test_pictures_of_each_class_are_in_the_report(finished: tuple[Finished, Path]) -> None:
    sheet = json.loads((finished[1] / "contact.json").read_text())
    assert [len(one["pictures"]) for one in sheet["classes"]] == [8] * 10
    page = (finished[1] / "report.html").read_text()
    assert all(picture in page for one in sheet["classes"] for picture in one["pictures"])


def test_best_weights_score_what_the_leaderboard_says(finished: tuple[Finished, Path]) -> None:
    bundle = finished[1] / "best"
    described = json.loads((bundle / "config.json").read_text())
    config = TrialConfig.from_dict(described["config"])
    data = search_data(load("digits"))
    assert json.loads((bundle / "labels.json").read_text()) == list(data.classes)
    model = build.build(config, described["classes"], described["image_size"])
    model.load_state_dict(load_file(bundle / "model.safetensors"))
    batches = Batches.of(data, torch.device("cpu"))
    logits, labels = predict(config, batches, torch.from_numpy(data.validation), model)
    assert float((logits.argmax(1) == labels).double().mean()) == pytest.approx(
        finished[0].result["best"]["score"], abs=2 / len(data.validation)
    )


def test_resuming_a_finished_sweep_shows_it(finished: tuple[Finished, Path], command: Command) -> None:
    done = command("orchestrator.sweep", "--resume", "quick", "--results", finished[1].parent, "--json")
    assert done.code == 0
    assert done.result["best"] == finished[0].result["best"]
    assert "trial" in done.err  # its leaderboard


@pytest.mark.slow
def test_a_sweep_that_had_ended_goes_on_with_more_trials(
    finished: tuple[Finished, Path], command: Command, tmp_path: Path
) -> None:
    shutil.copytree(finished[1], tmp_path / "more")
    done = command("orchestrator.sweep", "--resume", "more", "--trials", "8", "--results", tmp_path, "--json")
    assert done.code == 0, done.err
    before, after = replay(events(finished[1])), replay(events(tmp_path / "more"))
    assert sum(done.result["trials"].values()) == len(after.trials) == 8
    assert all(after.trials[number] == trial for number, trial in before.trials.items())


def test_an_existing_name_is_refused(finished: tuple[Finished, Path], command: Command) -> None:
    done = command(*QUICK, finished[1].parent, "--name", "quick")
    assert done.code == 2
    assert "--resume quick" in done.err


def test_leaderboard_command_shows_a_sweep(finished: tuple[Finished, Path], command: Command) -> None:
    done = command("orchestrator.leaderboard", finished[1])
    assert done.code == 0
    assert "completed" in done.out
    assert command("orchestrator.leaderboard", finished[1] / "nothing").code == 2


@pytest.mark.slow
def test_one_slot_and_one_seed_repeat_the_sweep(command: Command, tmp_path: Path) -> None:
    found = []
    concrete = ("precision=float32", "memory_format=contiguous")  # what is measured may differ between two runs
    for name in ("a", "b"):
        done = command(*QUICK, tmp_path, "--name", name, "--slots", "1", "--trials", "3", "--set", *concrete)
        assert done.code == 0, done.err
        trials = replay(events(tmp_path / name)).trials.values()
        found.append([(t.params, [(e["train_loss"], e["val_loss"]) for e in t.epochs], t.end) for t in trials])
    assert found[0] == found[1]


def test_a_trial_that_diverges_or_fails_is_reported_and_never_ranked(command: Command, tmp_path: Path) -> None:
    # inception_v3 cannot take 8×8 images: those trials fail; a learning rate of 1e8 diverges.
    done = command(
        *QUICK, tmp_path, "--name", "odd", "--sampler", "grid", "--trials", "4", "--max-epochs", "2",
        "--search", "model=choice(resnet8,inception_v3)", "lr=choice(0.1,1e8)",
        "--set", "dropout=0", "label_smoothing=0", "weight_decay=0", "train_fraction=1",
    )  # fmt: skip
    assert done.code == 0, done.err
    rows = pq.read_table(tmp_path / "odd" / "leaderboard.parquet").to_pylist()
    by_settings = {(row["config.model"], row["config.lr"]): row for row in rows}
    assert by_settings["resnet8", 0.1]["rank"] == 1
    diverged = by_settings["resnet8", 1e8]
    assert (diverged["status"], diverged["stop_reason"], diverged["rank"]) == ("diverged", "not_finite", None)
    for lr in (0.1, 1e8):
        failed = by_settings["inception_v3", lr]
        assert (failed["status"], failed["rank"]) == ("failed", None)
        assert "inception_v3" in failed["error"]


def test_a_sweep_killed_before_its_tables_has_them_made(
    finished: tuple[Finished, Path], command: Command, tmp_path: Path
) -> None:
    folder = tmp_path / "late"
    shutil.copytree(finished[1], folder)
    for name in ("leaderboard.parquet", "history.parquet", "final.json"):
        (folder / name).unlink()
    shutil.rmtree(folder / "best")
    done = command("orchestrator.sweep", "--resume", "late", "--results", tmp_path, "--json")
    assert done.code == 0, done.err
    assert pq.read_table(folder / "leaderboard.parquet") == pq.read_table(finished[1] / "leaderboard.parquet")
    assert (folder / "best" / "model.safetensors").read_bytes() == (
        finished[1] / "best" / "model.safetensors"
    ).read_bytes()


def test_a_second_command_on_the_same_sweep_is_refused(finished: tuple[Finished, Path], command: Command) -> None:
    with hold(finished[1]):
        done = command("orchestrator.sweep", "--resume", "quick", "--results", finished[1].parent, "--trials", "9")
    assert done.code == 2
    assert f"is in use by process {os.getpid()} on" in done.err
    assert "Traceback" not in done.err


def test_damaged_results_are_made_again(finished: tuple[Finished, Path], command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(finished[1], folder)
    for name in ("leaderboard.parquet", "history.parquet", "final.json", "sweep.json", "best/model.safetensors"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
    done = command("orchestrator.sweep", "--resume", "damaged", "--results", tmp_path)
    assert done.code == 0, done.err
    for name in ("leaderboard.parquet", "history.parquet"):
        assert pq.read_table(folder / name) == pq.read_table(finished[1] / name)
    for name in ("final.json", "best/model.safetensors"):
        assert (folder / name).read_bytes() == (finished[1] / name).read_bytes()
    again, before = (json.loads((one / "sweep.json").read_bytes()) for one in (folder, finished[1]))
    assert len(again.pop("resumed")) == 1  # the command that made them again
    assert again == before


@pytest.mark.slow
def test_without_a_confirmation_the_next_best_model_stands_in_for_lost_weights(
    command: Command, tmp_path: Path
) -> None:
    made = command(*QUICK, tmp_path, "--name", "lost", "--trials", "2", "--scheduler", "none")
    assert made.code == 0, made.err
    folder = tmp_path / "lost"
    best = json.loads((folder / "best" / "config.json").read_text())["trial"]
    shutil.rmtree(folder / "best")
    shutil.rmtree(folder / "checkpoints" / str(best))
    done = command("orchestrator.sweep", "--resume", "lost", "--results", tmp_path)
    assert done.code == 0, done.err
    second = json.loads((folder / "best" / "config.json").read_text())["trial"]
    assert second != best
    assert f"best/ has trial {second}, the next best one: the weights of trial {best} are gone" in done.err


def test_a_journal_whose_first_line_is_damaged_is_gone_on_with(
    finished: tuple[Finished, Path], command: Command, tmp_path: Path
) -> None:
    folder = tmp_path / "beheaded"
    shutil.copytree(finished[1], folder)
    lines = (folder / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "journal.jsonl").write_bytes(b"\0" * (len(lines[0]) - 1) + b"\n" + b"".join(lines[1:]))
    done = command("orchestrator.sweep", "--resume", "beheaded", "--results", tmp_path, "--json")
    assert done.code == 0, done.err
    assert done.result["trials"] == finished[0].result["trials"]
    assert done.result["best"] == finished[0].result["best"]


def started(folder: Path, environment: dict[str, str], *arguments: str) -> subprocess.Popen[bytes]:
    """Start a sweep in the background."""
    with (folder.parent / f"{folder.name}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", *QUICK, str(folder.parent), "--name", folder.name, *arguments],
            cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip


def wait_for(what: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)


def epochs(folder: Path) -> int:
    path = folder / "journal.jsonl"
    return path.read_bytes().count(b'"trial_epoch"') if path.exists() else 0


def workers(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Return the sweep's trial actors."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # gone since, or a zombie
            if any("ResourceTrainable" in part for part in child.cmdline()):
                found.append(child)
    return found


def test_a_dry_run_says_what_would_be_done(command: Command, tmp_path: Path) -> None:
    done = command(*QUICK, tmp_path, "--dry-run")
    assert done.code == 0, done.err
    assert done.result["plan"]["dataset"] == "digits"
    assert done.result["slots"] >= 1
    assert done.result["split"]["test_rows"] == 359
    assert {path.name for path in tmp_path.iterdir()} == {"contact.html", "contact.png"}  # and no sweep's folder


@pytest.mark.slow
def test_two_sweeps_side_by_side_do_not_meet(environment: dict[str, str], tmp_path: Path) -> None:
    processes = {name: started(tmp_path / name, environment, "--trials", "3") for name in ("left", "right")}
    try:
        for name, process in processes.items():
            assert process.wait(timeout=100) == 0, (tmp_path / f"{name}.log").read_text()
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    left, right = (events(tmp_path / name) for name in processes)
    params = [[trial.params for trial in replay(found).trials.values()] for found in (left, right)]
    assert params[0] == params[1]
    assert not [event for event in (*left, *right) if isinstance(event, AttemptLost)]


@pytest.mark.slow
def test_a_killed_driver_loses_nothing(environment: dict[str, str], command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    process = started(folder, environment, *SLOW_TRIALS)
    children: list[psutil.Process] = []
    try:
        wait_for(lambda: epochs(folder) >= 4)
        children = psutil.Process(process.pid).children(recursive=True)
    finally:
        process.kill()
        process.wait()
    before = replay(events(folder))
    done = command("orchestrator.sweep", "--resume", "killed", "--results", tmp_path, "--json")
    psutil.wait_procs(children, timeout=20)
    assert done.code == 0, done.err
    after = replay(events(folder))
    assert done.result["trials"] == {"completed": 4}
    for number, trial in before.trials.items():
        assert after.trials[number].epochs[: len(trial.epochs)] == trial.epochs
        assert after.trials[number].params == trial.params
        assert [epoch["epoch"] for epoch in after.trials[number].epochs] == [1, 2, 3]
    assert {trial.attempt for trial in after.trials.values()} <= {0, 1}


@pytest.mark.slow
def test_a_killed_worker_costs_its_trial_nothing_finished(environment: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "worker"
    process = started(folder, environment, *SLOW_TRIALS)
    try:
        wait_for(lambda: epochs(folder) >= 2 and len(workers(process)) == 2)
        workers(process)[0].kill()
        assert process.wait(timeout=100) == 0
    finally:
        process.kill()
        process.wait()
    state = replay(events(folder))
    assert {trial.status for trial in state.trials.values()} == {"completed"}
    assert sum(trial.attempt for trial in state.trials.values()) == 1
    assert all([epoch["epoch"] for epoch in trial.epochs] == [1, 2, 3] for trial in state.trials.values())
    log = (tmp_path / "worker.log").read_text()
    assert "lost its worker" in log
    assert "raylet" not in log


def test_a_sweep_goes_on_when_nobody_reads_its_output(environment: dict[str, str], tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    told = tmp_path / "told.json"
    command = [sys.executable, "-m", *QUICK, str(tmp_path), "--name", "unread", "--on-end", f"cat > {told}"]
    try:
        done = subprocess.run(
            [*command, "--trials", "2", "--scheduler", "none"],
            cwd=ROOT, env=environment, stdout=writing, stderr=writing, timeout=100, check=False,
        )  # fmt: skip
    finally:
        os.close(writing)
    assert done.returncode == 0
    assert json.loads(told.read_text())["trials"] == {"completed": 2}
    assert replay(events(tmp_path / "unread")).ended == "finished"


def test_whoever_waits_for_the_end_hears_of_a_defect_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(options: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(sweep, "run", broken)
    with pytest.raises(ZeroDivisionError):
        sweep.main(["digits", "--name", "a", "--on-end", f"cat > {tmp_path / 'told.json'}"])
    told = json.loads((tmp_path / "told.json").read_text())
    assert told == {"sweep": "a", "ended": "failed", "error": "ZeroDivisionError: division by zero"}


def test_ctrl_c_ends_cleanly_and_can_be_resumed(environment: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "interrupted"
    process = started(folder, environment, *SLOW_TRIALS)
    try:
        wait_for(lambda: epochs(folder) >= 1)
        children = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(timeout=30) == 130
    finally:
        process.kill()
        process.wait()
    assert not psutil.wait_procs(children, timeout=10)[1]
    rows = pq.read_table(folder / "leaderboard.parquet").to_pylist()
    assert {"interrupted"} <= {row["status"] for row in rows}
    assert {row["stop_reason"] for row in rows if row["status"] == "interrupted"} == {"signal"}
    log = (tmp_path / "interrupted.log").read_text()
    assert "--resume interrupted" in log
    assert "Traceback" not in log


@pytest.mark.slow
@pytest.mark.parametrize(
    ("send", "number", "seconds"),
    [
        pytest.param(os.kill, signal.SIGINT, 10, id="Ctrl-C"),
        pytest.param(os.killpg, signal.SIGTERM, 25, id="SIGTERM to Ray as well"),  # as `timeout` and SLURM send it
    ],
)
def test_epochs_that_take_long_are_not_waited_for(
    send: Callable[[int, int], None], number: int, seconds: float, environment: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "long"
    process = started(folder, environment, "--set", "model=resnet101", "batch_size=2", "--trials", "2")
    try:
        wait_for(lambda: (folder / "journal.jsonl").exists() and len(workers(process)) == 2)
        wait_for(lambda: min(sum(worker.cpu_times()[:2]) for worker in workers(process)) > 8)  # they are training
        children = psutil.Process(process.pid).children(recursive=True)
        send(process.pid, number)
        asked = time.monotonic()
        assert process.wait(timeout=40) == 130
    finally:
        process.kill()
        process.wait()
    assert time.monotonic() - asked < seconds
    assert not psutil.wait_procs(children, timeout=10)[1]
    assert {trial.status for trial in replay(events(folder)).trials.values()} == {"interrupted"}
    assert pq.read_table(folder / "leaderboard.parquet").num_rows == 2


@pytest.mark.slow
def test_a_second_ctrl_c_ends_at_once(environment: dict[str, str], command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "twice"
    process = started(folder, environment, *SLOW_TRIALS, "--trials", "2", "--max-epochs", "2")
    try:
        wait_for(lambda: epochs(folder) >= 1)
        children = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, signal.SIGINT)
        time.sleep(0.2)
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(timeout=10) == 130
    finally:
        process.kill()
        process.wait()
    psutil.wait_procs(children, timeout=20)
    before = replay(events(folder))
    done = command("orchestrator.sweep", "--resume", "twice", "--results", tmp_path, "--json")
    assert done.code == 0, done.err
    assert done.result["trials"] == {"completed": 2}
    after = replay(events(folder))
    assert all(after.trials[n].epochs[: len(t.epochs)] == t.epochs for n, t in before.trials.items())


@pytest.mark.slow
def test_a_time_budget_ends_the_sweep(command: Command, tmp_path: Path) -> None:
    done = command(*QUICK, tmp_path, "--name", "short", "--time-budget", "12s", *SLOW_TRIALS, "--max-epochs", "50")
    assert done.code in (0, 1), done.err  # 1: not one epoch had ended on a slow machine
    assert done.result["ended"] == "sweep_budget"
    assert "--resume short" in done.err


def test_validation_set_and_pool_hold_no_sealed_row(finished: tuple[Finished, Path]) -> None:
    data = search_data(load("digits"))
    spec = replay(events(finished[1])).spec
    assert spec.split["validation_rows"] == len(data.validation)
    assert not np.intersect1d(data.validation, data.pool).size
