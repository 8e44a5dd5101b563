"""`--log`: every tracker has one run for each trial, with every epoch once, whatever fails."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from conftest import SEARCH, Command
from journals import write_lines
from simulation import SPACE, Chaos, Setup, Simulation

from orchestrator import loggers, validation
from orchestrator.cluster import machine
from orchestrator.loggers import run
from orchestrator.loggers.follower import Follower
from orchestrator.loggers.trackers import TRACKERS, check, make
from orchestrator.plan import plan
from orchestrator.plan.options import SweepOptions
from orchestrator.plan.request import Request
from orchestrator.record.events import SweepEnded, parse
from orchestrator.record.journal import Tail
from orchestrator.record.journal_lines import SCHEMA, encode
from orchestrator.record.state import SweepState, TrialRecord, replay
from orchestrator.search.study import JournalStudy
from trainables.errors import ConfigError

COMMANDS = 4  # that the sweep below is logged by, all but the last of them killed


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Return a sweep whose workers and driver died, with two final runs, one of them measured on the test set."""
    folder = tmp_path_factory.mktemp("simulated")
    Simulation(folder, Setup(trials=6, seeds=2), Chaos(kill=0.02, lose=0.1, late=0.5, signal=0.05), seed=3).run()
    events: list[dict[str, Any]] = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    planned = plan.make(Request(SweepOptions("digits", name="sweep")), [machine.Resources(2, 0)]).to_dict()
    described = {
        "plan": planned | {"arms": {"": SPACE.to_dict()}},
        "git": {"revision": "abc", "dirty": False},
        "split": {"data_fingerprint": "f00"},
    }
    for event in events:
        if "spec" in event:
            event["spec"] |= described
        if "final_metrics" in event:  # of an ordinary sweep's final runs: the test set comes later
            event["final_metrics"] = {"validation": event["final_metrics"]["test"]}
    final = next(e["trial"] for e in events if e.get("final"))
    measured = {
        "event": "test_measured",
        "trial": final,
        "metrics": {"accuracy": 0.75, "rows": 8, "confusion": [[8]]},
    }
    events.append({**events[-1], "n": events[-1]["n"] + 1, **measured})
    losses = sum(event["event"] == "attempt_lost" for event in events)
    assert losses, "nothing went wrong in the simulation: choose another seed"
    assert sum(event["event"] == "sweep_resumed" for event in events)
    return events


