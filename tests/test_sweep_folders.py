"""Damaged, foreign and half-written folders: all commands that read a sweep treat each alike.

A command either reads what is left of the record, or refuses in messages that name the file, with exit code 2; there is
never a traceback, and never a word of damage where the fault is this project's.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator import predict, sweep
from orchestrator.doctor import __main__ as doctor
from orchestrator.leaderboard import __main__ as leaderboard
from orchestrator.report import __main__ as report

SEARCH = Path(__file__).parent / "golden" / "schema-2" / "search"
Damage = Callable[[Path], object]


def lines(folder: Path) -> list[bytes]:
    """Return the lines of the journal, with their ends."""
    return (folder / "journal.jsonl").read_bytes().splitlines(keepends=True)


def journal(folder: Path, *content: bytes) -> None:
    """Write the journal anew."""
    (folder / "journal.jsonl").write_bytes(b"".join(content))


def without_first_line(folder: Path) -> None:
    journal(folder, b"#" * 40 + b"\n", *lines(folder)[1:])


def emptied(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def changed(folder: Path, event: str, **fields: object) -> None:
    """Give the first event of a kind other values."""
    content = lines(folder)
    place = next(n for n, line in enumerate(content) if f'"event": "{event}"'.encode() in line)
    line = json.loads(content[place]) | fields
    journal(folder, *content[:place], json.dumps(line).encode() + b"\n", *content[place + 1 :])


def of_another_plan(folder: Path) -> None:
    """Have the record's plan hold what this version does not know."""
    spec = json.loads(lines(folder)[0])["spec"]
    changed(folder, "sweep_started", spec=spec | {"plan": {"name": "search", "arms": {"": 5}}})
    (folder / "sweep.json").unlink()


def then(*steps: Damage) -> Damage:
    """Return what does all of these to a folder, in order."""

    def damage(folder: Path) -> None:
        for step in steps:
            step(folder)

    return damage


