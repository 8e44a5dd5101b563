"""The driver killed with SIGKILL at random moments of a sweep."""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
from conftest import Command as Run

from chaos.conftest import Report, SweepMaker
from chaos.sweeps import (
    CURVE,
    DIGITS,
    MOST_LOST_S,
    SLACK_S,
    Command,
    Leaving,
    Sweep,
    check,
    check_kept,
    check_plain,
    wait_for,
)
from orchestrator.record.state import SweepState, TrialRecord

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1800)]

SEED = 0
SLOW = {str(trial): 4.0 for trial in (0, 1, 10, 20, 30, 40, 50)}  # long enough for states to be saved


def test_the_driver_killed_at_random_moments(
    sweeps: SweepMaker, short: bool, report: Report, command: Run, tmp_path: Path
) -> None:
    trials, kills = (9, 2) if short else (60, 20)
    random = Random(SEED)
    sweep = sweeps(epoch_s={"*": 0.2, **({} if short else SLOW)})
    fates: list[Leaving] = []
    killed: list[tuple[Command, float]] = []
    before: list[SweepState] = []
    started = time.monotonic()
    for moment in sorted(random.randrange(trials - trials // 6) for _ in range(kills)):
        running = go_on(sweep, trials)
        wait_until(moment, sweep, running, random)
        running.kill()
        killed.append((running, time.time()))
        fates.append(Leaving(running, waiting=not short))
        before.append(sweep.state())
    done = go_on(sweep, trials).wait(300)
    assert done.code == 0, done.err
    seconds = time.monotonic() - started
    after = check(sweep, trials)
    for state in before:
        check_kept(state, after)
    lost = check_losses(sweep, killed, after)
    left = [fate.seconds() for fate in fates]
    alone = sorted(after.trials.values(), key=lambda trial: -trial.attempt)[: 1 if short else 3]
    for trial in alone:
        check_alone(trial, command, tmp_path)
    report(
        f"driver killed (SIGKILL) in one sweep of {trials} trials",
        len(killed),
        trials_at_the_end=len(after.trials),
        finished_trials_lost=0,
        run_twice=0,
        finished_at_each_kill=[state.finished for state in before],
        attempts=sum(trial.attempt + 1 for trial in after.trials.values()),
        **lost,
        curves_as_of_a_trial_alone=[trial.number for trial in alone],
        processes_gone_after_s=round(max(gone[0] for gone in left), 1),
        those_that_ask_the_head_gone_after_s="not waited for" if short else round(max(gone[-1] for gone in left), 1),
        seconds=round(seconds),
    )


@pytest.mark.usefixtures("long")
def test_trials_go_on_from_their_states(sweeps: SweepMaker, report: Report, command: Run, tmp_path: Path) -> None:
    """The driver of two long trials is killed some time after a state was saved, twice."""
    random = Random(SEED)
    sweep = sweeps(epoch_s={"*": 4.0})
    killed: list[tuple[Command, float]] = []
    running = sweep.start("--trials", "2", "--max-epochs", "8", "--scheduler", "none")
    for _ in range(2):
        known = states(sweep)
        wait_for(partial(new_states, sweep, known), running)
        time.sleep(random.uniform(0, 8))
        running.kill()
        killed.append((running, time.time()))
        running = sweep.resume()
    check_plain(running.wait(), 0)
    after = check(sweep, 2)
    for trial in after.trials.values():
        check_alone(trial, command, tmp_path)
    report(
        "driver killed (SIGKILL) after states were saved",
        len(killed),
        **check_losses(sweep, killed, after),
        gone_on_from_epochs=[line["begins"] for line in sweep.witness() if line.get("begins")],
        curves_as_of_a_trial_alone=sorted(after.trials),
    )
    assert any(line.get("begins") for line in sweep.witness())


def states(sweep: Sweep) -> set[str]:
    """Return the checkpoints that exist."""
    return {str(path) for path in (sweep.folder / "checkpoints").glob("*/[0-9]*.safetensors")}


def new_states(sweep: Sweep, known: set[str]) -> set[str]:
    return states(sweep) - known


def test_a_name_is_free_again_if_its_command_was_killed_at_once(command: Run, tmp_path: Path) -> None:
    """Before the journal there is only the lock: nothing to resume, and no obstacle to a new sweep."""
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "sweep.lock").write_text("{}")
    done = command("orchestrator.sweep", *DIGITS, "--dry-run", "--results", tmp_path)
    assert done.code == 0, done.err


def go_on(sweep: Sweep, trials: int) -> Command:
    """Start the command that a user would give next: the journal may not have its first line yet."""
    begun = sweep.journal.exists() and b"\n" in sweep.journal.read_bytes()
    return sweep.resume() if begun else sweep.start("--trials", str(trials))


def wait_until(moment: int, sweep: Sweep, running: Command, random: Random) -> None:
    """Wait until `moment` trials have ended; if they had before this command, for some of its first seconds."""
    if sweep.count("trial_ended") >= moment:
        time.sleep(random.uniform(0, 8))
        return
    wait_for(lambda: sweep.count("trial_ended") >= moment, running, seconds=240)
    time.sleep(random.uniform(0, 0.5))


def losses(sweep: Sweep, killed: Command, at: float, after: SweepState) -> list[tuple[int, float]]:
    """Return how many epochs, and seconds, were trained again of each trial that ran when its driver was killed."""
    pids = {process.pid for process in killed.children()}
    lost = []
    for trial in after.trials.values():
        own = [line for line in sweep.witness() if line["trial"] == trial.number]
        lines = [line for line in own if line["pid"] in pids and killed.started_at < line["t"] < at]
        again = next((line for line in own if "begins" in line and line["t"] > at and line["pid"] not in pids), None)
        if not lines or again is None:
            continue
        safe = [line["t"] for line in lines if line.get("epoch", 0) <= again["begins"]]  # its begin at the latest
        lost.append((sum(line.get("epoch", 0) > again["begins"] for line in lines), at - max(safe)))
    return lost


def check_losses(sweep: Sweep, kills: list[tuple[Command, float]], after: SweepState) -> dict[str, float]:
    """Check that no running trial lost more than it may, and return the most that one lost."""
    lost = [loss for killed, at in kills for loss in losses(sweep, killed, at, after)]
    above = [loss for loss in lost if loss[0] > 1 and loss[1] > MOST_LOST_S + SLACK_S]
    assert not above, f"epochs and seconds lost: {above}"
    return {
        "trials_that_trained_when_killed": len(lost),
        "most_epochs_lost": max((epochs for epochs, _ in lost), default=0),
        "most_training_lost_s": round(max((seconds for _, seconds in lost), default=0.0), 1),
    }


def check_alone(trial: TrialRecord, command: Run, tmp_path: Path) -> None:
    """Check that the trial's curve is, to the bit, that of the same configuration trained without Ray."""
    file = tmp_path / f"{trial.number}.json"
    file.write_text(json.dumps(trial.config))
    done = command("trainables", "digits", "--config", file, "--json")
    assert done.code == 0, done.err
    expected: list[dict[str, Any]] = done.result["epochs"][: len(trial.epochs)]
    names = [name for name in CURVE if name != "stop_reason"]
    assert [[epoch[n] for n in names] for epoch in trial.epochs] == [[epoch[n] for n in names] for epoch in expected]
