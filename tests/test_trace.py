"""`--profile`: where a command's seconds went, in Chrome's trace format."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import journals
import pytest
from conftest import Finished

from orchestrator import sweep, validation
from orchestrator.record.trace import COMMAND, SLOTS, Trace, tracing
from trainables.errors import ConfigError


def spans(path: Path, process: int) -> list[dict[str, Any]]:
    """Return the spans of a process in a trace, by time."""
    events = json.loads(path.read_text())["traceEvents"]
    return sorted((e for e in events if e["ph"] == "X" and e["pid"] == process), key=lambda span: span["ts"])


def test_steps_follow_each_other_from_the_start_of_the_process(tmp_path: Path) -> None:
    trace = Trace("plan")
    trace.next("search")
    with trace.beside("start Ray"):
        time.sleep(0.01)
    trace.write(tmp_path / "trace.json")
    main, other = ([s for s in spans(tmp_path / "trace.json", COMMAND) if s["tid"] == tid] for tid in (0, 1))
    assert [span["name"] for span in main] == ["start of Python and imports", "plan", "search"]
    assert main[0]["ts"] == 0
    assert all(abs(a["ts"] + a["dur"] - b["ts"]) <= 1 for a, b in pairwise(main))
    assert [span["name"] for span in other] == ["start Ray"]
    assert other[0]["dur"] >= 10_000
    assert spans(tmp_path / "trace.json", SLOTS) == []


def test_attempts_have_lanes_and_hold_their_work(tmp_path: Path) -> None:
    events = journals.sweep(12)
    trace = Trace("search")
    trace.began = journals.STARTED
    trace.journal = journals.write(events, tmp_path) / "journal.jsonl"
    trace.write(tmp_path / "trace.json")
    found = spans(tmp_path / "trace.json", SLOTS)
    attempts = [span for span in found if span["name"].startswith("trial")]
    assert sorted(span["name"] for span in attempts) == sorted(f"trial {number}" for number in range(12))
    assert {span["tid"] for span in attempts} == set(range(journals.SLOTS))
    for span in found:
        holding = [a for a in attempts if a["tid"] == span["tid"] and a["ts"] <= span["ts"]]
        assert span["ts"] + span["dur"] <= holding[-1]["ts"] + holding[-1]["dur"] + 1
    training = [span["dur"] for span in found if span["name"] == "epoch 1: training"]
    assert training == pytest.approx([journals.TRAIN_S * 1e6] * 12, rel=1e-3)


def test_what_earlier_commands_did_is_left_out(tmp_path: Path) -> None:
    trace = Trace("search")
    trace.journal = journals.write(journals.sweep(3), tmp_path) / "journal.jsonl"  # of 2023
    trace.write(tmp_path / "trace.json")
    assert spans(tmp_path / "trace.json", SLOTS) == []


def test_a_sweep_writes_its_profile(confirmed: tuple[Finished, Path]) -> None:
    done, folder = confirmed
    path = folder.parent / "profile.json"
    names = [span["name"] for span in spans(path, COMMAND)]
    for name in ("read the data", "wait for Ray", "search and confirm", "test metrics", "best/", "report"):
        assert name in names
    assert [span["name"] for span in spans(path, COMMAND) if span["tid"] == 1] == ["start Ray"]
    whole = sum(span["dur"] for span in spans(path, COMMAND) if span["tid"] == 0) / 1e6
    assert whole >= done.result["wall_s"]
    epochs = [span for span in spans(path, SLOTS) if span["name"].endswith("training")]
    assert len(epochs) >= done.result["epochs"]


@pytest.mark.parametrize("place", ["", "file/profile.json"])
def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"--profile .*(is a folder; name a file|cannot be written)"):
        validation.check(sweep.SweepOptions("digits", results=tmp_path / "r", profile=tmp_path / place), None)


def test_a_profile_that_cannot_be_written_costs_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KeyboardInterrupt), tracing(tmp_path / "gone" / "profile.json", "plan"):
        raise KeyboardInterrupt
    assert "profile.json could not be written: No such file or directory" in capsys.readouterr().err
