"""Whatever lies in a sweep's folder: all commands agree on whether the sweep can be read; none shows a traceback."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from journals import write_lines

from orchestrator import conclusion, predict, sweep
from orchestrator.assessment import tables
from orchestrator.cluster import connection
from orchestrator.doctor import __main__ as doctor
from orchestrator.leaderboard import __main__ as leaderboard
from orchestrator.record.journal_lines import SCHEMA
from orchestrator.record.paths import SweepFolder
from orchestrator.report import __main__ as report
from trainables.errors import ConfigError

GOLDEN = Path(__file__).parent / "golden" / "schema-2"
REACHED = "Ray is not started in this test"


@dataclass(frozen=True)
class Case:
    """What is done to a sweep's folder, and what commands say of it; nothing if they read the sweep."""

    change: Callable[[SweepFolder], object]
    message: str = ""


def keep_only(**contents: bytes) -> Callable[[SweepFolder], object]:
    """Return what empties the folder but for these files; their names have `__` for the dot."""

    def change(folder: SweepFolder) -> None:
        shutil.rmtree(folder.path)
        folder.path.mkdir()
        for name, content in contents.items():
            (folder.path / name.replace("__", ".")).write_bytes(content)

    return change


def lines(folder: SweepFolder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in folder.journal.read_text().splitlines()]


def rewrite(folder: SweepFolder, events: list[dict[str, Any]]) -> None:
    write_lines(folder.journal, events)


def damage_line(folder: SweepFolder, number: int) -> None:
    """Overwrite the beginning of a line of the journal."""
    content = folder.journal.read_bytes().splitlines(keepends=True)
    content[number] = b"#\xff\x00#" + content[number][4:]
    folder.journal.write_bytes(b"".join(content))


def change_line(folder: SweepFolder, number: int, **values: Any) -> None:
    """Give the event on a line other values."""
    events = lines(folder)
    events[number] |= values
    rewrite(folder, events)


def change_plan(folder: SweepFolder, **values: Any) -> None:
    """Give the plan on the first line other values."""
    spec = lines(folder)[0]["spec"]
    change_line(folder, 0, spec=spec | {"plan": spec["plan"] | values})


def plan_alone(folder: SweepFolder) -> None:
    """Give the plan a value of another type, and remove `sweep.json`."""
    change_plan(folder, seed="x")
    folder.spec.unlink()


def wrong_types(folder: SweepFolder) -> None:
    """Give a proposal, an epoch, an end and a measurement values of other types."""
    events = lines(folder)
    kinds = {
        "trial_proposed": {"config": []},
        "trial_epoch": {"metrics": "good"},
        "trial_ended": {"status": 5, "figures": [1]},
        "test_measured": {"figures": {"rows": "many"}},
    }
    for kind, values in kinds.items():
        next(event for event in reversed(events) if event["event"] == kind).update(values)
    rewrite(folder, events)


def replace_by_folder(folder: SweepFolder) -> None:
    folder.journal.unlink()
    folder.journal.mkdir()


def first_and(spec: Callable[[Path], object]) -> Callable[[SweepFolder], object]:
    """Return what damages the first line, and does something to `sweep.json`, which repeats it."""

    def change(folder: SweepFolder) -> None:
        damage_line(folder, 0)
        spec(folder.spec)

    return change


