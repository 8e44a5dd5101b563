"""The record: what every event means, that a replay is the live state, and what damage and a full disk do to it."""

from __future__ import annotations

import copy
import json
import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journals import folded
from simulation import Chaos, Setup, Simulation

from orchestrator.record.decoding import RecordError
from orchestrator.record.epochs import Epochs, Reached
from orchestrator.record.events import (
    AttemptLost,
    Event,
    SweepEnded,
    SweepResumed,
    SweepStarted,
    TrialAttempt,
    TrialEnded,
    TrialEpoch,
    TrialProposed,
    parse,
)
from orchestrator.record.facts import Command, Spec, Worker
from orchestrator.record.journal import Journal, JournalError, read
from orchestrator.record.journal_lines import SCHEMA
from orchestrator.record.retelling import retell
from orchestrator.record.state import End, SweepState, fold, replay
from orchestrator.search.study import JournalStudy
from trainables.config import TrialConfig

CONFIG = TrialConfig().to_dict()


def proposed(number: int) -> Event:
    return TrialProposed(number, {"lr": 0.1}, CONFIG)


def epoch(number: int, epoch: int, accuracy: float | None, **more: Any) -> Event:
    return TrialEpoch(number, 0, {"epoch": epoch, "val_accuracy": accuracy}, **more)


SPEC = Spec(slots=2, plan={"seed": 1})
STARTED = SweepStarted(SPEC)
RUNNING = (STARTED, proposed(0), TrialAttempt(0, 0))


def test_the_start_and_the_end_of_a_sweep() -> None:
    state = folded(STARTED, SweepEnded("finished"))
    assert (state.spec, state.ended, state.next_n) == (SPEC, "finished", 2)
    assert state.active_s == 0


def test_a_proposal_waits_and_an_attempt_runs() -> None:
    state = folded(STARTED, proposed(0))
    assert (state.waiting, state.running, state.next_trial) == ([0], {}, 1)
    assert state.trials[0].status == "interrupted"
    state = folded(*RUNNING)
    assert (state.waiting, state.running) == ([], {0: 0})
    assert (state.trials[0].status, state.trials[0].started_at) == ("running", 2.0)


def test_an_epoch_counts_once_and_the_score_is_the_running_best() -> None:
    worker = Worker(node="a")
    state = folded(
        *RUNNING,
        epoch(0, 1, None, worker=worker),
        epoch(0, 2, 0.5),
        epoch(0, 3, 0.4),
        epoch(0, 3, 0.9),
        epoch(0, 4, 0.5),
    )
    trial = state.trials[0]
    assert [e["score"] for e in trial.epochs] == [None, 0.5, 0.5, 0.5]
    assert (trial.score, trial.best_epoch, trial.last_epoch, trial.worker) == (0.5, 2, 4, worker)
    assert state.arm("").scores == {1: {0: None}, 2: {0: 0.5}, 3: {0: 0.5}, 4: {0: 0.5}}


def test_a_lost_attempt_waits_and_is_counted_once() -> None:
    lost = AttemptLost(0, 0, "died")
    state = folded(*RUNNING, proposed(1), lost, lost)
    assert (state.waiting, state.running, state.trials[0].losses) == ([1, 0], {}, 1)
    assert state.trials[0].status == "interrupted"


@pytest.mark.parametrize("before", [RUNNING, RUNNING[:2]], ids=["running", "waiting"])
def test_an_end_is_final(before: tuple[Event, ...]) -> None:
    end = TrialEnded(0, 0, "stopped", "asha")
    state = folded(*before, end, TrialEnded(0, 0, "failed", "error"), epoch(0, 1, 0.1), TrialAttempt(0, 1))
    assert (state.finished, state.running, state.waiting, state.arm("").scores) == (1, {}, [], {})
    assert state.trials[0].end == End("stopped", "asha", None)
    assert state.trials[0].ended_at == len(before)


@pytest.mark.parametrize("event", [SweepEnded("signal"), SweepResumed(SPEC)])
def test_what_ran_when_a_command_ended_is_interrupted_and_waits_in_order(event: Event) -> None:
    state = folded(*RUNNING, proposed(1), proposed(2), TrialAttempt(2, 0), event)
    assert (state.waiting, state.running) == ([0, 1, 2], {})
    assert {trial.status for trial in state.trials.values()} == {"interrupted"}