def log_in_commands(events: list[dict[str, Any]], folder: Path, text: str) -> SweepState:
    """Have a tracker follow the sweep while it runs, in several commands, and once at its end; return its state."""
    folder.mkdir()
    path = folder / "journal.jsonl"
    size = -(-len(events) // (3 * COMMANDS))
    parts = [events[at : at + size] for at in range(0, len(events), size)]
    for command in range(COMMANDS):
        follower = Follower(folder, lambda state: make(text, folder, state))
        for part in parts[3 * command : 3 * command + 3]:
            with path.open("ab") as file:
                file.writelines(encode({key: value for key, value in event.items() if key != "crc"}) for event in part)
            assert follower.follow() is None
        follower.close()
    again = Follower(folder, lambda state: make(text, folder, state))
    assert again.follow() is None
    again.close()
    return replay(map(parse, events))


def test_tensorboard(events: list[dict[str, Any]], tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    state = log_in_commands(events, tmp_path / "sweep", "tensorboard")
    folders = {path.name for path in (tmp_path / "sweep" / "tensorboard").iterdir()}
    assert folders == {f"trial-{number}" for number, trial in state.trials.items() if trial.attempt >= 0}
    for trial in state.trials.values():
        found = EventAccumulator(str(tmp_path / "sweep" / "tensorboard" / f"trial-{trial.number}")).Reload()
        logged = [(one.step, pytest.approx(one.value)) for one in found.Scalars("val_loss")] if trial.epochs else []
        assert logged == [(epoch["epoch"], epoch["val_loss"]) for epoch in trial.epochs]
        if trial.score is not None:
            assert [one.value for one in found.Scalars("final/best_score")] == [pytest.approx(trial.score)]
        if trial.end is not None:
            assert len(found.PluginTagToContent("hparams")) == 3  # experiment, start and end of the session
        assert ("final/test/accuracy" in found.Tags()["scalars"]) == ("test" in trial.final_metrics)


@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")  # of SQLAlchemy, to MLflow
def test_mlflow(events: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="the extra mlflow, which is large, is not installed")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    state = log_in_commands(events, tmp_path / "sweep", "mlflow")
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/sweep/mlflow.db")
    [experiment] = [one for one in client.search_experiments() if one.name == "sweep"]
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(one.info.run_name for one in runs) == sorted(f"sweep/trial-{number}" for number in state.trials)
    for one in runs:
        trial = state.trials[int(one.data.tags["trial"])]
        assert_facts(one.data.tags, trial)
        assert one.data.tags["mlflow.source.git.commit"] == "abc"
        assert one.data.params == {name: str(value) for name, value in trial.config.items()}
        logged = client.get_metric_history(one.info.run_id, "val_loss") if trial.epochs else []
        assert [(value.step, value.value) for value in logged] == [(e["epoch"], e["val_loss"]) for e in trial.epochs]
        assert one.info.status == ("FINISHED" if trial.status in ("completed", "stopped") else "FAILED")
        for name, value in run.final_metrics(trial).items():
            logged = [entry.value for entry in client.get_metric_history(one.info.run_id, name)]
            assert logged == [pytest.approx(value)]


def test_wandb(events: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    state = log_in_commands(events, tmp_path / "sweep", "wandb")
    found = list((tmp_path / "sweep" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(found) == len(state.trials)
    for path in found:
        records = list(wandb_records(path))
        [start] = [record.run for record in records if record.HasField("run")]
        trial = state.trials[int(start.display_name.rpartition("-")[2])]
        assert (start.project, start.run_group) == ("digits", "sweep")
        settings = {item.key: json.loads(item.value_json) for item in start.config.update}
        assert settings["lr"] == trial.config["lr"]
        rows = [items(record.history.item) for record in records if record.HasField("history")]
        assert [(row["epoch"], row["val_loss"]) for row in rows] == [(e["epoch"], e["val_loss"]) for e in trial.epochs]
        summary: dict[str, Any] = {}
        for record in records:
            if record.HasField("summary"):
                summary |= items(record.summary.update)
        assert_facts(summary, trial)
        assert summary.get("test/accuracy") == (
            measured.accuracy if (measured := trial.final_metrics.get("test")) else None
        )


def items(found: Any) -> dict[str, Any]:
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in found}


def wandb_records(path: Path) -> Iterator[Any]:
    """Yield the records of a file of W&B, which is one of LevelDB's logs: blocks of 32 KiB, parts after 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if 2**15 - at % 2**15 < 7:
            at += 2**15 - at % 2**15
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + 7])
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(whole)
            whole = b""


def assert_facts(logged: dict[str, Any], trial: TrialRecord) -> None:
    assert trial.end is not None
    assert (logged["status"], logged["stop_reason"]) == (trial.status, trial.end.stop_reason)
    assert logged.get("confirms") == (None if trial.confirms is None else str(trial.confirms))
    assert (logged["git_revision"], logged["data_fingerprint"]) == ("abc", "f00")


def test_an_optuna_storage_has_what_the_search_saw(events: list[dict[str, Any]], tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/trials.db"
    state = log_in_commands(events, tmp_path / "sweep", f"optuna={url}")
    search = JournalStudy(SPACE, "random", 0)
    for event in events:
        search.observe(parse(event))
    there = {trial.user_attrs["trial"]: trial for trial in optuna.load_study(study_name="sweep", storage=url).trials}
    searched = [trial.number for trial in state.trials.values() if not trial.final]
    assert sorted(there) == searched
    for number, saw in zip(searched, search.study.trials, strict=True):
        stored = there[number]
        assert (stored.state, stored.params, stored.distributions) == (saw.state, saw.params, saw.distributions)
        last = dict(list(stored.intermediate_values.items())[-1:])  # the storage has all scores, the sampler needs one
        assert last == saw.intermediate_values
        assert stored.constraints == saw.constraints
        assert stored.value == saw.value or saw.state != optuna.trial.TrialState.COMPLETE


class Unreliable:
    """A tracker that cannot be reached by its first calls."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.epochs: dict[int, int] = {}

    def update(self, trial: TrialRecord) -> None:
        if self.failures:
            self.failures -= 1
            raise ConnectionError("gone")
        self.epochs[trial.number] = len(trial.epochs)

    def close(self) -> None: ...


def test_what_could_not_be_logged_is_logged_later(events: list[dict[str, Any]], tmp_path: Path) -> None:
    write_lines(tmp_path / "journal.jsonl", events)
    tracker = Unreliable(failures=2)
    follower = Follower(tmp_path, lambda state: tracker)
    for _ in range(2):
        assert isinstance(follower.follow(), ConnectionError)
        assert follower.behind
    assert follower.follow() is None
    assert not follower.behind
    assert tracker.epochs == {trial.number: len(trial.epochs) for trial in replay(map(parse, events)).trials.values()}


def test_a_tail_reads_whole_groups_once(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    tail = Tail(path)
    assert list(tail.read()) == []
    lines = [
        encode({"v": SCHEMA, "g": 1, "n": n, "t": 0, **SweepEnded("signal").content(), "more": n == 1})
        for n in range(4)
    ]
    seen = []
    for part in (lines[0] + lines[1], b"damaged\n", lines[2][:5], lines[2][5:] + lines[3]):
        with path.open("ab") as file:
            file.write(part)
        seen.append([event.n for event in tail.read()])
    assert seen == [[0], [1], [], [2, 3]]


def follow(texts: tuple[str, ...], events: list[dict[str, Any]], folder: Path) -> list[str]:
    """Return the messages of processes that follow a sweep which is over at once."""
    write_lines(folder / "journal.jsonl", events)
    messages: list[str] = []
    with loggers.following(texts, folder, messages.append):
        pass
    return messages


def test_a_tracker_that_fails_is_named_once(events: list[dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "tensorboard").touch()  # where a folder should be
    messages = follow(("tensorboard",), events, tmp_path)
    assert len([line for line in messages if "tensorboard cannot be updated (NotADirectoryError" in line]) == 1
    assert messages[-1].endswith(f"--resume {tmp_path.name} with the same --log sends the rest")
    assert "Traceback" in (tmp_path / "logs" / "tensorboard.log").read_text()


@pytest.mark.slow
def test_a_server_that_is_gone(events: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="the extra mlflow, which is large, is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    messages = follow(("mlflow", "tensorboard"), events, tmp_path)
    assert sum("mlflow cannot be updated" in line for line in messages) == 1
    assert not any("tensorboard cannot" in line or "tensorboard did not" in line for line in messages)


WRONG: dict[tuple[str, ...], str] = {
    ("tensorbord",): "did you mean tensorboard",
    ("optuna",): "the URL of a storage is needed",
    ("optuna=trials.db",): "this is not a URL",
    ("optuna=sqlite:////nowhere/at/all.db",): "it cannot be opened",
    ("optuna=nosql://host/db",): "it cannot be opened",
    ("optuna=postgresql://me:secret@host/db",): "a password belongs in the environment",
    ("tensorboard=x",): "nothing follows tensorboard",
    ("tensorboard", "tensorboard"): "name tensorboard once",
}


@pytest.mark.parametrize("asked", WRONG, ids=" ".join)
def test_wrong_trackers_are_named_at_once(asked: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=WRONG[asked]) as refused:
        validation.check(SweepOptions("digits", results=tmp_path, log=asked), None)
    assert "secret" not in str(refused.value)


def test_a_missing_client_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRACKERS, "mlflow", replace(TRACKERS["mlflow"], client="no_such_module"))
    [problem] = check(["mlflow"], None)
    assert "pip install 'sweep-orchestrator[mlflow]'" in problem


def test_a_study_that_is_there_is_not_another_sweeps(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/trials.db"
    optuna.create_study(storage=url, study_name="mine/arm")
    assert "it has a study mine already" in check([f"optuna={url}"], "mine")[0]
    assert check([f"optuna={url}"], "other") == check([f"optuna={url}"], None) == []


@pytest.mark.slow
def test_the_command(command: Command, tmp_path: Path) -> None:
    url = f"optuna=sqlite:///{tmp_path}/trials.db"
    begin = (*SEARCH, "--trials", "1", "--max-epochs", "1", "--results", tmp_path, "--json", "--name", "one")
    done = command(*begin, "--log", "tensorboard", url)
    assert done.code == 0, done.err
    assert {path.name for path in (tmp_path / "one/tensorboard").iterdir()} == {"trial-0"}
    assert len(optuna.load_study(study_name="one", storage=url[7:]).trials) == 1
    done = command("orchestrator.sweep", "--resume", "one", "--results", tmp_path, "--log", url)  # nothing twice
    assert done.code == 0, done.err
    assert len(optuna.load_study(study_name="one", storage=url[7:]).trials) == 1
