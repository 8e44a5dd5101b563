"""The early model: `best/` has the best completed trial while a sweep runs, and is whole whenever it is looked at."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from conftest import ROOT, Finished
from journals import WORKER, trial
from rich.console import Console

from orchestrator import conclusion
from orchestrator.bundle import bundle, early_model
from orchestrator.bundle.early_model import EarlyModel
from orchestrator.cluster import machine
from orchestrator.plan import plan
from orchestrator.plan.context import SweepContext, SweepData
from orchestrator.plan.options import SweepOptions
from orchestrator.plan.request import Request
from orchestrator.record.events import SweepStarted
from orchestrator.record.facts import Spec
from orchestrator.record.journal import Journal
from orchestrator.record.trace import Trace
from trainables import checkpoint, files
from trainables.datasets.inventory import Inventory
from trainables.loop import TrialState
from trainables.storage import Storage


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SweepContext]:
    """Return a sweep that has begun, over data that are learned in milliseconds."""
    monkeypatch.setattr(early_model, "AT_MOST_S", 0.0)
    monkeypatch.setattr(early_model, "AT_MOST_SHARE", 0)
    options = SweepOptions(dataset="digits", results=tmp_path)
    planned = plan.make(Request(options), [machine.Resources(2, 0)])
    (tmp_path / "sweep").mkdir()
    journal = Journal(tmp_path / "sweep" / "journal.jsonl")
    journal.append(SweepStarted(Spec(plan=planned.to_dict())))
    data = SweepData(tiny.search_data(), {}, Inventory(""))
    console = Console(file=io.StringIO(), width=200)
    yield SweepContext(planned, data, journal, Storage(str(tmp_path / "kept")), True, console, Trace("test"))
    journal.close()


def complete(context: SweepContext, number: int, score: float, status: str = "completed", **fields: Any) -> None:
    """Record a trial of one epoch, whose weights are kept."""
    config = tiny.config(seed=number, **fields)
    data = tiny.select(config)
    state = TrialState.start(config, data, torch.device("cpu"))
    tensors = {f"best.{name}": tensor for name, tensor in state.kept_weights().items()}
    content = checkpoint.pack(tensors, {"best_epoch": 1, "calibration": None})
    checkpoint.save(context.storage, number, 0, 1, content)
    context.journal.append(*trial(number, [score], status, config=config.to_dict(), worker=WORKER))


def follow(context: SweepContext, *scores: float) -> EarlyModel:
    """Follow the sweep while one trial after the other completes; each is written before the next one ends."""
    early = EarlyModel(context)
    context.journal.subscribe(early.observe)
    for number, score in enumerate(scores, start=len(context.state.trials)):
        complete(context, number, score)
        with early.finishing():
            pass
    return early


def written(context: SweepContext) -> str:
    file = context.console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_the_first_completed_trial_is_there_and_better_ones_replace_it(context: SweepContext) -> None:
    early = follow(context, 0.5)
    there = bundle.read(context.folder.bundle)
    assert (there.description.trial, there.description.kind, there.metrics.confirmed) == (0, "early", False)
    assert "0.5000, not confirmed; better ones replace it" in written(context)
    assert "a sweep that was still running" in (context.folder.bundle / "README.md").read_text()
    for score, best in ((0.4, 0), (0.7, 2), (0.6, 2)):
        complete(context, len(context.state.trials), score)
        with early.finishing():
            pass
        assert bundle.read(context.folder.bundle).description.trial == best
    assert written(context).count("has the model of trial") == 2
    assert len(bundle.load(context.folder.bundle).predict([tiny.search_data().images[0]]).labels) == 1


def test_trials_that_were_stopped_or_diverged_are_no_model(context: SweepContext) -> None:
    early = EarlyModel(context)
    context.journal.subscribe(early.observe)
    complete(context, 0, 0.9, "stopped")
    complete(context, 1, 0.9, "diverged")
    with early.finishing():
        pass
    assert not context.folder.bundle.exists()


def test_a_confirmed_model_of_an_earlier_command_stays(context: SweepContext, confirmed: tuple[Finished, Path]) -> None:
    shutil.copytree(confirmed[1] / "best", context.folder.bundle)
    before = (context.folder.bundle / "config.json").read_bytes()
    follow(context, 0.99)
    assert (context.folder.bundle / "config.json").read_bytes() == before


def test_a_confirmed_model_stays_until_there_is_another(
    context: SweepContext, confirmed: tuple[Finished, Path]
) -> None:
    """A command that adds trials and is interrupted once put an unconfirmed one there."""
    shutil.copytree(confirmed[1] / "best", context.folder.bundle)
    before = (context.folder.bundle / "config.json").read_bytes()
    complete(context, 0, 0.99)
    conclusion._bundle(context)
    assert (context.folder.bundle / "config.json").read_bytes() == before
    assert "keeps the confirmed model of an earlier command" in written(context)


def test_a_resumed_sweep_goes_on_from_the_model_that_is_there(context: SweepContext) -> None:
    follow(context, 0.5, 0.7)
    context.journal.close()
    journal = Journal(context.journal.path)
    resumed = SweepContext(context.plan, context.loaded, journal, context.storage, True, context.console, context.trace)
    early = follow(resumed, 0.6)
    assert bundle.read(context.folder.bundle).description.trial == 1
    complete(resumed, 3, 0.8)
    with early.finishing():
        pass
    assert bundle.read(context.folder.bundle).description.trial == 3
    journal.close()


def test_at_most_so_often(context: SweepContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(early_model, "AT_MOST_S", 3600.0)
    follow(context, 0.5, 0.7)
    assert bundle.read(context.folder.bundle).description.trial == 0


def test_a_disk_that_takes_it_not_costs_the_early_model_alone(
    context: SweepContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    early = follow(context, 0.5)
    monkeypatch.setattr(bundle, "replace_file", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    complete(context, 1, 0.7)
    with early.finishing():
        pass
    assert bundle.read(context.folder.bundle).description.trial == 0
    assert "no early model" in written(context)
    assert [path.name for path in context.folder.path.iterdir() if path.name.startswith(".")] == []


def test_without_weights_there_is_none(context: SweepContext) -> None:
    early = EarlyModel(context)
    context.journal.subscribe(early.observe)
    config = tiny.config().to_dict()
    context.journal.append(*trial(0, [0.5], config=config))
    with early.finishing():
        pass
    assert not context.folder.bundle.exists()
    assert written(context) == ""


# the folder is replaced at once


@pytest.mark.parametrize("exchanged", [True, False])
def test_a_folder_is_replaced(exchanged: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not exchanged:
        monkeypatch.setattr(files, "_exchange", lambda *_: False)
    for content in ("1", "2", "3"):
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / "file").write_text(content)
        files.replace_folder(tmp_path / "new", tmp_path / "folder")
        assert [path.name for path in tmp_path.iterdir()] == ["folder"]
        assert (tmp_path / "folder" / "file").read_text() == content


def test_a_folder_that_was_taken_away_is_put_back(tmp_path: Path) -> None:
    (tmp_path / ".folder.old").mkdir()
    files.restore_folder(tmp_path / "folder")
    assert (tmp_path / "folder").is_dir()
    (tmp_path / ".folder.old").mkdir()
    files.restore_folder(tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


REPLACING = """
import sys
from pathlib import Path
from trainables import files
base = Path(sys.argv[1])
for number in range(10**6):
    (base / "new").mkdir()
    for name in ("one", "other"):
        (base / "new" / name).write_text(str(number))
    files.replace_folder(base / "new", base / "folder")
"""


def test_a_reader_finds_a_whole_folder_whenever_the_writer_is_killed(tmp_path: Path) -> None:
    writer = subprocess.Popen([sys.executable, "-c", REPLACING, str(tmp_path)], cwd=ROOT)
    try:
        while not (tmp_path / "folder").exists():
            time.sleep(0.01)
        until = time.monotonic() + 0.3
        while time.monotonic() < until:
            assert os.path.isdir(tmp_path / "folder")  # noqa: PTH112 - at once
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    assert (tmp_path / "folder" / "one").read_text() == (tmp_path / "folder" / "other").read_text()


def test_a_sweep_says_that_its_first_model_is_there(finished: tuple[Finished, Path]) -> None:
    assert "not confirmed; better ones replace it" in finished[0].err