def test_a_resumption_changes_the_spec_and_takes_the_end_back() -> None:
    again = Spec(slots=4, plan={"seed": 1}, split={"pool_rows": 1}, command="again")
    state = folded(STARTED, SweepEnded("signal"), SweepResumed(again))
    resumed = [Command(slots=4, command="again")]
    assert (state.spec, state.ended) == (Spec(slots=4, plan={"seed": 1}, resumed=resumed), None)
    assert state.record() == {
        "plan": {"seed": 1},
        "split": {},
        "slots": 4,
        "resumed": [{"slots": 4, "command": "again"}],
        "formats": {},
    }


def test_a_resumption_says_how_the_sweep_is_where_its_first_line_is_lost() -> None:
    again = Spec(slots=4, plan={"seed": 1}, split={"pool_rows": 1})
    assert folded(proposed(0), SweepResumed(again)).spec == again


def test_a_resumption_forgives_losses() -> None:
    lost = AttemptLost(0, 0, "no worker starts here")
    state = folded(*RUNNING, lost, SweepResumed(SPEC))
    assert (state.trials[0].losses, state.trials[0].attempt) == (0, 0)


def test_the_first_format_of_each_kind_of_device_is_for_later_trials_of_the_net() -> None:
    config = TrialConfig(model="resnet8", batch_size=100).to_dict()
    fast, slow = {"precision": "bfloat16"}, {"precision": "float32"}
    workers = [Worker(device="cpu", cpu="old", format=slow), Worker(device="cpu", cpu="new", format=fast)]
    workers += [Worker(device="a GPU", cpu="old", format=fast), Worker(device="cpu", cpu="new", format=slow)]
    events = [
        event
        for number, worker in enumerate(workers)
        for event in (
            TrialProposed(number, {}, config), TrialAttempt(number, 0), epoch(number, 1, 0.5, worker=worker),
        )
    ]  # fmt: skip
    state = folded(*events)
    known = {"old": slow, "new": fast, "a GPU": fast}
    assert state.formats_of(config) == state.formats_of({**config, "batch_size": 127, "lr": 0.3}) == known
    for other in ({"batch_size": 128}, {"model": "resnet80"}, {"image_size": 32}, {"precision": "float32"}):
        assert state.formats_of({**config, **other}) == {}