EMPTY = "does not say how the sweep began: it is empty; restore it from a copy"
NO_JOURNAL = "is damaged, or is not a journal: none of its lines can be read; restore it from a copy"
CASES = {
    "as it was": Case(lambda folder: None),
    "no folder": Case(lambda folder: shutil.rmtree(folder.path), "no such"),
    "an empty folder": Case(keep_only(), "is not a sweep's folder: it has n"),
    "a foreign folder": Case(keep_only(notes__txt=b"notes", data__csv=b"1,2"), "is not a sweep's folder: it has n"),
    "only a lock": Case(keep_only(sweep__lock=b""), "is not a sweep's folder: it has n"),
    "an empty journal": Case(keep_only(sweep__lock=b"", journal__jsonl=b""), EMPTY),
    "no complete line": Case(keep_only(journal__jsonl=b'{"v": 3, "n": 0, "t"'), EMPTY),
    "first line damaged": Case(first_and(lambda spec: None)),
    "first line damaged, no sweep.json": Case(
        first_and(Path.unlink),
        "does not say how the sweep began: its first line is damaged, and sweep.json, which repeats it, is missing",
    ),
    "first line and sweep.json damaged": Case(
        first_and(lambda spec: spec.write_bytes(b'{"plan": {"na')),
        "is damaged, too (it is not JSON); restore one of the two",
    ),
    "a plan of wrong types": Case(lambda folder: change_plan(folder, arms={"": 5})),
    "a plan of wrong types, no sweep.json": Case(
        plan_alone,
        "its first line is damaged (seed: 'x' is not a whole number), and sweep.json",
    ),
    "a line amid the journal damaged": Case(lambda folder: damage_line(folder, 9)),
    "a torn last line": Case(lambda folder: folder.journal.write_bytes(folder.journal.read_bytes()[:-9])),
    "only the journal": Case(lambda folder: keep_only(journal__jsonl=folder.journal.read_bytes())(folder)),
    "another program's JSON": Case(lambda folder: folder.journal.write_bytes(b'{"a": 1}\n[2]\n'), NO_JOURNAL),
    "a worker of another type": Case(lambda folder: change_line(folder, 11, worker=7)),
    "metrics that are a text": Case(lambda folder: change_line(folder, 11, metrics="good")),
    "a newer schema": Case(
        lambda folder: rewrite(folder, [event | {"v": SCHEMA + 1} for event in lines(folder)]),
        f"has schema {SCHEMA + 1}, this version reads 2, 3, 4 and {SCHEMA}; use a newer sweep-orchestrator for it",
    ),
    "garbage as sweep.json": Case(lambda folder: folder.spec.write_bytes(b"\xff\x00garbage")),
    "garbage as leaderboard.parquet": Case(lambda folder: folder.leaderboard.write_bytes(b"\xff\x00garbage")),
    "a folder as journal": Case(replace_by_folder, "journal.jsonl cannot be read: Is a directory"),
    "an unreadable journal": Case(
        lambda folder: folder.journal.chmod(0), "journal.jsonl cannot be read: Permission denied"
    ),
    "binary garbage as journal": Case(lambda folder: folder.journal.write_bytes(bytes(range(256)) * 20), NO_JOURNAL),
    "values of wrong types": Case(wrong_types),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[SweepFolder, Case]:
    """Return a copy of an ended sweep after the change of a case, and the case."""
    if request.param == "an unreadable journal" and os.geteuid() == 0:
        pytest.skip("root may read everything")
    folder = SweepFolder(Path(shutil.copytree(GOLDEN / "search", tmp_path / "results" / "sweep")))
    found = CASES[request.param]
    found.change(folder)
    return folder, found


def verdict(
    capsys: pytest.CaptureFixture[str], main: Callable[[list[str]], int], *arguments: object
) -> tuple[int, str]:
    """Return the exit code of a command and what it wrote to standard error."""
    code = main([str(argument) for argument in arguments])
    written = capsys.readouterr().err
    assert "Traceback" not in written
    return code, written


def check(case: Case, code: int, written: str) -> None:
    """Check that a sweep was read, or was refused in one sentence that says what is wrong and what to do."""
    if not case.message:
        assert code == 0, written
        return
    assert (code, len(written.splitlines())) == (2, 1), written
    assert case.message in written
    assert "; " in written, "it says what to do"


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have whoever would start Ray say so instead, and nothing be made again of a sweep that has ended."""

    @contextmanager
    def connect(*arguments: object) -> Iterator[None]:
        raise ConfigError(REACHED)
        yield

    monkeypatch.setattr(connection, "connect", connect)
    monkeypatch.setattr(conclusion, "show_finished", lambda *arguments: None)
    monkeypatch.syspath_prepend(GOLDEN.parent)


@pytest.mark.usefixtures("no_ray")
def test_resuming_it(case: tuple[SweepFolder, Case], capsys: pytest.CaptureFixture[str]) -> None:
    """A sweep that lacks a trial by damage goes on, which needs Ray; what is refused stays as it is."""
    folder, refusal = case
    before = folder.journal.read_bytes() if folder.journal.is_file() else None
    code, written = verdict(capsys, sweep.main, "--resume", folder.name, "--results", folder.path.parent, "--quiet")
    if REACHED not in written:
        check(refusal, code, written)
    if refusal.message and before is not None:
        assert folder.journal.read_bytes() == before
        assert not folder.damaged_lines.exists()


def test_its_leaderboard(case: tuple[SweepFolder, Case], capsys: pytest.CaptureFixture[str]) -> None:
    code, written = verdict(capsys, leaderboard.main, case[0].path)
    note = "of its journal cannot be read"
    check(case[1], code, "\n".join(line for line in written.splitlines() if note not in line))


def test_its_report(case: tuple[SweepFolder, Case], capsys: pytest.CaptureFixture[str]) -> None:
    check(case[1], *verdict(capsys, report.main, case[0].path))


@pytest.mark.usefixtures("no_ray")
def test_the_doctor_before_it_is_resumed(case: tuple[SweepFolder, Case], capsys: pytest.CaptureFixture[str]) -> None:
    """The doctor reads the sweep before it starts Ray."""
    folder = case[0].path
    code, written = verdict(capsys, doctor.main, "--resume", folder.name, "--results", folder.parent, "--quiet")
    if not case[1].message:
        assert (code, REACHED in written) == (11, True), written
        return
    what, arrow, fix = written.partition("→")
    assert code == 2
    assert case[1].message.partition("; ")[0] in what
    assert arrow
    assert fix.strip()


def test_its_model(case: tuple[SweepFolder, Case], capsys: pytest.CaptureFixture[str]) -> None:
    """A bundle needs no journal; the folder around it is none, and the message says where it is."""
    folder, picture = case[0], GOLDEN / "pictures" / "0.png"
    code, written = verdict(capsys, predict.main, folder.path, picture)
    assert (code, len(written.splitlines())) == (2, 1), written
    if not folder.bundle.is_dir():
        assert verdict(capsys, predict.main, folder.bundle, picture)[0] == 2
        return
    assert str(folder.bundle) in written or "best/" in written
    assert verdict(capsys, predict.main, folder.bundle, picture)[0] == 0


def test_commands_say_the_same_of_one_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = SweepFolder(Path(shutil.copytree(GOLDEN / "search", tmp_path / "sweep")))
    first_and(Path.unlink)(folder)
    written = [
        verdict(capsys, sweep.main, "--resume", "sweep", "--results", tmp_path)[1],
        verdict(capsys, leaderboard.main, folder.path)[1],
        verdict(capsys, report.main, folder.path)[1],
    ]
    assert len(set(written)) == 1


@pytest.mark.parametrize("main", [leaderboard.main, report.main])
def test_a_fault_of_ours_is_not_called_damage(
    main: Callable[[list[str]], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is raised as it is, so that it is reported and repaired."""

    def broken(*arguments: object) -> None:
        raise AttributeError("a fault of ours")

    folder = shutil.copytree(GOLDEN / "search", tmp_path / "sweep")
    monkeypatch.setattr(tables, "leaderboard", broken)
    with pytest.raises(AttributeError, match="a fault of ours"):
        main([str(folder)])