def write(name: str, content: bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(content)


def remove(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def keep(name: str) -> Damage:
    """Remove everything but one file."""

    def damage(folder: Path) -> None:
        for path in folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != name:
                path.unlink()

    return damage


READ: dict[str, Damage] = {
    "complete": then(),
    "a torn last line": lambda folder: journal(folder, *lines(folder), b'{"v": 3, "n": 9'),
    "a damaged line in the middle": lambda folder: journal(folder, *lines(folder)[:9], b"#\n", *lines(folder)[10:]),
    "metrics that are a text": lambda folder: changed(folder, "trial_epoch", metrics="good"),
    "a configuration that is a list": lambda folder: changed(folder, "trial_proposed", config=[1]),
    "a worker of another type": lambda folder: changed(folder, "trial_epoch", worker=7),
    "a damaged first line": without_first_line,
    "sweep.json damaged": write("sweep.json", b"{"),
    "sweep.json missing": remove("sweep.json"),
    "tables damaged": write("leaderboard.parquet", b"PAR1"),
    "only a journal": keep("journal.jsonl"),
}
"""What is left of the record is read."""

REFUSED: dict[str, tuple[Damage, str]] = {
    "no such folder": (shutil.rmtree, "no such"),
    "empty": (emptied, "journal.jsonl"),
    "foreign": (then(emptied, write("notes.txt", b"x")), "journal.jsonl"),
    "killed at once": (then(emptied, write("sweep.lock", b"")), "journal.jsonl"),
    "an empty journal": (then(emptied, write("journal.jsonl", b"")), "does not say how the sweep began"),
    "a torn first line": (
        then(emptied, write("journal.jsonl", b'{"v": 3, "n": 0, "t"')),
        "does not say how the sweep began",
    ),
    "binary": (write("journal.jsonl", bytes(range(256)) * 9), "none of its lines can be read"),
    "another program's JSON": (write("journal.jsonl", b'{"a": 1}\n[2]\n'), "none of its lines can be read"),
    "a newer schema": (write("journal.jsonl", b'{"v": 99, "n": 0}\n'), "schema 99"),
    "a damaged first line, and no copy": (
        then(without_first_line, remove("sweep.json")),
        "does not say how the sweep began",
    ),
    "a damaged first line, and a damaged copy": (
        then(without_first_line, write("sweep.json", b"[1, 2]")),
        "does not say how the sweep began",
    ),
    "a plan of another version": (of_another_plan, "plan in this sweep's record is damaged"),
    "a journal that is a folder": (
        then(remove("journal.jsonl"), lambda folder: (folder / "journal.jsonl").mkdir()),
        "journal.jsonl",
    ),
}
"""Nothing of it can be used: how the folder is made so, and what the messages say."""


def resume(folder: Path) -> int:
    return sweep.main(["--results", str(folder.parent), "--resume", folder.name])


def examine(folder: Path) -> int:
    return doctor.main(["--results", str(folder.parent), "--resume", folder.name])


COMMANDS: dict[str, Callable[[Path], int]] = {
    "sweep --resume": resume,
    "leaderboard": lambda folder: leaderboard.main([str(folder)]),
    "report": lambda folder: report.main([str(folder)]),
    "doctor --resume": examine,
}
IN_PROCESS = ("leaderboard", "report")  # the others start Ray
WITH_RAY = ("sweep --resume", "doctor --resume")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a finished sweep, which a test may damage."""
    return shutil.copytree(SEARCH, tmp_path / "results" / "search")


def refusal(damage: str, command: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    harm, words = REFUSED[damage]
    harm(folder)
    code = COMMANDS[command](folder)
    shown = capsys.readouterr()
    assert code == 2, shown
    message = " ".join((shown.err + shown.out).split())
    assert words in message or (damage in UNNAMED and "no such sweep" in message), message
    assert "Traceback" not in message


UNNAMED = ("no such folder", "empty", "foreign", "killed at once", "a journal that is a folder")
"""Where `--resume` names no sweep: the sweeps that there are follow."""


@pytest.mark.parametrize("command", IN_PROCESS)
@pytest.mark.parametrize("damage", REFUSED)
def test_what_is_no_sweep_is_refused(
    damage: str, command: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refusal(damage, command, folder, capsys)


@pytest.mark.parametrize("damage", REFUSED)
def test_what_is_no_sweep_is_not_resumed(damage: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(folder.rglob("*"))
    refusal(damage, "sweep --resume", folder, capsys)
    assert damage != "binary" or {path.name for path in folder.rglob("*")} - {path.name for path in before} <= {
        "sweep.lock"
    }, "a foreign file stays as it is"


@pytest.mark.slow
@pytest.mark.parametrize("damage", REFUSED)
def test_what_is_no_sweep_is_refused_by_the_doctor(
    damage: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refusal(damage, "doctor --resume", folder, capsys)


RESUMABLE = ("complete", "a torn last line", "a damaged first line", "sweep.json damaged", "sweep.json missing",
             "tables damaged")  # fmt: skip
"""Of these nothing is left to train: of others a lost trial is due again, or the model is made anew."""


@pytest.mark.parametrize(
    ("damage", "command"),
    [*((damage, command) for damage in READ for command in IN_PROCESS), *((d, "sweep --resume") for d in RESUMABLE)],
)
def test_what_is_left_of_a_record_is_read(
    damage: str, command: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    READ[damage](folder)
    code = COMMANDS[command](folder)
    shown = capsys.readouterr()
    assert code == 0, shown
    assert "Traceback" not in shown.err


@pytest.mark.parametrize("damage", [*READ, *REFUSED])
def test_predict_needs_the_bundle_alone(damage: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever the record is like: the model is labelled with as long as its own files are complete."""
    picture = SEARCH.parent / "pictures" / "11.png"
    harm = READ[damage] if damage in READ else REFUSED[damage][0]
    harm(folder)
    code = predict.main([str(folder / "best"), str(picture)])
    shown = capsys.readouterr()
    if (folder / "best" / "config.json").exists():
        assert (code, shown.out.split()[-2]) == (0, "1"), shown
    else:
        assert code == 2
        assert str(folder / "best") in shown.err
    assert predict.main([str(folder), str(picture)]) == 2
    assert str(folder) in capsys.readouterr().err


@pytest.mark.parametrize("command", IN_PROCESS)
def test_a_fault_of_ours_is_not_called_damage(command: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is raised as it is, so that it is reported and repaired."""

    def broken(*arguments: object) -> None:
        raise AttributeError("a fault of ours")

    for module in ("orchestrator.assessment.tables.leaderboard", "orchestrator.report.page.tables.leaderboard"):
        monkeypatch.setattr(module, broken)
    with pytest.raises(AttributeError, match="a fault of ours"):
        COMMANDS[command](folder)