def test_active_seconds_leave_out_those_between_commands() -> None:
    first = [STARTED, replace(proposed(0), t=10.0), TrialAttempt(0, 0, t=11.0)]
    ended = TrialEnded(0, 0, "completed", "budget", t=20.0)
    again = [SweepResumed(SPEC, t=1000.0), replace(proposed(1), t=1001.0)]
    last = TrialEnded(1, 0, "completed", "budget", t=1010.0)
    assert replay([*first, ended]).active_s == 10
    assert replay([*first, ended, *again]).active_s == 10, "no trial has ended since"
    assert replay([*first, ended, *again, last]).active_s == 20


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return a journal with every kind of event that a search writes."""
    chaos = Chaos(kill=0.02, lose=0.1, late=0.5, signal=0.04)
    simulation = Simulation(tmp_path_factory.mktemp("record"), Setup(trials=10, slots=2, seed=3), chaos, seed=8)
    simulation.run()
    content = simulation.path.read_bytes()
    kinds = {json.loads(line)["event"] for line in content.splitlines()}
    assert len(kinds) == 8
    return content


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), slots=st.integers(1, 4), lose=st.sampled_from([0.0, 0.2]))
def test_any_prefix_replays_to_the_state_that_the_live_sweep_had(
    tmp_path_factory: pytest.TempPathFactory, seed: int, slots: int, lose: float
) -> None:
    live: dict[int, SweepState] = {}

    def watch(event: Event, state: SweepState) -> None:
        if event.n >= 0:  # not told again: then subscribers see the past with the newest state
            live[event.n] = copy.deepcopy(state)

    setup = Setup(trials=3, slots=slots, seed=seed % 100)
    simulation = Simulation(tmp_path_factory.mktemp("live"), setup, Chaos(0.05, lose, 0.5, 0.02), seed, watch)
    simulation.run()
    events, _ = read(simulation.path)
    unseen = {event.n for event in events} - set(live)  # on the disk when the driver was killed, before it was folded
    assert len(unseen) <= sum(isinstance(event, SweepResumed) for event in events)
    state = SweepState()
    for event in events:
        fold(state, event)
        assert event.n in unseen or state == live[event.n]


def test_a_journal_cut_at_any_byte_loses_only_what_was_torn(
    record: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # thousands of cuts; the power stays on
    path, aside = tmp_path / "journal.jsonl", tmp_path / "journal.damaged.jsonl"
    lines = record.splitlines(keepends=True)[:13]
    record = b"".join(lines)
    assert b'"more"' in record
    starts = [sum(map(len, lines[:i])) for i in range(len(lines))]
    events = [parse(json.loads(line)) for line in lines]
    for cut in range(len(record)):
        path.write_bytes(record[:cut])
        aside.unlink(missing_ok=True)
        whole = sum(start + len(line) - 1 <= cut for start, line in zip(starts, lines, strict=True))
        while whole and events[whole - 1].more:
            whole -= 1  # appended together, lost together
        journal = Journal(path)
        assert journal.state.next_n == whole
        torn = record[starts[whole] : cut] if whole < len(starts) else b""
        kept = aside.read_bytes() if aside.exists() else b""
        assert sorted(kept.split(b"\n")) == sorted(torn.split(b"\n") + [b""] * (bool(torn) and torn[-1:] != b"\n"))
        if cut % 7 == 0:
            journal.append(proposed(99))
            assert read(path)[0][:-1] == events[:whole]
            assert replay(read(path)[0]) == journal.state
        journal.close()


def test_a_damaged_line_loses_itself_alone(record: bytes, tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    lines = record.splitlines(keepends=True)
    for at in range(len(lines) - 1):
        path.write_bytes(b"".join([*lines[:at], b"\xff\x00" + lines[at][2:], *lines[at + 1 :]]))
        journal = Journal(path)
        journal.close()
        kept = [parse(json.loads(line)) for i, line in enumerate(lines) if i != at]
        assert read(path) == (kept, [])
        assert journal.state == replay(kept)
        study = JournalStudy(Setup().space, "random", 3)
        journal.subscribe(study.observe)
        assert study.propose(journal.state.next_trial) is not None


def test_numbers_of_trials_whose_proposal_was_damaged_are_not_given_again() -> None:
    state = folded(STARTED, proposed(0), TrialAttempt(1, 0))
    assert (len(state.trials), state.next_trial) == (1, 2)


def test_lines_that_are_json_but_no_events_are_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text('[]\n{"v":2}\n\n{"v":2,"n":0,"t":0,"event":"sweep_ended","reason":"signal"}\n7\n{"v":2,"n":0}\n')
    journal = Journal(path)
    journal.close()
    assert journal.state.ended == "signal"
    assert len((tmp_path / "journal.damaged.jsonl").read_text().splitlines()) == 4


@pytest.mark.parametrize(("schema", "told"), [(SCHEMA + 1, "use a newer"), (1, "use the older")])
def test_another_schema_is_refused_and_left_alone(tmp_path: Path, schema: int, told: str) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text(f'{{"v":{schema},"n":0,"when":0,"what":"sweep"}}\n{{"v":{schema},"n')
    before = path.read_bytes()
    with pytest.raises(RecordError, match=rf"schema {schema}, this version reads 2, 3, 4 and 5; {told}"):
        Journal(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["journal.jsonl"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_folds_nothing_and_ends_the_writing(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append(STARTED)
    before, seen = copy.deepcopy(journal.state), list[Event]()
    journal.subscribe(seen.append)
    seen.clear()
    with Path("/dev/full").open("ab", buffering=0) as full:
        room, journal._file = journal._file, full
        for _ in range(2):
            with pytest.raises(JournalError, match=r"No space left on device.*--resume"):
                journal.append(proposed(0))
        journal._file = room
    with pytest.raises(JournalError):
        journal.append(proposed(0))
    journal.close()
    assert (journal.state, seen) == (before, [])
    assert replay(read(journal.path)[0]) == before


def test_a_folder_that_is_not_there_is_reported(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match=r"cannot open the journal .*No such file"):
        Journal(tmp_path / "gone" / "journal.jsonl")


def test_an_event_is_on_the_disk_before_anybody_sees_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    order: list[str] = []
    flush = os.fsync

    def fsync(descriptor: int) -> None:
        order.append(f"flushed with {len(journal.path.read_bytes().splitlines())} lines, {journal.state.next_n} folded")
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    journal.subscribe(lambda event: order.append(event.kind))
    journal.append(STARTED, proposed(0))
    journal.close()
    assert order == ["flushed with 2 lines, 0 folded", "sweep_started", "trial_proposed"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_refused(tmp_path: Path, value: float) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    with pytest.raises(ValueError, match="not JSON compliant"):
        journal.append(STARTED, epoch(0, 1, value))
    journal.append(STARTED)
    journal.close()
    assert len(read(journal.path)[0]) == journal.state.next_n == 1


def test_what_is_folded_is_what_was_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    plan: dict[Any, Any] = {"shape": (1, 2), 3: "three"}
    journal.append(SweepStarted(Spec(plan=plan)))
    plan["later"] = 1
    journal.close()
    assert journal.state.spec.plan == {"shape": [1, 2], "3": "three"}
    assert journal.state == replay(read(journal.path)[0])


def test_a_reader_beside_a_writer_sees_whole_events_and_changes_nothing(record: bytes, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in record.splitlines()]
    journal = Journal(tmp_path / "journal.jsonl")
    for count, event in enumerate(lines[:20], start=1):
        journal.append(parse(event))
        assert replay(read(journal.path)[0]) == journal.state
        assert journal.state.next_n == lines[count - 1]["n"] + 1
    with journal.path.open("ab") as half_a_line:
        half_a_line.write(b'{"v":2,"n":')
    assert read(journal.path)[1] == [b'{"v":2,"n":']
    assert read(journal.path)[1], "reading repairs nothing"
    journal.close()


def test_a_journal_that_was_deleted_takes_nothing_more(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append(STARTED)
    journal.path.unlink()
    with pytest.raises(JournalError, match="was deleted"):
        journal.append(proposed(0))
    assert not journal.state.trials
    journal.close()


def test_subscribers_see_what_was_read_and_what_is_appended(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append(STARTED)
    journal.close()
    journal, seen = Journal(journal.path), list[Event]()
    journal.subscribe(seen.append)
    journal.append(proposed(0))
    journal.close()
    assert [(event.kind, event.n) for event in seen] == [("sweep_started", -1), ("trial_proposed", 1)]


def test_what_has_happened_is_told_again_from_the_state() -> None:
    ended = TrialEnded(0, 0, "stopped", "asha")
    state = folded(*RUNNING, epoch(0, 1, 0.5), epoch(0, 2, 0.4), ended, proposed(1), epoch(1, 1, None))
    told = list(retell(state))
    assert [event.kind for event in told] == [
        "sweep_started", "trial_proposed", "trial_epoch", "trial_ended", "trial_proposed", "trial_epoch",
    ]  # fmt: skip
    assert [event.n for event in told] == [-1] * 6
    assert isinstance(told[2], TrialEpoch)
    assert (told[2].epoch, told[2].metrics["val_accuracy"]) == (2, 0.5), "the running best, at the last epoch"
    again = replay(replace(event, n=n) for n, event in enumerate(told))
    assert {n: (t.params, t.config, t.score, t.end, t.index) for n, t in again.trials.items()} == {
        n: (t.params, t.config, t.score, t.end, t.index) for n, t in state.trials.items()
    }


def test_a_journal_pickles_as_its_path(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    assert pickle.loads(pickle.dumps(journal)).__dict__ == {"path": journal.path}  # noqa: S301 - our own
    journal.close()


def test_epochs_are_what_was_recorded() -> None:
    recorded: list[dict[str, Any]] = [
        {"epoch": 1, "val_accuracy": None, "stop_reason": None},
        {"epoch": 2, "val_accuracy": 0.5, "stop_reason": None},
        {"epoch": 3, "val_accuracy": 0.5, "stop_reason": "budget"},
    ]
    assert list(Epochs(recorded)) == recorded
    assert list(Epochs(recorded[:1])) == recorded[:1]
    assert Epochs(recorded).number == 3


def test_the_values_at_an_epoch_are_found_without_a_search_for_each() -> None:
    reached, many = Reached(), 20_000
    for trial in range(many):
        reached.append(trial, None if trial % 2 else trial / many)
    values = {trial: None if trial % 2 else trial / many for trial in range(many)}
    assert reached == values
    assert dict(reached.items()) == values
    assert reached[2] == 2 / many
    assert 1 in reached
    assert many not in reached
